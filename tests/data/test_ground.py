"""Ground that tiles share: said, and kept in one split where splits are drawn."""

import itertools

import geotiffs
import numpy as np
import pytest
import rasterio.warp
from made_scenes import manifest, place, run, words_for, write_list

from data.check import main as check
from data.ground import first_of_ground, ground, overlaps

SYSTEM = ((34735, "H", 4, (1, 1, 0, 0)),)


def record(tile, x, y=0.0, split="train", turn=(1.0, 0.0)):
    c, s = turn
    return {"tile": tile, "region": "a", "split": split, "ground": ground((c, s, x, s, -c, y), (64, 64), SYSTEM)}


def test_pairs_equal_a_slow_loop():
    rng = np.random.default_rng(0)
    places = {f"t{i}": rng.uniform(0, 500, 2) for i in range(60)}
    fast = {pair[:2]: pair[2].mean() for pair in overlaps([record(t, *place) for t, place in places.items()])}
    for (one, (x, y)), (other, (u, v)) in itertools.permutations(places.items(), 2):
        share = max(0, 64 - abs(x - u)) * max(0, 64 - abs(y - v)) / 64**2
        assert abs(fast.get((one, other), 0) - share) < 0.05
    assert len(fast) > 20


@pytest.mark.parametrize("degrees", [0, 0.1, 10, 45])
def test_neighbours_of_one_scene_share_nothing_however_it_is_turned(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    records = []
    for i in range(16):
        col, row = 64 * (i % 4), 64 * (i // 4)
        records.append(record(f"t{i}", 4e5 + c * col + s * row, 4.3e6 + s * col - c * row, turn=(c, s)))
    assert all(pair[2].mean() < 0.005 for pair in overlaps(records))
    assert len(set(first_of_ground(records).values())) == 16


def test_tiles_that_share_ground_by_way_of_others_have_one_first():
    records = [record("c", 0), record("b", 48), record("a", 96), record("d", 1000)]
    first = first_of_ground(records)
    assert {tile: name for tile, (name, _) in first.items()} == {"a": "a", "b": "a", "c": "a", "d": "d"}


def scenes(folder, placed, *options):
    """The tile set of scenes of 64 px, {name: (georeference or None, system, split)}."""
    rng, rows = np.random.default_rng(0), []
    for name, (where, crs, split) in placed.items():
        geotiffs.write(folder / f"{name}.tif", rng.integers(1, 255, (64, 64, 3), np.uint8), where, crs)
        geotiffs.write(folder / f"{name}_lc.tif", rng.choice([1, 2, 3, 5], (64, 64)).astype(np.uint8), where, crs)
        rows.append({"region": "oh", "split": split, "image": f"{name}.tif", "high": f"{name}_lc.tif"})
    words = words_for(write_list(folder, rows), "--no-filter", *options, scale=16)
    assert run(folder / "set", *words) == 0
    return folder / "set"


def two(*splits):
    """A scene and one that begins 24 px before it ends, on another grid of tiles."""
    return {n: (place(x / 1000), 26917, s) for n, x, s in zip("ab", (0, 40), splits, strict=True)}


def test_tiles_of_shared_ground_are_drawn_into_one_split(tmp_path, capsys):
    placed = {f"s{i}": (place(i // 2 + 0.04 * (i % 2)), 26917, "") for i in range(20)}
    splits = {row["tile"]: row["split"] for row in manifest(scenes(tmp_path, placed))}
    for i in range(0, 20, 2):
        for row in range(2):
            assert splits[f"s{i}_00{row}_001"] == splits[f"s{i + 1}_00{row}_000"]
    assert set(splits.values()) == {"train", "validation", "heldout", "test"}
    said = capsys.readouterr().out
    assert "37.5% of the tiles' ground lies in other tiles too" in said and "in training tiles too" not in said


@pytest.mark.parametrize("other, tiles", [("train", "training tiles"), ("heldout", "tiles of the split heldout")])
def test_where_a_list_fixes_the_splits_the_build_and_the_check_say_the_share(tmp_path, capsys, other, tiles):
    root = scenes(tmp_path, two(other, "test"))
    said = f"37.5% of the ground of the split test lies in {tiles} too"  # 24 of 64 px
    assert said in capsys.readouterr().out
    assert check([str(root), "--workers", "1"]) == 0
    assert said in capsys.readouterr().out


def test_drawn_tiles_follow_the_split_that_the_list_names_for_their_ground(tmp_path, capsys):
    splits = {row["tile"]: row["split"] for row in manifest(scenes(tmp_path, two("", "test")))}
    assert {splits[f"a_00{row}_001"] for row in range(2)} == {"test"}
    assert "lies in training tiles too" not in capsys.readouterr().out


def test_scenes_of_two_zones_over_one_place_are_seen_to_overlap(tmp_path, capsys):
    placed = {}
    for name, crs, split in (("a", "EPSG:26917", "train"), ("b", "EPSG:32618", "test"), ("c", "EPSG:32617", "test")):
        (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [-78.0], [40.0])
        placed[name] = (1.0, 0.0, x, 0.0, -1.0, y), crs, split
    scenes(tmp_path, placed, "--tile-px", 64)
    said = capsys.readouterr().out
    share = float(said.split("note: ")[-1].split("%")[0])
    assert 90 < share <= 100 and "of the ground of the split test lies in training tiles too" in said


def test_images_that_do_not_say_where_they_lie_share_no_ground(tmp_path, capsys):
    root = scenes(tmp_path, {f"s{i}": (None, None, "") for i in range(8)}, "--tile-px", 64)
    words = words_for(tmp_path / "list.csv", source="--tiled", scale=16)
    assert run(tmp_path / "tiled", *words) == 0
    for built in (root, tmp_path / "tiled"):
        assert len({row["split"] for row in manifest(built)}) > 1
    assert "lies in other tiles too" not in capsys.readouterr().out
