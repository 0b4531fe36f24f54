"""Masks of codes, of indices and of colours, against the arrays that they were made from."""

import os
from pathlib import Path

import geotiffs
import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from data import tile_io
from data.label_masks import codes_of, require_label
from data.rasters import Raster
from data.taxonomy import load_colors
from runtime.errors import Refused

REAL = os.environ.get("LOW2HIGH_REAL")
DUBAI = load_colors(Path(__file__).parents[2] / "configs" / "taxonomies" / "dubai.yaml")["high"]
COLORS = {(226, 169, 41): 1, (60, 16, 152): 2, (0, 0, 0): 0, (9, 9, 9): 3}
CODES = np.random.default_rng(0).integers(0, 3, (40, 30)).astype(np.uint8)
RGB = np.array([(0, 0, 0), (226, 169, 41), (60, 16, 152)], np.uint8)[CODES]


def read_codes(path, colors=()):
    """The codes of a mask, as training and as data.prepare --scenes read it."""
    read = []
    with Raster(path) as raster:
        for label in (tile_io.read(path), raster):
            require_label(label, colors)
            pixels = label.read(0, 0, *label.size, label.bands - (label.alpha is not None))
            read.append(codes_of(*pixels, label, colors)[0])
    assert np.array_equal(*read)
    return read[0]


def palette_png(path, **settings):
    picture = Image.fromarray(CODES).convert("P")
    picture.putpalette([0, 0, 0, 226, 169, 41, 60, 16, 152])
    picture.save(path, **settings)
    return path


def rgb_png(path):
    Image.fromarray(RGB).save(path)
    return path


def rgb_tiff(path):
    geotiffs.write(path, RGB)
    return path


def palette_tiff(path):
    geotiffs.write(path, CODES)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, dict(enumerate([(0, 0, 0), (226, 169, 41), (60, 16, 152)])))
    return path


@pytest.mark.parametrize("write", [palette_png, rgb_png, rgb_tiff, palette_tiff])
def test_colours_become_their_codes(tmp_path, write):
    suffix = write.__name__.replace("_png", ".png").replace("_tiff", ".tif")
    assert np.array_equal(read_codes(write(tmp_path / suffix), COLORS), CODES)


@pytest.mark.parametrize("settings", [{}, {"bits": 2}, {"transparency": 0}])
def test_without_colours_a_palette_picture_is_read_as_its_indices(tmp_path, settings):
    assert np.array_equal(read_codes(palette_png(tmp_path / "a.png", **settings)), CODES)


def test_grey_masks_have_colours_too(tmp_path):
    Image.fromarray(np.where(CODES, 255, 0).astype(np.uint8)).save(tmp_path / "a.png")
    assert np.array_equal(read_codes(tmp_path / "a.png", {(0, 0, 0): 1, (255, 255, 255): 2}), 1 + (CODES > 0))


def test_masks_of_one_bit_and_of_whole_floats_hold_codes(tmp_path):
    Image.fromarray(np.where(CODES, 255, 0).astype(np.uint8)).convert("1").save(tmp_path / "a.png")
    assert np.array_equal(read_codes(tmp_path / "a.png"), CODES > 0)
    geotiffs.write(tmp_path / "a.tif", CODES.astype(np.float32))
    assert np.array_equal(read_codes(tmp_path / "a.tif"), CODES)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_what_is_transparent_is_ignored_whatever_its_colour(tmp_path, suffix):
    rgba, path = np.dstack([RGB, np.full(CODES.shape, 255, np.uint8)]), tmp_path / f"a.{suffix}"
    rgba[3:9, 4:8] = (1, 2, 3, 0)
    if suffix == "png":
        Image.fromarray(rgba).save(path)
    else:
        tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=("unassalpha",), metadata=None)
    expected = CODES.copy()
    expected[3:9, 4:8] = 0
    assert np.array_equal(read_codes(path, COLORS), expected)


@pytest.mark.skipif(not REAL, reason="LOW2HIGH_REAL is unset")
@pytest.mark.parametrize("mask", ["Tile 1/masks/image_part_001.png", "Tile 2/masks/image_part_003.png"])
def test_every_colour_of_the_rgb_and_palette_masks_of_dubai_has_a_code(mask):
    codes = read_codes(Path(REAL, "dubai", mask), DUBAI)
    with Image.open(Path(REAL, "dubai", mask)) as picture:
        rgb = np.array(picture.convert("RGB"))
    assert all(codes[at] == DUBAI[tuple(rgb[at].tolist())] for at in np.ndindex(200, 200))
    assert len(np.unique(codes)) >= 3


def test_a_colour_without_a_class_is_listed_with_its_count_in_the_whole_mask(tmp_path):
    rgb = RGB.copy()
    rgb[1, :2] = rgb[39, 29] = (1, 2, 0xAB)
    rgb[0, 0] = (255, 0, 0)
    Image.fromarray(rgb).save(tmp_path / "mask.png")
    with pytest.raises(Refused) as caught:
        read_codes(tmp_path / "mask.png", COLORS)
    assert str(caught.value) == (
        f"{tmp_path / 'mask.png'}: colours without a class: #0102AB (3 px), #FF0000 (1 px); the taxonomy "
        "knows #000000, #090909, #3C1098, #E2A929"
    )


def test_a_mask_that_jpeg_blurred_says_so(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "mask.jpg")
    with pytest.raises(Refused) as caught:
        read_codes(tmp_path / "mask.jpg", COLORS)
    assert " more; " in str(caught.value) and str(caught.value).endswith("; JPEG blurs colours: masks are PNG")


@pytest.mark.parametrize(
    "array, colors, said",
    [
        (RGB, (), "a.tif: has 3 bands of uint8; a label has one, of integers; of a mask of colours the taxonomy"),
        (RGB.astype(np.uint16), COLORS, "a.tif: has 3 bands of uint16; a mask of colours has red, green and blue of"),
    ],
)
def test_what_is_no_mask_is_named(tmp_path, array, colors, said):
    geotiffs.write(tmp_path / "a.tif", array)
    with pytest.raises(Refused) as caught:
        read_codes(tmp_path / "a.tif", colors)
    assert said in str(caught.value)
