"""Coarse codes made from a fine land-cover map, in the manner of NLCD: made-up landscapes and `data.prepare
--coarse nlcd` have them."""

import math

import numpy as np

WATER, TREE, GRASS, BARREN, BUILT, ROAD = 1, 2, 3, 4, 5, 6  # Chesapeake land cover


def low_label(rng, high, scale, *, shift_px=5.0, impervious_from=0.3, spread=0.1, wrong=0.01):
    """Coarse codes of a land-cover map, in the manner of NLCD. docs/real_shares.py holds them against real ones.

    high:            (H, W) Chesapeake codes
    scale:           pixels along a cell; cells beyond the last whole one are filled up by repeating the edge
    shift_px:        the map lies up to this far off, along each axis, one draw a tile [paper silent; ours]
    impervious_from: a cell is developed (22, 23 from a half, 24 from 0.8) from this share of buildings and roads on,
                     whatever the majority [NLCD's legend says 0.2; ours]
    spread:          part of a cell's shares that its neighbours along each axis give: the sensor sees farther than
                     the cell, and what is thin (single roads) drowns [paper silent; ours]
    wrong:           share of cells with a code drawn blindly [paper silent; ours]
    returns:         (ceil(H / scale), ceil(W / scale)) uint8 NLCD codes; which forest (41, 42, 43) and which
                     field (71, 81, 82) is drawn, mostly one kind a tile
    """
    rows, cols = (math.ceil(side / scale) for side in high.shape)
    margin = math.ceil(shift_px)
    fill = [(margin, n * scale - side + margin) for n, side in zip((rows, cols), high.shape, strict=True)]
    top, left = margin + np.rint(rng.uniform(-shift_px, shift_px, 2)).astype(int)
    moved = np.pad(high, fill, mode="edge")[top : top + rows * scale, left : left + cols * scale]
    blocks = moved.reshape(rows, scale, cols, scale)
    groups = ((WATER,), (TREE,), (GRASS,), (BARREN,), (BUILT, ROAD))
    shares = np.stack([np.isin(blocks, group).mean(axis=(1, 3)) for group in groups], axis=-1)
    shares = padded_mean(shares, spread / 2)

    forests, fields = (rng.choice(k, (rows, cols), p=rng.dirichlet([0.3] * 3)) for k in ((41, 42, 43), (71, 81, 82)))
    water, developed = shares[..., 0], shares[..., 4]
    forests[(water > 0.1) & (rng.random((rows, cols)) < 0.5)] = 90
    fields[developed > 0.1] = 21
    built = np.select([developed < 0.5, developed < 0.8], [22, 23], 24)
    codes = np.choose(shares.argmax(-1), [np.full_like(built, 11), forests, fields, np.full_like(built, 31), built])
    codes = np.where(developed >= impervious_from, built, codes)
    blind = rng.choice((11, 21, 22, 41, 81), (rows, cols))
    return np.where(rng.random((rows, cols)) < wrong, blind, codes).astype(np.uint8)


def padded_mean(array, weight=0.25):
    """Each pixel mixed with its neighbours, `weight` of either along both axes."""
    for axis in (0, 1):
        edged = np.pad(array, [(int(a == axis),) * 2 for a in range(array.ndim)], mode="edge")
        before, after = (np.take(edged, range(i, i + array.shape[axis]), axis) for i in (0, 2))
        array = (1 - 2 * weight) * array + weight * (before + after)
    return array
