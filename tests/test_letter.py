"""Rows that follow the paper to the letter: what their configs say, that they train, and what literal sums change."""

from types import SimpleNamespace

import pytest
import torch
from commands import ROOT
from made_runs import saved, settings

import train_seg
from config import SegmenterConfig
from losses import appearance, made_map, segmenter_hinge
from models import build_segmenter
from models.discriminator import Discriminator
from models.unet import UNet
from runtime.settings import config_from_flat, load_config

ROWS = [(folder, row, n) for folder, n in (("low2high", 30), ("naip215", 32)) for row in ("agg", "agg_app", "ours")]
rows = pytest.mark.parametrize("folder, row, n", ROWS, ids=lambda part: str(part))


@rows
def test_a_row_to_the_letter_says_what_the_paper_says(folder, row, n):
    config = load_config(SegmenterConfig, ROOT / f"configs/{folder}/{row}_paper.yaml")
    train, game = config.train, config.adversarial
    assert (config.supervision.aggregate, config.model.head) == ("literal_sum", "random")
    assert train.learning_rate * train.head_rate == pytest.approx(1e-4)  # Sec. 4.6
    assert folder == "naip215" or (train.learning_rate, train.epochs, train.schedule) == (1e-4, 100, "constant")
    if row == "agg":
        assert game.weight == 0
        return
    assert game.temperature * n**2 == pytest.approx(1000, rel=1e-3)  # tau, Sec. 4.4
    assert (game.maps, game.weight, game.warmup_steps) == ("soft", 0.1, 0)
    assert (game.beta1, game.beta2, game.learning_rate) == (0.9, 0.999, train.learning_rate)


@rows
def test_a_row_to_the_letter_trains_from_the_last_layer_that_torch_draws(tile_set, tmp_path, folder, row, n):
    words = settings(tile_set, tmp_path / "run", "data.workers=0", "train.epochs=1", "model.init=none")[1:]
    words = [word for word in words if not word.startswith("train.learning_rate")]
    config = load_config(SegmenterConfig, ROOT / f"configs/{folder}/{row}_paper.yaml", words)
    train_seg.main(config)
    state = saved(tmp_path / "run")
    torch.manual_seed(0)
    start, end = UNet(3, 4, 8, head="random").state_dict(), state["segmenter"]
    farthest = {name: (end[name] - start[name]).abs().max() for name in ("head.weight", "up0.conv2.weight")}
    # Adam moves a weight by about its rate a step, and by no more in these few.
    for name, rate in (("head.weight", 1e-4), ("up0.conv2.weight", config.train.learning_rate)):
        assert 0.5 * rate < farthest[name] <= 1.01 * state["step"] * rate, name
    if row != "agg":
        (theirs,) = state["discriminator_optimizer"]["param_groups"]
        assert (theirs["lr"], *theirs["betas"]) == (config.train.learning_rate, 0.9, 0.999)


def trained_by_hand(how, head_rate, n, steps):
    """The segmenter after some steps against a discriminator that stays as it is, and its logits, float64."""
    config = {"model.width": 8, "model.head": "random", "train.learning_rate": 1e-3, "supervision.aggregate": how}
    config = config_from_flat(SegmenterConfig, {**config, "train.head_rate": head_rate, "adversarial.weight": 0.1})
    task = SimpleNamespace(config=config, cell_px=n**2, observed=None)
    torch.manual_seed(0)
    segmenter = build_segmenter(config, 3, 4, n)[0].double()
    discriminator = Discriminator(4, 2).double()
    if how == "sum":  # the same function at the start: u is n² times what the last layer of the other returns
        with torch.no_grad():
            for weight in segmenter.head.parameters():
                weight *= n**2
    optimizer, _ = train_seg.optimizers(config, segmenter, None)
    for group in optimizer.param_groups:
        group.update(lr=group["factor"] * config.train.learning_rate, eps=1e-30)
    cells = torch.arange(48) // n
    index = (cells[:, None] * 3 + cells).where((cells[:, None] < 3) & (cells < 3), -1).expand(4, -1, -1)
    for step in range(steps):
        torch.manual_seed(step)
        images, labels = torch.randn(4, 3, 48, 48, dtype=torch.float64), torch.randint(0, 4, (4, 9))
        logits = segmenter(images)
        loss, _, _ = train_seg.segmenter_loss(task, logits, {"region_index": index, "labels": labels})
        made = made_map(logits, 1000 / n**2, "soft")
        seen = appearance(made, torch.zeros_like(made), 4, config.adversarial.blur_sigma)
        optimizer.zero_grad()
        (loss / labels.numel() + config.adversarial.weight * segmenter_hinge(discriminator(seen))).backward()
        optimizer.step()
    return segmenter.state_dict(), segmenter.eval()(images).detach()


def test_literal_sums_are_sums_of_u_by_n_squared_with_the_last_layers_rate_times_n_squared():
    """Adam divides each gradient by its own size. So x = u moves the body alike, and u by n² times as much."""
    n, steps, rate = 15, 15, 0.1
    literal, logits = trained_by_hand("literal_sum", rate, n, steps)
    same, same_logits = trained_by_hand("sum", rate * n**2, n, steps)
    _, other_logits = trained_by_hand("sum", rate, n, steps)
    for name, weight in literal.items():
        scale = n**2 if name.startswith("head.") else 1
        assert torch.allclose(scale * weight, same[name], rtol=1e-10, atol=1e-10), name
    assert torch.allclose(logits, same_logits, rtol=1e-10, atol=1e-10)
    assert (logits - other_logits).abs().max() > 0.5  # without that rate they differ
