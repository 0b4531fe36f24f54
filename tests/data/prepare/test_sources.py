"""Scene lists, and public sets as they are distributed."""

from functools import partial

import numpy as np
import pytest

from data.manifest import SPLITS
from data.prepare.sources import NAIP215_MATERIALS, NAIP215_PLACES, chesapeake, naip215, scene_list
from data.rasters import Raster, ground_size
from runtime.errors import Refused


def listed(folder, text):
    """A list, in a folder that holds what the lists below name."""
    (folder / "a").mkdir()
    for file in "a/one.tif one.tif two.tif x.tif y.tif".split():
        (folder / file).touch()
    path = folder / "scenes.csv"
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


def raw_naip215(root, groups=range(5)):
    """Empty files under the names of naip215, of its tiles of some groups and of those without one."""
    for i, (tile, _, group) in enumerate(naip215_places()):
        if group == "" or int(group) in groups:
            folder = root / "dataset_split" / ("train", "val", "test")[i % 3]  # its own split, which nothing follows
            for kind, name in (("img", f"tile_{tile}.tif"), ("mask", f"mask_{tile}.tif")):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                (folder / kind / name).touch()
    return root


def naip215_places():
    """[(tile, place, group or "")] of the table."""
    _, *lines = NAIP215_PLACES.read_text().splitlines()
    return [tuple(line.split(",")) for line in lines]


@pytest.mark.parametrize(
    "rotation, train, heldout, test",
    [(0, {2, 3}, 1, 0), (1, {3, 0}, 2, 1), (2, {0, 1}, 3, 2), (3, {1, 2}, 0, 3), (4, {0, 1, 2}, 3, 4)],
)
def test_naip215_rotates_groups_of_places(tmp_path, rotation, train, heldout, test):
    scenes = naip215(raw_naip215(tmp_path), rotation)
    table = {f"naip_{tile}": (int(place), int(tile), group) for tile, place, group in naip215_places()}
    of = {split: [scene.name for scene in scenes if scene.split == split] for split in SPLITS}
    groups = {split: {int(table[name][2]) for name in names} for split, names in of.items()}
    assert groups == {"train": train, "validation": train, "heldout": {heldout}, "test": {test}}
    assert {scene.region for scene in scenes} == {f"group{g}" for g in (*train, heldout, test)}
    # Tiles without a group have wrong labels; all others of these groups are there, once.
    names = [scene.name for scene in scenes]
    wanted = {f"naip_{tile}" for tile, _, group in naip215_places() if group and int(group) in {*train, heldout, test}}
    assert set(names) == wanted and len(names) == len(wanted) and "" not in {table[name][2] for name in names}
    # No place is in two of training (with its validation), exemplars and test.
    parts = of["train"] + of["validation"], of["heldout"], of["test"]
    places = [{table[name][0] for name in names} for names in parts]
    assert sum(map(len, places)) == len(set.union(*places))
    # Every eighth, in the order of place and tile, validates.
    learned = sorted(of["train"] + of["validation"], key=lambda name: table[name][:2])
    expected = [name for i, name in enumerate(learned, start=1) if i % 8 == 0]
    assert sorted(expected) == sorted(of["validation"]) and len(expected) == len(learned) // 8 > 8


def test_naip215_without_a_group_or_a_mask_says_what_is_missing(tmp_path):
    raw_naip215(tmp_path, groups=range(4))
    assert len(naip215(tmp_path, 3)) > 0
    with pytest.raises(Refused, match=r"has no tile_\d+.tif, of a group of places that rotation 4 needs$"):
        naip215(tmp_path, 4)
    next(tmp_path.glob("*/*/mask/mask_13476.tif")).unlink()  # of group 2
    with pytest.raises(Refused, match="mask_13476.tif: no such file"):
        naip215(tmp_path, 2)


def test_the_real_naip215_has_the_tiles_of_four_rotations_and_codes_that_are_known(real):
    for rotation in range(4):
        scenes = naip215(f"{real}/naip215", rotation)
        assert len(scenes) == 166 and all(scene.image.is_file() and scene.high.is_file() for scene in scenes)
    with Raster(scenes[0].high) as mask, Raster(scenes[0].image) as image:
        assert set(np.unique(mask.read(0, 0, *mask.size, 1)[0])) <= set(NAIP215_MATERIALS)
        assert (image.bands, image.size, ground_size(image)) == (4, (256, 256), 0.6)
    with pytest.raises(Refused, match="rotation 4 needs"):
        naip215(f"{real}/naip215", 4)


def test_chesapeake_scenes_do_not_depend_on_the_folders_they_came_in(tmp_path):
    one = raw_chesapeake(tmp_path / "one", ["de_1m_2013_extended-debuffered-train_tiles"])
    raw_chesapeake(one, ["va_1m_2014_extended-debuffered-test_tiles"], ["m_1"])
    other = raw_chesapeake(tmp_path / "b/va_1m_2014_extended-debuffered-val_tiles", ["."], ["m_1"]).parent
    raw_chesapeake(other, ["x/y/de_1m_2013_extended-debuffered-test_tiles"], ["m_1"])
    raw_chesapeake(other, ["de_1m_2013_extended-debuffered-val_tiles"], ["m_2"])
    described = [[(scene.name, scene.region, scene.image.name) for scene in chesapeake(root)] for root in (one, other)]
    named = (("de", "m_1"), ("de", "m_2"), ("va", "m_1"))
    assert described[0] == described[1] == [(f"{s}_{stem}", s, f"{stem}_naip-new.tif") for s, stem in named]
    assert {scene.split for scene in chesapeake(one)} == {""}


def test_a_flat_folder_of_the_raw_sets_files_is_of_an_unknown_region(real):
    scenes = chesapeake(f"{real}/formats")
    assert [(scene.name, scene.region) for scene in scenes] == [("unknown_m_3907833_nw_17_1", "unknown")]
    assert len(chesapeake(f"{real}/chesapeake")) == 8


def test_a_chesapeake_scene_without_a_label_or_in_two_folders_is_named(tmp_path):
    raw_chesapeake(tmp_path, [f"de_1m_2013_extended-debuffered-{split}_tiles" for split in ("val", "train")])
    with pytest.raises(Refused, match="m_1_naip-new.tif and .*m_1_naip-new.tif are both named de_m_1"):
        chesapeake(tmp_path)
    next(tmp_path.glob("*/m_2_nlcd.tif")).unlink()
    with pytest.raises(Refused, match="m_2_nlcd.tif: no such file"):
        chesapeake(tmp_path)


@pytest.mark.parametrize("source", [chesapeake, partial(naip215, rotation=0)])
def test_an_empty_and_a_missing_folder_are_named(tmp_path, source):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Refused, match=f"^{folder}: no .*tif in it or below"):
            source(folder)


def test_a_scene_list_may_leave_out_names_splits_and_labels(tmp_path):
    path = listed(tmp_path, "region,image\nmwi,a/one.tif\nmwi,two.tif\n")
    found = [(s.name, s.region, s.split, s.high, s.low) for s in scene_list(path)]
    assert found == [(name, "mwi", "", None, None) for name in ("one", "two")]
    assert scene_list(path)[0].image == tmp_path / "a" / "one.tif"
    path.write_text("tile,scene,region,split,image,high,low\nt1,s,de,train,one.tif,,\n,s2,de,,two.tif,,\n")
    assert [scene.name for scene in scene_list(path)] == ["s2", "t1"]  # a list of tiles may name them


@pytest.mark.parametrize("row, said", [
    ("s,de,train,/etc/passwd,,", "line 2: '/etc/passwd' leaves the folder"),
    ("s,de,train,x.tif,a/../../y.tif,", "line 2: 'a/../../y.tif' leaves the folder"),
    ("s,de,trian,x.tif,,", "line 2: split 'trian'; did you mean 'train'?"),
    ("s,,train,x.tif,,", "line 2: region is empty"),
    ("s,de,train", "line 2: it should have 6 cells, as the header has"),
    ("../s,de,train,x.tif,,", "'../s' cannot name a tile's file"),
    ("s,de,,x.tif,,\nS,de,,y.tif,,", "x.tif and"),
    ("s,de,,x.tif,none.tif,", "none.tif: no such file"),
    ("", "lists no scene"),
])  # fmt: skip
def test_a_bad_scene_list_is_one_line_that_names_it(tmp_path, row, said):
    path = listed(tmp_path, f"scene,region,split,image,high,low\n{row}\n")
    with pytest.raises(Refused) as caught:
        scene_list(path)
    assert str(caught.value).startswith(str(path)) and said in str(caught.value) and "\n" not in str(caught.value)
