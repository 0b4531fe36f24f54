"""The paper's tables and figures, row by row.

    python reproduce.py demo                                   # made-up landscapes, two CPU cores, minutes
    python reproduce.py table2 --data tiles --configs configs/low2high --seeds 3
    python reproduce.py table2 --data runs/naip215/r? --configs configs/naip215 --out runs/tables  # adds sets up
    python reproduce.py beyond --data runs/naip215/nlcd-r? --configs configs/naip215 --out runs/tables-nlcd
    python reproduce.py figure5 --data tiles --configs configs/low2high --exemplars 10,100,1000 --out runs/figure5
    python reproduce.py table3 --data tiles --configs configs/low2high --leave-out va --auxiliary usa --other milwaukee

What is to be trained is listed first. Each step is one of the project's own commands and is printed before it runs. A
run that is complete is not trained again, one that was stopped goes on, and commands with the same --out share runs. On
CPUs two are trained at a time, with one thread each (--jobs).
"""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch

from curves import save_curve
from data.manifest import SPLITS, read_description, read_manifest
from metrics import Tally
from rows import BEYOND, HERE, folder, init_from, pretraining_run, row_runs, rows_with_configs, segmenter_run, train
from runtime.children import command
from runtime.command import parser as command_line
from runtime.command import place, status
from runtime.errors import Refused
from runtime.files import write_text
from runtime.workers import default_workers
from tables import PAPER_TABLE3, as_markdown, as_text, as_values, class_ious, gap_closed, rows_of

DEMO_TILES = "--tiles", 2000, "--bands", 4  # as NAIP has; a hundred of them test


def demo(arguments):
    """Every row of Tables 1 and 2 but Self-Epitomic LSR, on made-up landscapes or the tile set that --data names."""
    roots = arguments.data or [arguments.out / "tiles"]
    if not arguments.data:
        command("-m", "data.synthetic", roots[0], *DEMO_TILES)
    train_and_score(arguments, roots, rows_with_configs(arguments), "--oracle", sheet=True)


def table1(arguments):
    """The baselines: Oracle, Self-Epitomic LSR, Low, High."""
    train_and_score(arguments, needed(arguments), ("Low", "High"), "--oracle", lsr=True)


def table2(arguments):
    """The ablation, and the share of the gap from Low to High that each row closes."""
    train_and_score(arguments, needed(arguments), rows_with_configs(arguments))


def beyond(arguments):
    """Rows that read coarse labels as reports of composition, then with the coarse label at test, beside the paper's.

    Below the table: the share of the gap that each row closes, and the IoU of each class.
    """
    train_and_score(arguments, needed(arguments), rows_with_configs(arguments), observed=tuple(BEYOND))


def figure2(arguments):
    """Image, high label and low label under the merged taxonomy."""
    sheet = arguments.out / "figure2.png"
    command("evaluate.py", "--oracle", "--data", only(arguments), "--figure", sheet, *chosen_tiles(arguments))


def figure6(arguments):
    """Image, labels, and what High, Low and Ours predict."""
    train_and_score(arguments, needed(arguments), ("High", "Low", "Ours"), sheet=True)


def train_and_score(arguments, roots, names, *flags, observed=(), lsr=False, sheet=False):
    """Train rows for each tile set and seed, score them, print and write their table; with `sheet`, draw them too.

    observed: rows of BEYOND, scored twice, without and with the coarse label of what is tested
    """
    seeds, results = range(arguments.seeds), {root: [] for root in roots}
    runs = {
        (root, seed): [row_runs(arguments, name, root, seed) for name in (*names, *observed)]
        for root in roots
        for seed in seeds
    }
    train(arguments, [run for rows in runs.values() for row in rows for run in row])
    for (root, seed), rows in runs.items():
        out = folder(arguments, root)
        picture = out / f"figure6-{seed}.png"
        draw = ("--figure", picture, *chosen_tiles(arguments)) if sheet else ()
        scores = out / f"{arguments.what}-{seed}.json"
        segmenters = [row[-1] for row in rows]
        rows = score(segmenters, root, scores, *flags, *draw)
        if lsr:
            rows[1:1] = score_lsr(arguments, root, seed)
        if observed:
            coarse = out / f"{arguments.what}-coarse-{seed}.json"
            rows += score(segmenters[-len(observed) :], root, coarse, "--coarse")
        results[root].append(rows)
    rows = rows_of(results)
    where = " + ".join(str(root) for root in roots)
    notes = gap_closed(rows) + (class_ious(rows) if observed else [])
    report(arguments, f"Ours on {where}, test split{spread(arguments)}", ("row",), rows, notes)


def table3(arguments):
    """Ours with each pretraining set, tested where it was trained, on the regions left out and on another tile set.

    No image of a region left out is seen before the test: not in training, pretraining, exemplars or statistics. Where
    each of several tile sets leaves out the regions of its own test split, --leave-out is not needed.
    """
    roots = needed(arguments)
    if len(roots) == 1 and not arguments.leave_out:
        raise Refused("table3 needs --data ROOT and --leave-out REGION")
    # Where a set's whole test split is left out, what is tested at home is its validation tiles.
    own_split = arguments.own_split or ("test" if arguments.leave_out else "validation")
    plan, segmenters, tests = [], {}, {}
    for root in roots:
        regions = {split: set() for split in SPLITS}
        for row in read_manifest(HERE / root)[1]:
            regions[row["split"]].add(row["region"])
        left_out = set(arguments.leave_out or regions["test"])
        own = sorted(set.union(*regions.values()) - left_out)
        for where, split, chosen in (("own", own_split, own), ("left-out", arguments.left_out_split, left_out)):
            if split != "all" and not regions.get(split, set()) & set(chosen):
                raise Refused(f"--{where}-split {split}: {root} has no tile of it in {', '.join(sorted(chosen))}")
        tests[root] = {
            "own": ("--data", root, "--regions", ",".join(own), "--split", own_split),
            "left out": ("--data", root, "--regions", ",".join(sorted(left_out)), "--split", arguments.left_out_split),
        }
        if arguments.other:
            tests[root]["other"] = ("--data", arguments.other, "--split", arguments.other_split)
        seen = set.union(*(regions[split] for split in SPLITS if split != "test"))
        for seed in range(arguments.seeds):
            runs = table3_runs(arguments, root, seed, sorted(left_out) if left_out & seen else [])
            segmenters[root, seed] = {source: of_source[-1] for source, of_source in runs.items()}
            plan += [run for of_source in runs.values() for run in of_source]
    train(arguments, plan)
    results = {}
    for (root, seed), runs in segmenters.items():
        for test, words in tests[root].items():
            path = folder(arguments, root) / f"table3-{test.replace(' ', '_')}-{seed}.json"
            for source, row in zip(runs, score(runs.values(), None, path, *words), strict=True):
                results.setdefault((source, test), {}).setdefault(root, []).append(row)
    rows = [
        replace(rows_of({root: [[row] for row in seeds] for root, seeds in of_sets.items()})[0], names=names,
                paper=PAPER_TABLE3[names])
        for names, of_sets in results.items()
    ]
    where = " + ".join(str(root) for root in roots)
    without = ", ".join(arguments.leave_out or ["the regions of each test split"])
    heading = f"Table 3 on {where} without {without}{spread(arguments)}"
    report(arguments, heading, ("pretrained on", "tested on"), rows)


def table3_runs(arguments, root, seed, left_out):
    """-> {pretrained on what: [its runs, the segmenter last]}.

    left_out: regions to keep from these runs. Where only the test split has such regions, there is nothing to keep from
              them: then Agg+App and Ours of Table 2 are two of these rows.
    """
    out, limits = folder(arguments, root), [f"data.exclude_regions=[{','.join(left_out)}]"] if left_out else []
    starts = {"none": None}
    starts["own"] = pretraining_run(arguments, "mae_ches.yaml", root, out / f"mae-own-{seed}", seed, *limits)
    if arguments.auxiliary:
        mae = out / f"mae-auxiliary-{seed}"
        starts["auxiliary"] = pretraining_run(arguments, "mae_usa.yaml", arguments.auxiliary, mae, seed)
    runs = {}
    for source, start in starts.items():
        words = *limits, *init_from(start)
        segmenter = segmenter_run(arguments, "ours.yaml", root, out / f"{source}-{seed}", seed, *words)
        runs[source] = [start, replace(segmenter, after=start)] if start else [segmenter]
    if not left_out:
        runs["none"] = row_runs(arguments, "Agg+App", root, seed)
        runs["auxiliary" if arguments.auxiliary else "own"] = row_runs(arguments, "Ours", root, seed)
    return runs


def figure5(arguments):
    """Test macro F1 of Agg+App against the number of exemplars, without pretraining; Low is the line to beat."""
    roots, seeds, runs = needed(arguments), range(arguments.seeds), {}
    counts = [("all" if k == 0 else str(k), k) for k in arguments.exemplars]
    pool = [sum(row["split"] == "heldout" for row in read_manifest(HERE / root)[1]) for root in roots]
    if max(arguments.exemplars) > min(pool):
        raise Refused(f"--exemplars {max(arguments.exemplars)}: {roots[pool.index(min(pool))]} has {min(pool)}")
    for root in roots:
        for seed in seeds:
            out = folder(arguments, root)
            runs[root, seed] = [segmenter_run(arguments, "low.yaml", root, out / f"low-{seed}", seed)]
            for name, k in counts:
                more = () if k == 0 else (f"adversarial.exemplars={k}", f"run.name=K={k}")
                run_dir = out / (f"agg_app-{seed}" if k == 0 else f"agg_app-K{name}-{seed}")
                runs[root, seed].append(segmenter_run(arguments, "agg_app.yaml", root, run_dir, seed, *more))
    train(arguments, [run for of_seed in runs.values() for run in of_seed])
    results = {root: [] for root in roots}
    for (root, seed), of_seed in runs.items():
        results[root].append(score(of_seed, root, folder(arguments, root) / f"figure5-{seed}.json"))
    low_row, *rows = rows_of(results)
    rows = [replace(row, names=(f"K={name}",)) for (name, _), row in zip(counts, rows, strict=True)]
    low, *curve = ([seed["macro_f1"] for seed in row.seeds] for row in (low_row, *rows))
    where = " + ".join(str(root) for root in roots)
    heading = f"Ours on {where}, test split, against the exemplars K{spread(arguments)}"
    report(arguments, heading, ("row",), [low_row, *rows])
    picture = arguments.out / "figure5.png"
    save_curve(
        picture,
        [k or round(statistics.mean(pool)) for _, k in counts],
        [[100 * value for value in values] for values in curve],
        ("Low", 100 * statistics.mean(low)),
        ("exemplar label maps, K", "test macro F1 (%)"),
    )
    print(f"curve (Fig. 5): {picture}")


def spread(arguments):
    """What +- in a table is."""
    sets = len(arguments.data or [1])
    return f"; +- over {sets} tile sets x {arguments.seeds} seeds" if sets * arguments.seeds > 1 else ""


def needed(arguments):
    """The tile sets of --data."""
    if arguments.data is None:
        raise Refused(f"{arguments.what} needs --data ROOT, a tile set")
    return arguments.data


def only(arguments):
    """The one tile set of --data."""
    if len(needed(arguments)) > 1:
        raise Refused(f"{arguments.what} takes one tile set, --data names {len(arguments.data)}")
    return arguments.data[0]


def chosen_tiles(arguments):
    return ("--tiles", ",".join(arguments.tiles)) if arguments.tiles else ()


def score(runs, root, path, *more):
    """-> the rows of evaluate.py."""
    data = ("--data", root) if root else ()
    command("evaluate.py", *(run.dir for run in runs), *more, *data, "--out", path)
    return json.loads((HERE / path).read_text())["rows"]


def score_lsr(arguments, root, seed):
    """The row of Self-Epitomic LSR, in a list; it takes longest, so what is scored is kept, as a run is."""
    path = folder(arguments, root) / f"lsr-{arguments.lsr_patches}-{seed}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.get("data") != str(root) or not Tally(1).counts().keys() <= kept["rows"][0].keys():
        return score([], root, path, "--lsr", "--lsr-patches", arguments.lsr_patches, "--lsr-seed", seed)
    print(f"Self-Epitomic LSR of seed {seed} is complete: {path}")
    return kept["rows"]


def report(arguments, heading, titles, rows, notes=()):
    """Print a table, and write it as Markdown and JSON."""
    path = arguments.out / f"{arguments.what}.md"
    print(f"\n{heading}; the paper's on Low2High. Percent.\n{as_text(titles, rows)}")
    print("".join(f"{note}\n" for note in notes), end="")
    write_text(path, as_markdown(titles, rows) + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else ""))
    values = {"what": heading, "rows": as_values(titles, rows), "notes": notes}
    write_text(path.with_suffix(".json"), json.dumps(values, indent=1))
    print(f"table: {path} and .json; scores of each class and seed: {arguments.what}-*.json beside it")


def default_jobs():
    """Two runs of one thread each are through sooner than one after the other with two; a GPU is one run's."""
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return 1 if gpu else min(2, default_workers())


def numbers(text):
    """10,100,all -> [10, 100, 0], in order and without repeats; what --exemplars takes. 0 stands for all."""
    words = set(text.split(","))
    values = sorted({int(word) for word in words - {"all"}})
    if values and values[0] < 1:
        raise ValueError
    return values + [0] * ("all" in words)


COMMANDS = {
    "demo": demo,
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "beyond": beyond,
    "figure2": figure2,
    "figure5": figure5,
    "figure6": figure6,
}


def main():
    parser = command_line(__doc__)
    parser.add_argument("what", choices=tuple(COMMANDS))
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        metavar="ROOT",
        help="tile sets, whose counts are added up; default of demo: made-up landscapes",
    )
    parser.add_argument("--configs", type=Path, default=Path("configs/demo"), metavar="DIR", help="one file a row")
    parser.add_argument("--out", type=place, metavar="DIR", help="default: runs/demo, runs/figure5, ...")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1 (default: 1)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="runs trained at a time (default: 2 of one thread each, 1 with a GPU)"
    )
    counts = {"type": numbers, "default": [4, 10, 20, 40], "metavar": "K,..."}
    parser.add_argument("--exemplars", **counts, help="of figure5, as 4,16,all; default: 4,10,20,40")
    words = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument("--auxiliary", type=Path, metavar="ROOT", help="images to pretrain on (default: --data's own)")
    parser.add_argument("--lsr-patches", type=int, default=20_000, metavar="N", help="of table1 (default: 20000)")
    parser.add_argument("--tiles", **words, help="of figure2, figure6 and demo: draw these; default: of many classes")
    parser.add_argument("--leave-out", **words, help="of table3: regions that nothing sees before the test")
    parser.add_argument(
        "--own-split", metavar="SPLIT", help="of table3 (default: test; without --leave-out: validation)"
    )
    parser.add_argument("--left-out-split", default="test", metavar="SPLIT", help="of table3: test, all")
    parser.add_argument("--other", type=Path, metavar="ROOT", help="of table3: another tile set to test on")
    parser.add_argument("--other-split", default="all", metavar="SPLIT", help="of --other (default: all, as Sec. 3.2)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="for every training run")
    arguments = parser.parse_intermixed_args()
    if arguments.seeds < 1:
        parser.error("--seeds: must be 1 or more")
    arguments.out = arguments.out or HERE / "runs" / arguments.what
    if arguments.jobs is not None and arguments.jobs < 1:
        parser.error("--jobs: must be 1 or more")
    arguments.jobs = arguments.jobs or default_jobs()
    for key in ("configs", "out", "auxiliary", "other"):  # the commands run in the project's folder
        if (value := getattr(arguments, key)) and value != parser.get_default(key):
            setattr(arguments, key, value.absolute())
    given = arguments.data or []  # --data takes all words behind it: settings among them are no tile sets
    arguments.overrides += [str(word) for word in given if "=" in str(word) and not word.exists()]
    arguments.data = [root.absolute() for root in given if str(root) not in arguments.overrides] or None
    names = [root.name for root in arguments.data or ()]
    if len(set(names)) < len(names):
        parser.error("--data: runs stand in folders named after the tile sets, and two have one name")
    parser.exit(status(lambda: reproduce(arguments)))


def reproduce(arguments):
    for root in arguments.data or ():  # before anything is trained
        read_description(root)
    COMMANDS[arguments.what](arguments)


if __name__ == "__main__":
    main()
