import json

import numpy as np
import pytest
import torch
from commands import ROOT, error_of, run_script

import evaluate
from data.rasters import geotiff
from metrics import border_counts, border_f1
from runtime.errors import Refused

UTM = (1.0, 0.0, 400000.0, 0.0, -1.0, 4100000.0)
TAXONOMY = ROOT / "configs" / "taxonomies" / "low2high.yaml"  # codes 1 water, 2 forest, 3 field, 4 to 6 impervious
CLASS_OF = np.array([255, 0, 1, 2, 3, 3, 3])


def save_pair(folder, transform=UTM, **changes):
    """A map of class indices and a truth of native codes, 600 x 90 px, with 255 and 0 where there is nothing."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, (600, 90)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.7, CLASS_OF[truth], rng.integers(0, 4, truth.shape))
    predicted = predicted.astype(np.uint8)
    predicted[:50, :40] = 255
    geotiff.write(folder / "map.tif", predicted, transform=UTM, epsg=26918, nodata=255)
    geotiff.write(folder / "truth.tif", truth, transform=transform, epsg=26918, **changes)
    return predicted, truth


def score(folder, *more):
    words = ["--scene", folder / "map.tif", folder / "truth.tif", "--taxonomy", TAXONOMY, *more]
    return evaluate.main(evaluate.parse([str(word) for word in words]))


def test_a_map_is_scored_against_codes_where_both_hold_a_class(tmp_path):
    predicted, truth = save_pair(tmp_path)
    out = tmp_path / "scores.json"
    printed = run_script(
        "evaluate.py", "--scene", tmp_path / "map.tif", tmp_path / "truth.tif", "--taxonomy", TAXONOMY, "--out", out
    )
    result = json.loads(out.read_text())
    (row,) = result["rows"]
    merged = CLASS_OF[truth]
    valid = (merged != 255) & (predicted != 255)
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (merged[valid], predicted[valid]), 1)
    assert row["confusion"] == expected.tolist() and row["name"] == "map"
    assert row["accuracy"] == pytest.approx(np.trace(expected) / expected.sum())
    assert f"{100 * row['miou']:.2f}" in printed and "water F1/IoU" in printed
    whole = torch.from_numpy(predicted)[None], torch.from_numpy(np.where(valid, merged, 255))[None]
    border = border_counts(*whole)  # the map is read in strips
    assert row["border"] == border.tolist() and row["border_f1"] == border_f1(border) > 0
    assert list(row["per_class"]) == ["water", "forest", "field", "impervious"]


def test_codes_of_the_coarse_source_are_recognised_as_truth(tmp_path, capsys):
    predicted, truth = save_pair(tmp_path)
    expected = score(tmp_path)["rows"][0]["confusion"]
    assert "note:" not in capsys.readouterr().out
    nlcd = np.array([0, 11, 41, 81, 23, 24, 22], np.uint8)[truth]  # of the same classes
    geotiff.write(tmp_path / "truth.tif", nlcd, transform=UTM, epsg=26918, nodata=127)
    assert score(tmp_path)["rows"][0]["confusion"] == expected
    assert "truth.tif: its codes are low ones of the taxonomy" in capsys.readouterr().out
    nlcd[-1, -1] = 4  # of the fine source: a truth is of one
    geotiff.write(tmp_path / "truth.tif", nlcd, transform=UTM, epsg=26918)
    with pytest.raises(Refused, match=r"codes without a class: 11 \("):
        score(tmp_path)


def test_a_truth_of_colours_scores_as_its_codes_do(tmp_path):
    _, truth = save_pair(tmp_path)
    expected = score(tmp_path)["rows"][0]["confusion"]
    colors = np.random.default_rng(1).integers(1, 256, (7, 3)).astype(np.uint8)
    geotiff.write(tmp_path / "truth.tif", colors[truth], transform=UTM, epsg=26918)
    names = ["ignore", "water", "forest", "field", *["impervious"] * 3]
    listed = ", ".join(f'"#{bytes(color).hex()}": {name}' for color, name in zip(colors, names, strict=True))
    classes = TAXONOMY.read_text().split("high:")[0]
    (tmp_path / "colors.yaml").write_text(f"{classes}\ncolors: {{{listed}}}\n")
    assert score(tmp_path, "--taxonomy", tmp_path / "colors.yaml")["rows"][0]["confusion"] == expected


def test_the_truths_own_nodata_does_not_score(tmp_path):
    save_pair(tmp_path)
    truth, _ = geotiff.read(tmp_path / "truth.tif")
    before = score(tmp_path)["rows"][0]["confusion"]
    truth[truth == 0] = 99
    geotiff.write(tmp_path / "truth.tif", truth, transform=UTM, epsg=26918, nodata=99)
    assert score(tmp_path)["rows"][0]["confusion"] == before
    geotiff.write(tmp_path / "truth.tif", truth, transform=UTM, epsg=26918)
    with pytest.raises(Refused, match=r"truth.tif: codes without a class: 99 \("):
        score(tmp_path)


def test_rasters_that_do_not_lie_on_each_other_are_refused(tmp_path):
    save_pair(tmp_path, transform=(1.0, 0.0, 400010.0, 0.0, -1.0, 4100000.0))
    with pytest.raises(Refused, match="does not lie on the pixels.*gdalwarp"):
        score(tmp_path)
    geotiff.write(tmp_path / "truth.tif", np.ones((600, 91), np.uint8))
    with pytest.raises(Refused, match="is 600 x 91 px"):
        score(tmp_path)


def test_a_map_that_is_none_is_refused(tmp_path):
    place = {"transform": UTM, "epsg": 26918}
    predicted, _ = save_pair(tmp_path)
    geotiff.write(tmp_path / "map.tif", np.where(predicted == 255, 7, predicted).astype(np.uint8), **place)
    with pytest.raises(Refused, match="map.tif: holds 7, which is none of the 4 classes"):
        score(tmp_path)
    geotiff.write(tmp_path / "map.tif", np.full_like(predicted, 255), **place)
    with pytest.raises(Refused, match="no pixel has a class both there and in"):
        score(tmp_path)
    geotiff.write(tmp_path / "map.tif", np.zeros((600, 90, 3), np.uint8))
    assert "a label has one" in error_of(
        "evaluate.py", "--scene", tmp_path / "map.tif", tmp_path / "truth.tif", "--taxonomy", TAXONOMY
    )


@pytest.mark.parametrize("config", [None, "x", {}, {"data.root": ""}])
def test_a_checkpoint_that_names_no_tile_set_asks_for_one(tmp_path, capsys, config):
    torch.save({"config": config}, tmp_path / "best.pt")
    with pytest.raises(SystemExit) as left:
        evaluate.parse([str(tmp_path / "best.pt")])
    assert left.value.code == 2 and capsys.readouterr().err.endswith("error: --data ROOT is needed\n")
