"""Scenes to tile sets: real sets first, then each rule by a hand-made case."""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import geotiffs
import numpy as np
import pytest
import rasterio
from PIL import Image

from data import tile_io
from data.cells import upsampled
from data.check import check
from data.coarse import BARREN, BUILT, GRASS, ROAD, TREE, WATER, low_label
from data.manifest import read_manifest
from data.prepare import sources
from data.prepare import tile_set as build_module
from data.prepare.__main__ import main
from data.taxonomy import merge
from data.tiles import low_cells

REPOSITORY = Path(__file__).parents[3]
LOW2HIGH = REPOSITORY / "configs" / "taxonomies" / "low2high.yaml"
REAL = os.environ.get("LOW2HIGH_REAL")
real = pytest.mark.skipif(not REAL, reason="LOW2HIGH_REAL is unset")
PX = 32
UTM = (1.0, 0.0, 500_000.0, 0.0, -1.0, 4_300_000.0)


def run(*arguments, workers=1, scale=30):
    """The build. It is told n, as made-up coarse labels lie on their image's pixels, unless the arguments do."""
    tells = "--scale" in arguments or scale is None or not {"--scenes", "--tiled"} & {*map(str, arguments)}
    return main([*map(str, arguments), "--workers", str(workers), *([] if tells else ["--scale", str(scale)])])


def read(path):
    """Pixels, and all that the file holds."""
    stored = tile_io.read(path)
    return stored.pixels, stored


def manifest(root):
    return read_manifest(root)[1]


def files(root):
    """{relative path: digest} of a tile set, without what the builder keeps for itself."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".build" not in path.parts
    }


def busy(height, width, codes, seed=0, block=4):
    """A label in which every 32 px tile has all codes and none of them much."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(codes, (-(-height // block), -(-width // block)))
    return coarse.repeat(block, 0).repeat(block, 1)[:height, :width].astype(np.uint8)


def write_scene(folder, name="s", image=None, high=None, low=None, low_transform=None, transform=UTM, **settings):
    """A scene of 64 x 96 px, six tiles, that passes the filter unless its parts say otherwise; returns its row."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    image = rng.integers(1, 256, (64, 96, 3), np.uint8) if image is None else image
    high = busy(64, 96, [1, 2, 3, 5]) if high is None else high
    low = busy(64, 96, [11, 41, 81, 22], block=8) if low is None else low
    crs, more = settings.get("crs", 26917), {"nodata": settings.get("label_nodata")}
    high_transform, high_crs = settings.get("high_transform", transform), settings.get("high_crs", crs)
    geotiffs.write(folder / f"{name}_image.tif", image, transform, crs, settings.get("nodata"), settings.get("mask"))
    geotiffs.write(folder / f"{name}_high.tif", high, high_transform, high_crs, **more)
    geotiffs.write(folder / f"{name}_low.tif", low, low_transform or transform, settings.get("low_crs", crs))
    return {
        "scene": name, "region": settings.get("region", "de"), "split": settings.get("split", ""),
        "image": f"{name}_image.tif", "high": f"{name}_high.tif", "low": f"{name}_low.tif",
    }  # fmt: skip


def write_list(folder, rows, name="scenes.csv"):
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def epsg_of(path):
    return geotiffs.read(path)[1].crs.to_epsg()


def build_scene(tmp_path, *options, **parts):
    """Build one hand-made scene, whose coarse label lies on the image's pixels unless told; (exit status, root)."""
    scenes = write_list(tmp_path / "raw", [write_scene(tmp_path / "raw", **parts)])
    arguments = (tmp_path / "out", "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX, *options)
    return run(*arguments, scale=None if "low_transform" in parts else 30), tmp_path / "out"


# The public sets as they are distributed -------------------------------------------------------------------------


@real
def test_the_real_chesapeake_patches_become_eight_tiles_with_their_own_codes(tmp_path, capsys):
    root = tmp_path / "out"
    options = ("--taxonomy", LOW2HIGH, "--tile-px", 256, "--no-filter")
    assert run(root, "--scenes", f"{REAL}/chesapeake/scenes.csv", *options) == 0
    description, rows = read_manifest(root)
    assert len(rows) == 8 and {row["split"] for row in rows} == {"test"}
    assert (description.bands, description.image_gsd, description.scale, description.tile_px) == (4, 1.0, 30, 256)
    for row in rows:
        for kind, suffix in (("image", "naip-new"), ("high", "lc"), ("low", "nlcd")):
            source, source_header = read(Path(REAL, "chesapeake", f"{row['tile'][:-8]}_{suffix}.tif"))
            pixels, header = read(root / row[kind])
            assert np.array_equal(pixels, source)
            assert header.affine == source_header.affine and epsg_of(root / row[kind]) == 26917
    assert "8 tiles; dropped: empty 0, classes 0, dominant 0" in capsys.readouterr().out
    assert check(root, decode=True) == (8, [], [])


@real
def test_the_papers_rules_drop_all_of_the_wooded_patches(tmp_path, capsys):
    options = ("--taxonomy", LOW2HIGH, "--tile-px", 256)
    assert run(tmp_path / "out", "--scenes", f"{REAL}/chesapeake/scenes.csv", *options) == 2
    assert "no tile was kept (dropped: empty 0, classes 7, dominant 1)" in capsys.readouterr().err


@pytest.fixture
def few_naip_tiles(monkeypatch, tmp_path):
    """The first four tiles of each group, as if naip215 had no others."""
    head, *lines = (REPOSITORY / "configs" / "tables" / "naip215_places.csv").read_text().splitlines()
    few = [line for g in "0123" for line in [line for line in lines if line.endswith(f",{g}")][:4]]
    (tmp_path / "places.csv").write_text("\n".join([head, *few]) + "\n")
    monkeypatch.setattr(sources, "NAIP215_PLACES", tmp_path / "places.csv")


@real
def test_naip215_is_cut_with_labels_that_are_derived(tmp_path, few_naip_tiles, capsys):
    root = tmp_path / "out"
    assert run(root, "--naip215", f"{REAL}/naip215", "--rotation", 2) == 0
    description, rows = read_manifest(root)
    assert (description.name, description.bands, description.tile_px, description.scale) == ("naip215", 4, 256, 32)
    assert description.image_gsd == pytest.approx(0.6, abs=1e-3) and {row["low"] for row in rows} == {""}
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "validation", "heldout", "test")}
    assert counts == {"train": 7, "validation": 1, "heldout": 4, "test": 4}
    assert {row["region"] for row in rows if row["split"] == "test"} == {"group2"}
    assert check(root, decode=True) == (16, [], [])
    assert run(root, "--naip215", f"{REAL}/naip215", "--rotation", 1) == 2
    assert "was begun with another --rotation: 2 then, 1 now" in capsys.readouterr().err


@real
def test_coarse_maps_in_nlcds_manner_are_a_tiles_own_in_every_rotation(tmp_path, few_naip_tiles):
    words = "--naip215", f"{REAL}/naip215", "--coarse", "nlcd"
    built = {}
    for name, more, workers in (
        ("one", ("--rotation", 0), 1), ("two", ("--rotation", 0), 2), ("other", ("--rotation", 3), 1),
        ("seed", ("--seed", 1), 1),
    ):  # fmt: skip
        assert run(tmp_path / name, *words, *more, workers=workers) == 0
        built[name] = files(tmp_path / name)
    assert built["one"] == built["two"]
    lows = {name: {path: made[path] for path in made if path.startswith("low/")} for name, made in built.items()}
    assert len(lows["one"]) == 16 and lows["one"] == lows["other"] != lows["seed"]
    description, rows = read_manifest(tmp_path / "one")
    assert (description.scale, description.label_gsd) == (50, pytest.approx(30.0, abs=0.05))
    codes = {0: GRASS, 1: BUILT, 2: ROAD, 3: BARREN, 4: TREE, 5: WATER}
    for row in rows[:4]:
        (low, low_header), (image, header) = (read(tmp_path / "one" / row[key]) for key in ("low", "image"))
        mask, _ = read(next(Path(REAL, "naip215").glob(f"*/*/mask/mask_{row['tile'].split('_')[1]}.tif")))
        land_cover = np.vectorize(codes.get)(mask[..., 0]).astype(np.uint8)
        rng = np.random.default_rng([0, *row["tile"].encode()])
        assert np.array_equal(low[..., 0], low_label(rng, land_cover, 50)) and low.shape[:2] == (6, 6)
        assert low_header.affine == pytest.approx(
            (50 * header.affine[0], 0, header.affine[2], 0, 50 * header.affine[4], header.affine[5])
        )
        cells = low_cells(merge(low[..., 0], description.taxonomy.low, "low"), low_header, header, description)
        assert upsampled(cells, 256, 256)[0, 0] == description.taxonomy.low[low[0, 0, 0]]
    assert check(tmp_path / "one", decode=True) == (16, [], [])


def test_rotations_and_made_coarse_maps_are_of_naip215_alone(tmp_path, capsys):
    scenes = write_list(tmp_path, [write_scene(tmp_path)])
    for more in (("--rotation", 1), ("--coarse", "nlcd")):
        assert run(tmp_path / "out", "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX, *more) == 2
        assert capsys.readouterr().err == "--rotation and --coarse are of --naip215\n"


@real
def test_the_raw_chesapeake_set_gives_the_same_tiles_whatever_folders_it_came_in(tmp_path):
    sources = sorted(Path(REAL, "formats").glob("m_3907833*.tif"))
    for name, folder in (
        ("one", "pa_1m_2013_extended-debuffered-train_tiles"),
        ("two", "deep/er/pa_1m_2013_extended-debuffered-test_tiles"),
    ):
        (tmp_path / name / folder).mkdir(parents=True)
        for source in sources:
            (tmp_path / name / folder / source.name).symlink_to(source)
        assert run(tmp_path / f"out_{name}", "--chesapeake", tmp_path / name, "--tile-px", 64) == 0
    description, rows = read_manifest(tmp_path / "out_one")
    assert files(tmp_path / "out_one") == files(tmp_path / "out_two")
    assert {row["region"] for row in rows} == {"pa"} and len(rows) == 6
    assert description.image_gsd == pytest.approx(26.3643, abs=1e-3)  # pixels of 23.59 by 29.46 m


# Cutting ---------------------------------------------------------------------------------------------------------


def test_tiles_do_not_overlap_begin_at_the_corner_and_leave_the_edge_remainders(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (70, 100, 2), np.uint8)
    high, low = busy(70, 100, [1, 2, 3, 5]), busy(70, 100, [11, 41, 81])
    status, root = build_scene(tmp_path, image=image, high=high, low=low)
    assert status == 0
    rows = manifest(root)
    assert [row["tile"] for row in rows] == [f"s_{r:03d}_{c:03d}" for r in range(2) for c in range(3)]
    for row in rows:
        top, left = (int(part) * PX for part in row["tile"].split("_")[1:])
        for kind, whole in (("image", image), ("high", high[..., None]), ("low", low[..., None])):
            pixels, header = read(root / row[kind])
            assert np.array_equal(pixels, whole[top : top + PX, left : left + PX])
            assert header.affine == (1, 0, 500_000 + left, 0, -1, 4_300_000 - top)
            assert epsg_of(root / row[kind]) == 26917


def low_on_own_grid(kind):
    """(low codes, transform): cells of 10 m, offset or tilted against the image."""
    if kind == "offset":
        return busy(8, 11, [11, 41, 81, 22], block=1), (10.0, 0.0, 500_000.0 - 7.3, 0.0, -10.0, 4_300_000.0 + 3.2)
    c, s = 10 * np.cos(np.radians(12.7)), 10 * np.sin(np.radians(12.7))
    return busy(20, 20, [11, 41, 81, 22], block=1), (c, s, 500_000.0 - 30.0, s, -c, 4_300_000.0 + 12.0)


@pytest.mark.parametrize("kind", ["offset", "tilted"])
def test_a_low_label_of_larger_pixels_keeps_its_own_grid(tmp_path, kind):
    low, transform = low_on_own_grid(kind)
    status, root = build_scene(tmp_path, "--no-filter", low=low, low_transform=transform)
    assert status == 0
    description, rows = read_manifest(root)
    assert description.scale == 10 and len(rows) == 6
    merged = merge(low, description.taxonomy.low, "low")
    a, b, x0, d, e, y0 = transform
    for row in rows:
        top, left = (int(part) * PX for part in row["tile"].split("_")[1:])
        image, image_header = read(root / row["image"])
        codes, header = read(root / row["low"])
        assert epsg_of(root / row["low"]) == 26917 and max(codes.shape) < 8  # its cells alone
        cells = low_cells(merge(codes[..., 0], description.taxonomy.low, ""), header, image_header, description)
        loaded = upsampled(cells, PX, PX)
        for i, j in np.ndindex(PX, PX):  # a slow loop over pixel centres
            x, y = 500_000 + left + j + 0.5 - x0, 4_300_000 - top - i - 0.5 - y0
            determinant = a * e - b * d
            cell_col, cell_row = (e * x - b * y) / determinant, (a * y - d * x) / determinant
            assert loaded[i, j] == merged[int(cell_row), int(cell_col)]


def test_class_shares_of_a_low_label_are_counted_over_the_tiles_pixels(tmp_path):
    low, transform = np.array([[11, 41], [81, 81]], np.uint8), (24.0, 0.0, 500_000.0, 0.0, -24.0, 4_300_000.0)
    _, root = build_scene(
        tmp_path, "--no-filter", image=np.ones((32, 32, 3), np.uint8), high=busy(32, 32, [1, 2, 3]), low=low,
        low_transform=transform,
    )  # fmt: skip
    record = json.loads((root / ".build" / "scenes" / "s.json").read_text())["results"][0]["records"][0]
    assert record["low_pixels"] == [24 * 24, 24 * 8, 8 * 32, 0]


@pytest.mark.parametrize("size", ["ceil", "floor", "same"])
def test_without_georeference_a_low_label_lies_by_its_size(tmp_path, size):
    h, w = {"ceil": (7, 10), "floor": (6, 9), "same": (64, 96)}[size]
    raw = tmp_path / "raw"
    row = write_scene(raw, transform=None, low=busy(h, w, [11, 41, 81, 22], block=1), epsg=None)
    scenes = write_list(raw, [row])
    options = ("--taxonomy", LOW2HIGH, "--tile-px", PX, "--no-filter", "--scale", 10)
    assert run(tmp_path / "out", "--scenes", scenes, *options) == 0
    description, rows = read_manifest(tmp_path / "out")
    codes, header = read(tmp_path / "out" / rows[-1]["low"])
    image_header = read(tmp_path / "out" / rows[-1]["image"])[1]
    if size == "same":
        assert codes.shape == (PX, PX, 1) and header.affine is image_header.affine is None
    else:
        assert image_header.affine == (1, 0, 64, 0, -1, -32) and header.affine == (10, 0, 60, 0, -10, -30)
        whole = np.pad(read(raw / "s_low.tif")[0][..., 0], ((0, 1), (0, 1)), constant_values=0)  # floor: it ends
        assert np.array_equal(codes[..., 0], whole[3:7, 6:10])
    assert description.scale == 10 and check(tmp_path / "out", decode=True) == (6, [], [])


def test_an_image_without_labels_becomes_tiles_without_labels(tmp_path):
    row = {**write_scene(tmp_path / "raw", image=np.full((64, 96, 3), 7, np.uint8)), "high": "", "low": ""}
    scenes = write_list(tmp_path / "raw", [row])
    assert run(tmp_path / "out", "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX) == 0
    assert {(row["high"], row["low"]) for row in manifest(tmp_path / "out")} == {("", "")}


# The rules -------------------------------------------------------------------------------------------------------


def two_classes(codes):
    return np.where(np.arange(PX)[:, None] % 2, *codes).repeat(PX, 1).astype(np.uint8)


def share(codes, first_rows):
    """The first code on so many rows, the other two below."""
    rows = np.array([codes[0]] * first_rows + [codes[1 + i % 2] for i in range(PX - first_rows)], np.uint8)
    return rows[:, None].repeat(PX, 1)


@pytest.mark.parametrize(
    "source, label, rule",
    [
        ("high", two_classes((1, 2)), "classes"),
        ("low", two_classes((11, 41)), "classes"),
        ("high", share((4, 5, 6), 12), "classes"),  # three codes, one merged class
        ("high", share((0, 1, 2), 8), "classes"),  # ignore is no class
        ("low", share((12, 11, 41), 8), "classes"),
        ("high", share((1, 2, 3), 25), "dominant"),  # 78 %
        ("low", share((81, 41, 11), 25), "dominant"),
        ("high", share((1, 2, 3), 24), None),  # 75 % is not over 75 %
        ("high", np.zeros((PX, PX), np.uint8), "empty"),
        ("low", np.full((PX, PX), 12, np.uint8), "empty"),
    ],
)
def test_a_tile_is_dropped_if_either_label_source_breaks_a_rule(tmp_path, capsys, source, label, rule):
    image, good = np.ones((PX, 2 * PX, 3), np.uint8), {"high": [1, 2, 3, 5], "low": [11, 41, 81, 22]}
    parts = {kind: busy(PX, 2 * PX, codes) for kind, codes in good.items()}
    parts[source][:, :PX] = label
    status, root = build_scene(tmp_path, image=image, **parts)
    kept = [row["tile"] for row in manifest(root)]
    counted = {name: int(name == rule) for name in ("empty", "classes", "dominant")}
    assert status == 0 and kept == (["s_000_001"] if rule else ["s_000_000", "s_000_001"])
    assert "dropped: " + ", ".join(f"{name} {n}" for name, n in counted.items()) in capsys.readouterr().out


def test_no_filter_keeps_all_but_empty_tiles(tmp_path):
    high, low = np.full((64, 96), 2, np.uint8), np.full((64, 96), 41, np.uint8)
    high[:PX, :PX] = 0
    image = np.ones((64, 96, 3), np.uint8)
    image[:PX, PX : 2 * PX] = 0  # all nodata
    image[PX:, :, 0] = 0  # one band alone is data
    status, root = build_scene(tmp_path, "--no-filter", image=image, high=high, low=low, nodata=0)
    assert status == 0 and [row["tile"] for row in manifest(root)] == [
        "s_000_002", "s_001_000", "s_001_001", "s_001_002",
    ]  # fmt: skip
    assert read(root / "images" / "s_001_000.tif")[1].nodata == 0


def test_a_tile_beyond_a_low_label_is_empty(tmp_path, capsys):
    low, transform = busy(8, 4, [11, 41, 81], block=1), (8.0, 0.0, 500_000.0, 0.0, -8.0, 4_300_000.0)
    status, root = build_scene(tmp_path, "--no-filter", low=low, low_transform=transform)
    assert status == 0 and [row["tile"] for row in manifest(root)] == ["s_000_000", "s_001_000"]
    assert "empty 4" in capsys.readouterr().out


def test_a_labels_nodata_value_is_ignored_and_stands_in_the_merge(tmp_path):
    high = busy(64, 96, [1, 2, 3, 5])
    high[:4] = 99
    status, root = build_scene(tmp_path, high=high, label_nodata=99)
    assert status == 0 and read_manifest(root)[0].taxonomy.high[99] == 255
    assert check(root, decode=True) == (6, [], [])


# Splits and settings ---------------------------------------------------------------------------------------------


def place(i):
    """A georeference of its own for each scene."""
    return (1.0, 0.0, 500_000.0 + 1000 * i, 0.0, -1.0, 4_300_000.0)


def many_scenes(folder, count=8):
    rows = [write_scene(folder, f"s{i}", region=("de", "va")[i % 2], transform=place(i)) for i in range(count)]
    return write_list(folder, rows)


def test_one_worker_and_two_build_the_same_bytes(tmp_path):
    scenes = many_scenes(tmp_path / "raw", 4)
    for workers in (1, 2):
        root = tmp_path / str(workers) / "set"
        assert run(root, "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX, workers=workers) == 0
    assert files(tmp_path / "1" / "set") == files(tmp_path / "2" / "set")
    regions = {region: [row["split"] for row in manifest(root) if row["region"] == region] for region in ("de", "va")}
    for splits in regions.values():  # of 12 tiles: 9, 1.2, 1.2, 0.6
        assert [splits.count(name) for name in ("train", "validation", "heldout", "test")] == [9, 1, 1, 1]


def test_a_scene_list_may_fix_the_splits_of_some_scenes(tmp_path):
    raw = tmp_path / "raw"
    splits = {"a": "test", "b": "", "c": "heldout"}
    rows = [write_scene(raw, n, split=split, transform=place(i)) for i, (n, split) in enumerate(splits.items())]
    assert run(tmp_path / "out", "--scenes", write_list(raw, rows), "--taxonomy", LOW2HIGH, "--tile-px", PX) == 0
    splits = {name: {row["split"] for row in manifest(tmp_path / "out") if row["tile"][0] == name} for name in "abc"}
    assert splits["a"] == {"test"} and splits["c"] == {"heldout"} and "train" in splits["b"]


def test_another_seed_draws_other_splits_of_the_same_tiles(tmp_path):
    scenes, splits = many_scenes(tmp_path / "raw"), []
    for seed in (0, 1):
        root = tmp_path / str(seed)
        assert run(root, "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX, "--seed", seed) == 0
        splits.append({row["tile"]: row["split"] for row in manifest(root)})
    assert splits[0].keys() == splits[1].keys() and splits[0] != splits[1]


# Stopping and going on -------------------------------------------------------------------------------------------


def test_killed_at_any_moment_the_same_command_completes_the_same_set(tmp_path):
    scenes = many_scenes(tmp_path / "raw", 12)
    command = [sys.executable, "-m", "data.prepare", "OUT", "--scenes", str(scenes), "--taxonomy", str(LOW2HIGH),
               "--tile-px", str(PX), "--scale", "30", "--workers", "1"]  # fmt: skip
    whole, broken = tmp_path / "a" / "set", tmp_path / "b" / "set"
    assert run(whole, *command[4:-2]) == 0
    command[3] = str(broken)
    draw, killed = random.Random(0), 0
    for done in (0, 3, 8):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while process.poll() is None and len(list(broken.glob(".build/scenes/*.json"))) <= done:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL and not (broken / "dataset.yaml").exists()
        for path in broken.glob("*/*.tif"):  # what has its final name is whole
            read(path)
    assert killed
    for leftover in ("images/.s0_000_000.tif", ".build/scenes/.s0.json"):
        (broken / f"{leftover}.{process.pid}.tmp").write_bytes(b"half")
    for leftover in broken.rglob("*.tmp"):  # younger ones may be of a process that still runs
        os.utime(leftover, (0, 0))
    assert run(broken, *command[4:-2]) == 0
    assert not list(broken.rglob("*.tmp"))
    assert files(broken) == files(whole)


def test_a_complete_build_run_again_touches_nothing(tmp_path, capsys, monkeypatch):
    scenes = many_scenes(tmp_path / "raw", 2)
    arguments = (tmp_path / "out", "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX)
    assert run(*arguments) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    monkeypatch.setattr(build_module, "map_unordered", None)
    assert run(*arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert "is complete already" in capsys.readouterr().out


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    "options, said",
    [
        (("--tile-px", 48), "--tile-px: 32 then, 48 now"),
        (("--scale", 32), "--scale: 30 then, 32 now"),
        (("--seed", 3), "--seed: 0 then, 3 now"),
        (("--no-filter",), "--no-filter: True then, False now"),
        (("--compression", "none"), "--compression: zlib then, none now"),
        (("--taxonomy", LOW2HIGH.with_name("enviroatlas.yaml")), "--taxonomy"),
    ],
)
def test_a_folder_begun_with_other_options_is_refused_and_the_option_is_named(
    tmp_path, capsys, options, said, complete
):
    scenes = many_scenes(tmp_path / "raw", 1)
    arguments = (tmp_path / "out", "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX)
    assert run(*arguments) == 0
    if not complete:
        (tmp_path / "out" / "dataset.yaml").unlink()
    before = files(tmp_path / "out")
    assert run(*arguments, *options) == 2
    error = capsys.readouterr().err
    assert f"was begun with another {said}" in error and error.count("\n") == 1
    assert files(tmp_path / "out") == before


def test_a_damaged_scene_stops_the_build_and_may_be_mended_or_left_out(tmp_path, capsys):
    raw, root = tmp_path / "raw", tmp_path / "out"
    rows = [write_scene(raw, name) for name in "abc"]
    whole = (raw / "b_image.tif").read_bytes()
    (raw / "b_image.tif").write_bytes(whole[: len(whole) // 2])
    options = ("--taxonomy", LOW2HIGH, "--tile-px", PX)
    assert run(root, "--scenes", write_list(raw, rows), *options) == 2
    error = capsys.readouterr().err
    assert "b_image.tif" in error and error.count("\n") == 1 and not (root / "dataset.yaml").exists()
    assert run(root, "--scenes", write_list(raw, [rows[0], rows[2]]), *options) == 0
    assert {row["tile"][0] for row in manifest(root)} == {"a", "c"}
    assert run(root, "--scenes", write_list(raw, rows), *options) == 2  # complete with other scenes
    assert "was built from another list of scenes" in capsys.readouterr().err
    (raw / "b_image.tif").write_bytes(whole)
    assert run(tmp_path / "out2", "--scenes", write_list(raw, rows), *options) == 0


def test_a_tile_set_of_another_maker_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.yaml").write_text("name: other")
    status, root = build_scene(tmp_path)
    assert status == 2 and "did not make; give another folder" in capsys.readouterr().err
    assert (root / "dataset.yaml").read_text() == "name: other"


# Tiles that are cut already --------------------------------------------------------------------------------------


def pre_cut(folder, count=3, px=PX, **settings):
    return [
        write_scene(
            folder, f"t{i}", image=np.full((px, px, 3), i + 1, np.uint8), high=np.full((px, px), 2, np.uint8),
            low=np.full((-(-px // 10), -(-px // 10)), 41, np.uint8), transform=None, **settings,
        )
        for i in range(count)
    ]  # fmt: skip


def test_tiles_below_the_folder_are_referred_to_in_place_and_none_is_dropped(tmp_path, capsys):
    root = tmp_path / "set"
    rows = pre_cut(root / "any" / "where")
    tiles = write_list(root / "any" / "where", rows, "list.csv")
    before = files(root)
    assert run(root, "--tiled", tiles, "--taxonomy", LOW2HIGH, "--scale", 10) == 0
    assert [row["image"] for row in manifest(root)] == [f"any/where/t{i}_image.tif" for i in range(3)]
    assert files(root).keys() - before.keys() == {"dataset.yaml", "tiles.csv"}
    assert read_manifest(root)[0].tile_px == PX and "set: 3 tiles\n" in capsys.readouterr().out
    assert check(root, decode=True) == (3, [], [])


def test_tiles_elsewhere_are_linked_relatively_and_move_with_their_set(tmp_path):
    tiles = write_list(tmp_path / "at" / "raw", pre_cut(tmp_path / "at" / "raw"), "list.csv")
    root = tmp_path / "at" / "set"
    for _ in range(2):
        assert run(root, "--tiled", tiles, "--taxonomy", LOW2HIGH, "--scale", 10) == 0
        (root / "dataset.yaml").unlink()
        (root / ".build/scenes/t0.json").unlink()
    assert run(root, "--tiled", tiles, "--taxonomy", LOW2HIGH, "--scale", 10) == 0
    assert [row["high"] for row in manifest(root)] == [f"high/t{i}.tif" for i in range(3)]
    assert os.readlink(root / "images" / "t0.tif") == "../../raw/t0_image.tif"
    shutil.move(tmp_path / "at", tmp_path / "there")
    assert check(tmp_path / "there" / "set", decode=True) == (3, [], [])


@real
def test_real_patches_can_be_taken_as_they_are(tmp_path):
    options = ("--taxonomy", LOW2HIGH)
    assert run(tmp_path / "set", "--tiled", f"{REAL}/chesapeake/scenes.csv", *options) == 0
    assert run(
        tmp_path / "cut", "--scenes", f"{REAL}/chesapeake/scenes.csv", *options, "--tile-px", 256, "--no-filter"
    ) == 0  # fmt: skip
    taken, cut = (read_manifest(tmp_path / name)[0] for name in ("set", "cut"))
    assert (taken.band_mean, taken.band_std, taken.tile_px) == (cut.band_mean, cut.band_std, 256)


@pytest.mark.parametrize(
    "change, options, said",
    [
        ({"px": 64}, (), "t9_image.tif: tile_px is 64, but 32 for"),
        ({}, ("--tile-px", 64), "--tile-px 64: the tiles have 32 px"),
        ({"px": 24}, ("--scale", 3), "t0_low.tif: is 4 x 4 px without a common georeference"),
        ({"bands": 2}, (), "bands 2, but 3 in"),
    ],
)
def test_tiles_that_do_not_go_together_are_named(tmp_path, capsys, change, options, said):
    raw = tmp_path / "raw"
    rows = pre_cut(raw, 1)
    px = change.get("px", PX)
    image = np.ones((px, px, change.get("bands", 3)), np.uint8)
    low = np.full((-(-px // 10), -(-px // 10)), 41, np.uint8)
    rows.append(write_scene(raw, "t9", image, np.full((px, px), 2, np.uint8), low, transform=None))
    arguments = ("--tiled", write_list(raw, rows, "list.csv"), "--taxonomy", LOW2HIGH, "--scale", 10, *options)
    assert run(tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_link_never_replaces_a_file(tmp_path, capsys):
    tiles = write_list(tmp_path / "raw", pre_cut(tmp_path / "raw"), "list.csv")
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "images" / "t0.tif").write_text("mine")
    assert run(tmp_path / "out", "--tiled", tiles, "--taxonomy", LOW2HIGH, "--scale", 10) == 2
    assert "t0.tif: is there already" in capsys.readouterr().err
    assert (tmp_path / "out" / "images" / "t0.tif").read_text() == "mine"


def test_the_manifest_does_not_overwrite_the_list_it_comes_from(tmp_path, capsys):
    tiles = write_list(tmp_path, pre_cut(tmp_path), "tiles.csv")
    assert run(tmp_path, "--tiled", tiles, "--taxonomy", LOW2HIGH, "--scale", 10) == 2
    assert "is where the manifest goes; give the list another name" in capsys.readouterr().err


# Pictures and masks of colours -----------------------------------------------------------------------------------

COLORED = """
classes: [{name: water, color: [0, 0, 255]}, {name: land, color: [0, 255, 0]}, {name: road, color: [9, 9, 9]}]
colors: {"#E2A929": water, "#8429F6": land, "#6EC1E4": road, "#000000": ignore}
"""
MASK_COLORS = np.array([(0, 0, 0), (0xE2, 0xA9, 0x29), (0x84, 0x29, 0xF6), (0x6E, 0xC1, 0xE4)], np.uint8)


def photographs(folder, count=4, size=(64, 96), suffix="png"):
    """Photographs with masks in colours; returns the rows of their list and the codes of each mask."""
    rows, masks = [], {}
    for i in range(count):
        name, codes = f"p{i}", busy(*size, [0, 1, 2, 3], seed=i)
        for kind, picture in (("images", np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)),
                              ("masks", MASK_COLORS[codes])):  # fmt: skip
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / kind / f"{name}.{suffix if kind == 'images' else 'png'}")
        rows.append({"image": f"images/{name}.{suffix}", "high": f"masks/{name}.png"})
        masks[name] = codes
    return rows, masks


def colored(folder, text=COLORED):
    (folder / "taxonomy.yaml").write_text(text)
    return folder / "taxonomy.yaml"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_photographs_with_masks_in_colours_become_tiles_of_codes(tmp_path, capsys, kind, suffix):
    rows, masks = photographs(tmp_path, suffix=suffix)
    if kind == "csv":
        listed = write_list(tmp_path, [{**row, "region": "here"} for row in rows])
    else:
        listed = tmp_path / "photos.txt"
        listed.write_text("".join(f"{row['image']}, {row['high']}\n" for row in rows))
    arguments = ("--scenes", listed, "--taxonomy", colored(tmp_path), "--tile-px", PX, "--scale", 16)
    assert run(tmp_path / "out", *arguments) == 0
    description, rows = read_manifest(tmp_path / "out")
    assert description.taxonomy.high == {0: 255, 1: 0, 2: 1, 3: 2} and len(rows) == 24
    for row in rows:
        name, top, left = row["tile"].split("_")
        corner = np.s_[PX * int(top) : PX * int(top) + PX, PX * int(left) : PX * int(left) + PX]
        assert np.array_equal(read(tmp_path / "out" / row["high"])[0][..., 0], masks[name][corner])
    assert {row["region"] for row in rows} == {"here" if kind == "csv" else "photos"}
    assert "n = 16: coarse cells of 16 pixels\n" in capsys.readouterr().out  # photographs do not say metres
    assert check(tmp_path / "out", decode=True) == (24, [], [])


def test_pictures_that_are_tiles_already_become_geotiffs_and_geotiffs_stay_as_they_are(tmp_path):
    raw = tmp_path / "raw"
    rows, masks = photographs(raw, size=(64, 64))
    with Image.open(raw / rows[0]["image"]) as picture:
        pixels = np.array(picture)
    geotiffs.write(raw / "images" / "p1.tif", pixels, UTM, 26917)
    geotiffs.write(raw / "masks" / "p1.tif", MASK_COLORS[masks["p1"]], UTM, 26917)
    rows[1] = {"image": "images/p1.tif", "high": "masks/p1.tif"}
    Image.fromarray(np.dstack([pixels, 255 * (masks["p2"] != 3).astype(np.uint8)])).save(raw / "images" / "p2.png")
    listed = write_list(raw, [{**row, "region": "here", "split": "train"} for row in rows], "list.csv")
    root = tmp_path / "set"
    assert run(root, "--tiled", listed, "--taxonomy", colored(raw), "--scale", 16) == 0
    assert check(root, decode=True) == (4, [], [])
    for row in manifest(root):
        wanted = masks[row["tile"]]
        wanted = np.where(wanted == 3, 0, wanted) if row["tile"] == "p2" else wanted  # no imagery, no label
        assert np.array_equal(read(root / row["high"])[0][..., 0], wanted)
    assert np.array_equal(read(root / "images/p0.tif")[0], pixels)
    assert (root / "images/p1.tif").is_symlink() and not (root / "high/p1.tif").is_symlink()
    header = read(root / "high/p1.tif")[1]
    assert header.affine == UTM and epsg_of(root / "high/p1.tif") == 26917
    image, header = read(root / "images/p2.tif")  # where it was transparent it has no data
    assert header.nodata == 0 and not image[masks["p2"] == 3].any() and image[masks["p2"] != 3].any()


def test_a_picture_never_becomes_a_geotiff_in_its_own_folder(tmp_path, capsys):
    rows, _ = photographs(tmp_path, size=(64, 64))
    listed = write_list(tmp_path, [{**row, "region": "here"} for row in rows], "list.csv")
    assert run(tmp_path, "--tiled", listed, "--taxonomy", colored(tmp_path), "--scale", 16) == 2
    assert f"give another folder than {tmp_path}" in capsys.readouterr().err
    assert not list((tmp_path / "images").glob("*.tif"))


@pytest.mark.parametrize("source", ["--scenes", "--tiled"])
def test_a_colour_that_the_taxonomy_lacks_is_named_with_its_count(tmp_path, capsys, source):
    rows, masks = photographs(tmp_path, 1, size=(64, 64))
    listed = write_list(tmp_path, [{**row, "region": "here"} for row in rows], "list.csv")
    taxonomy = colored(tmp_path, COLORED.replace('"#6EC1E4": road, ', ""))
    assert run(tmp_path / "out", source, listed, "--taxonomy", taxonomy, "--tile-px", 64) == 2
    lacking = f"p0.png: colours without a class: #6EC1E4 ({(masks['p0'] == 3).sum()} px); the taxonomy knows #000000, "
    error = capsys.readouterr().err
    assert lacking in error and error.count("\n") == 1


def test_a_folder_begun_with_other_colours_is_refused(tmp_path, capsys):
    rows, _ = photographs(tmp_path)
    listed = write_list(tmp_path, [{**row, "region": "here"} for row in rows])
    arguments = (tmp_path / "out", "--scenes", listed, "--tile-px", PX, "--scale", 16, "--taxonomy")
    assert run(*arguments, colored(tmp_path)) == 0 and run(*arguments, colored(tmp_path)) == 0
    swapped = COLORED.replace("#E2A929", "?").replace("#8429F6", "#E2A929").replace("?", "#8429F6")
    assert run(*arguments, colored(tmp_path, swapped)) == 2  # the codes have the same classes
    assert "was begun with another --taxonomy; use the same or" in capsys.readouterr().err


def test_a_taxonomy_may_gain_the_colour_that_a_scene_lacked(tmp_path, capsys):
    rows, _ = photographs(tmp_path)
    Image.fromarray(np.full((64, 96, 3), 7, np.uint8)).save(tmp_path / "masks" / "p3.png")
    listed = write_list(tmp_path, [{**row, "region": "here"} for row in rows])
    arguments = ("--scenes", listed, "--tile-px", PX, "--scale", 16, "--taxonomy")
    assert run(tmp_path / "out", *arguments, colored(tmp_path)) == 2
    assert "p3.png: colours without a class: #070707 (6144 px); " in capsys.readouterr().err
    assert [path.stem for path in sorted((tmp_path / "out").glob(".build/scenes/*"))] == ["p0", "p1", "p2"]
    other_codes = COLORED.replace("colors: {", 'colors: {"#070707": land, ')
    other_merge = COLORED.replace('"#6EC1E4": road', '"#6EC1E4": land, "#070707": ignore')
    for wrong in (other_codes, other_merge):
        assert run(tmp_path / "out", *arguments, colored(tmp_path, wrong)) == 2
        assert "was begun with another --taxonomy" in capsys.readouterr().err
    mended = colored(tmp_path, COLORED.replace("ignore}", 'ignore, "#070707": ignore}'))
    assert run(tmp_path / "out", *arguments, mended) == 0 and run(tmp_path / "whole", *arguments, mended) == 0
    assert {row["tile"][:2] for row in manifest(tmp_path / "out")} == {"p0", "p1", "p2"}
    ours, theirs = files(tmp_path / "out"), files(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and {k for k in ours if ours[k] != theirs[k]} == {"dataset.yaml"}  # its name


# What is not there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, options, said",
    [
        ((64, 96), (), "512 px: the largest, RAW/images/p0.png, has 64 x 96 px; --tile-px 64 fits into it"),
        ((90, 70), ("--tile-px", 96), "RAW/images/p0.png, has 90 x 70 px; --tile-px 64 fits into it"),
        ((24, 96), ("--tile-px", 32), "RAW/images/p0.png, has 24 x 96 px; a tile has 32 px or more"),
    ],
)
def test_where_scenes_are_smaller_than_a_tile_one_that_fits_is_named(tmp_path, capsys, size, options, said):
    rows, _ = photographs(tmp_path, 2, size=size)
    listed = write_list(tmp_path, [{**row, "region": "here"} for row in rows])
    arguments = (tmp_path / "out", "--scenes", listed, "--taxonomy", colored(tmp_path), "--scale", 16)
    assert run(*arguments, *options) == 2
    error = capsys.readouterr().err
    assert said.replace("RAW", str(tmp_path)) in error and error.count("\n") == 1


@pytest.mark.parametrize("size, said", [((90, 64), "note: 29% of the scenes' area"), ((66, 64), None)])
def test_edges_that_make_no_tile_are_said(tmp_path, capsys, size, said):
    rows, _ = photographs(tmp_path, 2, size=size)
    listed = write_list(tmp_path, [{**row, "region": "here"} for row in rows])
    arguments = ("--scenes", listed, "--taxonomy", colored(tmp_path), "--scale", 16, "--tile-px", 64, "--no-filter")
    assert run(tmp_path / "out", *arguments) == 0
    printed = capsys.readouterr().out
    assert said in printed if said else "whole tile" not in printed


def test_some_scenes_smaller_than_a_tile_are_counted(tmp_path, capsys):
    rows, _ = photographs(tmp_path, 3, size=(64, 64))
    small, _ = photographs(tmp_path / "small", 1, size=(64, 40))
    small = [{key: f"small/{path}" for key, path in row.items()} | {"scene": "small"} for row in small]
    listed = write_list(tmp_path, [{"scene": "", "region": "here", **row} for row in rows + small])
    arguments = (tmp_path / "out", "--scenes", listed, "--taxonomy", colored(tmp_path), "--scale", 16)
    assert run(*arguments, "--tile-px", 64) == 0
    assert "note: 1 of 4 scenes are smaller than a tile of 64 px and give none" in capsys.readouterr().out


def test_where_the_filter_leaves_no_tile_no_filter_is_named(tmp_path, capsys):
    status, _ = build_scene(tmp_path, high=np.full((64, 96), 2, np.uint8))
    assert status == 2 and "(dropped: empty 0, classes 6, dominant 0); --no-filter keeps " in capsys.readouterr().err
    status, _ = build_scene(tmp_path / "empty", high=np.zeros((64, 96), np.uint8))
    assert status == 2 and "empty 6, classes 0, dominant 0); over none of them each " in capsys.readouterr().err


def test_splits_without_tiles_are_said(tmp_path, capsys):
    status, root = build_scene(tmp_path, split="train")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert status == 0 and [note.split(",")[0] for note in notes] == [
        f"note: {root} has no tiles of the split {split}" for split in ("validation", "heldout", "test")
    ]
    assert "adversarial.exemplar_root" in notes[1]


def test_heldout_tiles_without_fine_labels_are_no_exemplars(tmp_path, capsys):
    raw = tmp_path / "raw"
    splits = ("train", "validation", "heldout", "test")
    rows = [write_scene(raw, split, split=split, transform=place(i)) for i, split in enumerate(splits)]
    rows[2]["high"] = ""
    arguments = ("--scenes", write_list(raw, rows), "--taxonomy", LOW2HIGH, "--tile-px", PX)
    assert run(tmp_path / "out", *arguments) == 0
    said = capsys.readouterr().out
    assert said.count("note: ") == 1
    assert "has no fine labels of the split heldout, from which an adversary learns" in said


# What a user can get wrong ---------------------------------------------------------------------------------------

FAR = (1.0, 0.0, 700_000.0, 0.0, -1.0, 4_300_000.0)
SHIFTED = (1.0, 0.0, 500_000.5, 0.0, -1.0, 4_300_000.0)
CELLS = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_300_000.0)
FLOATS = np.zeros((64, 96, 3), np.float32)


@pytest.mark.parametrize(
    "parts, options, said",
    [
        ({"high_transform": FAR}, (), "s_high.tif: does not overlap RAW/s_image.tif"),
        ({"low_transform": FAR}, (), "s_low.tif: does not overlap RAW/s_image.tif"),
        ({"high_crs": None, "high_transform": None, "high": busy(64, 95, [1, 2])}, (), "s_high.tif: is 64 x 95 px"),
        ({"high_crs": None}, (), "s_high.tif: has no coordinate system, and RAW/s_image.tif has one; --same-crs"),
        ({"low_crs": None}, (), "s_low.tif: has no coordinate system, and RAW/s_image.tif has one; --same-crs"),
        ({"low_transform": SHIFTED}, (), "s_low.tif: has pixels as small as those of RAW/s_image.tif"),
        ({"low": busy(7, 10, [11, 41]), "low_transform": CELLS}, ("--scale", 30), "its pixels are 10 times those of"),
        ({"high": np.full((64, 96), 77, np.uint8)}, (), "s_high.tif: codes without a class: 77 (6144 times); the"),
        ({"low": np.full((64, 96), 77, np.uint8)}, (), "s_low.tif: codes without a class: 77 (6144 times); the"),
        ({"high": np.zeros((64, 96, 2), np.uint8)}, (), "s_high.tif: has 2 bands of uint8; a label has one"),
        ({"high": np.full((64, 96), 0.5, np.float32)}, (), "s_high.tif: holds numbers that are not whole, as 0.5"),
        ({"image": FLOATS}, (), "s_image.tif: pixels are float32; say which values are the least"),
        ({}, ("--tile-px", 96), "no tile was kept (dropped: empty 0, classes 0, dominant 0)"),
        ({}, ("--tile-px", 16), "--tile-px 16: should be 32 or more"),
        ({}, ("--scale", 0), "--scale 0: should be 1 or more"),
        ({}, ("--range", 1, 0), "--range 1 0: the first is to be the smaller"),
        ({}, ("--seed", -1), "--seed -1: should be 0 or more"),
        ({}, ("--taxonomy", "none.yaml"), "none.yaml: No such file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path, capsys, parts, options, said):
    raw = tmp_path / "raw"
    scenes = write_list(raw, [write_scene(raw, **parts)])
    arguments = ["--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX]
    assert run(tmp_path / "out", *arguments, *options, scale=None if "low_transform" in parts else 30) == 2
    error = capsys.readouterr().err
    assert said.replace("RAW", str(raw)) in error and error.count("\n") == 1


def hide(path, held, how):
    """Give an image a mask, or a band that is tagged alpha."""
    pixels, header = read(path)
    if how == "alpha":
        pixels = np.dstack([pixels, held * np.uint8(200)])
        geotiffs.write(path, pixels, header.affine, 26917, photometric="RGB", alpha="YES")
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how == "mask"):
            geotiffs.write(path, pixels, header.affine, 26917, mask=held)


@pytest.mark.parametrize("how", ["alpha", "mask", "mask beside it"])
def test_what_a_mask_or_an_alpha_band_hides_is_no_data(tmp_path, capsys, how):
    raw, held = tmp_path / "raw", np.ones((64, 96), bool)
    held[:32, :32] = held[40:50, 40:50] = False
    scenes = write_list(raw, [write_scene(raw)])
    image = read(raw / "s_image.tif")[0]
    hide(raw / "s_image.tif", held, how)
    arguments = (tmp_path / "out", "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX)
    if how == "alpha":  # four bands, or three of which some pixels have no data: that is not guessed
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert "s_image.tif: band 4 of 4 is tagged alpha; --bands 3 takes it for" in error and "--bands 4" in error
        assert run(tmp_path / "four", *arguments[1:], "--bands", 4) == 0
        assert read_manifest(tmp_path / "four")[0].bands == 4 and len(manifest(tmp_path / "four")) == 6
        assert run(tmp_path / "two", *arguments[1:], "--bands", 2) == 2
        assert "has 4 bands, not 2" in capsys.readouterr().err
        arguments += ("--bands", 3)
    assert run(*arguments) == 0
    description, rows = read_manifest(tmp_path / "out")
    assert "dropped: empty 1," in capsys.readouterr().out
    assert description.bands == 3 and [row["tile"] for row in rows] == [
        f"s_{name}" for name in ("000_001", "000_002", "001_000", "001_001", "001_002")
    ]
    tile, header = read(tmp_path / "out/images/s_001_001.tif")
    assert header.nodata == 0 and header.alpha is None and not tile[8:18, 8:18].any()
    untouched, header = read(tmp_path / "out/images/s_001_002.tif")
    assert header.nodata is None and np.array_equal(untouched, image[32:, 64:])
    corners = [(PX * int(row["tile"][4]), PX * int(row["tile"][8])) for row in rows if row["split"] == "train"]
    parts = [(slice(top, top + PX), slice(left, left + PX)) for top, left in corners]
    seen = np.concatenate([image[part][held[part]] for part in parts])
    assert description.band_mean == pytest.approx(seen.mean(axis=0))
    assert check(tmp_path / "out", decode=True) == (5, [], [])


def test_tiles_are_taken_with_their_alpha_band_as_a_band_or_without_it(tmp_path, capsys):
    raw = tmp_path / "raw"
    rows = pre_cut(raw, 2)
    before = read(raw / "t0_image.tif")[0]
    for i in range(2):
        hide(raw / f"t{i}_image.tif", np.ones((PX, PX), bool), "alpha")
    arguments = (tmp_path / "out", "--tiled", write_list(raw, rows, "list.csv"), "--taxonomy", LOW2HIGH, "--scale", 10)
    assert run(*arguments) == 2 and "is tagged alpha" in capsys.readouterr().err
    assert run(*arguments, "--bands", 4) == 0 and read_manifest(tmp_path / "out")[0].bands == 4
    assert run(tmp_path / "three", *arguments[1:], "--bands", 3) == 0
    description, (row, _) = read_manifest(tmp_path / "three")
    assert description.bands == 3 and np.array_equal(read(tmp_path / "three" / row["image"])[0], before[..., :3])


def test_a_tile_that_is_taken_with_a_mask_is_written_anew_with_what_it_hides_as_no_data(tmp_path):
    raw, held = tmp_path / "raw", np.ones((PX, PX), bool)
    rows = pre_cut(raw, 3)
    before = [read(raw / f"t{i}_image.tif")[0] for i in range(3)]
    hide(raw / "t0_image.tif", held, "mask")  # hides nothing
    held[:8] = False
    hide(raw / "t1_image.tif", held, "mask")
    scenes = write_list(raw, rows, "list.csv")
    assert run(tmp_path / "out", "--tiled", scenes, "--taxonomy", LOW2HIGH, "--scale", 10) == 0
    links = {row["tile"]: tmp_path / "out" / row["image"] for row in manifest(tmp_path / "out")}
    assert links["t0"].is_symlink() and links["t2"].is_symlink() and not links["t1"].is_symlink()
    pixels, header = read(links["t1"])
    assert header.nodata == 0 and not pixels[:8].any() and np.array_equal(pixels[8:], before[1][8:])
    assert check(tmp_path / "out", decode=True) == (3, [], [])


def test_labels_without_any_georeference_lie_by_their_pixels_and_are_counted(tmp_path, capsys):
    raw = tmp_path / "raw"
    scenes = write_list(raw, [write_scene(raw)])
    for name in ("high", "low"):
        geotiffs.write(raw / f"s_{name}.tif", read(raw / f"s_{name}.tif")[0])
    assert run(tmp_path / "out", "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX) == 0
    said = "note: labels without a georeference, which lie by pixels on images that have one: 2"
    assert said in capsys.readouterr().out


def test_a_missing_file_is_named_before_anything_is_cut(tmp_path, capsys):
    raw = tmp_path / "raw"
    rows = [write_scene(raw, "a"), {**write_scene(raw, "b"), "low": "nowhere.tif"}]
    assert run(tmp_path / "out", "--scenes", write_list(raw, rows), "--taxonomy", LOW2HIGH, "--tile-px", PX) == 2
    line = f"{raw / 'scenes.csv'}, line 3: {raw / 'nowhere.tif'}: no such file\n"
    assert capsys.readouterr().err == line
    assert not (tmp_path / "out").exists()


def test_scenes_and_tiles_need_a_taxonomy(tmp_path, capsys):
    assert main([str(tmp_path / "out"), "--scenes", "scenes.csv"]) == 2
    assert "--scenes needs --taxonomy, for example " in capsys.readouterr().err


def test_scenes_of_two_pixel_sizes_are_no_tile_set(tmp_path, capsys):
    raw = tmp_path / "raw"
    half = (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_300_000.0)
    rows = [write_scene(raw, "a"), write_scene(raw, "b", transform=half)]
    assert run(tmp_path / "out", "--scenes", write_list(raw, rows), "--taxonomy", LOW2HIGH, "--tile-px", PX) == 2
    assert "b_image.tif: image_gsd is 0.5, but 1.0 for " in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_scenes_that_are_done_stay(tmp_path, capsys, monkeypatch):
    scenes = many_scenes(tmp_path / "raw", 2)
    arguments = (tmp_path / "out", "--scenes", scenes, "--taxonomy", LOW2HIGH, "--tile-px", PX)
    write_tile = build_module.cut_scene.__globals__["write_tile"]

    def full(root, name, *parts, **settings):
        if name.startswith("s1"):
            raise OSError(28, "No space left on device", str(root / name))
        return write_tile(root, name, *parts, **settings)

    monkeypatch.setattr("data.prepare.cutting.write_tile", full)
    assert run(*arguments) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'out' / 's1_000_000'}: No space left on device\n"
    assert [path.stem for path in (tmp_path / "out").glob(".build/scenes/*")] == ["s0"]
    monkeypatch.undo()
    assert run(*arguments) == 0



@pytest.mark.parametrize(
    "crs, place, metres",
    [
        (3857, (1.0, 0.0, 1_113_194.9, 0.0, -1.0, 4_865_942.3), 0.766),  # at 40 degrees north
        (4326, (1e-5, 0.0, -83.0, 0.0, -1e-5, 39.5), 0.978),
        (26917, UTM, 1.0),
    ],
)
def test_the_pixel_size_of_tiles_that_are_taken_is_that_on_the_ground(tmp_path, crs, place, metres):
    raw = tmp_path / "raw"
    row = write_scene(raw, "t", *(a[:PX, :PX] for a in (np.ones((64, 96, 3), np.uint8), busy(64, 96, [1, 2, 3]))),
                      low=busy(PX, PX, [11, 41, 81]), transform=place, crs=crs)  # fmt: skip
    assert run(tmp_path / "set", "--tiled", write_list(raw, [row], "list.csv"), "--taxonomy", LOW2HIGH) == 0
    assert read_manifest(tmp_path / "set")[0].image_gsd == pytest.approx(metres, abs=2e-3)
