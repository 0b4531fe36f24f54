"""GeoTIFFs: the same pixels and tags as rasterio reads, windows, writing, and files that are broken."""

import itertools
import logging
import math
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from fuzz_geotiff import damaged, look_at
from geokeys import SCALE_AND_TIE, albers

from data.rasters import geotiff
from data.rasters.geotiff import open_raster, read, write
from data.rasters.geotiff_header import gsd
from runtime.errors import Refused

pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")  # says rasterio of most made-up files
ROOT = Path(geotiff.__file__).parents[2]
REAL = os.environ.get("LOW2HIGH_REAL")
FORMATS = sorted(Path(REAL, "formats").glob("*.tif")) if REAL else []
SOUND = [path for path in FORMATS if "corrupt" not in path.name]
NORTH_UP = (2.0, 0.0, 500_000.0, 0.0, -3.0, 4_400_000.0)
TILTED = (3.0, 1.0, 100.0, 1.0, -3.0, 50.0)
GEO_KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32617)


def pixels(height=45, width=70, bands=3, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (height, width, bands)).astype(dtype)


def written(path, array, **options):
    """A TIFF as others write them; returns its path."""
    tifffile.imwrite(path, array, metadata=None, **options)
    return path


def keys(*triples):
    """GeoKeyDirectory as an extratag."""
    values = [1, 1, 0, len(triples)]
    for key, value in triples:
        values += [key, 0, 1, value]
    return (34735, "H", len(values), tuple(values), True)


def with_gdal(path, array, **options):
    """A TIFF as GDAL writes it; returns its path."""
    rasterio = pytest.importorskip("rasterio")
    height, width, bands = array.shape
    shape = {"height": height, "width": width, "count": bands, "dtype": array.dtype}
    try:
        with rasterio.open(path, "w", driver="GTiff", **shape, **options) as file:
            file.write(np.moveaxis(array, -1, 0))
    except rasterio.errors.RasterioError as error:
        pytest.skip(f"this GDAL does not write it: {error}")
    return path


def assert_windows_are_parts_of_the_whole(path):
    whole, header = read(path)
    rng = np.random.default_rng(0)
    with open_raster(path) as raster:
        for _ in range(10):
            row, col = int(rng.integers(header.height)), int(rng.integers(header.width))
            height, width = int(rng.integers(1, header.height - row + 1)), int(rng.integers(1, header.width - col + 1))
            window = raster.window(row, col, height, width)
            assert type(window) is np.ndarray and window.dtype == header.dtype and window.flags.writeable
            np.testing.assert_array_equal(window, whole[row : row + height, col : col + width])


def assert_equals_rasterio(path):
    rasterio = pytest.importorskip("rasterio")
    array, header = read(path)
    with rasterio.open(path) as file:
        assert (header.height, header.width, header.bands) == (*file.shape, file.count)
        np.testing.assert_array_equal(array, np.moveaxis(file.read(), 0, -1))
        assert header.dtype == array.dtype == file.dtypes[0]
        np.testing.assert_equal(header.nodata, file.nodata)  # nan equals nan
        transform = tuple(file.transform)[:6]
        if header.transform is None:
            assert transform == (1, 0, 0, 0, 1, 0)
        else:
            np.testing.assert_allclose(header.transform, transform, rtol=1e-14)
        if header.epsg is not None and not file.gcps[0]:
            assert file.crs.to_epsg() == header.epsg
        if header.palette is not None:
            colormap = list(file.colormap(1).values())
            np.testing.assert_array_equal(header.palette, [color[:3] for color in colormap])


# Real files.


@pytest.mark.skipif(not REAL, reason="LOW2HIGH_REAL is unset")
def test_real_files_are_there():
    assert len(SOUND) >= 10


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.name)
def test_real_file_equals_rasterio(path):
    assert_equals_rasterio(path)


@pytest.mark.parametrize("path", SOUND, ids=lambda path: path.name)
def test_windows_of_a_real_file_are_parts_of_the_whole(path):
    assert_windows_are_parts_of_the_whole(path)


@pytest.mark.skipif(not REAL, reason="LOW2HIGH_REAL is unset")
@pytest.mark.parametrize(
    "name, epsg, nodata, first",
    [
        ("m_3907833_nw_17_1_naip-new", 26917, None, (23.592307692307692, 0, 671664, 0, -29.46153846153846, 4374596)),
        ("opengeos__naip_20200831", 26914, 0, (5, 0, 485899, 0, -5, 5209246)),
        ("stars__geomatrix", 32611, None, (1.5, -5, 1841001.75, -5, -1.5, 1144003.25)),  # a point is half a pixel in
        ("stars__lc_nlcd_palette", None, None, (3000, 0, 3092415, 0, -3000, 59415)),  # user-defined Albers
        ("riotiler__cog_gcps_ovr", 4326, 0, None),  # ground control points are no affine
    ],
)
def test_real_tags_read_without_rasterio(name, epsg, nodata, first):
    with open_raster(Path(REAL, "formats", name + ".tif")) as raster:
        header = raster.header
    assert (header.epsg, header.nodata) == (epsg, nodata)
    assert header.transform == (None if first is None else pytest.approx(first, rel=1e-14))


@pytest.mark.skipif(not REAL, reason="LOW2HIGH_REAL is unset")
def test_truncated_real_file_is_refused_by_name():
    with pytest.raises(Refused, match="rasterio__corrupt.tif: truncated"):
        read(Path(REAL, "formats", "rasterio__corrupt.tif"))


# What GDAL writes.

GDAL_LAYOUTS = {
    "strips of seven rows": {"blockysize": 7},
    "tiles": {"tiled": True, "blockxsize": 32, "blockysize": 16},
    "planes in tiles": {"tiled": True, "blockxsize": 32, "blockysize": 16, "interleave": "band"},
    "planes": {"interleave": "band"},
    "big-endian": {"endianness": "big"},
    "BigTIFF": {"bigtiff": "yes"},
}


@pytest.mark.parametrize("layout", GDAL_LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("compress", ["none", "lzw", "deflate", "packbits", "zstd"])
def test_gdal_layouts_and_codecs(tmp_path, compress, dtype, layout):
    options = dict(GDAL_LAYOUTS[layout], compress=compress)
    if compress in ("lzw", "deflate", "zstd"):
        options["predictor"] = 3 if dtype == "float32" else 2
    path = with_gdal(tmp_path / "a.tif", pixels(dtype=dtype), **options)
    assert_equals_rasterio(path)
    assert_windows_are_parts_of_the_whole(path)


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "rgb", "alpha": "yes", "bands": 4},
        {"nbits": 4, "compress": "lzw"},
        {"nbits": 12, "dtype": "uint16"},
        {"compress": "jpeg", "photometric": "rgb", "tiled": True, "blockxsize": 32, "blockysize": 32},
        {"compress": "webp", "webp_lossless": "yes", "tiled": True},
        {"compress": "lerc", "dtype": "float32"},
        {"dtype": "float32", "nodata": math.nan},
        {"dtype": "float32", "nodata": 0.1},
        {"dtype": "int16", "nodata": -9999},
    ],
    ids=str,
)
def test_gdal_specials(tmp_path, options):
    options = dict(options)
    array = pixels(bands=options.pop("bands", 3), dtype=options.pop("dtype", "uint8"))
    path = with_gdal(tmp_path / "a.tif", array & 15 if options.get("nbits") == 4 else array, **options)
    assert_equals_rasterio(path)
    assert_windows_are_parts_of_the_whole(path)


def test_subsampled_jpeg_comes_as_rgb_near_to_gdals(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(96))[..., None] + np.array([0, 30, 60])
    path = with_gdal(
        tmp_path / "a.tif", smooth.astype(np.uint8), compress="jpeg", photometric="ycbcr", tiled=True, blockxsize=32,
        blockysize=32, jpeg_quality=95,
    )  # fmt: skip
    array, header = read(path)
    assert header.bands == 3
    assert np.abs(array.astype(int) - smooth).max() <= 6  # lossy, and libraries differ in how they upsample colour
    assert_windows_are_parts_of_the_whole(path)


@pytest.mark.parametrize("nodata, expected", [(None, 0), (9, 9)])
def test_tiles_left_out_are_nodata_or_zero(tmp_path, nodata, expected):
    array = np.full((100, 100, 2), expected, np.uint8)
    array[40:50, 40:50] = 7
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True, "nodata": nodata}
    path = with_gdal(tmp_path / "a.tif", array, **options)
    with tifffile.TiffFile(path) as file:
        assert 0 in file.pages[0].databytecounts
    np.testing.assert_array_equal(read(path)[0], array)
    assert_windows_are_parts_of_the_whole(path)


def test_overviews_and_masks_are_passed_over(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = with_gdal(tmp_path / "a.tif", pixels(128, 128), tiled=True, blockxsize=64, blockysize=64)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.eye(128, dtype=bool))
        file.build_overviews([2, 4])
    assert_equals_rasterio(path)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_a_mask_of_any_compression_tells_where_there_are_no_data(tmp_path, compression, kind, planes):
    held = np.random.default_rng(1).random((45, 70)) > 0.3
    array = pixels()
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        config = {"planarconfig": "separate"} if planes else {}
        tiff.write(np.moveaxis(array, -1, 0) if planes else array, photometric="rgb", metadata=None, **config)
        tiff.write(array[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        tiff.write(held[::2, ::2], subfiletype=5, metadata=None)
        mask, use = (held, 4) if kind is bool else (held * np.uint8(255), 2)  # tifffile writes no mask of 8 bits
        tiff.write(mask, subfiletype=use, compression=compression, rowsperstrip=8, metadata=None)
        tiff.write(array, photometric="rgb", metadata=None)
        tiff.write(~held, subfiletype=4, metadata=None)  # of the image before it
    with_tag(tmp_path / "a.tif", 254, 4, page=3)
    with open_raster(tmp_path / "a.tif") as raster:
        np.testing.assert_array_equal(raster.read(), array)
        np.testing.assert_array_equal(raster.void(), ~held)
        np.testing.assert_array_equal(raster.void(11, 5, 20, 9), ~held[11:31, 5:14])
        assert raster.header.masked


def test_a_mask_as_gdal_writes_it_is_read(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path, held = with_gdal(tmp_path / "a.tif", pixels(128, 128), tiled=True, blockxsize=64, blockysize=64), np.eye(128)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(held.astype(bool))
        file.build_overviews([2, 4])
    with open_raster(path) as raster:
        np.testing.assert_array_equal(raster.void(), held == 0)


@pytest.mark.parametrize(
    "bands, extra, alpha",
    [(4, ("unassalpha",), 3), (4, ("assocalpha",), 3), (4, ("unspecified",), None), (5, (0, 2), 4), (5, (2, 0), 3)],
)
def test_the_band_that_is_tagged_as_alpha_is_known(tmp_path, bands, extra, alpha):
    path = written(tmp_path / "a.tif", pixels(bands=bands), photometric="rgb", extrasamples=extra)
    with open_raster(path) as raster:
        assert raster.header.alpha == alpha and raster.header.bands == bands and raster.void() is None


# What else is out there.


def test_first_full_resolution_image_is_read(tmp_path):
    array = pixels()
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(array[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)  # a thumbnail
        file.write(array[..., 0] > 9, photometric="minisblack", subfiletype=4, metadata=None)  # a mask
        file.write(array, photometric="rgb", metadata=None, extratags=SCALE_AND_TIE)
    found, header = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(found, array)
    assert header.transform == NORTH_UP


@pytest.mark.parametrize("rows", [1, 8, 13])
def test_bit_packed_pixels_become_zero_and_one(tmp_path, rows):
    array = pixels(bands=1)[..., 0] > 100
    found, header = read(written(tmp_path / "a.tif", array, rowsperstrip=rows))
    assert header.dtype == np.uint8
    np.testing.assert_array_equal(found[..., 0], array)


@pytest.mark.parametrize(
    "text, dtype, expected",
    [
        (None, "uint8", None),
        ("0", "uint8", 0),
        ("255", "uint8", 255),
        (" 7.0 ", "uint8", 7),
        ("256", "uint8", None),
        ("-1", "uint8", None),
        ("0.5", "uint8", None),
        ("nan", "uint8", None),
        ("none", "uint8", None),
        ("", "uint8", None),
        ("-9999", "int16", -9999),
        ("18446744073709551615", "uint64", 2**64 - 1),
        ("1,5", "float32", 1.5),
        ("nan", "float32", math.nan),
        ("-1.#IND", "float32", math.nan),
        ("-3.4028234663852886e+38", "float32", float(np.finfo(np.float32).min)),
        ("-1.7976931348623157e+308", "float32", None),
        ("inf", "float32", math.inf),
    ],
)
def test_nodata_is_a_value_that_a_pixel_can_hold(tmp_path, text, dtype, expected):
    tags = [] if text is None else [(42113, "s", 0, text, True)]
    header = read(written(tmp_path / "a.tif", pixels(dtype=dtype, bands=1)[..., 0], extratags=tags))[1]
    np.testing.assert_equal(header.nodata, expected)


@pytest.mark.parametrize(
    "tags, expected",
    [
        ([], None),
        (SCALE_AND_TIE, NORTH_UP),
        (SCALE_AND_TIE[:1], None),
        (SCALE_AND_TIE[1:], None),
        ([(33550, "d", 3, (2.0, -3.0, 0.0), True), SCALE_AND_TIE[1]], NORTH_UP),  # as GDAL
        ([SCALE_AND_TIE[0], (33922, "d", 6, (10, 20, 0, 500_020.0, 4_399_940.0, 0), True)], NORTH_UP),
        ([(34264, "d", 16, (3, 1, 0, 100, 1, -3, 0, 50, *[0] * 7, 1), True)], TILTED),
        ([(34264, "d", 16, (3, 1, 0, 100, 6, 2, 0, 50, *[0] * 7, 1), True)], None),  # pixels without area
        ([*SCALE_AND_TIE, keys((1025, 2))], (2, 0, 499_999, 0, -3, 4_400_001.5)),
    ],
    ids=["none", "scale, tie", "scale", "tie", "scale < 0", "tie inside", "matrix", "singular", "point"],
)
def test_georeference(tmp_path, tags, expected):
    header = read(written(tmp_path / "a.tif", pixels(), photometric="rgb", extratags=tags))[1]
    assert header.transform == expected


@pytest.mark.parametrize(
    "triples, epsg, metres",
    [
        ([(1024, 1), (3072, 32617)], 32617, 1.0),
        ([(1024, 1), (2048, 4269), (3072, 26917)], 26917, 1.0),
        ([(1024, 2), (2048, 4326)], 4326, None),
        ([(1024, 1), (2048, 4269), (3072, 32767)], None, 1.0),
        ([(1024, 2), (2048, 32767)], None, None),
        ([(1024, 1), (3072, 2263), (3076, 9003)], 2263, 1200 / 3937),
        ([], None, 1.0),
    ],
)
def test_coordinate_system(tmp_path, triples, epsg, metres):
    tags = [*SCALE_AND_TIE, keys(*triples)]
    header = read(written(tmp_path / "a.tif", pixels(), photometric="rgb", extratags=tags))[1]
    assert (header.epsg, header.unit_m) == (epsg, metres)
    assert gsd(header) == (None if metres is None else pytest.approx(math.sqrt(6) * metres))


def test_gsd_is_none_without_a_georeference(tmp_path):
    assert gsd(read(written(tmp_path / "a.tif", pixels(), photometric="rgb"))[1]) is None


@pytest.mark.parametrize("options", [{"rowsperstrip": 5}, {"tile": (16, 32)}], ids=["strips", "tiles"])
def test_a_window_decodes_only_what_it_touches_and_only_once(tmp_path, monkeypatch, options):
    path = written(tmp_path / "a.tif", pixels(64, 64), photometric="rgb", compression="zlib", **options)
    pread, read_from = os.pread, []
    monkeypatch.setattr(os, "pread", lambda fd, size, at: read_from.append(at) or pread(fd, size, at))
    with open_raster(path) as raster:
        raster.window(20, 3, 4, 4)
        raster.window(20, 8, 4, 4)
    assert len(read_from) == 1


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(geotiff, "CACHE_BYTES", 5000)
    path = written(tmp_path / "a.tif", pixels(64, 64), photometric="rgb", compression="zlib", tile=(16, 16))
    with open_raster(path) as raster:
        for row, col in itertools.product(range(0, 64, 16), range(0, 64, 16)):
            raster.window(row, col, 16, 16)
        assert sum(segment.nbytes for segment in raster._segments.values()) <= 5000


def test_readers_keep_the_order_and_are_never_far_ahead(tmp_path, monkeypatch):
    array, decoded = pixels(160, 170), geotiff.Raster._segment
    write(tmp_path / "scene.tif", array, tile_px=16)
    begun, taken = [], []

    def slow(raster, index):
        begun.append(index)
        time.sleep(0.001 * (index % 5))
        return decoded(raster, index)

    def counted(raster, indices, keep):
        for segment in in_order(raster, indices, keep):
            taken.append(len(begun))
            yield segment

    in_order = geotiff.Raster._decoded
    monkeypatch.setattr(geotiff.Raster, "_segment", slow)
    monkeypatch.setattr(geotiff.Raster, "_decoded", counted)
    monkeypatch.setattr(geotiff, "CACHE_BYTES", 20 * 16 * 16 * 3)
    with open_raster(tmp_path / "scene.tif", readers=3) as raster:
        assert np.array_equal(raster.window(0, 0, 160, 170), array)
        assert len(begun) == len({*begun}) == 110
        most = max(ahead - count for count, ahead in enumerate(taken, 1))
        assert 0 < most <= 5  # beside the one that is taken
        assert raster._kept_bytes <= geotiff.CACHE_BYTES
        assert np.array_equal(raster.window(100, 3, 60, 160), array[100:, 3:163])  # some of it from the cache


def scene_of_one_tile(path, side, repeated=True):
    """A zlib scene of side x side x 3 px whose tiles are all the same."""
    tile = zlib.compress(np.full((512, 512, 3), 5, np.uint8).tobytes())
    options = {"tile": (512, 512), "compression": "zlib", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, iter([tile] * math.ceil(side / 512) ** 2), shape=(side, side, 3), dtype="u1", **options)
    return path


def test_a_large_scene_that_compresses_well_opens_and_is_windowed(tmp_path):
    with open_raster(scene_of_one_tile(tmp_path / "a.tif", 20_000)) as raster:
        assert (raster.window(19_000, 19_500, 1000, 500) == 5).all()


def test_a_whole_read_beyond_the_bound_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(geotiff, "READ_BYTES", 2**20)
    with pytest.raises(Refused, match="a.tif: claims 0.0 GiB of pixels; read it by window"):
        read(scene_of_one_tile(tmp_path / "a.tif", 1000))


# Writing.


@pytest.mark.parametrize("compression", ["zlib", "none"])
@pytest.mark.parametrize("transform", [NORTH_UP, TILTED, (1.0, 0.0, 5.0, 0.0, 1.0, 5.0)], ids=["up", "tilted", "south"])
@pytest.mark.parametrize(
    "height, width, bands, dtype",
    [(45, 70, 3, "uint8"), (70, 45, 4, "uint16"), (33, 20, 1, "int16"), (20, 33, 2, "float32"), (1, 1, 4, "uint8")],
)
def test_what_is_written_is_read_back(tmp_path, height, width, bands, dtype, transform, compression):
    path, array = tmp_path / "a.tif", pixels(height, width, bands, dtype)
    write(path, array, transform=transform, epsg=32617, nodata=7, compression=compression, tile_px=32)
    found, header = read(path)
    np.testing.assert_array_equal(found, array)
    assert (header.transform, header.epsg, header.nodata, header.dtype) == (transform, 32617, 7, np.dtype(dtype))
    assert list(tmp_path.iterdir()) == [path]
    assert_windows_are_parts_of_the_whole(path)
    assert_equals_rasterio(path)


@pytest.mark.parametrize("epsg", [32617, 26917, 5070, 3857, 2154, 4326, 4269, 6318])
def test_rasterio_knows_the_coordinate_system_that_was_written(tmp_path, epsg):
    rasterio = pytest.importorskip("rasterio")
    write(tmp_path / "a.tif", pixels(), transform=NORTH_UP, epsg=epsg)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.crs.to_epsg() == epsg
    assert read(tmp_path / "a.tif")[1].epsg == epsg


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_palette_is_read_back(tmp_path, dtype):
    colors = np.array([[0, 0, 255], [0, 255, 0], [13, 77, 200]], np.uint8)
    write(tmp_path / "a.tif", pixels(bands=1, dtype=dtype)[..., 0] % 3, palette=colors, nodata=255)
    header = read(tmp_path / "a.tif")[1]
    np.testing.assert_array_equal(header.palette[:3], colors)
    assert_equals_rasterio(tmp_path / "a.tif")


def test_a_fourth_band_is_no_transparency(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    write(tmp_path / "a.tif", pixels(bands=4))
    with rasterio.open(tmp_path / "a.tif") as file:
        assert rasterio.enums.ColorInterp.alpha not in file.colorinterp
        assert (file.read_masks() == 255).all()


def test_large_rasters_are_tiled_and_compressed_and_raw_ones_lie_in_one_piece(tmp_path):
    array = np.zeros((300, 200), np.uint8)
    write(tmp_path / "zlib.tif", array, tile_px=64)
    write(tmp_path / "none.tif", array, compression="none")
    with tifffile.TiffFile(tmp_path / "zlib.tif") as file:
        assert file.pages[0].is_tiled and file.pages[0].tile == (64, 64) and file.filehandle.size < array.nbytes / 10
    with tifffile.TiffFile(tmp_path / "none.tif") as file:
        assert len(file.pages[0].dataoffsets) == 1 and file.pages[0].is_memmappable


@pytest.mark.parametrize("bands, dtype", [(1, np.uint8), (3, np.uint8), (4, np.uint16), (2, np.float32)])
def test_raw_files_are_to_the_byte_what_tifffile_writes(tmp_path, bands, dtype):
    for tilt, nodata, crs in ((0, None, ()), (0, 0, [tag[:4] for tag in albers()]), (0.3, 0, ())):
        for corner in ((4e5, 4.1e6), (0, 0), (-1e-3, 7.25)):
            array = pixels(24, 40, bands, dtype)
            place = {"transform": (1.5, tilt, corner[0], tilt, -2, corner[1]), "epsg": 32618, "crs": crs}
            write(tmp_path / "a.tif", array, nodata=nodata, compression="none", **place)
            array = array[..., 0] if bands == 1 else array
            tags = geotiff.geo_tags("b.tif", dtype, nodata=nodata, **place)
            layout = {"rowsperstrip": 24, "maxworkers": 1, **geotiff.page_layout(bands, dtype)}
            tifffile.imwrite(tmp_path / "b.tif", array, extratags=tags, **layout)
            assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize(
    "array, options, fault",
    [
        (np.zeros((0, 5), np.uint8), {}, "shape"),
        (np.zeros(5, np.uint8), {}, "shape"),
        (pixels(), {"compression": "lzw"}, "'lzw'; it is 'zlib' or 'none'"),
        (pixels(), {"nodata": -1}, "nodata -1 is no value of uint8"),
        (pixels(), {"tile_px": 20}, "cannot be written"),
        (pixels().astype(object), {}, "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused_and_the_old_file_stays(tmp_path, array, options, fault):
    path = tmp_path / "a.tif"
    write(path, pixels(seed=1))
    with pytest.raises(Refused, match=f"a.tif: .*{fault}"):
        write(path, array, **options)
    np.testing.assert_array_equal(read(path)[0], pixels(seed=1))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Refused, match="none/a.tif: cannot be written: No such file"):
        write(tmp_path / "none" / "a.tif", pixels())


@pytest.mark.parametrize("compression", ["zlib", "none"])
def test_a_full_disk_leaves_the_old_file(tmp_path, compression):
    path = tmp_path / "a.tif"
    write(path, pixels(seed=1))
    limited = (
        "import resource, sys, numpy as np; from data.rasters import geotiff;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        f"geotiff.write({str(path)!r}, np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8),"
        f" compression={compression!r})"
    )
    run = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, cwd=ROOT)
    assert f"DiskFull: {path}: cannot be written: " in run.stderr
    np.testing.assert_array_equal(read(path)[0], pixels(seed=1))
    assert list(tmp_path.iterdir()) == [path]


# Broken files.


def test_files_that_are_no_tiffs(tmp_path):
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("not an image")
    (tmp_path / "header.tif").write_bytes(b"II*\0\x08\0\0\0")
    (tmp_path / "folder.tif").mkdir()
    for name, fault in {
        "none.tif": "No such file",
        "empty.tif": "not a TIFF",
        "text.tif": "not a TIFF",
        "header.tif": "",
        "folder.tif": "Is a directory",
    }.items():
        with pytest.raises(Refused, match=f"{name}: .*{fault}"):
            read(tmp_path / name)


@pytest.mark.parametrize("compression", ["zlib", "none"])
def test_a_file_cut_anywhere_is_refused(tmp_path, compression):
    write(tmp_path / "a.tif", pixels(), transform=NORTH_UP, compression=compression, tile_px=16)
    whole = (tmp_path / "a.tif").read_bytes()
    for end in range(0, len(whole) - 1, 97):
        (tmp_path / "a.tif").write_bytes(whole[:end])
        with pytest.raises(Refused, match="a.tif: "):
            read(tmp_path / "a.tif")


def test_pixels_that_do_not_decode_are_refused(tmp_path):
    write(tmp_path / "a.tif", pixels(), tile_px=16)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[0].dataoffsets[3]
    with open(tmp_path / "a.tif", "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 50)
    with pytest.raises(Refused, match="a.tif: corrupt"):
        read(tmp_path / "a.tif")
    with open_raster(tmp_path / "a.tif") as raster:
        raster.window(0, 0, 16, 16)  # of a tile that is sound


def test_one_bad_geo_tag_is_an_error_that_names_the_file(tmp_path):
    path = written(tmp_path / "a.tif", pixels(), photometric="rgb", extratags=[(33550, "s", 0, "two", True)])
    with pytest.raises(Refused, match="a.tif: corrupt"):
        read(path)


def with_tag(path, code, value, page=0):
    """Overwrite a tag's inline value in a little-endian classic TIFF."""
    with tifffile.TiffFile(path) as file:
        at = file.pages[page].tags[code].offset
    with open(path, "r+b") as file:
        file.seek(at + 2)
        file.write(struct.pack("<HII", 4, 1, value))
    return path


@pytest.mark.parametrize("compression", ["none", "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("code", [256, 257], ids=["width", "height"])
def test_an_absurd_size_is_refused_when_opening(tmp_path, code, compression):
    path = written(tmp_path / "a.tif", pixels(), photometric="rgb", compression=compression)
    with pytest.raises(Refused, match="a.tif: corrupt"):
        open_raster(with_tag(path, code, 10**7 + 3))


def test_a_tile_of_absurd_size_is_refused(tmp_path):
    path = written(tmp_path / "a.tif", pixels(16, 16), photometric="rgb", compression="zlib", tile=(16, 16))
    with_tag(path, 322, 2**20)
    with open_raster(with_tag(path, 323, 2**20)) as raster, pytest.raises(Refused, match="a.tif: corrupt: claims"):
        raster.read()


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 66, 5, 5), (0, 0, 0, 5), (41, 0, 5, 5), (0, 0, 46, 1)], ids=str)
@pytest.mark.parametrize("compression", ["zlib", "none"])
def test_windows_outside_the_raster_are_refused(tmp_path, compression, window):
    write(tmp_path / "a.tif", pixels(), compression=compression)
    with open_raster(tmp_path / "a.tif") as raster, pytest.raises(Refused, match="45 x 70 px"):
        raster.window(*window)


def test_a_file_that_leaves_its_pixels_out_may_claim_any_size_but_is_not_read_whole(tmp_path):
    path = written(tmp_path / "a.tif", pixels(16, 16), photometric="rgb", compression="zlib", tile=(16, 16))
    for code, value in ((256, 40_000), (257, 40_000), (322, 40_000), (323, 40_000), (324, 0), (325, 0)):
        with_tag(path, code, value)
    with open_raster(path) as raster:
        assert not raster.window(39_990, 0, 10, 10).any()
        with pytest.raises(Refused, match="a.tif: claims 4.5 GiB"):
            raster.read()


def in_one_tile(path, side, samples=3):
    """A zlib scene of one tile of zeros, made without holding it."""
    packer = zlib.compressobj(1)
    tile = b"".join(packer.compress(bytes(side * samples)) for _ in range(side)) + packer.flush()
    options = {"tile": (side, side), "compression": "zlib", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, iter([tile]), shape=(side, side, samples), dtype="u1", **options)
    return path


def test_a_tile_that_decodes_to_more_than_the_ceiling_is_refused_with_what_mends_it(tmp_path, monkeypatch):
    path = in_one_tile(tmp_path / "a.tif", 9472)
    said = (
        "a.tif: one strip or tile of 9,472 x 9,472 px decodes to 269 MB, LOW2HIGH_BLOCK_MB is 256; gdal_translate "
        f"-co TILED=YES -co COMPRESS=DEFLATE {path} {tmp_path / 'a_tiled.tif'}"
    )
    with open_raster(path) as raster, pytest.raises(Refused) as refused:
        raster.window(0, 0, 10, 10)
    assert str(refused.value).endswith(said)
    small = in_one_tile(tmp_path / "b.tif", 640)
    for ceiling, fits in (("1", False), ("2", True)):
        monkeypatch.setenv("LOW2HIGH_BLOCK_MB", ceiling)
        if fits:
            assert not read(small)[0].any()
        else:
            with pytest.raises(Refused, match="decodes to 1 MB, LOW2HIGH_BLOCK_MB is 1;"):
                read(small)
    # One strip that needs no codec, but unpacking: eight pixels a byte.
    bits = np.zeros((1000, 1600), bool)
    tifffile.imwrite(tmp_path / "bits.tif", bits, rowsperstrip=1000, photometric="minisblack")
    assert not read(tmp_path / "bits.tif")[0].any()
    monkeypatch.setenv("LOW2HIGH_BLOCK_MB", "1")
    with pytest.raises(Refused, match="one strip or tile of 1,000 x 1,600 px decodes to 2 MB"):
        read(tmp_path / "bits.tif")
    monkeypatch.setenv("LOW2HIGH_BLOCK_MB", "much")
    with pytest.raises(Refused, match="LOW2HIGH_BLOCK_MB=much: should be a whole number of megabytes, as 256"):
        read(small)


def with_shared_tiles(path, side):
    """All tiles of a scene in the place of the first."""
    scene_of_one_tile(path, side)
    with tifffile.TiffFile(path) as file:
        entry = file.pages[0].tags[324]
        first, at, count = file.pages[0].dataoffsets[0], entry.valueoffset, entry.count
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(struct.pack("<I", first) * count)
    return path


def test_tiles_that_share_a_place_are_judged_as_sparse_ones_and_refused_beyond_reason(tmp_path, monkeypatch):
    with open_raster(with_shared_tiles(tmp_path / "a.tif", 2000)) as raster:
        assert (raster.window(1500, 1500, 100, 100) == 5).all() and (raster.read() == 5).all()
        monkeypatch.setattr(geotiff, "SPARSE_BYTES", 10**7)
        with pytest.raises(Refused, match="a.tif: claims 0.0 GiB of pixels; read it by window"):
            raster.read()
    with pytest.raises(Refused, match="b.tif: corrupt: claims 1,200,000,000 bytes of pixels in"):
        open_raster(with_shared_tiles(tmp_path / "b.tif", 20_000))


def test_many_damaged_files_are_read_or_refused(tmp_path):
    """tests/fuzz_geotiff.py does so at length, in a process of its own."""
    sources = [path.read_bytes() for path in SOUND if path.stat().st_size < 20_000]
    for compression in ("zlib", "none"):
        write(tmp_path / "a.tif", pixels(), transform=NORTH_UP, epsg=32617, nodata=0, compression=compression)
        sources.append((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        albers_and_alpha = {"extratags": albers() + SCALE_AND_TIE, "extrasamples": ("unassalpha",)}
        tiff.write(pixels(bands=4), photometric="rgb", metadata=None, **albers_and_alpha)
        tiff.write(pixels(bands=1)[..., 0] > 9, subfiletype=4, compression="zlib", metadata=None)
    sources.append((tmp_path / "a.tif").read_bytes())
    refused = 0
    for seed in range(400):
        (tmp_path / "a.tif").write_bytes(damaged(sources[seed % len(sources)], seed))
        try:
            look_at(tmp_path / "a.tif")
        except Refused as error:
            assert str(error).startswith(f"{tmp_path / 'a.tif'}: ") and "\n" not in str(error)
            refused += 1
    assert 0 < refused < 400


def test_oddities_that_do_no_harm_are_not_reported(tmp_path, capfd, caplog):
    tags = [(42113, "s", 0, "no number", True)]  # tifffile warns of it
    path = written(tmp_path / "a.tif", pixels(), photometric="rgb", extratags=tags)
    with caplog.at_level(logging.DEBUG, logger="root"):
        read(path)
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_without_imagecodecs_raw_and_zlib_work_and_the_rest_names_the_package(tmp_path):
    pytest.importorskip("imagecodecs")
    written(tmp_path / "lzw.tif", pixels(), photometric="rgb", compression="lzw")
    script = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "import numpy as np; from data.rasters import geotiff\n"
        "for compression in ('none', 'zlib'):\n"
        "    geotiff.write(sys.argv[1] + '/a.tif', np.ones((40, 50, 3), np.uint16), compression=compression)\n"
        "    assert geotiff.read(sys.argv[1] + '/a.tif')[0].sum() == 6000\n"
        "geotiff.read(sys.argv[1] + '/lzw.tif')\n"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert "lzw.tif: its pixels (8-bit, LZW) need a codec that is not installed" in run.stderr
    assert 'pip install "tifffile[codecs]"' in run.stderr


def test_reading_does_not_import_torch():
    script = "import sys, data.rasters.geotiff; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
