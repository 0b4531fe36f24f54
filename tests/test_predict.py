import sys
from unittest.mock import Mock

import geotiffs
import numpy as np
import pytest
import rasterio
import torch
from commands import error_of, on_two_ranks
from mapping import UTM, read, run, save, save_scene
from random_checkpoint import NAMES, save_random_checkpoint

import predict
from data.voids import filled
from runtime.errors import DiskFull, Refused
from trained import load_trained

SMALL = ("--window", 96, "--overlap", 32, "--precision", "off", "--device", "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save_random_checkpoint(tmp_path_factory.mktemp("run") / "best.pt", width=4)


@pytest.fixture(scope="module")
def trained_on_uint16(tmp_path_factory):
    return save_random_checkpoint(tmp_path_factory.mktemp("run16") / "best.pt", width=4, dtype="uint16")


def whole_scene(trained, pixels):
    """Class probabilities of a scene in one piece, (C, H, W)."""
    with torch.inference_mode():
        image = torch.from_numpy(pixels.astype(np.int32)).permute(2, 0, 1)[None]
        return load_trained(trained, "cpu")(image).softmax(dim=1)[0].numpy()


def test_a_map_has_the_scenes_georeference_and_probabilities_the_classes_names(trained, tmp_path):
    scene = save_scene(tmp_path / "scene.tif", 610, 530)
    run(trained, scene, "--out", tmp_path / "map.tif", "--probs", "--window", 256)
    labels, probs = read(tmp_path / "map.tif"), read(tmp_path / "map_probs.tif")
    assert labels.shape == (610, 530) and set(np.unique(labels)) <= {0, 1, 2, 3}
    assert probs.shape == (610, 530, 4) and np.abs(probs.sum(axis=2, dtype=int) - 254).max() <= 2
    with rasterio.open(scene) as original:
        for name in ("map.tif", "map_probs.tif"):  # maps/test_map_writer.py looks at all that they hold
            with rasterio.open(tmp_path / name) as made:
                assert (made.crs, made.transform, made.nodata) == (original.crs, original.transform, 255)
                assert name == "map.tif" or made.descriptions == NAMES


@pytest.mark.parametrize("name, points", [("a.jpg", ()), ("a.tif", ((0, 0, 7, 38), (0, 90, 8, 38), (70, 0, 7, 37)))])
def test_a_map_has_no_georeference_or_the_scenes_ground_control_points(trained, tmp_path, name, points):
    place = {"gcps": [rasterio.control.GroundControlPoint(*p) for p in points], "crs": "EPSG:4326"} if points else {}
    with rasterio.open(tmp_path / name, "w", height=70, width=90, count=3, dtype="uint8", **place) as scene:
        scene.write(np.random.default_rng(0).integers(0, 255, (3, 70, 90)))
    run(trained, tmp_path / name, "--out", tmp_path / "map.tif", *SMALL)
    told = rasterio.Env() if points else pytest.warns(rasterio.errors.NotGeoreferencedWarning)
    with told, rasterio.open(tmp_path / "map.tif") as made:
        assert made.shape == (70, 90) and made.transform.is_identity and made.crs is None
        assert [(p.row, p.col, p.x, p.y) for p in made.gcps[0]] == [*points] and bool(made.gcps[1]) == bool(points)


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (33, 31), (96, 64)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_small_and_odd_scenes_are_mapped_whole(trained, trained_on_uint16, tmp_path, size, dtype):
    trained = trained if dtype == np.uint8 else trained_on_uint16
    scene = save_scene(tmp_path / "scene.tif", *size, dtype=dtype)
    run(trained, scene, "--out", tmp_path / "map.tif", "--probs", "--window", 256, "--precision", "off")
    probs, labels = read(tmp_path / "map_probs.tif"), read(tmp_path / "map.tif")
    assert probs.shape[:2] == size == labels.shape
    if min(size) >= 32:  # smaller ones the network does not take by itself
        expected = whole_scene(trained, read(scene))
        assert np.abs(probs / 254 - expected.transpose(1, 2, 0)).max() <= 0.5 / 254 + 1e-5
        assert np.array_equal(labels, expected.argmax(axis=0))


def test_the_middle_of_a_map_by_windows_is_that_of_the_whole_scene(trained, tmp_path):
    scene = save_scene(tmp_path / "scene.tif", 1000, 1000)
    run(trained, scene, "--out", tmp_path / "map.tif", "--window", 960, "--overlap", 480, "--precision", "off")
    labels, expected = read(tmp_path / "map.tif"), whole_scene(trained, read(scene)).argmax(axis=0)
    assert np.array_equal(labels[352:-384, 352:-384], expected[352:-384, 352:-384])  # 352 px inside of each window
    assert (labels == expected).mean() > 0.9


def test_pixels_without_data_stay_without_and_are_no_work(trained, tmp_path, monkeypatch):
    pixels = read(save_scene(tmp_path / "scene.tif", 200, 300))
    pixels[:, :150] = pixels[20:30, 200:220] = 0
    pixels[40:, :, 0] = 0  # one band alone is data
    scene, counted = save(tmp_path / "scene.tif", pixels, nodata=0), Mock(wraps=predict.predict)
    monkeypatch.setattr(predict, "predict", counted)
    run(trained, scene, "--out", tmp_path / "map.tif", "--probs", *SMALL)
    void = (pixels == 0).all(axis=2)
    assert np.array_equal(read(tmp_path / "map.tif") == 255, void)
    assert np.array_equal(read(tmp_path / "map_probs.tif") == 255, np.repeat(void[..., None], 4, axis=2))
    assert counted.call_count == 9  # of 3 x 5 windows 3 x 2 hold nothing


@pytest.mark.parametrize("how", ["nodata 0", "nodata 65535", "mask", "mask beside", "alpha", "NaN"])
def test_every_face_of_no_data_gives_the_map_of_the_scene_that_is_filled(trained_on_uint16, tmp_path, how, capsys):
    pixels, held = read(save_scene(tmp_path / "plain.tif", 128, 160, dtype=np.uint16)), np.ones((128, 160), bool)
    held[:60, :70] = held[100:110, 40:90] = False
    pixels[127] = 1  # the least of the range, to which values below it are held
    trained, nodata = trained_on_uint16, int(how[7:]) if how.startswith("nodata") else None
    seen = np.where(held[..., None], pixels, nodata or 0)
    if how == "NaN":
        trained = save_random_checkpoint(tmp_path / "range.pt", width=4, dtype="uint16", value_range=(0.0, 1.0))
        seen = np.where(held[..., None], (pixels - 1) / 65534, np.nan).astype(np.float32)
        seen[127] = -3.0
    geotiffs.write(tmp_path / "a.tif", seen, UTM, 26918, nodata)
    if how in ("mask", "mask beside", "alpha"):
        geotiffs.hide(tmp_path / "a.tif", held, how)
    words = "--window", 160, "--overlap", 0, "--probs", *SMALL[4:]
    run(trained, tmp_path / "a.tif", "--out", tmp_path / "map.tif", *words)
    assert ("a.tif: 0.8% of its pixels lie outside 0 to 1 and are clipped" in capsys.readouterr().out) == (how == "NaN")
    run(trained_on_uint16, save(tmp_path / "plain.tif", filled(pixels, ~held)), "--out", tmp_path / "b.tif", *words)
    labels, probs = read(tmp_path / "map.tif"), read(tmp_path / "map_probs.tif")
    assert np.array_equal(labels == 255, ~held) and np.array_equal((probs == 255).all(axis=2), ~held)
    assert np.array_equal(labels[held], read(tmp_path / "b.tif")[held])
    assert np.array_equal(probs[held], read(tmp_path / "b_probs.tif")[held])


def test_real_naip_is_mapped_whole_though_its_near_infrared_is_tagged_alpha(real, tmp_path):
    trained = save_random_checkpoint(tmp_path / "best.pt", width=4, bands=4)
    scene = sorted((real / "naip215" / "dataset_split" / "test" / "img").glob("*.tif"))[0]
    run(trained, scene, "--out", tmp_path / "map.tif", *SMALL)
    assert (read(tmp_path / "map.tif") != 255).all()


def test_tta_is_the_mean_over_eight_views_of_the_scene(trained, tmp_path):
    scene = save_scene(tmp_path / "scene.tif", 64, 96)
    run(trained, scene, "--out", tmp_path / "map.tif", "--tta", "--probs", "--precision", "off")
    pixels, views = read(scene), []
    for k in range(8):
        view = np.rot90(pixels, k % 4)[:, :: -1 if k > 3 else 1]
        probs = whole_scene(trained, view.copy()).transpose(1, 2, 0)
        views.append(np.rot90(probs[:, :: -1 if k > 3 else 1], -(k % 4)))
    probs = read(tmp_path / "map_probs.tif") / 254
    assert np.abs(probs - np.mean(views, axis=0)).max() <= 0.5 / 254 + 1e-5


def test_another_pixel_size_is_warned_of_and_resample_maps_at_the_training_images_size(trained, tmp_path, capsys):
    pixels = read(save_scene(tmp_path / "plain.tif", 64, 96))
    fine = save(tmp_path / "fine.tif", pixels.repeat(2, 0).repeat(2, 1), affine=(0.5, 0, 4e5, 0, -0.5, 4.1e6))
    run(trained, fine, "--out", tmp_path / "warned.tif", *SMALL)
    said = capsys.readouterr().err
    assert said.count("its pixels are 0.5 m") == said.count("--resample maps it at 1 m") == 1
    run(trained, fine, "--out", tmp_path / "map.tif", "--resample", *SMALL)
    run(trained, tmp_path / "plain.tif", "--out", tmp_path / "b.tif", "--resample", *SMALL)
    assert "its pixels are" not in capsys.readouterr().err
    assert np.array_equal(read(tmp_path / "map.tif"), read(tmp_path / "b.tif"))
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(tmp_path / "b.tif") as plain:
        assert (made.transform, made.crs) == (plain.transform, plain.crs)


def test_maps_that_exist_are_skipped_and_overwrite_makes_them_anew(trained, tmp_path, capsys):
    scene, out = save_scene(tmp_path / "scene.tif", 64, 64), tmp_path / "map.tif"
    run(trained, scene, "--out", out, *SMALL)
    before, other = out.read_bytes(), save_random_checkpoint(tmp_path / "other.pt", width=4, seed=1)
    run(other, scene, "--out", out, *SMALL)
    assert "1 of 1 maps exist and are skipped; --overwrite" in capsys.readouterr().out and out.read_bytes() == before
    run(other, scene, "--out", out, "--probs", *SMALL)  # a map and its probabilities are of one network
    assert out.read_bytes() != before and (tmp_path / "map_probs.tif").exists()
    run(trained, scene, "--out", out, "--probs", "--overwrite", *SMALL)
    assert out.read_bytes() == before


def test_a_scene_that_breaks_leaves_nothing_and_the_others_are_mapped(trained, tmp_path, capsys):
    for name in "abc":
        save_scene(tmp_path / f"{name}.tif", 600, 40)
    (tmp_path / "b.tif").write_bytes((tmp_path / "b.tif").read_bytes()[:-99])
    maps, large = tmp_path / "maps", ("--window", 640, *SMALL[4:])
    with pytest.raises(Refused, match="1 of 3 scenes could not be mapped"):
        run(trained, tmp_path / "*.tif", "--out", maps, "--probs", *large)
    assert "not mapped:" in (said := capsys.readouterr().err) and "b.tif" in said
    expected = ["a.tif", "a_preview.png", "a_probs.tif", "c.tif", "c_preview.png", "c_probs.tif"]
    assert sorted(path.name for path in maps.iterdir()) == expected
    with pytest.raises(Refused, match="b.tif"):
        run(trained, tmp_path / "b.tif", "--out", maps, *large)
    assert sorted(path.name for path in maps.iterdir()) == expected


def test_a_disk_that_fills_ends_it_and_keeps_what_is_complete(trained, tmp_path, monkeypatch):
    for name in "abc":
        save_scene(tmp_path / f"{name}.tif", 100, 100)

    def full(writer, *block, put=predict.MapWriter.put):
        if writer.path.name == "b.tif":
            raise DiskFull(f"{writer.path}: cannot be written: No space left on device")
        put(writer, *block)

    monkeypatch.setattr(predict.MapWriter, "put", full)
    with pytest.raises(DiskFull, match="b.tif: cannot be written: No space left"):
        run(trained, tmp_path / "*.tif", "--out", tmp_path / "maps", *SMALL)
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["a.tif", "a_preview.png"]


def test_two_processes_share_the_scenes(trained, tmp_path):
    for i in range(3):
        save_scene(tmp_path / f"{i}.tif", 40 + i, 64)
    printed = on_two_ranks("predict.py", trained, tmp_path / "*.tif", "--out", tmp_path / "maps", *SMALL)
    made = [line.split(":")[0][-5:] for line in printed.splitlines() if "megapixels/s" in line]
    assert sorted(made) == ["0.tif", "1.tif", "2.tif"]
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.tif")) == ["0.tif", "1.tif", "2.tif"]


def test_outputs_that_would_overwrite_something_are_refused(trained, tmp_path):
    scene = save_scene(tmp_path / "a.tif", 40, 40)
    (tmp_path / "other").mkdir()
    twin = save_scene(tmp_path / "other" / "a.tif", 40, 40)
    before = scene.read_bytes()
    for out, scenes, reason in (
        (tmp_path, [scene], "would overwrite a scene"),
        (scene, [scene], "would overwrite a scene"),
        (tmp_path / "maps", [scene, twin], "or another scene's map"),
        (tmp_path / "map.tif", [scene, twin], "names one file, and there are 2 scenes"),
    ):
        with pytest.raises(Refused, match=reason):
            run(trained, *scenes, "--out", out)
    assert scene.read_bytes() == before and not (tmp_path / "maps").exists()


def test_what_cannot_be_is_one_line(trained, tmp_path, capsys, monkeypatch):
    scene, out = save_scene(tmp_path / "a.tif", 40, 40), tmp_path / "map.tif"
    for words in (["--window", 100], ["--overlap", 20]):
        with pytest.raises(SystemExit):
            run(trained, scene, "--out", out, *words)
        assert f"{words[0]}" in capsys.readouterr().err
    for words in (["--window", 0], ["--overlap", 640]):
        with pytest.raises(Refused, match=f"{words[0]} {words[1]}: should be"):
            run(trained, scene, "--out", out, *words)
    assert "no such file" in error_of("predict.py", trained, tmp_path / "no.tif", "--out", out)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(Refused, match="pip install -r requirements-scenes.txt"):
        run(trained, scene, "--out", out)
