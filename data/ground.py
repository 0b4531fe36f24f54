"""Ground that tiles share: neighbouring scenes overlap, and one place is photographed in many years.

A tile that a network has seen in training, by whichever scene, says nothing when it is tested on.
"""

import hashlib
import itertools
from collections import defaultdict

import numpy as np

from data.cells import corners, invert
from data.rasters import gdal

LEAST = 0.005  # of a tile: tiles that only touch share nothing
LINE = (np.arange(32) + 0.5) / 32
POINTS = np.stack(np.meshgrid(LINE, LINE), -1).reshape(-1, 2)  # of a tile, in shares of its width and height


def ground(affine, size, system):
    """[coordinate system, affine from the unit square to a tile of this size (H, W)]; None where no system says where
    it lies: such a tile may be anywhere. system: as data.tile_io.Stored.system has it, or any word for one"""
    if affine is None or not system:
        return None
    a, b, c, d, e, f = (float(value) for value in affine)
    height, width = size
    named = hashlib.sha256(repr(system).encode()).hexdigest()[:12]
    return [named, [a * width, b * height, c, d * width, e * height, f]]


def on_the_globe(raster, windows):
    """The affine from each window's pixels (row, col, height, width) of a Raster to longitude and latitude, by three of
    its corners; None where it has no coordinate system. So scenes of two zones are seen to overlap."""
    if raster.affine is None or raster.crs is None or not windows:
        return [None] * len(windows)
    a, b, c, d, e, f = raster.affine
    col, row = np.array([(p, q) for r, s, h, w in windows for p, q in ((s, r), (s + w, r), (s, r + h))]).T
    x, y = (values.tolist() for values in (a * col + b * row + c, d * col + e * row + f))
    try:
        moved = gdal().warp.transform(raster.crs, "EPSG:4326", x, y)
    except Exception:  # a local system, which has no place on the globe
        return [None] * len(windows)
    found = []
    for (_, _, h, w), lon, lat in zip(windows, *(np.reshape(values, (-1, 3)) for values in moved), strict=True):
        rows = [((v[1] - v[0]) / w, (v[2] - v[0]) / h, v[0]) for v in (lon, lat)]
        found.append((*rows[0], *rows[1]))
    return found


def first_of_ground(records):
    """{tile: (tile, region)}: tiles that share ground, also by way of others, have one and the same of them, the first
    by name; others have themselves."""
    first = {record["tile"]: (record["tile"], record["region"]) for record in records}
    tied = {tile: {tile} for tile in first}
    for one, other, seen in overlaps(records):
        if tied[one] is not tied[other] and seen.mean() > LEAST:
            tied[one] |= tied[other]
            for tile in tied[other]:
                tied[tile] = tied[one]
    return {tile: first[min(tied[tile])] for tile in first}


def shared_ground(records):
    """Lines on how much ground lies in several tiles, and in training tiles. records: with tile, split and ground"""
    splits, shared, covered = {record["tile"]: record["split"] for record in records}, {}, {}
    for one, other, seen in overlaps(records):
        shared[one] = shared.get(one, False) | seen
        if splits[one] != "train" == splits[other]:
            covered[one] = covered.get(one, False) | seen
    if shared:
        share = sum(seen.mean() for seen in shared.values()) / len(splits)
        where = "lies in other tiles too, as scenes overlap; drawn splits keep it together"
        yield f"{share:.1%} of the tiles' ground {where}"
    for split in sorted(set(splits.values()) - {"train"}):
        tiles = [tile for tile in splits if splits[tile] == split]
        share = sum(covered[tile].mean() for tile in tiles if tile in covered) / len(tiles)
        if share:
            where = f"of the split {split} lies in training tiles too; its scores are too good"
            yield f"note: {share:.1%} of the ground {where}"


def overlaps(records):
    """(tile, other tile, which of POINTS of the first lie in the other) of each pair that shares ground, both ways.

    Only tiles of neighbouring squares are compared, of which no tile is wider than one.
    """
    systems = defaultdict(list)
    for record in records:
        if record.get("ground"):
            xs, ys = zip(*corners(record["ground"][1], 1, 1), strict=True)
            systems[record["ground"][0]].append((record, min(xs), max(xs), min(ys), max(ys)))
    for placed in systems.values():
        sides = max(p[2] - p[1] for p in placed), max(p[4] - p[3] for p in placed)
        squares = defaultdict(list)
        for here in placed:
            record, left, right, bottom, top = here
            x, y = ((low + high) / 2 // side for low, high, side in ((left, right, sides[0]), (bottom, top, sides[1])))
            near = itertools.product((x - 1, x, x + 1), (y - 1, y, y + 1))
            for other, west, east, south, north in itertools.chain.from_iterable(squares[square] for square in near):
                if min(right, east) > max(left, west) and min(top, north) > max(bottom, south):
                    for one, two in ((record, other), (other, record)):
                        seen = inside(one["ground"][1], two["ground"][1])
                        if seen.any():
                            yield one["tile"], two["tile"], seen
            squares[x, y].append(here)


def inside(one, other):
    """Which of POINTS of a tile lie in another, both as affines of the unit square: (1024,) bool."""
    a, b, c, d, e, f = invert(other)
    x, y = np.array(one).reshape(2, 3) @ np.column_stack([POINTS, np.ones(len(POINTS))]).T
    col, row = a * x + b * y + c, d * x + e * y + f
    return (col > 0) & (col < 1) & (row > 0) & (row < 1)
