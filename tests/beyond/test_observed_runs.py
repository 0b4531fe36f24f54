"""Runs that read coarse labels as reports of composition: train_seg.py and evaluate.py --coarse, in this process."""

import shutil

import numpy as np
import pytest
import torch
from made_runs import trained

import evaluate
from beyond.table import from_yaml
from data import tile_io
from runtime import checkpoint
from runtime.errors import Refused

NAMES = ["water", "forest", "field", "impervious"]


def train(tile_set, run_dir, *more):
    """A few steps of Obs -> the state that last.pt holds."""
    small = ["model.width=4", "train.batch_size=16", "train.precision=off", "train.epochs=1", "data.workers=0"]
    words = [f"data.root={tile_set}", f"run.dir={run_dir}", "train.schedule=constant", "run.device=cpu", *small, *more]
    return trained("configs/demo/obs.yaml", *words)


def same(a, b):
    assert a["observation"] == b["observation"]
    for key, value in a["segmenter"].items():
        assert torch.equal(value, b["segmenter"][key]), key


def spoil(tile_set, root, *splits):
    """A copy of a tile set whose fine labels of these splits are noise."""
    shutil.copytree(tile_set, root)
    rng = np.random.default_rng(0)
    for row in (root / "tiles.csv").read_text().splitlines()[1:]:
        tile, _, split, _, high, _ = row.split(",")
        if split in splits:
            stored = tile_io.read(root / high)
            labels = stored.pixels
            noise = rng.integers(1, 7, labels.shape).astype(np.uint8)
            tile_io.write(root / high, noise, affine=stored.affine, system=stored.system)
    return root


@pytest.fixture(scope="module")
def obs_run(tile_set, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("obs") / "run"
    train(tile_set, run_dir)
    return run_dir


def evaluated(run_dir, root, *more):
    words = [run_dir / "last.pt", "--data", root, "--device", "cpu", *more]
    return evaluate.main(evaluate.parse([str(word) for word in words]))["rows"][0]


def test_the_table_stands_in_the_checkpoint_and_where_a_person_reads_it(obs_run):
    for name in ("last.pt", "best.pt"):
        table = checkpoint.load(obs_run / name)["observation"]
        model = from_yaml(obs_run / "observation.yaml", NAMES)
        assert list(table["rows"]) == list(model.names) and table["classes"] == NAMES
        assert [row["bias"] for row in table["rows"].values()] == pytest.approx(model.bias.tolist(), abs=1e-6)
    assert {11, 21, 22, 41} <= set(table["rows"])


def test_a_run_goes_on_bit_for_bit_and_with_its_own_table(tile_set, tmp_path):
    straight = train(tile_set, tmp_path / "straight", "train.epochs=2")
    train(tile_set, tmp_path / "stopped")
    changed = spoil(tile_set, tmp_path / "set", "heldout")
    same(straight, train(changed, tmp_path / "stopped", "train.epochs=2"))


def test_a_table_given_by_hand_is_the_table_and_its_n_is_compared(tile_set, obs_run, tmp_path, capfd):
    table = (obs_run / "observation.yaml").read_text()
    (tmp_path / "n.yaml").write_text(table.replace("scale: 16", "scale: 30"))
    again = train(tile_set, tmp_path / "run", f"supervision.observation={tmp_path / 'n.yaml'}")
    assert "n.yaml: fitted at n = 30, but here n = 16; a code's meaning depends on n" in capfd.readouterr().out
    fitted = checkpoint.load(obs_run / "last.pt")
    same({**fitted, "observation": None}, {**again, "observation": None})
    (tmp_path / "n.yaml").unlink()  # a run that goes on has its own
    same(again, train(tile_set, tmp_path / "run", f"supervision.observation={tmp_path / 'n.yaml'}"))


def test_fine_labels_are_seen_of_exemplar_places_alone(tile_set, obs_run, tmp_path):
    fitted = checkpoint.load(obs_run / "last.pt")
    blind = spoil(tile_set, tmp_path / "blind", "train", "validation", "test")
    same(fitted, train(blind, tmp_path / "run"))
    other = train(spoil(tile_set, tmp_path / "heldout", "heldout"), tmp_path / "other")
    assert other["observation"] != fitted["observation"]


def test_the_tests_fine_labels_change_no_prediction(tile_set, obs_run, tmp_path):
    """Each class is predicted as often, whatever the fine labels of the test say, with and without the coarse ones."""
    blind = spoil(tile_set, tmp_path / "set", "test")
    for more in ([], ["--coarse"]):
        counts = [np.sum(evaluated(obs_run, root, *more)["confusion"], axis=0) for root in (tile_set, blind)]
        assert np.array_equal(*counts)


def test_the_coarse_label_at_test_is_a_row_of_its_own_and_tells_more(tile_set, obs_run):
    plain, informed = evaluated(obs_run, tile_set), evaluated(obs_run, tile_set, "--coarse")
    assert (plain["name"], informed["name"]) == ("Obs", "Obs, coarse label at test")
    assert informed["accuracy"] > plain["accuracy"] + 0.1  # a network of a few steps has seen next to nothing


def test_a_damaged_table_in_a_checkpoint_is_one_line(obs_run, tmp_path):
    state = checkpoint.load(obs_run / "last.pt")
    torch.save({**state, "observation": {"classes": ["a"], "rows": {1: 2}}}, tmp_path / "last.pt")
    with pytest.raises(Refused, match="last.pt: classes are"):
        evaluate.load_informed(tmp_path / "last.pt", "cpu")
