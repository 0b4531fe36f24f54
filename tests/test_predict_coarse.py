"""predict.py --coarse: the coarse map of a place beside the scene, on any grid and in any coordinate system."""

import numpy as np
import pytest
import torch
from commands import error_of
from mapping import UTM, read, save, tilted
from mapping import run as predict
from random_checkpoint import NAMES, save_random_checkpoint
from rasterio.warp import transform

from beyond.informed import load_informed
from beyond.observation import Observation, merged_table
from beyond.overlay import Overlay
from beyond.table import to_plain
from data.rasters import Raster
from data.samples import stack_cells
from data.tile_io import epsg_system
from runtime.errors import Refused

SMALL = ("--precision", "off", "--device", "cpu", "--probs", "--no-preview")
CODES = [11, 21, 22, 41]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network of random weights that takes coarse labels for what most of their cell is."""
    path = save_random_checkpoint(tmp_path_factory.mktemp("run") / "best.pt", width=4)
    state = torch.load(path, weights_only=True)
    model = Observation(CODES, [0, 2, 3, 1], *merged_table([0, 2, 3, 1], [1] * 4, 4))
    state["data"].update(scale=12, low={0: "ignore", 11: "water", 21: "field", 22: "impervious", 41: "forest"})
    torch.save({**state, "observation": to_plain(model, list(NAMES))}, path)
    return path


x, y = transform("EPSG:26918", "EPSG:5070", [4e5], [4.1e6])
GRIDS = {
    "tilted": (tilted(13, -60, 70, 12.7), (34, 34)),
    "oblong and larger than the scene": ((11, 0, 4e5 - 500, 0, -14, 4.1e6 + 500), (90, 100)),
    "the scene's pixels": (UTM, (250, 290)),
    "Albers": ((12, 0, x[0] - 300, 0, -12, y[0] + 300), (80, 80), 5070),
}


def scene_and_coarse(folder, affine, shape=None, epsg=26918, codes=None, **more):
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(1, 250, (32, 37, 3)), np.ones((8, 8, 1), int))[:250, :290].astype(np.uint8)
    codes = rng.choice(CODES, shape).astype(np.uint8) if codes is None else codes
    more = {"system": epsg_system(epsg), "affine": affine, **more}
    return save(folder / "scene.tif", pixels, nodata=0), save(folder / "nlcd.tif", codes, **more)


def run(trained, scene, out, *more):
    predict(trained, scene, "--out", out, *SMALL, *more)
    return read(out.with_name(f"{out.stem}_probs.tif")).astype(float) / 254


@pytest.mark.parametrize("grid", GRIDS)
def test_a_map_in_the_light_of_a_coarse_one_is_that_of_the_whole_scene(trained, tmp_path, grid):
    scene, coarse = scene_and_coarse(tmp_path, *GRIDS[grid])
    plain = run(trained, scene, tmp_path / "plain.tif")
    probs = run(trained, scene, tmp_path / "map.tif", "--coarse", coarse)
    network = load_informed(trained, "cpu")
    with Raster(coarse) as codes, Raster(scene) as image, torch.inference_mode():
        pixels = torch.from_numpy(image.read(0, 0, *image.size, image.bands)[0].astype(np.int32)).permute(2, 0, 1)[None]
        overlay = Overlay(codes, image, network.coarse_labels(), 12)
        cells = stack_cells([overlay.window(0, 0, 256, 320)])  # windows are multiples of 32
        expected = network.informed(network(pixels), cells, overlay.cell_px).softmax(dim=1)[0]
    assert np.abs(probs - expected.permute(1, 2, 0).numpy()).max() < 0.5 / 254 + 1e-3
    assert np.abs(probs - plain).max() > 0.1


def test_by_windows_the_map_is_nearly_the_same(trained, tmp_path):
    scene, coarse = scene_and_coarse(tmp_path, *GRIDS["tilted"])
    more = ["--coarse", coarse, "--window", 160, "--overlap", 64]
    one = run(trained, scene, tmp_path / "windows.tif", *more)
    whole = run(trained, scene, tmp_path / "map.tif", "--coarse", coarse)
    plain = [run(trained, scene, tmp_path / f"plain{w}.tif", "--window", w, "--overlap", 64) for w in (160, 1024)]
    without = np.abs(plain[0] - plain[1]).mean()  # windows see less around them, with or without coarse labels
    assert np.abs(one - whole).mean() < 1.3 * without
    assert np.abs((one - plain[0]) - (whole - plain[1])).mean() < 0.5 * np.abs(whole - plain[1]).mean()


def test_who_knows_better_says_that_two_systems_are_one(trained, tmp_path):
    scene, coarse = scene_and_coarse(tmp_path, *GRIDS["tilted"])
    one = run(trained, scene, tmp_path / "one.tif", "--coarse", coarse)
    scene_and_coarse(tmp_path, *GRIDS["tilted"], system=())
    with pytest.raises(Refused, match="has no coordinate system, and .* has one; --same-crs"):
        run(trained, scene, tmp_path / "two.tif", "--coarse", coarse)
    assert np.array_equal(one, run(trained, scene, tmp_path / "two.tif", "--coarse", coarse, "--same-crs"))


@pytest.mark.parametrize("more", [(), ("--tta",)])
def test_where_the_coarse_map_ends_the_scene_is_mapped_without(trained, tmp_path, capsys, more):
    scene, coarse = scene_and_coarse(tmp_path, tilted(12), (21, 10))  # 120 of 290 columns
    pixels = read(scene)
    pixels[50:90, 30:120] = 0
    save(scene, pixels, nodata=0)
    probs = run(trained, scene, tmp_path / "map.tif", "--coarse", coarse, *more)
    assert capsys.readouterr().out.count("nlcd.tif has classes over 41.") == 1
    assert np.array_equal((probs > 1).all(axis=2), (pixels == 0).all(axis=2))
    plain = run(trained, scene, tmp_path / "plain.tif", *more)
    assert np.array_equal(probs[:, 160:], plain[:, 160:]) and np.abs(probs - plain)[:, :110].max() > 0.1


def test_coarse_maps_that_cannot_be_used_are_one_line(trained, tmp_path):
    affine, shape = GRIDS["tilted"]
    scene, coarse = scene_and_coarse(tmp_path, affine, codes=np.full(shape, 99, np.uint8))
    with pytest.raises(Refused, match=r"codes without a class: 99 \(\d+ times\)") as caught:
        run(trained, scene, tmp_path / "map.tif", "--coarse", coarse)
    assert "\n" not in str(caught.value) and not (tmp_path / "map.tif").exists()
    words = [trained, scene, "--out", tmp_path / "map.tif", "--coarse"]
    assert "no.tif" in error_of("predict.py", *words, tmp_path / "no.tif")
