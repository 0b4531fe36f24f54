"""Scores from one confusion matrix (Sec. 5): accuracy, macro F1, mean intersection over union."""

import torch

IGNORE = 255


def confusion_matrix(predicted, truth, num_classes):
    """Count pixels: (C, C) int64, rows truth, columns prediction; truth 255 is left out.

    predicted, truth: integer tensors of one shape, classes in [0, C)
    """
    valid = truth != IGNORE
    pairs = truth[valid].long() * num_classes + predicted[valid].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def scores(confusion):
    """(C, C) confusion matrix -> {"accuracy", "macro_f1", "miou", "per_class": [{"f1", "iou"}]}, each in [0, 1].

    Macro means are over the classes present in truth or prediction; a class absent from both scores None.
    """
    counts = confusion.cpu().double()  # MPS has no float64
    hit, truth, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    present = (truth + predicted) > 0
    f1 = 2 * hit / (truth + predicted).clamp(min=1)
    iou = hit / (truth + predicted - hit).clamp(min=1)
    some = bool(present.any())
    return {
        "accuracy": (hit.sum() / counts.sum().clamp(min=1)).item(),
        "macro_f1": f1[present].mean().item() if some else 0.0,
        "miou": iou[present].mean().item() if some else 0.0,
        "per_class": [
            {"f1": f.item(), "iou": i.item()} if p else {"f1": None, "iou": None}
            for f, i, p in zip(f1, iou, present, strict=True)
        ],
    }
