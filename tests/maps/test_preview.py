"""MAP_preview.png beside the maps of predict.py."""


import numpy as np
import pytest
from mapping import default_signals, run  # noqa: F401 - a fixture
from PIL import Image
from random_checkpoint import COLORS, save_random_checkpoint

from data.rasters import geotiff
from maps import preview
from runtime.errors import Refused

SMALL = ("--window", 96, "--overlap", 32, "--precision", "off", "--device", "cpu")
BLUE = (30, 60, 250)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save_random_checkpoint(tmp_path_factory.mktemp("run") / "best.pt", width=4)


def save_scene(path, height, width, nodata=None):
    """Blocks of 8 px; the right half is without data where there is a value for it."""
    pixels = np.random.default_rng(0).integers(1, 250, (-(-height // 8), -(-width // 8), 3), np.uint8)
    pixels = pixels.repeat(8, 0).repeat(8, 1)[:height, :width]
    if nodata is not None:
        pixels[:, width // 2 :] = nodata
    geotiff.write(path, pixels, nodata=nodata)
    return path


def panels(path, size):
    """The two panels of a preview, (H, W, 3) each, at the scale of 1."""
    height, width = size
    sheet = np.asarray(Image.open(path))
    column = (sheet.shape[1] - 6) // 2
    left = [6 + k * column + (column - 6 - width) // 2 for k in range(2)]
    return [sheet[22 : 22 + height, x : x + width] for x in left]


def test_a_preview_shows_scene_and_map_where_they_lie_and_at_most_so_many_pixels(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "SIDE_PX", 300)
    scene = save_scene(tmp_path / "scene.tif", 1100, 1150, nodata=0)
    run(trained, scene, "--out", tmp_path / "map.tif", "--window", 256, "--overlap", 64, *SMALL[4:])
    labels, seen = geotiff.read(tmp_path / "map.tif")[0][::4, ::4, 0], geotiff.read(scene)[0][::4, ::4]
    image, shown = panels(tmp_path / "map_preview.png", labels.shape)
    held = labels != 255
    assert np.array_equal(held, seen[..., 0] != 0) and (image[~held] == 255).all() and (shown[~held] == 255).all()
    assert np.array_equal(shown[held], np.array(COLORS)[labels[held]])
    assert np.abs(image[held].astype(int) - seen[held]).max() <= 8  # its own range is stretched a little
    assert max(Image.open(tmp_path / "map_preview.png").size) < 2 * 300 + 20


def test_a_missing_preview_is_made_again_and_equal_and_no_preview_makes_none(trained, tmp_path, monkeypatch):
    scene, out = save_scene(tmp_path / "scene.tif", 300, 90, nodata=0), tmp_path / "map.tif"
    run(trained, scene, "--out", out, "--no-preview", *SMALL)
    assert not (tmp_path / "map_preview.png").exists()
    run(trained, scene, "--out", out, *SMALL)  # by reading scene and map
    again, mapped = (tmp_path / "map_preview.png").read_bytes(), out.stat().st_mtime_ns
    monkeypatch.setattr(preview.Preview, "remake", None)
    out.unlink()
    run(trained, scene, "--out", out, *SMALL)  # in passing
    assert (tmp_path / "map_preview.png").read_bytes() == again and out.stat().st_mtime_ns > mapped


def test_a_preview_that_is_there_stays_and_one_of_another_map_does_not(trained, tmp_path):
    scene, out = save_scene(tmp_path / "scene.tif", 64, 64), tmp_path / "map.tif"
    run(trained, scene, "--out", out, *SMALL)
    first = (tmp_path / "map_preview.png").stat().st_mtime_ns
    run(trained, scene, "--out", out, *SMALL)
    assert (tmp_path / "map_preview.png").stat().st_mtime_ns == first
    out.unlink()
    run(trained, scene, "--out", out, "--tta", "--no-preview", *SMALL)
    run(trained, scene, "--out", out, "--tta", *SMALL)
    assert "tta True" in Image.open(tmp_path / "map_preview.png").info["Description"]


def test_other_pictures_stay_and_previews_are_no_scenes(trained, tmp_path, capsys):
    for name in ("a.png", "a_preview.png", "b.png"):
        Image.new("RGB", (40, 40), BLUE).save(tmp_path / name)
    before = (tmp_path / "a_preview.png").read_bytes()
    run(trained, tmp_path / "*.png", "--out", tmp_path, *SMALL)
    assert (tmp_path / "a_preview.png").read_bytes() == before
    assert "a_preview.png: no preview: another picture" in capsys.readouterr().out
    run(trained, tmp_path / "*.png", "--out", tmp_path, *SMALL)
    assert "3 of 3 scenes are complete" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("b*")} == {"b.png", "b.tif", "b_preview.png"}
    with pytest.raises(Refused, match="a preview of a map, and no scene"):
        run(trained, tmp_path / "b_preview.png", "--out", tmp_path / "c.tif", *SMALL)


def test_a_preview_that_cannot_be_made_fails_no_map(trained, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preview, "contact_sheet", full)
    scene = save_scene(tmp_path / "scene.tif", 64, 64)
    for _ in range(2):
        run(trained, scene, "--out", tmp_path / "map.tif", *SMALL)
        assert "map_preview.png: no preview: No space left on device" in capsys.readouterr().out
    assert (tmp_path / "map.tif").exists()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (2049, 3)])
def test_scenes_of_any_shape_and_without_any_data_have_one(trained, tmp_path, size):
    scene = save_scene(tmp_path / "scene.tif", *size, nodata=0)
    run(trained, scene, "--out", tmp_path / "map.tif", *SMALL)
    geotiff.write(scene, np.zeros((*size, 3), np.uint8), nodata=0)
    run(trained, scene, "--out", tmp_path / "void.tif", *SMALL)
    assert all(Image.open(tmp_path / f"{name}_preview.png").width > 40 for name in ("map", "void"))
