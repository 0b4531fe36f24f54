"""Region aggregation (Sec. 4.3, Fig. 4): fine logits -> one prediction per low-resolution pixel.

`data/cells.py` makes M, the region index. Sums are float32: 900 logits of 80 overflow float16.

The paper sums logits x. Here x = u / n², u the logits that the network returns and n² the pixels of a whole cell
[paper silent; ours]: Eq. 1 and Eq. 3 stay the paper's to the letter, with tau / n² in place of tau. Adam moves each
weight as far whatever the loss is multiplied by, so with x = u a step would move a region's sum n² times as far as a
step of Low or High moves a pixel: maps speckle. And softmax(u) is the probability of a pixel, as sharp as that of its
region. The literal x = u is `supervision.aggregate=literal_sum`, by which the network multiplies its last layer's
output by n² (models/unet.py: gain).
"""

import torch


def aggregate(logits, regions, cell_px, how="sum"):
    """Fine logits to region logits, ready for the cross entropy of Eq. 1.

    logits:  (B, C, H, W), before softmax: u, n² times the paper's x
    regions: {"region_index": (B, H, W), "num_regions": R}, or for whole blocks
             {"block_px": n, "corners": [(top, left)] * B, "grid": (h, w)}
    cell_px: n², the pixels of a whole cell
    how:     sum, of x = u / n² [paper, Sec. 4.3]; mean_probs, the log of the mean probability [ours]
    returns: (B, C, R) float32 (float64 for float64 logits)
    """
    if how == "mean_probs":
        return compositions(logits, regions).clamp(min=1e-12).log()
    return _sums(logits, regions) / cell_px


def compositions(logits, regions):
    """The mean class probabilities of each region's pixels, (B, C, R); zeros for a region without pixels [ours].

    logits, regions: as in `aggregate`
    """
    sums = _sums(logits.softmax(dim=1), regions)
    if "block_px" in regions:
        return sums / regions["block_px"] ** 2
    index = regions["region_index"].long()
    ones = torch.ones_like(index, dtype=sums.dtype)
    return sums / aggregate_logits(ones[:, None], index, regions["num_regions"]).clamp(min=1)


def _sums(values, regions):
    if "block_px" in regions:
        return pool_logits(values, regions["block_px"], regions["corners"], regions["grid"])
    return aggregate_logits(values, regions["region_index"].long(), regions["num_regions"])


def aggregate_logits(logits, region_index, num_regions):
    """Sum the logits of each region (Sec. 4.3, Fig. 4).

    logits:       (B, C, H, W), before softmax
    region_index: (B, H, W) int64 in [0, num_regions), -1 where no low-resolution pixel lies
    returns:      (B, C, num_regions) float32 (float64 for float64 logits); zeros for a region without pixels
    raises:       ValueError if the two differ in height or width
    """
    if logits.shape[-2:] != region_index.shape[-2:]:
        raise ValueError(f"logits are {tuple(logits.shape[-2:])} px, the region index {tuple(region_index.shape[-2:])}")
    values = _at_least_float32(logits).flatten(2)
    index = region_index.flatten(1)
    index = torch.where(index < 0, num_regions, index)  # pixels of no region go to one more, dropped below
    sums = values.new_zeros(values.shape[0], values.shape[1], num_regions + 1)
    return sums.scatter_add(2, index[:, None].expand_as(values), values)[..., :num_regions]


def pool_logits(logits, block_px, corners, grid):
    """The same sums where regions are whole n x n blocks, by pooling.

    corners: (top, left) pixel of the first block, one for each of the B images; grid: (h, w) blocks
    returns: (B, C, h * w), regions in row order
    """
    height, width = grid[0] * block_px, grid[1] * block_px
    values = _at_least_float32(logits)
    corners = [tuple(corner) for corner in corners]  # a loader that pins memory may have made lists of them
    if len(set(corners)) == 1:
        (top, left) = corners[0]
        values = values[..., top : top + height, left : left + width]
    else:
        crops = [image[:, t : t + height, x : x + width] for image, (t, x) in zip(values, corners, strict=True)]
        values = torch.stack(crops)
    rows = values.unflatten(2, (grid[0], block_px)).sum(dim=3)  # whole rows first: three times as fast as avg_pool2d
    return rows.unflatten(3, (grid[1], block_px)).sum(dim=4).flatten(2)


def _at_least_float32(logits):
    return logits if logits.dtype == torch.float64 else logits.float()
