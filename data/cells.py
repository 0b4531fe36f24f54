"""The cells of a low-resolution label over a tile (Sec. 4.3, Fig. 4): which lies over each pixel, and which are whole.

One rule serves whole blocks, an n that does not divide the tile, offset grids and tilted ones: the centre of image
pixel (row, col), mapped by the affine from image to low-resolution pixels and floored, names its cell.
"""

from dataclasses import dataclass, replace
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
    return tuple((_matrix(outer) @ _matrix(inner))[:2].ravel())


def invert(affine):
    return tuple(np.linalg.inv(_matrix(affine))[:2].ravel())


def move(affine, x, y):
    """Points, as numbers or arrays, in the coordinates that the affine leads to."""
    a, b, c, d, e, f = affine
    return a * x + b * y + c, d * x + e * y + f


def corners(affine, height, width):
    """Where the four corners of an image of this size lie: [(x, y)]."""
    return [move(affine, col, row) for row in (0, height) for col in (0, width)]


def majority_blocks(classes, n):
    """(H, W) merged classes -> Cells of n x n blocks, each the majority over its pixels.

    Ignored pixels are left out, ties go to the lower index, a block without any label is ignored. Blocks cut by the
    edge are labelled from what is there and lie beyond `full`.
    """
    height, width = classes.shape
    h, w = -(-height // n), -(-width // n)
    padded = np.full((h * n, w * n), IGNORE, np.uint8)
    padded[:height, :width] = classes
    blocks = padded.reshape(h, n, w, n)
    most, labels = np.zeros((h, w), np.int64), np.full((h, w), IGNORE, np.uint8)
    for c in np.flatnonzero(np.bincount(classes.ravel(), minlength=256)[:IGNORE]):
        count = (blocks == c).sum(axis=(1, 3))
        labels[count > most] = c
        most = np.maximum(most, count)
    return Cells(labels, (1 / n, 0.0, 0.0, 0.0, 1 / n, 0.0), (height // n, width // n))


def region_index(cells, height, width):
    """M over all cells, (H, W) int32: the cell over each pixel as row * w + column, -1 where no cell lies. Training
    takes the cells that supervise alone (data/samples.py: supervising_regions)."""
    return cell_index(cells.to_cell, cells.labels.shape, height, width)


def region_labels(cells, height, width, min_coverage=1.0, void=None):
    """(R,) uint8: the label of each cell, ignored where it does not supervise (`covered_cells`)."""
    covered = covered_cells(cells.to_cell, cells.labels.shape, height, width, min_coverage, void)
    return np.where(covered, cells.labels, np.uint8(IGNORE)).ravel()


def covered_cells(to_cell, shape, height, width, min_coverage=1.0, void=None):
    """(h, w) bool: the cells that supervise: whole ones and, below 1, those of which the tile shows at least
    `min_coverage`, counted in pixels. void: (H, W) bool, pixels that do not count, or None"""
    whole = _whole_cells(to_cell, shape, height, width)
    if min_coverage == 1 and void is None:
        return whole
    a, b, _, d, e, _ = to_cell
    shown = pixels_of_cells(to_cell, shape, height, width, void)
    # A cell has 1 / |ae - bd| pixels, more or less; half a cell is half of it whatever the last bit of a product says.
    enough = shown * abs(a * e - b * d) >= min_coverage - 1e-9
    if void is not None:
        whole = whole & (enough | (shown == pixels_of_cells(to_cell, shape, height, width)))
    return whole if min_coverage == 1 else whole | enough


def pixels_of_cells(to_cell, shape, height, width, void=None):
    """(h, w) int64: how many pixels have their centre in each cell; of those that are not void, (H, W) bool or None."""
    index = cell_index(to_cell, shape, height, width)
    index = index[index >= 0] if void is None else index[(index >= 0) & ~void]
    return np.bincount(index, minlength=shape[0] * shape[1]).reshape(shape)


def upsampled(cells, height, width):
    """The low-resolution label at the image's resolution (Low, Oracle), (H, W) uint8: each pixel takes its own cell's
    label, pixels beyond the last full cell their nearest cell's."""
    rows, cols = _cell_of_pixels(cells.to_cell, height, width)
    last_row, last_col = (max(1, n) - 1 for n in cells.full)
    return cells.labels[rows.clip(0, last_row), cols.clip(0, last_col)]


def without_holes(cells):
    """The cells with ignored ones taking the nearest labelled cell's class, so that a prediction has no holes."""
    known, labels = np.argwhere(cells.labels != IGNORE), cells.labels.copy()
    for hole in np.argwhere(cells.labels == IGNORE):
        nearest = known[((known - hole) ** 2).sum(axis=1).argmin()] if len(known) else None
        labels[tuple(hole)] = 0 if nearest is None else cells.labels[tuple(nearest)]
    return replace(cells, labels=labels)


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
def _whole_cells(to_cell, shape, height, width):
    """(h, w) bool: cells whose corners all lie in the image to within half a pixel."""
    col, row = move(invert(to_cell), np.arange(shape[1] + 1), np.arange(shape[0] + 1)[:, None])
    slack = 0.5 + 1e-6
    within = (col >= -slack) & (col <= width + slack) & (row >= -slack) & (row <= height + slack)
    return within[:-1, :-1] & within[1:, :-1] & within[:-1, 1:] & within[1:, 1:]
