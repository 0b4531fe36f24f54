"""The observation model turned round at test: a map that also explains the coarse labels of its place [ours].

To the logits u of a cell's pixels few numbers d are added, (C,) at its centre and interpolated between the centres.
Minimised over d is

    -sum over cells of log p(k | m(u + d)) + resistance / 2 |d|²,

by Adam from d = 0. What the image says clearly stays: it would take a large d to move it.
"""

import math

import torch
import torch.nn.functional as F

from models.regions import aggregate_logits
from runtime.labels import IGNORE

STRIP = 128  # rows at a time on a CPU: what they hold stays in its cache


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
    dtype = torch.promote_types(logits.dtype, torch.float32)
    every = max(1, int(math.sqrt(cell_px)) // 5)
    sample = logits[:, :, every // 2 :: every, every // 2 :: every].to(dtype).contiguous()
    where = lay(to_cell, labels.shape[1:], sample, every, void)
    offsets = best_offsets(model, sample, labels, *where, cell_px / every**2, resistance, steps, rate)

    moved = torch.empty(logits.shape, dtype=dtype, device=logits.device)
    before = after = seen = 0
    height = STRIP if logits.device.type == "cpu" else logits.shape[2]
    for top in range(0, logits.shape[2], height):
        rows = slice(top, top + height)
        values = logits[:, :, rows].to(dtype).contiguous()
        hidden = None if void is None else void[:, rows]
        index, places = lay(to_cell, labels.shape[1:], values, 1, hidden, top)
        moved[:, :, rows] = values + spread(offsets, places)
        before, after = (
            total + aggregate_logits(part.softmax(dim=1), index, labels[0].numel())
            for total, part in ((before, values), (after, moved[:, :, rows]))
        )
        seen = seen + pixels(index, labels, dtype)
    known = counted(labels, seen, cell_px)
    gained = misfits(model(after / seen.clamp(min=1)), known) <= misfits(model(before / seen.clamp(min=1)), known)
    if not gained.all():
        moved[~gained] = logits[~gained].to(dtype)
    return moved


def best_offsets(model, logits, labels, index, places, cell_px, resistance, steps, rate):
    """d, (B, C, h, w). By hand and not by autograd, which takes three times as long for tensors as small as these."""
    offsets = logits.new_zeros(*logits.shape[:2], *labels.shape[1:])
    optimizer = torch.optim.Adam([offsets], rate)
    back = adjoint_of_spread(offsets, places)
    seen = pixels(index, labels, logits.dtype)
    known, seen = counted(labels, seen, cell_px), seen.clamp(min=1)
    nowhere = labels[0].numel()  # a cell more, for pixels of none
    gather = torch.where(index < 0, nowhere, index).flatten(1)[:, None].expand(-1, logits.shape[1], -1)
    best, least = torch.zeros_like(offsets), None
    for step in range(steps + 1):
        probs = (logits + spread(offsets, places)).softmax(dim=1)
        composition = aggregate_logits(probs, index, nowhere) / seen
        log_probs = model(composition)
        cost = misfits(log_probs, known) + resistance / 2 * offsets.square().sum((1, 2, 3))
        least = cost if least is None else least
        better = cost < least
        best, least = torch.where(better[:, None, None, None], offsets, best), torch.where(better, cost, least)
        if step < steps:
            of_cells = F.pad(model.slope(composition, log_probs, known) / seen, (0, 1))
            of_probs = of_cells.gather(2, gather).view_as(probs)
            of_logits = probs * (of_probs - (probs * of_probs).sum(dim=1, keepdim=True))
            offsets.grad = back(of_logits) + resistance * offsets
            optimizer.step()
    return best


def lay(to_cell, shape, like, every, void=None, top=0):
    """Which cell lies over each `every`-th pixel: index (B, H', W'), -1 for none, and its place for grid_sample.

    shape: (h, w) of the cells; like: what has the size (H', W'), type and device; top: the window's row that H' begins
    with; void: (B, H, W) of the pixels from there on
    """
    a, b, c, d, e, f = torch.tensor(to_cell, dtype=torch.float64).T[:, :, None, None]
    rows, cols = (every * torch.arange(side, dtype=torch.float64) + (every // 2 + 0.5) for side in like.shape[-2:])
    rows = rows[:, None] + top
    x, y = a * cols + (b * rows + c), d * cols + (e * rows + f)
    places = torch.empty(*x.shape, 2, dtype=like.dtype)
    for k, (value, side) in enumerate(((x, shape[1]), (y, shape[0]))):
        places[..., k] = value * (2 / side) - 1
        value.add_(5e-7).floor_()  # rounded first, as data/cells.py has it
    inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    index = torch.where(inside, y.mul_(shape[1]).add_(x), -1.0).long().to(like.device)
    if void is not None:
        index = index.masked_fill(void[:, every // 2 :: every, every // 2 :: every], -1)
    return index, places.to(like.device)


def spread(offsets, places):
    """(B, C, h, w) at the cells' centres -> (B, C, H', W'), bilinear between them, the outermost beyond."""
    return F.grid_sample(offsets, places, mode="bilinear", padding_mode="border", align_corners=False)


def adjoint_of_spread(offsets, places):
    """Gradients by what `spread` returns -> gradients by what it is given; it is linear, so one graph serves always."""
    with torch.inference_mode(False), torch.enable_grad():  # where maps are made, gradients are off
        zeros = torch.zeros(offsets.shape, dtype=offsets.dtype, device=offsets.device, requires_grad=True)
        field = spread(zeros, places.clone())
    return lambda gradient: torch.autograd.grad(field, zeros, gradient, retain_graph=True)[0]


def pixels(index, labels, dtype):
    """How many pixels each cell has: (B, 1, R)."""
    return aggregate_logits(torch.ones_like(index, dtype=dtype)[:, None], index, labels[0].numel())


def counted(labels, seen, cell_px):
    """(B, h, w) labels -> (B, R), 255 for cells seen by less than half too."""
    return torch.where(seen[:, 0] >= cell_px / 2, labels.flatten(1).long(), IGNORE)


def misfits(log_probs, labels):
    """-sum over the cells of each window of log p(k | m): (B,)."""
    return F.nll_loss(log_probs, labels, ignore_index=IGNORE, reduction="none").sum(dim=1)
