"""One function per equation of Sec. 4."""

import torch.nn.functional as F

IGNORE = 255  # the label that no loss counts


def cross_entropy_sum(logits, labels):
    """Eq. 1 without its 1/N: -sum over i of log softmax(logits_i)[label_i], over pixels or regions.

    The 1/N is the count over the whole global batch, which one micro-batch cannot know: the caller divides.

    logits: (B, C, H, W) with labels (B, H, W), or (B, C, R) with labels (B, R); label 255 is left out
    returns: scalar; 0 where every label is ignored
    """
    return F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="sum")
