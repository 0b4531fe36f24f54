"""Ground that tiles share: said, and kept in one split where splits are drawn."""

from pathlib import Path

import geotiffs
import numpy as np

from data.check import main as check
from data.ground import first_of_ground, ground, overlaps, shared_ground
from data.manifest import read_manifest
from data.prepare.__main__ import main

LOW2HIGH = Path(__file__).parents[2] / "configs" / "taxonomies" / "low2high.yaml"
SYSTEM = ((34735, "H", 4, (1, 1, 0, 0)),)


def record(tile, x, y=0.0, split="train", system=SYSTEM, side=64):
    place = ground((1.0, 0.0, x, 0.0, -1.0, y), (side, side), system)
    return {"tile": tile, "region": "a", "split": split, "ground": place}


def test_pairs_are_found_with_their_share_and_neighbours_that_touch_are_none():
    records = [record("a", 0), record("b", 48), record("c", 64), record("d", 1000), record("e", 48, system=())]
    assert {frozenset(pair[:2]): pair[2] for pair in overlaps(records)} == {
        frozenset("ab"): 0.25,
        frozenset("bc"): 0.75,
    }


def test_pairs_equal_a_slow_loop():
    rng = np.random.default_rng(0)
    records = [record(f"t{i}", *rng.uniform(0, 500, 2)) for i in range(60)]
    slow = set()
    for i, one in enumerate(records):
        for other in records[:i]:
            _, a, b, c, d = one["ground"]
            _, e, f, g, h = other["ground"]
            share = max(0, min(c, g) - max(a, e)) * max(0, min(d, h) - max(b, f)) / 64**2
            if share > 1e-3:
                slow.add((frozenset((one["tile"], other["tile"])), round(share, 9)))
    assert {(frozenset(pair[:2]), round(pair[2], 9)) for pair in overlaps(records)} == slow and slow


def test_tiles_that_share_ground_by_way_of_others_have_one_first():
    records = [record("c", 0), record("b", 48), record("a", 96), record("d", 1000)]
    first = first_of_ground(records)
    assert {tile: name for tile, (name, _) in first.items()} == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_the_share_of_a_split_that_training_covers_is_said():
    records = [record("a", 0), record("b", 48, split="test"), record("c", 1000, split="test")]
    (line,) = shared_ground(records)
    assert "12.5% of the ground of the split test lies in training tiles too" in line
    assert not list(shared_ground([{**r, "split": "train"} for r in records]))


def quads(folder, splits=("", "")):
    """Two scenes of which the second begins 40 px before the first ends, on another grid of tiles."""
    rng = np.random.default_rng(0)
    lines = ["region,split,image,high"]
    for name, x, split in (("a", 0, splits[0]), ("b", 216, splits[1])):
        place = (1.0, 0.0, 400_000.0 + x, 0.0, -1.0, 4_300_000.0)
        geotiffs.write(folder / f"{name}.tif", rng.integers(1, 255, (256, 256, 3), np.uint8), place, 26917)
        geotiffs.write(folder / f"{name}_lc.tif", rng.choice([1, 2, 3, 5], (256, 256)).astype(np.uint8), place, 26917)
        lines.append(f"oh,{split},{name}.tif,{name}_lc.tif")
    (folder / "scenes.csv").write_text("\n".join(lines) + "\n")
    words = ["--scenes", str(folder / "scenes.csv"), "--taxonomy", str(LOW2HIGH), "--tile-px", "32", "--scale", "16"]
    assert main([str(folder / "set"), *words, "--no-filter", "--workers", "1"]) == 0
    return folder / "set"


def test_tiles_of_shared_ground_are_drawn_into_one_split(tmp_path, capsys):
    rows = read_manifest(quads(tmp_path))[1]
    splits = {row["tile"]: row["split"] for row in rows}
    for row in range(8):
        for one, other in ((f"a_{row:03d}_006", f"b_{row:03d}_000"), (f"a_{row:03d}_007", f"b_{row:03d}_001")):
            assert splits[one] == splits[other]
    assert set(splits.values()) == {"train", "validation", "heldout", "test"}
    assert "lies in training tiles too" not in capsys.readouterr().out


def test_where_a_list_fixes_the_splits_the_build_and_the_check_say_the_share(tmp_path, capsys):
    root = quads(tmp_path, ("train", "test"))
    said = "15.6% of the ground of the split test lies in training tiles too, as scenes overlap"  # 40 of 256 px
    assert said in capsys.readouterr().out
    assert check([str(root), "--workers", "1"]) == 0
    assert said in capsys.readouterr().out


def test_drawn_tiles_follow_the_split_that_the_list_names_for_their_ground(tmp_path, capsys):
    splits = {row["tile"]: row["split"] for row in read_manifest(quads(tmp_path, ("", "test")))[1]}
    assert {splits[f"a_{row:03d}_00{col}"] for row in range(8) for col in (6, 7)} == {"test"}
    assert "lies in training tiles too" not in capsys.readouterr().out
