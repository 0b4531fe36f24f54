"""The paper's tables and figures, row by row.

    python reproduce.py demo                                   # made-up landscapes, two CPU cores, minutes
    python reproduce.py table2 --data tiles --configs configs/low2high --seeds 3
    python reproduce.py figure5 --data tiles --configs configs/low2high --exemplars 10,100,1000 --out runs/figure5
    python reproduce.py table3 --data tiles --configs configs/low2high --leave-out va --auxiliary usa --other milwaukee

What is to be trained is listed first. Each step is one of the project's own commands and is printed before it runs. A
run that is complete is not trained again, one that was stopped goes on, and commands with the same --out share runs.
"""

import argparse
import json
import shlex
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from config import PretrainConfig, SegmenterConfig
from data.manifest import TileSetError, read_description, read_manifest
from figures import PlotError, save_curve
from runtime.files import write_text
from runtime.settings import ConfigError, check_resumable, flatten, load_config
from tables import PAPER_TABLE3, Row, as_markdown, as_text, as_values, gap_closed, rows_of

HERE = Path(__file__).resolve().parent

CONFIGS = {
    "Low": "low.yaml",
    "Agg": "agg.yaml",
    "Agg+App": "agg_app.yaml",
    "Ours": "ours.yaml",
    "High": "high.yaml",
}
# Overrides that pretraining takes too, and those that it alone knows.
PRETRAIN_ONLY = set(flatten(PretrainConfig())) - set(flatten(SegmenterConfig()))
PRETRAIN_SETTINGS = PRETRAIN_ONLY | {"model.width", "train.epochs", "train.precision", "data.workers", "run.device"}


class StepError(Exception):
    """A command that failed; it has said why itself."""


@dataclass(frozen=True)
class Run:
    """One training run: a script, its config, its folder, and the settings that differ from the config."""

    script: str
    config: Path
    dir: Path
    overrides: tuple

    def state(self):
        """complete, goes on or new. raises: ConfigError where the folder holds another experiment"""
        if not (self.dir / "last.pt").exists():
            return "new"
        kind = PretrainConfig if self.script == "train_mae.py" else SegmenterConfig
        config = load_config(kind, HERE / self.config, self.overrides)
        kept = flatten(load_config(kind, self.dir / "config.yaml"))
        check_resumable(kept, config, self.dir)
        same = all(kept[key] == flatten(config)[key] for key in ("data.root", "train.epochs"))
        return "complete" if same and (self.dir / "metrics.json").exists() else "goes on"


def demo(arguments):
    """Every row of Tables 1 and 2 but Self-Epitomic LSR, on made-up landscapes or the tile set that --data names."""
    root = arguments.data or arguments.out / "tiles"
    if not (root / "dataset.yaml").exists():
        command("-m", "data.synthetic", root)
    train_and_score(arguments, root, CONFIGS, "--oracle", sheet=True)


def table1(arguments):
    """The baselines: Oracle, Self-Epitomic LSR, Low, High."""
    train_and_score(arguments, needed(arguments), ("Low", "High"), "--oracle", lsr=True)


def table2(arguments):
    """The ablation, and the share of the gap from Low to High that each row closes."""
    train_and_score(arguments, needed(arguments), CONFIGS)


def figure2(arguments):
    """Image, high label and low label under the merged taxonomy."""
    sheet = arguments.out / "figure2.png"
    command("evaluate.py", "--oracle", "--data", needed(arguments), "--figure", sheet, *chosen_tiles(arguments))
    print(f"label pairs (Fig. 2): {sheet}")


def figure6(arguments):
    """Image, labels, and what High, Low and Ours predict."""
    train_and_score(arguments, needed(arguments), ("High", "Low", "Ours"), sheet=True)


def train_and_score(arguments, root, names, *flags, lsr=False, sheet=False):
    """Train rows for each seed, score them, print and write their table; with `sheet`, draw them too (Fig. 6)."""
    out, seeds, results = arguments.out, range(arguments.seeds), []
    runs = {seed: [row_runs(arguments, name, root, seed) for name in names] for seed in seeds}
    train([run for seed in seeds for row in runs[seed] for run in row])
    for seed in seeds:
        picture = out / f"figure6-{seed}.png"
        draw = ("--figure", picture, *chosen_tiles(arguments)) if sheet else ()
        scores = out / f"{arguments.what}-{seed}.json"
        rows = score([row[-1] for row in runs[seed]], root, scores, *flags, *draw)
        results.append(rows[:1] + score_lsr(arguments, root, seed) + rows[1:] if lsr else rows)
        if sheet:
            print(f"contact sheet (Fig. 6): {picture}")
    rows = rows_of(results)
    report(arguments, f"Ours on {root}, test split", ("row",), rows, gap_closed(rows))


def table3(arguments):
    """Ours with each pretraining set, tested where it was trained, on the regions left out and on another tile set.

    No image of a region left out is seen before the test: not in training, pretraining, exemplars or statistics.
    """
    if not (arguments.data and arguments.leave_out):
        raise StepError("table3 needs --data ROOT and --leave-out REGION")
    out, root, left_out = arguments.out, arguments.data, ",".join(arguments.leave_out)
    own = sorted({row["region"] for row in read_manifest(HERE / root)[1]} - set(arguments.leave_out))
    limit = f"data.exclude_regions=[{left_out}]"
    tests = {"own": ("--data", root, "--regions", ",".join(own))}
    tests["left out"] = "--data", root, "--regions", left_out, "--split", arguments.left_out_split
    if arguments.other:
        tests["other"] = ("--data", arguments.other, "--split", arguments.other_split)
    sources = {"own": ("mae_ches.yaml", root, [limit])}
    if arguments.auxiliary:
        sources["auxiliary"] = ("mae_usa.yaml", arguments.auxiliary, [])
    plan, segmenters = [], {}
    for seed in range(arguments.seeds):
        starts = {"none": "model.init=none"}
        for source, (config, images, more) in sources.items():
            plan.append(pretraining_run(arguments, config, images, out / f"mae-{source}-{seed}", seed, *more))
            starts[source] = init_from(plan[-1])
        segmenters[seed] = [
            segmenter_run(arguments, "ours.yaml", root, out / f"{source}-{seed}", seed, limit, start)
            for source, start in starts.items()
        ]
        plan += segmenters[seed]
    train(plan)
    results = {}
    for seed, runs in segmenters.items():
        for test, words in tests.items():
            rows = score(runs, None, out / f"table3-{test.replace(' ', '_')}-{seed}.json", *words)
            for source, row in zip(("none", *sources), rows, strict=True):
                results.setdefault((source, test), []).append(row)
    rows = [Row(names, seeds, PAPER_TABLE3[names]) for names, seeds in results.items()]
    report(arguments, f"Table 3 on {root} without {left_out}", ("pretrained on", "tested on"), rows)


def figure5(arguments):
    """Test macro F1 of Agg+App against the number of exemplars, without pretraining; Low is the line to beat."""
    out, root, seeds = arguments.out, needed(arguments), range(arguments.seeds)
    runs = {seed: [segmenter_run(arguments, "low.yaml", root, out / f"low-{seed}", seed)] for seed in seeds}
    for seed in seeds:
        for k in arguments.exemplars:
            more = f"adversarial.exemplars={k}", f"run.name=K={k}"
            runs[seed].append(segmenter_run(arguments, "agg_app.yaml", root, out / f"agg_app-K{k}-{seed}", seed, *more))
    train([run for seed in seeds for run in runs[seed]])
    low_row, *rows = rows_of([score(runs[seed], root, out / f"figure5-{seed}.json") for seed in seeds])
    low, *curve = ([seed["macro_f1"] for seed in row.seeds] for row in (low_row, *rows))
    report(arguments, f"Ours on {root}, test split, against the exemplars K", ("row",), [low_row, *rows])
    picture = out / "figure5.png"
    save_curve(
        picture,
        arguments.exemplars,
        [[100 * value for value in values] for values in curve],
        ("Low", 100 * statistics.mean(low)),
        ("exemplar label maps, K", "test macro F1 (%)"),
    )
    print(f"curve (Fig. 5): {picture}")


def needed(arguments):
    if arguments.data is None:
        raise StepError(f"{arguments.what} needs --data ROOT, a tile set")
    return arguments.data


def chosen_tiles(arguments):
    return ("--tiles", ",".join(arguments.tiles)) if arguments.tiles else ()


def row_runs(arguments, name, root, seed):
    """The runs behind a row of Tables 1 and 2, its segmenter last."""
    out, before, more = arguments.out, [], []
    if name == "Ours":
        images = arguments.auxiliary or root
        before = [pretraining_run(arguments, "mae.yaml", images, out / f"mae-{seed}", seed)]
        more = [init_from(before[0])]
    config = CONFIGS[name]
    return [*before, segmenter_run(arguments, config, root, out / f"{Path(config).stem}-{seed}", seed, *more)]


def pretraining_run(arguments, config, root, run_dir, seed, *more):
    config = config_file(arguments, config)
    more = [*more, *(word for word in arguments.overrides if word.split("=")[0] in PRETRAIN_SETTINGS)]
    crop_px = load_config(PretrainConfig, HERE / config, more).data.crop_px
    if (HERE / root / "dataset.yaml").exists():  # small tiles take smaller crops
        crop_px = min(crop_px, read_description(HERE / root).tile_px // 32 * 32)
    words = f"data.root={root}", f"run.dir={run_dir}", f"run.seed={seed}", *more, f"data.crop_px={crop_px}"
    return Run("train_mae.py", config, run_dir, words)


def init_from(run):
    """The override that starts a segmenter from a pretraining run."""
    return f"model.init={run.dir / 'resnet18.pt'}"


def segmenter_run(arguments, config, root, run_dir, seed, *more):
    more = [*more, *(word for word in arguments.overrides if word.split("=")[0] not in PRETRAIN_ONLY)]
    words = f"data.root={root}", f"run.dir={run_dir}", f"run.seed={seed}", *more
    return Run("train_seg.py", config_file(arguments, config), run_dir, words)


def config_file(arguments, name):
    """A config of --configs; where a folder does not tell auxiliary and own pretraining apart, mae.yaml is both."""
    others = {"mae_ches.yaml": "mae.yaml", "mae_usa.yaml": "mae.yaml", "mae.yaml": "mae_usa.yaml"}
    for candidate in (name, others.get(name, name)):
        if (HERE / arguments.configs / candidate).exists():
            return arguments.configs / candidate
    raise StepError(f"{arguments.configs}: has no {name}; --configs configs/demo has one of each")


def train(runs):
    """Say what is complete and what is to be trained, then train it."""
    states = {run: run.state() for run in runs}
    missing = [run for run, state in states.items() if state != "complete"]
    print(f"{len(missing)} of {len(runs)} runs to train; each says after its first epoch how long it will take")
    print("\n".join(f"  {state:<9} {run.dir}" for run, state in states.items()))
    minutes = {}
    for run in missing:
        started = time.perf_counter()
        command(run.script, run.config, *run.overrides)
        minutes[run.dir.name] = (time.perf_counter() - started) / 60
    if minutes:
        print("minutes of training: " + ", ".join(f"{name} {spent:.1f}" for name, spent in minutes.items()))


def score(runs, root, path, *more):
    """-> the rows of evaluate.py."""
    data = ("--data", root) if root else ()
    command("evaluate.py", *(run.dir for run in runs), *more, *data, "--out", path)
    return json.loads((HERE / path).read_text())["rows"]


def score_lsr(arguments, root, seed):
    """The row of Self-Epitomic LSR, in a list; it takes longest, so what is scored is kept, as a run is."""
    path = arguments.out / f"lsr-{arguments.lsr_patches}-{seed}.json"
    if not path.exists() or json.loads(path.read_text())["data"] != str(root):
        return score([], root, path, "--lsr", "--lsr-patches", arguments.lsr_patches, "--lsr-seed", seed)
    print(f"Self-Epitomic LSR of seed {seed} is complete: {path}")
    return json.loads(path.read_text())["rows"]


def report(arguments, heading, titles, rows, notes=()):
    """Print a table, and write it as Markdown and JSON."""
    path = arguments.out / f"{arguments.what}.md"
    print(f"\n{heading}; the paper's on Low2High. Percent.\n{as_text(titles, rows)}")
    print("".join(f"{note}\n" for note in notes), end="")
    write_text(path, as_markdown(titles, rows) + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else ""))
    values = {"what": heading, "rows": as_values(titles, rows), "notes": notes}
    write_text(path.with_suffix(".json"), json.dumps(values, indent=1))
    print(f"table: {path} and .json; scores of each class and seed: {arguments.what}-*.json beside it")


def command(*words):
    """One command of the project, printed and run."""
    words = [str(word) for word in words]
    print("$ python " + shlex.join(words), flush=True)
    process = subprocess.Popen([sys.executable, *words], cwd=HERE)
    # Ctrl-C reaches the command itself, SIGTERM is passed on: it saves and leaves, and so does this process.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = process.wait()
    if status in {sign for n in (signal.SIGINT, signal.SIGTERM) for sign in (128 + n, -n)}:
        raise StepError("stopped; the same line goes on")
    if status != 0:
        raise StepError(f"stopped: python {shlex.join(words)} failed; mend it and run the same line again")


def numbers(text):
    """10,100 -> [10, 100], in order and without repeats; what --exemplars takes."""
    values = sorted({int(value) for value in text.split(",")})
    if values[0] < 1:
        raise ValueError
    return values


COMMANDS = {
    "demo": demo,
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "figure2": figure2,
    "figure5": figure5,
    "figure6": figure6,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(COMMANDS))
    parser.add_argument("--data", type=Path, metavar="ROOT", help="tile set; default of demo: made-up landscapes")
    parser.add_argument("--configs", type=Path, default=Path("configs/demo"), metavar="DIR", help="one file a row")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/demo, runs/figure5, ...")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1 (default: 1)")
    parser.add_argument(
        "--exemplars", type=numbers, default=[4, 10, 20, 40], metavar="K,...", help="of figure5; default: 4,10,20,40"
    )
    words = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument("--auxiliary", type=Path, metavar="ROOT", help="images to pretrain on (default: --data's own)")
    parser.add_argument("--lsr-patches", type=int, default=20_000, metavar="N", help="of table1 (default: 20000)")
    parser.add_argument("--tiles", **words, help="of figure2, figure6 and demo: draw these; default: of many classes")
    parser.add_argument("--leave-out", **words, help="of table3: regions that nothing sees before the test")
    parser.add_argument("--left-out-split", default="test", metavar="SPLIT", help="of table3: test, all")
    parser.add_argument("--other", type=Path, metavar="ROOT", help="of table3: another tile set to test on")
    parser.add_argument("--other-split", default="all", metavar="SPLIT", help="of --other (default: all, as Sec. 3.2)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="for every training run")
    arguments = parser.parse_intermixed_args()
    if arguments.seeds < 1:
        parser.error("--seeds: must be 1 or more")
    arguments.out = arguments.out or HERE / "runs" / arguments.what
    for key in ("data", "configs", "out", "auxiliary", "other"):  # the commands run in the project's folder
        if (value := getattr(arguments, key)) and value != parser.get_default(key):
            setattr(arguments, key, value.absolute())
    try:
        COMMANDS[arguments.what](arguments)
    except (StepError, PlotError, TileSetError, ConfigError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
