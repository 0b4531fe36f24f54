"""Ground that tiles share: neighbouring scenes overlap, and one place is photographed in many years.

A tile that a network has seen in training, by whichever scene, says nothing when it is tested on.
"""

import hashlib
from collections import defaultdict

from data.cells import corners

LEAST = 1e-3  # of a tile: tiles that only touch, to the last digit of their coordinates, share nothing


def ground(affine, size, system):
    """[coordinate system, left, bottom, right, top] of a tile of this size (H, W); None where it does not say where it
    lies. system: as data.tile_io.Stored.system has it"""
    if affine is None:
        return None
    xs, ys = zip(*corners(affine, *size), strict=True)
    return [hashlib.sha256(repr(system).encode()).hexdigest()[:12], min(xs), min(ys), max(xs), max(ys)]


def first_of_ground(records):
    """{tile: (tile, region)}: tiles that share ground, also by way of others, have one and the same of them, the first
    by name; others have themselves."""
    first = {record["tile"]: (record["tile"], record["region"]) for record in records}
    tied = {tile: {tile} for tile in first}
    for one, other, _ in overlaps(records):
        if tied[one] is not tied[other]:
            tied[one] |= tied[other]
            for tile in tied[other]:
                tied[tile] = tied[one]
    return {tile: first[min(tied[tile])] for tile in first}


def shared_ground(records):
    """A line for each split of which training tiles cover some of the ground. records: with tile, split and ground"""
    splits, covered = {record["tile"]: record["split"] for record in records}, defaultdict(float)
    for pair in overlaps(records):
        for one, other in (pair[:2], pair[1::-1]):
            if splits[one] == "train" != splits[other]:
                covered[other] = min(1.0, covered[other] + pair[2])
    for split in sorted(set(splits.values()) - {"train"}):
        tiles = [tile for tile in splits if splits[tile] == split]
        share = sum(covered[tile] for tile in tiles) / len(tiles)
        if share:
            yield (
                f"note: {share:.1%} of the ground of the split {split} lies in training tiles too, as scenes overlap; "
                "its scores are too good"
            )


def overlaps(records):
    """(tile, tile, share of a tile) of each pair that shares ground; tiles of neighbouring squares are compared."""
    squares = defaultdict(list)
    for record in records:
        if record.get("ground"):
            system, left, bottom, right, top = record["ground"]
            side = right - left
            x, y = round((left + right) / 2 // side), round((bottom + top) / 2 // side)
            others = [r for dx in (-1, 0, 1) for dy in (-1, 0, 1) for r in squares[system, x + dx, y + dy]]
            for other in others:
                _, west, south, east, north = other["ground"]
                width, height = min(right, east) - max(left, west), min(top, north) - max(bottom, south)
                share = max(0.0, width) * max(0.0, height) / (side * (top - bottom))
                if share > LEAST:
                    yield other["tile"], record["tile"], share
            squares[system, x, y].append(record)
