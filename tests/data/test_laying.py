"""How a label lies on its image, by sizes and affines alone."""

from pathlib import Path

import numpy as np
import pytest

from data.laying import low_grid, require_same_pixels, same_pixels
from data.tile_io import Stored
from runtime.errors import Refused

UTM = (1.0, 0.0, 500_000.0, 0.0, -1.0, 4_300_000.0)


def label(height=600, width=900, affine=UTM):
    return Stored(Path("l.tif"), (height, width), 1, np.dtype(np.uint8), None, affine)


def image(affine=UTM, height=600, width=900):
    return Stored(Path("i.tif"), (height, width), 3, np.dtype(np.uint8), None, affine)


IMAGE = image()


def test_cells_have_their_own_grid_and_their_scale():
    grid = (30.0, 0.0, 499_990.0, 0.0, -30.0, 4_300_020.0)
    assert low_grid(IMAGE, label(22, 32, grid), None) == (grid, 30)
    grid = (10.0, 0.0, 5e5, 0.0, -10.0, 4.3e6)
    assert low_grid(image((0.6, 0.0, 5e5, 0.0, -0.6, 4.3e6)), label(9, 9, grid), None)[1] == 16.667


def test_a_tilted_cell_of_29_8_by_30_1_m_is_of_scale_30():
    turn = np.radians(12.7)
    grid = (30.1 * np.cos(turn), 29.8 * np.sin(turn), 5e5, 30.1 * np.sin(turn), -29.8 * np.cos(turn), 4.3e6)
    for n in (None, 30):
        assert low_grid(IMAGE, label(22, 32, grid), n) == (grid, 30)


def test_a_label_on_the_images_pixels_has_no_grid_and_no_n_of_its_own():
    assert low_grid(IMAGE, label(), 32) == (None, 32)
    assert low_grid(image(None), label(affine=None), 32) == (None, 32)
    for each in (label(), label(affine=None)):
        with pytest.raises(Refused, match="nothing shows how wide its cells are; give --scale"):
            low_grid(IMAGE, each, None)


@pytest.mark.parametrize("size", [(21, 31), (20, 30)])
def test_without_georeference_a_grid_begins_at_the_corner(size):
    low = label(*size, None)
    assert low_grid(image(None, 610, 910), low, 30) == ((30, 0, 0, 0, -30, 0), 30)
    assert low_grid(image(UTM, 610, 910), low, 30)[0] == (30, 0, 500_000, 0, -30, 4_300_000)
    with pytest.raises(Refused, match="give the width of a cell in pixels as --scale"):
        low_grid(image(None, 610, 910), low, None)
    with pytest.raises(Refused, match="at --scale 40 it should be 16 x 23"):
        low_grid(image(None, 610, 910), low, 40)


def test_half_a_centimetre_of_difference_is_none_and_a_drift_is_seen():
    moved = (1.0, 0.0, 500_000.005, 0.0, -1.0, 4_300_000.0)
    assert same_pixels(IMAGE, label(affine=moved)) and low_grid(IMAGE, label(affine=moved), 30)[0] is None
    with pytest.raises(Refused, match="l.tif: does not lie on the pixels of i.tif"):
        require_same_pixels(IMAGE, label(affine=(1.001, 0.0, 500_000.0, 0.0, -1.0, 4_300_000.0)))
    with pytest.raises(Refused, match="l.tif: is 599 x 900 px, i.tif 600 x 900"):
        require_same_pixels(IMAGE, label(599))


@pytest.mark.parametrize("grid, n, said", [
    ((1.0, 0.0, 500_000.5, 0.0, -1.0, 4_300_000.0), None, "has pixels as small as those of i.tif"),
    ((10.0, 0.0, 5e5, 0.0, -10.0, 4.3e6), 30, "its pixels are 10 times those of i.tif, --scale says 30"),
])  # fmt: skip
def test_labels_that_do_not_go_with_an_image_are_named(grid, n, said):
    with pytest.raises(Refused, match=said):
        low_grid(IMAGE, label(60, 90, grid), n)
