"""A tile set on disk -> samples and batches of tensors."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from data import geotiff
from data.alignment import tile_grid
from data.cells import (
    Cells,
    cell_index,
    compose,
    covered_cells,
    invert,
    majority_blocks,
    region_index,
    region_labels,
    upsampled,
)
from data.loading import sample_index, to_tensor
from data.manifest import chosen_rows, read_manifest
from data.statistics import band_statistics
from data.taxonomy import IGNORE, merge
from data.tileset import PIXEL_GRID
from data.transforms import color_draw, dihedral, draw
from runtime.errors import Refused


@dataclass(frozen=True)
class Tile:
    """One tile as loaded: image (H, W, K) as stored; high (H, W) merged or None; low-resolution cells or None."""

    image: np.ndarray
    high: np.ndarray | None
    cells: Cells | None


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
        mean, std = band_statistics([self.root / row["image"] for row in self.rows])
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

    def low_codes(self, i):
        """Tile i's low-resolution codes over each pixel, (H, W) int64: native where the set has a low label, merged
        classes where it is derived from the high one."""
        row, size = self.rows[i], (self.description.tile_px,) * 2
        if not row["low"]:
            return upsampled(self.load(i, high=False).cells, *size).astype(np.int64)
        codes, header = geotiff.read(self.root / row["low"])
        with geotiff.open_raster(self.root / row["image"]) as image:
            own_grid = tile_grid(image.header, header, self.description.scale)
            if own_grid is None:
                return codes[..., 0].astype(np.int64)
            cells = low_cells(codes[..., 0], header, image.header, self.description)
        return upsampled(cells, *size).astype(np.int64)

    def load(self, i, high=True, low=True):
        """Tile i, its labels merged; what is not asked for, or not there, is None."""
        return self._keep((i, high, low), lambda: self._read(i, high, low))

    def _read(self, i, high, low):
        row, taxonomy = self.rows[i], self.description.taxonomy
        image, header = geotiff.read(self.root / row["image"])
        self._of_tile_size(image, header.path)
        if image.shape[2] != self.description.bands:
            raise Refused(f"{header.path}: has {image.shape[2]} bands, the tile set {self.description.bands}")
        derive = low and not row["low"]
        classes = None
        if row["high"] and (high or derive):
            classes = self.load_high(i) if high else self._read_high(i)
        cells = None
        if low and row["low"]:
            labels = 1 + max((label for label in self.by_code.values() if label != IGNORE), default=0)
            cells = low_cells(*_merged(self.root / row["low"], self.by_code), header, self.description, labels)
        elif derive and classes is not None:
            cells = majority_blocks(classes, round(self.description.scale), len(taxonomy.names))
            if self.by_class is not None:
                table = {**dict(enumerate(self.by_class)), IGNORE: IGNORE}
                cells = replace(cells, labels=merge(cells.labels, table, self.root / row["high"]))
        return Tile(image, classes if high else None, cells)

    def compositions(self, i, min_coverage=1.0, native=True):
        """What fine labels say of the cells that the tile has whole, beside their coarse labels; no image is read.

        Cells with an unlabelled pixel are left out, and those whose code the merge ignores.
        returns: shares (N, C) float64 of the classes; codes (N,) int64: native, or else the merged classes, as they
                 are where cells derive from the fine labels
        """
        row, description = self.rows[i], self.description
        high, classes = self.load_high(i), len(description.taxonomy.names)
        if row["low"]:
            found, low_header = geotiff.read(self.root / row["low"])
            merged = merge(found[..., 0], description.taxonomy.low, low_header.path)
            found = found[..., 0] if native else merged
            codes = np.unique(found[merged != IGNORE]).astype(np.int64)
            places = np.where(merged == IGNORE, IGNORE, np.searchsorted(codes, found)).astype(np.uint8)
            with geotiff.open_raster(self.root / row["image"]) as image:
                header = image.header
            cells = low_cells(places, low_header, header, description, len(codes))
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


class Exemplars:
    """High-resolution label maps from elsewhere (Sec. 4.4): of the split heldout, never with their images.

    count: K of them, nested: for one seed the first ten of a hundred are the ten; 0 is all
    shuffle_px: n, to shuffle the pixels of each n x n block: no shape is left to learn, a control; 0: as they are
    raises: Refused where the pool has no, too few or too small maps, or other classes than `description`
    """

    def __init__(self, root, description, count, seed, regions=(), exclude_regions=(), shuffle_px=0):
        self.shuffle_px = shuffle_px
        self.tiles = TileSet(root, "heldout", regions, exclude_regions, needs=("high",))
        theirs, names, size = self.tiles.description, description.taxonomy.names, description.tile_px
        if theirs.taxonomy.names != names:
            raise Refused(
                f"{root}: its exemplars have the classes {', '.join(theirs.taxonomy.names)}, "
                f"the training set {', '.join(names)}; the order counts"
            )
        if theirs.tile_px < size:
            raise Refused(f"{root}: its exemplars are {theirs.tile_px} px, smaller than the tiles of {size} px")
        if count > len(self.tiles):
            raise Refused(f"{root}: adversarial.exemplars={count}, but the pool has {len(self.tiles)} label maps")
        self.chosen = np.random.default_rng([seed, len(self.tiles)]).permutation(len(self.tiles))[: count or None]
        self.scale = description.scale

    def compositions(self, min_coverage=1.0, native=True):
        """`TileSet.compositions` of all these places, and whether the codes are native: so asked for, and no tile
        derives its cells.

        raises: Refused if the cells are of another size than those of the training set
        """
        theirs = self.tiles.description.scale
        if abs(theirs / self.scale - 1) > 0.01:
            raise Refused(
                f"{self.tiles.root}: its cells are {theirs:g} px wide, those of the training set {self.scale:g}; what "
                "a code says of its cell holds for one size"
            )
        native = native and all(self.tiles.rows[i]["low"] for i in self.chosen)
        cells = (self.tiles.compositions(int(i), min_coverage, native) for i in sorted(self.chosen))
        shares, codes = zip(*cells, strict=True)
        return np.concatenate(shares), np.concatenate(codes), native

    def draw(self, rng, height, width, dihedral_views):
        """One of the maps, (height, width) merged classes, at a random place and under a random view."""
        labels = self.tiles.load_high(int(rng.choice(self.chosen)))
        labels = dihedral(labels, int(rng.integers(8)) if dihedral_views else 0)
        top = int(rng.integers(labels.shape[0] - height + 1))
        left = int(rng.integers(labels.shape[1] - width + 1))
        labels = labels[top : top + height, left : left + width]
        return shuffled(labels, self.shuffle_px, rng) if self.shuffle_px else labels


def shuffled(labels, block_px, rng):
    """(H, W) labels with the pixels of each block shuffled, blocks at the edge too: same shares, no shapes."""
    rows, cols = np.indices(labels.shape)
    block = (rows // block_px * labels.shape[1] + cols // block_px).ravel()
    into, order = np.argsort(block, kind="stable"), np.lexsort((rng.random(block.size), block))
    mixed = np.empty_like(labels).ravel()
    mixed[into] = labels.ravel()[order]
    return mixed.reshape(labels.shape)


def low_cells(classes, low_header, image_header, description, num_labels=None):
    """Merged low-resolution classes, or other labels, (h, w) -> Cells over the tile: on the label's own grid where its
    pixels are larger than the image's, else reduced to n x n blocks by majority.

    raises: Refused where the label does not go with the image, or with the set's scale
    """
    grid = tile_grid(image_header, low_header, description.scale)
    if grid is None:
        return majority_blocks(classes, round(description.scale), num_labels or len(description.taxonomy.names))
    to_cell = compose(invert(grid), image_header.transform or PIXEL_GRID)
    return Cells(classes, to_cell, classes.shape)


def make_sample(tile, labels, min_coverage=1.0, view=0, color=(1.0, 0.0)):
    """A tile under one dihedral view, as numpy arrays; see `collate` for the names.

    labels: high, low_upsampled or low_regions: the labels to supervise or score with
    """
    height, width = tile.image.shape[:2]
    sample = {"image": dihedral(tile.image, view).transpose(2, 0, 1), "color": color}
    if labels == "high":
        sample["labels"] = dihedral(tile.high, view)
    elif labels == "low_upsampled":
        sample["labels"] = dihedral(upsampled(tile.cells, height, width), view)
    else:
        cells = tile.cells
        index, order = regions(cells.to_cell, cells.labels.shape, height, width, min_coverage, view)
        sample["region_index"] = index
        sample["labels"] = np.append(cells.labels, np.uint8(IGNORE))[order]
    return sample


@lru_cache(maxsize=16)
def regions(to_cell, shape, height, width, min_coverage=1.0, view=0):
    """The cells that supervise, those that lie in the tile with at least `min_coverage`, under one dihedral view.

    returns: M over them alone, (H, W) int32, -1 elsewhere; of each region its cell's place in the labels, -1 for none
    """
    covered = covered_cells(to_cell, shape, height, width, min_coverage)
    cells = np.where(covered, np.arange(covered.size).reshape(shape), -1)
    grid = cells[np.ix_(covered.any(axis=1), covered.any(axis=0))]
    if grid.size and (grid >= 0).all():  # whole cells form a grid: regions are in its row order, however it is turned
        cells = dihedral(grid, view)
    order = cells.ravel()
    region = np.full(covered.size + 1, -1, np.int32)
    region[order[order >= 0]] = np.flatnonzero(order >= 0)
    return region[dihedral(cell_index(to_cell, shape, height, width), view)], order


def collate(samples):
    """Samples -> a batch of tensors.

    image (B, K, H, W) as stored; color (B, 2) gain and offset; count: labels that supervise;
    labels (B, H, W); or (B, R), padded with ignored regions, and region_index (B, H, W), -1 for none;
    exemplars (B, steps, H, W), where there is an adversary; coarse, where it is asked for
    """
    batch = {"image": torch.stack([to_tensor(s["image"]) for s in samples])}
    batch["color"] = torch.tensor([s["color"] for s in samples], dtype=torch.get_default_dtype())
    if "region_index" in samples[0]:
        num_regions = max(s["labels"].size for s in samples)
        labels = [np.pad(s["labels"], (0, num_regions - s["labels"].size), constant_values=IGNORE) for s in samples]
        batch["labels"] = torch.stack([to_tensor(row) for row in labels])
        batch["region_index"] = torch.stack([to_tensor(s["region_index"]) for s in samples])
    else:
        batch["labels"] = torch.stack([to_tensor(s["labels"]) for s in samples])
    if "exemplars" in samples[0]:
        batch["exemplars"] = torch.stack([to_tensor(s["exemplars"]) for s in samples])
    if "cells" in samples[0]:
        batch["coarse"] = stack_cells([s["cells"] for s in samples])
    batch["count"] = int((batch["labels"] != IGNORE).sum())
    return batch


def stack_cells(cells):
    """[(labels (h, w), to_cell)] of B windows -> {"labels": (B, h, w), IGNORE beyond the smaller, "to_cell": list}."""
    size = [max(labels.shape[axis] for labels, _ in cells) for axis in (0, 1)]
    stacked = torch.full((len(cells), *size), IGNORE, dtype=torch.uint8)
    for to, (labels, _) in zip(stacked, cells, strict=True):
        to[: labels.shape[0], : labels.shape[1]] = to_tensor(labels)
    return {"labels": stacked, "to_cell": [tuple(map(float, to_cell)) for _, to_cell in cells]}


class TrainingTiles(Dataset):
    """Samples by (step, position in the global batch): an endless stream of permutations of the tiles.

    exemplars: Exemplars to draw `exemplar_steps` label maps from for each sample, or None
    """

    def __init__(
        self, tiles, labels, min_coverage, *, batch_size, seed, dihedral, gain, offset, exemplars=None, exemplar_steps=1
    ):
        self.tiles, self.labels, self.min_coverage = tiles, labels, min_coverage
        self.batch_size, self.seed = batch_size, seed
        self.dihedral, self.gain, self.offset = dihedral, gain, offset
        self.exemplars, self.exemplar_steps = exemplars, exemplar_steps

    collate = staticmethod(collate)

    def __getitem__(self, key):
        step, position = key
        rng = draw(self.seed, step, position)
        view = int(rng.integers(8)) if self.dihedral else 0
        color = color_draw(rng, self.gain, self.offset)
        high = self.labels == "high"
        i = sample_index(self.seed, step, position, self.batch_size, len(self.tiles))
        sample = make_sample(self.tiles.load(i, high, not high), self.labels, self.min_coverage, view, color)
        if self.exemplars is not None:
            rng, size = draw(self.seed, step, position, 1), sample["image"].shape[1:]
            maps = [self.exemplars.draw(rng, *size, self.dihedral) for _ in range(self.exemplar_steps)]
            sample["exemplars"] = np.stack(maps)
        return sample


class ScoringTiles(Dataset):
    """Samples by index, unchanged; where there are `exemplars`, each beside one label map of them, always the same.

    coarse: give all cells over the tile beside the labels to score with, as `stack_cells` has them
    """

    def __init__(self, tiles, labels, min_coverage, exemplars=None, coarse=False):
        self.tiles, self.labels, self.min_coverage = tiles, labels, min_coverage
        self.exemplars, self.coarse = exemplars, coarse

    def __len__(self):
        return len(self.tiles)

    collate = staticmethod(collate)

    def __getitem__(self, i):
        high = self.labels == "high"
        tile = self.tiles.load(i, high, not high or self.coarse)
        sample = make_sample(tile, self.labels, self.min_coverage)
        if self.coarse:
            sample["cells"] = tile.cells.labels, tile.cells.to_cell
        if self.exemplars is not None:
            sample["exemplars"] = self.exemplars.draw(draw(0, 0, i), *sample["image"].shape[1:], False)[None]
        return sample


def _merged(path, table):
    codes, header = geotiff.read(path)
    return merge(codes[..., 0], table, path), header


def _size(array):
    return f"{array.shape[0]} x {array.shape[1]}"
