"""The two-player update of train_seg.py (Sec. 4.4) against a plain written-out version, and its boundaries."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import ROOT, error_of, run_script
from test_train_seg import assert_same, settings
from torchvision.transforms.functional import gaussian_blur

import train_seg
from config import SegmenterConfig
from data.manifest import TileSetError
from data.tiles import Exemplars, TileSet, TrainingTiles, collate
from models.discriminator import Discriminator
from models.unet import UNet
from runtime.settings import load_config

GAME = ["adversarial.weight=0.1", "adversarial.width=4", "train.epochs=1", "data.workers=0", "train.average=0"]


def trained(tile_set, run_dir, *more):
    """train_seg.py in this process -> last.pt."""
    path, *overrides = settings(tile_set, run_dir, *GAME, *more)
    train_seg.main(load_config(SegmenterConfig, ROOT / path, overrides))
    return torch.load(run_dir / "last.pt", weights_only=True)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_three_steps_equal_a_plain_written_out_update(tile_set, tmp_path, float64):
    batch_size, weight, tau, classes, rate = 20, 0.1, 1e3, 4, 1e-3
    state = trained(tile_set, tmp_path / "run", "train.batch_size=20", "train.schedule=constant")
    assert state["step"] == 3

    torch.manual_seed(0)
    segmenter, discriminator = UNet(3, classes, 8).train(), Discriminator(4, 3)
    segmenter_adam = torch.optim.Adam(segmenter.parameters(), rate)
    discriminator_adam = torch.optim.Adam(discriminator.parameters(), rate)
    tiles = TileSet(tile_set, "train")
    exemplars = Exemplars(tile_set, tiles.description, 0, 0)
    samples = TrainingTiles(
        tiles, "low_regions", 1.0, batch_size=20, seed=0, dihedral=True, gain=0.2, offset=0.2, exemplars=exemplars
    )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (tiles.description.band_mean, tiles.description.band_std))
    for step in range(3):
        batch = collate([samples[step, position] for position in range(batch_size)])
        gain, offset = batch["color"].T.view(2, -1, 1, 1, 1)
        logits = segmenter((batch["image"].double() - mean) / std * gain + offset)
        # Eq. 1: sum the logits of each 16 x 16 block, cross entropy with its label, mean over the labelled ones.
        sums = logits.unfold(2, 16, 16).unfold(3, 16, 16).sum(dim=(4, 5)).flatten(2)
        region_loss = torch.nn.functional.cross_entropy(sums, batch["labels"].long(), ignore_index=255)
        # Eq. 3, and what the discriminator sees.
        soft_index = sum(c * (tau * logits).softmax(dim=1)[:, c : c + 1] for c in range(classes))
        real = batch["exemplars"].double()
        hole = real == 255
        made_map = gaussian_blur((soft_index / (classes - 1)).masked_fill(hole, 0), [3, 3], [0.6, 0.6])
        real_map = gaussian_blur((real / (classes - 1)).masked_fill(hole, 0), [3, 3], [0.6, 0.6])
        # Eq. 2, first player.
        discriminator.eval()
        total = region_loss - weight * discriminator(made_map).mean()
        segmenter_adam.zero_grad()
        total.backward()
        segmenter_adam.step()
        # Eq. 2, second player.
        discriminator.train()
        real_scores, made_scores = discriminator(torch.cat([real_map, made_map.detach()])).chunk(2)
        hinge = (1 - real_scores).clamp(min=0).mean() + (1 + made_scores).clamp(min=0).mean()
        discriminator_adam.zero_grad()
        hinge.backward()
        discriminator_adam.step()
    assert_same(state["segmenter"], segmenter.state_dict(), "segmenter", 1e-8)
    assert_same(state["discriminator"], discriminator.state_dict(), "discriminator", 1e-8)


def test_two_processes_and_micro_batches_equal_one(tile_set, tmp_path):
    # tau multiplies the rounding of a logit, and Adam divides by the gradient's size: at 1,000 the eighth digit parts.
    states = []
    for processes, micro_batch in ((1, 0), (2, 5)):
        run_dir = tmp_path / str(processes)
        command = settings(tile_set, run_dir, *GAME, "train.batch_size=20", f"train.micro_batch={micro_batch}")
        command += ["adversarial.steps=2"]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"] if processes == 2 else []
        run_script(*launcher, "tests/two_processes.py", *command, "adversarial.temperature=10", PYTHONPATH=str(ROOT))
        states.append(torch.load(run_dir / "last.pt", weights_only=True))
    for part in ("segmenter", "discriminator"):
        assert_same(states[0][part], states[1][part], part, 1e-8)


def test_the_discriminator_gets_no_gradient_from_the_segmenters_step(tile_set, tmp_path, monkeypatch):
    monkeypatch.setattr(train_seg, "discriminator_hinge", lambda real, made: 0 * (real.sum() + made.sum()))
    state = trained(tile_set, tmp_path / "run", "adversarial.weight=1e6")
    torch.manual_seed(0)
    UNet(3, 4, 8)
    start = dict(Discriminator(4, 3).named_parameters())
    assert all(torch.equal(state["discriminator"][name], start[name]) for name in start)


def test_the_segmenter_gets_no_gradient_from_the_discriminators_step(tile_set, tmp_path, monkeypatch):
    monkeypatch.setattr(train_seg, "segmenter_hinge", lambda made: 0 * made.sum())
    game = trained(tile_set, tmp_path / "game")
    plain = trained(tile_set, tmp_path / "plain", "adversarial.weight=0")
    assert_same(game["segmenter"], plain["segmenter"], "segmenter", 0)


def test_with_weight_0_the_run_equals_plain_agg_bit_for_bit(tile_set, tmp_path):
    agg = settings(tile_set, tmp_path / "agg", "train.epochs=1")
    zero = ["configs/demo/agg_app.yaml", *settings(tile_set, tmp_path / "zero", "train.epochs=1")[1:]]
    run_script("train_seg.py", *agg)
    run_script("train_seg.py", *zero, "adversarial.weight=0")
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("agg", "zero")]
    for part in ("segmenter", "optimizer", "averaged"):
        assert_same(states[0][part], states[1][part], part, 0)


def test_the_adversarial_gradient_reaches_the_first_convolution():
    torch.manual_seed(0)
    segmenter, discriminator = UNet(3, 4, 8), Discriminator(4).eval()
    torch.nn.init.normal_(segmenter.head.weight)  # it starts at zero, and the first step moves only itself
    adversarial = SegmenterConfig().adversarial
    made = train_seg.sargmax(segmenter(torch.randn(2, 3, 64, 64)) * 1e-3, adversarial.temperature)
    exemplar = torch.randint(0, 4, (2, 1, 64, 64))
    train_seg.segmenter_hinge(discriminator(train_seg.appearance(made, exemplar, 4, adversarial))).backward()
    assert segmenter.encoder.conv1.weight.grad.abs().sum() > 0


def test_ignored_pixels_of_the_exemplar_are_class_0_in_both_maps():
    exemplar = torch.randint(1, 4, (1, 1, 32, 32))
    exemplar[..., 8:24, 8:24] = 255
    adversarial = SegmenterConfig().adversarial
    for index_map in (exemplar.float(), torch.full((1, 1, 32, 32), 2.0)):
        seen = train_seg.appearance(index_map, exemplar, 4, adversarial)
        assert (seen[..., 9:23, 9:23] == 0).all() and (seen[..., :7, :] > 0).all() and seen.max() <= 1


def test_stop_and_resume_is_exact_with_both_players(tile_set, tmp_path, monkeypatch):
    whole = trained(tile_set, tmp_path / "whole", "train.epochs=2", "train.average=0.9")
    trained(tile_set, tmp_path / "parts", "train.epochs=2", "train.average=0.9", "train.eval_every=3")
    # eval_every=3 saved at steps 3, 6 and 8: put the state of step 6 back by stopping a third run there.
    stopped = {}

    def save_until_6(path, state, real=train_seg.checkpoint.save):
        if state["step"] > 4:
            raise KeyboardInterrupt
        stopped["step"] = state["step"]
        real(path, state)

    monkeypatch.setattr(train_seg.checkpoint, "save", save_until_6)
    with pytest.raises(KeyboardInterrupt):
        trained(tile_set, tmp_path / "again", "train.epochs=2", "train.average=0.9")
    monkeypatch.undo()
    assert stopped["step"] == 4
    again = trained(tile_set, tmp_path / "again", "train.epochs=2", "train.average=0.9")
    for part in ("segmenter", "optimizer", "averaged", "discriminator", "discriminator_optimizer"):
        assert_same(whole[part], again[part], part, 0)


def test_the_log_says_whether_the_game_is_alive(tile_set, tmp_path):
    trained(tile_set, tmp_path / "run", "run.log_every=1")
    record = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    names = {"segmenter_hinge", "discriminator_hinge", "real_score", "made_score"}
    names |= {"pixels_passing_gradient", "gradient_region", "gradient_adversary"}
    assert names <= record.keys()
    assert 0 <= record["pixels_passing_gradient"] <= 1 and record["gradient_adversary"] > 0


def test_exemplars_are_nested_and_the_same_for_a_seed(tile_set):
    description = TileSet(tile_set, "train").description
    few, many = (Exemplars(tile_set, description, k, seed=3) for k in (2, 6))
    assert list(few.chosen) == list(many.chosen[:2]) and len(set(many.chosen)) == 6
    assert len(Exemplars(tile_set, description, 0, seed=3).chosen) == len(many.tiles) == 8
    drawn = {few.draw(np.random.default_rng(i), 64, 64, False).tobytes() for i in range(40)}
    assert drawn == {few.tiles.load_high(i).tobytes() for i in few.chosen}


def test_exemplars_follow_the_regions_and_never_load_an_image(tile_set, monkeypatch):
    description = TileSet(tile_set, "train").description
    region = sorted({row["region"] for row in TileSet(tile_set, "train").rows})[0]
    pool = Exemplars(tile_set, description, 0, 0, regions=(region,))
    assert {row["region"] for row in pool.tiles.rows} == {region}
    monkeypatch.setattr(TileSet, "load", None)
    assert pool.draw(np.random.default_rng(0), 40, 50, True).shape == (40, 50)


@pytest.fixture
def other_set(tile_set, tmp_path):
    root = tmp_path / "other"
    shutil.copytree(tile_set, root)
    return root


def test_bad_pools_are_one_line_each(tile_set, other_set, tmp_path):
    description = TileSet(tile_set, "train").description
    with pytest.raises(TileSetError, match="exemplars=9.*has 8"):
        Exemplars(tile_set, description, 9, 0)
    text = (other_set / "dataset.yaml").read_text()
    (other_set / "dataset.yaml").write_text(text.replace("water", "lake"))
    with pytest.raises(TileSetError, match="lake.*water"):
        Exemplars(other_set, description, 0, 0)
    (other_set / "dataset.yaml").write_text(text.replace("tile_px: 64", "tile_px: 32"))
    with pytest.raises(TileSetError, match="32 px, smaller than the tiles of 64"):
        Exemplars(other_set, description, 0, 0)
    (other_set / "dataset.yaml").write_text(text)
    tiles = (other_set / "tiles.csv").read_text()
    (other_set / "tiles.csv").write_text(tiles.replace(",heldout,", ",train,"))
    assert "heldout" in error_of("train_seg.py", *settings(other_set, tmp_path / "run", *GAME))
