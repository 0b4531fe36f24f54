"""The observation model inverted at test: a map that also explains the coarse labels of its place [ours].

We add an offset d to the logits u: (C,) numbers at each cell's centre, interpolated between the centres.
We minimise over d

    -sum over cells of log p(k | m(u + d)) + resistance / 2 |d|²,

by Adam from d = 0. What the image says clearly stays: it would take a large d to move it.
"""

import math

import torch
import torch.nn.functional as F

from models.regions import aggregate_logits, compositions
from runtime.labels import IGNORE

STRIP = 128  # rows at a time: what they hold stays in a CPU's cache. All at once take 1.5 times as long at 1,024 px.


def posterior(model, logits, labels, to_cell, cell_px, void=None, resistance=1.0, steps=25, rate=0.3):
    """Logits that also explain the coarse labels over them: u + d.

    The best d met is kept, and d = 0 is one of them: no window's labels become less likely. Compositions are read off
    every s-th row and column, some 5 to 10 to a cell along each, as 25 steps over all would take longer than the
    network; but the last word, whether the labels have gained, is over all pixels.

    model:      Observation
    logits:     (B, C, H, W), u
    labels:     (B, h, w) of the model, 255 where there is none; cells seen by less than half do not count
    to_cell:    of each window (a, b, c, d, e, f): from pixels to cells, x = a col + b row + c, y = d col + e row + f
    cell_px:    pixels of a whole cell
    void:       (B, H, W) bool, pixels of which nothing is known, or None
    resistance: of pixels to their label; the larger, the less changes
    returns:    (B, C, H, W) logits, float32 (float64 for float64 logits)
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    shape, cells, classes = labels.shape[1:], labels[0].numel(), logits.shape[1]
    every = max(1, int(math.sqrt(cell_px)) // 5)
    sample = logits[:, :, every // 2 :: every, every // 2 :: every].contiguous()
    where = cells_at(to_cell, shape, sample, every, void)
    offsets = best_offsets(model, sample, labels, *where, cell_px / every**2, resistance, steps, rate)

    strips, sums = [], 0
    for top in range(0, logits.shape[2], STRIP):
        values = logits[:, :, top : top + STRIP].contiguous()
        hidden = None if void is None else void[:, top : top + STRIP]
        index, places = cells_at(to_cell, shape, values, 1, hidden, top)
        strips.append(values + spread(offsets, places))
        parts = values.softmax(dim=1), strips[-1].softmax(dim=1), torch.ones_like(values[:, :1])
        sums = sums + aggregate_logits(torch.cat(parts, dim=1), index, cells)
    before, after, seen = sums.split([classes, classes, 1], dim=1)
    known = half_seen(labels, seen, cell_px)
    before, after = (misfits(model(part / seen.clamp(min=1)), known) for part in (before, after))
    return torch.where((after <= before)[:, None, None, None], torch.cat(strips, dim=2), logits)


def best_offsets(model, logits, labels, index, places, cell_px, resistance, steps, rate):
    """d, (B, C, h, w)."""
    cells = labels[0].numel()
    known = half_seen(labels, aggregate_logits(torch.ones_like(logits[:, :1]), index, cells), cell_px)
    with torch.inference_mode(False), torch.enable_grad():  # where maps are made, gradients are off
        logits, known, index, places = (given.clone() for given in (logits, known, index, places))
        offsets = torch.zeros(*logits.shape[:2], *labels.shape[1:], dtype=logits.dtype, device=logits.device)
        best, least = offsets.clone(), torch.inf
        optimizer = torch.optim.Adam([offsets.requires_grad_()], rate)
        for step in range(steps + 1):
            log_probs = model(compositions(logits + spread(offsets, places), index, cells))
            cost = misfits(log_probs, known) + resistance / 2 * offsets.square().sum((1, 2, 3))
            better = cost.detach() < least
            best = torch.where(better[:, None, None, None], offsets.detach(), best)
            least = torch.where(better, cost.detach(), least)
            if step < steps:
                optimizer.zero_grad()
                cost.sum().backward()
                optimizer.step()
    return best


def cells_at(to_cell, shape, like, every, void=None, top=0):
    """Which cell lies over each `every`-th pixel: index (B, H', W'), -1 for none, and its place for grid_sample.

    shape: (h, w) of the cells; like: what has the size (H', W'), type and device; top: the window's row that H' begins
    with; void: (B, H, W) of the pixels from there on
    """
    a, b, c, d, e, f = torch.tensor(to_cell, dtype=torch.float64).T[:, :, None, None]
    rows, cols = (every * torch.arange(side, dtype=torch.float64) + (every // 2 + 0.5) for side in like.shape[-2:])
    rows = rows[:, None] + top
    x, y = a * cols + (b * rows + c), d * cols + (e * rows + f)
    places = torch.stack([x * (2 / shape[1]) - 1, y * (2 / shape[0]) - 1], dim=-1).to(like)
    col, row = (x + 5e-7).floor(), (y + 5e-7).floor()  # rounded first, as data/cells.py has it
    inside = (col >= 0) & (col < shape[1]) & (row >= 0) & (row < shape[0])
    index = torch.where(inside, row * shape[1] + col, -1.0).long().to(like.device)
    if void is not None:
        index = index.masked_fill(void[:, every // 2 :: every, every // 2 :: every], -1)
    return index, places


def spread(offsets, places):
    """(B, C, h, w) at the cells' centres -> (B, C, H', W'), bilinear between them, the outermost beyond."""
    return F.grid_sample(offsets, places, mode="bilinear", padding_mode="border", align_corners=False)


def half_seen(labels, seen, cell_px):
    """(B, h, w) labels -> (B, R), 255 for cells seen by less than half too. seen: (B, 1, R), pixels of each"""
    return torch.where(seen[:, 0] >= cell_px / 2, labels.flatten(1).long(), IGNORE)


def misfits(log_probs, labels):
    """-sum over the cells of each window of log p(k | m): (B,)."""
    return F.nll_loss(log_probs, labels, ignore_index=IGNORE, reduction="none").sum(dim=1)
