"""Coarse codes in NLCD's manner (data/coarse.py) held against real ones: what lies under them, and how far they run.

    python docs/real_shares.py REAL_DIR TILES...

REAL_DIR/nlcd holds fine_share_given_nlcd.csv, the mean shares of the fine classes under each NLCD code in four whole
cities and in the Chesapeake area, there with the deviation from cell to cell, and nlcd_nw_connecticut.tif, NLCD as it
is distributed. TILES are tile sets with a coarse label of their own.
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from beyond.observed import exemplar_cells  # noqa: E402
from data import tile_io  # noqa: E402
from data.prepare.cutting import broken_rule  # noqa: E402
from data.taxonomy import merge  # noqa: E402
from data.tiles import TileSet  # noqa: E402
from runtime import command  # noqa: E402

FEWEST = 20  # cells of a code, for a mean to say something
CLASSES = "water", "forest", "field", "impervious"
ROUNDING = 0.005


def main(real, roots):
    places = real_shares(real / "nlcd" / "fine_share_given_nlcd.csv")
    raster = tile_io.read(real / "nlcd" / "nlcd_nw_connecticut.tif").pixels[..., 0]
    for root in roots:
        tiles = TileSet(root, "all")
        shares, codes, _ = exemplar_cells(tiles, range(len(tiles)), tiles.description.scale)
        print(f"{root}: {len(codes)} cells. Of each class: its mean share, * outside of the five real places, and its")
        print("deviation from cell to cell; in brackets the least and most of those places, and Chesapeake's deviation")
        print(f"{'code':<6}{'cells':<8}" + "".join(f"{name:<29}" for name in CLASSES) + "nearest place, distance")
        for code in sorted({*codes.tolist()} & places.keys()):
            print(line_of(code, shares[codes == code], len(codes), places[code]))
        print_majorities(tiles)
        lows = np.stack([tile_io.read(tiles.root / row["low"]).pixels[..., 0] for row in tiles.rows])
        for name, some in (("these tiles", lows), ("Connecticut", windows(raster, lows.shape[1]))):
            print_runs(name, some, merge(some, tiles.description.taxonomy.low, name))


def print_majorities(tiles):
    """How pure cells can be at all: shares under exact majorities of the same fine maps."""
    n, shares = int(tiles.description.scale), []
    for i in range(len(tiles)):
        high = tiles.load_high(i)
        rows, cols = (side // n for side in high.shape)
        blocks = high[: rows * n, : cols * n].reshape(rows, n, cols, n)
        shares.append(np.stack([(blocks == c).mean(axis=(1, 3)).ravel() for c in range(len(CLASSES))], axis=1))
    shares = np.concatenate(shares)
    for c, name in enumerate(CLASSES):
        own = shares[shares.argmax(axis=1) == c, c]
        print(f"cells whose majority is {name}: {own.mean():.2f} of it, deviation {own.std():.2f}")


def print_runs(name, maps, merged):
    """Mean runs along rows of (N, k, k) maps: of all, and of those that the paper's filter leaves (Sec. 3.1)."""
    counts = [np.bincount(m.ravel(), minlength=256)[: len(CLASSES)].tolist() for m in merged]
    left = [broken_rule({"low": count}, merged[0].size, True) is None for count in counts]
    for what, chosen in (("all", np.ones(len(maps), bool)), ("the paper's filter", np.array(left))):
        if not chosen.any():
            continue
        runs = f"{mean_run(maps[chosen]):.2f} cells of one code, {mean_run(merged[chosen]):.2f} of one merged class"
        print(f"mean run in {maps.shape[1]} x {maps.shape[1]} cells, {name}, {what} ({chosen.sum()}): {runs}")


def real_shares(path):
    """{code: {place: (C,)}}; "chesapeake_sigma" is no place but the deviation in Chesapeake."""
    table = defaultdict(dict)
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            table[int(row["nlcd"])][row["where"]] = np.array([float(row[name]) for name in CLASSES])
    return table


def line_of(code, shares, cells, places):
    """One code's mean shares and deviations beside those of real places.

    Distance is half the sum of differences: the share of the ground that is of another class.
    """
    start = f"{code:<6}{100 * len(shares) / cells:5.1f} % "
    if len(shares) < FEWEST:
        return f"{start}under {FEWEST} cells"
    ours, spread, sigma = shares.mean(axis=0), shares.std(axis=0), places["chesapeake_sigma"]
    means = {place: mean for place, mean in places.items() if place != "chesapeake_sigma"}
    least, most = (extreme(list(means.values()), axis=0) for extreme in (np.min, np.max))
    outside = (ours < least - ROUNDING) | (ours > most + ROUNDING)
    columns = [
        f"{ours[c]:.2f}{'*' if outside[c] else ' '} {spread[c]:.2f} ({least[c]:.2f} {most[c]:.2f}, {sigma[c]:.2f})"
        for c in range(len(CLASSES))
    ]
    distance = {place: np.abs(ours - mean).sum() / 2 for place, mean in means.items()}
    nearest = min(distance, key=distance.get)
    return start + "".join(f"{column:<29}" for column in columns) + f"{nearest}, {distance[nearest]:.2f}"


def windows(raster, width):
    """A raster cut to (N, width, width), as tiles cut it."""
    rows, cols = (side // width for side in raster.shape)
    cut = raster[: rows * width, : cols * width].reshape(rows, width, cols, width)
    return cut.swapaxes(1, 2).reshape(-1, width, width)


def mean_run(maps):
    """Mean length of runs of one value along the rows of (N, k, k)."""
    return maps.size / (maps[..., 0].size + (maps[..., 1:] != maps[..., :-1]).sum())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path, metavar="REAL_DIR")
    parser.add_argument("tiles", type=Path, nargs="+", metavar="TILES")
    arguments = parser.parse_args()
    command.run(lambda: main(arguments.real, arguments.tiles))
