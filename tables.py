"""Score tables as text, Markdown and plain values: ours over seeds, the paper's figures beside them (Tables 1 to 3)."""

import math
import statistics
from dataclasses import dataclass

SCORES = {"accuracy": "Acc", "macro_f1": "F1", "miou": "mIoU"}

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


@dataclass(frozen=True)
class Row:
    """names: what stands on the left, one for each title; seeds: the scores of evaluate.py, one dict a seed;
    paper: its three figures in percent, or () where it has none."""

    names: tuple
    seeds: list
    paper: tuple = ()


def rows_of(results):
    """Rows of evaluate.py, one list a seed -> [Row] of Tables 1 and 2."""
    return [
        Row((seeds[0]["name"],), list(seeds), PAPER.get(seeds[0]["name"], ())) for seeds in zip(*results, strict=True)
    ]


def as_text(titles, rows):
    """For the terminal: names, ours (mean, and spread over seeds), then the paper's."""
    return "\n".join("".join(cell.ljust(18) if i < len(titles) else cell.rjust(16) for i, cell in enumerate(line))
                     for line in _cells(titles, rows))


def as_markdown(titles, rows):
    head, *lines = ["| " + " | ".join(cells) + " |" for cells in _cells(titles, rows)]
    return "\n".join([head, "|---" * (len(titles) + 2 * len(SCORES)) + "|", *lines]) + "\n"


def as_values(titles, rows):
    """For JSON: a dict a row, its scores as a list over seeds, all as shares of 1."""
    values = []
    for row in rows:
        ours = {key: [seed[key] for seed in row.seeds] for key in SCORES}
        paper = {key: round(value / 100, 4) for key, value in zip(SCORES, row.paper, strict=False)}
        values.append({**dict(zip(titles, row.names, strict=True)), **ours, "paper": paper})
    return values


def gap_closed(rows):
    """Lines: the share of the mIoU gap from Low to High that each row between them closes.

    Undefined where the gap is not twice its spread over seeds; no lines where there is but one seed.
    """
    miou = {row.names[0]: [seed["miou"] for seed in row.seeds] for row in rows}
    if not {"Low", "High"} <= miou.keys() or len(miou["Low"]) < 2:
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


def mean_and_spread(values):
    """Percent: the mean, and over several seeds the sample standard deviation."""
    text = f"{100 * statistics.mean(values):.2f}"
    return text if len(values) == 1 else f"{text} +- {100 * statistics.stdev(values):.2f}"


def _cells(titles, rows):
    """The table as lists of words, its head first."""
    yield [*titles, *SCORES.values(), *(f"paper: {title}" for title in SCORES.values())]
    for row in rows:
        ours = [mean_and_spread([seed[key] for seed in row.seeds]) for key in SCORES]
        yield [*row.names, *ours, *([f"{value:.2f}" for value in row.paper] or [""] * len(SCORES))]
