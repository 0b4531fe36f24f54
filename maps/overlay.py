"""A coarse raster over a scene, such as NLCD of the place: its cells window by window, on whatever grid it has."""

import math
from contextlib import AbstractContextManager, ExitStack

import numpy as np

from data.cells import compose, corners, invert, majority_blocks
from data.rasters.alignment import check_label, low_grid, warp_line
from data.rasters.geotiff import open_raster
from data.taxonomy import IGNORE, merge
from runtime.errors import Refused

ROWS = 256  # of cells that are read at a time where the whole raster is asked


class Overlay(AbstractContextManager):
    """The cells of a coarse raster over a scene, as labels.

    A raster that shares the scene's pixels, as gdalwarp makes it, is reduced to n x n blocks by majority, like that of
    a tile set; any other keeps its cells, however they lie.

    scene:   Header of the scene
    by_code: {native code: label or IGNORE}; the raster's own nodata is ignored unless it has a label
    n:       pixels along a cell, where the raster has none of its own
    covered: share of the scene's pixels under cells with a label
    cell_px: pixels of a whole cell
    same_crs: take raster and scene for one coordinate system, whatever they say
    raises:  Refused: a raster that is no label, lacks a georeference, is of another coordinate system, holds a code
             without a label over the scene, or nothing with one
    """

    def __init__(self, path, scene, by_code, n, same_crs=False):
        with ExitStack() as on_failure:
            self.raster = on_failure.enter_context(open_raster(path))
            self._lay(scene, by_code, n, same_crs)
            on_failure.pop_all()

    def _lay(self, scene, by_code, n, same_crs):
        path, header = self.raster.path, self.raster.header
        self.header = header
        self.by_code = by_code if header.nodata is None else {header.nodata: IGNORE, **by_code}
        for each in (header, scene):
            if each.transform is None:
                raise Refused(f"{each.path}: has no georeference, which --coarse needs of the scene and of {path}")
        check_label(header)
        own, _ = low_grid(scene, header, None, same_crs)
        self.n = None if own else round(n)  # the side of blocks, or None
        self.to_cell = compose(invert(header.transform), scene.transform)
        a, b, _, d, e, _ = self.to_cell
        self.cell_px = self.n**2 if self.n else 1 / abs(a * e - b * d)
        self.labels = 1 + max((label for label in by_code.values() if label != IGNORE), default=0)
        self.covered = self._survey(scene)
        if not self.covered:
            raise Refused(
                f"{path}: has no class anywhere over {scene.path}: all is nodata or ignored, or it lies elsewhere; if "
                f"it is of another coordinate system: {warp_line(scene, header)}"
            )

    def __exit__(self, *_):
        self.raster.close()

    def window(self, row, col, height, width):
        """The cells under the scene's pixels from (row, col) on: labels (h, w) uint8, IGNORE for none, and `to_cell`,
        the affine from the window's pixels to them."""
        if self.n:  # blocks count from the scene's corner: windows agree on them
            top, left = row // self.n, col // self.n
            bottom, right = -(-(row + height) // self.n), -(-(col + width) // self.n)
            box = (top * self.n, left * self.n, (bottom - top) * self.n, (right - left) * self.n)
            labels = majority_blocks(self._read(*box), self.n, self.labels).labels
            to_cell = (1 / self.n, 0.0, col / self.n - left, 0.0, 1 / self.n, row / self.n - top)
            return labels, to_cell
        moved = compose(self.to_cell, (1, 0, col, 0, 1, row))
        top, left, bottom, right = self._box(moved, height, width)
        return self._read(top, left, bottom - top, right - left), compose((1, 0, -left, 0, 1, -top), moved)

    def _box(self, to_cell, height, width):
        """The rows and columns of cells that a window touches, and one more all round for the interpolation."""
        xs, ys = zip(*corners(to_cell, height, width), strict=True)
        return math.floor(min(ys)) - 1, math.floor(min(xs)) - 1, math.ceil(max(ys)) + 1, math.ceil(max(xs)) + 1

    def _read(self, top, left, height, width):
        """Labels (height, width); IGNORE beyond the raster."""
        labels = np.full((height, width), IGNORE, np.uint8)
        y0, y1 = max(top, 0), min(top + height, self.header.height)
        x0, x1 = max(left, 0), min(left + width, self.header.width)
        if y0 < y1 and x0 < x1:
            codes = self.raster.window(y0, x0, y1 - y0, x1 - x0)[..., 0]
            labels[y0 - top : y1 - top, x0 - left : x1 - left] = merge(codes, self.by_code, self.header.path)
        return labels

    def _survey(self, scene):
        """`covered`, from the cells whose centre lies in the scene; every code over the scene is met here first."""
        a, b, c, d, e, f = invert(self.to_cell)
        top, left, bottom, right = self._box(self.to_cell, scene.height, scene.width)
        top, left = max(top, 0), max(left, 0)
        bottom, right = min(bottom, self.header.height), min(right, self.header.width)
        known = 0
        for start in range(top, bottom, ROWS):
            if left >= right:
                break
            count = min(ROWS, bottom - start)
            x, y = np.arange(left, right) + 0.5, (np.arange(start, start + count) + 0.5)[:, None]
            col, row = a * x + b * y + c, d * x + e * y + f
            inside = (0 <= col) & (col < scene.width) & (0 <= row) & (row < scene.height)
            known += int((inside & (self._read(start, left, count, right - left) != IGNORE)).sum())
        area = 1 if self.n else self.cell_px
        return min(1.0, known * area / (scene.height * scene.width))
