"""Region aggregation against a slow loop written from the paper's words (Sec. 4.3, Eq. 1)."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from config import SegmenterConfig
from data.cells import Cells, majority_blocks, region_labels
from data.samples import collate, make_sample
from data.tiles import Tile
from data.transforms import dihedral
from losses import cross_entropy_sum
from models import build_segmenter
from models.regions import aggregate, aggregate_logits
from runtime.settings import config_from_flat

HEIGHT, WIDTH, CLASSES = 52, 70, 3
CELL_PX = 15.0**2  # n², for x = u / n²


def grid(n, left=0.0, top=0.0, degrees=0.0, shape=(9, 9), pitch=None):
    """Cells of n px (n x pitch px), their origin at pixel (left, top), tilted; some of the labels are ignored."""
    turn = math.radians(degrees)
    cos, sin, pitch = math.cos(turn), math.sin(turn), pitch or n
    x = (cos / n, sin / n, -(cos * left + sin * top) / n)
    y = (-sin / pitch, cos / pitch, (sin * left - cos * top) / pitch)
    labels = np.random.default_rng(0).integers(0, CLASSES, shape).astype(np.uint8)
    labels[::3, ::2] = 255
    return Cells(labels, (*x, *y), shape)


LAYOUTS = {
    "n that does not divide the tile": grid(15, shape=(4, 5)),
    "offset grid, negative": grid(15, left=-4, top=-11, shape=(5, 6)),
    "offset grid, half pixels": grid(12, left=2.5, top=-3.5, shape=(6, 7)),
    "oblong cells": grid(13, pitch=10, shape=(6, 6)),
    "tilted grid": grid(14.3, left=20, top=-25, degrees=12.7, shape=(9, 9)),
    "grid smaller than the tile": grid(10, left=20, top=10, shape=(2, 3)),
}


def loss_by_a_slow_loop(logits, cells, min_coverage=1.0, cell_px=CELL_PX):
    """Eq. 1: for each low-resolution pixel sum the logits x = u / n² of the image pixels under it, then cross entropy,
    then mean.

    Each pixel asks each cell whether its centre lies in it; a cell counts if it lies in the image whole, or enough of
    its area does.
    """
    classes, height, width = logits.shape
    a, b, c, d, e, f = cells.to_cell
    back = np.linalg.inv(np.array([[a, b, c], [d, e, f], [0, 0, 1]]))
    losses = []
    for i, j in np.ndindex(*cells.labels.shape):
        corners = [back @ (x, y, 1) for x, y in ((j, i), (j + 1, i), (j + 1, i + 1), (j, i + 1))]
        whole = all(-0.5 <= x <= width + 0.5 and -0.5 <= y <= height + 0.5 for x, y, _ in corners)
        total, pixels = logits.new_zeros(classes), 0
        for row, col in np.ndindex(height, width):
            x = a * (col + 0.5) + b * (row + 0.5) + c
            y = d * (col + 0.5) + e * (row + 0.5) + f
            if math.floor(round(x, 6)) == j and math.floor(round(y, 6)) == i:
                total, pixels = total + logits[:, row, col] / cell_px, pixels + 1
        whole = whole or (min_coverage < 1 and pixels * abs(a * e - b * d) >= min_coverage)
        if not whole or cells.labels[i, j] == 255:
            continue
        label = int(cells.labels[i, j])
        losses.append(-torch.log(torch.exp(total[label]) / torch.exp(total).sum()))
    return torch.stack(losses).mean(), len(losses)


def loss_of_the_project(logits, cells, min_coverage=1.0, view=0, cell_px=CELL_PX):
    image = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    batch = collate([make_sample(Tile(image, None, cells), "low_regions", min_coverage, view)])
    region_logits = aggregate(logits[None], batch["region_index"], batch["labels"].shape[1], cell_px)
    return cross_entropy_sum(region_logits, batch["labels"]) / batch["count"], batch


def small_logits():
    torch.manual_seed(0)
    return (torch.randn(CLASSES, HEIGHT, WIDTH, dtype=torch.float64) * 10).requires_grad_()


def compare(u, cells, gain=1.0, cell_px=CELL_PX):
    """Loss and gradient of the project, whose network multiplies by `gain`, and of the slow loop."""
    expected, counted = loss_by_a_slow_loop(u, cells, cell_px=cell_px)
    (expected_gradient,) = torch.autograd.grad(expected, u)
    loss, batch = loss_of_the_project(gain * u, cells)
    (gradient,) = torch.autograd.grad(loss, u)
    assert batch["count"] == counted > 0
    assert torch.allclose(loss, expected, atol=1e-12)
    assert torch.allclose(gradient, expected_gradient, atol=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradient_equal_a_slow_loop(layout):
    compare(small_logits(), LAYOUTS[layout])


@pytest.mark.parametrize("layout", ["n that does not divide the tile", "tilted grid"])
def test_literal_sums_are_those_of_the_networks_own_output(layout):
    """supervision.aggregate=literal_sum: the network gives n² times its last layer's u, and Eq. 1 sums x = u."""
    config = config_from_flat(SegmenterConfig, {"supervision.aggregate": "literal_sum", "model.width": 2})
    gain = build_segmenter(config, 3, 4, CELL_PX**0.5)[0].gain
    compare((0.01 * small_logits()).detach().requires_grad_(), LAYOUTS[layout], gain, cell_px=1.0)


def test_512_by_30_gives_17_by_17_whole_regions_and_leaves_two_pixels_out():
    cells = majority_blocks(np.zeros((512, 512), np.uint8), 30)
    batch = collate([make_sample(Tile(np.zeros((512, 512, 1), np.uint8), None, cells), "low_regions")])
    assert batch["labels"].shape == (1, 17 * 17) and (batch["region_index"] < 0).sum() == 512**2 - 510**2
    assert (aggregate_logits(torch.ones(1, 1, 512, 512), batch["region_index"], 17 * 17) == 900).all()


def test_partly_covered_cells_count_by_their_area():
    cells, logits = LAYOUTS["tilted grid"], small_logits()
    expected, counted = loss_by_a_slow_loop(logits, cells, min_coverage=0.47)
    loss, batch = loss_of_the_project(logits, cells, min_coverage=0.47)
    assert batch["count"] == counted > loss_of_the_project(logits, cells)[1]["count"]
    assert torch.allclose(loss, expected, atol=1e-12)


@pytest.mark.parametrize("n", [14, 28, 30, 38])
def test_a_cell_of_which_just_half_lies_in_the_tile_is_half_covered(n):
    cells = majority_blocks(np.zeros((n, n + n // 2), np.uint8), n)
    for least, counted in ((0.5, 2), (0.51, 1)):
        assert (region_labels(cells, n, n + n // 2, least) == 0).sum() == counted


@pytest.mark.parametrize("view", range(8))
@pytest.mark.parametrize("layout", ["n that does not divide the tile", "tilted grid"])
def test_a_turned_tile_has_the_loss_of_the_tile(layout, view):
    cells, logits = LAYOUTS[layout], small_logits().detach()
    turned = torch.from_numpy(dihedral(logits.permute(1, 2, 0).numpy(), view).copy()).permute(2, 0, 1)
    loss, _ = loss_of_the_project(logits, cells)
    assert torch.allclose(loss_of_the_project(turned, cells, view=view)[0], loss, atol=1e-12)


def test_mean_probs_is_the_log_of_a_probability():
    logits = torch.randn(2, CLASSES, 8, 8)
    index = torch.arange(4).view(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1).expand(2, 8, 8)
    log_probs = aggregate(logits, index, 4, 16, "mean_probs")
    assert torch.allclose(log_probs.exp().sum(dim=1), torch.ones(2, 4))
    expected = F.avg_pool2d(logits.softmax(dim=1), 4).flatten(2).log()
    assert torch.allclose(log_probs, expected, atol=1e-6)


def test_sums_are_float32_under_half_precision():
    logits, index = torch.full((1, 2, 30, 30), 80.0, dtype=torch.float16), torch.zeros(1, 30, 30, dtype=torch.int64)
    assert (aggregate_logits(logits, index, 1) == 72000).all() and (aggregate(logits, index, 1, 2) == 36000).all()


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="8, 8.*9, 9"):
        aggregate_logits(torch.zeros(1, 2, 8, 8), torch.zeros(1, 9, 9, dtype=torch.int64), 1)


def test_batches_of_several_layouts_pad_with_ignored_regions():
    image = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    batch = collate([make_sample(Tile(image, None, LAYOUTS[name]), "low_regions") for name in LAYOUTS])
    logits = torch.randn(len(LAYOUTS), CLASSES, HEIGHT, WIDTH, dtype=torch.float64) * 10
    sums = aggregate(logits, batch["region_index"], batch["labels"].shape[1], CELL_PX)
    together = cross_entropy_sum(sums, batch["labels"])
    alone = [loss_of_the_project(one, cells) for one, cells in zip(logits, LAYOUTS.values(), strict=True)]
    assert torch.allclose(together, sum(loss * batch["count"] for loss, batch in alone), atol=1e-10)
