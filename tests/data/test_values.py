"""Float and signed images by one fixed rule: nothing is stretched by file, and NaN is no data."""

import geotiffs
import numpy as np
import pytest
import rasterio
from made_scenes import place, run, words_for, write_list

from data.tiles import TileSet


def build(folder, arrays, *options, **facts):
    """The tile set of some images without labels; facts: nodata, or each image's (scale, offset)."""
    tags = facts.pop("tags", [None] * len(arrays))
    for i, (array, tag) in enumerate(zip(arrays, tags, strict=True)):
        path = geotiffs.write(folder / f"{i}.tif", array, place(i), 32617, **facts)
        if tag:
            with rasterio.open(path, "r+") as file:
                file.scales, file.offsets = [tag[0]] * file.count, [tag[1]] * file.count
    listed = write_list(folder, [{"region": "x", "image": f"{i}.tif"} for i in range(len(arrays))])
    return run(folder / "set", *words_for(listed, "--tile-px", 64, "--no-filter", *options, scale=None))


def reflectance(seed=0):
    return np.random.default_rng(seed).uniform(0.02, 0.45, (64, 64, 4)).astype(np.float32)


def expected(values, low, high):
    return 1 + np.rint((values.astype(np.float64) - low) / (high - low) * 65534)


def test_reflectance_keeps_its_values_and_nan_is_no_data(tmp_path, capsys):
    values = reflectance()
    values[:, :8], values[:, 8:16, 0] = np.nan, -np.inf
    assert build(tmp_path, [values], "--range", 0, 1, nodata=np.nan) == 0
    assert "1,024 pixels (25.00%) are ignored: the image has no data there" in capsys.readouterr().out
    tiles = TileSet(tmp_path / "set", "all")
    tile, description = tiles.load(0), tiles.description
    assert (description.dtype, description.range) == ("uint16", (0.0, 1.0))
    assert np.array_equal(tile.void, ~np.isfinite(values).all(axis=-1))
    assert np.array_equal(tile.image[:, 16:], expected(values[:, 16:], 0, 1))


@pytest.mark.parametrize("most", [10000, 1, 10**7])
def test_signed_numbers_with_their_nodata_and_a_range_that_most_values_leave(tmp_path, capsys, most):
    numbers = (reflectance() * 10000).astype(np.int16)
    numbers[:, :16] = -9999
    assert build(tmp_path, [numbers], "--range", 0, most, nodata=-9999) == 0
    printed = capsys.readouterr().out
    held = "75.0% of the pixels lie outside --range in some band and are clipped to it"
    assert "(25.00%) are ignored" in printed and (held in printed) == (most == 1)
    assert ("hardly vary within --range" in printed) == (most != 10000)
    tile = TileSet(tmp_path / "set", "all").load(0)
    assert np.array_equal(tile.image[:, 16:], expected(numbers[:, 16:].clip(0, most), 0, most))


def test_scale_and_offset_tags_say_what_numbers_mean(tmp_path):
    values = reflectance().astype(np.float64)
    tags = [(1e-4, 0.0), (1e-4, -0.1)]  # Sentinel-2 before and after its offset of 1000
    arrays = [np.rint((values - offset) / scale).astype(np.int16) for scale, offset in tags]
    assert build(tmp_path, arrays, tags=tags) == 0
    tiles = TileSet(tmp_path / "set", "all")
    assert tiles.description.range == (0.0, 1.0)
    one, other = (tiles.load(i).image.astype(int) for i in range(2))
    assert np.abs(one - other).max() <= 1 and np.abs(one - expected(values, 0, 1)).max() <= 4


def test_stored_numbers_of_different_tags_are_kept_with_a_word(tmp_path, capsys):
    arrays = [np.full((64, 64, 3), 500, np.uint16), np.full((64, 64, 3), 1500, np.uint16)]
    assert build(tmp_path, arrays, "--range", 0, 1, tags=[(1e-4, 0.0), (1e-4, -0.1)]) == 0
    said = capsys.readouterr().out
    assert "tags, which stay unused: numbers mean different values" in said and "--range is not used" in said
    assert sorted(int(TileSet(tmp_path / "set", "all").load(i).image[0, 0, 0]) for i in range(2)) == [500, 1500]
