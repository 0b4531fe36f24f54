"""data.check: a whole set passes, and of a damaged one everything is named in one pass."""

import geotiffs
import numpy as np
import pytest
from made_scenes import LOW2HIGH, PX

from data import tile_io
from data.check import check, main
from data.prepare.__main__ import main as build
from data.taxonomy import load_taxonomy
from data.tile_writer import write_tile, write_tile_set

GRID = (8.0, 0.0, 0.0, 0.0, -8.0, 0.0)


@pytest.fixture
def root(tmp_path):
    """A whole tile set of six tiles with labels of both sources."""
    taxonomy, rng = load_taxonomy(LOW2HIGH), np.random.default_rng(0)
    records = []
    for i in range(6):
        image, high = rng.integers(0, 256, (PX, PX, 3), np.uint8), rng.choice([1, 2, 3, 5], (PX, PX)).astype(np.uint8)
        labels = high, rng.choice([11, 41, 81], (4, 4)).astype(np.uint8)
        more = {"taxonomy": taxonomy, "region": "de", "low_transform": GRID}
        records.append(write_tile(tmp_path, f"t{i}", image, *labels, **more))
    settings = {"name": "made", "image_gsd": 1.0, "scale": 8, "tile_px": PX, "seed": 0}
    write_tile_set(tmp_path, taxonomy=taxonomy, records=records, **settings)
    return tmp_path


def damage(path):
    """Flip bytes in the middle of a file's pixels; its header stays."""
    content = bytearray(path.read_bytes())
    middle = len(content) * 2 // 3
    content[middle : middle + 40] = bytes(255 - value for value in content[middle : middle + 40])
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_real_tiles_pass_and_a_damaged_one_is_found(real, tmp_path, capsys):
    options = ("--taxonomy", str(LOW2HIGH), "--tile-px", "256", "--scale", "30", "--no-filter", "--workers", "1")
    assert build([str(tmp_path), "--scenes", f"{real}/chesapeake/scenes.csv", *options]) == 0
    assert main([str(tmp_path), "--decode", "--workers", "1"]) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path}: 8 tiles, no problems\n")
    truncate(tmp_path / "images" / "m_3708020_sw_17_1_4_000_000.tif")
    assert main([str(tmp_path), "--workers", "1"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "m_3708020_sw_17_1_4_000_000.tif: truncated" in lines[0]
    assert lines[1] == f"{tmp_path}: 8 tiles, 1 problem; build the set again in another folder"


@pytest.mark.parametrize("workers", [1, 2])
def test_decoding_names_every_damaged_tile_in_one_pass(root, workers):
    assert check(root, True, workers) == (6, [], [])
    for name in ("images/t0", "images/t3", "high/t5"):
        damage(root / f"{name}.tif")
    stored = tile_io.read(root / "low" / "t1.tif")
    stored.pixels[0, :2] = 77
    tile_io.write(stored.path, stored.pixels, affine=stored.affine, system=stored.system)
    truncate(root / "images" / "t2.tif")
    (root / "high" / "t4.tif").unlink()
    tiles, problems, _ = check(root, True, workers)
    assert tiles == 6 and [line.split(".tif")[0] for line in problems] == [
        f"{root}/{name}" for name in ("high/t4", "high/t5", "images/t0", "images/t2", "images/t3", "low/t1")
    ]
    assert "codes without a class: 77 (2 times)" in problems[-1] and not any("\n" in line for line in problems)


def test_tiles_of_two_coordinate_systems_are_told_for_their_overlap_is_not_seen(root):
    assert check(root)[2] == []
    for name, system in (("t0", 32618), ("t1", 32617)):
        geotiffs.write(root / f"images/{name}.tif", np.zeros((PX, PX, 3), np.uint8), (1, 0, 0, 0, -1, 0), system)
    assert "tiles are in 2 coordinate systems" in check(root)[2][-1]


def test_without_decoding_only_headers_are_read(root, monkeypatch):
    damage(root / "images" / "t0.tif")
    monkeypatch.setattr("tifffile.TiffPage.asarray", None)
    assert check(root) == (6, [], [])


@pytest.mark.parametrize("name, array, transform, said", [
    ("images/t1", np.zeros((48, 48, 3), np.uint8), None, "is 48 x 48 px, the tiles of this set 32 x 32"),
    ("images/t1", np.zeros((PX, PX, 4), np.uint16), (1, 0, 0, 0, -1, 0), "has 4 bands of uint16, the tile set 3"),
    ("high/t1", np.ones((PX, 16), np.uint8), (1, 0, 0, 0, -1, 0), "is 32 x 16 px"),
    ("high/t1", np.ones((PX, PX), np.uint8), (1, 0, 5, 0, -1, 0), "does not lie on the pixels of"),
    ("high/t1", np.ones((PX, PX, 2), np.uint8), None, "has 2 bands of uint8; a label has one"),
    ("low/t1", np.full((2, 2), 11, np.uint8), (16, 0, 0, 0, -16, 0), "is at scale 16, the tile set at 8"),
    ("low/t1", np.full((5, 4), 11, np.uint8), None, "is 5 x 4 px without a common georeference"),
])  # fmt: skip
def test_files_that_do_not_fit_the_set_are_named(root, name, array, transform, said):
    geotiffs.write(root / f"{name}.tif", array, transform, 32618 if transform else None)
    _, problems, _ = check(root)
    line = next(line for line in problems if line.startswith(f"{root / name}.tif: "))
    assert said in line and (len(problems) == 1 or "48" in said)  # labels do not fit an image of another size
