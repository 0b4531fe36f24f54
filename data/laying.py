"""How a label lies on its image, by sizes and affines alone: on the same pixels, or on a coarser grid.

image, label: have `path`, `size` (H, W), `affine` and `crs`, as data.tile_io.Stored and data.rasters.Raster do; but for
the first two functions, both in one coordinate system.
"""

import math

from data.cells import PIXEL_GRID, compose, corners, invert
from runtime.errors import Refused, require

TOLERANCE_PX = 0.05  # up to here two rasters share their pixels
GSD_TOLERANCE = 0.1  # beyond this share pixels are of another size than a network learned from
SCALE_TOLERANCE = 0.01  # up to here two scales are one: a tilted NLCD cell measures 29.8 by 30.1 m
WHOLE = 0.002  # up to here a scale is a whole number: UTM stretches by 0.001, and pixels of 2 feet are 0.004 off


def same_pixels(image, label, grid=None):
    """Whether two rasters share their pixels; where either does not say where it lies, whether their sizes agree.

    grid: affine of the label's pixels in the image's coordinates; None: the label's own
    """
    grid = grid or label.affine
    if image.size != label.size or not (image.affine and grid):
        return image.size == label.size
    affines = (1, 0, 0, 0, 1, 0), compose(invert(grid), image.affine)
    moved = zip(*(corners(affine, *image.size) for affine in affines), strict=True)
    return all(max(abs(x - u), abs(y - v)) <= TOLERANCE_PX for (x, y), (u, v) in moved)


def require_one_place(image, label, same_crs=False):
    """Refused where one of two rasters says where it lies and the other does not, but for a label without any
    georeference, which lies by its pixels. returns: whether it does, on an image that is placed"""
    plain = not (label.crs or label.affine)
    for first, second in () if plain or same_crs else ((image, label), (label, image)):
        if first.crs is None and second.crs is not None:
            mend = f"{second.path} has one; --same-crs assumes that it holds for both"
            raise Refused(f"{first.path}: has no coordinate system, and {mend}")
        if first.affine is None and second.affine is not None:
            raise Refused(f"{first.path}: does not say where it lies, and {second.path} does")
    return plain and bool(image.crs or image.affine)


def in_one_system(image, other, same_crs=False):
    return same_crs or image.crs == other.crs or None in (image.crs, other.crs)


def require_same_pixels(image, high):
    """Refused unless a fine label has its image's pixels."""
    if not same_pixels(image, high):
        apart = f"is {_size(high)} px, {image.path} {_size(image)}"
        apart = apart if image.size != high.size else f"does not lie on the pixels of {image.path}"
        raise Refused(f"{high.path}: {apart}; python -m data.prepare --scenes lays it on them")


def low_grid(image, low, n, grid=None):
    """Where a coarse label's cells lie.

    n:       pixels along a cell, where it is known; else None
    grid:    affine of the label's cells in the image's coordinates; None: the label's own
    returns: (grid, n); the grid is None where the label has the image's pixels and its cells are blocks of n x n
    raises:  Refused where the two do not go together; where nothing says n, it asks for --scale
    """
    grid = grid or low.affine
    if same_pixels(image, low, grid):
        if n is None:
            raise Refused(
                f"{low.path}: has the pixel grid of its image, so nothing shows how wide its cells are; give "
                "--scale: 30 for NLCD on 1 m pixels, 50 on 0.6 m, 1 if each pixel is a cell"
            )
        return None, n
    if image.affine and grid:
        ratio = cell_px(grid, image.affine) ** 0.5
        if ratio < 1 + SCALE_TOLERANCE:
            small = f"{low.path}: has pixels as small as those of {image.path}, but not the same ones"
            mend = "lay it on the image's pixels (gdalwarp -r near) and build with --scale, a cell's width in pixels"
            raise Refused(f"{small}; give it as it was distributed, or {mend}")
        if n and not same_scale(n, ratio):
            sizes = f"its pixels are {ratio:.5g} times those of {image.path}, --scale says {n:g}"
            raise Refused(f"{low.path}: {sizes}; leave --scale out")
        return grid, round(ratio) if abs(ratio - round(ratio)) <= WHOLE * ratio else round(ratio, 3)
    sizes = f"is {_size(low)} px without a common georeference, {image.path} {_size(image)}"
    require(n is not None, f"{low.path}: {sizes}; give the width of a cell in pixels as --scale")
    ceil, floor = (tuple(f(side / n) for side in image.size) for f in (math.ceil, math.floor))
    if low.size not in (ceil, floor):
        raise Refused(f"{low.path}: {sizes}; at --scale {n:g} it should be {ceil[0]} x {ceil[1]}, or the image's size")
    return compose(image.affine or PIXEL_GRID, (n, 0, 0, 0, n, 0)), n


def tile_grid(image, low, scale):
    """`low_grid` of a tile whose set has this scale: None where the label has the image's pixels, of which blocks are
    made. raises: Refused where its cells are of another scale"""
    own = low.affine and image.affine and not same_pixels(image, low)  # else the two do not say how wide a cell is
    grid, n = low_grid(image, low, None if own else round(scale))
    require(not grid or same_scale(n, scale), f"{low.path}: is at scale {n}, the tile set at {scale}")
    return grid


def cell_px(grid, affine):
    """Pixels of a whole cell: of cells on `grid` over an image that `affine` places."""
    a, b, _, d, e, _ = compose(invert(grid), affine)
    return 1 / abs(a * e - b * d)


def same_scale(first, second):
    return abs(first - second) <= SCALE_TOLERANCE * second


def same_gsd(first, second):
    """Whether pixels of these metres are alike enough for one network; yes where either is None, not known."""
    return None in (first, second) or abs(first / second - 1) <= GSD_TOLERANCE


def _size(raster):
    return f"{raster.size[0]} x {raster.size[1]}"
