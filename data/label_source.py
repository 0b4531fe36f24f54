"""A scene's label source: its codes over a window, and where it has none."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np

from data.cells import PIXEL_GRID, cell_index, compose, corners, invert
from data.label_masks import codes_of, require_label
from data.taxonomy import Unknown, merge
from data.tile_writer import count_labels
from data.voids import join
from runtime.labels import IGNORE

ROWS = 256  # read at a time where a whole label is asked for its codes


class Label:
    """A label of one scene or tile.

    raster:  data.rasters.Raster, or data.tile_io.Stored of a tile; table: {code: class} of the taxonomy
    nodata:  its file's, where that is a code without a class; None
    none:    the code that is written where nothing is known: one that the taxonomy ignores
    ignored: the codes that say so: its file's nodata, and `none` from when it was written on
    cells:   the affine of its own coarser grid, near the image's middle; None where it has the image's pixels
    block:   n, of a coarse label on the image's pixels
    """

    def __init__(self, raster, table, colors=()):
        require_label(raster, colors)
        self.raster, self.table, self.colors, self.cells, self.block = raster, table, colors, None, None
        # What a float label's nodata hides has no code. A mask of colours has codes of our own.
        self.ignored = set() if colors or raster.dtype.kind == "f" or raster.nodata is None else {raster.nodata}
        self.nodata = next((code for code in self.ignored if table.get(code, IGNORE) == IGNORE), None)
        most = 127 if raster.dtype == np.int8 else 255
        likely = *self.ignored, *sorted({0, most} & table.keys()), *range(most, -1, -1)
        self.none = next(code for code in likely if table.get(code, IGNORE) == IGNORE)

    def known(self):
        """Its table, with the codes that say nothing ignored where they have no class of their own."""
        return {**dict.fromkeys(self.ignored, IGNORE), **self.table}

    def over(self, row, col, height, width):
        """Codes (H, W) of the image's pixels from (row, col) on, and where there are none: (H, W) bool, or None."""
        bands = self.raster.bands - (self.raster.alpha is not None)
        codes, hidden = codes_of(*self.raster.read(row, col, height, width, bands), self.raster, self.colors)
        # A coarse map's nodata is where it ends, as beyond its edge; a fine one may have holes over coarse labels.
        if self.nodata is not None and (self.cells or self.block):
            hidden = join(hidden, codes == self.nodata)
        return codes, hidden

    def cells_over(self, grid, transform, size):
        """The cells that touch a tile of size (H, W): codes (h, w), their transform, and the pixels beyond the raster,
        or None."""
        codes, absent, moved = self.cells_under(grid, transform, size)
        if not absent.any():
            return codes, moved, None
        self.ignored.add(self.none)
        return codes, moved, absent.ravel()[cell_index(compose(invert(moved), transform), codes.shape, *size)]

    def cells_under(self, grid, transform, size, margin=0, n=1):
        """The cells that touch a tile or a window of size (H, W): codes (h, w), of blocks those of their n x n pixels;
        where the raster has none, (h, w) bool, with the code `none`; and the cells' transform.

        margin: further cells all round
        """
        (left, right), (top, bottom) = (
            (math.floor(round(min(values), 6)) - margin, math.ceil(round(max(values), 6)) + margin)
            for values in zip(*corners(compose(invert(grid), transform), *size), strict=True)
        )
        moved = compose(grid, (1, 0, left, 0, 1, top))
        top, left, bottom, right = (n * side for side in (top, left, bottom, right))
        height, width = self.raster.size
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
        codes = np.full((bottom - top, right - left), self.none, np.int64)
        absent = np.ones(codes.shape, bool)
        if y0 < y1 and x0 < x1:
            inside, hidden = self.over(y0, x0, y1 - y0, x1 - x0)
            place = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
            absent[place] = False if hidden is None else hidden
            codes = codes.astype(inside.dtype)
            codes[place] = np.where(absent[place], np.array(self.none, inside.dtype), inside)
        return codes, absent, moved

    def without(self, codes, void, unlabelled, to_cell=None):
        """The codes with `none` where pixels do not count: void ones, and those that some label does not reach.

        void, unlabelled: (H, W) bool, or None
        to_cell: affine of a coarse label's cells from the tile's pixels: all of a cell is lost that holds an unlabelled
                 pixel, or no pixel with data. (Of others, void pixels are left out when a tile is loaded.)
        """
        gone, shape, n = join(void, unlabelled), codes.shape, self.block
        if gone is None:
            return codes
        self.ignored.add(self.none)
        lost = gone
        if n:
            to_cell, shape = (1 / n, 0, 0, 0, 1 / n, 0), tuple(-(-side // n) for side in gone.shape)
        if to_cell:
            index = cell_index(to_cell, shape, *gone.shape)
            inside, count = index >= 0, math.prod(shape)
            lost = np.bincount(index[inside & ~gone], minlength=count) == 0
            if unlabelled is not None:
                lost |= np.bincount(index[inside & unlabelled], minlength=count) > 0
            lost = gone | lost[index] if n else lost.reshape(shape)
        return np.where(lost, np.array(self.none, codes.dtype), codes)

    def merged(self, codes, hidden):
        """Their classes, IGNORE where hidden, (H, W) bool or None. raises: Unknown, of the whole label's codes"""
        seen, labels = np.s_[:] if hidden is None else ~hidden, np.full(codes.shape, IGNORE, np.uint8)
        try:
            labels[seen] = merge(codes[seen], self.known(), self.raster.path)
        except Unknown:
            raise self.unknown() from None
        return labels

    def unknown(self):
        """The error that lists every code or colour of the whole label without a class, so that a taxonomy is mended in
        one go; None without any."""
        found, error, (height, width), table = Counter(), None, self.raster.size, self.known()
        for row in range(0, height, ROWS):
            try:
                codes, hidden = self.over(row, 0, min(ROWS, height - row), width)
                merge(codes if hidden is None else codes[~hidden], table, self.raster.path)
            except Unknown as unknown:
                error = unknown
                found.update(unknown.counts)
        return error and type(error)(self.raster.path, found, error.table)


def leave_out(labels, codes, void, unlabelled, taxonomy, size, transform, low_transform, where):
    """Write `none` into the codes of a tile's labels where pixels do not count, and count the others by class.

    labels:  {kind: Label}; codes: {kind: array}, changed in place; a coarse map that is made here has no Label
    returns: as data.tile_writer.count_labels, whose arguments the last ones are
    """
    for kind, label in labels.items():
        to_cell = compose(invert(low_transform), transform or PIXEL_GRID) if label.cells else None
        codes[kind] = label.without(codes[kind], void, unlabelled, to_cell)
    taxonomy = replace(taxonomy, **{kind: label.known() for kind, label in labels.items()})
    return count_labels(codes.get("high"), codes.get("low"), taxonomy, size, transform, low_transform, where)
