from contextlib import ExitStack

import geotiffs
import numpy as np
import pytest
from mapping import UTM, save
from PIL import Image

from data.rasters import Raster, ground_size
from maps.scenes import at_size, require_fitting, scene_paths
from runtime.errors import Refused

FACTS = {"bands": 3, "dtype": "uint8", "image_gsd": 1.0}


def test_scenes_come_from_files_and_patterns(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("2.tif", "1.img", "3.png", "3_preview.png"):
        (folder / name).write_bytes(b"")
    found = scene_paths([f"{folder}/3.png", f"{folder}/[0-9]*"])
    assert [path.name for path in found] == ["3.png", "1.img", "2.tif", "3.png"]
    assert scene_paths([f"{tmp_path}/**/*.png"]) == [folder / "3.png"]
    for word in ("*.jpg", "gone.tif", ""):  # the last is a folder
        with pytest.raises(Refused, match=r"no such file; for all scenes of a folder, give FOLDER/\*.tif"):
            scene_paths([str(tmp_path / word)])


@pytest.mark.parametrize("bands, dtype, facts, error", [
    (3, np.uint8, {}, None),
    (4, np.uint8, {}, "has 4 bands, the network was trained on 3"),
    (3, np.uint16, {}, "its pixels are uint16, the network was trained on uint8"),
    (3, np.float32, {"dtype": "uint16"}, "its pixels are float32, the network was trained on uint16"),
    (3, np.float32, {"dtype": "uint16", "range": [0, 1]}, None),
    (3, np.uint8, {"dtype": "uint16", "range": [0, 1]}, "its pixels are uint8"),
])  # fmt: skip
def test_other_bands_and_other_pixels_are_refused(tmp_path, bands, dtype, facts, error):
    with Raster(save(tmp_path / "a.tif", np.zeros((9, 9, bands), dtype))) as scene:
        if error:
            with pytest.raises(Refused, match=error):
                require_fitting(scene, {**FACTS, **facts})
        else:
            assert require_fitting(scene, {**FACTS, **facts}) == facts.get("range")


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
def test_a_scene_that_does_not_say_how_large_its_pixels_are_is_not_resampled_without_a_word(tmp_path):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    with Raster(tmp_path / "a.png") as scene, ExitStack() as stack:
        assert at_size(scene, FACTS, False, stack) is scene
        with pytest.raises(Refused, match="the scene does not say how many metres a pixel has"):
            at_size(scene, FACTS, True, stack)
