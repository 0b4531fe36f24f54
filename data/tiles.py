"""A tile set on disk -> samples and batches of tensors."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data import tile_io
from data.band_statistics import band_statistics
from data.cells import PIXEL_GRID, Cells, compose, invert, majority_blocks, region_index, region_labels
from data.laying import tile_grid
from data.manifest import chosen_rows, read_manifest
from data.taxonomy import IGNORE, merge
from runtime.errors import Refused


@dataclass(frozen=True)
class Tile:
    """One tile as loaded: image (H, W, K) as stored, void pixels filled; high (H, W) merged, void pixels ignored, or
    None; low-resolution cells or None; void (H, W) bool, True where the image has no data, or None."""

    image: np.ndarray
    high: np.ndarray | None
    cells: Cells | None
    void: np.ndarray | None = None


KEPT_BYTES = 2**28  # a set of tiles that takes no more stays in memory, in each process that reads it


class TileSet:
    """The tiles of one split, of some regions or all but some; those of a small set stay in memory once read.

    needs:  the labels that every tile must have: "high", "low" (a file, or high to derive it from), or both
    raises: Refused for a split or a region that the set does not have, or a tile without a needed label
    """

    def __init__(self, root, split, regions=(), exclude_regions=(), needs=()):
        self.root = Path(root)
        self.description, rows = read_manifest(root)
        self.rows = chosen_rows(root, rows, split, regions, exclude_regions)
        if self.description.tile_px < 32:
            raise Refused(f"{root}: its tiles are {self.description.tile_px} px; the networks need 32 or more")
        self.limited = bool(regions or exclude_regions)
        size = self.description.tile_px**2 * (self.description.bands * np.dtype(self.description.dtype).itemsize + 1)
        self._kept = {} if size * len(self.rows) <= KEPT_BYTES else None
        self.by_code, self.by_class = self.description.taxonomy.low, None
        for row in self.rows:
            missing = [kind for kind in needs if not row[kind] and not (kind == "low" and row["high"])]
            if missing:
                raise Refused(f"{root}: tile {row['tile']} of the split {split} has no {missing[0]} label")

    def __len__(self):
        return len(self.rows)

    def described(self):
        """The description; where regions limit the set, with the band statistics of these tiles alone."""
        if not self.limited:
            return self.description
        mean, std = band_statistics([self.root / row["image"] for row in self.rows], self.description.bands)
        return replace(self.description, band_mean=mean, band_std=std)

    def read_low_as(self, by_code, by_class):
        """From now on cells carry other labels than merged classes, as an observation model has them.

        by_code: {native code: label or IGNORE}; by_class: the label of each class, where cells derive from fine labels
        """
        self.by_code, self.by_class = by_code, by_class
        self._kept = None if self._kept is None else {}

    def load_high(self, i):
        """Tile i's high-resolution label alone, (H, W) merged."""
        return self._keep(("high", i), lambda: self._read_high(i))

    def _keep(self, key, read):
        """What `read` gives, of a small set read once."""
        if self._kept is None:
            return read()
        if key not in self._kept:
            self._kept[key] = read()
        return self._kept[key]

    def _read_high(self, i):
        path = self.root / self.rows[i]["high"]
        return self._of_tile_size(_merged(path, self.description.taxonomy.high)[0], path)

    def _of_tile_size(self, array, path):
        size = self.description.tile_px
        if array.shape[:2] != (size, size):
            raise Refused(f"{path}: is {_size(array)} px, the tiles of this set {size} x {size}")
        return array

    def load(self, i, high=True, low=True):
        """Tile i, its labels merged; what is not asked for, or not there, is None."""
        return self._keep((i, high, low), lambda: self._read(i, high, low))

    def _read(self, i, high, low):
        row, taxonomy = self.rows[i], self.description.taxonomy
        stored = tile_io.read(self.root / row["image"])
        self._of_tile_size(stored.pixels, stored.path)
        here, wanted = (stored.bands, str(stored.dtype)), (self.description.bands, self.description.dtype)
        if here != wanted:
            its, theirs = ("{} bands of {}".format(*each) for each in (here, wanted))
            raise Refused(f"{stored.path}: has {its}, the tile set {theirs}")
        image, void = stored.image(stored.bands)
        derive = low and not row["low"]
        classes = None
        if row["high"] and (high or derive):
            classes = self.load_high(i) if high else self._read_high(i)
            if void is not None:
                classes = np.where(void, IGNORE, classes)
        cells = None
        if low and row["low"]:
            labels = 1 + max((label for label in self.by_code.values() if label != IGNORE), default=0)
            cells = low_cells(*_merged(self.root / row["low"], self.by_code), stored, self.description, labels)
        elif derive and classes is not None:
            cells = majority_blocks(classes, round(self.description.scale), len(taxonomy.names))
            if self.by_class is not None:
                table = {**dict(enumerate(self.by_class)), IGNORE: IGNORE}
                cells = replace(cells, labels=merge(cells.labels, table, self.root / row["high"]))
        return Tile(image, classes if high else None, cells, void)

    def compositions(self, i, min_coverage=1.0, native=True):
        """What fine labels say of the cells that the tile has whole, beside their coarse labels; no image is read.

        Cells with an unlabelled pixel are left out, and those whose code the merge ignores.
        returns: shares (N, C) float64 of the classes; codes (N,) int64: native, or else the merged classes, as they
                 are where cells derive from the fine labels
        """
        row, description = self.rows[i], self.description
        high, classes = self.load_high(i), len(description.taxonomy.names)
        if row["low"]:
            low, image = tile_io.read(self.root / row["low"]), tile_io.read(self.root / row["image"], pixels=False)
            merged = merge(low.pixels[..., 0], description.taxonomy.low, low.path)
            found = low.pixels[..., 0] if native else merged
            codes = np.unique(found[merged != IGNORE]).astype(np.int64)
            places = np.where(merged == IGNORE, IGNORE, np.searchsorted(codes, found)).astype(np.uint8)
            cells = low_cells(places, low, image, description, len(codes))
        else:
            codes = np.arange(classes)
            cells = majority_blocks(high, round(description.scale), classes)
        labels = region_labels(cells, *high.shape, min_coverage)
        index = region_index(cells, *high.shape)
        inside = index >= 0
        counts = np.bincount(index[inside] * 256 + high[inside], minlength=labels.size * 256).reshape(-1, 256)
        kept = (labels != IGNORE) & (counts[:, IGNORE] == 0) & (counts.sum(axis=1) > 0)
        counts = counts[kept, :classes]
        return counts / counts.sum(axis=1, keepdims=True), codes[labels[kept]]


def low_cells(classes, low, image, description, num_labels=None):
    """Merged low-resolution classes, or other labels, (h, w) -> Cells over the tile: on the label's own grid where its
    pixels are larger than the image's, else reduced to n x n blocks by majority. low, image: tile_io.Stored

    raises: Refused where the label does not go with the image, or with the set's scale
    """
    grid = tile_grid(image, low, description.scale)
    if grid is None:
        return majority_blocks(classes, round(description.scale), num_labels or len(description.taxonomy.names))
    to_cell = compose(invert(grid), image.affine or PIXEL_GRID)
    return Cells(classes, to_cell, classes.shape)


def _merged(path, table):
    label = tile_io.read(path)
    if label.bands != 1:
        raise Refused(f"{path}: has {label.bands} bands; a label has one")
    return merge(label.pixels[..., 0], table, path), label


def _size(array):
    return f"{array.shape[0]} x {array.shape[1]}"
