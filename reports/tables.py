"""Score tables as Markdown and plain values: ours over seeds, the paper's figures beside them (Tables 1 to 3)."""

import json
import statistics
from dataclasses import dataclass

import torch

from metrics import SCORES, Tally
from runtime.files import write_text

PAPER_SCORES = ("accuracy", "macro_f1", "miou")

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
# Each row, and one that it is held against: mostly that to which it adds one thing.
HELD_AGAINST = (
    ("Low", "Linear"),
    ("Agg", "Low"),
    ("Agg+App", "Agg"),
    ("Agg+App", "Low"),
    ("Ours", "Agg+App"),
    ("High", "Agg+App"),
    ("Obs", "Agg"),
    ("Obs", "Low"),
    ("High", "Obs"),
    ("Obs+App", "Obs"),
    ("Obs+App+Pre", "Obs+App"),
)
# Student's t for 95 %, two-sided, by degrees of freedom from 1 on.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Row:
    """names: what stands on the left, one for each title; seeds: scores of evaluate.py, one dict a seed and tile set;
    sums: the scores of all tile sets together, one dict a seed; paper: its three figures in percent, or () if none."""

    names: tuple
    seeds: list
    sums: list
    paper: tuple = ()


def rows_of(results):
    """{tile set: [rows of evaluate.py, one list a seed]} -> [Row] of Tables 1 and 2."""
    rows = []
    for of_sets in zip(*(zip(*seeds, strict=True) for seeds in results.values()), strict=True):  # a row: sets, seeds
        name, seeds = of_sets[0][0]["name"], [seed for seeds in of_sets for seed in seeds]
        sums = [added(of_seed) for of_seed in zip(*of_sets, strict=True)] if len(of_sets) > 1 else seeds
        rows.append(Row((name,), seeds, sums, PAPER.get(name, ())))
    return rows


def added(rows):
    """The scores of some rows of evaluate.py together, as if all their tiles were of one set."""
    tally = Tally(rows[0]["per_class"])
    for name, counts in tally.counts.items():
        for row in rows:
            counts += torch.tensor(row[name])
    return tally.scores()


def write_table(arguments, heading, titles, rows, notes=()):
    """Print a table, and write it as Markdown and JSON. arguments: those of reproduce.py"""
    path, scores = arguments.out / f"{arguments.what}.md", len(arguments.data or [1]) * arguments.seeds
    if scores > 1:
        heading += f"; +- over {scores // arguments.seeds} tile sets x {arguments.seeds} seeds"
    table = as_markdown(titles, rows)
    print(f"\n{heading}; the paper's on Low2High. Percent.\n\n{table}", *notes, sep="\n")
    write_text(path, "\n".join([table, *(f"- {note}" for note in notes)]))
    values = {"what": heading, "rows": as_values(titles, rows), "notes": notes}
    write_text(path.with_suffix(".json"), json.dumps(values, indent=1))
    print(f"table: {path} and .json; scores of each class and seed: {arguments.what}-*.json beside it")


def as_markdown(titles, rows):
    """Names, ours (mean, and spread over seeds), then the paper's; columns as wide as a terminal wants them."""
    names, paper = [title for title, *_ in SCORES.values()], [f"paper: {SCORES[key][0]}" for key in PAPER_SCORES]
    cells = [[*titles, *names, *paper]]
    for row in rows:
        ours = [mean_and_spread([seed[key] for seed in row.seeds]) for key in SCORES]
        cells.append([*row.names, *ours, *([f"{value:.2f}" for value in row.paper] or [""] * len(PAPER_SCORES))])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_values(titles, rows):
    """For JSON: a dict a row, its scores as lists over seeds, and over those of all tile sets together, in [0, 1]."""
    values = []
    for row in rows:
        ours, sums = ({key: [seed[key] for seed in of] for key in SCORES} for of in (row.seeds, row.sums))
        paper = {key: round(value / 100, 4) for key, value in zip(PAPER_SCORES, row.paper, strict=False)}
        values.append({**dict(zip(titles, row.names, strict=True)), **ours, "sum": sums, "paper": paper})
    return values


def gap_closed(rows):
    """Lines: the share of the mIoU gap from Low to High that each row between them closes, over the tiles of all sets.

    Undefined where the gap is not twice its spread over seeds; no lines where there is but one score a row. No shares
    of the paper's stand beside: they compare only where coarse labels are of one kind.
    """
    miou = {row.names[0]: [scores["miou"] for scores in row.sums] for row in rows}
    if not {"Low", "High"} <= miou.keys() or len(rows[0].seeds) < 2:
        return []
    gaps = [high - low for low, high in zip(miou["Low"], miou["High"], strict=True)]
    gap, spread = statistics.mean(gaps), statistics.stdev(gaps) if len(gaps) > 1 else 0
    lines = [f"gap in mIoU from Low to High, over all tiles: {mean_and_spread(gaps)}"]
    for name in [name for name in miou if name not in ("Oracle", "Self-Epitomic LSR", "Low", "High")]:
        share = "undefined"
        if gap > 2 * spread:
            share = f"{100 * (statistics.mean(miou[name]) - statistics.mean(miou['Low'])) / gap:.1f} %"
        lines.append(f"{name} closes {share} of it")
    return lines


def differences(rows):
    """Lines: the mIoU of a row minus that of the row that it adds to, paired by tile set and seed, with its 95 %
    interval (t). An interval that holds zero says that no difference could be told."""
    miou, lines = {row.names[0]: [seed["miou"] for seed in row.seeds] for row in rows}, []
    for name, base in HELD_AGAINST:
        if not {name, base} <= miou.keys() or len(miou[name]) < 2:
            continue
        pairs = [100 * (a - b) for a, b in zip(miou[name], miou[base], strict=True)]
        mean, half = interval(pairs)
        told = "" if abs(mean) > half else ": no difference that could be told"
        lines.append(f"{name} - {base}: {mean:+.2f} +- {half:.2f} mIoU (95 %, {len(pairs)} pairs){told}")
    return lines


def interval(pairs):
    """Mean of paired differences, and half of its 95 % interval (t)."""
    t = T95[min(len(pairs) - 1, len(T95)) - 1]
    return statistics.mean(pairs), t * statistics.stdev(pairs) / len(pairs) ** 0.5


def mean_and_spread(values):
    """Percent: the mean, and over several seeds the sample standard deviation."""
    text = f"{100 * statistics.mean(values):.2f}"
    return text if len(values) == 1 else f"{text} +- {100 * statistics.stdev(values):.2f}"
