"""Scores (Sec. 5): accuracy, macro F1 and mean intersection over union from one confusion matrix; the F1 of class
borders; and what describes label maps and a discriminator's scores of them. A new score is a function and a line of
SCORES."""

import torch
import torch.nn.functional as F

from runtime.labels import IGNORE


class Tally:
    """What every score is read from, added up over maps, batches and ranks.

    names:  of the C classes
    counts: confusion, (C, C) int64, rows truth, columns prediction; border, (4,) int64 of border_counts
    """

    def __init__(self, names, device="cpu"):
        self.names, sizes = tuple(names), {"confusion": (len(names), len(names)), "border": (4,)}
        self.counts = {name: torch.zeros(size, dtype=torch.int64, device=device) for name, size in sizes.items()}

    def add(self, predicted, truth, rows=slice(None)):
        """predicted, truth: (B, H, W) integer classes, truth 255 is left out; rows: of H, those that count"""
        self.counts["confusion"] += confusion_matrix(predicted[:, rows], truth[:, rows], len(self.names))
        self.counts["border"] += border_counts(predicted, truth, rows)

    def sum_over(self, ranks):
        self.counts = {name: ranks.sum(count) for name, count in self.counts.items()}

    def scores(self):
        """-> {each of SCORES, "per_class": {name: {"f1", "iou"}}}, each in [0, 1].

        Macro means are over the classes present in truth or prediction; a class absent from both scores None.
        """
        classes = zip(self.names, *(of.tolist() for of in of_classes(self.counts["confusion"])), strict=True)
        per_class = {
            name: {"f1": f1, "iou": iou} if present else {"f1": None, "iou": None} for name, f1, iou, present in classes
        }
        return {**{key: score(self.counts[of]) for key, (_, of, score) in SCORES.items()}, "per_class": per_class}


def confusion_matrix(predicted, truth, num_classes):
    """Count pixels: (C, C) int64, rows truth, columns prediction; truth 255 is left out.

    predicted, truth: integer tensors of one shape, classes in [0, C)
    """
    valid = truth != IGNORE
    pairs = truth[valid].long() * num_classes + predicted[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def selection_scores(confusion):
    """(C, C) confusion matrix -> {"accuracy", "macro_f1", "miou"}, by which a checkpoint is selected.

    Macro means are over the classes that the truth holds. In a table's mean one false pixel of a class that a small
    validation split lacks would count as a whole class of score zero.
    """
    f1, iou, _ = of_classes(confusion)
    there = confusion.cpu().sum(dim=1) > 0
    return {"accuracy": accuracy(confusion), "macro_f1": f1[there].mean().item(), "miou": iou[there].mean().item()}


def accuracy(confusion):
    counts = confusion.cpu().double()  # MPS has no float64
    return (counts.diagonal().sum() / counts.sum().clamp(min=1)).item()


def macro_f1(confusion):
    f1, _, present = of_classes(confusion)
    return f1[present].mean().item() if present.any() else 0.0


def miou(confusion):
    _, iou, present = of_classes(confusion)
    return iou[present].mean().item() if present.any() else 0.0


def of_classes(confusion):
    """F1, IoU, and whether truth or prediction has it, each (C,)."""
    counts = confusion.cpu().double()
    hit, truth, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    f1 = 2 * hit / (truth + predicted).clamp(min=1)
    iou = hit / (truth + predicted - hit).clamp(min=1)
    return f1, iou, (truth + predicted) > 0


def border_counts(predicted, truth, rows=slice(None), within_px=2):
    """What border_f1 reads of some maps; counts add up over maps, batches and ranks.

    A pixel lies on a border where its right or lower neighbour has another class; pixels beside ignored ones do not
    count. A border pixel is found where the other map has one within `within_px` rows and columns.

    predicted, truth: (B, H, W) integer classes; truth 255 is left out of both
    rows:    the rows of H whose border pixels count; the other rows only serve as their neighbours
    returns: (4,) int64: border pixels of the prediction, how many of them lie near the truth's; then the reverse
    """
    known = truth != IGNORE
    known[:, :, :-1] &= truth[:, :, 1:] != IGNORE
    known[:, :-1, :] &= truth[:, 1:, :] != IGNORE
    borders, near = [], []
    for labels in (predicted, truth):
        found = torch.zeros_like(known)
        found[:, :, :-1] |= labels[:, :, :-1] != labels[:, :, 1:]
        found[:, :-1, :] |= labels[:, :-1, :] != labels[:, 1:, :]
        borders.append(found & known)
        near.append(F.max_pool2d(borders[-1][:, None].float(), 2 * within_px + 1, 1, within_px)[:, 0] > 0)
    counted = borders[0], borders[0] & near[1], borders[1], borders[1] & near[0]
    return torch.stack([pixels[:, rows].sum() for pixels in counted])


def border_f1(counts):
    """(4,) of border_counts -> F1 of class borders in [0, 1], 1 where neither map has one.

    mIoU hardly sees borders, and this paper is about them [ours].
    """
    ours, ours_right, theirs, theirs_found = counts.tolist()
    if not ours and not theirs:
        return 1.0
    precision, recall = ours_right / max(ours, 1), theirs_found / max(theirs, 1)
    return 2 * precision * recall / max(precision + recall, 1e-12)


# What tables and JSON files hold of a row: {key: (title, the counts of Tally that it is read from, function)}.
SCORES = {
    "accuracy": ("Acc", "confusion", accuracy),
    "macro_f1": ("F1", "confusion", macro_f1),
    "miou": ("mIoU", "confusion", miou),
    "border_f1": ("border", "border", border_f1),
}


def raggedness(maps):
    """(B, H, W) classes -> share of neighbouring pixels that differ; pairs with an ignored pixel are left out."""
    differ = pairs = 0
    for a, b in ((maps[:, 1:], maps[:, :-1]), (maps[:, :, 1:], maps[:, :, :-1])):
        both = (a != IGNORE) & (b != IGNORE)
        differ, pairs = differ + ((a != b) & both).sum().item(), pairs + both.sum().item()
    return differ / max(pairs, 1)


def class_shares(maps, num_classes):
    """(B, H, W) classes -> [share of each class], ignored pixels left out."""
    counts = torch.bincount(maps[maps != IGNORE].long(), minlength=num_classes)
    return (counts / counts.sum().clamp(min=1)).tolist()


def ranking(higher, lower):
    """AUC: the chance that one of the scores `higher` (N,) stands above one of `lower` (M,); a tie counts half."""
    ordered = lower.sort().values
    below, not_above = (torch.searchsorted(ordered, higher, right=right).double() for right in (False, True))
    return ((below + not_above) / (2 * len(lower))).mean().item()
