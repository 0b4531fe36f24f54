"""The two-player update of train_seg.py (Sec. 4.4) against a plain written-out version, and its boundaries."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from made_runs import assert_same, by_one_and_two_processes, records, settings, trained
from torchvision.transforms.functional import gaussian_blur

import train_seg
from config import AdversarialConfig, SegmenterConfig
from data.samples import Exemplars, ScoringTiles, TrainingTiles, collate, shuffled
from data.tiles import TileSet
from metrics import raggedness, ranking
from models.discriminator import Discriminator
from models.unet import UNet
from reports import game
from runtime import distributed
from runtime.settings import config_from_flat
from supervision import Task

GAME = ["adversarial.weight=0.1", "adversarial.width=4", "train.epochs=1", "data.workers=0", "train.average=0"]


def played(tile_set, run_dir, *more):
    """A run with an adversary -> last.pt."""
    return trained(*settings(tile_set, run_dir, *GAME, *more))


@pytest.mark.parametrize("how", ["sum", "literal_sum"])
def test_three_steps_equal_a_plain_written_out_update(tile_set, tmp_path, float64, how):
    batch_size, weight, n, classes, rate = 20, 0.1, 16, 4, 1e-3
    tau = 1.11 * n**2  # the paper's 1000 / 900, at this n
    more = "train.batch_size=20", "train.schedule=constant", f"supervision.aggregate={how}"
    state = played(tile_set, tmp_path / "run", *more)
    assert state["step"] == 3

    torch.manual_seed(0)
    segmenter, discriminator = UNet(3, classes, 8).train(), Discriminator(4, 3)
    segmenter_adam = torch.optim.Adam(segmenter.parameters(), rate)
    discriminator_adam = torch.optim.Adam(discriminator.parameters(), 1e-3, betas=(0.0, 0.99))
    tiles = TileSet(tile_set, "train")
    exemplars = Exemplars(tile_set, tiles.description, 0, 0)
    samples = TrainingTiles(
        tiles, "low_regions", 1.0, batch_size=20, seed=0, dihedral=True, gain=0.2, offset=0.2, exemplars=exemplars
    )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (tiles.description.band_mean, tiles.description.band_std))
    for step in range(3):
        batch = collate([samples[step, position] for position in range(batch_size)])
        gain, offset = batch["color"].T.view(2, -1, 1, 1, 1)
        u = segmenter((batch["image"].double() - mean) / std * gain + offset)
        x = u if how == "literal_sum" else u / n**2
        # Eq. 1: sum the logits of each n x n block, cross entropy with its label, mean over the labelled ones.
        sums = x.unfold(2, n, n).unfold(3, n, n).sum(dim=(4, 5)).flatten(2)
        region_loss = torch.nn.functional.cross_entropy(sums, batch["labels"].long(), ignore_index=255)
        # Eq. 3, classes counted from 1, and what the discriminator sees: the argmax, with sargmax's gradient.
        soft_index = sum((c + 1) * (tau * x).softmax(dim=1)[:, c : c + 1] for c in range(classes))
        index = x.argmax(dim=1, keepdim=True) + 1 + soft_index - soft_index.detach()
        real = batch["exemplars"].double()
        hole = real == 255
        made_map = gaussian_blur((index / classes).masked_fill(hole, 0), [3, 3], [0.6, 0.6])
        real_map = gaussian_blur(((real + 1) / classes).masked_fill(hole, 0), [3, 3], [0.6, 0.6])
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
    more = "train.batch_size=20", "train.encoder_rate=0.5", "train.frozen_share=0.5"
    states = by_one_and_two_processes(tmp_path, *settings(tile_set, tmp_path, *GAME, *more))
    for part in ("segmenter", "discriminator"):
        assert_same(states[0][part], states[1][part], part, 1e-8)


def test_with_weight_0_the_run_equals_plain_agg_bit_for_bit(tile_set, tmp_path):
    states = []
    for row, *more in (("agg",), ("agg_app", "adversarial.weight=0")):
        words = settings(tile_set, tmp_path / row, "train.epochs=1", "data.workers=0", *more)[1:]
        states.append(trained(f"configs/demo/{row}.yaml", *words))
    for part in ("segmenter", "optimizer", "averaged"):
        assert_same(states[0][part], states[1][part], part, 0)
    assert not any("game" in record or "gradient_adversary" in record for record in records(tmp_path / "agg_app"))


def test_ignored_pixels_of_the_exemplar_are_0_in_both_maps_and_no_class_is():
    exemplar = torch.randint(0, 4, (1, 1, 32, 32))
    exemplar[..., 8:24, 8:24] = 255
    adversarial = SegmenterConfig().adversarial
    for index_map in (exemplar.float(), torch.full((1, 1, 32, 32), 2.0)):
        seen = train_seg.appearance(index_map, exemplar, 4, adversarial.blur_sigma)
        assert (seen[..., 9:23, 9:23] == 0).all() and (seen[..., :7, :] > 0).all() and seen.max() <= 1


def test_the_log_says_whether_the_game_is_alive(tile_set, tmp_path):
    played(tile_set, tmp_path / "run", "run.log_every=1")
    first, *others = records(tmp_path / "run")
    assert {"segmenter_hinge", "discriminator_hinge", "real_score", "made_score"} <= first.keys()
    assert first["gradient_region"] > 0 and first["gradient_adversary"] > 0
    (game,) = (record["game"] for record in others if record["kind"] == "validation")
    assert game.keys() == {"auc", "shares_made", "shares_real", "ragged_made", "ragged_real"}


class Reader(torch.nn.Module):
    """A segmenter whose classes are the first four of five steps of the red band, more or less surely."""

    def forward(self, images):
        return -(images[:, :1] - torch.linspace(-1, 1, 4).view(1, 4, 1, 1)).square()


def test_the_report_on_the_game_equals_a_plain_written_out_one(tile_set, monkeypatch):
    torch.manual_seed(0)
    tiles = TileSet(tile_set, "validation")
    description, discriminator = tiles.description, Discriminator(4)
    samples = ScoringTiles(tiles, "low_regions", 1.0, Exemplars(tile_set, description, 0, 0))
    mean, std = torch.tensor(description.band_mean), torch.tensor(description.band_std)
    monkeypatch.setattr("reports.game.WATCHED_TILES", 3)
    watched = [i * len(tiles) // 3 for i in range(3)]  # from all over the split
    config = config_from_flat(SegmenterConfig, {"train.precision": "off"})
    task = Task(config, distributed.start("cpu"), description, None)
    game = train_seg.watch_game(task, Reader(), discriminator, samples)
    made, real, made_scores, real_scores = [], [], [], []
    for i in watched:
        image = torch.from_numpy(tiles.load(i).image).permute(2, 0, 1)[None]
        exemplar = torch.from_numpy(samples[i]["exemplars"])[None]
        logits = Reader()((image - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        index = logits.argmax(dim=1, keepdim=True)
        maps = [gaussian_blur((m + 1) / 4, [3, 3], [0.6, 0.6]) for m in (index.float(), exemplar.float())]
        of_made, of_real = discriminator(maps[0]), discriminator(maps[1])
        made_scores += of_made.flatten().tolist()
        real_scores += of_real.flatten().tolist()
        made.append(logits.argmax(dim=1)[0].numpy())
        real.append(exemplar[0, 0].numpy())
    wins = np.mean([(r > m) + 0.5 * (r == m) for r in real_scores for m in made_scores])
    assert game["auc"] == pytest.approx(wins, abs=2e-3)
    for kind, maps in (("made", made), ("real", real)):
        differ = sum((m[1:] != m[:-1]).sum() + (m[:, 1:] != m[:, :-1]).sum() for m in maps)
        assert game[f"ragged_{kind}"] == pytest.approx(differ / (3 * 2 * 63 * 64))
        assert game[f"shares_{kind}"] == pytest.approx([(np.stack(maps) == c).mean() for c in range(4)])
    assert 0 < game["ragged_real"] < game["ragged_made"] < 1


def test_the_discriminators_rate_is_its_own_and_constant(tile_set, tmp_path):
    state = played(tile_set, tmp_path / "run", "train.schedule=cosine", "adversarial.learning_rate=3e-4")
    (theirs,), (ours,) = (state[key]["param_groups"] for key in ("discriminator_optimizer", "optimizer"))
    assert theirs["lr"] == 3e-4 and tuple(theirs["betas"]) == (0.0, 0.99)
    assert state["data"]["exemplars"][0] == len(TileSet(tile_set, "heldout"))  # with which alone the run goes on
    assert ours["lr"] < 1e-3 and tuple(ours["betas"]) == (0.9, 0.999)


def test_a_frozen_discriminator_stays_as_it_starts_and_still_pays_the_segmenter(tile_set, tmp_path):
    torch.manual_seed(0)
    UNet(3, 4, 8)
    start = Discriminator(4, 3).state_dict()
    frozen = played(tile_set, tmp_path / "frozen", "adversarial.control=frozen")
    plain = played(tile_set, tmp_path / "plain", "adversarial.weight=0")
    assert_same(frozen["discriminator"], start, "discriminator", 0)
    weight = frozen["segmenter"]["head.weight"]
    assert (weight - plain["segmenter"]["head.weight"]).abs().max() > 1e-5


def test_shuffled_exemplars_keep_the_shares_of_each_cell_and_lose_its_shapes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (9, 13)).repeat(5, 0).repeat(5, 1)[:41, :62].astype(np.uint8)
    mixed = shuffled(labels, 16, rng)
    assert mixed.shape == labels.shape and mixed.dtype == labels.dtype
    for row in range(0, 41, 16):  # blocks at the edge too
        for col in range(0, 62, 16):
            before, after = (some[row : row + 16, col : col + 16].ravel() for some in (labels, mixed))
            assert np.array_equal(np.sort(before), np.sort(after)) and not np.array_equal(before, after)
    assert not np.array_equal(mixed, shuffled(labels, 16, rng))
    assert np.array_equal(shuffled(labels, 1, rng), labels)


def test_the_control_shuffles_exemplars_of_training_and_report_inside_each_cell(tile_set, tmp_path, monkeypatch):
    appearance = Mock(wraps=train_seg.appearance)
    for module in (train_seg, game):
        monkeypatch.setattr(module, "appearance", appearance)
    played(tile_set, tmp_path / "run", "adversarial.control=shuffled", "train.batch_size=60")
    seen = [exemplar for (_, exemplar, *_), _ in appearance.call_args_list]
    assert len(seen) == 3 + 2  # one step of both players, and the report
    tiles = TileSet(tile_set, "heldout")
    plain = torch.from_numpy(np.stack([tiles.load_high(i) for i in range(len(tiles))]))
    assert raggedness(torch.cat(seen).squeeze(1)) > 1.5 * raggedness(plain)


def test_the_discriminator_tells_exemplars_from_the_same_ones_shuffled(tile_set):
    """Health: with the settings of a run, and maps that differ in nothing but shapes. Three seeds: 0.99, 1.00, 0.97."""
    torch.manual_seed(0)
    adversarial, rng = AdversarialConfig(), np.random.default_rng(0)
    description = TileSet(tile_set, "train").description
    maps, mixed = (Exemplars(tile_set, description, 0, 0, shuffle_px=px) for px in (0, 16))
    discriminator = Discriminator(adversarial.width, adversarial.layers)
    betas = adversarial.beta1, adversarial.beta2
    adam = torch.optim.Adam(discriminator.parameters(), adversarial.learning_rate, betas)

    def seen(pool):
        drawn = torch.from_numpy(np.stack([pool.draw(rng, 64, 64, True) for _ in range(8)]))[:, None]
        return train_seg.appearance(drawn.float(), drawn, 4, adversarial.blur_sigma)

    for _ in range(300):
        real_scores, made_scores = discriminator(torch.cat([seen(maps), seen(mixed)])).chunk(2)
        adam.zero_grad()
        train_seg.discriminator_hinge(real_scores, made_scores).backward()
        adam.step()
    with torch.no_grad():
        scored = [[discriminator(seen(pool)).flatten() for _ in range(8)] for pool in (maps, mixed)]
    assert ranking(*map(torch.cat, scored)) > 0.95


def test_exemplars_are_nested_follow_the_regions_and_never_load_an_image(tile_set, monkeypatch, capsys):
    monkeypatch.setattr(TileSet, "load", None)
    tiles = TileSet(tile_set, "train")
    few, many = (Exemplars(tile_set, tiles.description, k, seed=3) for k in (2, 6))
    assert list(few.chosen) == list(many.chosen[:2]) and len(set(many.chosen)) == 6
    assert len(Exemplars(tile_set, tiles.description, 0, seed=3).chosen) == len(many.tiles) == 8
    assert not capsys.readouterr().out
    Exemplars(tile_set, replace(tiles.description, image_gsd=0.6), 0, seed=3)
    assert "exemplars have pixels of 1 m, the training images of 0.6 m" in capsys.readouterr().out
    drawn = {few.draw(np.random.default_rng(i), 64, 64, False).tobytes() for i in range(40)}
    assert drawn == {few.tiles.load_high(i).tobytes() for i in few.chosen}
    region = tiles.rows[0]["region"]
    pool = Exemplars(tile_set, tiles.description, 0, 0, regions=(region,))
    assert {row["region"] for row in pool.tiles.rows} == {region}
    assert pool.draw(np.random.default_rng(0), 40, 50, True).shape == (40, 50)
