"""A coarse raster over a scene, such as NLCD of the place: its cells window by window, on whatever grid it has."""

import math

from data.cells import PIXEL_GRID, compose, invert, majority_blocks, pixels_of_cells
from data.label_source import Label
from data.laying import cell_px, low_grid, require_one_place, same_pixels
from data.rasters import grids_under
from runtime import command
from runtime.errors import require
from runtime.labels import IGNORE

SIZE_TOLERANCE = 0.05  # cells of another system are wider or narrower by some percent


class Overlay:
    """The cells of a coarse raster over a scene, as labels, laid as data.prepare lays them under tiles: cells of any
    coordinate system, however they lie; n x n blocks by majority, where the raster shares the scene's pixels.

    raster, scene: data.rasters.Raster
    by_code:  {native code: label or IGNORE}; the raster's own nodata is ignored unless it has a label
    n:        pixels along a cell in training, and here where the raster has no cells of its own
    same_crs: take raster and scene for one coordinate system, whatever they say
    side:     pixels along the windows by which the whole scene is surveyed
    cell_px:  pixels of a whole cell
    raises:   Refused: a raster that is no label, does not say where it lies, or holds a code without a label over the
              scene, or none with one
    """

    def __init__(self, raster, scene, by_code, n, same_crs=False, side=1024):
        require_one_place(scene, raster, same_crs)
        self.label, self.raster, self.scene, self.same_crs = Label(raster, by_code), raster, scene, same_crs
        self.side, self.base, self.grid, self.n = side, scene.affine or PIXEL_GRID, None, None
        middle = [max(0, (length - side) // 2) for length in scene.size]
        grid = self._grid(*middle, *(min(length, side) for length in scene.size))
        own = grid and not same_pixels(scene, raster, grid)
        self.grid, block = low_grid(scene, raster, None if own else round(n), grid)
        self.n = None if self.grid else block
        self.cell_px = block**2 if self.n else cell_px(self.grid, self.base)
        if abs(self.cell_px**0.5 / n - 1) > SIZE_TOLERANCE:
            sizes = f"its cells are {self.cell_px**0.5:.3g} px wide, those in training {n:g}"
            command.say(f"warning: {raster.path}: {sizes}; a code's meaning depends on the size of its cell")
        covered = self._survey(*scene.size) / math.prod(scene.size)
        require(covered, f"{raster.path}: has no class anywhere over {scene.path}; it lies elsewhere or is all ignored")
        if covered < 0.995:
            rest = "the rest is mapped without coarse labels"
            command.say(f"note: {raster.path} has classes over {covered:.1%} of {scene.path}; {rest}")

    def window(self, row, col, height, width):
        """The cells under the scene's pixels from (row, col) on: labels (h, w) uint8, IGNORE for none, and `to_cell`,
        the affine from the window's pixels to them."""
        margin = 0 if self.n else 1  # one cell more all round, for the interpolation; blocks end with the window
        grid, here = self._grid(row, col, height, width), compose(self.base, (1, 0, col, 0, 1, row))
        codes, absent, moved = self.label.cells_under(grid, here, (height, width), margin, self.n or 1)
        labels = self.label.merged(codes, absent)
        labels = majority_blocks(labels, self.n).labels if self.n else labels
        return labels, compose(invert(moved), here)

    def _grid(self, *window):
        """The affine of cells near a window, in the scene's coordinates."""
        if self.n:
            return compose(self.base, (self.n, 0, 0, 0, self.n, 0))
        placed = self.scene.affine and self.raster.affine
        return grids_under(self.scene, self.raster, [window], self.same_crs)[0] if placed else self.grid

    def _survey(self, height, width):
        """How many pixels of the scene lie under cells with a label; every code over the scene is met here first."""
        known, side = 0, self.side
        for row in range(0, height, side):
            for col in range(0, width, side):
                size = min(side, height - row), min(side, width - col)
                labels, to_cell = self.window(row, col, *size)
                known += pixels_of_cells(to_cell, labels.shape, *size)[labels != IGNORE].sum()
        return known
