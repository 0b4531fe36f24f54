"""docs/real_shares.py: coarse codes held against a table of real shares and a raster."""

import csv
from itertools import groupby

import numpy as np
from commands import run_script

from beyond.observed import exemplar_cells
from data import tile_io
from data.tiles import TileSet

CLASSES = ["water", "forest", "field", "impervious"]


def test_codes_stand_beside_real_places_and_runs_beside_those_of_a_real_raster(real, tile_set):
    lines = run_script("docs/real_shares.py", real, tile_set).splitlines()
    of_code, runs = {int(x.split()[0]): x for x in lines if x[:2].isdigit()}, [x for x in lines if "mean run" in x]
    with open(real / "nlcd" / "fine_share_given_nlcd.csv", newline="") as file:
        places = [row for row in csv.DictReader(file) if row["where"] != "chesapeake_sigma"]
    tiles = TileSet(tile_set, "all")
    shares, codes, _ = exemplar_cells(tiles, range(len(tiles)), tiles.description.scale)
    told = [code for code in of_code if (codes == code).sum() >= 20]
    assert len(of_code) > len(told) > 5 and all("under 20 cells" in of_code[code] for code in {*of_code} - {*told})
    for code in told:
        mean = shares[codes == code].mean(axis=0)
        real_means = {row["where"]: [float(row[c]) for c in CLASSES] for row in places if int(row["nlcd"]) == code}
        away, nearest = min((np.abs(mean - other).sum() / 2, place) for place, other in real_means.items())
        assert of_code[code].startswith(f"{code}    {100 * (codes == code).mean():5.1f} % {mean[0]:.2f}")
        assert of_code[code].endswith(f"{nearest}, {away:.2f}")
    lows = [tile_io.read(tile_set / row["low"]).pixels[..., 0] for row in tiles.rows]
    lengths = [len(list(run)) for low in lows for row in low.tolist() for _, run in groupby(row)]
    assert f"these tiles, all ({len(lows)}): {np.mean(lengths):.2f} cells of one code" in runs[0]
    assert "Connecticut, all (" in runs[-2] and "Connecticut, the paper's filter (" in runs[-1]
