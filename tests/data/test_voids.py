"""No imagery, no label: pixels without data, whatever says so, neither supervise nor score; no network sees them."""

import json
import shutil
from pathlib import Path

import geotiffs
import numpy as np
import pytest
import rasterio
from commands import run_script
from PIL import Image

from data import tile_io
from data.manifest import read_manifest
from data.prepare.__main__ import main
from data.samples import make_sample
from data.tiles import TileSet
from data.unlabelled import read_unlabelled
from data.voids import filled, marked

LOW2HIGH = Path(__file__).parents[2] / "configs" / "taxonomies" / "low2high.yaml"
UTM = (1.0, 0.0, 500_000.0, 0.0, -1.0, 4_300_000.0)
PX = 64
FACES = ("nodata 0", "nodata 65535", "mask inside", "mask beside", "alpha", "nan", "transparent")


def write_image(path, void, face):
    """An image of 3 bands that says in one of the ways which pixels have no data; -> options of data.prepare."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 200, (*void.shape, 3)).astype(np.uint16 if face == "nodata 65535" else np.uint8)
    if face == "transparent":
        rgba = np.dstack([pixels, np.where(void, 0, 255).astype(np.uint8)])
        Image.fromarray(rgba).save(path)
        return ()
    if face.startswith("nodata"):
        nodata = int(face.split()[1])
        pixels[void] = nodata
        geotiffs.write(path, pixels, UTM, 26917, nodata)
    elif face.startswith("mask"):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=face == "mask inside"):
            geotiffs.write(path, pixels, UTM, 26917, mask=~void)
    elif face == "alpha":
        pixels = np.dstack([pixels, np.where(void, 0, 255).astype(np.uint8)])
        geotiffs.write(path, pixels, UTM, 26917, photometric="RGB", alpha="YES")
        return ("--bands", "3")
    else:
        values = pixels / np.float32(255)
        values[void] = np.nan
        geotiffs.write(path, values, UTM, 26917)
        return ("--range", "0", "1")
    return ()


def build(folder, face, source, splits=("train",), low=None):
    """A tile set of tiles whose left half has no data and whose fine label does not know."""
    void = np.zeros((PX, PX), bool)
    void[:, : PX // 2] = True
    high = np.random.default_rng(1).choice([1, 2, 3, 5], (PX, PX)).astype(np.uint8)
    lines = ["region,split,image,high" + (",low" if low is not None else "")]
    for i, split in enumerate(splits):
        name = f"s{i}.png" if face == "transparent" else f"s{i}.tif"
        options = (
            write_image(folder / "raw" / name, void, face)
            if folder.joinpath("raw").mkdir(parents=True, exist_ok=True) is None
            else ()
        )
        place = None if face == "transparent" else UTM
        geotiffs.write(folder / "raw" / f"h{i}.tif", high, place, place and 26917)
        lines.append(f"x,{split},{name},h{i}.tif" + (f",l{i}.tif" if low is not None else ""))
        if low is not None:
            grid = (16.0, 0.0, UTM[2] - 3, 0.0, -16.0, UTM[5] + 5)
            geotiffs.write(folder / "raw" / f"l{i}.tif", low, grid, 26917)
    (folder / "raw" / "list.csv").write_text("\n".join(lines) + "\n")
    words = [str(folder / "set"), source, str(folder / "raw" / "list.csv"), "--taxonomy", str(LOW2HIGH), "--no-filter"]
    words += ["--tile-px", str(PX), *options, *(() if low is not None else ("--scale", "16"))]
    assert main([*words, "--workers", "1"]) == 0
    return folder / "set", void, high


def built(tmp_path, face, source, **more):
    if face == "nan" and source == "--tiled":
        pytest.skip("--tiled takes uint8 and uint16; it says that --scenes takes floats")
    return build(tmp_path, face, source, **more)


@pytest.mark.parametrize("source", ["--scenes", "--tiled"])
@pytest.mark.parametrize("face", FACES)
def test_labels_are_ignored_where_there_is_no_imagery(tmp_path, capsys, face, source):
    root, void, high = built(tmp_path, face, source)
    said = f"{PX * PX // 2:,} pixels (50.00%) are ignored: the image has no data there"
    assert said in capsys.readouterr().out
    tiles = TileSet(root, "train")
    assert (tiles.load_high(0)[void] == 255).all() and (tiles.load_high(0)[~void] != 255).all()
    tile = tiles.load(0)
    assert np.array_equal(tile.void, void)
    assert set(np.unique(tile.image[void])) <= set(np.unique(tile.image[~void]))  # filled by what lies beside it
    description = tiles.description
    for band, mean in enumerate(description.band_mean):
        assert mean == pytest.approx(tile.image[~void][:, band].mean())
    upsampled = make_sample(tile, "low_upsampled")["labels"]
    assert (upsampled[void] == 255).all() and (upsampled[~void] != 255).all()
    sample = make_sample(tile, "low_regions")
    assert (sample["region_index"][void] == -1).all() and (sample["region_index"][~void] >= 0).all()


@pytest.mark.parametrize("view", range(8))
def test_cells_that_voids_cut_do_not_supervise_in_any_view(tmp_path, view):
    low = np.full((6, 6), 41, np.uint8)
    root, void, _ = build(tmp_path, "nodata 0", "--scenes", low=low)
    tile = TileSet(root, "train").load(0)
    for least, count in ((1.0, 3), (0.4, 9)):
        sample = make_sample(tile, "low_regions", least, view)
        index, labels = sample["region_index"], sample["labels"]
        supervised = [r for r in range(labels.size) if labels[r] != 255]
        assert len(supervised) >= count - 1 and all((index == r).sum() >= least * 256 - 32 for r in supervised)
        assert (index >= 0).sum() <= (~void).sum()


@pytest.mark.parametrize("face", ["nodata 0", "mask inside", "mask beside", "alpha", "nan"])
def test_pretraining_on_a_bare_folder_sees_no_void_pixel(tmp_path, face):
    void = np.zeros((PX, PX), bool)
    void[10:30, :20] = True
    for i in range(3):
        write_image(tmp_path / "raw" / f"{i}.tif", void, face)
    training, validation = read_unlabelled(tmp_path / "raw", "*.tif", bands=3)
    image = training.load(0).numpy()
    assert np.isfinite(image).all()
    for band in range(3):
        seen = image[band][~void]
        assert set(np.unique(image[band][void])) <= set(np.unique(seen))
        assert training.facts["band_mean"][band] == pytest.approx(seen.mean(), rel=1e-5)


def test_exemplars_and_both_evaluations_count_the_same_pixels(tmp_path):
    root, void, _ = build(tmp_path, "nodata 0", "--scenes", ("train", "validation", "heldout", "test"))
    assert (TileSet(root, "heldout").load_high(0)[void] == 255).all()
    run_script("evaluate.py", "--oracle", "--lsr", "--lsr-patches", 200, "--data", root, "--out", tmp_path / "s.json")
    for row in json.loads((tmp_path / "s.json").read_text())["rows"]:
        assert np.sum(row["confusion"]) == PX * PX // 2


def test_a_set_of_before_whose_labels_know_nothing_of_voids_is_read_as_one_that_was_built_anew(tmp_path):
    root, void, high = build(tmp_path, "nodata 0", "--scenes")
    new = TileSet(root, "train").load(0)
    (row,) = read_manifest(root)[1]
    stored = tile_io.read(root / row["high"])
    tile_io.write(root / row["high"], high, affine=stored.affine, system=stored.system)
    old = TileSet(root, "train").load(0)
    assert np.array_equal(old.high, new.high) and np.array_equal(old.cells.labels, new.cells.labels)


def test_what_stands_in_is_the_nearest_of_the_row_with_data():
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    void = np.zeros((4, 6), bool)
    void[0, 2:4] = void[2] = True
    put = filled(pixels, void)[..., 0]
    assert put[0].tolist() == [0, 1, 1, 4, 4, 5] and np.array_equal(put[2], put[1])
    assert filled(pixels, None) is pixels


def test_no_pixel_with_data_becomes_nodata():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 1] = 255
    void = np.array([[False, False], [False, True]])
    made, nodata = marked(pixels, void, None)
    assert nodata == 1 and ((made == nodata).all(axis=-1) == void).all()


def test_a_fine_label_over_a_part_of_its_image_leaves_the_rest_ignored(tmp_path, capsys):
    rng = np.random.default_rng(0)
    geotiffs.write(tmp_path / "image.tif", rng.integers(1, 255, (128, 128, 3), np.uint8), UTM, 32617)
    geotiffs.write(tmp_path / "label.tif", rng.choice([1, 2], (64, 128)).astype(np.uint8), UTM, 32617)
    classes = "[{name: field, color: [1,2,3]}, {name: house, color: [4,5,6]}, {name: road, color: [7,8,9]}]"
    (tmp_path / "t.yaml").write_text(f"classes: {classes}\nlow: {{}}\nhigh: {{0: field, 1: house, 2: road}}\n")
    (tmp_path / "list.csv").write_text("region,split,image,high\nx,train,image.tif,label.tif\n")
    words = ["--scenes", str(tmp_path / "list.csv"), "--taxonomy", str(tmp_path / "t.yaml"), "--tile-px", "128"]
    assert main([str(tmp_path / "set"), *words, "--no-filter", "--scale", "16"]) == 0
    high = TileSet(tmp_path / "set", "train").load(0).high
    assert (high[64:] == 255).all() and not (high[:64] == 255).any() and not (high == 0).any()
    said = capsys.readouterr().out
    assert "brought to their images' pixels: 1" in said and "are ignored: a label does not reach there" in said


@pytest.mark.parametrize("source", ["--scenes", "--tiled"])
def test_a_coarse_raster_that_ends_inside_a_tile_leaves_the_rest_ignored_in_every_row(tmp_path, source):
    rng = np.random.default_rng(0)
    geotiffs.write(tmp_path / "image.tif", rng.integers(1, 255, (128, 128, 3), np.uint8), UTM, 32617)
    geotiffs.write(tmp_path / "fine.tif", rng.choice([1, 2, 3, 5], (128, 128)).astype(np.uint8), UTM, 32617)
    grid = (16.0, 0.0, UTM[2], 0.0, -16.0, UTM[5])
    geotiffs.write(tmp_path / "coarse.tif", np.full((8, 4), 41, np.uint8), grid, 32617)
    (tmp_path / "list.csv").write_text("region,split,image,high,low\nx,test,image.tif,fine.tif,coarse.tif\n")
    words = [source, str(tmp_path / "list.csv"), "--taxonomy", str(LOW2HIGH), "--tile-px", "128", "--no-filter"]
    assert main([str(tmp_path / "set"), *words]) == 0
    tile = TileSet(tmp_path / "set", "test").load(0)
    assert (tile.high[:, 64:] == 255).all() and (tile.high[:, :64] != 255).all()
    upsampled = make_sample(tile, "low_upsampled")["labels"]
    assert (upsampled[:, 64:] == 255).all() and (upsampled[:, :64] == 1).all()
    sample = make_sample(tile, "low_regions")
    index = sample["region_index"]
    assert (np.append(sample["labels"], 255)[index][:, 64:] == 255).all()
    run_script("evaluate.py", "--oracle", "--data", tmp_path / "set", "--out", tmp_path / "s.json")
    (row,) = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert np.sum(row["confusion"]) == 64 * 128


def test_a_set_without_voids_holds_no_more_codes_than_before(tile_set, tmp_path):
    shutil.copytree(tile_set, tmp_path / "set")
    assert 255 not in read_manifest(tmp_path / "set")[0].taxonomy.high
    assert all(TileSet(tile_set, "train").load(i).void is None for i in range(3))


def cells_of_30_m(folder, high, place=UTM, **options):
    """A scene of 128 px whose fine label covers its left 96 px, above a coarse raster of 30 m -> its one tile."""
    rng = np.random.default_rng(0)
    geotiffs.write(folder / "image.tif", rng.integers(1, 255, (128, 128, 3), np.uint8), UTM, 26917)
    geotiffs.write(folder / "fine.tif", high, place, 26917, **options)
    grid = (30.0, 0.0, UTM[2] - 10, 0.0, -30.0, UTM[5] + 10)
    geotiffs.write(folder / "coarse.tif", np.full((6, 6), 41, np.uint8), grid, 26917)
    (folder / "list.csv").write_text("region,split,image,high,low\nx,test,image.tif,fine.tif,coarse.tif\n")


@pytest.mark.parametrize("kind", ["codes", "colours"])
def test_no_cell_that_reaches_beyond_a_fine_label_supervises(tmp_path, capsys, kind):
    codes, taxonomy = np.random.default_rng(1).choice([1, 2, 3, 5], (128, 96)).astype(np.uint8), LOW2HIGH
    if kind == "colours":
        colors = np.array([(9, 9, 9), (1, 0, 0), (2, 0, 0), (3, 0, 0), (0, 0, 0), (5, 0, 0)], np.uint8)
        codes, taxonomy = colors[codes], tmp_path / "t.yaml"
        names = {"#010000": "water", "#020000": "forest", "#030000": "field", "#050000": "field"}
        named = enumerate(("water", "forest", "field"))
        classes = ", ".join(f"{{name: {name}, color: [1, 2, {i}]}}" for i, name in named)
        table = ", ".join(f'"{color}": {name}' for color, name in names.items())
        taxonomy.write_text(f"classes: [{classes}]\ncolors: {{{table}}}\nlow: {{41: forest}}\n")
    cells_of_30_m(tmp_path, codes)
    words = ["--scenes", str(tmp_path / "list.csv"), "--taxonomy", str(taxonomy), "--tile-px", "128", "--no-filter"]
    assert main([str(tmp_path / "set"), *words]) == 0
    assert "4,096 pixels (25.00%) are ignored: a label does not reach there" in capsys.readouterr().out
    tile = TileSet(tmp_path / "set", "test").load(0)
    assert (tile.high[:, 96:] == 255).all() and (tile.high[:, :96] != 255).all()
    assert (make_sample(tile, "low_upsampled")["labels"][:, 96:] == 255).all()
    sample = make_sample(tile, "low_regions")
    assert (np.append(sample["labels"], 255)[sample["region_index"]][:, 96:] == 255).all()
    assert (np.append(sample["labels"], 255)[sample["region_index"]][:, :60] == 1).any()


@pytest.mark.parametrize("nodata", [np.nan, -9999.0, -3.4028234663852886e38])
def test_a_float_labels_nodata_is_no_code(tmp_path, nodata):
    codes = np.random.default_rng(1).choice([1, 2, 3, 5], (128, 96)).astype(np.float32)
    codes[:10] = nodata
    cells_of_30_m(tmp_path, codes, nodata=nodata)
    words = ["--scenes", str(tmp_path / "list.csv"), "--taxonomy", str(LOW2HIGH), "--tile-px", "128", "--no-filter"]
    assert main([str(tmp_path / "set"), *words]) == 0
    high = TileSet(tmp_path / "set", "test").load(0).high
    assert (high[:10] == 255).all() and (high[10:, :96] != 255).all()


def test_masks_with_opacity_or_a_palette_are_warped_as_they_lie(tmp_path):
    classes = "[{name: water, color: [1, 2, 3]}, {name: forest, color: [4, 5, 6]}]"
    table = '{"#010000": water, "#020000": forest}'
    (tmp_path / "t.yaml").write_text(f"classes: {classes}\nlow: {{41: forest}}\ncolors: {table}\n")
    codes, shifted = np.random.default_rng(1).integers(0, 2, (128, 96)), (1.0, 0.0, UTM[2] + 3, 0.0, -1.0, UTM[5])
    colors, expected = np.array([(1, 0, 0), (2, 0, 0)], np.uint8), np.full((128, 128), 255)
    expected[:, 3:99] = codes
    for kind in ("alpha", "palette"):
        (tmp_path / kind).mkdir()
        if kind == "alpha":
            rgba = np.dstack([colors[codes], np.full(codes.shape, 255, np.uint8)])
            cells_of_30_m(tmp_path / kind, rgba, shifted, photometric="RGB", alpha="YES")
        else:
            cells_of_30_m(tmp_path / kind, codes.astype(np.uint8), shifted, photometric="palette")
            with rasterio.open(tmp_path / kind / "fine.tif", "r+") as file:
                file.write_colormap(1, {0: (1, 0, 0), 1: (2, 0, 0)})
        words = ["--scenes", str(tmp_path / kind / "list.csv"), "--taxonomy", str(tmp_path / "t.yaml"), "--no-filter"]
        assert main([str(tmp_path / kind / "set"), *words, "--tile-px", "128"]) == 0
        assert np.array_equal(TileSet(tmp_path / kind / "set", "test").load(0).high, expected)


def test_no_block_that_reaches_beyond_a_fine_label_supervises(tmp_path):
    cells_of_30_m(tmp_path, np.random.default_rng(1).choice([1, 2, 3, 5], (128, 96)).astype(np.uint8))
    geotiffs.write(tmp_path / "coarse.tif", np.full((128, 128), 41, np.uint8), UTM, 26917)
    words = ["--scenes", str(tmp_path / "list.csv"), "--taxonomy", str(LOW2HIGH), "--tile-px", "128", "--no-filter"]
    assert main([str(tmp_path / "set"), *words, "--scale", "20"]) == 0
    sample = make_sample(TileSet(tmp_path / "set", "test").load(0), "low_regions")
    labels = np.append(sample["labels"], 255)[sample["region_index"]]
    assert (labels[:, 96:] == 255).all() and (labels[:120, :80] == 1).all()
