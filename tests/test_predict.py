import os
import sys

import numpy as np
import pytest
import tifffile
import torch
from commands import TORCHRUN, error_of, run_script
from geokeys import SCALE_AND_TIE, albers, tags
from mapping import default_signals, run  # noqa: F401 - a fixture
from PIL import Image
from random_checkpoint import COLORS, NAMES, save_random_checkpoint

import predict
from data.rasters import georeference, geotiff
from runtime.errors import DiskFull, Refused
from trained import load_trained

UTM = (1.0, 0.0, 400000.0, 0.0, -1.0, 4100000.0)
SMALL = ("--window", 96, "--overlap", 32, "--precision", "off", "--device", "cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return save_random_checkpoint(tmp_path_factory.mktemp("run") / "best.pt", width=4)


@pytest.fixture(scope="module")
def trained_on_uint16(tmp_path_factory):
    return save_random_checkpoint(tmp_path_factory.mktemp("run16") / "best.pt", width=4, dtype="uint16")


def save_scene(path, height, width, dtype=np.uint8, bands=3, **header):
    rng = np.random.default_rng(height * width)
    small = rng.integers(1, 250, (height // 8 + 1, width // 8 + 1, bands))
    pixels = np.kron(small, np.ones((8, 8, 1), int))[:height, :width].astype(dtype)
    header = {"transform": UTM, "epsg": 26918, **header}
    geotiff.write(path, pixels, **header)
    return path


def whole_scene(trained, path):
    """Class probabilities of a scene in one piece, (C, H, W)."""
    with torch.inference_mode():
        image = torch.from_numpy(geotiff.read(path)[0].astype(np.int32)).permute(2, 0, 1)[None]
        return load_trained(trained, "cpu")(image).softmax(dim=1)[0].numpy()


def test_a_map_has_the_scenes_georeference_and_the_classes_colours(trained, tmp_path):
    scene = save_scene(tmp_path / "scene.tif", 610, 530)
    run(trained, scene, "--out", tmp_path / "map.tif", "--probs", "--window", 256)
    labels, header = geotiff.read(tmp_path / "map.tif")
    assert labels.shape == (610, 530, 1) and set(np.unique(labels)) <= {0, 1, 2, 3}
    assert (header.transform, header.epsg, header.nodata) == (UTM, 26918, 255)
    assert header.palette[:4].tolist() == [list(color) for color in COLORS]
    probs, header = geotiff.read(tmp_path / "map_probs.tif")
    assert probs.shape == (610, 530, 4) and (header.transform, header.nodata) == (UTM, 255)
    assert np.abs(probs.sum(axis=2, dtype=int) - 254).max() <= 2
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(tmp_path / "map.tif") as raster, rasterio.open(scene) as original:
        assert (raster.crs, raster.transform, raster.nodata) == (original.crs, original.transform, 255)
        assert raster.overviews(1) == [2] and raster.colormap(1)[1][:3] == (0, 100, 0)
    with rasterio.open(tmp_path / "map_probs.tif") as raster:
        assert raster.descriptions == NAMES


HEIGHTS = [(1024, 1), (3072, 26918), (4096, 5703)]
CORNERS = (0, 0, 0, -77, 38, 0, 90, 0, 0, -76, 38, 0, 0, 70, 0, -77, 37, 0, 90, 70, 0, -76, 37.1, 0)
MATRIX = (3, 1, 0, 100, 1, -3, 0, 50, *[0] * 7, 1)
PLACES = {
    "Albers of its own": albers() + SCALE_AND_TIE,
    "UTM and heights": tags(HEIGHTS, texts={1026: "NAD83 / UTM 18N + NAVD88"}) + SCALE_AND_TIE,
    "points": tags([(1024, 1), (1025, 2), (3072, 26918)]) + SCALE_AND_TIE,
    "control points": [*tags([(1024, 2), (2048, 4326)]), (33922, "d", 24, CORNERS, True)],
    "tilted": [*tags([(1024, 1), (3072, 2263), (3076, 9003)]), (34264, "d", 16, MATRIX, True)],
    "rational polynomials": [(50844, "d", 92, tuple(range(92)), True)],
    "nothing": [],
}


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("place", PLACES)
def test_a_map_lies_where_its_scene_lies_word_for_word(trained, tmp_path, place, byteorder, capsys):
    pixels = np.random.default_rng(0).integers(1, 250, (70, 90, 3), np.uint8)
    options = {"photometric": "rgb", "metadata": None, "byteorder": byteorder, "extratags": PLACES[place]}
    tifffile.imwrite(tmp_path / "scene.tif", pixels, **options)
    run(trained, tmp_path / "scene.tif", "--out", tmp_path / "map.tif", "--probs", *SMALL)
    assert "lies by" not in capsys.readouterr().err
    with tifffile.TiffFile(tmp_path / "scene.tif") as scene:
        expected = {code: np.asarray(scene.pages[0].tags.valueof(code)).tolist() for code in georeference.TAGS}
    for name in ("map.tif", "map_probs.tif"):
        with tifffile.TiffFile(tmp_path / name) as tiff:
            assert {c: np.asarray(tiff.pages[0].tags.valueof(c)).tolist() for c in georeference.TAGS} == expected
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(tmp_path / "map.tif") as made, rasterio.open(tmp_path / "scene.tif") as scene:
        assert (made.crs, made.transform, made.rpcs) == (scene.crs, scene.transform, scene.rpcs)
        points = [[(p.row, p.col, p.x, p.y) for p in raster.gcps[0]] for raster in (made, scene)]
        assert points[0] == points[1] and made.gcps[1] == scene.gcps[1]


@pytest.mark.parametrize("beside", ["scene.tfw", "scene.tif.aux.xml"])
def test_a_georeference_in_a_file_beside_the_scene_is_said_to_be_lost(trained, tmp_path, beside, capsys):
    scene = save_scene(tmp_path / "scene.tif", 70, 90, transform=None, epsg=None)
    (tmp_path / beside).write_text("<PAMDataset><GeoTransform>1, 2</GeoTransform></PAMDataset>")
    run(trained, scene, "--out", tmp_path / "map.tif", *SMALL)
    said = f"{scene}: lies by {beside}, which is not read: its map has no georeference; gdal_translate {scene} "
    assert f"warning: {said}" in capsys.readouterr().err
    save_scene(scene, 70, 90)
    run(trained, scene, "--out", tmp_path / "placed.tif", *SMALL)
    assert "lies by" not in capsys.readouterr().err


def test_what_a_file_beside_a_scene_says_of_its_system_and_its_data_is_said_to_be_lost(trained, tmp_path, capsys):
    scene = save_scene(tmp_path / "scene.tif", 70, 90, epsg=None)
    (tmp_path / "scene.tif.aux.xml").write_text("<PAMDataset><SRS>PROJCS[any]</SRS></PAMDataset>")
    (tmp_path / "scene.tif.msk").touch()
    run(trained, scene, "--out", tmp_path / "map.tif", *SMALL)
    said = capsys.readouterr().err
    assert "lies by scene.tif.aux.xml, which is not read: its map has no coordinate system; gdalwarp -t_srs" in said
    assert "scene.tif.msk is not read: what it hides is mapped too; gdal_translate --config" in said


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems hold no such name")
def test_names_that_are_no_text_are_mapped(trained, tmp_path):
    scene = save_scene(tmp_path / "scene.tif", 40, 40)
    name = os.fsencode(tmp_path) + b"/lat\xe9.tif"
    os.rename(scene, name)
    words = trained, os.fsdecode(name), "--out", tmp_path / "maps", *SMALL
    run_script("predict.py", *words, PYTHONIOENCODING="utf-8:strict")
    assert len(list((tmp_path / "maps").iterdir())) == 2


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (33, 31), (96, 64)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_small_and_odd_scenes_are_mapped_whole(trained, trained_on_uint16, tmp_path, size, dtype):
    trained = trained if dtype == np.uint8 else trained_on_uint16
    scene = save_scene(tmp_path / "scene.tif", *size, dtype=dtype)
    run(trained, scene, "--out", tmp_path / "map.tif", "--probs", "--window", 256, "--precision", "off")
    probs = geotiff.read(tmp_path / "map_probs.tif")[0]
    assert probs.shape[:2] == size == geotiff.read(tmp_path / "map.tif")[0].shape[:2]
    if min(size) >= 32:  # smaller ones the network does not take by itself
        expected = whole_scene(trained, scene)
        assert np.abs(probs / 254 - expected.transpose(1, 2, 0)).max() <= 0.5 / 254 + 1e-5
        assert np.array_equal(geotiff.read(tmp_path / "map.tif")[0][..., 0], expected.argmax(axis=0))


def test_the_middle_of_a_map_by_windows_is_that_of_the_whole_scene(trained, tmp_path):
    scene = save_scene(tmp_path / "scene.tif", 1000, 1000)
    run(trained, scene, "--out", tmp_path / "map.tif", "--window", 960, "--overlap", 480, "--precision", "off")
    labels = geotiff.read(tmp_path / "map.tif")[0][..., 0]
    expected = whole_scene(trained, scene).argmax(axis=0)
    assert np.array_equal(labels[352:-384, 352:-384], expected[352:-384, 352:-384])  # 352 px inside of each window
    assert (labels == expected).mean() > 0.9


def test_pixels_without_data_stay_without_and_are_no_work(trained, tmp_path, monkeypatch):
    scene = save_scene(tmp_path / "scene.tif", 200, 300, nodata=0)
    pixels, header = geotiff.read(scene)
    pixels[:, :150] = pixels[20:30, 200:220] = 0
    geotiff.write(scene, pixels, transform=UTM, epsg=26918, nodata=0)
    asked, predict_windows = [], predict.predict

    def counting(trained, windows, *more):
        asked.append(len(windows))
        return predict_windows(trained, windows, *more)

    monkeypatch.setattr(predict, "predict", counting)
    run(trained, scene, "--out", tmp_path / "map.tif", "--probs", "--batch", 2, *SMALL)
    void = (pixels == 0).all(axis=2)
    assert np.array_equal(geotiff.read(tmp_path / "map.tif")[0][..., 0] == 255, void)
    assert np.array_equal(geotiff.read(tmp_path / "map_probs.tif")[0] == 255, np.repeat(void[..., None], 4, axis=2))
    assert sum(asked) == 9 and max(asked) == 2  # of 3 x 5 windows 3 x 2 hold nothing


def test_a_scene_that_ends_in_pixels_without_data_is_mapped_as_if_it_ended_there(trained, tmp_path):
    whole = save_scene(tmp_path / "whole.tif", 100, 120, nodata=0)
    pixels = np.maximum(geotiff.read(whole)[0], 1)
    geotiff.write(tmp_path / "cut.tif", pixels[:99, :101], nodata=0)
    pixels[99:] = pixels[:, 101:] = 0
    geotiff.write(whole, pixels, nodata=0)
    for name in ("whole", "cut"):
        run(trained, tmp_path / f"{name}.tif", "--out", tmp_path / f"{name}_map.tif", "--precision", "off")
    whole, cut = (geotiff.read(tmp_path / f"{name}_map.tif")[0] for name in ("whole", "cut"))
    assert np.array_equal(whole[:99, :101], cut) and (whole[99:] == 255).all() and (whole[:, 101:] == 255).all()


@pytest.mark.parametrize("how", ["mask", "alpha"])
def test_what_a_mask_or_an_alpha_band_hides_is_not_mapped(trained, tmp_path, how):
    plain = save_scene(tmp_path / "plain.tif", 300, 200)
    pixels, held = geotiff.read(plain)[0], np.ones((300, 200), bool)
    held[:150, :100] = held[200:220, 40:90] = False
    with tifffile.TiffWriter(tmp_path / "scene.tif") as tiff:
        if how == "alpha":
            four = np.dstack([pixels, held * np.uint8(9)])
            tiff.write(four, photometric="rgb", extrasamples=("assocalpha",), metadata=None)
        else:
            tiff.write(pixels, photometric="rgb", metadata=None)
            tiff.write(held, subfiletype=4, compression="packbits", metadata=None)
    run(trained, tmp_path / "scene.tif", "--out", tmp_path / "map.tif", *SMALL)
    labels = geotiff.read(tmp_path / "map.tif")[0][..., 0]
    assert np.array_equal(labels == 255, ~held)
    pixels[~held] = 0  # the same picture by nodata
    geotiff.write(plain, pixels, nodata=0)
    run(trained, plain, "--out", tmp_path / "other.tif", *SMALL)
    assert np.array_equal(labels, geotiff.read(tmp_path / "other.tif")[0][..., 0])


def test_an_alpha_band_is_a_band_of_a_network_of_as_many(tmp_path):
    trained = save_random_checkpoint(tmp_path / "best.pt", width=4, bands=4)
    near_infrared = np.zeros((64, 96), np.uint8)  # which is dark over water
    pixels = np.dstack([np.full((64, 96, 3), 90, np.uint8), near_infrared])
    tifffile.imwrite(tmp_path / "scene.tif", pixels, photometric="rgb", extrasamples=("unassalpha",), metadata=None)
    run(trained, tmp_path / "scene.tif", "--out", tmp_path / "map.tif", *SMALL)
    assert (geotiff.read(tmp_path / "map.tif")[0] != 255).all()


def test_what_the_scene_lacks_does_not_colour_what_it_has(trained_on_uint16, tmp_path):
    maps = []
    for nodata in (0, 65535):
        scene = save_scene(tmp_path / "scene.tif", 128, 160, dtype=np.uint16)
        pixels, _ = geotiff.read(scene)
        pixels[:, 100:] = nodata
        geotiff.write(scene, pixels, nodata=nodata)
        run(trained_on_uint16, scene, "--out", tmp_path / f"{nodata}.tif", *SMALL)
        maps.append(geotiff.read(tmp_path / f"{nodata}.tif")[0])
    assert np.array_equal(*maps)


def test_batches_and_threads_change_nothing(trained, tmp_path):
    scene = save_scene(tmp_path / "scene.tif", 300, 330)
    for batch in (1, 4):
        run(trained, scene, "--out", tmp_path / f"{batch}.tif", "--batch", batch, *SMALL)
    one, four = (geotiff.read(tmp_path / f"{batch}.tif")[0] for batch in (1, 4))
    assert (one != four).mean() < 1e-4  # a batch may round otherwise


def test_readers_change_nothing_and_what_one_cannot_decode_is_one_line(trained, tmp_path):
    scene, maps = save_scene(tmp_path / "scene.tif", 300, 330), []
    geotiff.write(scene, geotiff.read(scene)[0], tile_px=32)
    for readers in (1, 4):
        run(trained, scene, "--out", tmp_path / f"{readers}.tif", "--readers", readers, *SMALL)
        maps.append(geotiff.read(tmp_path / f"{readers}.tif")[0])
    assert np.array_equal(*maps)
    with tifffile.TiffFile(scene) as tiff:
        place, count = tiff.pages[0].dataoffsets[60], tiff.pages[0].databytecounts[60]
    with open(scene, "r+b") as file:
        file.seek(place)
        file.write(bytes(count))
    with pytest.raises(Refused, match="scene.tif: corrupt") as raised:
        run(trained, scene, "--out", tmp_path / "map.tif", "--readers", 4, *SMALL)
    assert "\n" not in str(raised.value) and not list(tmp_path.glob("*map.tif*"))


def test_tta_is_the_mean_over_eight_views_of_the_scene(trained, tmp_path):
    scene = save_scene(tmp_path / "scene.tif", 64, 96)
    run(trained, scene, "--out", tmp_path / "map.tif", "--tta", "--probs", "--precision", "off")
    pixels, views = geotiff.read(scene)[0], []
    for k in range(8):
        view = np.rot90(pixels, k % 4)[:, :: -1 if k > 3 else 1]
        geotiff.write(tmp_path / "view.tif", view)
        probs = whole_scene(trained, tmp_path / "view.tif").transpose(1, 2, 0)
        views.append(np.rot90(probs[:, :: -1 if k > 3 else 1], -(k % 4)))
    probs = geotiff.read(tmp_path / "map_probs.tif")[0] / 254
    assert np.abs(probs - np.mean(views, axis=0)).max() <= 0.5 / 254 + 1e-5


def test_pictures_give_maps_without_georeference(trained, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(pixels).save(tmp_path / "other.jpg")
    run(trained, tmp_path / "photo.png", tmp_path / "other.jpg", "--out", tmp_path / "maps", *SMALL)
    for name in ("photo", "other"):
        labels, header = geotiff.read(tmp_path / "maps" / f"{name}.tif")
        assert labels.shape == (70, 90, 1) and header.transform is None and header.epsg is None


def test_a_complete_map_is_not_made_again_and_one_made_otherwise_is_not_overwritten(trained, tmp_path, capsys):
    scene, out = save_scene(tmp_path / "scene.tif", 64, 64), tmp_path / "map.tif"
    run(trained, scene, "--out", out, *SMALL)
    before = out.stat().st_mtime_ns
    capsys.readouterr()
    run(trained, scene, "--out", out, *SMALL)
    assert out.stat().st_mtime_ns == before and "1 of 1 scenes are complete" in capsys.readouterr().out
    with pytest.raises(Refused, match="map.tif: is there, but by other means.*tta False.*tta True"):
        run(trained, scene, "--out", out, "--tta", *SMALL)
    save_random_checkpoint(tmp_path / "other.pt", width=4, seed=1)
    with pytest.raises(Refused, match="by other means"):
        run(tmp_path / "other.pt", scene, "--out", out, *SMALL)
    assert out.stat().st_mtime_ns == before
    run(trained, scene, "--out", out, "--probs", *SMALL)
    assert (tmp_path / "map_probs.tif").exists() and out.stat().st_mtime_ns > before


def test_a_scene_that_changes_in_place_is_mapped_anew_and_one_that_is_copied_is_not(trained, tmp_path):
    scene, out = save_scene(tmp_path / "scene.tif", 64, 64), tmp_path / "map.tif"
    run(trained, scene, "--out", out, *SMALL)
    before, made = out.read_bytes(), out.stat().st_mtime_ns
    os.utime(scene, (1, 1))
    run(trained, scene, "--out", out, *SMALL)
    assert out.stat().st_mtime_ns == made
    content = bytearray(scene.read_bytes())
    pixels = geotiff.read(scene)[0]
    geotiff.write(scene, 255 - pixels, transform=UTM, epsg=26918)
    scene.write_bytes(scene.read_bytes().ljust(len(content) + 99, b"\0")[: len(content) + 99])
    run(trained, scene, "--out", out, *SMALL)
    assert out.read_bytes() != before
    recipe = predict.read_description(out)
    assert predict.is_complete([out], recipe) and not predict.is_complete([out], recipe[:-1] + "x")


def test_of_a_large_scene_the_time_of_change_counts_too(trained, tmp_path, monkeypatch):
    scene, out = save_scene(tmp_path / "scene.tif", 64, 64), tmp_path / "map.tif"
    monkeypatch.setattr(predict.content, "WHOLE", 100)
    run(trained, scene, "--out", out, *SMALL)
    made = out.stat().st_mtime_ns
    run(trained, scene, "--out", out, *SMALL)
    assert out.stat().st_mtime_ns == made
    os.utime(scene, (1, 1))  # as of a change between the pieces that are read
    run(trained, scene, "--out", out, *SMALL)
    assert out.stat().st_mtime_ns > made


def test_a_map_of_the_first_versions_holds_by_its_scenes_size(tmp_path, monkeypatch):
    (tmp_path / "map.tif").touch()
    for kept, complete in (("5 bytes", True), ("6 bytes", False), ("5 bytes, content ab", True)):
        monkeypatch.setattr(predict, "read_description", lambda _, kept=kept: f"Low2High: so, scene of {kept}")
        assert predict.is_complete([tmp_path / "map.tif"], "Low2High: so, scene of 5 bytes, content ab") == complete


def test_a_scene_that_breaks_leaves_nothing_and_the_others_are_mapped(trained, tmp_path, capsys):
    for name in "abc":
        save_scene(tmp_path / f"{name}.tif", 600, 40)
    with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
        offset = tiff.pages[0].dataoffsets[1]
    with open(tmp_path / "b.tif", "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 50)
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
    put = predict.MapWriter.put

    def full(writer, block):
        if writer.path.name == "b.tif":
            raise DiskFull(f"{writer.path}: cannot be written: No space left on device")
        put(writer, block)

    monkeypatch.setattr(predict.MapWriter, "put", full)
    with pytest.raises(DiskFull, match="b.tif: cannot be written: No space left"):
        run(trained, tmp_path / "*.tif", "--out", tmp_path / "maps", *SMALL)
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["a.tif", "a_preview.png"]


def test_two_processes_share_the_scenes(trained, tmp_path):
    for i in range(3):
        save_scene(tmp_path / f"{i}.tif", 40 + i, 64)
    printed = run_script(*TORCHRUN, "predict.py", trained, tmp_path / "*.tif", "--out", tmp_path / "maps", *SMALL)
    made = [line.split(":")[0][-5:] for line in printed.splitlines() if "megapixels/s" in line]
    assert sorted(made) == ["0.tif", "1.tif", "2.tif"]
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.tif")) == ["0.tif", "1.tif", "2.tif"]
    assert len(list((tmp_path / "maps").glob("*_preview.png"))) == 3


def test_other_bands_are_refused_and_other_pixel_sizes_warned_of(trained, tmp_path, capsys):
    with pytest.raises(Refused, match="4 bands, the network was trained on 3"):
        run(trained, save_scene(tmp_path / "four.tif", 40, 40, bands=4), "--out", tmp_path / "map.tif")
    scene = save_scene(tmp_path / "fine.tif", 40, 40, transform=(0.5, 0, 4e5, 0, -0.5, 4e6))
    run(trained, scene, "--out", tmp_path / "map.tif", *SMALL)
    assert capsys.readouterr().err.count("gdalwarp -tr 1 1 -r average") == 1


def test_outputs_that_would_overwrite_something_are_refused(trained, tmp_path):
    scene = save_scene(tmp_path / "a.tif", 40, 40)
    (tmp_path / "other").mkdir()
    twin = save_scene(tmp_path / "other" / "a.tif", 40, 40)
    before = scene.read_bytes()
    for out, scenes, reason in (
        (tmp_path, [scene], "is a scene itself"),
        (scene, [scene], "is a scene itself"),
        (tmp_path / "maps", [scene, twin], "so is"),
        (tmp_path / "map.tif", [scene, twin], "names one file, and there are 2 scenes"),
    ):
        with pytest.raises(Refused, match=reason):
            run(trained, *scenes, "--out", out)
    assert scene.read_bytes() == before and not (tmp_path / "maps").exists()


def test_words_that_cannot_be_are_one_line(trained, tmp_path, capsys):
    for words in (["--window", 100], ["--window", 0], ["--overlap", 640], ["--overlap", 20], ["--batch", 0]):
        with pytest.raises(SystemExit):
            run(trained, "scene.tif", "--out", tmp_path / "map.tif", *words)
        assert f"{words[0]} {words[1]}: must be" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(trained, "scene.tif", "--out", "")
    assert "argument --out: is empty" in capsys.readouterr().err
    assert "no such file" in error_of("predict.py", trained, tmp_path / "no.tif", "--out", tmp_path / "map.tif")
