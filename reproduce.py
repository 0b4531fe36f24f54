"""The paper's tables and figures, row by row.

    python reproduce.py demo                                   # made-up landscapes, two CPU cores, minutes
    python reproduce.py table2 --data tiles --configs configs/low2high --seeds 3
    python reproduce.py figure5 --data tiles --configs configs/low2high --exemplars 10,100,1000 --out runs/figure5
    python reproduce.py table3 --data tiles --configs configs/low2high --leave-out va --auxiliary usa --other milwaukee

Each step is one of the project's own commands and is printed before it runs. What is complete is not done again, and
what was stopped goes on.
"""

import argparse
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

from config import PretrainConfig, SegmenterConfig
from data.manifest import TileSetError, read_description, read_manifest
from figures import PlotError, save_curve
from runtime.settings import ConfigError, flatten, load_config

HERE = Path(__file__).resolve().parent

# Accuracy, macro F1 and mIoU of the paper's Tables 1 and 2, in percent.
PAPER = {
    "Oracle": (80.17, 72.69, 60.28),
    "Self-Epitomic LSR": (69.11, 50.90, 37.10),
    "Low": (84.40, 76.16, 64.25),
    "Agg": (82.63, 74.59, 62.52),
    "Agg+App": (87.43, 81.12, 69.84),
    "Ours": (88.61, 82.60, 71.69),
    "High": (93.16, 90.87, 83.59),
}
# The same of Table 3: pretrained on what, tested where.
PAPER_TABLE3 = {
    ("none", "own"): (86.36, 80.07, 68.09),
    ("own", "own"): (88.38, 80.31, 68.68),
    ("auxiliary", "own"): (88.91, 82.19, 71.01),
    ("none", "left out"): (85.50, 76.03, 63.35),
    ("own", "left out"): (86.54, 77.03, 65.04),
    ("auxiliary", "left out"): (88.40, 79.03, 67.81),
    ("none", "other"): (55.93, 44.90, 30.81),
    ("own", "other"): (55.41, 45.21, 30.99),
    ("auxiliary", "other"): (63.32, 48.52, 35.51),
}
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
SCORES = {"accuracy": "Acc", "macro_f1": "F1", "miou": "mIoU"}


class StepError(Exception):
    """A command that failed; it has said why itself."""


def demo(arguments):
    """Every row of Tables 1 and 2 but Self-Epitomic LSR, on made-up landscapes or the tile set that --data names."""
    root = arguments.data or arguments.out / "tiles"
    if not (root / "dataset.yaml").exists():
        run("-m", "data.synthetic", root)
    minutes = train_and_score(arguments, root, CONFIGS, "--oracle")
    print("minutes of training: " + ", ".join(f"{name} {spent:.1f}" for name, spent in minutes.items()))
    print(f"contact sheet (Fig. 6): {arguments.out / 'figure6-0.png'}")


def table1(arguments):
    """The baselines: Oracle, Self-Epitomic LSR, Low, High."""
    train_and_score(arguments, needed(arguments.data, "table1"), ("Low", "High"), "--oracle", "--lsr")


def table2(arguments):
    """The ablation, and the share of the gap from Low to High that each row closes."""
    train_and_score(arguments, needed(arguments.data, "table2"), CONFIGS)


def train_and_score(arguments, root, names, *flags):
    """Train rows for each seed, score them, print and write their table -> {row: minutes of training of seed 0}."""
    out, results, minutes = arguments.out, [], {}
    for seed in range(arguments.seeds):
        runs = []
        for name in names:
            started, more = time.perf_counter(), ()
            if name == "Ours":
                more = [pretrain(arguments, "mae.yaml", arguments.auxiliary or root, out / f"mae-{seed}", seed)]
            runs.append(train(arguments, CONFIGS[name], root, out / f"{Path(CONFIGS[name]).stem}-{seed}", seed, *more))
            minutes.setdefault(name, (time.perf_counter() - started) / 60)
        results.append(score(runs, root, out, seed, *flags))
    print(f"\nOurs on {root}, test split; the paper's on Low2High. Percent.")
    print(table(results))
    print("\n".join(gap_closed(results)))
    (out / f"{arguments.what}.md").write_text(markdown(results))
    print(f"Markdown: {out / arguments.what}.md; scores of each class: {out / 'scores-0.json'}")
    return minutes


def gap_closed(results):
    """Lines: the share of the mIoU gap from Low to High that each row between them closes.

    Undefined where the gap is not twice its spread over seeds, or there is but one seed.
    """
    miou = {rows[0]["name"]: [row["miou"] for row in rows] for rows in zip(*results, strict=True)}
    if not {"Low", "High"} <= miou.keys() or len(results) < 2:
        return []
    gaps = [high - low for low, high in zip(miou["Low"], miou["High"], strict=True)]
    gap, lines = statistics.mean(gaps), [f"gap in mIoU from Low to High: {mean_and_spread(gaps)}"]
    paper_low, paper_high = PAPER["Low"][2], PAPER["High"][2]
    for name in [name for name in miou if name not in ("Oracle", "Self-Epitomic LSR", "Low", "High")]:
        share = "undefined"
        if gap > 2 * statistics.stdev(gaps):
            share = f"{100 * (statistics.mean(miou[name]) - statistics.mean(miou['Low'])) / gap:.1f} %"
        paper = 100 * (PAPER[name][2] - paper_low) / (paper_high - paper_low) if name in PAPER else math.nan
        lines.append(f"{name} closes {share} of it (paper: {paper:.1f} %)")
    return lines


def needed(root, what):
    if root is None:
        raise StepError(f"{what} needs --data ROOT, a tile set")
    return root


def figure5(arguments):
    """Test macro F1 of Agg+App against the number of exemplars, without pretraining; Low is the line to beat."""
    out, root = arguments.out, needed(arguments.data, "figure5")
    curve, low = {}, []
    for seed in range(arguments.seeds):
        runs = [train(arguments, "low.yaml", root, out / f"low-{seed}", seed, "run.name=Low")]
        for k in arguments.exemplars:
            more = f"adversarial.exemplars={k}", f"run.name=K={k}"
            runs.append(train(arguments, "agg_app.yaml", root, out / f"agg_app-K{k}-{seed}", seed, *more))
        low_row, *rows = score(runs, root, out, seed)
        low.append(low_row["macro_f1"])
        for k, row in zip(arguments.exemplars, rows, strict=True):
            curve.setdefault(k, []).append(row["macro_f1"])
    numbers = {"data": str(root), "seeds": arguments.seeds, "low_macro_f1": low, "macro_f1": curve}
    (out / "figure5.json").write_text(json.dumps(numbers, indent=1))
    print(f"\nTest macro F1 in percent on {root}; Low {mean_and_spread(low)}")
    for k, values in curve.items():
        print(f"K = {k:<6} {mean_and_spread(values)}")
    save_curve(
        out / "figure5.png",
        list(curve),
        [[100 * value for value in values] for values in curve.values()],
        ("Low", 100 * statistics.mean(low)),
        ("exemplar label maps, K", "test macro F1 (%)"),
    )
    print(f"numbers: {out / 'figure5.json'}; curve: {out / 'figure5.png'}")


def table3(arguments):
    """Ours with each pretraining set, tested where it was trained, on the regions left out and on another tile set.

    No image of a region left out is seen before the test: not in training, pretraining, exemplars or statistics.
    """
    if not (arguments.data and arguments.leave_out):
        raise StepError("table3 needs --data ROOT and --leave-out REGION")
    out, root, left_out = arguments.out, arguments.data, ",".join(arguments.leave_out)
    for config in ("ours.yaml", "mae_ches.yaml", "mae_usa.yaml"):
        config_file(arguments, config)
    own = sorted({row["region"] for row in read_manifest(HERE / root)[1]} - set(arguments.leave_out))
    limit = f"data.exclude_regions=[{left_out}]"
    tests = {"own": ("--data", root, "--regions", ",".join(own))}
    tests["left out"] = "--data", root, "--regions", left_out, "--split", arguments.left_out_split
    if arguments.other:
        tests["other"] = ("--data", arguments.other)
    results = {}
    for seed in range(arguments.seeds):
        runs = {"none": train(arguments, "ours.yaml", root, out / f"none-{seed}", seed, limit, "model.init=none")}
        sources = {"own": ("mae_ches.yaml", root, [limit])}
        if arguments.auxiliary:
            sources["auxiliary"] = ("mae_usa.yaml", arguments.auxiliary, [])
        for source, (config, images, more) in sources.items():
            init = pretrain(arguments, config, images, out / f"mae-{source}-{seed}", seed, *more)
            runs[source] = train(arguments, "ours.yaml", root, out / f"{source}-{seed}", seed, limit, init)
        for test, words in tests.items():
            scores = out / f"scores-{test.replace(' ', '_')}-{seed}.json"
            run("evaluate.py", *runs.values(), *words, "--out", scores)
            for source, row in zip(runs, json.loads((HERE / scores).read_text())["rows"], strict=True):
                results.setdefault((source, test), []).append(row)
    print(f"\nTable 3 on {root} without {left_out}; the paper's on Low2High. Percent.")
    lines = [f"{'pretrained on':<15}{'tested on':<12}" + "".join(f"{title:>16}" for title in SCORES.values())]
    for (source, test), rows in results.items():
        ours = "".join(f"{mean_and_spread([row[key] for row in rows]):>16}" for key in SCORES)
        lines.append(f"{source:<15}{test:<12}{ours}   paper: {'  '.join(map(str, PAPER_TABLE3[source, test]))}")
    print("\n".join(lines))
    (out / "table3.json").write_text(json.dumps({f"{s} -> {t}": rows for (s, t), rows in results.items()}, indent=1))


def pretrain(arguments, config, root, run_dir, seed, *more):
    """-> the override that starts a segmenter from it."""
    config = config_file(arguments, config)
    more = [*more, *(word for word in arguments.overrides if word.split("=")[0] in PRETRAIN_SETTINGS)]
    crop_px = load_config(PretrainConfig, HERE / config, more).data.crop_px
    if (HERE / root / "dataset.yaml").exists():  # small tiles take smaller crops
        crop_px = min(crop_px, read_description(HERE / root).tile_px // 32 * 32)
    run("train_mae.py", config, f"data.root={root}", f"run.dir={run_dir}", f"run.seed={seed}", *more,
        f"data.crop_px={crop_px}")
    return f"model.init={run_dir / 'resnet18.pt'}"


def train(arguments, config, root, run_dir, seed, *more):
    config = config_file(arguments, config)
    words = [word for word in arguments.overrides if word.split("=")[0] not in PRETRAIN_ONLY]
    run("train_seg.py", config, f"data.root={root}", f"run.dir={run_dir}", f"run.seed={seed}", *more, *words)
    return run_dir


def config_file(arguments, name):
    """A config of --configs; where a folder does not tell auxiliary and own pretraining apart, mae.yaml is both."""
    others = {"mae_ches.yaml": "mae.yaml", "mae_usa.yaml": "mae.yaml", "mae.yaml": "mae_usa.yaml"}
    for candidate in (name, others.get(name, name)):
        if (HERE / arguments.configs / candidate).exists():
            return arguments.configs / candidate
    raise StepError(f"{arguments.configs}: has no {name}; --configs configs/demo has one of each")


def score(runs, root, out, seed, *more):
    """-> the rows of evaluate.py, which also writes the contact sheet."""
    scores = out / f"scores-{seed}.json"
    run("evaluate.py", *runs, *more, "--data", root, "--out", scores, "--figure", out / f"figure6-{seed}.png")
    return json.loads((HERE / scores).read_text())["rows"]


def table(results):
    """Rows of evaluate.py, one list a seed -> ours (mean, and spread over seeds), then the paper's."""
    width = 8 if len(results) == 1 else 15
    lines = [f"{'':<18}" + "".join(f"{t:>{width}}" for t in SCORES.values()) + "    paper: Acc      F1    mIoU"]
    for rows in zip(*results, strict=True):
        name = rows[0]["name"]
        ours = "".join(f"{mean_and_spread([row[key] for row in rows]):>{width}}" for key in SCORES)
        paper = "".join(f"{value:{w}.2f}" for value, w in zip(PAPER.get(name, ()), (14, 8, 8), strict=False))
        lines.append(f"{name:<18}{ours}{paper}")
    return "\n".join(lines)


def markdown(results):
    """The table as Markdown, ours beside the paper's."""
    titles = [*SCORES.values(), *(f"paper: {title}" for title in SCORES.values())]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (1 + len(titles)) + "|"]
    for rows in zip(*results, strict=True):
        name = rows[0]["name"]
        ours = [mean_and_spread([row[key] for row in rows]) for key in SCORES]
        paper = [f"{value:.2f}" for value in PAPER.get(name, ())] or [""] * 3
        lines.append(f"| {name} | " + " | ".join([*ours, *paper]) + " |")
    return "\n".join(lines) + "\n"


def mean_and_spread(values):
    """Percent: the mean, and over several seeds the sample standard deviation."""
    text = f"{100 * statistics.mean(values):.2f}"
    return text if len(values) == 1 else f"{text} +- {100 * statistics.stdev(values):.2f}"


def run(*words):
    """One command of the project, printed and run."""
    words = [str(word) for word in words]
    print("$ python " + shlex.join(words), flush=True)
    if subprocess.run([sys.executable, *words], cwd=HERE).returncode != 0:
        raise StepError(f"stopped: python {shlex.join(words)} failed; mend it and run the same line again")


def numbers(text):
    """10,100 -> [10, 100], in order and without repeats; what --exemplars takes."""
    values = sorted({int(value) for value in text.split(",")})
    if values[0] < 1:
        raise ValueError
    return values


COMMANDS = {"demo": demo, "table1": table1, "table2": table2, "table3": table3, "figure5": figure5}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(COMMANDS))
    parser.add_argument("--data", type=Path, metavar="ROOT", help="tile set; default of demo: made-up landscapes")
    parser.add_argument("--configs", type=Path, default=Path("configs/demo"), metavar="DIR", help="one file a row")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/demo, runs/figure5")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1 (default: 1)")
    parser.add_argument(
        "--exemplars", type=numbers, default=[4, 10, 20, 40], metavar="K,...", help="of figure5; default: 4,10,20,40"
    )
    words = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument("--auxiliary", type=Path, metavar="ROOT", help="images to pretrain on (demo: its own)")
    parser.add_argument("--leave-out", **words, help="of table3: regions that nothing sees before the test")
    parser.add_argument("--left-out-split", default="test", metavar="SPLIT", help="of table3: test, all")
    parser.add_argument("--other", type=Path, metavar="ROOT", help="of table3: another tile set to test on")
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
