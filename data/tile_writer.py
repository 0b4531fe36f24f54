"""The writer of tile sets: every builder (data/prepare/tile_set.py, data/synthetic/tile_set.py) ends here.

`write_tile` writes one tile and returns its record; `write_tile_set` turns all records into a tile set. dataset.yaml is
written last: a folder that has one is a whole tile set.
"""

import csv
import hashlib
import io
from collections import Counter
from itertools import accumulate
from pathlib import Path

import numpy as np
import yaml

from data import tile_io
from data.band_statistics import mean_and_std, sum_bands
from data.cells import PIXEL_GRID, compose, invert, pixels_of_cells
from data.ground import first_of_ground, ground, shared_ground
from data.manifest import COLUMNS, SPLITS
from data.taxonomy import merge, taxonomy_to_dict
from runtime.errors import Refused, require
from runtime.files import write_text

SPLIT_PERCENT = dict(zip(SPLITS, (75, 10, 10, 5), strict=True))  # [paper, Sec. 3.1]
NEEDED_FOR = {
    "validation": "which training needs to select its best checkpoint",
    "heldout": "which an adversary learns from; adversarial.exemplar_root=TILES can name another set",
    "test": "which evaluate.py scores unless you give --split",
}
FLAT = 20.0  # of 65,535: below this deviation in all bands, a range was meant for other values
GAPS = {"void": "the image has no data there", "unlabelled": "a label does not reach there"}


def write_tile(
    root, name, image, high=None, low=None, *, taxonomy, region, split="", transform=None, low_transform=None,
    system=(), nodata=None, void=None, unlabelled=None, place=None, compression="zlib", counts=None,
):  # fmt: skip
    """Write images/NAME.tif, high/NAME.tif and low/NAME.tif below root, each atomically, and return their record.

    image:     (H, W, K) uint8 or uint16; high: (H, W) and low: (h, w) native codes, or None
    split:     a fixed split, or "" to have one drawn
    transform: affine of the image's pixels, or None; low_transform: of low in the same coordinates, or those of
               PIXEL_GRID, None where low has the image's pixels; system: as tile_io.Stored.system has it
    void:      (H, W) bool, where the image has no data; unlabelled: where a label source does not reach; or None
    place:     its ground, where that is known by longitude and latitude (data/ground.py)
    counts:    what count_labels returned, where it was asked already
    """
    root, size, paths = Path(root), image.shape[:2], {}
    transform = PIXEL_GRID if transform is None and low_transform is not None else transform
    for kind, array in (("image", image), ("high", high), ("low", low)):
        paths[kind] = "" if array is None else f"{'images' if kind == 'image' else kind}/{name}.tif"
        if array is not None:
            affine = low_transform or transform if kind == "low" else transform
            more = {"nodata": nodata if kind == "image" else None, "compression": compression}
            tile_io.write(root / paths[kind], array, affine=affine, system=system, **more)
    counts = counts or count_labels(high, low, taxonomy, size, transform, low_transform, root / name)
    place = place or ground(transform, size, system)
    return tile_record(name, region, split, paths, image, void, unlabelled, place, counts)


def tile_record(name, region, split, paths, image, void, unlabelled, place, counts):
    """What write_tile_set asks for, in plain values: the manifest's row, exact sums for the band statistics, the pixels
    of each class, and how many pixels are ignored, for lack of imagery, else of a label."""
    nowhere = np.zeros(image.shape[:2], bool)
    empty, beyond = (nowhere if where is None else where for where in (void, unlabelled))
    facts = {"tile": name, "region": region, "split": split, **paths, "dtype": str(image.dtype), "ground": place}
    pixels = {"area": nowhere.size, "void": int(empty.sum()), "unlabelled": int((beyond & ~empty).sum())}
    return {**facts, **counts, **sum_bands(image, void), **pixels}


def count_labels(high, low, taxonomy, size, transform, low_transform, where):
    """Image pixels under each merged class: {high_pixels, low_pixels}, None for a label that is not there.

    size: (H, W) of the image; the rest as in write_tile; `where` opens the error that lists unknown codes
    """
    counts = {"high_pixels": None, "low_pixels": None}
    for kind, codes in (("high", high), ("low", low)):
        if codes is not None:
            classes, weights = merge(codes, getattr(taxonomy, kind), where), None
            if kind == "low" and low_transform is not None:
                to_cell = compose(invert(low_transform), transform or PIXEL_GRID)
                weights = pixels_of_cells(to_cell, codes.shape, *size).ravel()
            pixels = np.bincount(classes.ravel(), weights, 256)[: len(taxonomy.names)]
            counts[f"{kind}_pixels"] = pixels.astype(np.int64).tolist()
    return counts


def draw_splits(tiles, region, seed):
    """{tile: split} of one region's tiles by largest remainder; a function of seed, region and the names alone.

    tiles: names; a name that occurs k times stands for a group of k tiles, which stay together
    Tiles are ordered by a hash, which no version of a random generator can change. Large groups come first, so they
    train: otherwise one group could fill a small split. A group goes to the split that holds its middle.
    """
    together = Counter(tiles)
    hashes = {tile: hashlib.sha256(f"{seed}/{region}/{tile}".encode()).digest() for tile in together}
    order = sorted(together, key=lambda tile: (-together[tile], hashes[tile]))
    sizes = {split: len(tiles) * percent // 100 for split, percent in SPLIT_PERCENT.items()}
    by_remainder = sorted(SPLITS, key=lambda split: -(len(tiles) * SPLIT_PERCENT[split] % 100))
    for split in by_remainder[: len(tiles) - sum(sizes.values())]:  # the sort is stable: ties go to the first
        sizes[split] += 1
    drawn = [split for split, size in sizes.items() for _ in range(size)]
    begins = accumulate((together[tile] for tile in order), initial=0)
    return {tile: drawn[begin + together[tile] // 2] for tile, begin in zip(order, begins, strict=False)}


def with_splits(records, seed):
    """The records, those without a split with the one that is drawn.

    Ground that tiles share falls into one split: that of the list, where it names one, else the one that is drawn.
    """
    leader, undrawn = first_of_ground(records), {}
    split_of = {leader[record["tile"]][0]: record["split"] for record in records if record["split"]}
    for tile, region in leader.values():
        if tile not in split_of:
            undrawn.setdefault(region, []).append(tile)
    for region, tiles in undrawn.items():
        split_of.update(draw_splits(tiles, region, seed))
    return [{**record, "split": record["split"] or split_of[leader[record["tile"]][0]]} for record in records]


def write_tile_set(root, *, name, taxonomy, records, image_gsd, scale, tile_px, seed, value_range=None, dropped=None):
    """Turn tiles that are written into a tile set: draw splits, count statistics, write tiles.csv, then dataset.yaml.

    records:   what write_tile returned, in any order
    image_gsd: metres on the ground along a pixel, or None where no image says it
    dropped:   {rule: tiles}, to be said
    """
    root, records = Path(root), sorted(records, key=lambda record: record["tile"])
    rules = ", ".join(f"{rule} {count}" for rule, count in (dropped or {}).items())
    if not records:
        mend = "--no-filter keeps tiles with few classes or a dominant one; scenes smaller than --tile-px give no tiles"
        raise Refused(f"{root}: no tile was kept (dropped: {rules or 'none'}); {mend}")
    first, *others = records
    for record in others:
        here, wanted = (f"{len(each['sums'])} bands of {each['dtype']}" for each in (record, first))
        require(here == wanted, f"{root / record['image']}: has {here}, {first['image']} {wanted}")
    records = with_splits(records, seed)
    train = [record for record in records if record["split"] == "train"]
    if not train:
        print(f"note: {root} has no training tile; its band statistics are counted over all tiles")
    mean, std = mean_and_std(train or records, root)
    if value_range and max(std) < FLAT:
        print("note: values hardly vary within --range; is it of values after the files' scale and offset tags?")
    description = {
        "name": name,
        "image_gsd": image_gsd,
        "label_gsd": image_gsd and round(image_gsd * scale, 6),
        "scale": scale,
        "tile_px": tile_px,
        "bands": len(mean),
        "dtype": first["dtype"],
        "band_mean": mean,
        "band_std": std,
        **({"range": list(value_range)} if value_range else {}),
        **taxonomy_to_dict(taxonomy),
    }
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_text(root / "tiles.csv", table.getvalue())
    write_text(root / "dataset.yaml", yaml.safe_dump(description, sort_keys=False, default_flow_style=None, width=110))
    print(f"{root}: {len(records)} tiles" + (f"; dropped: {rules}" if rules else ""))
    print_shares(root, records, taxonomy.names)
    if any(record["high_pixels"] or record["low_pixels"] for record in records):
        metres = f"{image_gsd * scale:.4g} m on pixels of {image_gsd:.4g} m" if image_gsd else f"{scale:g} pixels"
        print(f"n = {scale:g}: coarse cells of {metres}")
    area = sum(record["area"] for record in records)
    for key, gap in GAPS.items():
        if count := sum(record[key] for record in records):
            print(f"{count:,} pixels ({count / area:.2%}) are ignored: {gap}")
    for line in shared_ground(records):
        print(line)


def print_shares(root, records, names):
    """The share of each class among the labelled pixels of each split; then which splits lack what they are for."""
    print(f"{'split':<12}{'tiles':>7}  {'label':<6}" + "".join(f"{name:>12}" for name in names))
    notes = []
    for split in SPLITS:
        own, lines, labels = [record for record in records if record["split"] == split], [], []
        for kind in ("high", "low"):
            counts = [record[f"{kind}_pixels"] for record in own if record[f"{kind}_pixels"]]
            totals = np.sum(counts, axis=0)
            if np.any(totals):
                labels.append(kind)
                lines.append(f"{kind:<6}" + "".join(f"{100 * share:>10.2f} %" for share in totals / totals.sum()))
            elif counts:
                lines.append(f"{kind:<6}  every pixel is ignored")
        for line in lines or ["no label"] * bool(own):
            print(f"{split:<12}{len(own):>7}  {line}")
        if split in NEEDED_FOR and (not own or (split == "heldout" and "high" not in labels)):
            lacking = "fine labels" if own else "tiles"
            notes.append(f"note: {root} has no {lacking} of the split {split}, {NEEDED_FOR[split]}")
    for note in notes:
        print(note)
