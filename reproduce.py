"""The paper's tables and figures, row by row.

    python reproduce.py demo                                   # made-up landscapes, two CPU cores, minutes
    python reproduce.py table2 --data tiles --configs configs/low2high --auxiliary usa --seeds 3
    python reproduce.py table2 --data runs/naip215/r? --configs configs/naip215 --out runs/tables  # adds sets up
    python reproduce.py beyond --data runs/naip215/nlcd-r? --configs configs/naip215 --out runs/tables-nlcd
    python reproduce.py figure5 --data tiles --configs configs/low2high --exemplars 10,100,1000 --out runs/figure5
    python reproduce.py table3 --data tiles --configs configs/low2high --leave-out va --auxiliary usa --other milwaukee

The runs to train are listed first. Each step is one of the project's own commands and is printed before it runs.
Complete runs are not trained again, stopped runs resume, and commands with the same --out share runs. On a CPU, two
runs train at a time, with one thread each (--jobs).
"""

import statistics
from dataclasses import replace
from pathlib import Path

import torch

from data.manifest import read_description, read_manifest
from reports.curves import save_curve
from reports.rows import (
    BEYOND,
    exemplar_runs,
    folder,
    row_runs,
    rows_with_configs,
    score_lsr,
    score_runs,
    start_runs,
    table3_tests,
    train,
)
from reports.tables import PAPER_TABLE3, differences, gap_closed, rows_of, write_table
from runtime.children import ROOT, command
from runtime.command import parser as command_line
from runtime.command import require_options, run
from runtime.errors import Refused, require
from runtime.workers import default_workers

DEMO_TILES = "--tiles", 2000, "--bands", 4  # as NAIP has; a hundred of them test


def demo(arguments):
    """Every row of Tables 1 and 2 but Self-Epitomic LSR, on made-up landscapes or the tile set that --data names."""
    if not arguments.data:
        arguments.data = [arguments.out / "tiles"]
        command("-m", "data.synthetic", *arguments.data, *DEMO_TILES)
    train_and_score(arguments, arguments.data, rows_with_configs(arguments), "--oracle", "--linear", sheet=True)
    print(f"pictures: {arguments.out}/figure6-0.png, and figures/ in the folder of each run")
    print("next: docs/lesson.md explains the rows, docs/paper.md the code; try a change from docs/change.md, or run")
    print("python reproduce.py beyond --data runs/demo/tiles --out runs/demo")


def table1(arguments):
    """The baselines: Oracle, Self-Epitomic LSR, Linear [ours], Low, High."""
    train_and_score(arguments, needed(arguments), ("Low", "High"), "--oracle", "--linear", lsr=True)


def table2(arguments):
    """The ablation, and the share of the gap from Low to High that each row closes."""
    train_and_score(arguments, needed(arguments), rows_with_configs(arguments), "--linear")


def beyond(arguments):
    """Rows that read coarse labels as reports of composition, then with the coarse label at test; and the paper's."""
    train_and_score(arguments, needed(arguments), rows_with_configs(arguments), observed=tuple(BEYOND))


def figure2(arguments):
    """Image, high label and low label under the merged taxonomy."""
    for root in needed(arguments):
        sheet = folder(arguments, root) / "figure2.png"
        command("evaluate.py", "--oracle", "--data", root, "--figure", sheet, *tiles_option(arguments))


def figure6(arguments):
    """Image, labels, and what High, Low and Ours predict."""
    train_and_score(arguments, needed(arguments), ("High", "Low", "Ours"), sheet=True)


def train_and_score(arguments, roots, names, *flags, observed=(), lsr=False, sheet=False):
    """Train rows for each tile set and seed, score them, print and write their table; with `sheet`, draw them too.

    observed: rows of BEYOND, scored twice, without and with the coarse label of what is tested
    """
    what, results = arguments.what, {root: [] for root in roots}
    runs = planned(arguments, roots, lambda *of: [row_runs(arguments, name, *of) for name in (*names, *observed)])
    for (root, seed), rows in runs.items():
        out, segmenters = folder(arguments, root), [row[-1] for row in rows]
        draw = ("--figure", out / f"figure6-{seed}.png", *tiles_option(arguments)) if sheet else ()
        random = ("--linear-encoder", seed) if "--linear" in flags else ()
        scored = score_runs(segmenters, root, out / f"{what}-{seed}.json", *flags, *random, *draw)
        if lsr:
            scored[1:1] = score_lsr(arguments, root, seed)
        if observed:
            scored += score_runs(segmenters[-len(observed) :], root, out / f"{what}-coarse-{seed}.json", "--coarse")
        results[root].append(scored)
    rows = rows_of(results)
    write_table(arguments, f"Ours on {named(roots)}, test split", ("row",), rows, gap_closed(rows) + differences(rows))


def table3(arguments):
    """Ours with each pretraining set, tested where it was trained, on the regions left out and on another tile set.

    No image of a region left out is seen before the test: not in training, pretraining, exemplars or statistics. Where
    each of several tile sets leaves out the regions of its own test split, --leave-out is not needed.
    """
    roots = needed(arguments)
    tests, starts, results = {root: table3_tests(arguments, root) for root in roots}, {}, {}

    def runs_of(root, seed):
        starts[root, seed] = start_runs(arguments, root, seed, left_out=tests[root][1])
        return starts[root, seed].values()

    for (root, seed), runs in planned(arguments, roots, runs_of).items():
        for test, words in tests[root][0].items():
            path = folder(arguments, root) / f"table3-{test.replace(' ', '_')}-{seed}.json"
            scored = score_runs([row[-1] for row in runs], None, path, *words)
            for source, row in zip(starts[root, seed], scored, strict=True):
                results.setdefault((source, test), {}).setdefault(root, []).append([row])
    rows = [replace(rows_of(of_sets)[0], names=names, paper=PAPER_TABLE3[names]) for names, of_sets in results.items()]
    without = ", ".join(arguments.leave_out or ["the regions of each test split"])
    write_table(arguments, f"Table 3 on {named(roots)} without {without}", ("pretrained on", "tested on"), rows)


def figure5(arguments):
    """Test macro F1 of Agg+App against the number of exemplars, without pretraining; Low is the line to beat."""
    roots = needed(arguments)
    results = {root: [] for root in roots}
    pool = [sum(row["split"] == "heldout" for row in read_manifest(ROOT / root)[1]) for root in roots]
    if max(arguments.exemplars) > min(pool):
        raise Refused(f"--exemplars {max(arguments.exemplars)}: the split heldout has {min(pool)} label maps")
    for (root, seed), rows in planned(arguments, roots, lambda *of: exemplar_runs(arguments, *of)).items():
        path = folder(arguments, root) / f"figure5-{seed}.json"
        results[root].append(score_runs([row[-1] for row in rows], root, path))
    low, *rows = rows_of(results)
    rows = [replace(row, names=(f"K={k or 'all'}",)) for k, row in zip(arguments.exemplars, rows, strict=True)]
    write_table(arguments, f"Ours on {named(roots)}, test split, against the exemplars K", ("row",), [low, *rows])
    picture = arguments.out / "figure5.png"
    level, *curve = [[100 * seed["macro_f1"] for seed in row.seeds] for row in (low, *rows)]
    counts = [k or round(statistics.mean(pool)) for k in arguments.exemplars]
    save_curve(picture, counts, curve, statistics.mean(level), ("exemplar label maps, K", "test macro F1 (%)"))
    print(f"curve (Fig. 5): {picture}")


def planned(arguments, roots, runs_of):
    """Train what is not complete -> {(tile set, seed): runs_of(tile set, seed)}: lists of runs, the segmenter last."""
    # Counts of several sets are added up, class by class.
    others = [arguments.other] if arguments.other else []
    orders = {read_description(root).taxonomy.names: root for root in (*roots, *others)}
    require(len(orders) < 2, f"{' and '.join(map(str, orders.values()))}: differ in their classes or in their order")
    runs = {(root, seed): list(runs_of(root, seed)) for root in roots for seed in range(arguments.seeds)}
    train(arguments, [run for rows in runs.values() for row in rows for run in row])
    return runs


def needed(arguments):
    """The tile sets of --data."""
    if arguments.data is None:
        raise Refused(f"{arguments.what} needs --data ROOT, a tile set")
    return arguments.data


def named(roots):
    return " + ".join(str(root) for root in roots)


def tiles_option(arguments):
    return ("--tiles", ",".join(arguments.tiles)) if arguments.tiles else ()


def numbers(text):
    """10,100,all -> [10, 100, 0]; what --exemplars takes. 0 stands for all."""
    return [0 if word == "all" else int(word) for word in text.split(",")]


# Settings that tell the rows of one table apart, beside those of every table.
OWN = {"table3": ("data.exclude_regions", "model.init"), "figure5": ("adversarial.exemplars",)}
COMMANDS = {f.__name__: f for f in (demo, table1, table2, table3, beyond, figure2, figure5, figure6)}


def parsed():
    parser, words = command_line(__doc__), {"type": lambda text: text.split(","), "metavar": "A,B"}
    # Two runs of one thread each are through sooner than one after the other with two; a GPU is one run's.
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    jobs = 1 if gpu else min(2, default_workers())
    add = parser.add_argument
    add("what", choices=tuple(COMMANDS))
    add("--data", type=Path, nargs="+", metavar="ROOT", help="tile sets, whose counts are added up; default of demo: "
        "made-up landscapes")
    add("--configs", type=Path, default=Path("configs/demo"), metavar="DIR", help="one file a row")
    add("--out", type=Path, metavar="DIR", help="default: runs/demo, runs/figure5, ...")
    add("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1 (default: 1)")
    add("--jobs", type=int, default=jobs, metavar="N", help="runs trained at a time (default: 2 of one thread each, 1 "
        "with a GPU)")
    add("--exemplars", type=numbers, default=[4, 10, 20, 40], metavar="K,...", help="for figure5: numbers of "
        "exemplars, like 4,16,all; default: 4,10,20,40")
    add("--auxiliary", type=Path, metavar="ROOT", help="images to pretrain on (default: --data's own)")
    add("--lsr-patches", type=int, default=20_000, metavar="N", help="for table1: number per tile (default: 20000)")
    add("--tiles", **words, help="for figure2, figure6 and demo: tiles to draw; default: some with many classes")
    add("--leave-out", **words, help="for table3: regions that are used for testing only")
    add("--left-out-split", default="test", metavar="SPLIT", help="for table3: their tiles to test on: test or all")
    add("--other", type=Path, metavar="ROOT", help="for table3: another tile set; all its splits are tested")
    add("overrides", nargs="*", metavar="section.key=value", help="for every training run")
    arguments = parser.parse_intermixed_args()
    require_options(vars(arguments), seeds=1, jobs=1, lsr_patches=1)
    arguments.out = arguments.out or ROOT / "runs" / arguments.what
    for key in ("configs", "out", "auxiliary", "other"):  # the commands run in the project's folder
        if (value := getattr(arguments, key)) and value != parser.get_default(key):
            setattr(arguments, key, value.absolute())
    given = arguments.data or []  # --data takes all words behind it: settings among them are no tile sets
    arguments.overrides += [str(word) for word in given if "=" in str(word) and not word.exists()]
    arguments.data = [root.absolute() for root in given if str(root) not in arguments.overrides] or None
    return arguments


def main(arguments):
    roots = arguments.data or []
    if len({root.name for root in roots}) < len(roots):
        raise Refused("--data: two tile sets have the same name, which also names their run folders; rename one")
    for root in roots:  # before anything is trained
        read_description(root)
    own = {"data.root", "run.dir", "run.name", "run.seed", *OWN.get(arguments.what, ())}
    for word in arguments.overrides:
        require(word.split("=")[0] not in own, f"{word}: reproduce.py sets this itself, for each row; see its options")
    COMMANDS[arguments.what](arguments)


if __name__ == "__main__":
    run(lambda: main(parsed()))
