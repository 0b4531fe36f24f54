"""The posterior: against slow loops, and what it promises."""

import math

import pytest
import torch
from random_observation import random_model

from beyond.posterior import cells_at, half_seen, misfits, posterior, spread
from models.regions import aggregate_logits, compositions

pytestmark = pytest.mark.usefixtures("float64")
TILT = (0.093, 0.021, -0.6, -0.021, 0.094, 0.9)  # about 12.7 degrees, cells of some 10.5 px
LAYOUTS = {
    "blocks": ((0.125, 0, 0, 0, 0.125, 0), (5, 6), 64),
    "offset, oblong": ((0.11, 0, 0.4, 0, 0.13, -1.2), (4, 7), 70),
    "tilted": (TILT, (6, 7), 110),
}


def window(layout, windows=2):
    to_cell, shape, cell_px = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(windows, 3, 40, 48, generator=generator)
    labels = torch.randint(0, 7, (windows, *shape), generator=generator)
    labels[:, ::3, ::2] = 255
    return logits, labels, [to_cell] * windows, cell_px


def index_by_a_slow_loop(to_cell, shape, height, width):
    a, b, c, d, e, f = to_cell
    index = torch.full((height, width), -1)
    for row in range(height):
        for col in range(width):
            x = math.floor(round(a * (col + 0.5) + b * (row + 0.5) + c, 6))
            y = math.floor(round(d * (col + 0.5) + e * (row + 0.5) + f, 6))
            if 0 <= x < shape[1] and 0 <= y < shape[0]:
                index[row, col] = y * shape[1] + x
    return index


def misfit_by_a_slow_loop(model, logits, labels, to_cell, cell_px):
    """Of one window, over all of its pixels."""
    index, total = index_by_a_slow_loop(to_cell, labels.shape, *logits.shape[1:]), 0.0
    for cell, label in enumerate(labels.flatten().tolist()):
        inside = index == cell
        if label != 255 and inside.sum() >= cell_px / 2:
            m = logits.softmax(dim=0)[:, inside].mean(dim=1)
            total -= float(model(m[None, :, None])[0, label, 0])
    return total


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("resistance", [0.01, 1.0])
def test_the_posterior_never_makes_the_labels_less_likely(layout, resistance):
    model, (logits, labels, to_cell, cell_px) = random_model(), window(layout)
    moved = posterior(model, logits, labels, to_cell, cell_px, resistance=resistance)
    for i in range(2):
        before, after = (misfit_by_a_slow_loop(model, u[i], labels[i], to_cell[i], cell_px) for u in (logits, moved))
        assert after < before - 0.1


def test_labels_that_cannot_be_explained_leave_the_prediction_as_it_is():
    """A step that is far too large makes every d worse than none."""
    model, (logits, labels, to_cell, cell_px) = random_model(), window("blocks")
    assert torch.equal(posterior(model, logits, labels, to_cell, cell_px, resistance=50.0, rate=1e3), logits)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_posterior_that_resists_without_bound_is_the_plain_prediction(layout):
    model, (logits, labels, to_cell, cell_px) = random_model(), window(layout)
    near = posterior(model, logits, labels, to_cell, cell_px, resistance=1e6)
    assert (near - logits).abs().max() < 1e-3
    far = posterior(model, logits, labels, to_cell, cell_px, resistance=1e12)
    assert (far - logits).abs().max() < 1e-9


def test_without_a_label_nothing_moves_and_what_is_void_is_not_read():
    model, (logits, labels, to_cell, cell_px) = random_model(), window("tilted")
    nothing = torch.full_like(labels, 255)
    assert torch.equal(posterior(model, logits, nothing, to_cell, cell_px), logits)
    void = torch.zeros(2, 40, 48, dtype=torch.bool)
    void[:, :, 24:] = True
    spoilt = torch.where(void[:, None], 50 * torch.rand_like(logits), logits)
    left = [posterior(model, u, labels, to_cell, cell_px, void)[..., :24] for u in (logits, spoilt)]
    assert torch.equal(*left) and not torch.equal(left[0], logits[..., :24])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_of_a_batch_do_not_see_each_other(layout):
    model, (logits, labels, to_cell, cell_px) = random_model(), window(layout)
    together = posterior(model, logits, labels, to_cell, cell_px)
    alone = [posterior(model, logits[i : i + 1], labels[i : i + 1], to_cell[:1], cell_px) for i in range(2)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-9)


def test_the_cells_of_the_posterior_are_those_of_training():
    model, (logits, labels, to_cell, cell_px) = random_model(), window("tilted", 1)
    index, _ = cells_at(to_cell, labels.shape[1:], logits, 1)
    expected = index_by_a_slow_loop(TILT, labels.shape[1:], 40, 48)
    assert torch.equal(index[0], expected)
    slow = misfit_by_a_slow_loop(model, logits[0], labels[0], TILT, cell_px)
    seen = aggregate_logits(torch.ones_like(logits[:, :1]), index, labels[0].numel())
    log_probs = model(compositions(logits, index, labels[0].numel()))
    assert misfits(log_probs, half_seen(labels, seen, cell_px)).item() == pytest.approx(slow)


def test_the_offset_is_bilinear_between_the_centres_of_cells():
    to_cell, shape = (0.125, 0, 0, 0, 0.125, 0), (5, 6)
    like, offsets = torch.zeros(1, 2, 40, 48), torch.randn(1, 2, 5, 6)
    field = spread(offsets, cells_at([to_cell], shape, like, 1)[1])
    expected = torch.nn.functional.interpolate(offsets, scale_factor=8, mode="bilinear", align_corners=False)
    assert torch.allclose(field, expected)
