"""A scene's label source: its codes over a window, and where it has none."""

import math
from collections import Counter

import numpy as np

from data.cells import cell_index, compose, corners, invert
from data.label_masks import codes_of, require_label
from data.taxonomy import IGNORE, Unknown, merge
from data.voids import join

ROWS = 256  # read at a time where a whole label is asked for its codes


class Label:
    """A label of one scene or tile.

    raster: data.rasters.Raster, or data.tile_io.Stored of a tile; table: {code: class} of the taxonomy
    none:   the code that is written where nothing is known: one that the taxonomy ignores
    cells:  the affine of its own coarser grid, near the image's middle; None where it has the image's pixels
    """

    def __init__(self, raster, table, colors=()):
        require_label(raster, colors)
        self.raster, self.colors, self.cells = raster, colors, None
        # What a float label's nodata hides has no code. A mask of colours has codes of our own.
        self.nodata = None if colors or raster.dtype.kind == "f" else raster.nodata
        most = 127 if raster.dtype == np.int8 else 255
        likely = [code for code in (self.nodata, *sorted({0, most} & table.keys())) if code is not None]
        self.none = next(code for code in (*likely, *range(most, -1, -1)) if table.get(code, IGNORE) == IGNORE)
        self.has_gaps, self.block = False, None  # whether `none` was written; n, of a coarse label on image pixels

    def codes_of_none(self, gaps=False):
        """Codes that say that nothing is known: its file's nodata, and `none` where it was written, or with `gaps`."""
        return sorted({c for c in (self.nodata, self.none if gaps or self.has_gaps else None) if c is not None})

    def over(self, row, col, height, width):
        """Codes (H, W) of the image's pixels from (row, col) on, and where there are none: (H, W) bool, or None."""
        bands = self.raster.bands - (self.raster.alpha is not None)
        return codes_of(*self.raster.read(row, col, height, width, bands), self.raster, self.colors)

    def cells_over(self, grid, transform, px):
        """The cells that touch a tile: codes (h, w), their transform, and the pixels beyond the raster, or None."""
        (left, right), (top, bottom) = (
            (math.floor(round(min(values), 6)), math.ceil(round(max(values), 6)))
            for values in zip(*corners(compose(invert(grid), transform), px, px), strict=True)
        )
        height, width = self.raster.size
        codes = np.full((bottom - top, right - left), self.none, np.int64)
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
        reached = np.zeros(codes.shape, bool)
        if y0 < y1 and x0 < x1:
            inside, place = self.over(y0, x0, y1 - y0, x1 - x0), np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
            codes = codes.astype(inside[0].dtype)
            codes[place] = inside[0]
            reached[place] = True if inside[1] is None else ~inside[1]
            codes[~reached] = self.none
        moved = compose(grid, (1, 0, left, 0, 1, top))
        beyond = None
        if not reached.all():
            beyond = ~reached.ravel()[cell_index(compose(invert(moved), transform), codes.shape, px, px)]
        return codes, moved, beyond

    def without(self, codes, void, unlabelled, cells=None):
        """The codes with `none` where pixels do not count: void ones, and those that some label does not reach.

        void, unlabelled: (H, W) bool, or None
        cells: affine of a coarse label's cells from the tile's pixels: all of a cell is lost that holds an unlabelled
               pixel, or no pixel with data. (Of others, void pixels are left out when a tile is loaded.)
        """
        gone = join(void, unlabelled)
        if gone is None:
            return codes
        self.has_gaps, lost = True, gone
        if cells is None and self.block and unlabelled is not None:  # of blocks of n x n pixels
            rows, cols = (np.arange(side) // self.block for side in gone.shape)
            cut = np.zeros((rows[-1] + 1, cols[-1] + 1), bool)
            np.logical_or.at(cut, (rows[:, None], cols), unlabelled)
            lost = lost | cut[rows[:, None], cols]
        if cells is not None:
            index = cell_index(cells, codes.shape, *gone.shape)
            seen = np.bincount(index[~gone & (index >= 0)], minlength=codes.size)
            lost = seen == 0
            if unlabelled is not None:
                lost |= np.bincount(index[unlabelled & (index >= 0)], minlength=codes.size) > 0
            lost = lost.reshape(codes.shape)
        return np.where(lost, np.array(self.none, codes.dtype), codes)

    def unknown(self, table):
        """The error that lists every code or colour of the whole label without a class, so that a taxonomy is mended in
        one go; None without any."""
        found, error, (height, width) = Counter(), None, self.raster.size
        for row in range(0, height, ROWS):
            try:
                codes, hidden = self.over(row, 0, min(ROWS, height - row), width)
                merge(codes if hidden is None else codes[~hidden], table, self.raster.path)
            except Unknown as unknown:
                error = unknown
                found.update(unknown.counts)
        return error and type(error)(self.raster.path, found, error.table)
