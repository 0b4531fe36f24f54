"""Scene lists, and public sets as they are distributed."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.images import open_image
from data.manifest import TileSetError
from data.sources import DUBAI_CODES, BuildError, chesapeake, codes_from_colors, dubai, scene_list, tile_list

REAL = os.environ.get("LOW2HIGH_REAL")
real = pytest.mark.skipif(not REAL, reason="LOW2HIGH_REAL is unset")


def listed(folder, text, name="scenes.csv"):
    path = folder / name
    path.write_text(text)
    return path


def raw_chesapeake(root, folders, stems=("m_1", "m_2")):
    """Empty files under the names of the raw set."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for stem in stems:
            for kind in ("naip-new", "naip-old", "lc", "nlcd", "landsat-leaf-on"):
                (root / folder / f"{stem}_{kind}.tif").touch()
    return root


@real
def test_dubai_has_nine_parts_of_seven_tiles_and_its_own_splits():
    scenes = dubai(f"{REAL}/dubai")
    assert len(scenes) == 63
    assert Counter(scene.split for scene in scenes) == {"train": 42, "heldout": 7, "validation": 7, "test": 7}
    assert {scene.region for scene in scenes} == {f"tile{i}" for i in range(1, 8)}
    assert [scene.split for scene in scenes if scene.region == "tile3"] == [
        *["train"] * 6, "heldout", "validation", "test",
    ]  # fmt: skip


@real
@pytest.mark.parametrize("mask", ["Tile 1/masks/image_part_001.png", "Tile 2/masks/image_part_003.png"])
def test_every_colour_of_rgb_and_palette_masks_has_a_code(mask):
    with open_image(Path(REAL, "dubai", mask)) as raster:
        rgb = raster.read()
    codes = codes_from_colors(rgb, DUBAI_CODES.items(), mask)
    assert codes.shape == rgb.shape[:2] and set(np.unique(codes)) <= set(DUBAI_CODES.values())
    assert len(np.unique(codes)) >= 3


def test_codes_from_colors_equals_a_slow_loop():
    colors = list(DUBAI_CODES)
    rgb = np.array(colors, np.uint8)[np.random.default_rng(0).integers(len(colors), size=(9, 8))]
    codes = codes_from_colors(rgb, DUBAI_CODES.items(), "mask")
    assert all(codes[at] == DUBAI_CODES[tuple(rgb[at].tolist())] for at in np.ndindex(9, 8))


def test_a_colour_without_a_class_is_listed_with_its_count():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[1, :2] = (1, 2, 0xAB)
    with pytest.raises(BuildError, match=r"^mask\.png: colours without a class: #0102AB \(2 px\)$"):
        codes_from_colors(rgb, DUBAI_CODES.items(), "mask.png")


def test_a_dubai_image_without_mask_is_named(tmp_path):
    (tmp_path / "Tile 1" / "images").mkdir(parents=True)
    (tmp_path / "Tile 1" / "images" / "image_part_001.jpg").touch()
    with pytest.raises(BuildError, match="image_part_001.jpg: its mask .*image_part_001.png is not there"):
        dubai(tmp_path)


def test_chesapeake_scenes_do_not_depend_on_the_folders_they_came_in(tmp_path):
    one = raw_chesapeake(tmp_path / "one", ["de_1m_2013_extended-debuffered-train_tiles"])
    raw_chesapeake(one, ["va_1m_2014_extended-debuffered-test_tiles"], ["m_1"])
    other = raw_chesapeake(tmp_path / "b/va_1m_2014_extended-debuffered-val_tiles", ["."], ["m_1"]).parent
    raw_chesapeake(other, ["x/y/de_1m_2013_extended-debuffered-test_tiles"], ["m_1"])
    raw_chesapeake(other, ["de_1m_2013_extended-debuffered-val_tiles"], ["m_2"])
    described = [[(scene.name, scene.region, scene.image.name) for scene in chesapeake(root)] for root in (one, other)]
    assert (
        described[0]
        == described[1]
        == [
            ("de_m_1", "de", "m_1_naip-new.tif"),
            ("de_m_2", "de", "m_2_naip-new.tif"),
            ("va_m_1", "va", "m_1_naip-new.tif"),
        ]
    )
    assert {scene.split for scene in chesapeake(one)} == {""}


def test_a_folder_of_one_state_knows_its_state_from_within(tmp_path, monkeypatch):
    raw_chesapeake(tmp_path, ["de_1m_2013_extended-debuffered-train_tiles"])
    monkeypatch.chdir(tmp_path / "de_1m_2013_extended-debuffered-train_tiles")
    assert {scene.region for scene in chesapeake(".")} == {"de"}


@real
def test_a_flat_folder_of_the_raw_sets_files_is_of_an_unknown_region():
    scenes = chesapeake(f"{REAL}/formats")
    assert [(scene.name, scene.region) for scene in scenes] == [("unknown_m_3907833_nw_17_1", "unknown")]
    assert len(chesapeake(f"{REAL}/chesapeake")) == 8


def test_a_chesapeake_scene_without_a_label_is_named(tmp_path):
    raw_chesapeake(tmp_path, ["de_1m_2013_extended-debuffered-val_tiles"])
    next(tmp_path.glob("*/m_2_nlcd.tif")).unlink()
    with pytest.raises(BuildError, match="m_2_naip-new.tif: its label m_2_nlcd.tif is not beside it"):
        chesapeake(tmp_path)


def test_one_scene_in_two_folders_of_a_state_is_refused(tmp_path):
    raw_chesapeake(tmp_path, [f"de_1m_2013_extended-debuffered-{split}_tiles" for split in ("val", "train")])
    with pytest.raises(BuildError, match="m_1_naip-new.tif and .*m_1_naip-new.tif are both named de_m_1"):
        chesapeake(tmp_path)


@pytest.mark.parametrize("source", [chesapeake, dubai])
def test_an_empty_and_a_missing_folder_are_named(tmp_path, source):
    with pytest.raises(BuildError, match=f"^{tmp_path}: no "):
        source(tmp_path)
    with pytest.raises(BuildError, match="nowhere: no such folder"):
        source(tmp_path / "nowhere")


def test_a_scene_list_may_leave_out_names_splits_and_labels(tmp_path):
    path = listed(tmp_path, "region,image\nmwi,a/one.tif\nmwi,two.tif\n")
    assert [(s.name, s.region, s.split, s.high, s.low) for s in scene_list(path)] == [
        ("one", "mwi", "", None, None),
        ("two", "mwi", "", None, None),
    ]
    assert scene_list(path)[0].image == tmp_path / "a" / "one.tif"


def test_a_tile_list_may_name_its_tiles(tmp_path):
    path = listed(tmp_path, "tile,scene,region,split,image,high,low\nt1,s,de,train,one.tif,,\n,s2,de,,two.tif,,\n")
    assert [scene.name for scene in tile_list(path)] == ["s2", "t1"]


@real
def test_the_real_scene_list_fixes_its_splits():
    scenes = scene_list(f"{REAL}/chesapeake/scenes.csv")
    assert len(scenes) == 8 and {scene.split for scene in scenes} == {"test"}
    assert all(path.is_file() for scene in scenes for path in (scene.image, scene.high, scene.low))


@pytest.mark.parametrize(
    "row, said",
    [
        ("s,de,train,/etc/passwd,,", "line 2: '/etc/passwd' leaves the folder"),
        ("s,de,train,../x.tif,,", "line 2: '../x.tif' leaves the folder"),
        ("s,de,train,x.tif,a/../../y.tif,", "line 2: 'a/../../y.tif' leaves the folder"),
        ("s,de,train,x.tif,,..", "line 2: '..' leaves the folder"),
        ("s,de,trian,x.tif,,", "line 2: split 'trian'; did you mean 'train'?"),
        ("s,,train,x.tif,,", "line 2: region is empty"),
        ("s,de,train,,,", "line 2: image is empty"),
        ("s,de,train", "line 2: no value for 'image'"),
        ("../s,de,train,x.tif,,", "'../s' cannot name a tile's file"),
        ("a\\b,de,train,x.tif,,", "cannot name a tile's file"),
        (".s,de,train,x.tif,,", "'.s' cannot name a tile's file"),
        ("s,de,,x.tif,,\nS,de,,y.tif,,", "x.tif and"),
        ("", "lists no scene"),
    ],
)
def test_a_bad_scene_list_is_one_line_that_names_it(tmp_path, row, said):
    path = listed(tmp_path, f"scene,region,split,image,high,low\n{row}\n")
    with pytest.raises((BuildError, TileSetError)) as caught:
        scene_list(path)
    assert str(caught.value).startswith(str(path)) and said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"scene,region\n", "no column 'image'"),
        (b"scene,region,image,hgih\n", "unknown column 'hgih'; did you mean 'high'?"),
        (b"scene,region,Split,image\n", "unknown column 'Split'; did you mean 'split'?"),
        (b"", "no column 'region'"),
        (b"\xff\xfe\x00", "not a CSV in UTF-8"),
        (b"region,image\nde," + b"x" * 200_000, "not a CSV"),
    ],
)
def test_a_file_that_is_no_scene_list_is_named(tmp_path, content, said):
    path = tmp_path / "scenes.csv"
    path.write_bytes(content)
    with pytest.raises(TileSetError, match=said):
        scene_list(path)
    with pytest.raises(TileSetError, match="none.csv: No such file"):
        scene_list(tmp_path / "none.csv")
