"""Scenes to a tile set: the same whatever happens on the way, its splits, and what a user is told."""
# ruff: noqa: I001 - one import of many names

import random
import signal
import subprocess
import sys
import time

import geotiffs
import numpy as np
import pytest
from made_scenes import (
    COLORED, LOW2HIGH, REPOSITORY, build_scene, busy, colored, files, many_scenes, manifest, one_line, photographs,
    place, read, run, words_for, write_list, write_scene,
)  # fmt: skip
from PIL import Image

from data.prepare import cutting
from data.prepare import tile_set as build_module


def test_one_worker_and_two_build_the_same_bytes_and_another_seed_draws_other_splits(tmp_path):
    words, built = words_for(many_scenes(tmp_path / "raw", 4)), {}
    for name, workers, seed in (("a", 1, 0), ("b", 2, 0), ("c", 1, 1)):
        root = tmp_path / name / "set"
        assert run(root, *words, "--seed", seed, workers=workers) == 0
        built[name] = {row["tile"]: row["split"] for row in manifest(root)}
    assert files(tmp_path / "a" / "set") == files(tmp_path / "b" / "set")
    assert built["a"].keys() == built["c"].keys() and built["a"] != built["c"]
    for scenes in (("s0", "s2"), ("s1", "s3")):  # of 12 tiles a region: 9, 1.2, 1.2, 0.6
        splits = [split for tile, split in built["a"].items() if tile[:2] in scenes]
        assert [splits.count(name) for name in ("train", "validation", "heldout", "test")] == [9, 1, 1, 1]


def test_killed_at_any_moment_the_same_command_completes_the_same_set(tmp_path):
    words = [*map(str, words_for(many_scenes(tmp_path / "raw", 12)))]
    whole, broken = tmp_path / "a" / "set", tmp_path / "b" / "set"
    assert run(whole, *words) == 0
    draw, killed = random.Random(0), 0
    for done in (0, 3, 8):
        command = [sys.executable, "-m", "data.prepare", str(broken), *words, "--workers", "1"]
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
    assert run(broken, *words) == 0
    for leftover in broken.rglob("*.tmp"):
        leftover.unlink()
    assert files(broken) == files(whole)


def test_a_complete_build_run_again_touches_nothing(tmp_path, capsys, monkeypatch):
    words = words_for(many_scenes(tmp_path / "raw", 2))
    assert run(tmp_path / "out", *words) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    monkeypatch.setattr(build_module, "map_unordered", None)
    assert run(tmp_path / "out", *words) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    assert "is complete already" in capsys.readouterr().out


@pytest.mark.parametrize("complete", [True, False])
def test_a_folder_begun_with_other_settings_is_refused(tmp_path, capsys, complete):
    scenes, root = many_scenes(tmp_path / "raw", 1), tmp_path / "out"
    assert run(root, *words_for(scenes)) == 0
    if not complete:
        (root / "dataset.yaml").unlink()
    before = files(root)
    for options, said in (
        (("--tile-px", 48), "tile_px was 32, is 48"),
        (("--scale", 32), "scale was 30, is 32"),
        (("--seed", 3), "seed was 0, is 3"),
        (("--no-filter",), "filter was True, is False"),
        (("--taxonomy", LOW2HIGH.with_name("enviroatlas.yaml")), "taxonomy; use the same"),
    ):
        assert run(root, *words_for(scenes, *options)) == 2
        assert f"was begun with other settings: {said}" in one_line(capsys) and files(root) == before


def test_a_damaged_scene_stops_the_build_and_may_be_mended_or_left_out(tmp_path, capsys):
    raw, root = tmp_path / "raw", tmp_path / "out"
    rows = [write_scene(raw, name) for name in "abc"]
    whole = (raw / "b_image.tif").read_bytes()
    (raw / "b_image.tif").write_bytes(whole[: len(whole) // 2])
    assert run(root, *words_for(write_list(raw, [{**row, "low": ""} for row in rows]))) == 2
    assert "b_image.tif" in one_line(capsys) and not (root / "dataset.yaml").exists()
    assert run(root, *words_for(write_list(raw, [rows[0], rows[2]]))) == 0  # with coarse labels too: all is cut anew
    assert {(row["tile"][0], bool(row["low"])) for row in manifest(root)} == {("a", True), ("c", True)}
    (raw / "b_image.tif").write_bytes(whole)
    assert run(tmp_path / "out2", *words_for(write_list(raw, rows))) == 0
    rows[2]["high"] = rows[1]["high"]  # another file than was cut
    geotiffs.write(raw / "b_high.tif", busy(64, 96, [1, 2, 3]), geotiffs.UTM, 26917)
    changed = words_for(write_list(raw, [rows[0], rows[2]]))
    assert run(root, *changed) == 2 and "begun with other settings: files;" in one_line(capsys)
    (root / "dataset.yaml").unlink()
    assert run(root, *changed) == 0 and 5 not in read(root / "high" / "c_000_000.tif")[0]
    assert 5 in read(root / "high" / "a_000_000.tif")[0]


def test_a_tile_set_of_another_maker_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.yaml").write_text("name: other")
    status, root = build_scene(tmp_path)
    assert status == 2 and "did not make; give another folder" in one_line(capsys)
    assert (root / "dataset.yaml").read_text() == "name: other"


def test_a_taxonomy_may_gain_the_colour_that_a_scene_lacked_and_change_in_nothing_else(tmp_path, capsys):
    rows, _ = photographs(tmp_path)
    Image.fromarray(np.full((64, 96, 3), 7, np.uint8)).save(tmp_path / "masks" / "p3.png")
    listed = write_list(tmp_path, rows)

    def build(text):
        return run(tmp_path / "out", *words_for(listed, "--taxonomy", colored(tmp_path, text), scale=16))

    assert build(COLORED) == 2
    assert "p3.png: colours without a class: #070707 (6144 px); " in one_line(capsys)
    other_codes = COLORED.replace("colors: {", 'colors: {"#070707": land, ')
    other_merge = COLORED.replace('"#6EC1E4": road', '"#6EC1E4": land, "#070707": ignore')
    for wrong in (other_codes, other_merge):
        assert build(wrong) == 2 and "was begun with other settings: " in one_line(capsys)
    assert build(COLORED.replace("ignore}", 'ignore, "#070707": ignore}')) == 0
    assert {row["tile"][:2] for row in manifest(tmp_path / "out")} == {"p0", "p1", "p2"}


def test_splits_without_tiles_or_without_the_labels_that_they_need_are_said(tmp_path, capsys):
    raw = tmp_path / "raw"
    rows = [write_scene(raw, split, split=split, transform=place(i)) for i, split in enumerate(("train", "heldout"))]
    rows[1]["high"] = ""
    assert run(tmp_path / "out", *words_for(write_list(raw, rows))) == 0
    notes = [line.split(",")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    lacking = ("tiles of the split validation", "fine labels of the split heldout", "tiles of the split test")
    assert notes == [f"note: {tmp_path / 'out'} has no {what}" for what in lacking]
    tile = np.ones((64, 64), np.uint8)
    rows = [write_scene(raw, "void", tile[..., None].repeat(3, 2), high=0 * tile, low=11 * tile, split="train")]
    assert run(tmp_path / "void", *words_for(write_list(raw, rows), source="--tiled")) == 0
    assert "train             1  high    every pixel is ignored" in capsys.readouterr().out


def test_a_missing_file_and_a_missing_taxonomy_are_named_before_anything_is_cut(tmp_path, capsys):
    raw = tmp_path / "raw"
    scenes = write_list(raw, [write_scene(raw, "a"), {**write_scene(raw, "b"), "low": "nowhere.tif"}])
    assert run(tmp_path / "out", *words_for(scenes)) == 2
    assert one_line(capsys) == f"{scenes}: {raw / 'nowhere.tif'}: no such file\n"
    assert run(tmp_path / "out", "--scenes", scenes) == 2
    assert "--scenes needs --taxonomy, for example " in one_line(capsys) and not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_the_scenes_that_are_done_stay(tmp_path, capsys, monkeypatch):
    words, write_tile = words_for(many_scenes(tmp_path / "raw", 2)), cutting.write_tile

    def full(root, name, *parts, **settings):
        if name.startswith("s1"):
            raise OSError(28, "No space left on device", str(root / name))
        return write_tile(root, name, *parts, **settings)

    monkeypatch.setattr(cutting, "write_tile", full)
    assert run(tmp_path / "out", *words) == 2
    assert one_line(capsys) == f"{tmp_path / 'out' / 's1_000_000'}: No space left on device\n"
    assert [path.stem for path in (tmp_path / "out").glob(".build/scenes/*")] == ["s0"]
    monkeypatch.undo()
    assert run(tmp_path / "out", *words) == 0
