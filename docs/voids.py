"""Whether pixels without data cost anything: landscapes with voids in every seventh tile, by two nodata values.

    python docs/voids.py OUT [--tiles 400]

Writes three tile sets: OUT/whole, OUT/void0 (uint8, nodata 0) and OUT/void65535 (uint16, nodata 65535). In every
seventh tile a half, a corner or a stripe has no data, and the fine label does not know. The two go through
`data.prepare --tiled`, which writes those labels as ignored.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data import tile_io  # noqa: E402
from data.manifest import read_manifest  # noqa: E402
from data.prepare.__main__ import main as prepare  # noqa: E402
from data.synthetic.tile_set import TAXONOMY, make_tile_set  # noqa: E402

KINDS = {"void0": (np.uint8, 1, 0), "void65535": (np.uint16, 257, 65535)}  # type, factor, nodata


def void_of(index, px):
    """(px, px) bool: a half, a corner or a stripe."""
    void = np.zeros((px, px), bool)
    place = (np.s_[:, : px // 2], np.s_[: px // 2, px // 2 :], np.s_[px // 3 : px // 2])[index % 3]
    void[place] = True
    return void


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiles", type=int, default=400)
    given = parser.parse_args()
    make_tile_set(given.out / "whole", tiles=given.tiles, bands=4)
    rows = read_manifest(given.out / "whole")[1]
    for kind, (dtype, factor, nodata) in KINDS.items():
        raw = given.out / f"{kind}_raw"
        for i, row in enumerate(rows):
            for part in ("image", "high", "low"):
                stored = tile_io.read(given.out / "whole" / row[part])
                pixels, value = stored.pixels, None
                if part == "image":
                    # No pixel with data is nodata: 0 becomes 1, as the largest becomes the last but one.
                    pixels, value = np.clip(pixels.astype(np.int64) * factor, 1, 65534).astype(dtype), nodata
                    if i % 7 == 0:
                        pixels[void_of(i // 7, len(pixels))] = nodata
                place = {"affine": stored.affine, "system": stored.system, "nodata": value}
                tile_io.write(raw / row[part], pixels, **place)
        with open(raw / "list.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        words = ["--tiled", raw / "list.csv", "--taxonomy", TAXONOMY, "--bands", 4]
        prepare([str(word) for word in (given.out / kind, *words)])


if __name__ == "__main__":
    main()
