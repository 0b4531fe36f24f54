"""docs/real_shares.py: coarse codes held against a table of real shares and a raster."""

import csv
from itertools import groupby

import numpy as np
from commands import run_script

from beyond.observed import exemplar_cells
from data import tile_io
from data.tiles import TileSet

CLASSES = ["water", "forest", "field", "impervious"]


def lines_of(real, tile_set):
    """{code: line}, and the lines on runs."""
    lines = run_script("docs/real_shares.py", real, tile_set).splitlines()
    return {int(line.split()[0]): line for line in lines if line[:2].isdigit()}, [x for x in lines if "mean run" in x]


def test_a_place_of_the_same_shares_is_no_distance_away_and_another_is_outside(tile_set, tmp_path):
    tiles, real = TileSet(tile_set, "all"), tmp_path / "nlcd"
    shares, codes, _ = exemplar_cells(tiles, range(len(tiles)), tiles.description.scale)
    real.mkdir()
    raster = np.tile(np.repeat(np.array([11, 41, 22], np.uint8), 2), (5, 2))  # 12 cells, runs of 2
    tile_io.write(real / "nlcd_nw_connecticut.tif", raster)

    def write(shift):
        with open(real / "fine_share_given_nlcd.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["where", "nlcd", *CLASSES])
            for code in np.unique(codes):
                mean, spread = shares[codes == code].mean(axis=0), shares[codes == code].std(axis=0)
                table.writerow(["home", code, *(mean + shift)])
                table.writerow(["chesapeake_sigma", code, *spread])

    write(np.zeros(4))
    lines, runs = lines_of(tmp_path, tile_set)
    told = {code: line for code, line in lines.items() if (codes == code).sum() >= 20}
    assert len(lines) > len(told) > 5 and all("under 20 cells" in lines[code] for code in lines.keys() - told.keys())
    assert all("*" not in line and line.endswith("home, 0.00") for line in told.values())
    mean = shares[codes == 41].mean(axis=0)
    assert f"41    {100 * (codes == 41).mean():5.1f} % {mean[0]:.2f} " in told[41] and f" {mean[1]:.2f} " in told[41]
    assert "rows of 4 cells, Connecticut: 2.00 cells of one code, 2.00 of one merged class" in runs[1]
    lows = [tile_io.read(tile_set / row["low"]).pixels[..., 0] for row in tiles.rows]
    lengths = [len(list(run)) for low in lows for row in low.tolist() for _, run in groupby(row)]
    assert f"these tiles: {np.mean(lengths):.2f} cells of one code" in runs[0]

    write(np.array([0.1, -0.1, 0, 0]))
    assert all(line.count("*") == 2 and line.endswith("home, 0.10") for line in lines_of(tmp_path, tile_set)[0].values()
               if "under" not in line)
