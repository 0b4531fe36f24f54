"""The cells of a low-resolution label over a tile (Sec. 4.3, Fig. 4): which lies over each pixel, and which are whole.

One rule serves whole blocks, an n that does not divide the tile, offset grids and tilted ones: the centre of image
pixel (row, col), mapped by the affine from image to low-resolution pixels and floored, names its cell.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from runtime.labels import IGNORE

PIXEL_GRID = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # stands for the georeference where an image has none: one unit a pixel


@dataclass(frozen=True)
class Cells:
    """A low-resolution label laid over an image.

    labels:  (h, w) uint8 merged classes, 255 is ignore
    to_cell: (a, b, c, d, e, f), image pixels to cells: cell x = a col + b row + c, cell y = d col + e row + f
    full:    rows and columns of `labels` that its source saw whole; the cells beyond were cut by the edge
    """

    labels: np.ndarray
    to_cell: tuple
    full: tuple


def compose(outer, inner):
    """The affine that applies `inner`, then `outer`; both as (a, b, c, d, e, f)."""
    matrix = _matrix(outer) @ _matrix(inner)
    return tuple(matrix[:2].ravel())


def invert(affine):
    return tuple(np.linalg.inv(_matrix(affine))[:2].ravel())


def corners(affine, height, width):
    """Where the four corners of an image of this size lie: [(x, y)]."""
    a, b, c, d, e, f = affine
    return [(a * col + b * row + c, d * col + e * row + f) for row in (0, height) for col in (0, width)]


def majority_blocks(classes, n, num_classes):
    """(H, W) merged classes -> Cells of n x n blocks, each the majority over its pixels.

    Ignored pixels are left out, ties go to the lower index, a block without any label is ignored. Blocks cut by the
    edge are labelled from what is there and lie beyond `full`.
    """
    height, width = classes.shape
    h, w = -(-height // n), -(-width // n)
    padded = np.full((h * n, w * n), IGNORE, np.uint8)
    padded[:height, :width] = classes
    blocks = padded.reshape(h, n, w, n)
    counts = np.stack([(blocks == c).sum(axis=(1, 3)) for c in range(num_classes)])
    labels = counts.argmax(axis=0).astype(np.uint8)
    labels[counts.sum(axis=0) == 0] = IGNORE
    return Cells(labels, (1 / n, 0.0, 0.0, 0.0, 1 / n, 0.0), (height // n, width // n))


def region_index(cells, height, width):
    """The paper's M, (H, W) int32: the cell over each pixel as row * w + column, -1 where no cell lies."""
    return cell_index(cells.to_cell, cells.labels.shape, height, width)


def pixels_of_cells(to_cell, shape, height, width):
    """(h, w) int64: how many pixels have their centre in each cell; what `region_index` would count, without it where
    the grid lies along the image's axes."""
    rows, cols = _cell_of_pixels(to_cell, height, width)
    if cols.ndim == 1 and rows.shape[1] == 1:
        lines = zip((rows, cols), shape, strict=True)
        return np.outer(*(np.bincount(i[(i >= 0) & (i < count)], minlength=count) for i, count in lines))
    index = cell_index(to_cell, shape, height, width)
    return np.bincount(index.ravel() + 1, minlength=shape[0] * shape[1] + 1)[1:].reshape(shape)


def region_labels(cells, height, width, min_coverage=1.0):
    """(R,) uint8: the label of each cell, ignored where less than `min_coverage` of it lies in the tile."""
    covered = covered_cells(cells.to_cell, cells.labels.shape, height, width, min_coverage)
    return np.where(covered, cells.labels, IGNORE).ravel()


def upsampled(cells, height, width):
    """The low-resolution label at the image's resolution (Low, Oracle), (H, W) uint8: each pixel takes its own cell's
    label, pixels beyond the last full cell their nearest cell's."""
    rows, cols = _nearest(cells.to_cell, tuple(max(1, n) for n in cells.full), height, width)
    return cells.labels[rows, cols]


def filled(cells):
    """The cells with ignored ones taking the nearest labelled cell's class, so that a prediction has no holes."""
    known = np.argwhere(cells.labels != IGNORE)
    if len(known) == 0:
        return Cells(np.zeros_like(cells.labels), cells.to_cell, cells.full)
    labels = cells.labels.copy()
    for hole in np.argwhere(cells.labels == IGNORE):
        nearest = known[((known - hole) ** 2).sum(axis=1).argmin()]
        labels[tuple(hole)] = cells.labels[tuple(nearest)]
    return Cells(labels, cells.to_cell, cells.full)


def _matrix(affine):
    return np.array([affine[:3], affine[3:], (0.0, 0.0, 1.0)], dtype=np.float64)


def _cell_of_pixels(to_cell, height, width):
    """The cell's row and column over each pixel, as two arrays that broadcast to (H, W)."""
    a, b, c, d, e, f = to_cell
    col, row = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    # Rounding first: a centre on a cell's border must not fall to either side by the last bit of a product.
    # A grid along the image's axes needs one line of centres for x and one for y.
    x = np.floor(np.round((a * col + b * row if b else a * col) + c, 6)).astype(np.int64)
    y = np.floor(np.round((d * col + e * row if d else e * row) + f, 6)).astype(np.int64)
    return y, x


@lru_cache(maxsize=4)
def cell_index(to_cell, shape, height, width):
    """`region_index` of (h, w) cells, whatever their labels."""
    rows, cols = _cell_of_pixels(to_cell, height, width)
    inside = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
    return np.where(inside, rows * shape[1] + cols, -1).astype(np.int32)


@lru_cache(maxsize=4)
def _nearest(to_cell, shape, height, width):
    rows, cols = _cell_of_pixels(to_cell, height, width)
    return rows.clip(0, shape[0] - 1), cols.clip(0, shape[1] - 1)


@lru_cache(maxsize=4)
def covered_cells(to_cell, shape, height, width, min_coverage):
    """(h, w) bool: cells whose corners all lie in the image to within half a pixel, or enough of their area does."""
    a, b, c, d, e, f = invert(to_cell)
    x, y = np.arange(shape[1] + 1), np.arange(shape[0] + 1)[:, None]
    corner_col, corner_row = a * x + b * y + c, d * x + e * y + f
    slack = 0.5 + 1e-6
    within = (corner_col >= -slack) & (corner_col <= width + slack)
    within &= (corner_row >= -slack) & (corner_row <= height + slack)
    covered = within[:-1, :-1] & within[1:, :-1] & within[:-1, 1:] & within[1:, 1:]
    if min_coverage < 1:
        for i, j in zip(*np.nonzero(~covered), strict=True):
            around = [(i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)]
            corners = [(corner_col[p], corner_row[p]) for p in around]
            covered[i, j] = _area(_clip(corners, width, height)) >= min_coverage * _area(corners) - 1e-9
    return covered


def _area(polygon):
    """Shoelace formula; 0 for an empty polygon."""
    turned = polygon[1:] + polygon[:1]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(polygon, turned, strict=True))) / 2


def _clip(polygon, width, height):
    """The part of a convex polygon inside [0, width] x [0, height], one border after the other (Sutherland-Hodgman)."""
    for axis, bound, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        kept = []
        for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            inside_p, inside_q = sign * (p[axis] - bound) >= 0, sign * (q[axis] - bound) >= 0
            if inside_p:
                kept.append(p)
            if inside_p != inside_q:
                t = (bound - p[axis]) / (q[axis] - p[axis])
                kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
        polygon = kept
    return polygon
