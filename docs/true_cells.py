"""What true cells are worth: landscapes under a coarse raster that is tilted, as NLCD's Albers is over UTM.

    python docs/true_cells.py OUT [--tiles 1600] [--seed 7]

Writes two tile sets of the same tiles, splits and coarse codes. In OUT/true each tile keeps the tilted cells. In
OUT/blocks the codes were brought to the image's pixels by nearest neighbours, as gdalwarp does, and cells are n x n
blocks of them: each pixel keeps its code, and which cell it belongs to is lost. A cell's code is the majority of the
fine pixels in it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data.cells import cell_index, compose, invert  # noqa: E402
from data.synthetic.landscape import REGIONS, landscape  # noqa: E402
from data.taxonomy import load_taxonomy, merge  # noqa: E402
from data.tile_writer import write_tile, write_tile_set  # noqa: E402
from runtime.labels import IGNORE  # noqa: E402

TAXONOMY = Path(__file__).resolve().parent.parent / "configs" / "taxonomies" / "low2high.yaml"
PX, N, TILT_DEGREES = 128, 16, 12.7  # tile, cell, and the tilt of NLCD in real/chesapeake_2m
MARGIN = 32  # of landscape around a tile, so that cells at its edge are counted whole
CODES = np.array([11, 41, 81, 22], np.uint8)  # of NLCD: one for each merged class


def tile(rng, region, corner, taxonomy):
    """-> image, fine codes, tilted cells (codes, affine from the tile's pixels), codes by nearest neighbours."""
    side = PX + 2 * MARGIN
    image, high = landscape(rng, side, 4, region)
    turn, (x0, y0) = np.radians(TILT_DEGREES), corner
    c, s = np.cos(turn) / N, np.sin(turn) / N
    to_cell = (c, s, c * x0 + s * y0, -s, c, -s * x0 + c * y0)  # of one lattice over the whole region
    corners = np.array([(0, 0, 1), (side, 0, 1), (0, side, 1), (side, side, 1)]) @ np.array(to_cell).reshape(2, 3).T
    first = np.floor(corners.min(axis=0)).astype(int)
    w, h = np.ceil(corners.max(axis=0)).astype(int) - first
    to_cell = compose((1, 0, -first[0], 0, 1, -first[1]), to_cell)
    index, classes = cell_index(to_cell, (h, w), side, side), merge(high, taxonomy.high, "landscape")
    seen = classes != IGNORE
    counts = np.bincount(index[seen] * 4 + classes[seen], minlength=h * w * 4).reshape(h * w, 4)
    codes = CODES[counts.argmax(axis=1)]
    inner = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    to_cell = compose(to_cell, (1, 0, MARGIN, 0, 1, MARGIN))
    return image[inner], high[inner], (codes.reshape(h, w), to_cell), codes[index[inner]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiles", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    taxonomy, records = load_taxonomy(TAXONOMY), {"true": [], "blocks": []}
    for i in range(given.tiles):
        rng, name = np.random.default_rng([given.seed, i]), list(REGIONS)[i % len(REGIONS)]
        row, col = divmod(i // len(REGIONS), 32)
        image, high, (cells, to_cell), nearest = tile(rng, REGIONS[name], (col * PX, row * PX), taxonomy)
        place = (1.0, 0.0, 300000.0 + 40000 * (i % len(REGIONS)) + col * PX, 0.0, -1.0, 4300000.0 - row * PX)
        about = {"taxonomy": taxonomy, "region": name, "transform": place}
        tilted = compose(place, invert(to_cell))
        name = f"{name}_{i:05d}"
        records["true"].append(write_tile(given.out / "true", name, image, high, cells, low_transform=tilted, **about))
        records["blocks"].append(write_tile(given.out / "blocks", name, image, high, nearest, **about))
    for kind, made in records.items():
        facts = {"image_gsd": 1.0, "scale": N, "tile_px": PX, "seed": given.seed}
        write_tile_set(given.out / kind, name=f"landscapes, {kind}", taxonomy=taxonomy, records=made, **facts)


if __name__ == "__main__":
    main()
