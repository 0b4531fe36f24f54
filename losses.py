"""One function per equation of Sec. 4."""

import torch
import torch.nn.functional as F

IGNORE = 255  # the label that no loss counts


def cross_entropy_sum(logits, labels):
    """Eq. 1 without its 1/N: -sum over i of log softmax(logits_i)[label_i], over pixels or regions.

    The 1/N is the count over the whole global batch, which one micro-batch cannot know: the caller divides.

    logits: (B, C, H, W) with labels (B, H, W), or (B, C, R) with labels (B, R); label 255 is left out
    returns: scalar; 0 where every label is ignored
    """
    return F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="sum")


def label_misfit_sum(log_probs, labels):
    """-sum over i of log p(label_i): Eq. 1 where regions' labels have probabilities already (models/observation.py).

    log_probs: (B, L, R); labels: (B, R), 255 is left out
    returns: scalar; 0 where every label is ignored
    """
    return F.nll_loss(log_probs, labels.long(), ignore_index=IGNORE, reduction="sum")


def sargmax(logits, temperature):
    """Soft argmax (Eq. 3): sum over c of c * softmax(tau x)_c, classes counted from 0 as labels are [differs: from 1].

    logits:      (B, C, H, W), u = n² x (models/regions.py)
    temperature: tau / n², so that tau x = temperature * u; the paper's 1000 / 900 = 1.11
    returns: (B, 1, H, W) in units of class index, float32 (float64 for float64 logits), also under autocast
    """
    with torch.autocast(logits.device.type, enabled=False):
        x = logits if logits.dtype == torch.float64 else logits.float()
        probs = (temperature * x).softmax(dim=1)
        index = torch.arange(x.shape[1], device=x.device, dtype=x.dtype).view(1, -1, 1, 1)
        return (index * probs).sum(dim=1, keepdim=True)


def straight_through(soft, logits):
    """The argmax of (B, C, H, W) logits as an index map, with the gradient of their sargmax `soft` (B, 1, H, W) [ours].

    An annotation holds classes only. Where predictions may lie between them, that alone gives them away, and the
    discriminator has no need to look at shapes.
    """
    hard = logits.argmax(dim=1, keepdim=True).to(soft.dtype)
    return soft + (hard - soft).detach()


def discriminator_hinge(real_scores, made_scores):
    """L_adv for D (Eq. 2, ref. 17): E[max(0, 1 - D(real))] + E[max(0, 1 + D(made))]."""
    return F.relu(1 - real_scores).mean() + F.relu(1 + made_scores).mean()


def segmenter_hinge(made_scores):
    """L_adv for G (Eq. 2, ref. 17): -E[D(made)]."""
    return -made_scores.mean()
