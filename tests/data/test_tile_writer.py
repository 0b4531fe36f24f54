"""The writer of tile sets: splits, statistics, summary; and the manifest that it writes, read back."""

import csv
from pathlib import Path

import geotiffs
import numpy as np
import pytest
import yaml

from data import tile_io
from data.band_statistics import band_statistics
from data.manifest import COLUMNS, read_manifest
from data.taxonomy import load_taxonomy
from data.tile_writer import draw_splits, write_tile, write_tile_set
from runtime.errors import Refused
from runtime.files import write_text

TAXONOMY = load_taxonomy(Path(__file__).parents[2] / "configs" / "taxonomies" / "low2high.yaml")


def make_set(root, splits=("train", "train", "test"), dtype=np.uint8, nodata=None, **settings):
    """A tile set of random tiles with fixed splits; returns the images and the summary."""
    rng = np.random.default_rng(0)
    images, records = [], []
    for i, split in enumerate(splits):
        image = rng.integers(0, np.iinfo(dtype).max, (32, 32, 3), dtype, endpoint=True)
        high = rng.choice([1, 2, 3, 5], (32, 32)).astype(np.uint8)
        low = rng.choice([11, 41, 81], (4, 4)).astype(np.uint8)
        if nodata is not None:
            image[:10] = nodata
        grid = (8.0, 0.0, 0.0, 0.0, -8.0, 0.0)
        records.append(
            write_tile(
                root, f"t{i}", image, high, low, taxonomy=TAXONOMY, region="de", split=split, low_transform=grid,
                nodata=nodata,
            )
        )  # fmt: skip
        images.append(image)
    settings = {"name": "made", "image_gsd": 1.0, "scale": 8, "tile_px": 32, "seed": 0, **settings}
    return images, write_tile_set(root, taxonomy=TAXONOMY, records=records, **settings)


@pytest.mark.parametrize(
    "count, sizes", [(0, (0, 0, 0, 0)), (1, (1, 0, 0, 0)), (6, (4, 1, 1, 0)), (20, (15, 2, 2, 1)), (47, (35, 5, 5, 2))]
)
def test_splits_are_75_10_10_5_by_largest_remainder(count, sizes):
    drawn = list(draw_splits([f"t{i}" for i in range(count)], "de", 0).values())
    assert tuple(drawn.count(split) for split in ("train", "validation", "heldout", "test")) == sizes


def test_splits_depend_on_seed_region_and_names_but_not_on_order():
    tiles = [f"t{i}" for i in range(100)]
    drawn = draw_splits(tiles, "de", 0)
    assert draw_splits(tiles[::-1], "de", 0) == drawn
    assert draw_splits(tiles, "de", 1) != drawn
    assert draw_splits(tiles, "va", 0) != drawn


def test_splits_of_a_seed_stay_what_they_are():
    drawn = draw_splits(["a", "b", "c", "d", "e", "f", "g"], "de", 0)
    assert {tile: split for tile, split in drawn.items() if split != "train"} == {"a": "heldout", "d": "validation"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_band_statistics_are_those_of_the_training_tiles(tmp_path, dtype):
    images, _ = make_set(tmp_path, dtype=dtype)
    description, _ = read_manifest(tmp_path)
    train = np.concatenate([image.reshape(-1, 3) for image in images[:2]]).astype(np.float64)
    assert description.dtype == np.dtype(dtype).name
    np.testing.assert_allclose(description.band_mean, train.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(description.band_std, train.std(axis=0), rtol=1e-9)


def test_statistics_counted_anew_are_those_of_the_description_to_the_last_digit(tmp_path):
    make_set(tmp_path, dtype=np.uint16, nodata=7)
    description, rows = read_manifest(tmp_path)
    train = [tmp_path / row["image"] for row in rows if row["split"] == "train"]
    assert len(train) == 2
    for paths in (train, train[::-1]):
        assert band_statistics(paths, len(description.band_mean)) == (description.band_mean, description.band_std)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.int32])
def test_images_of_other_types_are_counted_too(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(-3000, 3000, (40, 30, 2)).astype(dtype)
    pixels[:5] = -9999
    geotiffs.write(tmp_path / "a.tif", pixels, nodata=-9999)
    mean, std = band_statistics([tmp_path / "a.tif"], 2)
    held = pixels[5:].reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(mean, held.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, held.std(axis=0), rtol=1e-12)


def test_nodata_pixels_are_left_out_of_the_statistics(tmp_path):
    images, _ = make_set(tmp_path, nodata=7)
    train = np.concatenate([image[10:].reshape(-1, 3) for image in images[:2]]).astype(np.float64)
    np.testing.assert_allclose(read_manifest(tmp_path)[0].band_mean, train.mean(axis=0), rtol=1e-12)


def test_without_training_tiles_all_are_counted_and_a_note_says_so(tmp_path, capsys):
    images, _ = make_set(tmp_path, splits=("test", "test"))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    np.testing.assert_allclose(read_manifest(tmp_path)[0].band_mean, pixels.mean(axis=0), rtol=1e-12)
    assert "has no training tile; its band statistics are counted over all tiles" in capsys.readouterr().out


def test_a_constant_band_has_a_deviation_that_one_can_divide_by(tmp_path):
    image = np.full((32, 32, 1), 9, np.uint8)
    record = write_tile(tmp_path, "t", image, taxonomy=TAXONOMY, region="de", split="train")
    write_tile_set(tmp_path, name="x", taxonomy=TAXONOMY, records=[record], image_gsd=1.0, scale=30, tile_px=32, seed=0)
    assert read_manifest(tmp_path)[0].band_std == (1.0,)


def test_the_manifest_reads_back_as_it_was_written(tmp_path):
    make_set(tmp_path)
    description, rows = read_manifest(tmp_path)
    assert (description.name, description.image_gsd, description.label_gsd, description.scale) == ("made", 1.0, 8.0, 8)
    assert (description.tile_px, description.bands, description.taxonomy) == (32, 3, TAXONOMY)
    assert [row["split"] for row in rows] == ["train", "train", "test"]
    assert rows[0] == dict(
        zip(COLUMNS, ("t0", "de", "train", "images/t0.tif", "high/t0.tif", "low/t0.tif"), strict=True)
    )
    assert list(yaml.safe_load((tmp_path / "dataset.yaml").read_text())) == [
        "name", "image_gsd", "label_gsd", "scale", "tile_px", "bands", "dtype", "band_mean", "band_std", "classes",
        "high", "low",
    ]  # fmt: skip


def test_a_low_label_on_its_own_grid_is_georeferenced_on_a_tile_that_had_no_georeference(tmp_path):
    make_set(tmp_path)
    assert tile_io.read(tmp_path / "images/t0.tif").affine == (1, 0, 0, 0, -1, 0)
    assert tile_io.read(tmp_path / "low/t0.tif").affine == (8, 0, 0, 0, -8, 0)


def test_the_summary_holds_the_share_of_each_class_among_labelled_pixels(tmp_path, capsys):
    high = np.repeat([1, 1, 2, 0], 8)[:, None].repeat(32, 1).astype(np.uint8)
    low = np.array([[11, 41], [41, 12]], np.uint8)
    record = write_tile(
        tmp_path, "t", np.zeros((32, 32, 3), np.uint8), high, low, taxonomy=TAXONOMY, region="de", split="test",
        low_transform=(16.0, 0.0, 0.0, 0.0, -16.0, 0.0),
    )  # fmt: skip
    summary = write_tile_set(
        tmp_path, name="x", taxonomy=TAXONOMY, records=[record], image_gsd=1.0, scale=16, tile_px=32, seed=0,
        dropped={"classes": 3},
    )  # fmt: skip
    assert summary["tiles"] == {"train": 0, "validation": 0, "heldout": 0, "test": 1}
    np.testing.assert_allclose(summary["shares"]["test"]["high"], [2 / 3, 1 / 3, 0, 0])
    np.testing.assert_allclose(summary["shares"]["test"]["low"], [1 / 3, 2 / 3, 0, 0])
    assert summary["shares"]["train"] == {"high": None, "low": None}
    printed = capsys.readouterr().out
    assert "1 tiles; dropped: classes 3" in printed and "66.67 %" in printed


def test_no_tile_at_all_is_an_error_that_says_why(tmp_path):
    with pytest.raises(Refused, match=r"no tile was kept \(dropped: classes 3\)"):
        make_set(tmp_path, splits=(), dropped={"classes": 3})
    assert not (tmp_path / "dataset.yaml").exists()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runtime.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("test,images/t2", "tset,images/t2", "line 4: split 'tset'; did you mean 'test'?"),
        ("images/t1", "../images/t1", "line 3: '../images/t1.tif' leaves the folder"),
        ("high/t0.tif", "/high/t0.tif", "line 2: '/high/t0.tif' leaves the folder"),
        ("low/t0.tif", "low/../../t0.tif", "line 2: 'low/../../t0.tif' leaves the folder"),
        ("t1,de", "t0,de", "line 3: tile t0 stands twice"),
        ("t1,de", "t1,", "line 3: region is empty"),
        (",images/t1.tif", ",", "line 3: image is empty"),
        ("tile,region", "tile,place", "no column 'region'"),
    ],
)
def test_a_bad_row_of_the_manifest_is_named(tmp_path, old, new, said):
    make_set(tmp_path)
    path = tmp_path / "tiles.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(Refused) as caught:
        read_manifest(tmp_path)
    assert str(caught.value).startswith(str(path)) and said in str(caught.value) and "\n" not in str(caught.value)


def test_paths_are_shortened_and_may_turn_inside_the_set(tmp_path):
    make_set(tmp_path)
    rows = list(csv.DictReader((tmp_path / "tiles.csv").open()))
    rows[0]["image"] = "low/.././images/t0.tif"
    with (tmp_path / "tiles.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    assert read_manifest(tmp_path)[1][0]["image"] == "images/t0.tif"


@pytest.mark.parametrize(
    "key, value",
    [
        ("name", 3), ("image_gsd", 0), ("label_gsd", "30"), ("scale", 0.5), ("scale", float("nan")), ("tile_px", 0),
        ("tile_px", 1e9), ("tile_px", True), ("bands", -1), ("dtype", "float32"), ("band_mean", [1.0]),
        ("band_std", [1.0, 0.0, 1.0]), ("band_std", [1.0, float("inf"), 1.0]), ("band_mean", None), ("classes", []),
        ("high", None), ("low", {11: "wood"}),
    ],
)  # fmt: skip
def test_an_impossible_value_of_dataset_yaml_is_named(tmp_path, key, value):
    make_set(tmp_path, splits=("train",))
    path = tmp_path / "dataset.yaml"
    description = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**description, key: value}))
    with pytest.raises(Refused, match=f"^{path}: {key}") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_tile_set_says_how_one_is_made(tmp_path):
    with pytest.raises(Refused, match="dataset.yaml: not found; a tile set is made by python -m data.prepare"):
        read_manifest(tmp_path)
