"""tools/export.py: the ONNX model gives the checkpoint's probabilities, and by Deepness the map of predict.py."""

import json
import signal
import sys

import numpy as np
import pytest
import torch
from commands import error_of
from mapping import read, save_scene
from random_checkpoint import NAMES, save_random_checkpoint

import predict
from runtime.errors import Refused
from tools import export
from trained import load_trained

onnx = pytest.importorskip("onnx", reason="onnx is not installed (requirements-export.txt)")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements-export.txt)")
CPU = torch.device("cpu")
PLAIN = ("--precision", "off", "--device", "cpu")


def exported(run, *words):
    """-> the session of the model that tools/export.py makes of a checkpoint."""
    out = run.parent / "onnx" / "model.onnx"
    export.main(export.parse([str(word) for word in (run, "--out", out, *words)]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(out.read_bytes(), options, providers=["CPUExecutionProvider"])


def by_deepness(session, pixels):
    """(B, H, W, K) stored pixels -> (B, C, H, W), scaled and standardised as the plug-in does."""
    known = session.get_modelmeta().custom_metadata_map
    mean, std = (np.float32(json.loads(known[f"standardization_{name}"])) for name in ("mean", "std"))
    image = (np.float32(pixels * 1.0 / 255.0) - mean) / std
    return session.run(None, {session.get_inputs()[0].name: image.transpose(0, 3, 1, 2)})[0]


def random_pixels(batch, height, width, bands, dtype="uint8", seed=0):
    top = {"uint8": 256, "uint16": 65536}[dtype]
    return np.random.default_rng(seed).integers(0, top, (batch, height, width, bands)).astype(dtype)


@torch.inference_mode()
def assert_same(session, trained, pixels):
    probs = by_deepness(session, pixels)
    expected = trained(torch.from_numpy(pixels.astype(np.int32)).permute(0, 3, 1, 2)).softmax(dim=1).numpy()
    assert probs.shape == expected.shape and np.abs(probs - expected).max() <= 1e-4
    assert (probs.argmax(axis=1) != expected.argmax(axis=1)).mean() <= 1e-4
    assert len(np.unique(expected.argmax(axis=1))) > 1  # else nothing was compared


@pytest.mark.parametrize("bands, width", [(3, 16), (4, 16), (3, 64), (4, 64)])
def test_probabilities_are_the_checkpoints(tmp_path, bands, width):
    path = save_random_checkpoint(tmp_path / "best.pt", bands=bands, width=width)
    trained = load_trained(path, CPU)
    for tile_px in (64, 100, 128):
        session = exported(path, "--tile-px", tile_px)
        assert session.get_inputs()[0].shape == ["batch", bands, tile_px, tile_px]
        assert session.get_outputs()[0].shape == ["batch", len(NAMES), tile_px, tile_px]
        for batch in (1, 2):
            assert_same(session, trained, random_pixels(batch, tile_px, tile_px, bands))


def test_a_dynamic_model_takes_any_size_from_32_px_up(tmp_path):
    path = save_random_checkpoint(tmp_path / "best.pt", width=16)
    session, trained = exported(path, "--dynamic", "--tile-px", 64), load_trained(path, CPU)
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    for size in ((1, 32, 32), (3, 33, 95), (1, 250, 131)):
        assert_same(session, trained, random_pixels(*size, 3))


def test_pixels_of_uint16_are_divided_by_255_too(tmp_path):
    path = save_random_checkpoint(tmp_path / "best.pt", dtype="uint16")
    assert_same(exported(path, "--tile-px", 64), load_trained(path, CPU), random_pixels(1, 64, 64, 3, "uint16") // 256)


def test_black_pixels_are_seen_and_padding_is_not(tmp_path):
    path = save_random_checkpoint(tmp_path / "best.pt")
    session, trained = exported(path, "--tile-px", 64), load_trained(path, CPU)
    pixels = random_pixels(1, 64, 64, 3)
    pixels[:, 10:50, 5:60] = 0  # a lake
    assert_same(session, trained, pixels)
    padded = pixels.copy()
    padded[:, 52:] = padded[:, :, 40:] = 0
    going_on = np.pad(pixels[:, :52, :40], ((0, 0), (0, 12), (0, 24), (0, 0)), mode="edge")
    probs = by_deepness(session, padded)
    for other, same in ((going_on, True), (pixels, False)):
        assert (np.abs(probs - by_deepness(session, other)).max() <= 1e-5) == same


def test_the_model_and_its_sidecar_say_what_deepness_asks(tmp_path):
    path = save_random_checkpoint(tmp_path / "best.pt", bands=4)
    session = exported(path, "--tile-px", 96, "--overlap", 20)
    known = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert known == json.loads((path.parent / "onnx" / "model.json").read_text())
    assert known["model_type"] == "Segmentor" and known["resolution"] == 100  # cm, of pixels of 1 m
    assert known["class_names"] == {"0": "water", "1": "forest", "2": "field", "3": "impervious"}
    assert (known["tiles_size"], known["tile_size"], known["tiles_overlap"], known["bands"]) == (96, 96, 20, 4)
    assert (known["standardization_mean"], known["standardization_std"]) == ([0.0] * 4, [1.0] * 4)
    assert known["seg_thresh"] == known["seg_small_segment"] == 0
    assert "range" not in known
    onnx.checker.check_model(onnx.load(path.parent / "onnx" / "model.onnx"))


def deepness_map(session, scene):
    """A scene (H, W, K) -> (H, W) classes, by tiles as the plug-in lays them: padded with 0 at the right and below to
    whole strides, and of each tile the middle kept, up to half of what it has in common with its neighbours."""
    known = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    tile = session.get_inputs()[0].shape[-1]
    overlap = int(tile * known["tiles_overlap"] / 100 * 2) // 2
    stride, half = tile - overlap, overlap // 2
    counts = [max(0, -(-(side - tile) // stride)) + 1 for side in scene.shape[:2]]
    rest = [(count - 1) * stride + tile - side for count, side in zip(counts, scene.shape[:2], strict=True)]
    padded = np.pad(scene, [(0, rest[0]), (0, rest[1]), (0, 0)])
    labels = np.empty(padded.shape[:2], np.uint8)
    for i in range(counts[0]):
        for j in range(counts[1]):
            top, left = i * stride, j * stride
            probs = by_deepness(session, padded[None, top : top + tile, left : left + tile])
            probs[probs < known["seg_thresh"]] = 0
            r0, r1 = (half if i else 0), (tile if i == counts[0] - 1 else tile - half)
            c0, c1 = (half if j else 0), (tile if j == counts[1] - 1 else tile - half)
            labels[top + r0 : top + r1, left + c0 : left + c1] = probs[0, :, r0:r1, c0:c1].argmax(axis=0)
    return labels[: scene.shape[0], : scene.shape[1]]


def test_tiles_as_deepness_cuts_them_give_the_map_of_predict_but_for_blending(tmp_path, monkeypatch):
    path = save_random_checkpoint(tmp_path / "best.pt")
    scene = save_scene(tmp_path / "scene.tif", 300, 400)  # windows and tiles begin at 0, 96, 192, and end at 320 x 416
    words = (path, scene, "--out", tmp_path / "map.tif", "--window", 128, "--overlap", 32, *PLAIN)
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    predict.main(predict.parse([str(word) for word in words]))
    expected = read(tmp_path / "map.tif")
    labels = deepness_map(exported(path, "--tile-px", 128, "--overlap", 25), read(scene))
    alone = np.ones(expected.shape, bool)
    for start in (96, 192, 288):
        alone[start : start + 32] = alone[:, start : start + 32] = False  # where two tiles lie
    assert alone.mean() > 0.5 and (labels != expected)[alone].mean() <= 1e-4
    assert (labels != expected).any() and (labels == expected).mean() > 0.8


def test_what_cannot_be_exported_is_one_line(tmp_path):
    path = save_random_checkpoint(tmp_path / "best.pt")
    assert "No such file" in error_of("-m", "tools.export", tmp_path / "none.pt", "--out", tmp_path / "m.onnx")
    for words in (("--tile-px", 31), ("--overlap", 51), ("--out", "m.pt")):
        with pytest.raises(SystemExit):
            export.parse([str(word) for word in (path, "--out", "m.onnx", *words)])


def test_a_model_that_gives_something_else_is_not_written(tmp_path, monkeypatch):
    path = save_random_checkpoint(tmp_path / "best.pt")
    monkeypatch.setattr(export.Exported, "forward", lambda self, image: self.segmenter(image).softmax(dim=1))
    with pytest.raises(Refused, match="differ from the checkpoint's"):
        exported(path, "--tile-px", 64)
    assert not (path.parent / "onnx" / "model.onnx").exists()


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_a_missing_extra_is_named_with_the_line_that_brings_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Refused) as error:
        export.extras()
    line = "pip install -r requirements-export.txt"
    assert str(error.value) == f"{name} is needed to export, and is not installed: {line}"
