"""Curves, drawn by matplotlib, an extra of requirements-dev.txt: of a run while it trains, and of Fig. 5."""

import json

import numpy as np

from runtime.errors import Refused
from runtime.files import open_whole

MEASURES = {"likelihood": "likelihood of labels", "accuracy": "accuracy", "macro_f1": "macro F1", "miou": "mIoU"}


def save_run_curves(log, path):
    """Write a PNG of a run's log.jsonl: loss, validation scores and, with an adversary, the state of the game.

    Nothing is drawn before the second validation, nor where matplotlib is not installed.
    """
    records = [json.loads(line) for line in log.read_text().splitlines()]
    train, validation = ([r for r in records if r["kind"] == kind] for kind in ("train", "validation"))
    if len(validation) > 1:
        try:
            _draw([*_learning(train, validation), *_game(train, validation)], path)
        except ImportError:
            return


def save_curve(path, x, values, level, labels):
    """Write a PNG of a curve like Fig. 5: the mean over runs, each run as a dot, and Low's level.

    x: numbers; values: for each a list, one a run; labels: of the two axes
    raises: Refused where matplotlib is not installed
    """
    lines = {"mean": (x, [np.mean(v) for v in values]), "Low": (x, [level] * len(x))}
    runs = [(k, value) for k, of_k in zip(x, values, strict=True) for value in of_k]
    lines["each run"] = tuple(zip(*runs, strict=True))
    look = {"xscale": "log", "xticks": x, "xticklabels": x, "xlabel": labels[0], "ylabel": labels[1]}
    try:
        _draw([("", lines, look)], path)
    except ImportError:
        raise Refused(f"{path}: curves need matplotlib (pip install matplotlib); the numbers are written") from None


def _learning(train, validation):
    """Panels of any run: (title, {name: (steps, values)}, further properties of the axes)."""
    losses = {"training": _line(train, "loss")}
    if "loss" in validation[0]:  # of pretraining
        return [("Loss", {**losses, "validation": _line(validation, "loss")}, {"ylabel": "loss"})]
    measures = {name: _line(validation, key, 100) for key, name in MEASURES.items() if key in validation[0]}
    return [
        ("Training loss (Eq. 1)", losses, {"ylabel": "loss per label"}),
        ("Validation, on the kind of labels that supervises", measures, {"ylabel": "percent"}),
    ]


def _game(train, validation):
    """Panels of what game.py has seen; none of a run without an adversary. docs/paper.md says how to read them."""
    games = [{"step": r["step"], **r["game"]} for r in validation if "game" in r]
    probes = [r for r in train if "gradient_adversary" in r]
    if not games or not probes:
        return []
    auc = {"AUC": _line(games, "auc"), "guessing": ([0, games[-1]["step"]], [0.5, 0.5])}
    ragged = {"predictions": _line(games, "ragged_made", 100), "exemplars": _line(games, "ragged_real", 100)}
    norms = {"Eq. 1, from coarse labels": _line(probes, "gradient_region"),
             "adversary, by its weight": _line(probes, "gradient_adversary")}  # fmt: skip
    return [
        ("Discriminator: exemplar or prediction?", auc, {"ylabel": "AUC", "ylim": (0, 1.02)}),
        ("Raggedness: neighbours of different classes", ragged, {"ylabel": "percent of neighbours"}),
        ("Gradients at the logits", norms, {"ylabel": "norm", "yscale": "log"}),
    ]


def _line(records, key, factor=1):
    """-> steps, values"""
    return [r["step"] for r in records], [factor * r[key] for r in records]


def _draw(panels, path):
    """raises: ImportError where matplotlib is not installed"""
    from matplotlib.figure import Figure  # not pyplot: it keeps figures, and looks for a screen

    columns = min(len(panels), 3 if len(panels) > 2 else 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout="constrained")
    for number, (title, lines, look) in enumerate(panels, 1):
        ax = figure.add_subplot(rows, columns, number)
        for name, (x, values) in lines.items():
            dots = name == "each run"
            marker = "." if dots or len(x) < 30 else ""
            ax.plot(x, values, marker=marker, linewidth=0 if dots else 1.2, label=name)
        ax.set_title(title, fontsize=10)
        ax.set(**{"xlabel": "step", **look})
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        # Below the axes, in two rows: inside it lies on the curves.
        ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=-(-len(lines) // 2))
    with open_whole(path, flush=False) as file:
        figure.savefig(file, format="png", dpi=100)
