from itertools import product

import numpy as np
import pytest

from data import tile_io
from data.coarse import low_label
from data.manifest import read_manifest
from data.synthetic.__main__ import main
from data.synthetic.landscape import REGIONS, landscape
from data.synthetic.tile_set import TAXONOMY, make_tile_set
from data.taxonomy import load_taxonomy, merge

CLASSES = load_taxonomy(TAXONOMY)
WATER, TREE, GRASS, BARREN, BUILT, ROAD = 1, 2, 3, 4, 5, 6
FAULTLESS = {"shift_px": 0, "impervious_from": 0.51, "spread": 0, "wrong": 0}


@pytest.fixture(scope="module")
def tiles():
    """Twenty landscapes: five of each region, with four bands."""
    each = product(enumerate(REGIONS.values()), range(5))
    return [landscape(np.random.default_rng([number, i]), 128, 4, region) for (number, region), i in each]


def test_same_draws_give_the_same_landscape_and_three_bands_are_the_first_of_four():
    image, high = landscape(np.random.default_rng(5), 96, 4, REGIONS["suburb"])
    rgb, again = landscape(np.random.default_rng(5), 96, 3, REGIONS["suburb"])
    assert image.shape == (96, 96, 4) and image.dtype == high.dtype == np.uint8 and high.shape == (96, 96)
    assert np.array_equal(image[..., :3], rgb) and np.array_equal(high, again)
    other = landscape(np.random.default_rng(6), 33, 3, REGIONS["coast"])  # any size
    assert other[0].shape == (33, 33, 3) and set(np.unique(other[1])) <= {1, 2, 3, 4, 5, 6}


def test_a_colour_alone_does_not_give_the_class_away(tiles):
    image, high = (np.stack(arrays) for arrays in zip(*tiles, strict=True))
    merged, bins = merge(high, CLASSES.high, "high"), image[..., :3].astype(int) // 32 @ (64, 8, 1)
    votes = np.stack([np.bincount(bins[merged == c], minlength=512) for c in range(4)])
    assert (votes.sum(1) / votes.sum()).min() > 0.05  # every class covers a share of the set
    assert 0.5 < votes.max(0).sum() / votes.sum() < 0.85  # the best that any table from colour to class can do here


def test_a_faultless_low_label_is_the_majority_of_each_cell(tiles):
    high = tiles[7][1]
    codes = low_label(np.random.default_rng(0), high, 16, **FAULTLESS)
    coarse = merge(codes, CLASSES.low, "low")
    groups = {WATER: 0, TREE: 1, GRASS: 2, BARREN: 3, BUILT: 4, ROAD: 4}
    for row, col in np.ndindex(8, 8):
        block = high[row * 16 : row * 16 + 16, col * 16 : col * 16 + 16].ravel()
        votes = np.bincount([groups[code] for code in block], minlength=5)
        assert coarse[row, col] == min(votes.argmax(), 3)
    assert coarse.shape == (8, 8)


def test_a_cell_is_developed_well_before_half_of_it_is():
    high = np.full((30, 90), GRASS, np.uint8)
    for cell, built in enumerate((6, 12, 27)):
        high[:, cell * 30 : cell * 30 + built] = BUILT
    settings = {**FAULTLESS, "impervious_from": 0.3}
    assert low_label(np.random.default_rng(0), high, 30, **settings).tolist() == [[21, 22, 24]]


def test_thin_things_vanish_and_broad_ones_stay():
    high = np.full((160, 160), GRASS, np.uint8)
    high[:, 66:70] = ROAD
    high[:, 98:104] = WATER
    high[:, :32] = WATER
    codes = low_label(np.random.default_rng(0), high, 16, shift_px=0, wrong=0)
    assert (codes[:, :2] == 11).all() and not np.isin(codes[:, 2:], (11, 22, 23, 24)).any()


def test_the_tile_set_is_the_same_whatever_the_number_of_workers(tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        make_tile_set(tmp_path / name, tiles=6, tile_px=64, seed=3, workers=workers)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 3 * 6 + 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_tile_set_holds_what_its_manifest_says(tmp_path, capsys):
    arguments = [str(tmp_path / "set"), "--tiles", "8", "--tile-px", "72", "--scale", "16", "--bands", "4"]
    assert main([*arguments, "--workers", "1"]) == 0
    description, rows = read_manifest(tmp_path / "set")
    assert (description.tile_px, description.scale, description.bands, description.label_gsd) == (72, 16, 4, 16.0)
    assert len(rows) == 8 and {row["region"] for row in rows} == set(REGIONS)
    corners = set()
    for row in rows:
        image, high, low = (tile_io.read(tmp_path / "set" / row[key]) for key in ("image", "high", "low"))
        assert (image.size[0], image.bands, high.size[0], *low.size) == (72, 4, 72, 5, 5)
        assert image.system == low.system == tile_io.epsg_system(32618) and high.affine == image.affine
        assert low.affine == (16, 0, image.affine[2], 0, -16, image.affine[5])
        corners.add(image.affine)
    assert len(corners) == 8
    assert main([*arguments, "--workers", "1"]) == 0 and "complete already" in capsys.readouterr().out
    assert main([*arguments, "--seed", "1"]) == 2 and "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("option, value, told", [
    ("--tile-px", "31", "32 to"), ("--scale", "129", "1 to 128"), ("--bands", "5", "3 to 4")])  # fmt: skip
def test_impossible_settings_get_one_line_and_leave_nothing(tmp_path, capsys, option, value, told):
    assert main([str(tmp_path / "set"), option, value]) == 2
    line = capsys.readouterr().err
    assert f"{option} {value}: should be {told}" in line and line.count("\n") == 1 and not (tmp_path / "set").exists()
