"""Masks of codes, of indices and of colours, against the arrays that they were made from."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.label_masks import open_label
from data.rasters import geotiff
from data.taxonomy import load_colors
from runtime.errors import Refused

REAL = os.environ.get("LOW2HIGH_REAL")
DUBAI = load_colors(Path(__file__).parents[2] / "configs" / "taxonomies" / "dubai.yaml")["high"]
COLORS = {(226, 169, 41): 1, (60, 16, 152): 2, (0, 0, 0): 0, (9, 9, 9): 3}
CODES = np.random.default_rng(0).integers(0, 3, (40, 30)).astype(np.uint8)
RGB = np.array([(0, 0, 0), (226, 169, 41), (60, 16, 152)], np.uint8)[CODES]


def codes_of(path, colors=()):
    """The codes of a mask, read whole and by windows alike."""
    with open_label(path, colors) as label:
        codes, (height, width) = label.read()[..., 0], (label.header.height, label.header.width)
        assert label.header.bands == 1 and codes.shape == (height, width)
        for row, col in ((0, 0), (7, 5)):
            assert np.array_equal(label.window(row, col, height - row, width - col)[..., 0], codes[row:, col:])
        return codes


def palette_png(path, **settings):
    picture = Image.fromarray(CODES).convert("P")
    picture.putpalette([0, 0, 0, 226, 169, 41, 60, 16, 152])
    picture.save(path, **settings)
    return path


def rgb_png(path):
    Image.fromarray(RGB).save(path)
    return path


def rgb_tiff(path):
    geotiff.write(path, RGB)
    return path


def palette_tiff(path):
    geotiff.write(path, CODES, palette=np.array([(0, 0, 0), (226, 169, 41), (60, 16, 152)]))
    return path


@pytest.mark.parametrize("write", [palette_png, rgb_png, rgb_tiff, palette_tiff])
def test_colours_become_their_codes(tmp_path, write):
    suffix = write.__name__.replace("_png", ".png").replace("_tiff", ".tif")
    assert np.array_equal(codes_of(write(tmp_path / suffix), COLORS), CODES)


@pytest.mark.parametrize("settings", [{}, {"bits": 2}, {"transparency": 0}])
def test_without_colours_a_palette_picture_is_read_as_its_indices(tmp_path, settings):
    assert np.array_equal(codes_of(palette_png(tmp_path / "a.png", **settings)), CODES)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_masks_have_colours_too(tmp_path, mode):
    Image.fromarray(np.where(CODES, 255, 0).astype(np.uint8)).convert(mode).save(tmp_path / "a.png")
    assert np.array_equal(codes_of(tmp_path / "a.png", {(0, 0, 0): 1, (255, 255, 255): 2}), 1 + (CODES > 0))


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
    assert np.array_equal(codes_of(path, COLORS), expected)


@pytest.mark.skipif(not REAL, reason="LOW2HIGH_REAL is unset")
@pytest.mark.parametrize("mask", ["Tile 1/masks/image_part_001.png", "Tile 2/masks/image_part_003.png"])
def test_every_colour_of_the_rgb_and_palette_masks_of_dubai_has_a_code(mask):
    codes = codes_of(Path(REAL, "dubai", mask), DUBAI)
    with Image.open(Path(REAL, "dubai", mask)) as picture:
        rgb = np.array(picture.convert("RGB"))
    assert all(codes[at] == DUBAI[tuple(rgb[at].tolist())] for at in np.ndindex(200, 200))
    assert len(np.unique(codes)) >= 3


def test_a_colour_without_a_class_is_listed_with_its_count_in_the_whole_mask(tmp_path):
    rgb = RGB.copy()
    rgb[1, :2] = rgb[39, 29] = (1, 2, 0xAB)
    rgb[0, 0] = (255, 0, 0)
    Image.fromarray(rgb).save(tmp_path / "mask.png")
    with open_label(tmp_path / "mask.png", COLORS) as label:
        assert np.array_equal(label.window(9, 9, 8, 8)[..., 0], CODES[9:17, 9:17])
        with pytest.raises(Refused) as caught:
            label.window(0, 0, 8, 8)
    assert str(caught.value) == (
        f"{tmp_path / 'mask.png'}: colours without a class: #0102AB (3 px), #FF0000 (1 px); the taxonomy "
        "knows #000000, #090909, #3C1098, #E2A929"
    )


def test_a_mask_that_jpeg_blurred_says_so(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "mask.jpg")
    with open_label(tmp_path / "mask.jpg", COLORS) as label, pytest.raises(Refused) as caught:
        label.read()
    assert " more; " in str(caught.value) and str(caught.value).endswith("; JPEG blurs colours: masks are PNG")


@pytest.mark.parametrize(
    "array, colors, said",
    [
        (RGB, (), "a.tif: has 3 bands of uint8; a label has one, of integers; of a mask of colours the taxonomy"),
        (RGB.astype(np.uint16), COLORS, "a.tif: has 3 bands of uint16; a mask of colours has red, green and blue of"),
        (RGB[..., :2], COLORS, "a.tif: has 2 bands of uint8; a mask of colours"),
    ],
)
def test_what_is_no_mask_is_named(tmp_path, array, colors, said):
    geotiff.write(tmp_path / "a.tif", array)
    with pytest.raises(Refused) as caught:
        open_label(tmp_path / "a.tif", colors)
    assert said in str(caught.value)
