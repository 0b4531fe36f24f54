"""Tiles as they are read, and what exemplar places say of their cells: compositions and codes, without an image."""

import geotiffs
import numpy as np
import pytest
import rasterio
from mapping import tilted

from beyond.observed import exemplar_cells
from data import tile_io
from data.taxonomy import load_taxonomy
from data.tile_writer import write_tile, write_tile_set
from data.tiles import TileSet
from data.unlabelled import read_unlabelled
from runtime.errors import Refused

SIDE = 64
MERGED = {0: 255, 11: 0, 21: 2, 22: 3, 41: 1, 42: 1, 81: 2}
LOW = {
    "own grid": ((6, 6), tilted(12, -3, 5)),
    "tilted": ((9, 9), tilted(13, -30, 20, 12.7)),
    "the image's pixels": ((SIDE, SIDE), None),
    "derived": (None, None),
}


def make_set(root, kind, scale=12):
    """One tile a split: random patches of Chesapeake codes, some pixels without; random NLCD codes."""
    rng, taxonomy = np.random.default_rng(0), load_taxonomy("configs/taxonomies/low2high.yaml")
    shape, low_transform = LOW[kind]
    records = []
    for split in ("train", "validation", "heldout", "test"):
        high = np.kron(rng.integers(1, 7, (SIDE // 4, SIDE // 4)), np.ones((4, 4), int)).astype(np.uint8)
        high[40:42, 30:33] = 0
        low = None
        if shape:
            low = rng.choice(list(MERGED), shape if low_transform else (6, 6)).astype(np.uint8)
            low = low if low_transform else np.kron(low, np.ones((12, 12), np.uint8))[:SIDE, :SIDE]
        image = rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
        more = {"transform": tilted(1), "low_transform": low_transform, "system": tile_io.epsg_system(26918)}
        records.append(write_tile(root, split, image, high, low, taxonomy=taxonomy, region="r", split=split, **more))
    more = {"image_gsd": 1.0, "scale": 13 if kind == "tilted" else scale, "tile_px": SIDE, "seed": 0}
    write_tile_set(root, name="small", taxonomy=taxonomy, records=records, **more)
    return root


def by_a_slow_loop(root, kind):
    """[(shares, code)] of the heldout tile's whole cells that hold no unlabelled pixel."""
    classes = np.array([255, 0, 1, 2, 3, 3, 3])[tile_io.read(root / "high" / "heldout.tif").pixels[..., 0]]
    if kind in ("the image's pixels", "derived"):
        back, size = (12, 0, 0, 0, 12, 0), (6, 6)
    else:
        size, low = LOW[kind]
        matrix = [np.array([[a, b, c], [d, e, f], [0, 0, 1]]) for a, b, c, d, e, f in (tilted(1), low)]
        back = (np.linalg.inv(matrix[0]) @ matrix[1])[:2].ravel()
    forward = np.linalg.inv(np.array([back[:3], back[3:], (0, 0, 1)]))
    found, pixels = [], list(np.ndindex(SIDE, SIDE))
    under = [tuple(np.floor(np.round(forward[:2] @ (col + 0.5, row + 0.5, 1), 6))) for row, col in pixels]
    for i, j in np.ndindex(*size):
        corners = [(j + x, i + y, 1) for x in (0, 1) for y in (0, 1)]
        whole = all(-0.5 <= v <= SIDE + 0.5 for corner in corners for v in np.array(back).reshape(2, 3) @ corner)
        inside = [pixel for pixel, cell in zip(pixels, under, strict=True) if cell == (j, i)]
        values = [classes[pixel] for pixel in inside]
        if not whole or 255 in values:
            continue
        shares = [values.count(c) / len(values) for c in range(4)]
        if kind == "derived":
            found.append((shares, int(np.argmax(shares))))
            continue
        codes = tile_io.read(root / "low" / "heldout.tif").pixels[..., 0]
        code = codes[inside[0]] if kind == "the image's pixels" else codes[i, j]
        if MERGED[int(code)] != 255:
            found.append((shares, int(code)))
    return found


def places(root):
    """The exemplar places of a set, all of them, and its scale."""
    tiles = TileSet(root, "heldout", needs=("high",))
    return tiles, range(len(tiles)), tiles.description.scale


@pytest.mark.parametrize("kind", LOW)
def test_compositions_and_codes_equal_a_slow_loop_and_no_image_or_other_place_is_read(tmp_path, kind):
    root = make_set(tmp_path / "set", kind)
    heldout = places(root)
    shares, codes, native = exemplar_cells(*heldout)
    expected = by_a_slow_loop(root, kind)
    assert len(expected) > 3 and codes.tolist() == [code for _, code in expected]
    assert np.allclose(shares, [shares for shares, _ in expected])
    assert native == (kind != "derived")
    if native:
        merged = exemplar_cells(*heldout, native=False)[1]
        assert merged.tolist() == [MERGED[code] for code in codes.tolist()]
    for split in ("train", "validation", "test"):
        for part in ("images", "high", "low"):
            (root / part / f"{split}.tif").unlink(missing_ok=True)
    image = tile_io.read(root / "images" / "heldout.tif")
    tile_io.write(root / "images" / "heldout.tif", 255 - image.pixels, affine=image.affine, system=image.system)
    again = exemplar_cells(*places(root))
    assert np.array_equal(shares, again[0]) and np.array_equal(codes, again[1])


def test_cells_of_another_size_are_refused(tmp_path):
    tiles, chosen, _ = places(make_set(tmp_path / "set", "own grid"))
    with pytest.raises(Refused, match="12 px wide, those of the training set 20"):
        exemplar_cells(tiles, chosen, 20)


@pytest.mark.parametrize("kind", LOW)
def test_cells_carry_the_labels_that_they_are_read_as(tmp_path, kind):
    tiles = TileSet(make_set(tmp_path / "set", kind), "test")
    before = tiles.load(0).cells.labels
    merged = tiles.description.taxonomy.low
    by_code = {code: 255 if to == 255 else 10 + i for i, (code, to) in enumerate(merged.items())}
    after = tiles.relabelled(lambda low: (by_code, [50, 51, 52, 53])).load(0).cells.labels
    assert np.array_equal(tiles.load(0).cells.labels, before) and before.shape == after.shape
    for label in np.unique(after[after != 255]).tolist():
        codes = [code for code, to in by_code.items() if to == label]
        to = merged[codes[0]] if codes else label - 50
        assert (before[after == label] == to).all()
    assert ((before == 255) == (after == 255)).all()


def test_an_image_of_another_type_or_without_data_is_named(tmp_path):
    root = make_set(tmp_path, "own grid")
    images, _ = read_unlabelled(root)
    tile_io.write(images.paths[0], np.full((SIDE, SIDE, 3), np.nan, np.float32))
    with pytest.raises(Refused, match="images/train.tif: has pixels of float32, the others uint8"):
        images.load(0)
    with pytest.raises(Refused, match="images/train.tif: no image pixel holds anything but nodata"):
        read_unlabelled(root, regions=("r",))


@pytest.mark.parametrize("kind", ["Area", "Point"])
@pytest.mark.parametrize("affine", [tilted(2), tilted(2, degrees=20)])
def test_affines_are_those_that_rasterio_reads(tmp_path, kind, affine):
    path = geotiffs.write(tmp_path / "a.tif", np.zeros((8, 9), np.uint8), affine, 26918)
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT=kind)
    stored = tile_io.read(path)
    assert np.allclose(stored.affine, tuple(geotiffs.read(path)[1].transform)[:6], rtol=0, atol=1e-6)
    tile_io.write(tmp_path / "b.tif", stored.pixels, affine=stored.affine, system=stored.system)
    assert np.allclose(tile_io.read(tmp_path / "b.tif").affine, stored.affine, rtol=0, atol=1e-6)
