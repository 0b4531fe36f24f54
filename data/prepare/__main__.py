"""Scenes to a tile set (Sec. 3.1).

    python -m data.prepare OUT --scenes scenes.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.prepare OUT --tiled tiles.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.prepare OUT --chesapeake RAW_DIR
    python -m data.prepare OUT --dubai RAW_DIR --tile-px 256 --scale 32 --no-filter
    python -m data.prepare OUT --naip215 RAW_DIR --rotation 0 --coarse nlcd

A second run completes the first: each scene that is done leaves a record below OUT/.build, and dataset.yaml comes last.
"""

import sys
from dataclasses import replace
from pathlib import Path

from data.prepare.cutting import Options
from data.prepare.sources import NAIP215_ROTATIONS, chesapeake, dubai, naip215, scene_list, tile_list
from data.prepare.tile_set import DEFAULT_TAXONOMY, MIN_TILE_PX, TAXONOMIES, build
from data.rasters.alignment import DEFAULT_SCALE
from data.taxonomy import load_colors, load_taxonomy
from runtime import command
from runtime.errors import Refused
from runtime.workers import default_workers

SOURCES = {"scenes": scene_list, "tiled": tile_list, "chesapeake": chesapeake, "dubai": dubai, "naip215": naip215}
DEFAULT_TILE_PX = 512  # [paper, Sec. 3.1]
NAIP215_TILE_PX = 256  # as it is distributed
NAIP215_SCALE = {"majority": 32, "nlcd": 50}  # 19 m; 30 m, the paper's cell, on pixels of 0.6 m


def main(arguments=None):
    parser = command.parser(__doc__, "python -m data.prepare")
    parser.add_argument("out", type=command.place, metavar="OUT", help="folder of the tile set")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--scenes",
        metavar="CSV",
        help="cut the scenes of a list: scene,region,split,image,high,low; "
        "paths are relative to the list; scene, split, high and low may be empty",
    )
    source.add_argument(
        "--tiled",
        metavar="CSV",
        help="take tiles as they are: the same columns, and perhaps `tile`; nothing is filtered, and GeoTIFFs are not "
        "copied; pictures and masks of colours become GeoTIFFs",
    )
    source.add_argument("--chesapeake", metavar="DIR", help="the raw Chesapeake set as it is distributed")
    source.add_argument("--dubai", metavar="DIR", help="the Dubai set as it is distributed")
    source.add_argument(
        "--naip215", metavar="DIR", help="the 215 NAIP tiles as their repository distributes them, not filtered"
    )
    parser.add_argument(
        "--rotation",
        type=int,
        choices=tuple(NAIP215_ROTATIONS),
        help="of --naip215: which groups of places train, give exemplars and test (default 0)",
    )
    parser.add_argument(
        "--coarse",
        choices=tuple(NAIP215_SCALE),
        help="of --naip215: by majority, n = 32 (default), or codes made from fine ones in NLCD's manner, n = 50",
    )
    parser.add_argument(
        "--taxonomy",
        type=Path,
        metavar="YAML",
        help="classes, and the codes or colours of both label sources; needed with --scenes and --tiled",
    )
    parser.add_argument(
        "--tile-px",
        type=int,
        metavar="PX",
        help=f"side of a tile (default {DEFAULT_TILE_PX}; --tiled: as the tiles are)",
    )
    parser.add_argument(
        "--scale",
        type=int,
        metavar="N",
        help="the paper's n: image pixels along a coarse cell "
        f"(default: as the rasters say, or {DEFAULT_SCALE} where they do not)",
    )
    parser.add_argument(
        "--bands",
        type=int,
        metavar="K",
        help="of the images; needed where one is tagged as alpha: with K one less than they have, it tells where there "
        "are data",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the splits (default 0)")
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(),
        metavar="N",
        help="processes, one scene each (default: one a processor)",
    )
    parser.add_argument(
        "--same-crs",
        action="store_true",
        help="take the image and the labels of a scene for one coordinate system, though their files differ in it",
    )
    parser.add_argument("--no-filter", action="store_true", help="keep tiles of few classes, or under one class")
    parser.add_argument(
        "--compression",
        choices=("zlib", "none"),
        default="zlib",
        help="of the tiles; none reads fastest (default zlib)",
    )
    given = parser.parse_args(arguments)
    return command.status(lambda: _build_as_asked(given), "goes on from here", where=given.out)


def _build_as_asked(given):
    kind = next(kind for kind in SOURCES if getattr(given, kind))
    command.require_options(vars(given), tile_px=MIN_TILE_PX, scale=1, bands=1, seed=0, workers=1)
    taxonomy = given.taxonomy or DEFAULT_TAXONOMY.get(kind)
    if taxonomy is None:
        raise Refused(f"--{kind} needs --taxonomy, for example {TAXONOMIES / 'low2high.yaml'}")
    tile_px = given.tile_px if kind == "tiled" else given.tile_px or DEFAULT_TILE_PX
    options = Options(
        kind,
        load_taxonomy(taxonomy),
        tile_px,
        given.scale,
        given.seed,
        not given.no_filter,
        given.compression,
        bands=given.bands,
        same_crs=given.same_crs,
        colors=load_colors(taxonomy),
    )
    if kind == "dubai" and not options.colors["high"]:
        raise Refused(f"{taxonomy}: --dubai has masks of colours; it needs `colors`, as {DEFAULT_TAXONOMY['dubai']}")
    listed, more = Path(getattr(given, kind)), ()
    if kind == "naip215":
        more = (given.rotation or 0,)
        options = replace(
            options,
            tile_px=given.tile_px or NAIP215_TILE_PX,
            scale=given.scale or NAIP215_SCALE[given.coarse or "majority"],
            filter=False,
            rotation=given.rotation or 0,
            coarse="nlcd" if given.coarse == "nlcd" else None,
        )
    elif given.rotation is not None or given.coarse:
        raise Refused("--rotation and --coarse are of --naip215")
    if listed.absolute() == (given.out / "tiles.csv").absolute():
        raise Refused(f"{listed}: is where the manifest goes; give the list another name")
    build(given.out, SOURCES[kind](listed, *more), options, given.workers)


if __name__ == "__main__":
    sys.exit(main())
