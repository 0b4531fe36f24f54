"""The paper's tables and figures, row by row.

    python reproduce.py demo                     # made-up landscapes, two CPU cores, minutes

Each step is one of the project's own commands and is printed before it runs. What is complete is not done again, and
what was stopped goes on.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent

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
CONFIGS = {"Low": "low.yaml", "Agg": "agg.yaml", "High": "high.yaml"}


class StepError(Exception):
    """A command that failed; it has said why itself."""


def demo(arguments):
    """Low, Agg, High and Oracle on made-up landscapes, or on the tile set that --data names."""
    out = arguments.out or Path("runs/demo")
    root = arguments.data or out / "tiles"
    if not (root / "dataset.yaml").exists():
        run("-m", "data.synthetic", root)
    runs, minutes = [], {}
    for name, config in CONFIGS.items():
        started = time.perf_counter()
        runs.append(train(arguments, config, root, out / name.lower()))
        minutes[name] = (time.perf_counter() - started) / 60
    run("evaluate.py", *runs, "--oracle", "--data", root, "--out", out / "scores.json", "--figure", out / "figure6.png")
    print(f"\nOurs on {root}, test split; the paper's on Low2High. Percent.")
    print(table(json.loads((out / "scores.json").read_text())["rows"]))
    print("minutes: " + ", ".join(f"{name} {spent:.1f}" for name, spent in minutes.items()))
    print(f"contact sheet (Fig. 6): {out / 'figure6.png'}; scores of each class: {out / 'scores.json'}")


def train(arguments, config, root, run_dir):
    run("train_seg.py", arguments.configs / config, f"data.root={root}", f"run.dir={run_dir}", *arguments.overrides)
    return run_dir


def table(rows):
    """Rows of evaluate.py -> ours first, then the paper's."""
    lines = [f"{'':<20}{'ours: Acc':>10}{'F1':>8}{'mIoU':>8}{'paper: Acc':>14}{'F1':>8}{'mIoU':>8}"]
    for row in rows:
        ours = "".join(f"{100 * row[key]:{w}.2f}" for key, w in (("accuracy", 10), ("macro_f1", 8), ("miou", 8)))
        paper = "".join(f"{value:{w}.2f}" for value, w in zip(PAPER.get(row["name"], ()), (14, 8, 8), strict=False))
        lines.append(f"{row['name']:<20}{ours}{paper}")
    return "\n".join(lines)


def run(*words):
    """One command of the project, printed and run."""
    words = [str(word) for word in words]
    print("$ python " + shlex.join(words), flush=True)
    if subprocess.run([sys.executable, *words], cwd=HERE).returncode != 0:
        raise StepError(f"stopped: python {shlex.join(words)} failed; mend it and run the same line again")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("demo",))
    parser.add_argument("--data", type=Path, metavar="ROOT", help="tile set; default: made-up landscapes")
    parser.add_argument("--configs", type=Path, default=Path("configs/demo"), metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: runs/demo")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="for every training run")
    arguments = parser.parse_args()
    for key in ("data", "configs", "out"):  # the commands run in the project's folder
        if value := getattr(arguments, key):
            setattr(arguments, key, value if value.is_absolute() or Path.cwd() == HERE else value.absolute())
    try:
        demo(arguments)
    except StepError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
