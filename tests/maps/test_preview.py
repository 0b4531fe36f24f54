"""MAP_preview.png beside the maps of predict.py."""

from unittest.mock import Mock

import numpy as np
import pytest
from mapping import read, run, save, save_scene
from PIL import Image
from random_checkpoint import COLORS, save_random_checkpoint

from maps import preview

SMALL = ("--window", 256, "--overlap", 64, "--precision", "off", "--device", "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save_random_checkpoint(tmp_path_factory.mktemp("run") / "best.pt", width=4)


def panels(path, size):
    """The two panels of a preview, (H, W, 3) each, at the scale of 1."""
    height, width = size
    sheet = np.asarray(Image.open(path))
    column = (sheet.shape[1] - 6) // 2
    left = [6 + k * column + (column - 6 - width) // 2 for k in range(2)]
    return [sheet[22 : 22 + height, x : x + width] for x in left]


def test_a_preview_shows_scene_and_map_where_they_lie_and_at_most_so_many_pixels(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "SIDE_PX", 600)
    scene = save_scene(tmp_path / "scene.tif", 1100, 1152, nodata=0)
    pixels = read(scene)
    pixels[:, 576:] = 0
    save(scene, pixels, nodata=0)
    run(trained, scene, "--out", tmp_path / "map.tif", *SMALL)
    labels, (image, shown) = read(tmp_path / "map.tif"), panels(tmp_path / "map_preview.png", (550, 576))
    assert (image[:, 288:] == 255).all() and (shown[:, 288:] == 255).all()
    colors = np.array([*COLORS, (255, 255, 255)])
    four = colors[np.minimum(labels, 4)].reshape(550, 2, 576, 2, 3)
    assert (four == shown[:, None, :, None]).all(axis=-1).any(axis=(1, 3)).all()  # the color of one of its pixels
    assert np.abs(image[:, :288].astype(int) - pixels[::2, :576:2]).max() <= 8  # its own range is stretched a little
    assert max(Image.open(tmp_path / "map_preview.png").size) < 2 * 600 + 20


def test_no_preview_makes_none_and_previews_are_no_scenes(trained, tmp_path):
    Image.fromarray(np.full((40, 40, 3), 99, np.uint8)).save(tmp_path / "a.png")
    run(trained, tmp_path / "a.png", "--out", tmp_path, "--no-preview", *SMALL)
    assert not (tmp_path / "a_preview.png").exists()
    run(trained, tmp_path / "a.png", "--out", tmp_path, "--overwrite", *SMALL)
    assert (tmp_path / "a_preview.png").exists()
    run(trained, tmp_path / "*.png", "--out", tmp_path / "maps", *SMALL)
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"a.tif", "a_preview.png"}


def test_a_preview_that_cannot_be_made_fails_no_map(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(preview, "contact_sheet", Mock(side_effect=OSError(28, "No space left on device")))
    run(trained, save_scene(tmp_path / "scene.tif", 64, 64), "--out", tmp_path / "map.tif", *SMALL)
    assert "map_preview.png: no preview: No space left on device" in capsys.readouterr().out
    assert (tmp_path / "map.tif").exists()
