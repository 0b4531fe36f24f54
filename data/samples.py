"""Tiles to samples and batches: what training and validation read, and the exemplars that the adversary sees."""

from functools import lru_cache

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from data.cells import cell_index, covered_cells, region_labels, upsampled
from data.laying import same_gsd
from data.loading import sample_index, to_tensor
from data.tiles import TileSet
from data.transforms import color_draw, dihedral, draw
from runtime.command import warn
from runtime.errors import Refused, require
from runtime.labels import IGNORE


class Exemplars:
    """High-resolution label maps from elsewhere (Sec. 4.4): of the split heldout, never with their images.

    count: K of them; 0 is all. Choices are nested: with one seed, K = 10 takes the first ten of K = 100
    shuffle_px: n shuffles the pixels of each n x n block, a control without shapes to learn; 0 leaves them alone
    raises: Refused where the pool has no, too few or too small maps, or other classes than `description`
    """

    def __init__(self, root, description, count, seed, regions=(), exclude_regions=(), shuffle_px=0):
        self.shuffle_px = shuffle_px
        try:
            self.tiles = TileSet(root, "heldout", regions, exclude_regions, needs=("high",))
        except Refused as error:
            mend = "exemplars are the label maps of this split; adversarial.exemplar_root can name another tile set"
            raise Refused(f"{error}; {mend}") from None
        theirs, names, size = self.tiles.description, description.taxonomy.names, description.tile_px
        both = ", the training set ".join(", ".join(classes) for classes in (theirs.taxonomy.names, names))
        require(theirs.taxonomy.names == names, f"{root}: its exemplars have the classes {both}; the order counts")
        small = f"{root}: its exemplars are {theirs.tile_px} px, smaller than the tiles of {size} px"
        require(theirs.tile_px >= size, small)
        metres = theirs.image_gsd, description.image_gsd
        if not same_gsd(*metres):
            warn("{}: exemplars have pixels of {:g} m, the training images of {:g} m".format(root, *metres))
        if count > len(self.tiles):
            raise Refused(f"{root}: adversarial.exemplars={count}, but the pool has {len(self.tiles)} label maps")
        self.chosen = np.random.default_rng([seed, len(self.tiles)]).permutation(len(self.tiles))[: count or None]

    def facts(self):
        """What a run must find again when it goes on."""
        return {"exemplars": [len(self.tiles), *self.tiles.description.band_mean]}

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


def make_sample(tile, labels, min_coverage=1.0, view=0):
    """A tile under one dihedral view, as numpy arrays; see `collate` for the names.

    labels: high, low_upsampled or low_regions: the labels to supervise or score with
    """
    height, width = tile.image.shape[:2]
    sample = {"image": dihedral(tile.image, view).transpose(2, 0, 1)}
    if labels == "high":
        sample["labels"] = dihedral(tile.high, view)
    elif labels == "low_upsampled":
        labels = upsampled(tile.cells, height, width)
        sample["labels"] = dihedral(labels if tile.void is None else np.where(tile.void, IGNORE, labels), view)
    else:
        cells = tile.cells
        index, order = supervising_regions(cells.to_cell, cells.labels.shape, height, width, min_coverage, view)
        labels = cells.labels.ravel()
        if tile.void is not None:
            index = np.where(dihedral(tile.void, view), np.int32(-1), index)
            labels = region_labels(cells, height, width, min_coverage, tile.void)
        sample["region_index"], sample["labels"] = index, np.append(labels, np.uint8(IGNORE))[order]
    return sample


@lru_cache(maxsize=16)
def supervising_regions(to_cell, shape, height, width, min_coverage=1.0, view=0):
    """The cells that supervise (`covered_cells`), under one dihedral view.

    At n = 2 a tile of 4 x 4 px has M = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]], under each view the
    same: the image turns, regions are counted anew from its top-left corner, and the order says which label is whose.
    returns: the paper's M, over them alone, (H, W) int32, -1 elsewhere; of each region its cell's place in the labels,
             -1 for none
    """
    covered = covered_cells(to_cell, shape, height, width, min_coverage)
    cells = np.where(covered, np.arange(covered.size).reshape(shape), -1)
    grid = cells[np.ix_(covered.any(axis=1), covered.any(axis=0))]
    if grid.size and (grid >= 0).all():  # whole cells form a grid: regions are in its row order, however it is turned
        cells = dihedral(grid, view)
    order = cells.ravel()
    region = np.full(covered.size + 1, -1, np.int32)
    region[order[order >= 0]] = np.flatnonzero(order >= 0)  # the last entry stays -1, for index -1: pixels of no cell
    return region[dihedral(cell_index(to_cell, shape, height, width), view)], order


def collate(samples):
    """Samples -> a batch of tensors.

    image (B, K, H, W) as stored; color (B, 2), gain and offset, in training; count: labels that supervise
    labels (B, H, W), of pixels: supervision.labels=high or low_upsampled
    labels (B, R), padded with ignored regions, and region_index (B, H, W), -1 for none: supervision.labels=low_regions
    exemplars (B, 1, H, W), where there is an adversary; coarse, and void (B, H, W), where they are asked for
    """
    arrays = samples[0].keys() & {"image", "region_index", "exemplars", "void"}
    batch = {name: torch.stack([to_tensor(s[name]) for s in samples]) for name in sorted(arrays)}
    labels = [to_tensor(s["labels"]) for s in samples]
    batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=IGNORE)  # tiles differ in their regions
    if "color" in samples[0]:
        batch["color"] = torch.tensor([s["color"] for s in samples], dtype=torch.get_default_dtype())
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

    exemplars: Exemplars to draw a label map from for each sample, or None
    """

    def __init__(self, tiles, labels, min_coverage, *, batch_size, seed, dihedral, gain, offset, exemplars=None):
        self.tiles, self.labels, self.min_coverage = tiles, labels, min_coverage
        self.batch_size, self.seed = batch_size, seed
        self.dihedral, self.gain, self.offset = dihedral, gain, offset
        self.exemplars = exemplars

    collate = staticmethod(collate)

    def __getitem__(self, key):
        step, position = key
        rng = draw(self.seed, step, position)
        view = int(rng.integers(8)) if self.dihedral else 0
        high = self.labels == "high"
        i = sample_index(self.seed, step, position, self.batch_size, len(self.tiles))
        sample = make_sample(self.tiles.load(i, high, not high), self.labels, self.min_coverage, view)
        sample["color"] = color_draw(rng, self.gain, self.offset)
        if self.exemplars is not None:
            rng, size = draw(self.seed, step, position, 1), sample["image"].shape[1:]
            sample["exemplars"] = self.exemplars.draw(rng, *size, self.dihedral)[None]
        return sample


class ScoringTiles(Dataset):
    """Samples by index, unchanged; where there are `exemplars`, each beside one label map of them, always the same.

    coarse: give all cells over the tile beside the labels to score with, as `stack_cells` has them
    """

    def __init__(self, tiles, labels, min_coverage=1.0, exemplars=None, coarse=False):
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
            sample["void"] = np.zeros(tile.image.shape[:2], bool) if tile.void is None else tile.void
        if self.exemplars is not None:
            sample["exemplars"] = self.exemplars.draw(draw(0, 0, i), *sample["image"].shape[1:], False)[None]
        return sample
