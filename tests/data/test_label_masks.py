"""Masks of codes, of indices and of colours, against the arrays that they were made from."""

import re

import geotiffs
import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from data import tile_io
from data.label_masks import codes_of, require_label
from data.label_source import Label
from data.rasters import Raster
from runtime.errors import Refused

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


def palette_tiff(path):
    geotiffs.write(path, CODES)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, dict(enumerate([(0, 0, 0), (226, 169, 41), (60, 16, 152)])))


WRITERS = {
    "palette.png": palette_png,
    "rgb.png": lambda path: Image.fromarray(RGB).save(path),
    "rgb.tif": lambda path: geotiffs.write(path, RGB),
    "palette.tif": palette_tiff,
}


@pytest.mark.parametrize("name", WRITERS)
def test_colours_become_their_codes(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert np.array_equal(read_codes(tmp_path / name, COLORS), CODES)


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


def test_colours_without_a_class_are_listed_with_their_counts(tmp_path):
    rgb = RGB.copy()
    rgb[1, :2] = rgb[39, 29] = (1, 2, 0xAB)
    rgb[0, 0] = (255, 0, 0)
    Image.fromarray(rgb).save(tmp_path / "mask.png")
    Image.fromarray(RGB).save(tmp_path / "mask.jpg")
    listed = "#0102AB (3 px), #FF0000 (1 px); the taxonomy knows #000000, #090909, #3C1098, #E2A929"
    with pytest.raises(Refused, match=f"mask.png: colours without a class: {re.escape(listed)}$"):
        read_codes(tmp_path / "mask.png", COLORS)
    with pytest.raises(Refused, match=" more; .*; JPEG changes colours: save masks as PNG$"):
        read_codes(tmp_path / "mask.jpg", COLORS)


@pytest.mark.parametrize("array, colors, said", [
    (RGB, (), "a.tif: has 3 bands of uint8; a label has one band, of integers; for a mask of colours, give the"),
    (RGB.repeat(2, axis=2), COLORS, "a.tif: has 6 bands of uint8; a mask of colours has red, green and blue of"),
    (RGB.astype(np.uint16), COLORS, "a.tif: has 3 bands of uint16; a mask of colours has red, green and blue of"),
])  # fmt: skip
def test_what_is_no_mask_is_named(tmp_path, array, colors, said):
    geotiffs.write(tmp_path / "a.tif", array)
    with pytest.raises(Refused, match=said):
        read_codes(tmp_path / "a.tif", colors)


def test_the_code_for_nothing_fits_the_type_of_a_label():
    for dtype, code in ((np.int8, 127), (np.uint8, 255)):
        stored = tile_io.Stored("a.tif", (1, 1), 1, np.dtype(dtype), np.zeros((1, 1, 1), dtype))
        assert Label(stored, {0: 1}).none == code
