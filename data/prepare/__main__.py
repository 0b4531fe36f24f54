"""Scenes to a tile set (Sec. 3.1).

    python -m data.prepare OUT --scenes scenes.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.prepare OUT --tiled tiles.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.prepare OUT --chesapeake RAW_DIR
    python -m data.prepare OUT --naip215 RAW_DIR --rotation 0 --coarse nlcd

Rasters may be of any format that GDAL reads. A coarse one may be in any coordinate system: it keeps its cells. A fine one
that lies otherwise than its image is brought to the image's pixels. All but --tiled needs rasterio:
pip install -r requirements-scenes.txt. A second run completes the first; scenes that are done are not cut again.
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
    add = parser.add_argument
    add("out", type=command.place, metavar="OUT", help="folder of the tile set")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--scenes",
        metavar="CSV",
        help="cut the scenes of a list: scene,region,split,image,high,low; paths "
        "are relative to the list; scene, split, high and low may be empty",
    )
    source.add_argument(
        "--tiled",
        metavar="CSV",
        help="take tiles as they are: the same columns, and perhaps `tile`; nothing "
        "is filtered, and GeoTIFFs are not copied; pictures and masks of colours become GeoTIFFs",
    )
    source.add_argument("--chesapeake", metavar="DIR", help="the raw Chesapeake set as it is distributed")
    source.add_argument(
        "--naip215", metavar="DIR", help="the 215 NAIP tiles as their repository has them, not filtered"
    )
    add(
        "--rotation",
        type=int,
        choices=tuple(NAIP215_ROTATIONS),
        help="of --naip215: which groups of places train, give exemplars and test (default 0)",
    )
    add(
        "--coarse",
        choices=tuple(NAIP215_SCALE),
        help="of --naip215: by majority, n = 32 (default), or codes made from fine ones in NLCD's manner, n = 50",
    )
    add(
        "--taxonomy",
        type=Path,
        metavar="YAML",
        help="classes, and the codes or colours of both label sources; needed with --scenes and --tiled",
    )
    add("--tile-px", type=int, metavar="PX", help="side of a tile (default 512; --tiled: as the tiles are)")
    add(
        "--scale",
        type=int,
        metavar="N",
        help="the paper's n, image pixels along a coarse cell: needed where a coarse label "
        f"lies on the image's own pixels; of coarse labels that are made from fine ones (default {DEFAULT_SCALE})",
    )
    add(
        "--range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of float and signed images, the same for all: values from LOW to HIGH become 1 to 65535",
    )
    add(
        "--bands",
        type=int,
        metavar="K",
        help="of the images; needed where one is tagged as alpha: with K one less than they "
        "have, it tells where there are data",
    )
    add("--seed", type=int, default=0, help="of the splits (default 0)")
    add(
        "--workers",
        type=int,
        default=default_workers(),
        metavar="N",
        help="processes, one scene each (default: one a processor)",
    )
    add(
        "--same-crs",
        action="store_true",
        help="take the image and the labels of a scene for one coordinate system, though their files differ in it",
    )
    add("--no-filter", action="store_true", help="keep tiles of few classes, or under one class")
    add(
        "--compression",
        choices=("zlib", "none"),
        default="zlib",
        help="of the tiles; none reads fastest (default zlib)",
    )
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
