from pathlib import Path

import numpy as np
import pytest
import tifffile
from data.rasters.geotiff_header import Header
from data.rasters.images import open_image
from PIL import Image

from data.rasters import geotiff
from maps import scenes
from maps.scenes import read_windows, require_fitting, scale_warning, scene_paths
from runtime.errors import Refused

FACTS = {"bands": 3, "dtype": "uint8", "image_gsd": 1.0}


def header(path=Path("scene.tif"), bands=3, dtype=np.uint8, gsd=1.0, width=1000, **more):
    return Header(path, 500, width, bands, np.dtype(dtype), transform=(gsd, 0, 4e5, 0, -gsd, 4e6), **more)


def reassembled(raster, rows, cols, height, width):
    """The scene put together from its windows, void pixels -1, and how many windows held nothing."""
    size, skipped = (raster.header.height, raster.header.width), 0
    whole = np.full((rows[-1] + height, cols[-1] + width, raster.header.bands), -2)
    for i, j, pixels, void in read_windows(raster, rows, cols, height, width):
        window = np.full((height, width, raster.header.bands), -1) if pixels is None else pixels.astype(int)
        if void is not None:
            window[void] = -1
        skipped += pixels is None
        whole[rows[i] : rows[i] + height, cols[j] : cols[j] + width] = window
    assert (whole[size[0] :] == -1).all() and (whole[:, size[1] :] == -1).all()
    return whole[: size[0], : size[1]], skipped


@pytest.mark.parametrize("kind", ["tiles", "strips", "raw", "picture"])
def test_windows_are_the_scene_whatever_its_layout(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(scenes, "ROWS", 48)
    pixels = np.random.default_rng(0).integers(0, 255, (301, 270, 3)).astype(np.uint8)
    path = tmp_path / ("scene.png" if kind == "picture" else "scene.tif")
    if kind == "picture":
        Image.fromarray(pixels).save(path)
    else:
        options = {"tiles": {"tile": (64, 64)}, "strips": {"rowsperstrip": 7}, "raw": {}}[kind]
        tifffile.imwrite(path, pixels, photometric="rgb", compression=None if kind == "raw" else "zlib", **options)
    with open_image(path) as raster:
        whole, skipped = reassembled(raster, [0, 96, 192], [0, 96, 160], 128, 128)
        tiny, _ = reassembled(raster, [0], [0], 320, 288)
    assert np.array_equal(whole, pixels) and np.array_equal(tiny, pixels) and not skipped


def test_pixels_without_data_are_void_and_windows_of_them_are_not_read_out(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 5000, (128, 128, 2)).astype(np.uint16)
    pixels[:, :64] = pixels[5, 100] = 0
    pixels[6, 100, 0] = 0  # one band of it is data
    geotiff.write(tmp_path / "scene.tif", pixels, nodata=0)
    with open_image(tmp_path / "scene.tif") as raster:
        whole, skipped = reassembled(raster, [0, 64], [0, 64], 64, 64)
    expected = np.where((pixels == 0).all(axis=2, keepdims=True), -1, pixels.astype(int))
    assert np.array_equal(whole, expected) and skipped == 2


def test_pixels_without_data_hold_the_nearest_of_their_row_and_empty_rows_the_nearest_row():
    rng = np.random.default_rng(0)
    pixels, void = rng.integers(0, 255, (9, 12, 2), np.uint8), rng.random((9, 12)) < 0.6
    void[3], void[8], void[5] = True, True, [False, *[True] * 11]
    expected = pixels.copy()
    rows = [row for row in range(9) if not void[row].all()]
    for row in range(9):
        source = min(rows, key=lambda r, row=row: (abs(r - row), r))
        seen = np.flatnonzero(~void[source])
        for col in range(12):
            expected[row, col] = pixels[source, min(seen, key=lambda c, col=col: (abs(c - col), c))]
    assert np.array_equal(scenes.extended(pixels, void), expected)


def test_scenes_come_from_files_patterns_and_lists(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("2.tif", "1.tif", "3.png", "notes.xml"):
        (folder / name).write_bytes(b"")
    (tmp_path / "list.txt").write_text("a/2.tif\n\n a/3.png \n")
    (folder / "list.csv").write_text("scene,image\nx,1.tif\n")
    names = [path.name for path in scene_paths([folder / "3.png", folder / "*", tmp_path / "list.txt"])]
    assert names == ["3.png", "1.tif", "2.tif", "3.png", "2.tif", "3.png"]
    assert scene_paths([folder / "list.csv"]) == [folder / "1.tif"]
    assert scene_paths([tmp_path / "**" / "*.png"]) == [folder / "3.png"]


def test_a_folder_is_told_the_pattern_of_most_of_its_images(tmp_path):
    for name in ("1.jpg", "2.jpg", "3.png", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(Refused, match=r"is a folder; its scenes are '.*\*\.jpg'"):
        scene_paths([tmp_path])


@pytest.mark.parametrize(
    ("word", "lines", "error"),
    [
        ("none.tif", None, "none.tif: no such file"),
        ("*.jpg", None, r"\*.jpg: no image is named so"),
        ("", None, r"is a folder; its scenes are '.*\*.tif'"),
        ("list.txt", "", "lists no scene"),
        ("list.txt", "gone.tif\n", "line 1: gone.tif: no such file"),
        ("list.txt", "../scene.tif\n", "line 1: '../scene.tif' leaves the folder"),
        ("list.txt", "/etc/passwd\n", "line 1: '/etc/passwd' leaves the folder"),
        ("list.csv", "scene\nx\n", "no column 'image'"),
    ],
)
def test_scenes_that_are_not_there_are_one_line(tmp_path, word, lines, error):
    if lines is not None:
        (tmp_path / word).write_text(lines)
    with pytest.raises(Refused, match=error) as raised:
        scene_paths([tmp_path / word])
    assert "\n" not in str(raised.value)


def test_other_bands_other_pixels_and_absurd_widths_are_refused():
    require_fitting(header(), FACTS, 1024)
    require_fitting(header(dtype=np.uint16), {**FACTS, "dtype": "uint16"}, 1024)
    with pytest.raises(Refused, match="4 bands, the network was trained on 3.*gdal_translate -b 1 -b 2 -b 3 a.tif "):
        require_fitting(header(Path("a.tif"), bands=4), FACTS, 1024)
    with pytest.raises(Refused, match="has 1 bands, the network was trained on 3"):
        require_fitting(header(bands=1), FACTS, 1024)
    require_fitting(header(bands=4, alpha=3), FACTS, 1024)
    with pytest.raises(Refused, match="has 5 bands, the network was trained on 3"):
        require_fitting(header(bands=5, alpha=3), FACTS, 1024)
    with pytest.raises(Refused, match="float32.*uint8"):
        require_fitting(header(dtype=np.float32), FACTS, 1024)
    with pytest.raises(Refused, match="uint16.*uint8"):
        require_fitting(header(dtype=np.uint16), {**FACTS, "dtype": "uint8"}, 1024)
    with pytest.raises(Refused, match="2,000,000,000 px a row"):
        require_fitting(header(width=2_000_000_000), FACTS, 1024)


def test_other_pixel_sizes_bring_a_warning_that_names_the_gdalwarp_line():
    path = Path("my scene.tif")
    assert scale_warning(header(path, gsd=1.09), 1.0) is None
    fine = scale_warning(header(path, gsd=0.3), 1.0)
    assert "0.3 m" in fine and fine.endswith("gdalwarp -tr 1 1 -r average 'my scene.tif' 'my scene_1m.tif'")
    coarse = scale_warning(header(path, gsd=10.0), 1.0)
    assert "-tr 1 1 -r bilinear" in coarse
    feet = scale_warning(header(path, gsd=1.0, unit_m=0.3048), 1.0)
    assert "0.305 m" in feet and "-tr 3.28083989501 3.28083989501 -r average" in feet
    degrees = Header(path, 1000, 1000, 3, np.dtype(np.uint8), transform=(1e-4, 0, -75.6, 0, -1e-4, 40), unit_m=None)
    assert "gdalwarp -t_srs EPSG:32618 -tr 1 1 -r bilinear" in scale_warning(degrees, 1.0)
    assert scale_warning(Header(path, 9, 9, 3, np.dtype(np.uint8)), 1.0) is None  # a picture does not say
    far = scale_warning(header(path, gsd=30.0), 1.0)  # resampled it would be a map of 900 times the pixels
    assert "30 m" in far and "900 times the pixels" in far and "gdalwarp" not in far
