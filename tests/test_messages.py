"""The lines that help most: each names the file or the setting, what is wrong, and what would be right."""

import os
import shutil

import geotiffs
import numpy as np
import pytest
import torch
from made_runs import relisted, trained
from random_checkpoint import save_random_checkpoint

from beyond.informed import load_informed
from beyond.region_losses import published
from config import SegmenterConfig
from data import tile_io
from data.label_masks import codes_of
from data.lists import read_csv
from data.manifest import read_manifest
from data.prepare.cutting import Options, cut_scene
from data.prepare.sources import Scene
from data.samples import Exemplars
from data.synthetic.tile_set import make_tile_set
from data.taxonomy import load_taxonomy, merge
from data.tiles import TileSet
from evaluate import load_for, report
from metrics import Tally
from models import build_segmenter
from reports.baselines import linear
from runtime import checkpoint, distributed
from runtime.errors import Refused
from runtime.settings import check_resumable, check_same_data, config_from_flat, flatten, load_config
from runtime.workers import map_unordered
from tools import probe


def written(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def setting(*words):
    return lambda folder, tiles: load_config(SegmenterConfig, written(folder, "run.yaml", "train: {epochs: 3}"), words)


def other_image(array):
    """A tile set whose first training image is another array."""

    def load(folder, tiles):
        shutil.copytree(tiles, folder / "set")
        found = TileSet(folder / "set", "train")
        tile_io.write(found.root / found.rows[0]["image"], array)
        found.load(0)

    return load


def retold(folder, tiles, name, old, new):
    """A tile set of which one file says otherwise."""
    shutil.copytree(tiles, folder / "set")
    text = (folder / "set" / name).read_text()
    assert old in text
    return written(folder / "set", name, text.replace(old, new)).parent


def changed(*of):
    return lambda folder, tiles: read_manifest(retold(folder, tiles, *of))


def mask_of_colours(folder, tiles):
    stored = tile_io.Stored(folder / "mask.png", (1, 3), 3, np.dtype(np.uint8), None)
    pixels = np.array([[[0, 0, 255], [1, 2, 3], [1, 2, 3]]], np.uint8)
    codes_of(pixels, None, stored, {(0, 0, 255): 1})


def exemplars(old="", new="", **more):
    """Exemplars of a tile set whose description says otherwise."""
    how = {"count": 0, "seed": 0, **more}
    description = "dataset.yaml", old, new
    return lambda to, tiles: Exemplars(retold(to, tiles, *description), TileSet(tiles, "train").description, **how)


def trained_on(root, *more):
    more = "model.width=2", "data.workers=0", "train.epochs=1", *more
    trained("configs/demo/agg.yaml", f"data.root={root}", f"run.dir={root / 'run'}", *more)


def one_small_tile_a_step(folder, tiles):
    make_tile_set(folder / "set", tiles=16, tile_px=32)
    trained_on(folder / "set", "train.batch_size=1")


def no_whole_cell(folder, tiles, split="all"):
    shutil.copytree(tiles, folder / "set")
    found = TileSet(folder / "set", split)
    for row in found.rows:  # one cell a tile, and half of it beyond the tile
        path = found.root / row["low"]
        stored = tile_io.read(path)
        a, b, c, d, e, f = stored.affine
        tile_io.write(path, stored.pixels[:1, :1], affine=(a, b, c - 8, d, e, f), system=stored.system)
    return found.root


def disk_full(folder, tiles):
    (folder / "last.pt").symlink_to("/dev/full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.files.temporary_of", lambda path: folder / "full.tmp")
        (folder / "full.tmp").symlink_to("/dev/full")
        checkpoint.save(folder / "last.pt", {"w": torch.zeros(300_000)})


def other_width(folder, tiles):
    narrow, wide = (SegmenterConfig, {"model.width": 4}), {"model.width": 8, "model.init": str(folder / "resnet18.pt")}
    segmenter, _ = build_segmenter(config_from_flat(*narrow), 3, 4, 16)
    checkpoint.save(folder / "resnet18.pt", segmenter.encoder.state_dict())
    build_segmenter(config_from_flat(SegmenterConfig, wide), 3, 4, 16)


def resumed(key, value):
    config = config_from_flat(SegmenterConfig, {key: value})
    return lambda folder, tiles: check_resumable(flatten(SegmenterConfig()), config, "runs/agg")


def scene(kind="low", crs=26917, left=5e5, pixel=1.0, dtype=np.uint8):
    """A scene of 64 px at (5e5, 43e5) in EPSG:26917 whose label, or whose type of pixels, is another one."""

    def cut(folder, tiles):
        geotiffs.write(folder / "i.tif", np.ones((64, 64, 3), dtype), (1.0, 0, 5e5, 0, -1.0, 43e5), 26917)
        size = round(64 / pixel)
        geotiffs.write(folder / "l.tif", np.full((size, size), 41, np.uint8), (pixel, 0, left, 0, -pixel, 43e5), crs)
        cut_as(kind, folder)

    return cut


def cut_as(kind, folder):
    options = Options("scenes", load_taxonomy("configs/taxonomies/low2high.yaml"), 32, filter=False)
    cut_scene(folder / "out", Scene("s", "a", folder / "i.tif", **{kind: folder / "l.tif"}), options)


def of_many_scales(folder, tiles):
    geotiffs.write(folder / "i.tif", np.ones((640, 32, 3), np.uint8), (1000.0, 0, -9e6, 0, -1000.0, 57e5), 3857)
    geotiffs.write(folder / "l.tif", np.full((99, 99), 41, np.uint8), (0.1, 0, -83, 0, -0.1, 47), 4326)
    cut_as("low", folder)


CASES = {
    # Scenes.
    "no overlap": (scene(left=7e5), "l.tif: does not overlap "),
    "no system": (scene(crs=None), "l.tif: has no coordinate system, and "),
    "cells that do not show": (scene(crs=32617), "nothing shows how wide its cells are; give --scale: 30 for"),
    "small cells": (scene(left=5e5 + 0.5), "has pixels as small as those of "),
    "n": (of_many_scales, "its coarse cells are 13.065 px wide in its middle and 13.284 px in tile s_000_000; list"),
    "unknown codes of a scene": (scene("high"), "l.tif: codes without a class: 41 (4096 times); the taxonomy knows "),
    "floats": (scene(pixel=16.0, dtype=np.float32), "pixels are float32; give the smallest and the largest value"),
    # Labels.
    "unknown codes": (lambda *_: merge(np.array([[1, 7, 7, 9]]), {1: 0, 2: 1}, "a.tif"),
        "a.tif: codes without a class: 7 (2 times), 9 (1 times); the taxonomy knows 1, 2"),
    "unknown colours": (mask_of_colours, "mask.png: colours without a class: #010203 (2 px); the taxonomy knows #00"),
    "key of a taxonomy": (lambda folder, _: load_taxonomy(written(folder, "t.yaml", "clases: []")),
        "t.yaml: unknown key 'clases'; did you mean 'classes'?"),
    # Tile sets.
    "no tile set": (lambda folder, _: read_manifest(folder), "dataset.yaml: not found; a tile set is made by python"),
    "size": (other_image(np.zeros((48, 48, 3), np.uint8)), ".tif: is 48 x 48 px, the tiles of this set 64 x 64"),
    "bands": (other_image(np.zeros((64, 64, 4), np.uint8)), ".tif: has 4 bands of uint8, the tile set 3 bands of"),
    "type": (other_image(np.zeros((64, 64, 3), np.uint16)), ".tif: has 3 bands of uint16, the tile set 3 bands"),
    "missing file": (lambda folder, _: tile_io.read(folder / "a.tif"), "a.tif: No such file"),
    "missing split": (lambda _, tiles: TileSet(tiles, "trian"), "has no tiles of the split trian; it has tiles of he"),
    "missing label": (lambda to, tiles: TileSet(relisted(tiles, to / "a", lambda rows: [{**row, "high": ""} for row in
        rows]), "train", needs=("high",)), "of the split train has no high label"),
    "missing region": (lambda _, tiles: TileSet(tiles, "train", ("nowhere",)), "has no region nowhere; it has "),
    "unknown split": (changed("tiles.csv", ",heldout,", ",held-out,"), "split 'held-out'; did you mean 'heldout'?"),
    "path": (changed("tiles.csv", "images/", "../images/"), "leaves the folder"),
    "fact": (changed("dataset.yaml", "scale: 16", "scale: 0"), "scale is 0; it should be a number from 1 up"),
    "statistics": (changed("dataset.yaml", "band_mean: [", "band_mean: [1, "), "band_mean has 4 numbers; there are 3 "),
    "tile in two splits": (lambda to, tiles: read_manifest(relisted(tiles, to / "a", lambda rows: 2 * rows[:1])),
        "tiles.csv, line 3: tile "),
    "column": (lambda folder, _: read_csv(written(folder, "a.csv", "region,imgae\n"), ("region",), ("image",)),
        "a.csv: unknown column 'imgae'; did you mean 'image'?"),
    "no text": (lambda _, tiles: read_csv(next(tiles.glob("images/*.tif")), ("region",)), ".tif: not a CSV in UTF-8"),
    "no column": (lambda folder, _: read_csv(written(folder, "a.csv", "region\n"), ("region", "image")),
        "a.csv: no column 'image'; the header should hold region,image"),
    # Settings.
    "unknown setting": (setting("train.epoch=3"), "there is no setting train.epoch; did you mean train.epochs?"),
    "choice": (setting("supervision.labels=low"), "is not one of high, low_upsampled, low_regions; did you mean low_"),
    "bound": (setting("adversarial.temperature=999"), "temperature=999.0: must be above 0 and at most 100, like 1.11"),
    "number": (setting("train.epochs=many"), "train.epochs=many must be a whole number, like train.epochs=100"),
    "seed": (setting("run.seed=1e30"), "must be 0 or more and below 9223372036854775808, like 0"),
    "infinite": (setting("train.learning_rate=inf"), "train.learning_rate=inf must be a number"),
    "form": (setting("epochs"), "an override has the form section.key=value, like train.epochs=10"),
    "width of ImageNet": (setting("model.init=imagenet", "model.width=32"), "model.init=imagenet needs model.width=64"),
    "batch": (lambda *_: SegmenterConfig().train.split(5), "batch_size=24 does not divide among 5 processes; 25"),
    # Training.
    "no exemplars": (exemplars(regions=("nowhere",)), "exemplars are the label maps of this split; adversarial"),
    "too few exemplars": (exemplars(count=999), "adversarial.exemplars=999, but the pool has "),
    "classes of exemplars": (exemplars("forest", "woods"), "its exemplars have the classes water, woods, field, "),
    "size of exemplars": (exemplars("tile_px: 64", "tile_px: 32"), "32 px, smaller than the tiles of 64"),
    "batch norm": (one_small_tile_a_step, "needs two tiles of 32 px, or one of 64 px, for batch norm"),
    "no whole cell": (lambda *of: trained_on(no_whole_cell(*of)),
        "no cell lies entirely in a tile (supervision.min_coverage=0.5 also accepts cells that"),
    "nothing learned": (lambda *of: trained_on(no_whole_cell(*of, "train")), "the train split has no usable label: "),
    "nothing validates": (lambda *of: trained_on(no_whole_cell(*of, "validation")), "the validation split has no us"),
    "nothing to score": (lambda *_: report(Tally("ab")), "no pixel of this split has a fine label: there is nothing"),
    "probe": (lambda *_: probe.parse(["0", "--data", "tiles", "--pixels", "0"]), "--pixels 0: should be 1 or more"),
    "Linear": (lambda *of: linear(no_whole_cell(*of), (), "none", torch.device("cpu")), "so Linear has none to fit"),
    "deviations": (lambda folder, _: published(written(folder, "t", "classes: [a, b]\ndeviations: {1: [2]}"), "ab"),
        "t: deviations should be rows `code: [2 numbers]`"),
    "not finite": (lambda folder, _: checkpoint.require_finite({"loss": float("nan")}, (), folder, 7),
        "loss is not finite at step 7; nothing was saved yet; try a lower train.learning_rate"),
    "another config": (resumed("train.learning_rate", 0.5), "holds a run with train.learning_rate=0.0001, not 0.5"),
    "another start": (resumed("model.init", "a/mae.pt"), "holds a run with model.init=none, not a/mae.pt;"),
    "other data": (lambda *_: check_same_data({"scale": 30}, {"scale": 16, "name": "moved"}, "tiles", "runs/agg"),
        "tiles and the data that runs/agg was trained on differ in: scale; choose"),
    "device": (lambda *_: distributed.start("mps"), "there is no such device here; run.device=cpu always works"),
    # Checkpoints.
    "no checkpoint": (lambda folder, _: checkpoint.load(folder / "best.pt"), "best.pt: No such file"),
    "damaged checkpoint": (lambda folder, _: checkpoint.load(written(folder, "best.pt", "no checkpoint")),
        "best.pt: is not a checkpoint, or is damaged"),
    "other width": (other_width, "model.width the width it was trained with"),
    "other range": (lambda to, tiles: load_for(TileSet(tiles, "test"), save_random_checkpoint(to / "best.pt",
        value_range=(0.0, 1.0)), "cpu"), "3 bands of uint8 made of values 0 to 1, the tile set has 3 bands of uint8"),
    "other bands": (lambda to, tiles: load_for(TileSet(tiles, "test"), save_random_checkpoint(to / "best.pt", 4),
        "cpu"), "on 4 bands of uint8, the tile set has 3 bands of uint8"),
    "no observation": (lambda folder, _: load_informed(save_random_checkpoint(folder / "best.pt"), torch.device("cpu")),
        "has no model of coarse labels, so it cannot use --coarse"),
    # Machines.
    "disk full": (disk_full, "last.pt: could not be saved (No space left on device); "),
    "dead worker": (lambda *_: list(map_unordered(os._exit, [1, 1], 2, "scenes")), "fewer --workers need less memory"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_line_says_it(tile_set, tmp_path, name):
    if {"disk full": not os.path.exists("/dev/full"), "device": torch.backends.mps.is_available()}.get(name):
        pytest.skip("not here")
    refuse, said = CASES[name]
    with pytest.raises(Refused) as caught:
        refuse(tmp_path, tile_set)
    assert said in str(caught.value) and "\n" not in str(caught.value), str(caught.value)
