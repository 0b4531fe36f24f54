"""Region aggregation (Sec. 4.3, Fig. 4): fine logits -> one prediction per low-resolution pixel.

`data/samples.py: supervising_regions` makes M, the region index. Sums are float32: 900 logits of 80 overflow float16.

Eq. 1 sums x over the n² pixels of a cell, and Eq. 3 reads tau x. The paper takes x = u, the network's logits. Here
x = u / n² [differs: so softmax(u) is a pixel's probability, and one learning rate serves all rows; docs/paper.md]:

    supervision.aggregate   last layer gives   logits here, u     Eq. 1 sums     Eq. 3 reads
    sum                     u                  u                  u / n²         (tau / n²) u
    literal_sum             x                  u = n² x (gain)    u / n² = x     (tau / n²) u = tau x

`gain` is in models/unet.py; `adversarial.temperature` is tau / n².
"""

import torch


def aggregate(logits, region_index, num_regions, cell_px, how="sum"):
    """Fine logits to region logits, ready for the cross entropy of Eq. 1.

    logits:  (B, C, H, W), before softmax: u = n² x
    cell_px: n², the pixels of a whole cell
    how:     sum, of x = u / n² [paper, Sec. 4.3]; mean_probs, the log of the mean probability: label proportions with
             one class a bag (Scott and Zhang, NeurIPS 2020); or log_sum_exp
    returns: (B, C, R) float32 (float64 for float64 logits)
    """
    if how in ("sum", "literal_sum"):  # of literal sums the network's gain, n², cancels this division
        return aggregate_logits(logits, region_index, num_regions) / cell_px
    if how == "mean_probs":
        return compositions(logits, region_index, num_regions).clamp(min=1e-12).log()
    if how == "log_sum_exp":
        return log_mean_exp(logits, region_index, num_regions)
    raise ValueError(f"aggregate knows no {how}")


def compositions(logits, region_index, num_regions):
    """The mean class probabilities of each region's pixels, (B, C, R); zeros for a region without pixels [ours]."""
    return region_means(logits.softmax(dim=1), region_index, num_regions)


def region_means(values, region_index, num_regions):
    """The mean of each region's values, as `aggregate_logits` sums them; zeros for a region without pixels."""
    sums = aggregate_logits(values, region_index, num_regions)
    ones = torch.ones_like(values[:, :1], dtype=sums.dtype)
    return sums / aggregate_logits(ones, region_index, num_regions).clamp(min=1)


def log_mean_exp(logits, region_index, num_regions):
    """log of the mean of exp(u) over each region's pixels, (B, C, R); 0 for a region without pixels: between mean and
    maximum, so a few sure pixels can speak for their cell (Pinheiro and Collobert, CVPR 2015, with r = 1)."""
    values = logits if logits.dtype == torch.float64 else logits.float()
    index = torch.where(region_index < 0, num_regions, region_index).flatten(1).long()[:, None]
    index = index.expand(-1, values.shape[1], -1)
    highest = values.new_full((*values.shape[:2], num_regions + 1), -torch.inf)
    highest.scatter_reduce_(2, index, values.detach().flatten(2), "amax")  # shifted by it, no exp is beyond 1
    shifted = (values.flatten(2) - highest.gather(2, index)).view_as(values)
    ones = torch.ones_like(values[:, :1])
    sums, pixels = (aggregate_logits(v, region_index, num_regions) for v in (shifted.exp(), ones))
    return torch.where(pixels > 0, (sums.clamp(min=1e-30) / pixels).log() + highest[..., :num_regions], 0.0)


def aggregate_logits(logits, region_index, num_regions):
    """Sum the logits, or other values, of each region (Sec. 4.3, Fig. 4).

    logits:       (B, C, H, W)
    region_index: (B, H, W) integers in [0, num_regions), -1 where no low-resolution pixel lies
    returns:      (B, C, num_regions) float32 (float64 for float64 logits); zeros for a region without pixels
    raises:       ValueError if the two differ in height or width
    """
    if logits.shape[-2:] != region_index.shape[-2:]:
        raise ValueError(f"logits are {tuple(logits.shape[-2:])} px, the region index {tuple(region_index.shape[-2:])}")
    values = logits if logits.dtype == torch.float64 else logits.float()
    values, index = values.flatten(2), region_index.flatten(1).long()
    index = torch.where(index < 0, num_regions, index)  # pixels of no region go to one more, dropped below
    sums = values.new_zeros(values.shape[0], values.shape[1], num_regions + 1)
    return sums.scatter_add(2, index[:, None].expand_as(values), values)[..., :num_regions]
