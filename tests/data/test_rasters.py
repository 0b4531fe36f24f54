"""What rasterio is asked: where rasters lie over each other in any system, how wide their pixels are, what is void."""

import sys

import geotiffs
import numpy as np
import pytest
import rasterio
import rasterio.warp
from made_scenes import LOW2HIGH

from data import tile_io
from data.cells import region_index
from data.prepare.__main__ import main
from data.rasters import Raster, grids_under, ground_size, system_tags
from data.tiles import TileSet
from data.voids import doubtful_alpha
from runtime.errors import Refused

ALBERS = "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +x_0=0 +y_0=0 +ellps=GRS80 +units=m +no_defs"


def cut_over(folder, coarse, crs, pixel, size=(512, 512), place=None):
    """A scene of this pixel size over the middle of a coarse raster, cut by the program -> its tile set and image."""
    with rasterio.open(coarse) as raster:
        x, y = place or (raster.transform * (raster.width / 2, raster.height / 2))
        (x,), (y,) = rasterio.warp.transform(raster.crs, crs, [x], [y])
    image = np.random.default_rng(0).integers(1, 255, (*size, 3), np.uint8)
    geotiffs.write(folder / "image.tif", image, (pixel, 0, round(x), 0, -pixel, round(y)), crs)
    (folder / "scenes.csv").write_text(f"region,split,image,low\nct,train,image.tif,{coarse.name}\n")
    if not (folder / coarse.name).exists():
        (folder / coarse.name).symlink_to(coarse)
    words = ["--scenes", str(folder / "scenes.csv"), "--taxonomy", str(LOW2HIGH), "--no-filter", "--workers", "1"]
    assert main([str(folder / "tiles"), *words]) == 0
    return folder / "tiles", folder / "image.tif"


def wrong_pixels(tiles, image, coarse):
    """How many pixels of the tiles read another code than PROJ finds, and how many there are."""
    true, wrong, tiles = geotiffs.codes_by_proj(image, coarse), 0, TileSet(tiles, "all")
    size = tiles.description.tile_px
    for i, row in enumerate(tiles.rows):
        top, left = (size * int(part) for part in row["tile"].split("_")[-2:])
        codes = tile_io.read(tiles.root / row["low"]).pixels.ravel()
        index = region_index(tiles.load(i).cells, size, size)
        wrong += int((codes[index] != true[top : top + size, left : left + size]).sum())
    return wrong, len(tiles) * size**2


@pytest.mark.parametrize("crs, pixel, n", [("EPSG:26918", 1.0, 30), ("EPSG:26918", 0.6, 50), ("EPSG:3857", 1.0, 40.1)])
def test_each_pixel_of_a_tile_knows_its_true_cell_of_raw_nlcd(real, tmp_path, crs, pixel, n, capsys):
    coarse = real / "nlcd" / "nlcd_nw_connecticut.tif"
    tiles, image = cut_over(tmp_path, coarse, crs, pixel, size=(1024, 1536))
    wrong, count = wrong_pixels(tiles, image, coarse)
    assert count == 6 * 512**2 and wrong <= 1e-4 * count
    scale = TileSet(tiles, "train").description.scale
    assert scale == pytest.approx(n, rel=0.02)
    assert f"n = {scale:g}: coarse cells of 30 m on pixels of" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["img", "user-defined"])
def test_raw_nlcd_may_be_an_img_and_its_albers_may_have_no_code(real, tmp_path, kind):
    coarse = tmp_path / ("nlcd.img" if kind == "img" else "nlcd.tif")
    with rasterio.open(real / "nlcd" / "nlcd_nw_connecticut.tif") as raster:
        crs = raster.crs if kind == "img" else ALBERS
        codes, place = raster.read(1), tuple(raster.transform)[:6]
    geotiffs.write(coarse, codes, place, crs, 255, driver="HFA" if kind == "img" else "GTiff")
    wrong, count = wrong_pixels(*cut_over(tmp_path, coarse, "EPSG:26918", 1.0, size=(1024, 1024)), coarse)
    assert wrong <= 1e-4 * count


@pytest.mark.parametrize("crs, lon, lat", [("EPSG:26910", -121.5, 38.5), ("EPSG:26914", -97.5, 30.2)])
def test_true_cells_in_other_zones(tmp_path, crs, lon, lat):
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", "EPSG:5070", [lon], [lat])
    left, top = -2493045.0 + 30 * ((x + 2493045) // 30 - 40), 3310005.0 - 30 * ((3310005 - y) // 30 - 40)
    codes = np.random.default_rng(1).choice([11, 21, 22, 41, 82], (80, 80)).astype(np.uint8)
    coarse = geotiffs.write(tmp_path / "nlcd.tif", codes, (30, 0, left, 0, -30, top), "EPSG:5070")
    wrong, count = wrong_pixels(*cut_over(tmp_path, coarse, crs, 1.0), coarse)
    assert wrong <= 1e-4 * count


def test_a_window_over_which_cells_bend_is_refused(tmp_path):
    geotiffs.write(tmp_path / "a.tif", np.zeros((400, 400), np.uint8), (100, 0, 4e5, 0, -100, 4.3e6), "EPSG:26917")
    geotiffs.write(tmp_path / "b.tif", np.zeros((9, 9), np.uint8), (0.01, 0, -83, 0, -0.01, 39), "EPSG:4326")
    with Raster(tmp_path / "a.tif") as image, Raster(tmp_path / "b.tif") as other:
        assert len(grids_under(image, other, [(0, 0, 10, 10), (9, 9, 10, 10)])) == 2
        with pytest.raises(Refused, match="b.tif: over a window of 400 x 400 px of .*a.tif its cells bend"):
            grids_under(image, other, [(0, 0, 400, 400)])
        assert len(grids_under(image, other, [(0, 0, 400, 400)], fit_px=np.inf)) == 1  # of a label that is warped


@pytest.mark.parametrize("crs, at, pixel, metres", [
    ("EPSG:3857", (10.0, 40.0), 1.0, 0.7656),
    ("EPSG:3857", (10.0, 60.0), 1.0, 0.5008),
    ("EPSG:5070", (-72.0, 42.0), 30.0, 30.0),
    ("EPSG:4326", (-83.0, 39.5), 1e-5, 0.9772),  # 0.86 m by 1.11 m
    ("EPSG:32660", (179.9997, 52.0), 1.0, 1.0),  # across the antimeridian
    ("EPSG:2272", (-76.0, 40.5), 3.2808333, 1.0),  # Pennsylvania's plane, in feet
])  # fmt: skip
def test_the_size_of_a_pixel_is_that_on_the_ground(tmp_path, crs, at, pixel, metres):
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [at[0]], [at[1]])
    geotiffs.write(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), (pixel, 0, x, 0, -pixel, y), crs)
    with Raster(tmp_path / "a.tif") as raster:
        assert ground_size(raster) == pytest.approx(metres, abs=2e-4)


def test_a_tile_says_its_system_as_gdal_writes_it(tmp_path):
    crs = rasterio.crs.CRS.from_string(ALBERS)
    tile_io.write(tmp_path / "a.tif", np.zeros((32, 32), np.uint8), affine=(2, 0, 5, 0, -2, 9), system=system_tags(crs))
    pixels, file = geotiffs.read(tmp_path / "a.tif")
    assert file.crs == crs and tuple(file.transform)[:6] == (2, 0, 5, 0, -2, 9)


def test_near_infrared_that_is_tagged_as_alpha_hides_nothing(real):
    image = next((real / "naip215").glob("*/*/img/*.tif"))
    with Raster(image) as raster:
        assert raster.alpha == 3 and doubtful_alpha(raster, 3) and not doubtful_alpha(raster, 4)
        pixels, void = raster.window(0, 0, 256, 256, 4)
        assert pixels.shape == (256, 256, 4) and void is None
        clear = pixels[..., 3] == 0
        pixels, void = raster.window(0, 0, 256, 256, 3)
        assert pixels.shape == (256, 256, 3) and (not clear.any() if void is None else np.array_equal(void, clear))


def test_nodata_values_of_all_bands_hide_pixels_and_a_file_of_several_rasters_is_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 3, (64, 64, 3), np.uint8)
    with rasterio.open(geotiffs.write(tmp_path / "a.tif", pixels, geotiffs.UTM, 26917), "r+") as file:
        file.update_tags(NODATA_VALUES="1 1 1")
    with Raster(tmp_path / "a.tif") as raster:
        assert np.array_equal(raster.window(0, 0, 64, 64, 3)[1], (pixels == 1).all(axis=-1))
    facts = {"driver": "GPKG", "width": 64, "height": 64, "count": 3, "dtype": "uint8", "crs": 26917}
    for name in "ab":
        more = {"RASTER_TABLE": name, "APPEND_SUBDATASET": "YES", "transform": rasterio.Affine(*geotiffs.UTM)}
        rasterio.open(tmp_path / "c.gpkg", "w", **facts, **more).close()
    with pytest.raises(Refused, match="c.gpkg: holds several rasters; translate one: .*c.gpkg:a, .*c.gpkg:b"):
        Raster(tmp_path / "c.gpkg")


def test_without_rasterio_a_command_that_needs_it_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert main([str(tmp_path / "out"), "--chesapeake", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.endswith("pip install -r requirements-scenes.txt\n") and line.count("\n") == 1
