import json

import geotiffs
import numpy as np
import pytest
import rasterio
import torch
from commands import ROOT, run_script
from mapping import UTM, run, save
from random_checkpoint import NAMES, save_random_checkpoint
from rasterio.transform import Affine
from rasterio.warp import Resampling, calculate_default_transform, reproject

import evaluate
from beyond.informed import Informed
from beyond.observation import Observation, merged_table
from beyond.table import to_plain
from data.prepare.__main__ import main as prepare
from metrics import border_counts, border_f1
from runtime.errors import Refused

TAXONOMY = ROOT / "configs" / "taxonomies" / "low2high.yaml"  # codes 1 water, 2 forest, 3 field, 4 to 6 impervious
CLASS_OF = np.array([255, 0, 1, 2, 3, 3, 3])


def save_pair(folder, **changes):
    """A map of class indices and a truth of native codes, 600 x 90 px, with 255 and 0 where there is nothing."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, (600, 90)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.7, CLASS_OF[truth], rng.integers(0, 4, truth.shape))
    predicted = predicted.astype(np.uint8)
    predicted[:50, :40] = 255
    save(folder / "map.tif", predicted, nodata=255)
    save(folder / "truth.tif", truth, **changes)
    return predicted, truth


def counted(predicted, truth):
    """The confusion matrix of both, where both hold a class."""
    merged = CLASS_OF[truth]
    valid = (merged != 255) & (predicted != 255)
    confusion = np.zeros((4, 4), int)
    np.add.at(confusion, (merged[valid], predicted[valid]), 1)
    return confusion


def score(folder, *more):
    words = ["--scene", folder / "map.tif", folder / "truth.tif", "--taxonomy", TAXONOMY, *more]
    return evaluate.main(evaluate.parse([str(word) for word in words]))


def test_a_map_is_scored_against_codes_where_both_hold_a_class(tmp_path):
    predicted, truth = save_pair(tmp_path)
    out = tmp_path / "scores.json"
    words = "--scene", tmp_path / "map.tif", tmp_path / "truth.tif", "--taxonomy", TAXONOMY, "--out", out
    printed = run_script("evaluate.py", *words)
    result = json.loads(out.read_text())
    (row,) = result["rows"]
    expected = counted(predicted, truth)
    assert row["confusion"] == expected.tolist() and row["name"] == "map"
    assert row["accuracy"] == pytest.approx(np.trace(expected) / expected.sum())
    assert f"{100 * row['miou']:.2f}" in printed and "water F1/IoU" in printed
    seen = np.where(predicted == 255, 255, CLASS_OF[truth])
    border = border_counts(*(torch.from_numpy(labels)[None] for labels in (predicted, seen)))  # it is read in strips
    assert row["border"] == border.tolist() and row["border_f1"] == border_f1(border) > 0
    assert list(row["per_class"]) == ["water", "forest", "field", "impervious"]


def test_a_truth_of_colours_scores_as_its_codes_do(tmp_path):
    _, truth = save_pair(tmp_path)
    expected = score(tmp_path)["rows"][0]["confusion"]
    colors = np.random.default_rng(1).integers(1, 256, (7, 3)).astype(np.uint8)
    save(tmp_path / "truth.tif", colors[truth])
    names = ["ignore", "water", "forest", "field", *["impervious"] * 3]
    listed = ", ".join(f'"#{bytes(color).hex()}": {name}' for color, name in zip(colors, names, strict=True))
    classes = TAXONOMY.read_text().split("high:")[0]
    (tmp_path / "colors.yaml").write_text(f"{classes}\ncolors: {{{listed}}}\n")
    assert score(tmp_path, "--taxonomy", tmp_path / "colors.yaml")["rows"][0]["confusion"] == expected


def test_the_truths_own_nodata_does_not_score(tmp_path):
    _, truth = save_pair(tmp_path)
    before = score(tmp_path)["rows"][0]["confusion"]
    truth[truth == 0] = 99
    save(tmp_path / "truth.tif", truth, nodata=99)
    assert score(tmp_path)["rows"][0]["confusion"] == before
    save(tmp_path / "truth.tif", np.where(np.arange(600)[:, None] < 599, truth, 77))
    with pytest.raises(Refused, match=r"truth.tif: codes without a class: 77 \(90 times\), 99 \("):
        score(tmp_path)


def test_where_the_truth_hides_a_pixel_or_the_map_has_none_nothing_scores(tmp_path):
    predicted, truth = save_pair(tmp_path)
    hidden = np.zeros(truth.shape, bool)
    hidden[100:200] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        geotiffs.write(tmp_path / "truth.tif", np.where(hidden, 99, truth), UTM, 26918, mask=~hidden)  # 99: unknown
    assert score(tmp_path)["rows"][0]["confusion"] == counted(predicted, np.where(hidden, 0, truth)).tolist()


@pytest.mark.parametrize("system", ["EPSG:26918", "EPSG:5070"])
def test_a_map_on_another_grid_or_in_another_system_is_warped_to_the_truths_pixels(tmp_path, capsys, system):
    predicted, truth = save_pair(tmp_path)
    transform, pixels = Affine(0.5, 0, UTM[2], 0, -0.5, UTM[5]), predicted.repeat(2, 0).repeat(2, 1)
    if system == "EPSG:5070":  # each pixel is drawn by 25 smaller ones, and the middle one comes back
        bounds = UTM[2], UTM[5] - 600, UTM[2] + 90, UTM[5]
        transform, width, height = calculate_default_transform("EPSG:26918", system, 90, 600, *bounds, resolution=0.2)
        pixels = np.full((height, width), 255, np.uint8)
        there = {"src_crs": "EPSG:26918", "src_transform": Affine(*UTM), "dst_crs": system, "dst_transform": transform}
        reproject(predicted, pixels, resampling=Resampling.nearest, init_dest_nodata=False, **there)
    geotiffs.write(tmp_path / "map.tif", pixels, transform[:6], system, 255)
    found = np.array(score(tmp_path)["rows"][0]["confusion"])
    assert "map.tif: is warped to the pixels of" in capsys.readouterr().out
    counts = counted(predicted, truth)
    assert np.abs(found - counts).sum() <= 0.002 * counts.sum()


def test_a_map_that_covers_a_part_of_the_truth_scores_there_and_the_share_is_told(tmp_path, capsys):
    predicted, truth = save_pair(tmp_path)
    save(tmp_path / "map.tif", predicted[100:300, 20:], nodata=255, affine=(1, 0, UTM[2] + 20, 0, -1, UTM[5] - 100))
    expected = counted(predicted[100:300, 20:], truth[100:300, 20:])
    assert score(tmp_path)["rows"][0]["confusion"] == expected.tolist()
    assert f"map.tif: covers {100 * expected.sum() / (truth > 0).sum():.3g} % of what" in capsys.readouterr().out


def save_set_with_voids(folder, nodata=0):
    """A tile set of 64 px tiles, of scenes of 128 x 192 px whose left half is void -> the codes of the fine label."""
    rng = np.random.default_rng(0)
    image, truth = rng.integers(1, 250, (128, 192, 3)).astype(np.uint8), rng.integers(0, 7, (128, 192)).astype(np.uint8)
    image[:, :96] = nodata
    low = rng.choice([11, 21, 22, 41], (8, 12)).astype(np.uint8)
    for name in ("train", "test"):
        save(folder / f"{name}.tif", image, nodata=nodata)
    save(folder / "truth.tif", truth)
    save(folder / "low.tif", low, affine=(16, 0, UTM[2], 0, -16, UTM[5]))
    rows = [f"{name},a,{name},{name}.tif,truth.tif,low.tif\n" for name in ("train", "test")]
    (folder / "scenes.csv").write_text("scene,region,split,image,high,low\n" + "".join(rows))
    words = "--scenes", folder / "scenes.csv", "--taxonomy", TAXONOMY, "--tile-px", 64, "--no-filter"
    assert not prepare([str(word) for word in (folder / "set", *words)])
    return truth


def score_set(folder, checkpoint, *more):
    words = checkpoint, "--data", folder / "set", "--device", "cpu", *more
    return evaluate.main(evaluate.parse([str(word) for word in words]))["rows"][0]


@pytest.mark.parametrize("nodata", [0, 255])
def test_both_evaluations_count_the_pixels_that_have_imagery_and_a_label(tmp_path, nodata):
    truth, trained = save_set_with_voids(tmp_path, nodata), save_random_checkpoint(tmp_path / "best.pt", width=4)
    run(trained, tmp_path / "test.tif", "--out", tmp_path / "map.tif", "--device", "cpu")
    rows = score(tmp_path)["rows"][0], score_set(tmp_path, trained)
    counts = [np.array(row["confusion"]).sum(axis=1) for row in rows]
    seen = CLASS_OF[truth[:, 96:]]
    assert counts[0].tolist() == counts[1].tolist() == [(seen == c).sum() for c in range(4)]


def test_void_pixels_say_nothing_of_a_cells_composition(tmp_path, monkeypatch):
    save_set_with_voids(tmp_path)
    path = save_random_checkpoint(tmp_path / "best.pt", width=4)
    state, voids = torch.load(path, weights_only=True), []
    model = Observation([11, 21, 22, 41], [0, 2, 3, 1], *merged_table([0, 2, 3, 1], [1] * 4, 4))
    torch.save({**state, "observation": to_plain(model, list(NAMES))}, path)
    monkeypatch.setattr(Informed, "informed", lambda self, logits, *more: (voids.append(more[-1]), logits)[1])
    score_set(tmp_path, path, "--coarse")
    assert [void is None for void in voids] == [False, True, False, True]  # every other one is half void
    assert all(void[..., :32].all() and not void[..., 32:].any() for void in voids[::2])


def test_rasters_of_which_one_does_not_say_where_it_lies(tmp_path, capsys):
    predicted, truth = save_pair(tmp_path)
    expected, nowhere = score(tmp_path), {"affine": None, "system": ()}
    save(tmp_path / "truth.tif", truth, **nowhere)  # as a mask that was drawn on the map's pixels
    assert score(tmp_path)["rows"][0]["confusion"] == expected["rows"][0]["confusion"]
    assert "truth.tif: does not say where it lies" in capsys.readouterr().out
    save(tmp_path / "truth.tif", np.ones((600, 91), np.uint8), **nowhere)
    with pytest.raises(Refused, match="is 600 x 91 px"):
        score(tmp_path)
    save(tmp_path / "truth.tif", truth)
    save(tmp_path / "map.tif", predicted, nodata=255, **nowhere)
    with pytest.raises(Refused, match="map.tif: has no coordinate system, and .* has one; --same-crs"):
        score(tmp_path)
    assert score(tmp_path, "--same-crs")["rows"][0]["confusion"] == expected["rows"][0]["confusion"]


def test_a_map_that_is_none_is_refused(tmp_path):
    predicted, _ = save_pair(tmp_path)
    for pixels, said in (
        (np.where(predicted == 255, 7, predicted).astype(np.uint8), "map.tif: holds 7, which is none of the 4 classes"),
        (np.full_like(predicted, 255), "no pixel has a class both there and in"),
        (np.zeros((600, 90, 3), np.uint8), "a label has one"),
    ):
        save(tmp_path / "map.tif", pixels)
        with pytest.raises(Refused, match=said):
            score(tmp_path)
    for path, names, said in (
        ("map.tif", "0 water, 1 field, 2 forest", "its class 1 is field, the taxonomy's are 0 water, 1 forest"),
        ("truth.tif", "0 water, 1 forest", "truth.tif: its code 0 is water, but not in the taxonomy"),
    ):
        save_pair(tmp_path)
        with rasterio.open(tmp_path / path, "r+") as file:
            file.descriptions = [names]
        with pytest.raises(Refused, match=said):
            score(tmp_path)


@pytest.mark.parametrize("state", [{}, {"config": {"data.root": ""}}])
def test_a_checkpoint_that_names_no_tile_set_asks_for_one(tmp_path, capsys, state):
    torch.save(state, tmp_path / "best.pt")
    with pytest.raises(SystemExit) as left:
        evaluate.parse([str(tmp_path / "best.pt")])
    assert left.value.code == 2 and capsys.readouterr().err.endswith("error: --data ROOT is needed\n")
