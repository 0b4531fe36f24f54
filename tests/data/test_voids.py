"""No imagery, no label: pixels without data, whatever says so, neither supervise nor score; no network sees them."""

import json

import geotiffs
import numpy as np
import pytest
import rasterio
from commands import run_script
from made_scenes import LOW2HIGH, UTM, run, write_list
from PIL import Image

from data.samples import make_sample
from data.tiles import TileSet
from data.unlabelled import read_unlabelled
from data.voids import filled, marked

PX = 64
FACES = ("nodata 0", "nodata 65535", "mask", "mask beside", "alpha", "nan", "transparent")


def write_image(path, void, face):
    """An image of 3 bands that says in one of the ways which pixels have no data; -> options of data.prepare."""
    pixels = np.random.default_rng(0).integers(60, 200, (*void.shape, 3)).astype(np.uint8)
    if face == "transparent":
        Image.fromarray(np.dstack([pixels, np.where(void, 0, 255).astype(np.uint8)])).save(path)
    elif face.startswith("nodata"):
        nodata = int(face.split()[1])
        geotiffs.write(path, np.where(void[..., None], nodata, pixels.astype(np.uint16)), UTM, 26917, nodata)
    elif face == "nan":
        values = np.where(void[..., None], np.nan, pixels / np.float32(255)).astype(np.float32)
        geotiffs.write(path, values, UTM, 26917)
    else:
        geotiffs.hide(geotiffs.write(path, pixels, UTM, 26917), ~void, face)
        if face == "alpha":  # near infrared before it is often tagged so too
            with rasterio.open(path, "r+") as file:
                file.colorinterp = [*file.colorinterp[:2], *file.colorinterp[3:] * 2]
    return {"alpha": ("--bands", 3), "nan": ("--range", 0, 1)}.get(face, ())


def build(folder, face="nodata 0", source="--scenes", splits=("train",), low=None):
    """A tile set of tiles whose left half has no data and whose fine label does not know."""
    raw, void, rows = folder / "raw", np.zeros((PX, PX), bool), []
    raw.mkdir()
    void[:, : PX // 2] = True
    high = np.random.default_rng(1).choice([1, 2, 3, 5], (PX, PX)).astype(np.uint8)
    place = (None, None) if face == "transparent" else (UTM, 26917)
    for i, split in enumerate(splits):
        row = {"region": "x", "split": split, "image": f"s{i}.{'png' if face == 'transparent' else 'tif'}"}
        options = write_image(raw / row["image"], void, face)
        geotiffs.write(raw / f"h{i}.tif", high, *place)
        rows.append({**row, "high": f"h{i}.tif"})
        if low is not None:
            rows[-1]["low"] = f"l{i}.tif"
            geotiffs.write(raw / f"l{i}.tif", low, (16, 0, UTM[2] - 3, 0, -16, UTM[5] + 5), 26917)
    words = source, write_list(raw, rows), "--taxonomy", LOW2HIGH, "--no-filter", "--tile-px", PX, *options
    assert run(folder / "set", *words, *(() if low is not None else ("--scale", 16))) == 0
    return folder / "set", void, high


@pytest.mark.parametrize("source", ["--scenes", "--tiled"])
@pytest.mark.parametrize("face", FACES)
def test_labels_are_ignored_where_there_is_no_imagery(tmp_path, capsys, face, source):
    if face == "nan" and source == "--tiled":
        pytest.skip("--tiled takes uint8 and uint16; it says that --scenes takes floats")
    root, void, high = build(tmp_path, face, source)
    said = f"{PX * PX // 2:,} pixels (50.00%) are ignored: the image has no data there"
    assert said in capsys.readouterr().out
    tiles = TileSet(root, "train")
    assert (tiles.load_high(0)[void] == 255).all() and (tiles.load_high(0)[~void] != 255).all()
    tile = tiles.load(0)
    assert np.array_equal(tile.void, void)
    assert set(np.unique(tile.image[void])) <= set(np.unique(tile.image[~void]))  # filled by what lies beside it
    for band, mean in enumerate(tiles.description.band_mean):
        assert mean == pytest.approx(tile.image[~void][:, band].mean())
    upsampled = make_sample(tile, "low_upsampled")["labels"]
    assert (upsampled[void] == 255).all() and (upsampled[~void] != 255).all()
    sample = make_sample(tile, "low_regions")
    assert (sample["region_index"][void] == -1).all() and (sample["region_index"][~void] >= 0).all()


@pytest.mark.parametrize("view", range(8))
def test_cells_that_voids_cut_do_not_supervise_in_any_view(tmp_path, view):
    low = np.full((6, 6), 41, np.uint8)
    root, void, _ = build(tmp_path, low=low)
    tile = TileSet(root, "train").load(0)
    for least, count in ((1.0, 3), (0.4, 9)):
        sample = make_sample(tile, "low_regions", least, view)
        index, labels = sample["region_index"], sample["labels"]
        supervised = [r for r in range(labels.size) if labels[r] != 255]
        assert len(supervised) >= count - 1 and all((index == r).sum() >= least * 256 - 32 for r in supervised)
        assert (index >= 0).sum() <= (~void).sum()


@pytest.mark.parametrize("face", ["nodata 0", "mask", "mask beside", "alpha", "nan"])
def test_pretraining_on_a_bare_folder_sees_no_void_pixel(tmp_path, face):
    void = np.zeros((PX, PX), bool)
    void[10:30, :20] = True
    (tmp_path / "raw").mkdir()
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
    root, void, high = build(tmp_path, splits=("train", "validation", "heldout", "test"))
    assert (TileSet(root, "heldout").load_high(0)[void] == 255).all()
    run_script("evaluate.py", "--oracle", "--lsr", "--lsr-patches", 200, "--data", root, "--out", tmp_path / "s.json")
    for row in json.loads((tmp_path / "s.json").read_text())["rows"]:
        assert np.sum(row["confusion"]) == PX * PX // 2
    Image.fromarray(high).save(root / TileSet(root, "test").rows[0]["high"])  # which knows nothing of voids
    assert (TileSet(root, "test").load(0).high[void] == 255).all()


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


def scene(folder, high, place=UTM, low=None, grid=None, **options):
    """The list of a scene of 128 px whose fine label covers a part of it, above a coarse one: cells of 30 m."""
    image = np.random.default_rng(0).integers(1, 255, (128, 128, 3), np.uint8)
    if low is None:
        low, grid = np.full((6, 6), 41, np.uint8), (30, 0, UTM[2] - 10, 0, -30, UTM[5] + 10)
    geotiffs.write(folder / "image.tif", image, UTM, 26917)
    geotiffs.write(folder / "fine.tif", high, place, 26917, **options)
    geotiffs.write(folder / "coarse.tif", low, grid, 26917)
    row = {"region": "x", "split": "test", "image": "image.tif", "high": "fine.tif", "low": "coarse.tif"}
    return write_list(folder, [row])


def tile_of(listed, *options, source="--scenes", taxonomy=LOW2HIGH):
    """The one tile of a scene's tile set."""
    root = listed.parent / "set"
    assert run(root, source, listed, "--taxonomy", taxonomy, "--tile-px", 128, "--no-filter", *options) == 0
    return TileSet(root, "test").load(0)


def of_regions(tile):
    """Of each pixel the label of its region, as it supervises."""
    sample = make_sample(tile, "low_regions")
    return np.append(sample["labels"], 255)[sample["region_index"]]


CODES = np.random.default_rng(1).choice([1, 2, 3, 5], (128, 128)).astype(np.uint8)


def test_a_fine_label_that_is_warped_leaves_what_it_does_not_reach_ignored(tmp_path, capsys):
    (tmp_path / "t.yaml").write_text(  # a class has the code 0, with which a warp fills the rest
        "classes: [{name: field, color: [1, 2, 3]}, {name: house, color: [4, 5, 6]}]\n"
        "low: {41: field}\nhigh: {0: field, 1: house}\n"
    )
    tile = tile_of(scene(tmp_path, np.ones((64, 128), np.uint8)), taxonomy=tmp_path / "t.yaml")
    assert (tile.high[64:] == 255).all() and (tile.high[:64] == 1).all()
    said = capsys.readouterr().out
    assert "resampled to their images' pixels: 1" in said and "are ignored: a label does not reach there" in said


@pytest.mark.parametrize("source", ["--scenes", "--tiled"])
def test_a_coarse_raster_that_ends_inside_a_tile_leaves_the_rest_ignored_in_every_row(tmp_path, source):
    low, grid = np.full((8, 4), 41, np.uint8), (16, 0, UTM[2], 0, -16, UTM[5])
    tile = tile_of(scene(tmp_path, CODES, low=low, grid=grid), source=source)
    assert (tile.high[:, 64:] == 255).all() and (tile.high[:, :64] != 255).all()
    upsampled = make_sample(tile, "low_upsampled")["labels"]
    assert (upsampled[:, 64:] == 255).all() and (upsampled[:, :64] == 1).all()
    assert (of_regions(tile)[:, 64:] == 255).all()
    run_script("evaluate.py", "--oracle", "--data", tmp_path / "set", "--out", tmp_path / "s.json")
    (row,) = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert np.sum(row["confusion"]) == 64 * 128


@pytest.mark.parametrize("kind", ["codes", "colours"])
def test_no_cell_that_reaches_beyond_a_fine_label_supervises(tmp_path, capsys, kind):
    codes, taxonomy = CODES[:, :96], LOW2HIGH
    if kind == "colours":
        codes, taxonomy = np.dstack([codes, 0 * codes, 0 * codes]), tmp_path / "t.yaml"
        named = enumerate(("water", "forest", "field"))
        classes = ", ".join(f"{{name: {name}, color: [1, 2, {i}]}}" for i, name in named)
        table = '"#010000": water, "#020000": forest, "#030000": field, "#050000": field'
        taxonomy.write_text(f"classes: [{classes}]\ncolors: {{{table}}}\nlow: {{41: forest}}\n")
    tile = tile_of(scene(tmp_path, codes), taxonomy=taxonomy)
    assert "4,096 pixels (25.00%) are ignored: a label does not reach there" in capsys.readouterr().out
    assert (tile.high[:, 96:] == 255).all() and (tile.high[:, :96] != 255).all()
    assert (make_sample(tile, "low_upsampled")["labels"][:, 96:] == 255).all()
    assert (of_regions(tile)[:, 96:] == 255).all() and (of_regions(tile)[:, :60] == 1).any()


def test_no_block_that_reaches_beyond_a_fine_label_supervises(tmp_path):
    blocks = {"low": np.full((128, 128), 41, np.uint8), "grid": UTM}
    labels = of_regions(tile_of(scene(tmp_path, CODES[:, :96], **blocks), "--scale", 20))
    assert (labels[:, 96:] == 255).all() and (labels[:120, :80] == 1).all()


@pytest.mark.parametrize("nodata", [np.nan, -9999.0, -3.4028234663852886e38])
def test_a_float_labels_nodata_is_no_code(tmp_path, nodata):
    codes = CODES[:, :96].astype(np.float32)
    codes[:10] = nodata
    high = tile_of(scene(tmp_path, codes, nodata=nodata)).high
    assert (high[:10] == 255).all() and (high[10:, :96] != 255).all()


@pytest.mark.parametrize("kind", ["alpha", "palette"])
def test_masks_with_opacity_or_a_palette_are_warped_as_they_lie(tmp_path, kind):
    classes = "[{name: water, color: [1, 2, 3]}, {name: forest, color: [4, 5, 6]}]"
    table = '{"#010000": water, "#020000": forest}'
    (tmp_path / "t.yaml").write_text(f"classes: {classes}\nlow: {{41: forest}}\ncolors: {table}\n")
    codes, shifted = np.random.default_rng(1).integers(0, 2, (128, 96), np.uint8), (1, 0, UTM[2] + 3, 0, -1, UTM[5])
    expected = np.full((128, 128), 255)
    expected[:, 3:99] = codes
    if kind == "alpha":
        rgba = np.dstack([codes + 1, 0 * codes, 0 * codes, 0 * codes + 255]).astype(np.uint8)
        listed = scene(tmp_path, rgba, shifted, photometric="RGB", alpha="YES")
    else:
        listed = scene(tmp_path, codes, shifted, photometric="palette")
        with rasterio.open(tmp_path / "fine.tif", "r+") as file:
            file.write_colormap(1, {0: (1, 0, 0), 1: (2, 0, 0)})
    assert np.array_equal(tile_of(listed, taxonomy=tmp_path / "t.yaml").high, expected)
