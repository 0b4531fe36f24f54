import contextlib

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from full_disk import no_file_above
from mapping import UTM
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate

from data.rasters import Raster
from maps.map_writer import MapWriter
from runtime.errors import DiskFull

COLORS = [(10, 20, 200), (0, 100, 0), (200, 200, 80)]
NAMES = ["0 water, 1 forest, 2 field"]


def scene_of(folder, height, width):
    path, facts = folder / "scene.tif", {"height": height, "width": width, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", "GTiff", sparse_ok=True, crs="EPSG:26918", transform=Affine(*UTM), **facts):
        pass
    return Raster(path)


def blobs(height, width, bands=1, top=3):
    small = np.random.default_rng(0).integers(0, top, (bands, height // 8 + 1, width // 8 + 1)).astype(np.uint8)
    return small.repeat(8, 1).repeat(8, 2)[:, :height, :width]


def written(folder, pixels, names=NAMES, palette=COLORS):
    path = folder / "map.tif"
    with scene_of(folder, *pixels.shape[1:]) as scene, MapWriter(path, scene, names, palette) as writer:
        for row in reversed(range(0, pixels.shape[1], 300)):
            for col in range(0, pixels.shape[2], 700):
                writer.put(torch.from_numpy(pixels[:, row : row + 300, col : col + 700].copy()), None, row, col)
    return path


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("height, width", [(1, 1), (3, 3001), (512, 512), (1300, 1024), (1300, 1025)])
@pytest.mark.parametrize("bands", [1, 4])
def test_a_map_reads_back_and_is_cloud_optimised(tmp_path, height, width, bands):
    pixels = blobs(height, width, bands)
    names = NAMES if bands == 1 else [f"class {i}" for i in range(bands)]
    path = written(tmp_path, pixels, names, COLORS if bands == 1 else ())
    valid, errors, warned = cog_validate(path, quiet=True)
    assert valid and not errors and not warned
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(), pixels)
        assert (tuple(file.transform)[:6], file.crs.to_epsg(), file.nodata) == (UTM, 26918, 255)
        assert list(file.descriptions) == names and file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        kinds = [kind.name for kind in file.colorinterp]
        if bands == 1:
            assert kinds == ["palette"] and [file.colormap(1)[i][:3] for i in range(3)] == COLORS
        else:  # classes are neither colours nor opacity
            assert not {"red", "alpha"} & {*kinds}
        smallest = -(-max(height, width) // (file.overviews(1) or [1])[-1])
        assert smallest <= 512


def test_overviews_hold_the_most_frequent_class_or_the_mean(tmp_path):
    codes = np.full((1, 600, 600), 2, np.uint8)
    codes[:, ::2, ::2] = 0  # one pixel of four
    codes[:, :100] = 255
    with rasterio.open(written(tmp_path, codes), overview_level=0) as file:
        assert (file.read(1)[:50] == 255).all() and (file.read(1)[51:] == 2).all()
    measures = blobs(600, 600, 2, top=250)
    measures[:, ::2, ::2] //= 2
    measures[:, :4, :3] = 255
    with rasterio.open(written(tmp_path, measures, ["a", "b"], ()), overview_level=0) as file:
        small = file.read().astype(int)
    means = measures.reshape(2, 300, 2, 300, 2).mean((2, 4))
    assert np.abs(small - means)[:, 2:].max() <= 0.5 and (small[:, :2, 0] == 255).all()
    assert (small[:, 0, 1] == measures[:, 0, 3]).all()  # of pixels that hold something


def test_a_map_that_fails_leaves_the_older_one_and_nothing_else(tmp_path):
    path = written(tmp_path, blobs(600, 50))
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), scene_of(tmp_path, 600, 50) as scene:
        with MapWriter(path, scene, NAMES, COLORS) as writer:
            writer.put(torch.zeros(640, 64, dtype=torch.uint8), None, 0, 0)
            assert path.read_bytes() == before
            raise KeyboardInterrupt
    assert path.read_bytes() == before and {p.name for p in tmp_path.iterdir()} == {"map.tif", "scene.tif"}


@pytest.mark.parametrize("most", [100_000, 2_500_000, -90])
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, most):
    """Of 2.4 MB of plain pixels, 0.7 MB of overviews, or the last bytes of the map that is made of them."""
    pixels = np.random.default_rng(0).integers(0, 250, (1, 1500, 1100)).astype(np.uint8)
    path = written(tmp_path, pixels)
    before = path.read_bytes()

    def full_when_copied(*words, copy=rasterio.shutil.copy, **more):
        with no_file_above(len(before) + most):
            copy(*words, **more)

    with pytest.raises(DiskFull, match="map.tif: cannot be written: ") as caught, contextlib.ExitStack() as stack:
        if most > 0:
            stack.enter_context(no_file_above(most))
        else:
            monkeypatch.setattr(rasterio.shutil, "copy", full_when_copied)
        written(tmp_path, pixels)
    assert "\n" not in str(caught.value) and path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"map.tif", "scene.tif"}
