"""Scenes cut into tiles: real sets first, then each rule by a hand-made case."""
# ruff: noqa: I001 - one import of many names

from pathlib import Path

import geotiffs
import numpy as np
import pytest
from made_scenes import (
    PX, REPOSITORY, build_scene, busy, colored, epsg_of, files, manifest, one_line, photographs,
    read, run, words_for, write_list, write_scene,
)  # fmt: skip

from data.cells import upsampled
from data.check import check
from data.coarse import low_label
from data.manifest import read_manifest
from data.prepare import cutting, sources
from data.prepare.tile_set import DERIVED
from data.taxonomy import merge
from data.tiles import low_cells

CELLS = (10.0, 0, 5e5, 0, -10.0, 4.3e6)


def test_the_real_chesapeake_patches_become_eight_tiles_with_their_own_codes(real, tmp_path, capsys):
    root = tmp_path / "out"
    assert run(root, *words_for(f"{real}/chesapeake/scenes.csv", "--tile-px", 256, "--no-filter")) == 0
    description, rows = read_manifest(root)
    assert len(rows) == 8 and {row["split"] for row in rows} == {"test"}
    assert (description.bands, description.image_gsd, description.scale, description.tile_px) == (4, 1.0, 30, 256)
    for row in rows:
        for kind, suffix in (("image", "naip-new"), ("high", "lc"), ("low", "nlcd")):
            source, source_header = read(Path(real, "chesapeake", f"{row['tile'][:-8]}_{suffix}.tif"))
            pixels, header = read(root / row[kind])
            assert np.array_equal(pixels, source)
            assert header.affine == source_header.affine and epsg_of(root / row[kind]) == 26917
    assert "8 tiles; dropped: empty 0, classes 0, dominant 0" in capsys.readouterr().out
    assert check(root, decode=True) == (8, [], [])


def test_the_raw_chesapeake_set_knows_its_bands_and_n(real, tmp_path):
    assert run(tmp_path / "out", "--chesapeake", f"{real}/formats", "--tile-px", 64) == 0
    description, rows = read_manifest(tmp_path / "out")
    assert (description.name, description.bands, description.scale, len(rows)) == ("chesapeake", 4, 30, 6)
    assert description.image_gsd == pytest.approx(26.3643, abs=1e-3)  # pixels of 23.59 by 29.46 m


def test_the_papers_rules_drop_all_of_the_wooded_patches(real, tmp_path, capsys):
    assert run(tmp_path / "out", "--chesapeake", f"{real}/chesapeake", "--tile-px", 256) == 2
    assert "no tile was kept (dropped: empty 0, classes 7, dominant 1); --no-filter keeps " in one_line(capsys)


@pytest.fixture
def few_naip_tiles(monkeypatch, tmp_path):
    """The first four tiles of each group, as if naip215 had no others."""
    head, *lines = (REPOSITORY / "configs" / "tables" / "naip215_places.csv").read_text().splitlines()
    few = [line for g in "0123" for line in [line for line in lines if line.endswith(f",{g}")][:4]]
    (tmp_path / "places.csv").write_text("\n".join([head, *few]) + "\n")
    monkeypatch.setattr(sources, "NAIP215_PLACES", tmp_path / "places.csv")


def test_naip215_is_cut_with_labels_that_are_derived(real, tmp_path, few_naip_tiles, capsys):
    root = tmp_path / "out"
    assert run(root, "--naip215", f"{real}/naip215", "--rotation", 2) == 0
    description, rows = read_manifest(root)
    assert (description.name, description.bands, description.tile_px, description.scale) == ("naip215", 4, 256, 32)
    assert description.image_gsd == pytest.approx(0.6, abs=1e-3) and {row["low"] for row in rows} == {""}
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "validation", "heldout", "test")}
    assert counts == {"train": 7, "validation": 1, "heldout": 4, "test": 4}
    assert {row["region"] for row in rows if row["split"] == "test"} == {"group2"}
    assert check(root, decode=True) == (16, [], [])
    assert run(root, "--naip215", f"{real}/naip215", "--rotation", 1) == 2
    assert "was begun with other settings: scenes; use the same or give another folder" in one_line(capsys)


def test_coarse_maps_in_nlcds_manner_are_a_tiles_own_in_every_rotation(real, tmp_path, few_naip_tiles):
    built = {}
    for name, more, workers in (("one", (), 1), ("two", (), 2), ("other", ("--rotation", 3), 1),
                                ("seed", ("--seed", 1), 1)):  # fmt: skip
        words = "--naip215", f"{real}/naip215", "--coarse", "nlcd", *more
        assert run(tmp_path / name, *words, workers=workers) == 0
        built[name] = files(tmp_path / name)
    assert built["one"] == built["two"]
    lows = {name: {path: made[path] for path in made if path.startswith("low/")} for name, made in built.items()}
    assert len(lows["one"]) == 16 and lows["one"] == lows["other"] != lows["seed"]
    description, rows = read_manifest(tmp_path / "one")
    assert (description.scale, description.label_gsd) == (50, pytest.approx(30.0, abs=0.05))
    for row in rows[:4]:
        (low, low_header), (image, header) = (read(tmp_path / "one" / row[key]) for key in ("low", "image"))
        mask, _ = read(next(Path(real, "naip215").glob(f"*/*/mask/mask_{row['tile'].split('_')[1]}.tif")))
        land_cover = np.vectorize(sources.NAIP215_MATERIALS.get)(mask[..., 0]).astype(np.uint8)
        rng = np.random.default_rng([0, *row["tile"].encode()])
        assert np.array_equal(low[..., 0], low_label(rng, land_cover, 50)) and low.shape[:2] == (6, 6)
        a, _, x, _, e, y = header.affine
        assert low_header.affine == pytest.approx((50 * a, 0, x, 0, 50 * e, y))
        cells = low_cells(merge(low[..., 0], description.taxonomy.low, "low"), low_header, header, description)
        assert upsampled(cells, 256, 256)[0, 0] == description.taxonomy.low[low[0, 0, 0]]
    assert check(tmp_path / "one", decode=True) == (16, [], [])


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


C, S = 10 * np.cos(np.radians(12.7)), 10 * np.sin(np.radians(12.7))


@pytest.mark.parametrize(
    "size, transform",
    [((8, 11), (10, 0, 5e5 - 7.3, 0, -10, 4.3e6 + 3.2)), ((20, 20), (C, S, 5e5 - 30, S, -C, 4.3e6 + 12))],
    ids=["offset", "tilted"],
)
def test_a_low_label_of_larger_pixels_keeps_its_own_grid(tmp_path, size, transform):
    low = busy(*size, [11, 41, 81, 22], block=1)
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


@pytest.mark.parametrize("size", [(7, 10), (6, 9), (64, 96)], ids=["ceil", "floor", "same"])
def test_without_georeference_a_low_label_lies_by_its_size(tmp_path, size):
    low = busy(*size, [11, 41, 81, 22], block=1)
    status, root = build_scene(tmp_path, "--no-filter", "--scale", 10, transform=None, crs=None, low=low)
    description, rows = read_manifest(root)
    codes, header = read(root / rows[-1]["low"])
    image_header = read(root / rows[-1]["image"])[1]
    if size == (64, 96):
        assert codes.shape == (PX, PX, 1) and header.affine is image_header.affine is None
    else:
        assert image_header.affine == (1, 0, 64, 0, -1, -32) and header.affine == (10, 0, 60, 0, -10, -30)
        whole = np.pad(low, ((0, 1), (0, 1)), constant_values=0)  # floor: it ends
        assert np.array_equal(codes[..., 0], whole[3:7, 6:10])
    assert status == 0 and description.scale == 10 and check(root, decode=True) == (6, [], [])


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_photographs_with_masks_in_colours_become_tiles_of_codes(tmp_path, capsys, suffix):
    rows, masks = photographs(tmp_path, suffix=suffix)
    words = words_for(write_list(tmp_path, rows), "--taxonomy", colored(tmp_path), scale=16)
    assert run(tmp_path / "out", *words) == 0
    description, rows = read_manifest(tmp_path / "out")
    assert description.taxonomy.high == {0: 255, 1: 0, 2: 1, 3: 2} and len(rows) == 24
    for row in rows:
        name, top, left = row["tile"].split("_")
        corner = np.s_[PX * int(top) : PX * int(top) + PX, PX * int(left) : PX * int(left) + PX]
        assert np.array_equal(read(tmp_path / "out" / row["high"])[0][..., 0], masks[name][corner])
    assert {row["region"] for row in rows} == {"here"}
    assert "n = 16: coarse cells of 16 pixels\n" in capsys.readouterr().out  # photographs do not say metres
    assert check(tmp_path / "out", decode=True) == (24, [], [])


def two_classes(codes):
    return np.where(np.arange(PX)[:, None] % 2, *codes).repeat(PX, 1).astype(np.uint8)


def share(codes, first_rows):
    """The first code on so many rows, the other two below."""
    rows = np.array([codes[0]] * first_rows + [codes[1 + i % 2] for i in range(PX - first_rows)], np.uint8)
    return rows[:, None].repeat(PX, 1)


@pytest.mark.parametrize("source, label, rule", [
    ("high", two_classes((1, 2)), "classes"),
    ("low", two_classes((11, 41)), "classes"),
    ("high", share((4, 5, 6), 12), "classes"),  # three codes, one merged class
    ("low", share((12, 11, 41), 8), "classes"),  # ignore is no class
    ("high", share((1, 2, 3), 25), "dominant"),  # 78 %
    ("low", share((81, 41, 11), 25), "dominant"),
    ("high", share((1, 2, 3), 24), None),  # 75 % is not over 75 %
    ("high", np.zeros((PX, PX), np.uint8), "empty"),
    ("low", np.full((PX, PX), 12, np.uint8), "empty"),
])  # fmt: skip
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
    kept = [row["tile"] for row in manifest(root)]
    assert status == 0 and kept == ["s_000_002", "s_001_000", "s_001_001", "s_001_002"]
    assert read(root / "images" / "s_001_000.tif")[1].nodata == 0


def test_a_labels_nodata_value_is_ignored_and_stands_in_the_merge(tmp_path):
    high, low = busy(64, 96, [1, 2, 3, 5]), busy(7, 10, [11, 41, 81, 22])
    high[:4] = low[:, :2] = 99  # where the coarse map ends, no label counts
    status, root = build_scene(tmp_path, "--no-filter", high=high, low=low, low_transform=CELLS, label_nodata=99)
    assert status == 0 and read_manifest(root)[0].taxonomy.high[99] == 255
    own = read(root / "high" / "s_000_000.tif")[0] != 99
    assert not (own[:4].any() or own[:, :20].any()) and own[4:, 20:].all() and check(root, decode=True) == (6, [], [])


def test_whether_an_alpha_band_is_one_of_the_bands_or_hides_pixels_is_not_guessed(tmp_path, capsys):
    raw, held = tmp_path / "raw", np.ones((64, 96), bool)
    held[:32, :32] = held[40:50, 40:50] = False
    words = words_for(write_list(raw, [write_scene(raw)]))
    geotiffs.hide(raw / "s_image.tif", held, "alpha")
    assert run(tmp_path / "out", *words) == 2
    error = one_line(capsys)
    assert "s_image.tif: band 4 of 4 is tagged alpha; --bands 3 uses it as" in error and "--bands 4" in error
    assert run(tmp_path / "two", *words, "--bands", 2) == 2 and "has 4 bands, not 2" in one_line(capsys)
    assert run(tmp_path / "four", *words, "--bands", 4) == run(tmp_path / "out", *words, "--bands", 3) == 0
    assert read_manifest(tmp_path / "four")[0].bands == 4 and len(manifest(tmp_path / "four")) == 6
    printed = capsys.readouterr().out
    assert read_manifest(tmp_path / "out")[0].bands == 3 and "dropped: empty 1," in printed
    assert cutting.MEASURED not in printed
    assert check(tmp_path / "out", decode=True) == (5, [], [])


def test_what_a_user_must_know_of_some_scenes_is_told(tmp_path, capsys):
    raw, image = tmp_path / "raw", np.random.default_rng(0).integers(1, 255, (64, 96, 3), np.uint8)
    labels = busy(64, 96, [1, 2, 3, 5]), busy(64, 96, [11, 41, 81, 22], block=8)
    rows = [write_scene(raw, "alpha", image), write_scene(raw, "small", image[:30], *(label[:30] for label in labels))]
    geotiffs.hide(raw / "alpha_image.tif", image[..., 0], "alpha")
    image[:4] = 0
    rows += [write_scene(raw, "black", image), write_scene(raw, "nodata", image, nodata=0)]
    rows += [write_scene(raw, "bare", high_crs=None, high_transform=None), {**write_scene(raw, "fine"), "low": ""}]
    assert run(tmp_path / "out", *words_for(write_list(raw, rows), "--bands", 3)) == 0
    told = capsys.readouterr().out
    notes = cutting.SMALL, cutting.MEASURED, cutting.BLACK, cutting.BY_PIXELS, DERIVED
    for note, name in zip(notes, ("small", "alpha", "black", "bare", "fine"), strict=True):
        assert f"note: {note}: 1, first {raw / name}_image.tif\n" in told


@pytest.mark.parametrize("parts, options, said", [
    ({"high_crs": None, "high_transform": None, "high": busy(64, 95, [1, 2])}, (), "s_high.tif: is 64 x 95 px"),
    ({"low": busy(7, 10, [11, 41]), "low_transform": CELLS}, ("--scale", 30), "its pixels are 10 times those of"),
    ({"high": np.zeros((64, 96, 2), np.uint8)}, (), "s_high.tif: has 2 bands of uint8; a label has one"),
    ({"high": np.full((64, 96), 0.5, np.float32)}, (), "s_high.tif: holds numbers that are not whole, as 0.5"),
    ({"high": np.full((64, 96), 2, np.uint8)}, (), "(dropped: empty 0, classes 6, dominant 0); --no-filter keeps "),
    ({}, ("--tile-px", 96), "classes 0, dominant 0); --no-filter keeps "),
    ({}, ("--tile-px", 16), "--tile-px 16: should be 32 or more"),
    ({}, ("--range", 1, 0), "--range 1 0: give two numbers, the smaller one first"),
    ({}, ("--range", 0, "inf"), "--range 0 inf:"), ({}, ("--rotation", 1), "--rotation and --coarse need --naip215"),
    ({}, ("--taxonomy", "no.yaml"), "no.yaml: No such file"), ({}, ("--scale", 0), "--scale 0: should be 1 or more"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path, capsys, parts, options, said):
    assert build_scene(tmp_path, *options, **parts)[0] == 2
    assert said in one_line(capsys)


@pytest.mark.parametrize("shift", [0, 3])  # the latter is warped
def test_who_knows_better_says_that_two_systems_are_one(tmp_path, shift):
    status, root = build_scene(tmp_path, "--same-crs", high_crs=26717, high_transform=(1, 0, 5e5 + shift, 0, -1, 4.3e6))
    pixels, expected = read(root / "high/s_000_000.tif")[0][..., 0], busy(64, 96, [1, 2, 3, 5])
    assert status == 0 and np.array_equal(pixels[:, shift:], expected[:PX, : PX - shift])
