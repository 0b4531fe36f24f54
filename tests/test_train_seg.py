import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from commands import ROOT, error_of, run_script
from made_runs import assert_same, by_one_and_two_processes, losses, records, saved, settings, trained

import evaluate
import train_seg
from data.cells import without_holes
from data.tiles import TileSet
from metrics import border_counts, border_f1
from models.averaging import update_average
from models.unet import UNet
from reports.baselines import lsr_table
from runtime import distributed
from trained import load_trained


@pytest.fixture(scope="module")
def agg_run(tile_set, tmp_path_factory):
    """Two epochs of Agg, never stopped, read without workers."""
    run_dir = tmp_path_factory.mktemp("agg") / "run"
    run_script("train_seg.py", *settings(tile_set, run_dir, "train.epochs=2", "data.workers=0"))
    return run_dir


def test_a_run_leaves_its_files(agg_run):
    assert {"config.yaml", "log.jsonl", "last.pt", "best.pt", "metrics.json"} <= {p.name for p in agg_run.iterdir()}
    assert (agg_run / "figures" / "curves.png").exists() or not find_spec("matplotlib")
    steps = [record["step"] for record in records(agg_run)]
    assert steps == sorted(steps) and {record["kind"] for record in records(agg_run)} == {"train", "validation"}
    state = torch.load(agg_run / "best.pt", weights_only=True)
    assert [c["name"] for c in state["data"]["classes"]] == ["water", "forest", "field", "impervious"]


def test_stop_and_resume_equals_straight_through_bit_for_bit(tile_set, agg_run, tmp_path):
    run_dir = tmp_path / "run"
    command = settings(tile_set, run_dir, "data.workers=2")
    # Stopped hard, in the middle of the second epoch: after the first save, before the second.
    process = subprocess.Popen([sys.executable, "train_seg.py", *command, "train.epochs=2"], cwd=ROOT,
                               env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    while not (run_dir / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert saved(run_dir)["step"] == 4
    run_script("train_seg.py", *command, "train.epochs=2", "data.workers=0")
    ours, straight = saved(run_dir), saved(agg_run)
    assert ours["step"] == straight["step"] == 8
    for part in ("segmenter", "optimizer", "averaged"):
        assert_same(ours[part], straight[part], part, 0)
    assert losses(run_dir) == losses(agg_run)


def test_a_complete_run_is_not_trained_again(tile_set, agg_run):
    before = (agg_run / "last.pt").stat().st_mtime_ns
    run_script("train_seg.py", *settings(tile_set, agg_run, "train.epochs=2"))
    assert (agg_run / "last.pt").stat().st_mtime_ns == before


@pytest.mark.parametrize("layout, bound", [("true", 0), ("false", 5e-3)])
def test_epochs_may_grow_where_memory_is_laid_otherwise_too(tile_set, tmp_path, layout, bound):
    words = "train.schedule=constant", "train.channels_last=true"
    short(tile_set, tmp_path / "run", *words)
    whole = short(tile_set, tmp_path / "whole", *words, "train.epochs=2")
    grown = short(tile_set, tmp_path / "run", *words, "train.epochs=2", f"train.channels_last={layout}")
    assert_same(grown["segmenter"], whole["segmenter"], "segmenter", bound)


@pytest.mark.parametrize("labels", ["labels=low_regions", "labels=high", "aggregate=observation"])
def test_two_processes_equal_one(tile_set, tmp_path, labels):
    more = ["train.epochs=1", f"supervision.{labels}", "train.batch_size=20", "data.workers=0"]
    one, two = by_one_and_two_processes(tmp_path, *settings(tile_set, tmp_path, *more))
    assert one["step"] == 3 and one["segmenter"]["head.weight"].dtype == torch.float64
    assert_same(one["segmenter"], two["segmenter"], "segmenter", 1e-8)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(tile_set, tmp_path, precision):
    if precision == "fp16" and not torch.cuda.is_available():
        pytest.skip("fp16 is for CUDA")
    state = short(tile_set, tmp_path / "run", f"train.precision={precision}")
    assert state["segmenter"]["head.weight"].dtype == torch.float32


def short(tile_set, run_dir, *more):
    """An epoch of Agg -> last.pt."""
    return trained(*settings(tile_set, run_dir, "data.workers=0", "train.epochs=1", *more))


def test_the_encoder_may_have_a_rate_of_its_own_or_be_frozen_for_a_while(tile_set, tmp_path):
    more = "train.batch_size=30", "train.schedule=constant", "train.average=0"
    torch.manual_seed(0)
    start = UNet(3, 4, 8).state_dict()
    rates = "encoder_rate=1", "encoder_rate=0.1", "encoder_rate=0", "frozen_share=1", "frozen_share=0.5"
    runs = [short(tile_set, tmp_path / rate, *more, f"train.{rate}")["segmenter"] for rate in rates]
    full, slow, *frozen, thawed = runs
    encoder = {name for name in start if name.startswith("encoder.") and name.endswith((".weight", ".bias"))}
    # The head starts at zero, so the second of the two steps is the encoder's first, by the same gradient in both runs.
    moved = {name: full[name] - start[name] for name in encoder}
    assert min(change.abs().max() for change in moved.values()) > 1e-4
    # Weights stand still at a rate of 0. Batch norm's statistics do not: they are of the segmenter's images.
    assert not torch.equal(frozen[0]["encoder.bn1.running_mean"], start["encoder.bn1.running_mean"])
    for name in start:
        if name in encoder:
            assert torch.allclose(slow[name] - start[name], 0.1 * moved[name], atol=3e-7), name
            assert all(torch.equal(kept[name], start[name]) for kept in frozen), name
            assert torch.equal(thawed[name], full[name]), name
        else:
            assert all(torch.equal(other[name], full[name]) for other in (slow, *frozen, thawed)), name


@pytest.mark.parametrize("average, decays", [(0.15, [0, 0.1, 0.15, 0.15]), (0.99, [0, 1 / 10, 2 / 11, 3 / 12])])
def test_the_average_of_a_short_run_is_of_its_steps_not_of_its_start(tile_set, tmp_path, monkeypatch, average, decays):
    """Its decay is step / (step + 9), at most the average asked for."""
    seen = []
    monkeypatch.setattr(train_seg, "update_average", lambda average, network, decay: seen.append(decay))
    short(tile_set, tmp_path / "run", f"train.average={average}")
    assert seen == pytest.approx(decays)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tile_set, tmp_path):
    run_dir = tmp_path / "run"
    line = error_of("train_seg.py", *settings(tile_set, run_dir, "train.learning_rate=1e30", "train.epochs=2"))
    assert "not finite" in line and "learning_rate" in line
    assert not (run_dir / "last.pt").exists()


def test_bad_settings_are_one_line(tile_set, tmp_path):
    (tmp_path / "file").write_text("")
    micro_batch = "train.batch_size=16", "train.micro_batch=3"
    for run_dir, words, said in (
        ("run", micro_batch, "train.micro_batch=3"),
        ("run", ["model.init=nowhere.pt"], "model.init=nowhere.pt"),
        ("run", ["data.root=nowhere"], "nowhere"),
        ("file", [], str(tmp_path / "file")),
    ):
        assert said in error_of("train_seg.py", *settings(tile_set, tmp_path / run_dir, *words))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_bad_tile_that_a_worker_reads_is_named_in_one_line_and_ends_the_run(tile_set, tmp_path, split):
    root = tmp_path / "set"
    shutil.copytree(tile_set, root)
    victim = root / TileSet(root, split).rows[-1]["image"]
    victim.write_bytes(victim.read_bytes()[:3000])
    line = error_of("train_seg.py", *settings(root, tmp_path / "run", "data.workers=2", "train.eval_every=1"))
    assert victim.name in line


def test_statistics_follow_the_regions(tile_set):
    tiles = TileSet(tile_set, "train", exclude_regions=("coast",))
    pixels = np.concatenate([tiles.load(i).image.reshape(-1, 3) for i in range(len(tiles))]).astype(float)
    described = tiles.described()
    assert np.allclose(described.band_mean, pixels.mean(axis=0)) and np.allclose(described.band_std, pixels.std(axis=0))
    assert TileSet(tile_set, "train").described().band_mean == tiles.description.band_mean


def test_evaluate_scores_checkpoints_and_the_oracle(tile_set, agg_run, tmp_path):
    out, figure = tmp_path / "scores.json", tmp_path / "sheet.png"
    printed = run_script("evaluate.py", agg_run, "--oracle", "--data", tile_set, "--out", out, "--figure", figure)
    result = json.loads(out.read_text())
    assert result["split"] == "test" and [row["name"] for row in result["rows"]] == ["Oracle", "Agg"]
    oracle, agg = result["rows"]
    assert sum(map(sum, oracle["confusion"])) == sum(map(sum, agg["confusion"])) == 64 * 64 * 4
    assert set(agg) >= {"accuracy", "macro_f1", "miou", "per_class", "confusion", "border_f1", "border", "last"}
    assert f"{100 * oracle['miou']:.2f}" in printed and figure.stat().st_size > 1000
    about, header, *_, last = printed.splitlines()
    assert about == f"{tile_set}, split test: 4 tiles; percent" and last.startswith(f"{figure}: ")
    assert header.split()[:4] == ["Acc", "F1", "mIoU", "border"]
    tiles = TileSet(tile_set, "test")
    for row, maps in ((oracle, oracle_maps(tiles)), (agg, maps_of(agg_run / "best.pt", tiles))):
        truth = torch.from_numpy(np.stack([tiles.load_high(i) for i in range(len(tiles))]))
        assert row["border"] == border_counts(maps, truth).tolist()
        assert row["border_f1"] == border_f1(torch.tensor(row["border"])) and f"{100 * row['border_f1']:.2f}" in printed


def test_scores_of_a_run_that_has_not_ended_say_so(tile_set, agg_run, tmp_path, capsys):
    run = shutil.copytree(agg_run, tmp_path / "run")
    for complete in (True, False):
        evaluate.main(evaluate.parse([str(run), "--data", str(tile_set), "--device", "cpu"]))
        assert (f"note: {run} is not complete" in capsys.readouterr().out) != complete
        (run / "metrics.json").unlink(missing_ok=True)


def test_validation_labels_of_one_class_bring_a_warning_once(tile_set, tmp_path, capsys):
    root = shutil.copytree(tile_set, tmp_path / "tiles")
    description = yaml.safe_load((root / "dataset.yaml").read_text())
    description["low"] = dict.fromkeys(description["low"], "water")
    (root / "dataset.yaml").write_text(yaml.safe_dump(description))
    for data, warnings in ((root, 1), (tile_set, 0)):
        short(data, tmp_path / f"run{warnings}", "train.eval_every=2")
        assert capsys.readouterr().out.count("the validation labels contain only one class: mIoU says") == warnings


def test_validation_scores_the_classes_that_its_labels_hold():
    """Half of the forest is called water, which no label holds: forest pays for it, water is no class of its own."""
    labels = torch.tensor([1, 1, 2, 3]).expand(1, 32, 4)
    predicted = torch.tensor([0, 1, 2, 3]).expand(1, 32, 4)
    logits = torch.nn.functional.one_hot(predicted, 4).permute(0, 3, 1, 2).float()
    segmenter = torch.nn.Module()
    segmenter.forward = lambda images: logits
    bands = {"mean": torch.zeros(3), "std": torch.ones(3)}
    task = SimpleNamespace(ranks=distributed.start("cpu"), classes=4, observed=None, autocast=nullcontext(), **bands)
    result = train_seg.validate(task, segmenter, [{"image": torch.zeros(1, 3, 32, 4), "labels": labels}])
    assert result["classes"] == 3 and result["accuracy"] == 3 / 4
    assert result["miou"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    sure, all_of_them = 1 / (1 + 3 * math.exp(-1)), math.exp(-1) / (1 + 3 * math.exp(-1))
    assert result["likelihood"] == pytest.approx((sure**3 * all_of_them) ** (1 / 4))


def oracle_maps(tiles):
    cells = [tiles.load(i).cells for i in range(len(tiles))]
    return torch.from_numpy(np.stack([without_holes(c).labels.repeat(16, 0).repeat(16, 1) for c in cells]))


@torch.no_grad()
def maps_of(path, tiles):
    segmenter = load_trained(path, torch.device("cpu"))
    images = [torch.from_numpy(tiles.load(i).image).permute(2, 0, 1)[None] for i in range(len(tiles))]
    return torch.cat([segmenter(image).argmax(dim=1) for image in images])


def test_evaluate_scores_self_epitomic_lsr_by_counted_and_by_given_table(tile_set, tmp_path):
    out, more = tmp_path / "scores.json", ["--lsr", "--lsr-patches", 60, "--data", tile_set]
    run_script("evaluate.py", *more, "--out", out)
    (counted,) = json.loads(out.read_text())["rows"]
    run_script("evaluate.py", *more, "--out", out, "--lsr-table", "configs/tables/nlcd_low2high.yaml")
    (given,) = json.loads(out.read_text())["rows"]
    assert counted["name"] == given["name"] == "Self-Epitomic LSR"
    assert sum(map(sum, counted["confusion"])) == 64 * 64 * 4 and counted["accuracy"] > 0.4
    rows = lsr_table(TileSet(tile_set, "test"), (), None).values()
    assert {round(sum(row), 6) for row in rows} == {0, 1}  # 0: of a code that is ignored
    assert "nothing to score" in run_script("evaluate.py", status=2)
    for name, words in (("no_such.yaml", [*more, "--lsr-table"]), ("nowhere.pt", ["--data", tile_set])):
        assert name in error_of("evaluate.py", *words, name)


def test_the_average_is_of_weights_and_statistics_and_copies_counts():
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    network(torch.randn(5, 2))
    network.weight.data += 1
    update_average(average, network, 0.9)
    assert torch.allclose(average.weight, torch.full((2,), 1.1)) and average.num_batches_tracked == 1
    assert torch.allclose(average.running_mean, 0.1 * network.running_mean)
