"""What a coarse label says of its cell: p(label | composition), fitted before training and inverted at test [ours].

Let m be the composition of a cell, the mean of the pixels' class probabilities, and k its label. With
f(m) = [log(m + 0.02), 4 m],

    p(k | m) = softmax over k of W f(m) + b.

Where fine and coarse maps lie over each other, W and b are fitted once; no image is needed. A cell's loss is
-log p(k | m). docs/paper.md says why; at test the coarse label of the place itself may speak: beyond/posterior.py.
"""

import torch
import torch.nn.functional as F
from torch import nn

from runtime.labels import IGNORE

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
        self.register_buffer("class_of", class_table([*classes, *range(self.num_classes)]))

    def forward(self, composition):
        """(B, C, R) shares -> (B, K + C, R) log-probabilities: of rows, then of classes, their rows together."""
        values = features(composition)
        # Term by term instead of a matrix product, which a GPU may shorten to TF32, and digits depend on the batch.
        logits = sum(w[:, None] * v[:, None] for w, v in zip(self.weight.to(values).T, values.unbind(1), strict=True))
        rows = (logits + self.bias.to(values)[:, None]).log_softmax(dim=1)
        own = [[k for k, to in enumerate(self.classes) if to == c] for c in range(self.num_classes)]
        return torch.cat([rows, torch.stack([rows[:, k].logsumexp(dim=1) for k in own], dim=1)], dim=1)

    def judge(self, composition, labels):
        """-> -sum over regions of log p(label | composition), labels (B, R) of 255 left out, and scores of classes."""
        log_probs = self(composition)
        misfit = F.nll_loss(log_probs, labels, ignore_index=IGNORE, reduction="sum")
        return misfit, log_probs[:, -self.num_classes :]

    def labels(self, merged):
        """{native code: class or 255} -> {native code: label}, and the label of each class."""
        count = len(self.names)
        rows = {name: k for k, name in enumerate(self.names)}
        by_code = {code: to if to == IGNORE else rows.get(code, count + to) for code, to in merged.items()}
        return by_code, [count + c for c in range(self.num_classes)]


def class_table(classes):
    """(256,) uint8: the class of each label, 255 of what has none."""
    return torch.tensor([*classes, *[IGNORE] * (256 - len(classes))], dtype=torch.uint8)


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
    """The Observation of greatest likelihood, rounded to four decimals so that a written table equals it exactly.

    We minimise -mean over cells of log p(k | m) + ridge (|W - W0|² + |b - b0|²): convex, in float64. The ridge pulls
    towards the merge: a row of few cells stays close to its class. With a sum, W and b would grow without bound.

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
        misfit = F.cross_entropy(values @ weight.T + bias, labels)
        total = ridge * ((weight - weight0).square().sum() + (bias - bias0).square().sum()) + misfit
        total.backward()
        return total

    optimizer.step(loss)
    return Observation(names, classes, *(value.detach().mul(1e4).round().div(1e4) for value in (weight, bias)))
