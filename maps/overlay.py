"""A coarse raster over a scene, such as NLCD of the place: its cells window by window, on whatever grid it has."""

import math

import numpy as np

from data.cells import PIXEL_GRID, compose, corners, invert, majority_blocks
from data.label_masks import codes_of, require_label
from data.laying import cell_px, low_grid, same_pixels
from data.rasters import grids_under, require_one_place
from data.taxonomy import IGNORE, merge
from runtime.errors import Refused

SIDE = 1024  # pixels along the windows by which the whole scene is surveyed


class Overlay:
    """The cells of a coarse raster over a scene, as labels; as data.prepare lays them under tiles.

    A raster of any coordinate system keeps its cells, however they lie. One that shares the scene's pixels is reduced
    to n x n blocks by majority.

    raster, scene: data.rasters.Raster
    by_code: {native code: label or IGNORE}; the raster's own nodata is ignored unless it has a label
    n:       pixels along a cell, where the raster has none of its own
    covered: share of the scene's pixels under cells with a label
    cell_px: pixels of a whole cell
    same_crs: take raster and scene for one coordinate system, whatever they say
    raises:  Refused: a raster that is no label, does not say where it lies though the scene does, holds a code without a
             label over the scene, or nothing with one
    """

    def __init__(self, raster, scene, by_code, n, same_crs=False):
        require_label(raster)
        require_one_place(scene, raster, same_crs)
        self.raster, self.scene, self.same_crs = raster, scene, same_crs
        self.by_code = by_code if raster.nodata is None else {raster.nodata: IGNORE, **by_code}
        self.labels = 1 + max((label for label in by_code.values() if label != IGNORE), default=0)
        self.placed, self.base = bool(scene.affine and raster.affine), scene.affine or PIXEL_GRID
        middle = [max(0, (side - SIDE) // 2) for side in scene.size]
        grid = self._grid(*middle, *(min(side, SIDE) for side in scene.size)) if self.placed else None
        own = self.placed and not (grid == raster.affine and same_pixels(scene, raster))
        self.grid, n = low_grid(scene, raster, None if own else round(n), grid)
        self.n = None if self.grid else n  # the side of blocks, or None
        self.cell_px = self.n**2 if self.n else cell_px(self.grid, self.base)
        self.covered = self._survey()
        if not self.covered:
            raise Refused(
                f"{raster.path}: has no class anywhere over {scene.path}: all is nodata or ignored, or it lies elsewhere"
            )

    def window(self, row, col, height, width):
        """The cells under the scene's pixels from (row, col) on: labels (h, w) uint8, IGNORE for none, and `to_cell`,
        the affine from the window's pixels to them."""
        if self.n:  # blocks count from the scene's corner: windows agree on them
            top, left = row // self.n, col // self.n
            bottom, right = -(-(row + height) // self.n), -(-(col + width) // self.n)
            box = (top * self.n, left * self.n, (bottom - top) * self.n, (right - left) * self.n)
            labels = majority_blocks(self._read(*box), self.n, self.labels).labels
            return labels, (1 / self.n, 0.0, col / self.n - left, 0.0, 1 / self.n, row / self.n - top)
        grid = self._grid(row, col, height, width) if self.placed else self.grid
        moved = compose(compose(invert(grid), self.base), (1, 0, col, 0, 1, row))
        xs, ys = zip(*corners(moved, height, width), strict=True)
        top, left = math.floor(min(ys)) - 1, math.floor(min(xs)) - 1  # one cell more all round, for the interpolation
        labels = self._read(top, left, math.ceil(max(ys)) + 1 - top, math.ceil(max(xs)) + 1 - left)
        return labels, compose((1, 0, -left, 0, 1, -top), moved)

    def _grid(self, *window):
        return grids_under(self.scene, self.raster, [window], self.same_crs)[0]

    def _read(self, top, left, height, width):
        """Labels (height, width); IGNORE beyond the raster."""
        labels = np.full((height, width), IGNORE, np.uint8)
        y0, y1 = max(top, 0), min(top + height, self.raster.size[0])
        x0, x1 = max(left, 0), min(left + width, self.raster.size[1])
        if y0 < y1 and x0 < x1:
            bands = self.raster.bands - (self.raster.alpha is not None)
            codes, hidden = codes_of(*self.raster.read(y0, x0, y1 - y0, x1 - x0, bands), self.raster)
            found = labels[y0 - top : y1 - top, x0 - left : x1 - left]
            seen = ~hidden if hidden is not None else np.ones(codes.shape, bool)
            found[seen] = merge(codes[seen], self.by_code, self.raster.path)
        return labels

    def _survey(self):
        """`covered`, from the cells whose centre lies in the scene; every code over the scene is met here first."""
        (height, width), known = self.scene.size, 0
        for row in range(0, height, SIDE):
            for col in range(0, width, SIDE):
                rows, cols = min(SIDE, height - row), min(SIDE, width - col)
                labels, to_cell = self.window(row, col, rows, cols)
                a, b, c, d, e, f = invert(to_cell)
                x, y = np.arange(labels.shape[1]) + 0.5, (np.arange(labels.shape[0]) + 0.5)[:, None]
                x, y = a * x + b * y + c, d * x + e * y + f
                known += int(((0 <= x) & (x < cols) & (0 <= y) & (y < rows) & (labels != IGNORE)).sum())
        return min(1.0, known * self.cell_px / (height * width))
