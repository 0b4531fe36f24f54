"""Damaged and malicious files, written by hand: each is refused in one line that names it, and nothing in it is run."""

import os
import pickle
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
import torch
import yaml
from commands import ROOT, error_of, run_script
from data.rasters.images import open_image
from PIL import Image

import train_seg
from config import PretrainConfig, SegmenterConfig
from data.manifest import read_manifest
from data.prepare.sources import scene_list, tile_list
from data.rasters import geotiff
from data.taxonomy import load_taxonomy
from data.tiles import TileSet
from maps.scenes import scene_paths
from models import build_segmenter
from models.epitomes import load_table
from models.pretrained import resnet18_file
from runtime import checkpoint, content
from runtime.errors import Refused
from runtime.settings import config_from_flat, flatten, load_config
from trained import load_trained

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
RUN = "!!python/object/apply:os.system ['touch executed']"
DEEP = "a: " + "[" * 1000
TAXONOMY = {
    "classes": [{"name": "water", "color": [0, 0, 255]}, {"name": "land", "color": [0, 255, 0]}],
    "high": {1: "water", 2: "land"},
    "low": {11: "water", 41: "land"},
}


def with_taxonomy(**changes):
    tables = {"high": {}, "low": {}} if "classes" in changes else {}
    return yaml.safe_dump({**TAXONOMY, **tables, **changes})


def classes(count):
    return [{"name": f"c{i}", "color": [0, 0, 0]} for i in range(count)]


def refused(function, path, error):
    """What one line says of a file: within a second, and nothing was run."""
    began = time.process_time()
    with pytest.raises(error) as caught:
        function(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and len(line) < 1000, line
    assert time.process_time() - began < 2
    assert not os.path.exists("executed") and not (path.parent / "executed").exists()
    return line


CONFIGS = {
    "empty name": "'': {}\n",
    "bomb": BOMB,
    "bomb in a setting": BOMB + "data: {root: *i, regions: *i}\n",
    "object": f"data: {RUN}",
    "deep": DEEP,
    "bytes": b"\xff\xfe\x00\x00\x80",
    "NUL": b"data: {root: 'a\x00b'}",
    "NUL, escaped": 'data: {root: "a\\0b"}',
    "list": "- 1\n- 2\n",
    "misspelt": "train: {epoch: 3}",
    "two documents": "train: {}\n---\ntrain: {}\n",
    "section that is a number": "train: 3",
    "number that is a list": "train: {epochs: [1, 2]}",
    "number that is no number": "train: {learning_rate: .nan}",
    "infinite rate": "train: {learning_rate: .inf}",
    "huge count": "train: {epochs: 1e400}",
    "huge width": "model: {width: 1000000000}",
    "huge batch": "train: {batch_size: 1000000000000}",
    "endless epochs": "train: {epochs: 1000000000000}",
    "a million processes": "data: {workers: 1000000}",
    "wide adversary": "adversarial: {width: 1000000000}",
    "endless game": "adversarial: {steps: 1000000000}",
    "negative seed": "run: {seed: -1}",
    "huge seed": "run: {seed: 100000000000000000000000}",
    "huge integer": "run: {seed: " + "9" * 5000 + "}",
    "unhashable key": "{[1]: 2}",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_bytes(CONFIGS[name] if isinstance(CONFIGS[name], bytes) else CONFIGS[name].encode())
    with pytest.raises(Refused) as caught:
        load_config(SegmenterConfig, path)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400 and not (tmp_path / "executed").exists(), line


TAXONOMIES = {
    "bomb": BOMB,
    "object": f"classes: {RUN}",
    "deep": DEEP,
    "NUL": b"classes: \x00",
    "300 classes": with_taxonomy(classes=classes(300)),
    "no classes": with_taxonomy(classes=[]),
    "one class": with_taxonomy(classes=classes(1)),
    "colour out of range": with_taxonomy(classes=[{"name": "a", "color": [0, 0, 256]}, *classes(1)]),
    "colour of floats": with_taxonomy(classes=[{"name": "a", "color": [0.5, 0, 0]}, *classes(1)]),
    "same name": with_taxonomy(classes=classes(1) * 2),
    "name over lines": with_taxonomy(classes=[{"name": "a\nb\x1b[2J", "color": [0, 0, 0]}, *classes(1)]),
    "endless name": with_taxonomy(classes=[{"name": "a" * 100_000, "color": [0, 0, 0]}, *classes(1)]),
    "code that is text": with_taxonomy(high={"one": "water"}),
    "class that is not there": with_taxonomy(low={11: "sea"}),
    "class that is a list": with_taxonomy(low={11: ["water"]}),
    "key twice": with_taxonomy() + "high: {1: land}\n",
    "huge code": with_taxonomy(high={10**30: "water"}),
    "empty": "",
}


@pytest.mark.parametrize("name", TAXONOMIES)
def test_taxonomies(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "taxonomy.yaml"
    path.write_bytes(TAXONOMIES[name] if isinstance(TAXONOMIES[name], bytes) else TAXONOMIES[name].encode())
    refused(load_taxonomy, path, Refused)


TABLES = {
    "bomb": BOMB,
    "object": f"classes: {RUN}",
    "deep": DEEP,
    "bytes": b"\xff\xfe\x00\x80",
    "classes that are numbers": "classes: [1, 2]\n11: [0.5, 0.5]",
    "no classes": "11: [0.5, 0.5]",
    "not numbers": "classes: [a, b]\n11: [.nan, 1]",
    "infinite": "classes: [a, b]\n11: [.inf, 0]",
    "huge": "classes: [a, b]\n" + "9" * 5000 + ": [1, 0]",
    "too long a row": f"classes: [a, b]\n11: [{', '.join(['0'] * 1000)}]",
    "a code of fractions": "classes: [a, b]\n11.5: [1, 0]",
    "list": "- 1",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_self_epitomic_lsr(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "table.yaml"
    path.write_bytes(TABLES[name] if isinstance(TABLES[name], bytes) else TABLES[name].encode())
    refused(load_table, path, Refused)


DESCRIPTION = {"name": "set", "image_gsd": 1.0, "label_gsd": 8.0, "scale": 8, "tile_px": 32, "bands": 1,
               "dtype": "uint8", "band_mean": [1.0], "band_std": [1.0], **TAXONOMY}  # fmt: skip
HEADER = "tile,region,split,image,high,low\n"
ROW = "t,r,train,images/t.tif,,\n"
TILE_SETS = {
    "bomb": (BOMB, ROW),
    "object": (f"name: {RUN}", ROW),
    "not a number": ({"band_mean": [float("nan")]}, ROW),
    "infinite": ({"band_std": [float("inf")]}, ROW),
    "no deviation": ({"band_std": [0.0]}, ROW),
    "huge": ({"scale": 10**400}, ROW),
    "many bands": ({"bands": 10**9}, ROW),
    "statistics of other bands": ({"bands": 4}, ROW),
    "huge tiles": ({"tile_px": 10**9}, ROW),
    "true for a number": ({"bands": True}, ROW),
    "dtype": ({"dtype": "object"}, ROW),
    "300 classes": ({"classes": classes(300)}, ROW),
    "out of the folder": ({}, "t,r,train,../../etc/passwd,,\n"),
    "out and in again": ({}, "t,r,train,images/../../set2/t.tif,,\n"),
    "absolute": ({}, "t,r,train,images/t.tif,/etc/passwd,\n"),
    "NUL": ({}, "t,r,train,images/t\0.tif,,\n"),
    "bytes": ({}, b"t,r,train,images/\xff.tif,,\n"),
    "a tile twice": ({}, ROW + ROW),
    "split": ({}, ROW.replace("train", "../train")),
    "endless field": ({}, ROW.replace("images/t", "t" * 200_000)),
    "a quote that is not closed": ({}, 't,r,train,"images/t.tif,,\n' * 3),
    "no tile": ({}, ""),
    "a cell too many": ({}, "t,r,train,images/a,b.tif,,\n"),
    "tile of control characters": ({}, ROW.replace("t,", "t\x07,", 1)),
    "tile that turns the direction": ({}, ROW.replace("t,", "t\u202e,", 1)),
}


@pytest.mark.parametrize("name", TILE_SETS)
def test_tile_sets(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    described, rows = TILE_SETS[name]
    text = described if isinstance(described, str) else yaml.safe_dump({**DESCRIPTION, **described})
    (tmp_path / "dataset.yaml").write_text(text)
    (tmp_path / "tiles.csv").write_bytes(HEADER.encode() + (rows if isinstance(rows, bytes) else rows.encode()))
    with pytest.raises(Refused) as caught:
        read_manifest(tmp_path)
    line = str(caught.value)
    assert "\n" not in line and str(tmp_path) in line and len(line) < 1000, line
    assert not (tmp_path / "executed").exists()


SCENE_LISTS = {
    "out of the folder": "s,r,,../s.tif,,",
    "absolute": "s,r,,s.tif,/etc/passwd,",
    "label out of the folder": "s,r,,s.tif,,x/../../low.tif",
    "name that is a path": "../../s,r,,s.tif,,",
    "name that is absolute": "/tmp/s,r,,s.tif,,",
    "hidden name": ".build,r,,s.tif,,",
    "name with a NUL": "s\0,r,,s.tif,,",
    "name of control characters": "s\x1b[2J,r,,s.tif,,",
    "endless name": f"{'s' * 300},r,,s.tif,,",
    "the same name twice": "s,r,,s.tif,,\nS,r,,t.tif,,",
    "no region": "s,,,s.tif,,",
    "region over two lines": 's,"a\nb",,s.tif,,',
    "region of control characters": "s,a\x1b[2J,,s.tif,,",
    "region that turns the direction": "s,a\u202eb,,s.tif,,",
    "path that turns the direction": "s,r,,a\u2067b.tif,,",
    "a cell too many": "s,r,,a,b.tif,,",
    "split": "s,r,trian,s.tif,,",
}


@pytest.mark.parametrize("read", [scene_list, tile_list])
@pytest.mark.parametrize("name", SCENE_LISTS)
def test_scene_lists(tmp_path, name, read):
    path = tmp_path / "scenes.csv"
    path.write_text(f"scene,region,split,image,high,low\n{SCENE_LISTS[name]}\n")
    refused(read, path, Refused)


@pytest.mark.parametrize("region", ["../../x", "/tmp", "a b"])
def test_a_region_never_becomes_a_path(tmp_path, region):
    """It stays a word: of a region, no file is named."""
    rng = np.random.default_rng(0)
    geotiff.write(tmp_path / "s.tif", rng.integers(0, 256, (64, 64, 3), np.uint8))
    (tmp_path / "scenes.csv").write_text(f'scene,region,split,image,high,low\ns,"{region}",train,s.tif,,\n')
    out = tmp_path / "sub" / "set"
    run_script("-m", "data.prepare", out, "--scenes", tmp_path / "scenes.csv", "--tile-px", 32, "--workers", 1,
               "--taxonomy", "configs/taxonomies/low2high.yaml")  # fmt: skip
    made = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert made == {"s.tif", "scenes.csv", "sub"} and len(list(out.glob("images/*.tif"))) == 4


class Runs:
    """Unpickled, it runs a command."""

    def __reduce__(self):
        return (os.system, ("touch executed",))


def good_state(**changes):
    """What train_seg.py saves as best.pt, at the smallest size."""
    config = {**flatten(SegmenterConfig()), "model.width": 2}
    facts = {"name": "set", "bands": 1, "dtype": "uint8", "band_mean": [1.0], "band_std": [1.0], "image_gsd": 1.0,
             "scale": 30.0, "classes": TAXONOMY["classes"]}  # fmt: skip
    segmenter, _ = build_segmenter(config_from_flat(SegmenterConfig, config), 1, 2, 30)
    state = {"step": 1, "best": {"step": 1, "score": 0.5}, "config": config, "data": facts}
    state["segmenter"] = segmenter.state_dict()
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            state[part] = {**state[part], name.replace("__", "."): value}
        else:
            state[part] = value
    return state


def test_the_checkpoint_that_the_cases_spoil_is_a_good_one(tmp_path):
    checkpoint.save(tmp_path / "best.pt", good_state())
    assert load_trained(tmp_path / "best.pt", torch.device("cpu"))(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)


HEAD = (2, 1, 1, 1)  # of good_state's head.weight
STATES = {
    "no config": {"config": None},
    "config of text": {"config": "x"},
    "huge width": {"config__model__width": 10**9},
    "width that overflows": {"config__model__width": 2**62},
    "width of text": {"config__model__width": "8"},
    "odd width": {"config__model__width": 3},
    "wider than its tensors": {"config__model__width": 4096},
    "huge bands": {"data__bands": 10**9},
    "no scale": {"data__scale": None},
    "scale of text": {"data__scale": "30"},
    "endless scale": {"data__scale": float("inf")},
    "bands of text": {"data__bands": "3"},
    "no bands": {"data__bands": 0},
    "other bands": {"data__bands": 3, "data__band_mean": [1.0] * 3, "data__band_std": [1.0] * 3},
    "huge classes": {"data__classes": classes(300)},
    "classes of numbers": {"data__classes": [1, 2]},
    "classes of a tensor": {"data__classes": torch.zeros(2)},
    "classes without colours": {"data__classes": [{"name": "a"}, {"name": "b"}]},
    "colours out of range": {"data__classes": [{"name": "a", "color": [999, 0, 0]}, *classes(1)]},
    "no facts": {"data": {}},
    "mean that is no number": {"data__band_mean": [float("nan")]},
    "infinite deviation": {"data__band_std": [float("inf")]},
    "deviation of nothing": {"data__band_std": [0.0]},
    "no weights": {"segmenter": {}},
    "weights of text": {"segmenter": "x"},
    "weight of another shape": {"segmenter__head__bias": torch.zeros(7)},
    "weight of text": {"segmenter__head__bias": "x"},
    "weight that claims much": {"segmenter__head__bias": torch.zeros(1).expand(10**12)},
    "weight of complex numbers": {"segmenter__head__bias": torch.zeros(2, dtype=torch.complex64)},
    "weight that is not finite": {"segmenter__head__bias": torch.full((2,), float("nan"))},
    "one weight too many": {"segmenter__extra": torch.zeros(1)},
    "sparse weight": {"segmenter__head__bias": torch.sparse_coo_tensor([[0]], [1.0], (2,), check_invariants=True)},
    "an average that is none": {"config__train__average": 0.9, "averaged": torch.zeros(3)},
    "negative size": {"data__image_gsd": -1.0},
}


@pytest.mark.parametrize("name", STATES)
def test_checkpoints_of_another_make(tmp_path, name):
    path = tmp_path / "best.pt"
    torch.save(good_state(**STATES[name]), path)
    refused(lambda path: load_trained(path, torch.device("cpu")), path, Refused)


def zip_of(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)


def files(name, path):
    """Damaged files under a checkpoint's name."""
    if name == "nothing":
        path.write_bytes(b"")
    elif name == "text":
        path.write_text("hello")
    elif name == "folder":
        path.mkdir()
    elif name == "cut":
        torch.save(good_state(), path)
        path.write_bytes(path.read_bytes()[:-900])
    elif name == "flipped":
        torch.save(good_state(), path)
        content = bytearray(path.read_bytes())
        content[100:400] = bytes(255 - byte for byte in content[100:400])
        path.write_bytes(content)
    elif name == "pickle":
        path.write_bytes(pickle.dumps(Runs()))
    elif name == "pickle in a checkpoint":
        torch.save({**good_state(), "best": Runs()}, path)
    elif name == "pickle in the old format":
        torch.save({"segmenter": Runs()}, path, _use_new_zipfile_serialization=False)
    elif name == "script":
        torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))
    elif name == "zip of nothing":
        zip_of(path)
    elif name == "zip out of the folder":
        zip_of(path, **{"..__..__executed": b"x"})
    elif name == "zip bomb":
        zip_of(path, archive__data__0=bytes(10**8), **{"archive__data.pkl": b"\x80\x02}.", "archive__version": b"3"})
    elif name == "deep":
        state = {}
        for _ in range(150):
            state = {"a": state}
        torch.save(state, path)
    elif name == "list":
        torch.save([1, 2], path)
    elif name == "weights alone":
        torch.save(good_state()["segmenter"], path)
    elif name == "pretraining":
        torch.save({**good_state(), "config": flatten(PretrainConfig())}, path)
    return path


FILES = ["nothing", "text", "folder", "missing", "cut", "flipped", "pickle", "pickle in a checkpoint",
         "pickle in the old format", "script", "zip of nothing", "zip out of the folder", "zip bomb", "deep", "list",
         "weights alone", "pretraining"]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_checkpoints(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused(lambda path: load_trained(path, torch.device("cpu")), files(name, tmp_path / "best.pt"), Refused)


STARTS = {"weights of text": "x", "flat weights": torch.zeros(3), "no band": torch.zeros(2, 0, 7, 7)}


@pytest.mark.parametrize("name", ["nothing", "text", "folder", "missing", "cut", "pickle", "list", *STARTS])
def test_files_that_start_no_network(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = files(name, tmp_path / "resnet18.pt")
    if name in STARTS:
        torch.save({"conv1.weight": STARTS[name]}, path)
    config = config_from_flat(SegmenterConfig, {"model.width": 2, "model.init": str(path)})
    refused(lambda _: build_segmenter(config, 3, 2, 16), path, Refused)


LASTS = {
    "no config": {"config": None},
    "epochs of text": {"config": {**flatten(SegmenterConfig()), "train.epochs": "x"}},
    "no facts": {"data": {}},
    "no weights": {"segmenter": {}},
    "optimiser of a number": {"optimizer": 3},
    "no step": {"step": None},
}


@pytest.mark.parametrize("name", LASTS)
def test_a_run_goes_on_from_no_last_pt_of_another_make(tile_set, tmp_path, name):
    config = load_config(
        SegmenterConfig, "configs/demo/agg.yaml", ["model.width=2", f"data.root={tile_set}", f"run.dir={tmp_path}"]
    )
    tiles = TileSet(tile_set, "train")
    facts = {**tiles.description.facts(), "tiles": len(tiles)}
    state = {"config": flatten(config), "data": facts, "scaler": {}, "averaged": {}}
    state["segmenter"] = build_segmenter(config, 3, 4, 16)[0].state_dict()
    torch.save({**state, **LASTS[name]}, tmp_path / "last.pt")
    with pytest.raises(Refused) as caught:
        train_seg.main(config)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("name", ["claims", "bomb", "jpeg", "text"])
def test_pictures_that_claim_much_or_are_none(tmp_path, name):
    path = tmp_path / ("a.jpg" if name == "jpeg" else "a.png")
    if name == "jpeg":
        Image.new("L", (8, 8)).save(path)
        content = bytearray(path.read_bytes())
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = b"\xff\xff\xff\xff"  # 65,535 x 65,535 px
        path.write_bytes(content)
    elif name == "text":
        path.write_text("no picture")
    else:
        px = 2**31 - 1 if name == "claims" else 30_000
        pixels = zlib.compress(bytes(10**6)) if name == "claims" else zlib.compress(bytes(30_001 * 3000))
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", px, px, 8, 0, 0, 0, 0))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    refused(open_image, path, Refused)


def test_a_column_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "scenes.csv").write_text("region,image,high,high\nr,s.tif,a.tif,b.tif\n")
    assert "the column 'high' stands twice" in refused(scene_list, tmp_path / "scenes.csv", Refused)


READERS = {
    "scene.tif": open_image,
    "photo.png": open_image,
    "run.yaml": lambda path: load_config(SegmenterConfig, path),
    "best.pt": checkpoint.load,
    "resnet18.pt": resnet18_file,
    "scenes.csv": scene_list,
    "scenes.txt": lambda path: scene_paths([path]),
    "known.bin": content.checksum,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "is a pipe or a device" in refused(READERS[name], tmp_path / name, Refused)


def test_the_commands_say_one_line_too(tile_set, tmp_path):
    torch.save({**good_state(), "best": Runs()}, tmp_path / "best.pt")
    assert "best.pt" in error_of("evaluate.py", tmp_path / "best.pt", "--data", tile_set)
    (tmp_path / "bomb.yaml").write_text(BOMB)
    assert "bomb.yaml" in error_of("train_seg.py", tmp_path / "bomb.yaml", f"run.dir={tmp_path}")
    (tmp_path / "scenes.csv").write_text("scene,region,split,image,high,low\ns,r,,../s.tif,,\n")
    words = ["-m", "data.prepare", tmp_path / "set", "--scenes", tmp_path / "scenes.csv"]
    printed = run_script(*words, "--taxonomy", "configs/taxonomies/low2high.yaml", status=2)
    assert "../s.tif" in printed and printed.count("\n") == 1
    assert not (ROOT / "executed").exists() and not (tmp_path / "set").exists()
