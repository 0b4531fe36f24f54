"""A coarse raster over a scene: the same cells window by window, on any grid."""

import math

import numpy as np
import pytest

from data.rasters import geotiff
from maps.overlay import Overlay
from runtime.errors import Refused

UTM = (1.0, 0.0, 4e5, 0.0, -1.0, 4.1e6)
BY_CODE = {0: 255, 11: 0, 21: 1, 22: 2, 41: 3}
HEIGHT, WIDTH = 150, 190


def scene(tmp_path, transform=UTM, epsg=26918):
    geotiff.write(tmp_path / "scene.tif", np.ones((HEIGHT, WIDTH), np.uint8), transform=transform, epsg=epsg)
    with geotiff.open_raster(tmp_path / "scene.tif") as raster:
        return raster.header


def tilted(gsd, left, top, degrees):
    cos, sin = gsd * math.cos(math.radians(degrees)), gsd * math.sin(math.radians(degrees))
    return (cos, sin, 4e5 + left, sin, -cos, 4.1e6 + top)


def coarse(tmp_path, transform, shape, epsg=26918, codes=None, **more):
    if codes is None:
        codes = np.random.default_rng(0).choice([11, 21, 22, 41], shape).astype(np.uint8)
    geotiff.write(tmp_path / "nlcd.tif", codes, transform=transform, epsg=epsg, **more)
    return tmp_path / "nlcd.tif", codes


def label_of(labels, to_cell, row, col):
    a, b, c, d, e, f = to_cell
    x, y = a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f
    return labels[math.floor(round(y, 6)), math.floor(round(x, 6))]


@pytest.mark.parametrize("transform, shape", [(tilted(13, -40, 70, 12.7), (24, 24)), (tilted(10, -4, 7, 0), (17, 20))])
def test_windows_see_the_cells_of_the_raster(tmp_path, transform, shape):
    path, codes = coarse(tmp_path, transform, shape)
    inverse = np.linalg.inv(np.array([transform[:3], transform[3:], (0, 0, 1)]))
    with Overlay(path, scene(tmp_path), BY_CODE, 12) as overlay:
        assert overlay.cell_px == pytest.approx(abs(transform[0] * transform[4] - transform[1] * transform[3]))
        for row, col, height, width in ((0, 0, 64, 64), (64, 96, 96, 128)):  # the latter ends beyond the scene
            labels, to_cell = overlay.window(row, col, height, width)
            for i in range(0, height, 7):
                for j in range(0, width, 5):
                    x, y = 4e5 + col + j + 0.5, 4.1e6 - row - i - 0.5
                    q, p = (math.floor(round(v, 6)) for v in (inverse @ (x, y, 1))[:2])
                    inside = 0 <= p < shape[0] and 0 <= q < shape[1]
                    assert label_of(labels, to_cell, i, j) == (BY_CODE[codes[p, q]] if inside else 255)


def test_a_raster_on_the_scenes_pixels_becomes_blocks_that_windows_agree_on(tmp_path):
    codes = np.kron(np.random.default_rng(0).choice([11, 21, 22, 41], (13, 16)), np.ones((12, 12), int))
    path, codes = coarse(tmp_path, UTM, None, codes=codes[:HEIGHT, :WIDTH].astype(np.uint8))
    with Overlay(path, scene(tmp_path), BY_CODE, 12.0) as overlay:
        assert overlay.cell_px == 144 and overlay.covered == 1
        for row, col in ((0, 0), (32, 64), (96, 96)):
            labels, to_cell = overlay.window(row, col, 64, 96)
            for i in range(0, min(64, HEIGHT - row), 7):
                for j in range(0, min(96, WIDTH - col), 5):
                    assert label_of(labels, to_cell, i, j) == BY_CODE[codes[row + i, col + j]]


def test_cells_hardly_larger_than_pixels_are_cells_of_their_own(tmp_path):
    path, _ = coarse(tmp_path, tilted(1.03, 0, 0, 0), (146, 185))
    with Overlay(path, scene(tmp_path), BY_CODE, 16) as overlay:
        assert overlay.n is None and overlay.cell_px == pytest.approx(1.03**2)


def test_a_raster_that_is_refused_is_closed(tmp_path, monkeypatch):
    closed, close = [], geotiff.Raster.close
    monkeypatch.setattr(geotiff.Raster, "close", lambda raster: (closed.append(raster.path.name), close(raster)))
    coarse(tmp_path, None, (15, 19), epsg=None)
    refused(tmp_path, "has no georeference", header=scene(tmp_path))
    assert "nlcd.tif" in closed


def test_a_part_of_the_scene_is_told_by_its_share(tmp_path):
    path, _ = coarse(tmp_path, tilted(10, 0, 0, 0), (15, 9))  # 90 of 190 columns
    with Overlay(path, scene(tmp_path), BY_CODE, 10) as overlay:
        assert overlay.covered == pytest.approx(90 / 190)
    path, codes = coarse(tmp_path, tilted(10, 0, 0, 0), (15, 19))
    codes[:6] = 99
    path, _ = coarse(tmp_path, tilted(10, 0, 0, 0), None, codes=codes, nodata=99)
    with Overlay(path, scene(tmp_path), BY_CODE, 10) as overlay:
        assert overlay.covered == pytest.approx(9 / 15)


def refused(tmp_path, match, error=Refused, header=None, n=10):
    with pytest.raises(error, match=match) as caught:
        Overlay(tmp_path / "nlcd.tif", header or scene(tmp_path), BY_CODE, n)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_used_is_one_line(tmp_path):
    grid = tilted(10, 0, 0, 0)
    _, codes = coarse(tmp_path, None, (15, 19), epsg=None)
    refused(tmp_path, "nlcd.tif: has no georeference")
    coarse(tmp_path, grid, (15, 19), epsg=5070)
    refused(tmp_path, "is in EPSG:5070.*gdalwarp -t_srs EPSG:26918 -tr 1 1 -r near")
    coarse(tmp_path, grid, (15, 19))
    refused(tmp_path, "scene.tif: has no georeference", header=scene(tmp_path, None, None))
    codes[3, 3] = 77
    coarse(tmp_path, grid, None, codes=codes)
    refused(tmp_path, r"codes without a class: 77 \(1 times\)", Refused)
    coarse(tmp_path, grid, None, codes=np.zeros_like(codes))
    refused(tmp_path, "has no class anywhere over.*gdalwarp")
    coarse(tmp_path, tilted(10, 5000, 0, 0), (15, 19))
    refused(tmp_path, "has no class anywhere over")
    coarse(tmp_path, grid, None, codes=np.zeros((15, 19, 3), np.uint8))
    refused(tmp_path, "a label has one")
    coarse(tmp_path, tilted(1, 0.5, 0, 0), (HEIGHT, WIDTH))
    refused(tmp_path, "does not lie on them; align it: gdalwarp")
