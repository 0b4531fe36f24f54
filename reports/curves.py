"""Curves, drawn by matplotlib, an extra of requirements-dev.txt: of a run while it trains, and of Fig. 5."""

import json

import numpy as np

from runtime.errors import Refused
from runtime.files import open_whole

PANEL_INCHES = 4.0, 3.2
MEASURES = {"likelihood": "likelihood of labels", "accuracy": "accuracy", "macro_f1": "macro F1", "miou": "mIoU"}


def save_run_curves(log, path):
    """Write a PNG of a run's log.jsonl: loss, validation scores and, with an adversary, the state of the game.

    Nothing is drawn before the second validation, nor where matplotlib is not installed.
    """
    records = [json.loads(line) for line in log.read_text().splitlines()]
    train, validation = ([r for r in records if r["kind"] == kind] for kind in ("train", "validation"))
    if len(validation) < 2:
        return
    try:
        from matplotlib.figure import Figure  # not pyplot: it keeps figures, and looks for a screen
    except ImportError:
        return
    panels = [*_learning(train, validation), *_game(train, validation)]
    columns = min(len(panels), 3 if len(panels) > 2 else 2)
    rows = -(-len(panels) // columns)
    width, height = columns * PANEL_INCHES[0], rows * PANEL_INCHES[1]
    figure = Figure(figsize=(width, height))
    # Margins by hand: to have them found takes as long as all the rest, at every validation.
    margins = {"left": 0.6 / width, "right": 1 - 0.2 / width, "top": 1 - 0.35 / height, "bottom": 0.9 / height}
    figure.subplots_adjust(**margins, wspace=0.25, hspace=0.7)
    for ax, (title, lines, look) in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=True):
        for name, (steps, values) in lines.items():
            ax.plot(steps, values, marker="." if len(steps) < 30 else "", linewidth=1.2, label=name)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="step", xlim=(0, records[-1]["step"]), **look)
        ax.grid(alpha=0.3)
        # The legend stands below the axes, in two rows: inside it lies on the curves.
        ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(-0.05, -0.2), ncols=-(-len(lines) // 2))
    _save(figure, path, dpi=100)


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
    (steps, labels), (_, adversary) = norms.values()
    parts = [100 * a / (a + b) if a + b else 0.0 for a, b in zip(adversary, labels, strict=True)]
    shares = {"adversary, of both norms": (steps, parts),
              "pixels that carry 90 % of its norm": _line(games, "gradient_pixels", 100)}  # fmt: skip
    return [
        ("Discriminator: exemplar or prediction?", auc, {"ylabel": "AUC", "ylim": (0, 1.02)}),
        ("Raggedness: neighbours of different classes", ragged, {"ylabel": "percent of neighbours"}),
        ("Gradients at the logits", norms, {"ylabel": "norm", "yscale": "log"}),
        ("The adversary's gradient: shares", shares, {"ylabel": "percent", "ylim": (0, 102)}),
    ]


def _line(records, key, factor=1):
    """-> steps, values"""
    return [r["step"] for r in records], [factor * r[key] for r in records]


def save_curve(path, x, values, level, labels):
    """Write a PNG of a curve like Fig. 5: mean over seeds, each seed as a dot, and Low's level.

    x: numbers; values: for each a list, one a seed; labels: of the two axes
    raises: Refused where matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Refused(f"{path}: curves need matplotlib (pip install matplotlib); the numbers are written") from None
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, [np.mean(v) for v in values], "o-")
    axes.plot(x, values, ".", color="grey", markersize=4)
    axes.axhline(level, linestyle="--", color="black")
    axes.annotate("Low", (x[-1], level), textcoords="offset points", xytext=(0, 4), ha="right")
    axes.set(xscale="log", xlabel=labels[0], ylabel=labels[1])
    axes.set_xticks(x, [str(at) for at in x])
    axes.minorticks_off()
    _save(figure, path, dpi=150)


def _save(figure, path, dpi):
    with open_whole(path, flush=False) as file:
        figure.savefig(file, format="png", dpi=dpi)
