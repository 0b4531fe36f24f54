"""Scenes to a tile set (Sec. 3.1).

    python -m data.build OUT --scenes scenes.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.build OUT --tiled tiles.csv --taxonomy configs/taxonomies/low2high.yaml
    python -m data.build OUT --chesapeake RAW_DIR
    python -m data.build OUT --dubai RAW_DIR --tile-px 256 --scale 32 --no-filter
    python -m data.build OUT --naip215 RAW_DIR --rotation 0 --coarse nlcd

A second run completes the first: each scene that is done leaves a record below OUT/.build, and dataset.yaml comes last.
"""

import argparse
import hashlib
import itertools
import json
import sys
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from data.alignment import DEFAULT_SCALE, same_scale
from data.cutting import Options, cut_scene, ignoring, take_tile
from data.sources import NAIP215_ROTATIONS, chesapeake, dubai, naip215, scene_list, tile_list
from data.taxonomy import load_taxonomy, taxonomy_to_dict
from data.tileset import write_tile_set
from runtime import command
from runtime.errors import Refused
from runtime.files import write_text
from runtime.workers import default_workers, map_unordered

TAXONOMIES = Path(__file__).resolve().parent.parent / "configs" / "taxonomies"
DEFAULT_TAXONOMY = {
    "chesapeake": TAXONOMIES / "low2high.yaml",
    "dubai": TAXONOMIES / "dubai.yaml",
    "naip215": TAXONOMIES / "naip215.yaml",
}
SOURCES = {"scenes": scene_list, "tiled": tile_list, "chesapeake": chesapeake, "dubai": dubai, "naip215": naip215}
DEFAULT_TILE_PX = 512  # [paper, Sec. 3.1]
NAIP215_TILE_PX = 256  # as it is distributed
NAIP215_SCALE = {"majority": 32, "nlcd": 50}  # 19 m; 30 m, the paper's cell, on pixels of 0.6 m
MIN_TILE_PX = 32  # the segmenter's smallest image
TILES_PER_JOB = 256  # of --tiled
OPTION_NAMES = {
    "source": "source",
    "taxonomy": "--taxonomy",
    "tile_px": "--tile-px",
    "scale": "--scale",
    "seed": "--seed",
    "filter": "--no-filter",
    "compression": "--compression",
    "rotation": "--rotation",
    "coarse": "--coarse",
    "same_crs": "--same-crs",
    "bands": "--bands",
    "scenes": "list of scenes, or other files",
}


def build(root, scenes, options, workers=1):
    """Build the tile set of some scenes (data/sources.py) below root, or complete it.

    returns: the summary of write_tile_set; None where the tile set was complete already
    """
    root = Path(root)
    inputs = [_input(scene) for scene in scenes]
    if _bind(root, options, inputs):
        print(f"{root}: is complete already")
        return None
    for leftover in itertools.chain(*(root.glob(f"{folder}.*.tmp") for folder in ("", "images/", "high/", "low/"))):
        leftover.unlink()  # of a run that was killed
    per_job = TILES_PER_JOB if options.source == "tiled" else 1
    jobs = [(scenes[i : i + per_job], inputs[i : i + per_job]) for i in range(0, len(scenes), per_job)]
    to_do = [job for job in jobs if _load_record(root, *job) is None]
    died = _died if workers > 1 else None
    with closing(map_unordered(partial(_do, root, options), to_do, workers, "scenes", died)) as done:
        for error in done:
            if error:
                raise Refused(error)

    results = [result for job in jobs for result in _load_record(root, *job)]
    by_pixels = sum(result.get("by_pixels", 0) for result in results)
    if by_pixels:
        print(f"note: {by_pixels} labels have no georeference; they lie by pixels on their images, which have")
    tile_px = _agreed("tile_px", scenes, results)
    if options.tile_px not in (None, tile_px):
        raise Refused(f"--tile-px {options.tile_px}: the tiles have {tile_px} px")
    codes = {kind: sorted({code for result in results for code in result["nodata"][kind]}) for kind in ("high", "low")}
    return write_tile_set(
        root,
        name=options.source if options.source in DEFAULT_TAXONOMY else root.absolute().name,
        taxonomy=ignoring(options.taxonomy, codes),
        records=[record for result in results for record in result["records"]],
        image_gsd=_agreed("image_gsd", scenes, results),
        scale=_agreed("scale", scenes, results) or options.scale or DEFAULT_SCALE,
        tile_px=tile_px,
        seed=options.seed,
        dropped={rule: sum(result["dropped"][rule] for result in results) for rule in results[0]["dropped"]},
    )


def _input(scene):
    """What a scene's record holds good for: its row of the list and its files' sizes; the folder may move."""
    files = []
    for path in (scene.image, scene.high, scene.low):
        try:
            files.append([path.name, path.stat().st_size] if path else None)
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}") from None
    return [scene.name, scene.region, scene.split, *files]


def _bind(root, options, inputs):
    """Bind root to the options: refuse other ones than those it was begun with. True where it is complete."""
    path, complete = root / ".build" / "options.json", (root / "dataset.yaml").is_file()
    asked = {
        **asdict(options),
        "taxonomy": taxonomy_to_dict(options.taxonomy),
        "scenes": hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
    }
    asked = json.loads(json.dumps(asked))
    if not path.is_file():
        if complete:
            raise Refused(f"{root}: holds a tile set that data.build did not make; give another folder")
    elif complete or any(path.parent.glob("scenes/*.json")):
        begun = _read_json(path)
        # Before it is complete scenes may come and go: a damaged one is mended or left out. Records say which hold.
        for key in asked:
            if (begun.get(key) or None) != (asked[key] or None) and (complete or key != "scenes"):
                then, now = begun.get(key), asked[key]
                if key in ("filter", "same_crs"):
                    then, now = ("given" if bool(v) == (key == "same_crs") else "not given" for v in (then, now))
                values = "" if key in ("taxonomy", "scenes") else f": {then} then, {now} now"
                raise Refused(
                    f"{root}: was begun with another {OPTION_NAMES[key]}{values}; use the same or give another folder"
                )
    if not complete:
        write_text(path, json.dumps(asked, indent=1))
    return complete


def _do(root, options, job):
    """Build the scenes of one job and leave their record; an expected error is returned as its line."""
    take, (scenes, inputs) = take_tile if options.source == "tiled" else cut_scene, job
    try:
        results = [take(root, scene, options) for scene in scenes]
        write_text(_record_path(root, scenes), json.dumps({"inputs": inputs, "results": results}))
    except Refused as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or root}: {error.strerror}"
    return None


def _died(job):
    """The line on a job whose process died: it never left its record."""
    first = job[0][0]
    files = ", ".join(str(path) for path in (first.image, first.high, first.low) if path)
    more = f" (or of the {len(job[0]) - 1} tiles after it)" if len(job[0]) > 1 else ""
    return f"{files}{more}: reading it ends the process (a crash inside a codec, or out of memory)"


def _record_path(root, scenes):
    return root / ".build" / "scenes" / f"{scenes[0].name}.json"


def _load_record(root, scenes, inputs):
    path = _record_path(root, scenes)
    record = _read_json(path) if path.is_file() else {}
    return record["results"] if record.get("inputs") == inputs else None


def _read_json(path):
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise Refused(f"{path}: is damaged; remove it, and the same command makes it anew") from None


def _agreed(key, scenes, results):
    """The one value that all scenes agree on (to 1 %), None where none says; Refused naming two that differ."""
    said = [(result[key], scene.image) for result, scene in zip(results, scenes, strict=True) if result[key]]
    for value, image in said:
        if value != said[0][0] and (key == "tile_px" or not same_scale(value, said[0][0])):
            raise Refused(f"{image}: {key} is {value}, but {said[0][0]} for {said[0][1]}; a tile set has one")
    return said[0][0] if said else None


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m data.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the tile set")
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
        help="take tiles as they are: the same columns, and perhaps `tile`; nothing is copied, and nothing is filtered",
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
        help="classes, and the codes of both label sources; needed with --scenes and --tiled",
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
    for option, value, least in (
        ("--tile-px", given.tile_px, MIN_TILE_PX),
        ("--scale", given.scale, 1),
        ("--bands", given.bands, 1),
        ("--workers", given.workers, 1),
    ):
        if value is not None and value < least:
            raise Refused(f"{option} {value}: should be {least} or more")
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
    )
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
