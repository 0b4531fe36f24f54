"""Scenes to a tile set (Sec. 3.1).

    python -m data.prepare OUT --scenes scenes.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.prepare OUT --tiled tiles.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.prepare OUT --chesapeake RAW_DIR
    python -m data.prepare OUT --naip215 RAW_DIR --rotation 0 --coarse nlcd

Rasters may have any format that GDAL reads. A coarse label may be in any coordinate system; it keeps its cells. A fine
label on another grid is resampled to the image's pixels. All but --tiled needs rasterio: pip install -r
requirements-scenes.txt. The same command completes an interrupted build; finished scenes are not cut again.
"""

import math
import sys
from pathlib import Path

from data.manifest import MIN_TILE_PX
from data.prepare.cutting import Options
from data.prepare.sources import NAIP215_ROTATIONS, chesapeake, naip215, scene_list
from data.prepare.tile_set import DEFAULT_SCALE, build
from data.rasters import gdal
from data.taxonomy import load_taxonomy
from runtime import command
from runtime.errors import Refused, require
from runtime.workers import default_workers

TAXONOMIES = Path(__file__).resolve().parents[2] / "configs" / "taxonomies"
LOW2HIGH = TAXONOMIES / "low2high.yaml"
NAIP_BANDS = 4  # red, green, blue, near infrared, which many of its files tag as alpha
NAIP215_SCALE = {"majority": 32, "nlcd": 50}  # 19 m; 30 m, the paper's cell, on pixels of 0.6 m
# What a source knows of itself, where an option does not say otherwise.
KNOWN = {
    "scenes": {"tile_px": 512},  # [paper, Sec. 3.1]
    "tiled": {},
    "chesapeake": {"tile_px": 512, "taxonomy": LOW2HIGH, "bands": NAIP_BANDS, "scale": 30},  # NLCD, warped to 1 m
    "naip215": {"tile_px": 256, "taxonomy": TAXONOMIES / "naip215.yaml", "bands": NAIP_BANDS, "no_filter": True},
}


def main(arguments=None):
    parser = command.parser(__doc__, "python -m data.prepare")
    add, source = parser.add_argument, parser.add_mutually_exclusive_group(required=True).add_argument
    add("out", type=Path, metavar="OUT", help="folder of the tile set")
    columns = "scene,region,split,image,high,low (all but region and image may be empty; paths relative to the list)"
    source("--scenes", type=Path, metavar="CSV", help=f"cut the scenes of a list: {columns}")
    source("--tiled", type=Path, metavar="CSV", help="use the tiles of such a list as they are, without filtering")
    source("--chesapeake", type=Path, metavar="DIR", help="the raw Chesapeake set as it is distributed")
    source("--naip215", type=Path, metavar="DIR", help="the 215 NAIP tiles as they are distributed, not filtered")
    add("--rotation", type=int, choices=NAIP215_ROTATIONS, help="for --naip215: places that train and test (default 0)")
    add("--coarse", choices=NAIP215_SCALE, help="for --naip215: by majority, n = 32 (default), or like NLCD, n = 50")
    add("--taxonomy", type=Path, metavar="YAML", help="classes, and what the codes or colours of labels mean")
    add("--tile-px", type=int, metavar="PX", help="side of a tile (default 512; --tiled: as the tiles are)")
    own = f"needed where it has the image's pixels; of cells made from fine labels (default {DEFAULT_SCALE})"
    add("--scale", type=int, metavar="N", help=f"image pixels along a cell of a coarse label: {own}")
    values = "values of float and signed images that become 1 and 65535, the same for all images"
    add("--range", type=float, nargs=2, metavar=("LOW", "HIGH"), help=values)
    add("--bands", type=int, metavar="K", help="bands to use; one less than the images have: alpha marks missing data")
    add("--seed", type=int, default=0, metavar="N", help="random seed of the splits (default 0)")
    add("--workers", type=int, default=default_workers(), metavar="N", help="processes (default: one per processor)")
    add("--same-crs", action="store_true", help="take a scene's files as one coordinate system, whatever they say")
    add("--no-filter", action="store_true", help="keep tiles with few classes or a dominant one")
    add("--compression", choices=("zlib", "none"), default="zlib", help="of tiles; none reads fastest (default zlib)")
    given = parser.parse_args(arguments)
    return command.status(lambda: build_as_asked(given), "resumes from here", where=given.out)


def build_as_asked(given):
    kind = next(kind for kind in KNOWN if getattr(given, kind))
    listed = getattr(given, kind)
    command.require_options(vars(given), tile_px=MIN_TILE_PX, scale=1, bands=1, seed=0, workers=1)
    if given.range and not -math.inf < given.range[0] < given.range[1] < math.inf:
        raise Refused(f"--range {given.range[0]:g} {given.range[1]:g}: give two numbers, the smaller one first")
    if listed.absolute() == (given.out / "tiles.csv").absolute():
        raise Refused(f"{listed}: is where the manifest goes; give the list another name")
    for name, value in KNOWN[kind].items():
        setattr(given, name, getattr(given, name) or value)
    require(given.taxonomy, f"--{kind} needs --taxonomy, for example {LOW2HIGH}")
    if kind != "tiled":
        gdal()
    if kind == "naip215":
        scenes, given.coarse = naip215(listed, given.rotation or 0), given.coarse or "majority"
        given.scale = given.scale or NAIP215_SCALE[given.coarse]
    elif given.rotation is not None or given.coarse:
        raise Refused("--rotation and --coarse need --naip215")
    else:
        scenes = chesapeake(listed) if kind == "chesapeake" else scene_list(listed)
    names = "tile_px", "scale", "seed", "compression", "coarse", "bands", "range", "same_crs"
    as_given = {name: getattr(given, name) for name in names}
    options = Options(kind, load_taxonomy(given.taxonomy), filter=not given.no_filter, **as_given)
    build(given.out, scenes, options, given.workers)


if __name__ == "__main__":
    sys.exit(main())
