import contextlib
import errno
import os
import subprocess

import numpy as np
import pytest
import tifffile

from data.rasters import geotiff
from maps import map_writer
from maps.map_writer import MapWriter, read_description
from runtime import files
from runtime.errors import DiskFull
from runtime.files import MACHINE

UTM = (2.0, 0.0, 400000.0, 0.0, -2.0, 4100000.0)
COLORS = [(10, 20, 200), (0, 100, 0), (200, 200, 80)]
KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 26918)
PLACE = [
    (33550, 12, 3, np.array([2, 2, 0], "<f8").tobytes()),
    (33922, 12, 6, np.array([0, 0, 0, 400_000, 4_100_000, 0], "<f8").tobytes()),
    (34735, 3, 16, np.array(KEYS, "<u2").tobytes()),
]
FACTS = {"georeference": PLACE, "nodata": 255}


def blobs(height, width, bands=1):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 3, (height // 8 + 1, width // 8 + 1, bands), np.uint8)
    return np.kron(small, np.ones((8, 8, 1), np.uint8))[:height, :width]


def written(path, pixels, step=100, **options):
    options = {"overviews": "nearest", **FACTS, **options}
    with MapWriter(path, *pixels.shape, **options) as writer:
        for row in range(0, len(pixels), step):
            writer.put(pixels[row : row + step])
    return path


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (512, 512), (513, 40), (1300, 1025)])
def test_a_map_reads_back_with_its_georeference_palette_and_nodata(tmp_path, monkeypatch, height, width, big):
    monkeypatch.setattr(map_writer, "CLASSIC_BYTES", 0 if big else 2**32)
    pixels = blobs(height, width)
    path = written(tmp_path / "map.tif", pixels, palette=COLORS, description="who made it, où")
    back, header = geotiff.read(path)
    assert np.array_equal(back, pixels)
    assert (header.transform, header.epsg, header.nodata) == (UTM, 26918, 255)
    assert header.palette[:3].tolist() == [list(color) for color in COLORS]
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff == big
        sizes = [page.shape for page in tiff.pages]
        assert [page.subfiletype for page in tiff.pages] == [0] + [1] * (len(sizes) - 1)
        for depth, page in enumerate(tiff.pages):
            assert np.array_equal(page.asarray().reshape(page.shape), pixels[:: 2**depth, :: 2**depth, 0])
    assert sizes[-1] <= (512, 512) and len(sizes) == {1: 1, 512: 1, 513: 2, 1300: 3}[height]
    assert read_description(path) == "who made it, où"


@pytest.mark.parametrize("big", [False, True])
def test_gdal_reads_maps_overviews_and_band_names(tmp_path, monkeypatch, big):
    rasterio = pytest.importorskip("rasterio")
    monkeypatch.setattr(map_writer, "CLASSIC_BYTES", 0 if big else 2**32)
    pixels = blobs(1300, 1100)
    with rasterio.open(written(tmp_path / "map.tif", pixels, palette=COLORS)) as raster:
        assert raster.crs.to_epsg() == 26918 and tuple(raster.transform)[:6] == UTM and raster.nodata == 255
        assert [raster.colormap(1)[i][:3] for i in range(3)] == COLORS
        assert np.array_equal(raster.read(1), pixels[..., 0])
        assert raster.overviews(1) == [2, 4] and raster.block_shapes == [(512, 512)]
    with rasterio.open(tmp_path / "map.tif", overview_level=1) as raster:
        assert np.array_equal(raster.read(1), pixels[::4, ::4, 0])
    names = ["water & ice", "forest", "field"]
    path = written(tmp_path / "probs.tif", blobs(700, 600, 3), overviews="mean", names=names)
    with rasterio.open(path) as raster:
        assert raster.descriptions == tuple(names) and raster.overviews(3) == [2]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize(
    "height, width",
    [(1, 1), (1, 3000), (3000, 1), (3, 3001), (512, 512), (513, 512), (700, 40), (2100, 1024), (1300, 1500)],
)
def test_every_map_is_cloud_optimised(tmp_path, monkeypatch, height, width, bands, big):
    validate = pytest.importorskip("rio_cogeo.cogeo").cog_validate
    monkeypatch.setattr(map_writer, "CLASSIC_BYTES", 0 if big else 2**32)
    pixels = blobs(height, width, bands)
    path = written(tmp_path / "map.tif", pixels, overviews="nearest" if bands == 1 else "mean", step=512)
    valid, errors, warnings = validate(path, quiet=True)
    assert valid and not errors
    assert not warnings or width == 1  # of which validators take no overview, and ask for one
    import rasterio

    with rasterio.open(path) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
        assert np.array_equal(raster.read(), np.moveaxis(pixels, -1, 0))
        depths = len(raster.overviews(1))
    for depth in range(depths):
        with rasterio.open(path, overview_level=depth) as raster:
            assert raster.shape == (-(-height // 2 ** (depth + 1)), -(-width // 2 ** (depth + 1)))
            assert raster.read().shape[0] == bands


def test_the_smallest_overview_comes_first_after_all_directories(tmp_path):
    path = written(tmp_path / "map.tif", blobs(1300, 1025))
    with tifffile.TiffFile(path) as tiff:
        first = [page.dataoffsets[0] for page in tiff.pages]
        assert first == sorted(first, reverse=True) and max(page.offset for page in tiff.pages) < min(first)
        assert [page.offset for page in tiff.pages] == sorted(page.offset for page in tiff.pages)
        end = tiff.pages[0].dataoffsets[-1] + tiff.pages[0].databytecounts[-1]
    assert path.stat().st_size == end + 4


def test_overviews_of_measures_are_means_of_pixels_that_hold_something(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (601, 601, 2)).astype(np.uint8)
    pixels[:4, :3] = 255
    path = written(tmp_path / "probs.tif", pixels, overviews="mean")
    with tifffile.TiffFile(path) as tiff:
        small = tiff.pages[1].asarray()
    assert small.shape == (301, 301, 2)
    assert small[0, 0].tolist() == [255, 255]
    assert np.array_equal(small[0, 1], (pixels[:2, 3].astype(int).sum(axis=0) + 1) // 2)
    four = pixels[100:102, 200:202].astype(int).sum(axis=(0, 1))
    assert np.array_equal(small[50, 100], (four + 2) // 4)
    assert np.array_equal(small[300, 300], pixels[600, 600])


def test_blocks_from_left_to_right_make_rows(tmp_path):
    pixels = blobs(40, 90)
    with MapWriter(tmp_path / "map.tif", 40, 90, overviews="nearest", **FACTS) as writer:
        for top, bottom in ((0, 25), (25, 40)):
            for left, right in ((0, 32), (32, 64), (64, 90)):
                writer.put(pixels[top:bottom, left:right])
    assert np.array_equal(geotiff.read(tmp_path / "map.tif")[0], pixels)


def test_a_map_that_fails_leaves_the_older_one_and_nothing_else(tmp_path):
    pixels = blobs(600, 50)
    path = written(tmp_path / "map.tif", pixels)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        with MapWriter(path, 600, 50, overviews="nearest", **FACTS) as writer:
            writer.put(pixels[:520])
            assert path.read_bytes() == before
            raise KeyboardInterrupt
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_what_a_killed_process_left_is_deleted_and_what_another_writes_is_not(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    kept = f"map.tif.{MACHINE}.{os.getppid()}", f"map.tif.0badcafe.{ended.pid}", f"other.tif.{MACHINE}.{ended.pid}"
    kept = {f".{name}.tmp" for name in (*kept, "map.tif.of_someone")}
    for name in (*kept, f".map.tif.{MACHINE}.{ended.pid}.tmp", f".map.tif.{ended.pid}.tmp"):
        (tmp_path / name).write_bytes(b"half")
    written(tmp_path / "map.tif", blobs(20, 20))
    assert {p.name for p in tmp_path.iterdir()} == {"map.tif", *kept}


@pytest.mark.parametrize("when", ["while tiles wait", "in the end"])
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, when):
    class Full(contextlib.AbstractContextManager):
        def __init__(self, file):
            self.file = file

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

    path = tmp_path / "map.tif"
    with pytest.raises(DiskFull, match=r"map.tif: cannot be written: No space left on device"):
        with MapWriter(path, 600, 50, overviews="nearest", **FACTS) as writer:
            if when == "in the end":
                monkeypatch.setattr(files, "open", lambda *place: Full(open(*place)), raising=False)
            else:
                writer._tiles = Full(writer._tiles)
            writer.put(blobs(600, 50))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFull, match="file/map.tif: cannot be written"):
        MapWriter(tmp_path / "file" / "map.tif", 10, 10, overviews="nearest", **FACTS)
    assert read_description(tmp_path / "file") == "" and read_description(tmp_path / "nothing") == ""
