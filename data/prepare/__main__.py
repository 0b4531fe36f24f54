"""Scenes to a tile set (Sec. 3.1).

    python -m data.prepare OUT --scenes scenes.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.prepare OUT --tiled tiles.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.prepare OUT --chesapeake RAW_DIR
    python -m data.prepare OUT --naip215 RAW_DIR --rotation 0 --coarse nlcd

Rasters may be of any format that GDAL reads. A coarse one may be in any coordinate system: it keeps its cells. A fine
one that lies otherwise than its image is brought to the image's pixels. All but --tiled needs rasterio: pip install -r
requirements-scenes.txt. A second run completes the first; scenes that are done are not cut again.
"""

import sys
from dataclasses import replace
from pathlib import Path

from data.prepare.cutting import DEFAULT_SCALE, Options
from data.prepare.sources import NAIP215_ROTATIONS, chesapeake, naip215, scene_list, tile_list
from data.prepare.tile_set import MIN_TILE_PX, build
from data.rasters import gdal
from data.taxonomy import load_colors, load_taxonomy
from runtime import command
from runtime.errors import Refused
from runtime.workers import default_workers

SOURCES = {"scenes": scene_list, "tiled": tile_list, "chesapeake": chesapeake, "naip215": naip215}
TAXONOMIES = Path(__file__).resolve().parents[2] / "configs" / "taxonomies"
DEFAULT_TAXONOMY = {"chesapeake": TAXONOMIES / "low2high.yaml", "naip215": TAXONOMIES / "naip215.yaml"}
DEFAULT_TILE_PX = {"naip215": 256, "tiled": None}  # as they are distributed; else 512 [paper, Sec. 3.1]
NAIP215_SCALE = {"majority": 32, "nlcd": 50}  # 19 m; 30 m, the paper's cell, on pixels of 0.6 m


def main(arguments=None):
    parser = command.parser(__doc__, "python -m data.prepare")
    source = parser.add_mutually_exclusive_group(required=True)
    parser.add_argument("out", type=command.place, metavar="OUT", help="folder of the tile set")
    for name, metavar, text in (
        ("scenes", "CSV", "cut the scenes of a list: scene,region,split,image,high,low; paths are relative to the "
         "list; scene, split, high and low may be empty"),
        ("tiled", "CSV", "take tiles as they are: the same columns, and perhaps `tile`; nothing is filtered, and "
         "GeoTIFFs are not copied; pictures and masks of colours become GeoTIFFs"),
        ("chesapeake", "DIR", "the raw Chesapeake set as it is distributed"),
        ("naip215", "DIR", "the 215 NAIP tiles as their repository distributes them, not filtered"),
    ):  # fmt: skip
        source.add_argument(f"--{name}", metavar=metavar, help=text)
    rotations, coarse, workers = tuple(NAIP215_ROTATIONS), tuple(NAIP215_SCALE), default_workers()
    for name, more, text in (
        ("rotation", {"type": int, "choices": rotations}, "of --naip215: which groups of places train, give "
         "exemplars and test (default 0)"),
        ("coarse", {"choices": coarse}, "of --naip215: by majority, n = 32 (default), or codes made from fine ones "
         "in NLCD's manner, n = 50"),
        ("taxonomy", {"type": Path, "metavar": "YAML"}, "classes, and the codes or colours of both label sources; "
         "needed with --scenes and --tiled"),
        ("tile-px", {"type": int, "metavar": "PX"}, "side of a tile (default 512; --tiled: as the tiles are)"),
        ("scale", {"type": int, "metavar": "N"}, "the paper's n, image pixels along a coarse cell: needed where a "
         "coarse label lies on the image's own pixels; of labels that are made from fine ones (default "
         f"{DEFAULT_SCALE})"),
        ("range", {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}, "of float and signed images, the same "
         "for all: values from LOW to HIGH become 1 to 65535"),
        ("bands", {"type": int, "metavar": "K"}, "of the images; needed where one is tagged as alpha: with K one "
         "less than they have, it tells where there are data"),
        ("seed", {"type": int, "default": 0, "metavar": "N"}, "of the splits (default 0)"),
        ("workers", {"type": int, "default": workers, "metavar": "N"}, "processes, one scene each (default: one a "
         "processor)"),
        ("same-crs", {"action": "store_true"}, "take the image and the labels of a scene for one coordinate "
         "system, though their files differ in it"),
        ("no-filter", {"action": "store_true"}, "keep tiles of few classes, or under one class"),
        ("compression", {"choices": ("zlib", "none"), "default": "zlib"}, "of the tiles; none reads fastest "
         "(default zlib)"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", help=text, **more)
    given = parser.parse_args(arguments)
    return command.status(lambda: build_as_asked(given), "goes on from here", where=given.out)


def build_as_asked(given):
    kind = next(kind for kind in SOURCES if getattr(given, kind))
    command.require_options(vars(given), tile_px=MIN_TILE_PX, scale=1, bands=1, seed=0, workers=1)
    taxonomy = given.taxonomy or DEFAULT_TAXONOMY.get(kind)
    if taxonomy is None:
        raise Refused(f"--{kind} needs --taxonomy, for example {TAXONOMIES / 'low2high.yaml'}")
    if given.range and not given.range[0] < given.range[1]:
        raise Refused(f"--range {given.range[0]:g} {given.range[1]:g}: the first is to be the smaller one")
    if kind != "naip215" and (given.rotation is not None or given.coarse):
        raise Refused("--rotation and --coarse are of --naip215")
    if kind != "tiled":
        gdal()
    options = Options(
        source=kind,
        taxonomy=load_taxonomy(taxonomy),
        tile_px=given.tile_px or DEFAULT_TILE_PX.get(kind, 512),
        scale=given.scale,
        seed=given.seed,
        filter=not given.no_filter,
        compression=given.compression,
        bands=given.bands,
        range=tuple(given.range) if given.range else None,
        same_crs=given.same_crs,
        colors=load_colors(taxonomy),
    )
    listed, more = Path(getattr(given, kind)), ()
    if kind == "naip215":
        more, coarse = (given.rotation or 0,), given.coarse or "majority"
        scale = given.scale or NAIP215_SCALE[coarse]
        made = coarse if coarse == "nlcd" else None
        options = replace(options, scale=scale, filter=False, rotation=given.rotation or 0, coarse=made)
    if listed.absolute() == (given.out / "tiles.csv").absolute():
        raise Refused(f"{listed}: is where the manifest goes; give the list another name")
    build(given.out, SOURCES[kind](listed, *more), options, given.workers)


if __name__ == "__main__":
    sys.exit(main())
