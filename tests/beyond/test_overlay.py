"""A coarse raster over a scene: the same cells window by window, on any grid and in any coordinate system."""

import math
from contextlib import ExitStack

import numpy as np
import pytest
import rasterio
from geotiffs import codes_by_proj, write
from mapping import UTM, save, tilted
from rasterio.transform import Affine
from rasterio.warp import transform

from beyond.overlay import Overlay
from data.cells import cell_index
from data.prepare.__main__ import main as prepare
from data.rasters import Raster, system_tags
from data.taxonomy import load_taxonomy
from data.tiles import TileSet
from runtime.errors import Refused

BY_CODE = {0: 255, 11: 0, 21: 1, 22: 2, 41: 3}
HEIGHT, WIDTH = 150, 190
ALBERS = "+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +datum=NAD83"  # as EPSG:5070, without its name


@pytest.fixture
def lay(tmp_path):
    """A function that lays codes over a scene of HEIGHT x WIDTH px."""
    with ExitStack() as stack:

        def overlay(codes, affine, n=12, scene_place=None, side=1024, **more):
            scene = save(tmp_path / "scene.tif", np.ones((HEIGHT, WIDTH), np.uint8), **(scene_place or {}))
            coarse = save(tmp_path / "nlcd.tif", codes, affine=affine, **more)
            return Overlay(*(stack.enter_context(Raster(path)) for path in (coarse, scene)), BY_CODE, n, side=side)

        yield overlay


def random_codes(*shape):
    return np.random.default_rng(0).choice([11, 21, 22, 41], shape).astype(np.uint8)


def labels_of(window, height, width):
    """(height, width) labels of a window's pixels; IGNORE where no cell lies."""
    labels, to_cell = window
    index = cell_index(to_cell, labels.shape, height, width)
    return np.where(index < 0, 255, labels.ravel()[index])


@pytest.mark.parametrize("affine, shape", [(tilted(13, -40, 70, 12.7), (24, 24)), (tilted(10, -4, 7, 0), (17, 20))])
def test_windows_see_the_cells_of_the_raster(lay, affine, shape):
    codes = random_codes(*shape)
    inverse, overlay = ~Affine(*affine), lay(codes, affine)
    assert overlay.cell_px == pytest.approx(abs(affine[0] * affine[4] - affine[1] * affine[3]))
    for row, col, height, width in ((0, 0, 64, 64), (64, 96, 96, 128)):  # the latter ends beyond the scene
        labels = labels_of(overlay.window(row, col, height, width), height, width)
        for i in range(0, height, 7):
            for j in range(0, width, 5):
                q, p = (math.floor(round(v, 6)) for v in inverse * (4e5 + col + j + 0.5, 4.1e6 - row - i - 0.5))
                inside = 0 <= p < shape[0] and 0 <= q < shape[1]
                assert labels[i, j] == (BY_CODE[codes[p, q]] if inside else 255)


def test_a_raster_on_the_scenes_pixels_becomes_blocks_that_windows_agree_on(lay):
    codes = np.kron(random_codes(13, 16), np.ones((12, 12), np.uint8))[:HEIGHT, :WIDTH]
    overlay = lay(codes, UTM, 12.0)
    assert overlay.cell_px == 144
    for row, col in ((0, 0), (32, 64), (96, 96)):
        found = labels_of(overlay.window(row, col, 64, 96), 64, 96)[: HEIGHT - row, : WIDTH - col]
        expected = np.array([BY_CODE.get(code, 255) for code in range(256)])[codes]
        assert np.array_equal(found, expected[row : row + 64, col : col + 96])


def test_a_part_of_the_scene_is_told_by_its_share(lay, capsys):
    codes = random_codes(15, 19)
    lay(codes, tilted(10))
    assert "note:" not in capsys.readouterr().out
    codes[:6] = 99
    lay(codes, tilted(10), nodata=99)
    assert "has classes over 60.0%" in capsys.readouterr().out


def test_what_cannot_be_used_is_one_line(lay, monkeypatch):
    def refused(match, *words, **more):
        with pytest.raises(Refused, match=match) as caught:
            lay(*words, **more)
        assert "\n" not in str(caught.value)

    grid, codes = tilted(10), random_codes(15, 19)
    refused("nlcd.tif: is 15 x 19 px without a common georeference", codes, None, system=())
    for more in ({"system": ()}, {"scene_place": {"affine": None, "system": ()}}):
        refused("has no coordinate system, and .* has one; --same-crs", codes, grid, **more)
    refused("has no class anywhere over", np.zeros_like(codes), grid)
    refused("has no class anywhere over", codes, tilted(10, 5000, 0, 0))
    refused("a label has one", np.zeros((15, 19, 3), np.uint8), grid)
    refused("but not the same ones", random_codes(HEIGHT, WIDTH), tilted(1, 0.5, 0, 0))
    wide, degrees = {"affine": (300, 0, 4e5, 0, -300, 4.1e6)}, system_tags(rasterio.crs.CRS.from_epsg(4326))
    bent = {"affine": (0.5, 0, -78, 0, -0.5, 39), "system": degrees, "scene_place": wide}
    refused("its cells bend by more than 0.1 px; take a smaller --window", random_codes(8, 8), **bent)
    assert lay(random_codes(8, 8), **bent, side=32).cell_px > 100**2
    codes[3, 3] = 77
    refused(r"codes without a class: 77 \(1 times\)", codes, grid)
    monkeypatch.delitem(BY_CODE, 0)
    codes[3, 3] = 255  # which then stands for no code, beyond the raster's edge
    refused(r"codes without a class: 255 \(1 times\)", codes, grid)


@pytest.mark.parametrize("driver", ["GTiff", "HFA"])
@pytest.mark.parametrize("system", ["EPSG:5070", ALBERS])
@pytest.mark.parametrize("scene_system, gsd, corner", [
    ("EPSG:26918", 1.0, (650_000, 4_620_000)),
    ("EPSG:26918", 0.6, (651_234, 4_619_321)),
    ("EPSG:26910", 1.0, (550_000, 5_300_000)),
    ("EPSG:26914", 1.0, (621_000, 3_350_000)),
    ("EPSG:3857", 1.3, (-8_130_000, 5_100_000)),
])  # fmt: skip
def test_cells_of_another_system_are_those_of_each_pixel_by_proj(tmp_path, scene_system, gsd, corner, system, driver):
    side, (left, top) = 1024, corner
    image, place = np.ones((side, side), np.uint8), (gsd, 0, left, 0, -gsd, top)
    scene = write(tmp_path / "scene.tif", image, place, scene_system)
    middle = transform(scene_system, system, [left + gsd * side / 2], [top - gsd * side / 2])
    grid = (30, 0, round(middle[0][0] / 30) * 30 - 3000, 0, -30, round(middle[1][0] / 30) * 30 + 3000)
    coarse = tmp_path / ("nlcd.img" if driver == "HFA" else "nlcd.tif")
    write(coarse, random_codes(200, 200), grid, system, driver=driver)
    with Raster(coarse) as coarse, Raster(scene) as scene:
        overlay = Overlay(coarse, scene, BY_CODE, 30)
        whole = labels_of(overlay.window(0, 0, side, side), side, side)
        parts = [labels_of(overlay.window(row, col, 512, 512), 512, 512) for row in (0, 512) for col in (0, 512)]
    expected = np.array([BY_CODE.get(code, 255) for code in range(256)])[codes_by_proj(scene.path, coarse.path)]
    tiles = expected.reshape(2, 512, 2, 512).swapaxes(1, 2).reshape(4, 512, 512)
    assert (np.stack(parts) == tiles).mean() >= 0.9999  # as data.prepare's tiles
    assert (whole == expected).mean() >= 0.9996  # one affine over four times the area


@pytest.mark.parametrize("gsd", [1.0, 0.6])
def test_over_real_nlcd_predict_and_the_build_see_the_same_cells_as_proj(tmp_path, real, gsd):
    nlcd, table = real / "nlcd" / "nlcd_nw_connecticut.tif", "configs/taxonomies/low2high.yaml"
    with rasterio.open(nlcd) as file:
        x, y = transform(file.crs, "EPSG:26918", *([v] for v in file.xy(700, 1000)))
    low = load_taxonomy(table).low
    scene = save(tmp_path / "scene.tif", np.ones((1100, 1100, 3), np.uint8), affine=(gsd, 0, x[0], 0, -gsd, y[0]))
    with Raster(nlcd) as coarse, Raster(scene) as image:
        overlay = Overlay(coarse, image, {**low, 255: 255}, 30)
        found = labels_of(overlay.window(0, 0, 1024, 1024), 1024, 1024)
        exact = codes_by_proj(image.path, nlcd)[:1024, :1024]
    merged = np.vectorize({**low, 255: 255}.get)(exact)
    assert (found == merged).mean() >= 0.9999
    (tmp_path / "nlcd.tif").symlink_to(nlcd)
    (tmp_path / "scenes.csv").write_text("region,image,high,low\na,scene.tif,,nlcd.tif\n")
    prepare([str(tmp_path / "set"), "--scenes", str(tmp_path / "scenes.csv"), "--taxonomy", table, "--no-filter"])
    tiles = TileSet(tmp_path / "set", "all")
    for i, row in enumerate(tiles.rows):
        top, left = (512 * int(part) for part in row["tile"].split("_")[-2:])
        cells = tiles.load(i).cells
        of_tile = labels_of((cells.labels, cells.to_cell), 512, 512)
        assert (of_tile == found[top : top + 512, left : left + 512]).mean() >= 0.9999
    assert len(tiles.rows) == 4
