"""A tile set of made-up landscapes (landscape.py) with coarse labels (coarse.py)."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from data.coarse import low_label
from data.manifest import MIN_TILE_PX
from data.synthetic.landscape import REGIONS, landscape
from data.taxonomy import load_taxonomy
from data.tile_io import epsg_system
from data.tile_writer import write_tile, write_tile_set
from runtime.command import require_options
from runtime.errors import Refused
from runtime.files import write_text
from runtime.workers import map_unordered

TAXONOMY = Path(__file__).resolve().parents[2] / "configs" / "taxonomies" / "low2high.yaml"
EPSG = 32618  # UTM 18 N, as most of the Chesapeake set; the places are made up


def make_tile(root, index, *, tile_px, scale, bands, seed, taxonomy):
    """Make tile number `index`, write it below root and return its record (data/tile_writer.py). Regions take turns."""
    rng = np.random.default_rng([seed, index])
    number, name = index % len(REGIONS), list(REGIONS)[index % len(REGIONS)]
    image, high = landscape(rng, tile_px, bands, REGIONS[name])
    low = low_label(rng, high, scale)
    row, col = divmod(index // len(REGIONS), 32)
    west, north = 300000.0 + max(40000, 32 * tile_px) * number + col * tile_px, 4300000.0 - row * tile_px
    places = {"transform": (1.0, 0.0, west, 0.0, -1.0, north), "system": epsg_system(EPSG)}
    places["low_transform"] = float(scale), 0.0, west, 0.0, -float(scale), north
    return write_tile(root, f"{name}_{index:05d}", image, high, low, taxonomy=taxonomy, region=name, **places)


def make_tile_set(root, *, tiles=400, tile_px=128, scale=16, bands=3, seed=0, workers=1):
    """Make a tile set of landscapes below root, where it is not there already.

    raises: Refused for settings that cannot be, and a root that holds another tile set
    """
    settings = {"tile_px": tile_px, "scale": scale, "bands": bands, "seed": seed}
    bounds = {"tiles": (1, 99999), "tile_px": (MIN_TILE_PX, 4096), "scale": (1, tile_px), "bands": (3, 4)}
    require_options({"tiles": tiles, "workers": workers, **settings}, **bounds, seed=0, workers=1)
    root, taxonomy = Path(root), load_taxonomy(TAXONOMY)
    begun, asked = root / ".build" / "synthetic.json", json.dumps({"tiles": tiles, **settings})
    complete, made = (root / "dataset.yaml").is_file(), begun.read_text() if begun.is_file() else ""
    if made != asked and (complete or made):
        raise Refused(f"{root}: was made with other settings, {made or 'or by others'}; give them or another folder")
    if complete:
        print(f"{root}: is complete already")
        return
    write_text(begun, asked)
    make = partial(make_tile, root, taxonomy=taxonomy, **settings)
    records = list(map_unordered(make, range(tiles), workers, "tiles"))
    facts = {"image_gsd": 1.0, "scale": scale, "tile_px": tile_px, "seed": seed}
    write_tile_set(root, name="synthetic", taxonomy=taxonomy, records=records, **facts)
