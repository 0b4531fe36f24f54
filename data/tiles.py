"""A tile set on disk -> tensors.

Every random choice is a function of the run's seed, the step and the sample's position in the global batch. So workers
may prefetch, a run may stop and go on, and one process sees the same batches as many.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data import geotiff
from data.cells import (
    Blocks,
    Cells,
    as_blocks,
    blocks_index,
    compose,
    invert,
    majority_blocks,
    region_index,
    region_labels,
    upsampled,
)
from data.taxonomy import IGNORE, TaxonomyError, merge
from data.manifest import TileSetError, read_manifest
from data.transforms import color_draw, dihedral, dihedral_corner, draw

EXPECTED_ERRORS = (geotiff.GeoTiffError, TaxonomyError, TileSetError)


@dataclass(frozen=True)
class Tile:
    """One tile as loaded: image (H, W, K) as stored; high (H, W) merged or None; low-resolution cells or None."""

    image: np.ndarray
    high: np.ndarray | None
    cells: Cells | None


class TileSet:
    """The tiles of one split, of some regions or all but some.

    needs:  the labels that every tile must have: "high", "low" (a file, or high to derive it from), or both
    raises: TileSetError for a split or a region that the set does not have, or a tile without a needed label
    """

    def __init__(self, root, split, regions=(), exclude_regions=(), needs=()):
        self.root = Path(root)
        self.description, rows = read_manifest(root)
        known = sorted({row["region"] for row in rows})
        for region in (*regions, *exclude_regions):
            if region not in known:
                raise TileSetError(f"{root}: has no region {region}; it has {', '.join(known)}")
        self.rows = [
            row
            for row in rows
            if row["split"] == split
            and (not regions or row["region"] in regions)
            and row["region"] not in exclude_regions
        ]
        if not self.rows:
            splits = ", ".join(sorted({row["split"] for row in rows}))
            where = f" in regions {', '.join(regions)}" if regions else ""
            raise TileSetError(f"{root}: has no tiles of the split {split}{where}; it has tiles of {splits}")

        for row in self.rows:
            missing = [kind for kind in needs if not row[kind] and not (kind == "low" and row["high"])]
            if missing:
                raise TileSetError(f"{root}: tile {row['tile']} of the split {split} has no {missing[0]} label")

    def __len__(self):
        return len(self.rows)

    def load(self, i, high=True, low=True):
        """Tile i, its labels merged; what is not asked for, or not there, is None."""
        row, taxonomy = self.rows[i], self.description.taxonomy
        image, header = geotiff.read(self.root / row["image"])
        if image.shape[2] != self.description.bands:
            raise TileSetError(f"{header.path}: has {image.shape[2]} bands, the tile set {self.description.bands}")
        derive = low and not row["low"]
        classes = None
        if row["high"] and (high or derive):
            classes = _merged(self.root / row["high"], taxonomy.high)[0]
            if classes.shape != image.shape[:2]:
                raise TileSetError(f"{self.root / row['high']}: is {_size(classes)} px, its image {_size(image)}")
        cells = None
        if low and row["low"]:
            cells = low_cells(*_merged(self.root / row["low"], taxonomy.low), image, header, self.description)
        elif derive and classes is not None:
            cells = majority_blocks(classes, round(self.description.scale), len(taxonomy.names))
        return Tile(image, classes if high else None, cells)


def low_cells(classes, low_header, image, header, description):
    """Merged low-resolution classes (h, w) over an image (H, W, K) -> Cells: on the label's own grid where its pixels
    are larger than the image's, else reduced to n x n blocks by majority."""
    size, n = image.shape[:2], round(description.scale)
    georeferenced = low_header.transform is not None and header.transform is not None
    if classes.shape == size:
        same = not georeferenced or np.allclose(
            compose(invert(header.transform), low_header.transform), (1, 0, 0, 0, 1, 0), atol=0.05
        )
        if same:
            return majority_blocks(classes, n, len(description.taxonomy.names))
    if georeferenced:
        return Cells(classes, compose(invert(low_header.transform), header.transform), classes.shape)
    # Without georeference a grid of n x n blocks starts at the tile's top-left corner.
    ceil, floor = tuple(-(-s // n) for s in size), tuple(s // n for s in size)
    if classes.shape not in (ceil, floor):
        raise TileSetError(
            f"{low_header.path}: is {_size(classes)} px without georeference; for an image of {_size(image)} px at "
            f"scale {n} it should be {ceil[0]} x {ceil[1]}, or the image's size"
        )
    return Cells(classes, (1 / n, 0.0, 0.0, 0.0, 1 / n, 0.0), classes.shape)


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
        blocks = as_blocks(cells, height, width)
        if blocks is not None and (min_coverage == 1 or blocks.labels.size == cells.labels.size):
            bottom = height - blocks.top - blocks.labels.shape[0] * blocks.n
            right = width - blocks.left - blocks.labels.shape[1] * blocks.n
            corner = dihedral_corner(blocks.top, blocks.left, bottom, right, view)
            sample["blocks"] = Blocks(blocks.n, *corner, dihedral(blocks.labels, view))
        else:
            sample["region_index"] = dihedral(region_index(cells, height, width), view)
            sample["labels"] = region_labels(cells, height, width, min_coverage)
    return sample


def collate(samples):
    """Samples -> a batch of tensors.

    image (B, K, H, W) as stored; color (B, 2) gain and offset; count: labels that supervise;
    labels (B, H, W), or (B, R) with regions as `models.regions.aggregate` reads them; R is padded with ignored regions
    """
    for sample in samples:
        if isinstance(sample, Exception):  # from a worker: raised in the main process, without the worker's traceback
            return sample
    batch = {"image": torch.stack([_tensor(s["image"]) for s in samples])}
    batch["color"] = torch.tensor([s["color"] for s in samples], dtype=torch.get_default_dtype())
    layouts = {(s["blocks"].n, s["blocks"].labels.shape) if "blocks" in s else None for s in samples}
    if "labels" in samples[0] and "region_index" not in samples[0]:
        batch["labels"] = torch.stack([_tensor(s["labels"]) for s in samples])
    elif len(layouts) == 1 and None not in layouts:
        ((n, grid),) = layouts
        corners = [(s["blocks"].top, s["blocks"].left) for s in samples]
        batch["regions"] = {"block_px": n, "corners": corners, "grid": grid}
        batch["labels"] = torch.stack([_tensor(s["blocks"].labels.ravel()) for s in samples])
    else:
        height, width = samples[0]["image"].shape[-2:]
        for s in samples:
            if "blocks" in s:
                s["region_index"], s["labels"] = blocks_index(s["blocks"], height, width), s["blocks"].labels.ravel()
        num_regions = max(s["labels"].size for s in samples)
        batch["labels"] = torch.full((len(samples), num_regions), IGNORE, dtype=torch.uint8)
        for row, s in zip(batch["labels"], samples, strict=True):
            row[: s["labels"].size] = _tensor(s["labels"])
        index = torch.stack([_tensor(s["region_index"]) for s in samples])
        batch["regions"] = {"region_index": index, "num_regions": num_regions}
    batch["count"] = int((batch["labels"] != IGNORE).sum())
    return batch


class TrainingTiles(Dataset):
    """Samples by (step, position in the global batch): an endless stream of permutations of the tiles."""

    def __init__(self, tiles, labels, min_coverage, *, batch_size, seed, dihedral, gain, offset):
        self.tiles, self.labels, self.min_coverage = tiles, labels, min_coverage
        self.batch_size, self.seed = batch_size, seed
        self.dihedral, self.gain, self.offset = dihedral, gain, offset

    def __getitem__(self, key):
        step, position = key
        lap, place = divmod(step * self.batch_size + position, len(self.tiles))
        rng = draw(self.seed, step, position)
        view = int(rng.integers(8)) if self.dihedral else 0
        color = color_draw(rng, self.gain, self.offset)
        try:
            tile = self.tiles.load(
                int(_permutation(self.seed, lap, len(self.tiles))[place]),
                high=self.labels == "high",
                low=self.labels != "high",
            )
            return make_sample(tile, self.labels, self.min_coverage, view, color)
        except EXPECTED_ERRORS as error:
            return error


class ScoringTiles(Dataset):
    """Samples by index, unchanged."""

    def __init__(self, tiles, labels, min_coverage):
        self.tiles, self.labels, self.min_coverage = tiles, labels, min_coverage

    def __len__(self):
        return len(self.tiles)

    def __getitem__(self, i):
        try:
            tile = self.tiles.load(i, high=self.labels == "high", low=self.labels != "high")
            return make_sample(tile, self.labels, self.min_coverage)
        except EXPECTED_ERRORS as error:
            return error


def training_batches(samples, first_step, steps, per_rank, micro_batch, rank, workers, pin_memory=False):
    """Micro-batches of one rank, from `first_step` on, in the order in which the steps take them.

    samples: TrainingTiles; per_rank: tiles of one step on this rank; micro_batch: tiles of one forward pass
    """
    keys = [
        [(step, rank * per_rank + start + i) for i in range(micro_batch)]
        for step in range(first_step, steps)
        for start in range(0, per_rank, micro_batch)
    ]
    return _batches(samples, keys, workers, pin_memory)


def scoring_batches(samples, batch_size, rank, world, workers, pin_memory=False):
    """Batches over this rank's share of the tiles; the shares do not overlap and together are the whole split."""
    share = list(range(rank, len(samples), world))
    keys = [share[i : i + batch_size] for i in range(0, len(share), batch_size)]
    return _batches(samples, keys, workers, pin_memory)


def to_device(batch, device):
    """The batch with its tensors on `device`; small integers travel, the network's input is made there."""
    moved = {}
    for key, value in batch.items():
        if isinstance(value, torch.Tensor):
            value = value.to(device, non_blocking=True)
        moved[key] = to_device(value, device) if isinstance(value, dict) else value
    return moved


def _batches(samples, keys, workers, pin_memory):
    loader = DataLoader(
        samples, batch_sampler=keys, collate_fn=collate, num_workers=min(workers, len(keys)), pin_memory=pin_memory
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch


@lru_cache(maxsize=2)
def _permutation(seed, lap, length):
    return np.random.default_rng([seed, lap]).permutation(length)


def _merged(path, table):
    codes, header = geotiff.read(path)
    return merge(codes[..., 0], table, path), header


def _tensor(array):
    if array.dtype == np.uint16:  # torch computes little with uint16
        array = array.astype(np.int32)
    return torch.from_numpy(np.ascontiguousarray(array))


def _size(array):
    return f"{array.shape[0]} x {array.shape[1]}"
