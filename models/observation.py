"""What a coarse label says of its cell: p(label | composition), fitted before training and turned round at test [ours].

The paper takes a coarse label for the class of most of its cell. It says more, and less: NLCD calls a cell developed
long before half of it is built up, and tells by four codes how much of it is. Let m be the composition of a cell, the
mean of the pixels' class probabilities, and k its label. With f(m) = [log(m + 0.02), 4 m],

    p(k | m) = softmax over k of W f(m) + b.

Where fine and coarse maps lie over each other, W and b are fitted once (`fit`); no image is needed. A cell's loss is
-log p(k | m). At test the coarse label of the place itself may speak: `posterior`.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from models.regions import sums_by_index

IGNORE = 255  # the label of a cell that says nothing
FLOOR, SLOPE = 0.02, 4.0  # of f: a class that a cell lacks is no proof, and shares count beside their logarithms


class Observation(nn.Module):
    """p(label | composition) over K rows, each a native code or a whole class, and each with a class it is merged to.

    Labels 0 to K - 1 are rows; K + c is "some row of class c", what a code without a row of its own says.

    names:   K codes (int) or class names (str)
    classes: the class of each row; every class has one or more
    weight:  (K, 2C), of log(m + 0.02) and then of 4 m; bias: (K,)
    """

    def __init__(self, names, classes, weight, bias):
        super().__init__()
        self.names, self.classes = tuple(names), tuple(classes)
        self.num_classes = weight.shape[1] // 2
        self.register_buffer("weight", torch.as_tensor(weight, dtype=torch.get_default_dtype()))
        self.register_buffer("bias", torch.as_tensor(bias, dtype=torch.get_default_dtype()))

    def forward(self, composition):
        """(B, C, R) shares -> (B, K + C, R) log-probabilities: of rows, then of classes, their rows together."""
        values = features(composition)
        # Term by term instead of a matrix product, which a GPU may shorten to TF32, and digits depend on the batch.
        logits = sum(w[:, None] * v[:, None] for w, v in zip(self.weight.to(values).T, values.unbind(1), strict=True))
        rows = (logits + self.bias.to(values)[:, None]).log_softmax(dim=1)
        own = [[k for k, to in enumerate(self.classes) if to == c] for c in range(self.num_classes)]
        return torch.cat([rows, torch.stack([rows[:, k].logsumexp(dim=1) for k in own], dim=1)], dim=1)

    def labels(self, merged):
        """{native code: class or 255} -> {native code: label}, and the label of each class."""
        count = len(self.names)
        rows = {name: k for k, name in enumerate(self.names)}
        by_code = {code: to if to == IGNORE else rows.get(code, count + to) for code, to in merged.items()}
        return by_code, [count + c for c in range(self.num_classes)]

    def classes_of(self, labels):
        """Labels -> merged classes; 255 stays."""
        table = torch.full((256,), IGNORE, dtype=torch.uint8, device=labels.device)
        every = [*self.classes, *range(self.num_classes)]
        table[: len(every)] = torch.tensor(every, dtype=torch.uint8, device=labels.device)
        return table[labels.long()]


def features(composition):
    """f(m): (B, C, R) shares -> (B, 2C, R)."""
    return torch.cat([(composition + FLOOR).log(), SLOPE * composition], dim=1)


def merged_table(classes, counts, num_classes):
    """W0 and b0, float64: the merge as p(k | m), in proportion to m of the row's class and its share of that class.

    counts: cells of each row. Where rows are classes, p(k | m) is m itself, but for f's floor.
    """
    weight = torch.zeros(len(classes), 2 * num_classes, dtype=torch.float64)
    weight[range(len(classes)), classes] = 1
    counts = torch.as_tensor(counts, dtype=torch.float64).clamp(min=1)
    totals = torch.zeros(num_classes, dtype=torch.float64).index_add(0, torch.tensor(classes), counts)
    return weight, (counts / totals[list(classes)]).log()


def fit(shares, labels, names, classes, ridge=3e-3):
    """The Observation of greatest likelihood, its numbers rounded to four digits, so that a written table is the table.

    Minimised is -mean over cells of log p(k | m) + ridge (|W - W0|² + |b - b0|²), convex, in float64. The ridge draws
    towards the merge, not to zero: a row of few cells stays what its class says. It weighs against the mean, as
    measured: against the sum it would be nothing, and rare rows would grow without bound [ours].

    shares: (N, C) float64, compositions; labels: (N,) int64, rows
    """
    counts = torch.bincount(labels, minlength=len(names))
    weight0, bias0 = merged_table(classes, counts, shares.shape[1])
    values = features(shares[None].mT)[0].T
    weight, bias = (start.clone().requires_grad_(True) for start in (weight0, bias0))
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        likelihood = -F.cross_entropy(values @ weight.T + bias, labels)
        total = ridge * ((weight - weight0).square().sum() + (bias - bias0).square().sum()) - likelihood
        total.backward()
        return total

    with torch.enable_grad():
        optimizer.step(loss)
    return Observation(names, classes, *(value.detach().mul(1e4).round().div(1e4) for value in (weight, bias)))


def posterior(model, logits, labels, to_cell, cell_px, void=None, resistance=1.0, steps=25, rate=0.3):
    """Logits that also explain the coarse labels over them: u + d, d few numbers a cell [ours].

    Minimised over d, (C, h, w) for each window, is -sum over cells of log p(k | m(u + d)) + resistance / 2 |d|², by
    Adam from d = 0; between the cells' centres d is interpolated. What the image says clearly stays: it would take a
    large d to move it. The best d met is kept, and d = 0 is one of them: no window's labels become less likely.
    Compositions are read off every s-th row and column, some 5 to 10 to a cell along each, as 25 steps over all would
    take longer than the network; but the last word, whether the labels have gained, is over all pixels.

    model:      Observation
    logits:     (B, C, H, W), u
    labels:     (B, h, w) of the model, 255 where there is none; cells seen by less than half do not count
    to_cell:    of each window (a, b, c, d, e, f): from pixels to cells, x = a col + b row + c, y = d col + e row + f
    cell_px:    pixels of a whole cell
    void:       (B, H, W) bool, pixels of which nothing is known, or None
    resistance: of pixels to their label; the larger, the less changes
    returns:    (B, C, H, W) logits, float32 (float64 for float64 logits)
    """
    values = logits if logits.dtype == torch.float64 else logits.float()
    every = max(1, int(math.sqrt(cell_px)) // 5)
    sample = values[:, :, every // 2 :: every, every // 2 :: every]
    index, places = lay(to_cell, labels.shape[1:], values, every, void)
    with torch.inference_mode(False), torch.enable_grad():  # where maps are made, gradients are off
        sample, labels, index, places = (v.clone() for v in (sample, labels, index, places))
        offsets = sample.new_zeros(*logits.shape[:2], *labels.shape[1:], requires_grad=True)
        optimizer = torch.optim.Adam([offsets], rate)
        best, least = torch.zeros_like(offsets), None
        for step in range(steps + 1):
            misfit = misfits(model, sample + spread(offsets, places), labels, index, cell_px / every**2)
            cost = misfit + resistance / 2 * offsets.square().sum((1, 2, 3))
            least = cost.detach() if least is None else least
            better = cost.detach() < least
            best = torch.where(better[:, None, None, None], offsets.detach(), best)
            least = torch.where(better, cost.detach(), least)
            if step < steps:
                (offsets.grad,) = torch.autograd.grad(cost.sum(), offsets)
                optimizer.step()
    if every > 1:
        index, places = lay(to_cell, labels.shape[1:], values, 1, void)
    moved = values + spread(best, places)
    gained = [misfits(model, v, labels, index, cell_px) for v in (moved, values)]
    return torch.where((gained[0] <= gained[1])[:, None, None, None], moved, values)


def lay(to_cell, shape, like, every, void=None):
    """Which cell lies over each `every`-th pixel: index (B, H', W'), -1 for none, and its place for grid_sample."""
    rows, cols = (torch.arange(every // 2, side, every, dtype=torch.float64) + 0.5 for side in like.shape[-2:])
    a, b, c, d, e, f = torch.tensor(to_cell, dtype=torch.float64).T[:, :, None, None]
    x, y = a * cols + (b * rows[:, None] + c), d * cols + (e * rows[:, None] + f)
    col, row = ((value + 5e-7).floor().int() for value in (x, y))  # rounded first, as data/cells.py has it
    inside = (col >= 0) & (col < shape[1]) & (row >= 0) & (row < shape[0])
    index = torch.where(inside, row * shape[1] + col, -1).long().to(like.device)
    if void is not None:
        index = index.masked_fill(void[:, every // 2 :: every, every // 2 :: every], -1)
    places = torch.stack([2 * x / shape[1] - 1, 2 * y / shape[0] - 1], dim=-1)
    return index, places.to(like.dtype).to(like.device)


def spread(offsets, places):
    """(B, C, h, w) at the cells' centres -> (B, C, H', W'), bilinear between them, the outermost beyond."""
    return F.grid_sample(offsets, places, mode="bilinear", padding_mode="border", align_corners=False)


def misfits(model, logits, labels, index, cell_px):
    """-sum over the cells of each window of log p(k | m): (B,); cells seen by less than half are left out."""
    count = labels[0].numel()
    ones = torch.ones_like(index, dtype=logits.dtype)[:, None]
    seen = sums_by_index(ones, index, count)
    composition = sums_by_index(logits.softmax(dim=1), index, count) / seen.clamp(min=1)
    labels = torch.where(seen[:, 0] >= cell_px / 2, labels.flatten(1).long(), IGNORE)
    return F.nll_loss(model(composition), labels, ignore_index=IGNORE, reduction="none").sum(dim=1)
