"""Tiles that are cut already, taken as they are."""
# ruff: noqa: I001 - one import of many names

import os
import shutil

import geotiffs
import numpy as np
import pytest
from made_scenes import (
    MASK_COLORS, PX, UTM, busy, colored, epsg_of, files, manifest, one_line, photographs, read,
    run, words_for, write_list, write_scene,
)  # fmt: skip
from PIL import Image

from data.check import check
from data.manifest import read_manifest


def pre_cut(folder, count=3, px=PX, bands=3, first=0):
    size = -(-px // 10)
    parts = {"high": np.full((px, px), 2, np.uint8), "low": np.full((size, size), 41, np.uint8), "transform": None}
    images = {f"t{i}": np.full((px, px, bands), i + 1, np.uint8) for i in range(first, first + count)}
    return [write_scene(folder, name, image, **parts) for name, image in images.items()]


def taken(listed, *options, scale=10):
    return words_for(listed, *options, source="--tiled", scale=scale)


def test_tiles_below_the_folder_are_referred_to_in_place_and_none_is_dropped(tmp_path, capsys):
    root, folder = tmp_path / "set", tmp_path / "set" / "any" / "where"
    tiles = write_list(folder, pre_cut(folder))
    before = files(root)
    assert run(root, *taken(tiles)) == 0
    assert [row["image"] for row in manifest(root)] == [f"any/where/t{i}_image.tif" for i in range(3)]
    assert files(root).keys() - before.keys() == {"dataset.yaml", "tiles.csv"}
    assert read_manifest(root)[0].tile_px == PX and "set: 3 tiles\n" in capsys.readouterr().out
    assert check(root, decode=True) == (3, [], [])


def test_tiles_elsewhere_are_linked_relatively_and_move_with_their_set(tmp_path):
    tiles, root = write_list(tmp_path / "at" / "raw", pre_cut(tmp_path / "at" / "raw")), tmp_path / "at" / "set"
    assert run(root, *taken(tiles)) == 0
    (root / "dataset.yaml").unlink()
    (root / ".build/scenes/t0.json").unlink()
    assert run(root, *taken(tiles)) == 0  # links are made anew
    assert [row["high"] for row in manifest(root)] == [f"high/t{i}.tif" for i in range(3)]
    assert os.readlink(root / "images" / "t0.tif") == "../../raw/t0_image.tif"
    shutil.move(tmp_path / "at", tmp_path / "there")
    assert check(tmp_path / "there" / "set", decode=True) == (3, [], [])


def test_real_patches_can_be_taken_as_they_are(real, tmp_path):
    listed = f"{real}/chesapeake/scenes.csv"
    assert run(tmp_path / "set", *taken(listed, scale=30)) == 0
    assert run(tmp_path / "cut", *words_for(listed, "--tile-px", 256, "--no-filter")) == 0
    one, other = (read_manifest(tmp_path / name)[0] for name in ("set", "cut"))
    assert (one.band_mean, one.band_std, one.tile_px) == (other.band_mean, other.band_std, 256)


@pytest.mark.parametrize("change, options, said", [
    ({"px": 64}, (), "t1_image.tif: tile_px is 64, but 32 for"),
    ({}, ("--tile-px", 64), "--tile-px 64: the tiles have 32 px"),
    ({}, ("--scale", 3), "t0_low.tif: is 4 x 4 px without a common georeference"),
    ({"bands": 2}, (), "t1.tif: has 2 bands of uint8, images/t0.tif 3 bands"),
])  # fmt: skip
def test_tiles_that_do_not_go_together_are_named(tmp_path, capsys, change, options, said):
    raw = tmp_path / "raw"
    rows = pre_cut(raw, 1) + pre_cut(raw, 1, first=1, **change)
    assert run(tmp_path / "out", *taken(write_list(raw, rows), *options)) == 2
    assert said in one_line(capsys)


def test_of_a_coarse_label_larger_than_its_tile_the_cells_over_it_are_taken(tmp_path):
    raw, codes = tmp_path / "raw", np.full((8, 8), 77, np.uint8)  # a code that no taxonomy knows, beyond the tile
    codes[:4, :4] = 41
    labels = {"high": busy(PX, PX, [1, 2, 3]), "low": codes, "low_transform": (8.0, 0, UTM[2], 0, -8.0, UTM[5])}
    row = write_scene(raw, "t", np.ones((PX, PX, 3), np.uint8), **labels)
    assert run(tmp_path / "set", *taken(write_list(raw, [row]), scale=8)) == 0
    assert check(tmp_path / "set", decode=True) == (1, [], [])
    assert (read(tmp_path / "set" / manifest(tmp_path / "set")[0]["low"])[0] == 41).all()


def test_no_file_of_a_user_is_replaced(tmp_path, capsys):
    tiles, mine = write_list(tmp_path / "raw", pre_cut(tmp_path / "raw")), tmp_path / "out" / "images" / "t0.tif"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert run(tmp_path / "out", *taken(tiles)) == 2
    assert "t0.tif: is there already" in one_line(capsys) and mine.read_text() == "mine"
    tiles = write_list(tmp_path / "raw", pre_cut(tmp_path / "raw"), "tiles.csv")
    assert run(tmp_path / "raw", *taken(tiles)) == 2
    assert "is where the manifest goes; give the list another name" in one_line(capsys)


def test_pictures_become_geotiffs_and_geotiffs_stay_as_they_are(tmp_path):
    raw, root = tmp_path / "raw", tmp_path / "set"
    rows, masks = photographs(raw, size=(64, 64))
    with Image.open(raw / rows[0]["image"]) as picture:
        pixels = np.array(picture)
    geotiffs.write(raw / "images" / "p1.tif", pixels, UTM, 26917)
    geotiffs.write(raw / "masks" / "p1.tif", MASK_COLORS[masks["p1"]], UTM, 26917)
    rows[1].update(image="images/p1.tif", high="masks/p1.tif")
    Image.fromarray(np.dstack([pixels, 255 * (masks["p2"] != 3).astype(np.uint8)])).save(raw / "images" / "p2.png")
    listed = write_list(raw, [{**row, "split": "train"} for row in rows])
    assert run(root, *taken(listed, "--taxonomy", colored(raw), scale=16)) == 0
    assert check(root, decode=True) == (4, [], [])
    for row in manifest(root):
        wanted = masks[row["tile"]]
        wanted = np.where(wanted == 3, 0, wanted) if row["tile"] == "p2" else wanted  # no imagery, no label
        assert np.array_equal(read(root / row["high"])[0][..., 0], wanted)
    assert np.array_equal(read(root / "images/p0.tif")[0], pixels)
    assert (root / "images/p1.tif").is_symlink() and not (root / "high/p1.tif").is_symlink()
    assert read(root / "high/p1.tif")[1].affine == UTM and epsg_of(root / "high/p1.tif") == 26917
    image, header = read(root / "images/p2.tif")  # where it was transparent it has no data
    assert header.nodata == 0 and not image[masks["p2"] == 3].any() and image[masks["p2"] != 3].any()


def test_tiles_are_taken_with_their_alpha_band_as_a_band_or_without_it(tmp_path, capsys):
    raw = tmp_path / "raw"
    words = taken(write_list(raw, pre_cut(raw, 2)))
    before = read(raw / "t0_image.tif")[0]
    for i in range(2):
        geotiffs.hide(raw / f"t{i}_image.tif", np.ones((PX, PX), bool), "alpha")
    assert run(tmp_path / "out", *words) == 2 and "is tagged alpha" in one_line(capsys)
    assert run(tmp_path / "out", *words, "--bands", 4) == 0 and read_manifest(tmp_path / "out")[0].bands == 4
    assert run(tmp_path / "three", *words, "--bands", 3) == 0
    description, (row, _) = read_manifest(tmp_path / "three")
    assert description.bands == 3 and np.array_equal(read(tmp_path / "three" / row["image"])[0], before[..., :3])


def test_a_tile_with_a_mask_is_written_anew_with_what_it_hides_as_no_data(tmp_path):
    raw, held = tmp_path / "raw", np.ones((PX, PX), bool)
    words = taken(write_list(raw, pre_cut(raw, 3)))
    before = read(raw / "t1_image.tif")[0]
    geotiffs.hide(raw / "t0_image.tif", held, "mask")  # hides nothing
    held[:8] = False
    geotiffs.hide(raw / "t1_image.tif", held, "mask")
    assert run(tmp_path / "out", *words) == 0
    links = {row["tile"]: tmp_path / "out" / row["image"] for row in manifest(tmp_path / "out")}
    assert links["t0"].is_symlink() and links["t2"].is_symlink() and not links["t1"].is_symlink()
    pixels, header = read(links["t1"])
    assert header.nodata == 0 and not pixels[:8].any() and np.array_equal(pixels[8:], before[8:])
    assert check(tmp_path / "out", decode=True) == (3, [], [])


@pytest.mark.parametrize("crs, place, metres", [
    (3857, (1.0, 0.0, 1_113_194.9, 0.0, -1.0, 4_865_942.3), 0.766),  # at 40 degrees north
    (3395, (1.0, 0.0, 1_113_194.9, 0.0, -1.0, 4_838_471.4), 0.768),
    (4326, (1e-5, 0.0, -83.0, 0.0, -1e-5, 39.5), 0.978),
    (2263, UTM, 0.3048),
])  # fmt: skip
def test_the_pixel_size_of_a_tile_is_that_on_the_ground(tmp_path, crs, place, metres):
    raw, labels = tmp_path / "raw", {"high": busy(PX, PX, [1, 2, 3]), "low": busy(PX, PX, [11, 41, 81])}
    row = write_scene(raw, "t", np.ones((PX, PX, 3), np.uint8), **labels, transform=place, crs=crs)
    assert run(tmp_path / "set", *taken(write_list(raw, [row]))) == 0
    assert read_manifest(tmp_path / "set")[0].image_gsd == pytest.approx(metres, abs=2e-3)
