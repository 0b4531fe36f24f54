"""Ground that tiles share: neighbouring scenes overlap, and one place is photographed in many years.

A tile that a network has seen in training, by whichever scene, says nothing when it is tested on.
"""

import hashlib
from collections import defaultdict

import numpy as np

from data.cells import corners, invert, move

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
    """Lines on how much ground lies in several tiles, and in tiles that networks or choices have seen before a split is
    scored. records: with tile, split and ground"""
    splits, shared, covered = {record["tile"]: record["split"] for record in records}, {}, {}
    for one, other, seen in overlaps(records):
        shared[one] = shared.get(one, False) | seen
        if splits[one] != splits[other] and (splits[other] == "train" or splits[one] == "test"):
            here = covered.setdefault((splits[one], splits[other]), {})
            here[one] = here.get(one, False) | seen
    if shared:
        share = sum(seen.mean() for seen in shared.values()) / len(splits)
        where = "lies in other tiles too, as scenes overlap"
        yield f"{share:.1%} of the tiles' ground {where}"
    for (split, other), here in sorted(covered.items()):
        share = sum(seen.mean() for seen in here.values()) / [*splits.values()].count(split)
        others = "training tiles" if other == "train" else f"tiles of the split {other}"
        where = f"of the split {split} lies in {others} too; its scores are too good"
        yield f"note: {share:.1%} of the ground {where}"


def overlaps(records):
    """(tile, other tile, which of POINTS of the first lie in the other) of each pair that shares ground, both ways."""
    systems = defaultdict(list)
    for record in records:
        if record.get("ground"):
            systems[record["ground"][0]].append((record["tile"], record["ground"][1]))
    for placed in systems.values():
        bounds = np.array([corners(affine, 1, 1) for _, affine in placed])
        order = bounds[:, :, 0].min(axis=1).argsort()  # from west to east
        placed, least, most = [placed[i] for i in order], bounds.min(axis=1)[order], bounds.max(axis=1)[order]
        begun = np.searchsorted(least[:, 0], most[:, 0])  # tiles up to this one begin before a tile ends
        for i, end in enumerate(begun):
            meets = (least[i + 1 : end, 1] < most[i, 1]) & (most[i + 1 : end, 1] > least[i, 1])
            for other in (placed[j] for j in i + 1 + np.flatnonzero(meets)):
                for one, two in ((placed[i], other), (other, placed[i])):
                    seen = inside(one[1], two[1])
                    if seen.any():
                        yield one[0], two[0], seen


def inside(one, other):
    """Which of POINTS of a tile lie in another, both as affines of the unit square: (1024,) bool."""
    x, y = np.array(one).reshape(2, 3) @ np.column_stack([POINTS, np.ones(len(POINTS))]).T
    col, row = move(invert(other), x, y)
    return (col > 0) & (col < 1) & (row > 0) & (row < 1)
