"""A tile set on disk -> tiles as arrays, their labels merged."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data import tile_io
from data.band_statistics import band_statistics
from data.cells import PIXEL_GRID, Cells, compose, invert, majority_blocks
from data.label_masks import require_label
from data.laying import tile_grid
from data.manifest import chosen_rows, read_manifest
from data.taxonomy import merge
from data.voids import filled
from runtime.errors import Refused, require
from runtime.labels import IGNORE

KEPT_BYTES = 2**28  # a set of tiles that takes no more stays in memory, in each process that reads it


@dataclass(frozen=True)
class Tile:
    """One tile as loaded: image (H, W, K) as stored, void pixels filled; high (H, W) merged, void pixels ignored, or
    None; low-resolution cells or None; void (H, W) bool, True where the image has no data, or None."""

    image: np.ndarray
    high: np.ndarray | None
    cells: Cells | None
    void: np.ndarray | None = None


class TileSet:
    """The tiles of one split, of some regions or all but some; those of a small set stay in memory once read.

    needs:  the labels that every tile must have: "high", "low" (a file, or high to derive it from), or both
    raises: Refused for a split or a region that the set does not have, or a tile without a needed label
    """

    def __init__(self, root, split, regions=(), exclude_regions=(), needs=()):
        self.root = Path(root)
        self.description, rows = read_manifest(root)
        self.rows = chosen_rows(root, rows, split, regions, exclude_regions)
        for row in self.rows:
            missing = next((kind for kind in needs if not row[kind] and not (kind == "low" and row["high"])), None)
            require(not missing, f"{root}: tile {row['tile']} of the split {split} has no {missing} label")
        self.limited = bool(regions or exclude_regions)
        size = self.description.tile_px**2 * (self.description.bands * np.dtype(self.description.dtype).itemsize + 1)
        self._kept = {} if size * len(self.rows) <= KEPT_BYTES else None
        self._low, self._derived = self.description.taxonomy.low, np.arange(256, dtype=np.uint8)

    def __len__(self):
        return len(self.rows)

    def described(self):
        """The description; where regions limit the set, with the band statistics of these tiles alone."""
        if not self.limited:
            return self.description
        mean, std = band_statistics([self.root / row["image"] for row in self.rows], self.description.bands)
        return replace(self.description, band_mean=mean, band_std=std)

    def relabelled(self, labels):
        """The same tiles, whose cells carry other labels than merged classes.

        labels: {native code: class or IGNORE} -> {native code: label or IGNORE}, and the label of each class, where
                cells derive from fine labels
        """
        other = copy.copy(self)
        other._kept = None if self._kept is None else {}
        other._low, by_class = labels(self.description.taxonomy.low)
        other._derived = np.full(256, IGNORE, np.uint8)
        other._derived[: len(by_class)] = by_class
        return other

    def load(self, i, high=True, low=True):
        """Tile i, its labels merged; what is not asked for, or not there, is None."""
        return self._keep((i, high, low), lambda: self._read(i, high, low))

    def load_high(self, i):
        """Tile i's high-resolution label alone, (H, W) merged."""
        return self._keep(("high", i), lambda: self._read_high(i))

    def load_cells(self, i):
        """Tile i's low-resolution cells, by the labels alone: its image's pixels are not read."""
        row = self.rows[i]
        image = tile_io.read(self.root / row["image"], pixels=False)
        return self._cells(row, image, None if row["low"] else self.load_high(i))

    def _keep(self, key, read):
        """What `read` gives, of a small set read once."""
        if self._kept is None:
            return read()
        if key not in self._kept:
            self._kept[key] = read()
        return self._kept[key]

    def _read(self, i, high, low):
        row, image = self.rows[i], tile_io.read(self.root / self.rows[i]["image"])
        require_image(image, self.description)
        pixels, void = image.seen(image.bands)
        derived = low and not row["low"] and row["high"]
        classes = self.load_high(i) if (high and row["high"]) or derived else None
        if classes is not None and void is not None:
            classes = np.where(void, IGNORE, classes)
        cells = self._cells(row, image, classes) if low and (row["low"] or derived) else None
        return Tile(filled(pixels, void), classes if high else None, cells, void)

    def _read_high(self, i):
        label = read_label(self.root / self.rows[i]["high"])
        require_size(label, self.description)
        return merge(label.pixels[..., 0], self.description.taxonomy.high, label.path)

    def _cells(self, row, image, classes):
        if not row["low"]:
            cells = majority_blocks(classes, round(self.description.scale))
            return replace(cells, labels=self._derived[cells.labels])
        low = read_label(self.root / row["low"])
        return low_cells(merge(low.pixels[..., 0], self._low, low.path), low, image, self.description)


def require_image(image, description):
    """Refused unless a tile's image is as dataset.yaml says. image: tile_io.Stored"""
    require_size(image, description)
    here, wanted = (f"{each.bands} bands of {each.dtype}" for each in (image, description))
    require(here == wanted, f"{image.path}: has {here}, the tile set {wanted}")


def require_size(stored, description):
    (height, width), size = stored.size, description.tile_px
    if not height == width == size:
        raise Refused(f"{stored.path}: is {height} x {width} px, the tiles of this set {size} x {size}")


def read_label(path):
    """tile_io.Stored of a label of one band."""
    label = tile_io.read(path)
    require_label(label)
    return label


def low_cells(labels, low, image, description):
    """Low-resolution labels (h, w) -> Cells over the tile: on the label's own grid where its pixels are larger than the
    image's, else reduced to n x n blocks by majority. low, image: tile_io.Stored

    raises: Refused where the label does not go with the image, or with the set's scale
    """
    grid = tile_grid(image, low, description.scale)
    if grid is None:
        return majority_blocks(labels, round(description.scale))
    return Cells(labels, compose(invert(grid), image.affine or PIXEL_GRID), labels.shape)
