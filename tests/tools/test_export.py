"""tools/export.py: the ONNX model gives the checkpoint's probabilities, as Deepness calls it."""

import json
import sys

import numpy as np
import pytest
import torch
from commands import error_of
from random_checkpoint import NAMES, save_random_checkpoint

from runtime.errors import Refused
from tools import export
from trained import load_trained

onnx = pytest.importorskip("onnx", reason="onnx is not installed (requirements-export.txt)")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (requirements-export.txt)")
CPU = torch.device("cpu")


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
    top = {"uint8": 256, "uint16": 600}[dtype]
    return np.random.default_rng(seed).integers(0, top, (batch, height, width, bands)).astype(dtype)


@torch.inference_mode()
def assert_same(session, trained, pixels):
    probs = by_deepness(session, pixels)
    expected = trained(torch.from_numpy(pixels.astype(np.int32)).permute(0, 3, 1, 2)).softmax(dim=1).numpy()
    assert probs.shape == expected.shape and np.abs(probs - expected).max() <= 1e-4
    assert (probs.argmax(axis=1) != expected.argmax(axis=1)).mean() <= 1e-4
    assert len(np.unique(expected.argmax(axis=1))) > 1  # else nothing was compared


@pytest.mark.parametrize("bands, width, dtype, tile_px", [(3, 16, "uint8", 64), (4, 64, "uint8", 100),
                                                          (4, 8, "uint16", 128)])  # fmt: skip
def test_probabilities_are_the_checkpoints(tmp_path, bands, width, dtype, tile_px):
    path = save_random_checkpoint(tmp_path / "best.pt", bands=bands, dtype=dtype, width=width)
    session, trained = exported(path, "--tile-px", tile_px), load_trained(path, CPU)
    assert session.get_inputs()[0].shape == ["batch", bands, tile_px, tile_px]
    assert session.get_outputs()[0].shape == ["batch", len(NAMES), tile_px, tile_px]
    for batch in (1, 2):  # uint16 is divided by 255 too
        assert_same(session, trained, random_pixels(batch, tile_px, tile_px, bands, dtype))


def test_a_dynamic_model_takes_any_size_from_32_px_up(tmp_path):
    path = save_random_checkpoint(tmp_path / "best.pt", width=16)
    session, trained = exported(path, "--dynamic", "--tile-px", 64), load_trained(path, CPU)
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    for size in ((1, 32, 32), (3, 33, 95), (1, 250, 131)):
        assert_same(session, trained, random_pixels(*size, 3))


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


def test_the_model_says_what_deepness_asks(tmp_path):
    path = save_random_checkpoint(tmp_path / "best.pt", bands=4)
    session = exported(path, "--tile-px", 96)
    known = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert known["model_type"] == "Segmentor" and known["resolution"] == 100  # cm, of pixels of 1 m
    assert known["class_names"] == {"0": "water", "1": "forest", "2": "field", "3": "impervious"}
    assert (known["tiles_size"], known["tile_size"], known["tiles_overlap"], known["bands"]) == (96, 96, 25, 4)
    assert (known["standardization_mean"], known["standardization_std"]) == ([0.0] * 4, [1.0] * 4)
    assert known["seg_thresh"] == known["seg_small_segment"] == 0 and known["range"] is None
    onnx.checker.check_model(onnx.load(path.parent / "onnx" / "model.onnx"))


def test_what_cannot_be_exported_is_one_line(tmp_path, monkeypatch):
    path = save_random_checkpoint(tmp_path / "best.pt")
    assert "No such file" in error_of("-m", "tools.export", tmp_path / "none.pt", "--out", tmp_path / "m.onnx")
    with pytest.raises(Refused, match="--tile-px 31: should be"):
        export.parse([str(path), "--out", "m.onnx", "--tile-px", "31"])
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(Refused, match="pip install -r requirements-export.txt"):
        exported(path)
