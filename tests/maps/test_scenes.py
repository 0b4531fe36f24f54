from contextlib import ExitStack

import geotiffs
import numpy as np
import pytest
import rasterio.shutil
from mapping import UTM, save
from PIL import Image

from data.rasters import Raster, ground_size
from maps.scenes import at_size, read_windows, require_fitting, scene_paths
from runtime.errors import Refused

FACTS = {"bands": 3, "dtype": "uint8", "image_gsd": 1.0}
GDAL = {"GTiff": ".tif", "HFA": ".img", "PNG": ".png", "JP2OpenJPEG": ".jp2", "VRT": ".vrt"}


def reassembled(path, rows, cols, height, width, limits=None):
    """A scene put together from its windows, void pixels -1, and how many windows held nothing."""
    with Raster(path) as scene:
        size, bands, skipped = scene.size, scene.bands, 0
        whole = np.full((rows[-1] + height, cols[-1] + width, bands), -2)
        for i, j, pixels, void in read_windows(scene, rows, cols, height, width, bands, limits):
            window = np.full((height, width, bands), -1) if pixels is None else pixels.astype(int)
            if void is not None:
                window[void] = -1
            skipped += pixels is None
            whole[rows[i] : rows[i] + height, cols[j] : cols[j] + width] = window
    assert (whole[size[0] :] == -1).all() and (whole[:, size[1] :] == -1).all()
    return whole[: size[0], : size[1]], skipped


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("driver", GDAL)
def test_windows_are_the_scene_in_any_format(tmp_path, driver):
    pixels = np.random.default_rng(0).integers(0, 255, (301, 270, 3)).astype(np.uint8)
    plain, path = save(tmp_path / "plain.tif", pixels), tmp_path / f"scene{GDAL[driver]}"
    lossless = {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"} if driver == "JP2OpenJPEG" else {}
    rasterio.shutil.copy(plain, path, driver=driver, **lossless)
    whole, skipped = reassembled(path, [0, 96, 192], [0, 96, 160], 128, 128)
    assert np.array_equal(whole, pixels) and not skipped
    assert np.array_equal(reassembled(path, [0], [0], 320, 288)[0], pixels)


def test_pixels_without_data_are_void_and_windows_of_them_are_not_read_out(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 5000, (128, 128, 2)).astype(np.uint16)
    pixels[:, :64] = pixels[5, 100] = 0
    pixels[6, 100, 0] = 0  # one band of it is data
    whole, skipped = reassembled(save(tmp_path / "scene.tif", pixels, nodata=0), [0, 64], [0, 64], 64, 64)
    expected = np.where((pixels == 0).all(axis=2, keepdims=True), -1, pixels.astype(int))
    assert np.array_equal(whole, expected) and skipped == 2


def test_floats_become_the_whole_numbers_of_training(tmp_path):
    pixels = np.random.default_rng(0).uniform(-0.1, 0.6, (64, 64, 2)).astype(np.float32)
    pixels[:9, :9, 1] = np.nan
    whole, _ = reassembled(save(tmp_path / "scene.tif", pixels), [0], [0], 64, 64, limits=(0.0, 0.5))
    expected = 1 + np.rint(np.clip(pixels.astype(float) / 0.5, 0, 1) * 65534)
    expected[:9, :9] = -1
    assert np.array_equal(whole, expected)


def test_scenes_come_from_files_and_patterns(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("2.tif", "1.img", "3.png", "3_preview.png"):
        (folder / name).write_bytes(b"")
    found = scene_paths([f"{folder}/3.png", f"{folder}/[0-9]*"])
    assert [path.name for path in found] == ["3.png", "1.img", "2.tif", "3.png"]
    assert scene_paths([f"{tmp_path}/**/*.png"]) == [folder / "3.png"]
    for word in ("*.jpg", "gone.tif", ""):  # the last is a folder
        with pytest.raises(Refused, match=r"no such file; FOLDER/\*.tif names the scenes of a folder"):
            scene_paths([str(tmp_path / word)])


@pytest.mark.parametrize(
    ("bands", "dtype", "facts", "error"),
    [
        (3, np.uint8, {}, None),
        (3, np.uint16, {"dtype": "uint16"}, None),
        (4, np.uint8, {}, "has 4 bands, the network was trained on 3"),
        (1, np.uint8, {}, "has 1 bands, the network was trained on 3"),
        (3, np.uint16, {}, "its pixels are uint16, the network was trained on uint8"),
        (3, np.float32, {"dtype": "uint16"}, "its pixels are float32, the network was trained on uint16"),
        (3, np.float32, {"dtype": "uint16", "range": [0, 1]}, None),
        (3, np.uint8, {"dtype": "uint16", "range": [0, 1]}, "its pixels are uint8"),
    ],
)
def test_other_bands_and_other_pixels_are_refused(tmp_path, bands, dtype, facts, error):
    with Raster(save(tmp_path / "a.tif", np.zeros((9, 9, bands), dtype))) as scene:
        if error:
            with pytest.raises(Refused, match=error):
                require_fitting(scene, {**FACTS, **facts})
        else:
            limits = require_fitting(scene, {**FACTS, **facts})
            assert limits == ([0, 1] if dtype == np.float32 else None)


PLACES = {  # coordinate system, size of a pixel in its units; metres on the ground
    "utm": ("EPSG:26918", (400_000, 4_100_000), 0.5, 0.5),
    "feet": ("EPSG:2263", (1_000_000, 200_000), 2.0, 2 * 0.3048),
    "mercator at 60 N": ("EPSG:3857", (0, 8_399_738), 5.0, 2.5),
    "degrees at 60 N": ("EPSG:4326", (10, 60), 1e-5, 1.11 * 0.5**0.5),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_scene_is_resampled_to_square_pixels_of_the_training_images_size(tmp_path, place, capsys):
    system, (x, y), size, metres = PLACES[place]
    pixels = np.random.default_rng(0).integers(1, 250, (60, 80, 3)).astype(np.uint8)
    geotiffs.write(tmp_path / "a.tif", pixels, (size, 0, x, 0, -size, y), system)
    with Raster(tmp_path / "a.tif") as scene, ExitStack() as stack:
        assert ground_size(scene) == pytest.approx(metres, rel=0.01)
        facts = {**FACTS, "image_gsd": metres * 1.05}
        assert at_size(scene, facts, True, stack) is scene and at_size(scene, facts, False, stack) is scene
        assert not capsys.readouterr().err
        facts = {**FACTS, "image_gsd": metres * 4}
        assert at_size(scene, facts, False, stack) is scene
        line = capsys.readouterr().err
        assert f"a.tif: its pixels are {ground_size(scene):.3g} m" in line and "--resample" in line
        made = at_size(scene, facts, True, stack)
        assert ground_size(made) == pytest.approx(metres * 4, rel=0.05) and made.crs == scene.crs
        if "degrees" in place:  # there a pixel is twice as high as wide
            assert made.size == (round(15 * 2**0.5), round(20 / 2**0.5))
        else:
            assert made.size == (15, 20)
            means = pixels.reshape(15, 4, 20, 4, 3).mean((1, 3))
            found, void = made.window(0, 0, 15, 20, 3)
            assert void is None and np.abs(found - means).max() <= 0.51
        ends = [np.array(raster.affine).reshape(2, 3) @ (*raster.size[::-1], 1) for raster in (scene, made)]
        assert np.allclose(*ends)  # it covers the same ground


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("times", [0.5, 2])
@pytest.mark.parametrize("how", ["nodata", "mask", "alpha", "near infrared tagged alpha"])
def test_resampling_heeds_what_has_no_data(tmp_path, how, times):
    held = np.ones((64, 96), bool)
    held[:32, :48] = False
    pixels = np.random.default_rng(0).integers(100, 120, (64, 96, 3)).astype(np.uint8)
    pixels[40:, :, 0] = 0  # dark in one band
    if how == "nodata":
        pixels[~held] = 0
    geotiffs.write(tmp_path / "a.tif", pixels, UTM, 26918, nodata=0 if how == "nodata" else None)
    if how != "nodata":  # water is dark in near infrared
        geotiffs.hide(tmp_path / "a.tif", held, "mask" if how == "mask" else "alpha")
    taken = 4 if "infrared" in how else 3
    with Raster(tmp_path / "a.tif") as scene, ExitStack() as stack:
        made = at_size(scene, {**FACTS, "bands": taken, "image_gsd": times}, True, stack)
        found, void = made.window(0, 0, *made.size, taken)
    assert found.shape == (64 / times, 96 / times, taken)
    assert (found[: int(34 / times), int(50 / times) :, :3] >= 100).all()  # not mixed with what has none
    if taken == 4:
        assert void is None and (found[: int(30 / times), : int(46 / times), 3] == 0).all()
    else:
        assert void[: int(30 / times), : int(46 / times)].all()
        assert not void[int(34 / times) :].any() and not void[:, int(50 / times) :].any()


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_a_scene_that_does_not_say_how_large_its_pixels_are_stays_as_it_is(tmp_path):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    with Raster(tmp_path / "a.png") as scene, ExitStack() as stack:
        assert at_size(scene, FACTS, True, stack) is scene
    path = save(tmp_path / "b.tif", np.ones((40, 50, 3), np.uint8), affine=(0.5, 0, 0, 0, -0.5, 0), system=())
    with Raster(path) as scene, ExitStack() as stack:  # its units are taken for metres
        made = at_size(scene, FACTS, True, stack)
        assert made.size == (20, 25) and made.crs is None and (made.window(0, 0, 20, 25, 3)[0] == 1).all()
