"""The writer of tile sets: splits, statistics, summary; and the manifest that it writes, read back."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from data import tile_io
from data.band_statistics import band_statistics
from data.manifest import COLUMNS, read_manifest
from data.taxonomy import load_taxonomy
from data.tile_writer import draw_splits, write_tile, write_tile_set
from runtime.errors import Refused

TAXONOMY = load_taxonomy(Path(__file__).parents[2] / "configs" / "taxonomies" / "low2high.yaml")


def make_set(root, splits=("train", "train", "test"), dtype=np.uint8, nodata=None, **settings):
    """A tile set of random tiles with fixed splits; returns the images."""
    rng = np.random.default_rng(0)
    images, records = [], []
    for i, split in enumerate(splits):
        image = rng.integers(0, np.iinfo(dtype).max, (32, 32, 3), dtype, endpoint=True)
        high = rng.choice([1, 2, 3, 5], (32, 32)).astype(np.uint8)
        low = rng.choice([11, 41, 81], (4, 4)).astype(np.uint8)
        void = np.zeros((32, 32), bool)
        if nodata is not None:
            image[:10], void[:10] = nodata, True
        grid = (8.0, 0.0, 0.0, 0.0, -8.0, 0.0)
        more = {"region": "de", "split": split, "low_transform": grid, "nodata": nodata, "void": void}
        records.append(write_tile(root, f"t{i}", image, high, low, taxonomy=TAXONOMY, **more))
        images.append(image)
    settings = {"name": "made", "image_gsd": 1.0, "scale": 8, "tile_px": 32, "seed": 0, **settings}
    write_tile_set(root, taxonomy=TAXONOMY, records=records, **settings)
    return images


@pytest.mark.parametrize(
    "count, sizes", [(0, (0, 0, 0, 0)), (1, (1, 0, 0, 0)), (6, (4, 1, 1, 0)), (20, (15, 2, 2, 1)), (47, (35, 5, 5, 2))]
)
def test_splits_are_75_10_10_5_by_largest_remainder(count, sizes):
    drawn = list(draw_splits([f"t{i}" for i in range(count)], "de", 0).values())
    assert tuple(drawn.count(split) for split in ("train", "validation", "heldout", "test")) == sizes


def test_splits_depend_on_seed_region_and_names_alone_and_stay_what_they_are():
    tiles = [f"t{i}" for i in range(100)]
    drawn = draw_splits(tiles, "de", 0)
    assert draw_splits(tiles[::-1], "de", 0) == drawn
    assert drawn not in (draw_splits(tiles, "de", 1), draw_splits(tiles, "va", 0))
    many, twins = draw_splits(["l"] * 45 + tiles[:60], "de", 0), draw_splits(tiles[:12] * 2, "de", 0)  # stay together
    assert many["l"] == "train" and [[*drawn.values()].count("test") for drawn in (many, twins)] == [5, 1]
    few = draw_splits(["a", "b", "c", "d", "e", "f", "g"], "de", 0)
    assert {tile: split for tile, split in few.items() if split != "train"} == {"a": "heldout", "d": "validation"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_band_statistics_are_those_of_the_training_tiles_and_counted_anew_the_same_to_the_last_digit(tmp_path, dtype):
    images = make_set(tmp_path, dtype=dtype, nodata=7)
    description, rows = read_manifest(tmp_path)
    train = np.concatenate([image[10:].reshape(-1, 3) for image in images[:2]]).astype(np.float64)
    assert description.dtype == np.dtype(dtype).name
    np.testing.assert_allclose(description.band_mean, train.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(description.band_std, train.std(axis=0), rtol=1e-9)
    paths = [tmp_path / row["image"] for row in rows if row["split"] == "train"]
    for order in (paths, paths[::-1]):
        assert band_statistics(order, 3) == (description.band_mean, description.band_std)


def test_the_manifest_reads_back_as_it_was_written(tmp_path):
    make_set(tmp_path)
    description, rows = read_manifest(tmp_path)
    assert (description.name, description.image_gsd, description.label_gsd, description.scale) == ("made", 1.0, 8.0, 8)
    assert (description.tile_px, description.bands, description.taxonomy) == (32, 3, TAXONOMY)
    assert [row["split"] for row in rows] == ["train", "train", "test"]
    affines = [tile_io.read(tmp_path / rows[0][kind]).affine for kind in ("image", "low")]
    assert affines == [(1, 0, 0, 0, -1, 0), (8, 0, 0, 0, -8, 0)]  # where the image had no georeference
    assert [*rows[0].values()] == ["t0", "de", "train", "images/t0.tif", "high/t0.tif", "low/t0.tif"]
    assert (tuple(rows[0]), description.dtype, description.range) == (COLUMNS, "uint8", None)


def test_the_summary_holds_the_share_of_each_class_among_labelled_pixels_and_says_what_is_missing(tmp_path, capsys):
    high = np.repeat([1, 1, 2, 0], 8)[:, None].repeat(32, 1).astype(np.uint8)
    low = np.array([[11, 41], [41, 12]], np.uint8)
    more = {"taxonomy": TAXONOMY, "region": "de", "split": "test", "low_transform": (16.0, 0.0, 0.0, 0.0, -16.0, 0.0)}
    record = write_tile(tmp_path, "t", np.zeros((32, 32, 3), np.uint8), high, low, **more)
    settings = {"name": "x", "taxonomy": TAXONOMY, "image_gsd": 1.0, "scale": 16, "tile_px": 32, "seed": 0}
    write_tile_set(tmp_path, records=[record], dropped={"classes": 3}, **settings)
    printed = capsys.readouterr().out
    assert "1 tiles; dropped: classes 3" in printed
    shares = [line.replace("%", "").split() for line in printed.splitlines() if line.startswith("test")]
    assert shares == ["test 1 high 66.67 33.33 0.00 0.00".split(), "test 1 low 33.33 66.67 0.00 0.00".split()]
    assert "has no training tile; its band statistics are counted over all tiles" in printed
    assert read_manifest(tmp_path)[0].band_std == (1.0, 1.0, 1.0)  # of constant bands, to divide by


@pytest.mark.parametrize("key, value", [("image_gsd", 0), ("bands", -1), ("dtype", "float32"), ("band_mean", 1.0),
                                        ("tile_px", 16), ("high", None)])  # fmt: skip
def test_an_impossible_value_of_dataset_yaml_is_named(tmp_path, key, value):
    make_set(tmp_path, splits=("train",))
    path = tmp_path / "dataset.yaml"
    description = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**description, key: value}))
    with pytest.raises(Refused, match=f"^{path}: {key}"):
        read_manifest(tmp_path)
