"""Eq. 1 to 3 of Sec. 4, and what the discriminator sees. The sum over cells is in models/regions.py."""

import torch
import torch.nn.functional as F

from runtime.labels import IGNORE


def cross_entropy_sum(logits, labels):
    """Eq. 1 without its 1/N: -sum over i of log softmax(logits_i)[label_i], over pixels or regions.

    logits: (B, C, H, W) with labels (B, H, W), or (B, C, R) with labels (B, R); label 255 is left out
    returns: scalar; 0 where every label is ignored
    """
    # The 1/N counts the labels of the whole global batch. One micro-batch cannot know them: the caller divides.
    return F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="sum")  # labels are stored as bytes


def sargmax(logits, temperature):
    """Soft argmax (Eq. 3): sum over c of c * softmax(tau x)_c, classes counted from 0 as labels are [differs: from 1].

    logits:      (B, C, H, W), u = n² x (models/regions.py)
    temperature: tau / n², so that tau x = temperature * u; the paper's 1000 / 900 = 1.11
    returns: (B, 1, H, W) in units of class index, float32 (float64 for float64 logits), also under autocast
    """
    # Not in half precision: tau x would be rounded to 8 or 11 bits, and the map with it.
    with torch.autocast(logits.device.type, enabled=False):
        u = logits if logits.dtype == torch.float64 else logits.float()
        probs = (temperature * u).softmax(dim=1)  # (B, C, H, W); the larger tau is, the nearer to one-hot
        index = torch.arange(u.shape[1], device=u.device, dtype=u.dtype).view(1, -1, 1, 1)
        # The index is a number line: halfway between classes 0 and 2 looks like class 1. So the class order is part
        # of the model.
        return (index * probs).sum(dim=1, keepdim=True)


def straight_through(soft, logits):
    """The argmax of (B, C, H, W) logits as an index map, with the gradient of their sargmax `soft` (B, 1, H, W) [ours].

    An annotation holds classes only. Where predictions may lie between them, that alone gives them away, and the
    discriminator has no need to look at shapes.
    """
    hard = logits.argmax(dim=1, keepdim=True).to(soft.dtype)
    # The value is `hard`: soft - soft is 0. The gradient is that of `soft`: detach hides the rest from autograd.
    return soft + (hard - soft).detach()


def made_map(logits, temperature, maps="straight_through"):
    """The segmenter's move in the game: its index map, (B, 1, H, W), with sargmax's gradient.

    maps: straight_through, or soft, the sargmax itself
    """
    soft = sargmax(logits, temperature)
    return soft if maps == "soft" else straight_through(soft, logits)  # soft [paper, Sec. 4.4]


def appearance(index_map, exemplar, classes, blur_sigma):
    """What the discriminator sees of a label map (Sec. 4.4, 4.6): scaled to (0, 1], masked, blurred.

    index_map: (B, 1, H, W) in units of class index, from 0
    exemplar:  (B, 1, H, W), whose ignored pixels are 0 in real and made maps alike, so that holes teach nothing
    """
    # Classes count from 1 here, as in Eq. 3. 0 is no class: it stands for ignored pixels and for what lies beyond the
    # edge, with which convolutions pad. Else the first class would look like both.
    scaled = torch.where(exemplar == IGNORE, 0.0, (index_map + 1) / classes)
    # The blur hides the last sharp steps between classes, in real and made maps alike [paper, Sec. 4.6]. Maps are the
    # channels of one image in it: as images of one channel they take 11 to 31 % of a CPU's step more.
    from torchvision.transforms.functional import gaussian_blur  # here: it takes two seconds to import

    return gaussian_blur(scaled.transpose(0, 1), [3, 3], [blur_sigma, blur_sigma]).transpose(0, 1)


def discriminator_hinge(real_scores, made_scores):
    """L_adv for D (Eq. 2, ref. 17): E[max(0, 1 - D(real))] + E[max(0, 1 + D(made))]."""
    # Scores beyond 1 and -1 cost nothing more: a discriminator that is sure does not run away from the segmenter.
    return F.relu(1 - real_scores).mean() + F.relu(1 + made_scores).mean()


def segmenter_hinge(made_scores):
    """L_adv for G (Eq. 2, ref. 17): -E[D(made)]."""
    # No hinge here: a map that looks real already may look more so, and the gradient never dies.
    return -made_scores.mean()
