"""Scenes, cut or taken as they are, to one tile set. A second call completes the first.

Each scene that is done leaves a record below ROOT/.build, and dataset.yaml comes last.
"""

import json
import math
from collections import Counter
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from data.laying import same_scale
from data.prepare.cutting import cut_scene
from data.prepare.taking import take_tile
from data.taxonomy import IGNORE, taxonomy_to_dict
from data.tile_writer import write_tile_set
from runtime.errors import Refused
from runtime.files import remove_leftovers, write_text
from runtime.workers import map_unordered

DEFAULT_SCALE = 30  # of coarse labels that are made from fine ones: NLCD's, on 1 m imagery [paper, Sec. 4.3]
TILES_PER_JOB = 256  # of --tiled


def build(root, scenes, options, workers=1):
    """Build the tile set of some scenes (data/prepare/sources.py) below root, or complete it.

    returns: the summary of write_tile_set; None where the tile set was complete already
    """
    root = Path(root)
    if _begin(root, scenes, options):
        print(f"{root}: is complete already")
        return None
    for folder in ("", "images", "high", "low", ".build", ".build/scenes"):
        remove_leftovers(root / folder)
    per_job = TILES_PER_JOB if options.source == "tiled" else 1
    jobs = [scenes[i : i + per_job] for i in range(0, len(scenes), per_job)]
    to_do = [job for job in jobs if _results(root, job) is None]
    with closing(map_unordered(partial(_do, root, options), to_do, workers, "scenes")) as done:
        for error in filter(None, done):
            raise Refused(error)
    results = [result for job in jobs for result in _results(root, job)]
    for scene, result in zip(scenes, results, strict=True):
        if result.get("range") != results[0].get("range"):
            kinds = "whole numbers as they are stored, and values that --range brings to such"
            raise Refused(f"{scene.image} and {scenes[0].image}: one set would mix {kinds}")
    tile_px, scale, image_gsd = (_agreed(key, scenes, results) for key in ("tile_px", "scale", "image_gsd"))
    if options.tile_px not in (None, tile_px):
        raise Refused(f"--tile-px {options.tile_px}: the tiles have {tile_px} px")
    taxonomy, dropped = options.taxonomy, Counter()
    for result in results:
        dropped.update(result.get("dropped", {}))
        for kind, codes in result["nodata"].items():  # ignored, unless they have a class of their own
            table = {**dict.fromkeys(codes, IGNORE), **getattr(taxonomy, kind)}
            taxonomy = replace(taxonomy, **{kind: table})
    for note in _notes(results, tile_px):
        print(f"note: {note}")
    return write_tile_set(
        root,
        name=options.source if options.source in ("chesapeake", "naip215") else root.absolute().name,
        taxonomy=taxonomy,
        records=[record for result in results for record in result["records"]],
        image_gsd=image_gsd,
        scale=scale or options.scale or DEFAULT_SCALE,
        tile_px=tile_px,
        seed=options.seed,
        value_range=results[0].get("range"),
        dropped=dict(dropped),
        why_none=_why_none(results, tile_px, dropped),
    )


def _notes(results, px):
    """What a user must know of how the scenes' files were read."""
    counts = Counter()
    for result in results:
        counts.update(result["notes"])
    yield from (f"{what}: {count}" for what, count in counts.items() if count)
    if held := sum(result.get("held", 0) for result in results):
        area = sum(record["area"] for result in results for record in result["records"])
        yield f"{held / area:.1%} of the pixels lie beyond --range in some band, and are held to its ends"
    if not results[0].get("range") and len({str(result.get("tags")) for result in results}) > 1:
        yield "images carry different scale or offset tags; stored numbers are kept, and mean different values"
    sizes = [result["size"] for result in results if "size" in result]
    cut = sum(height // px * px * (width // px * px) for height, width in sizes)
    if 0 < cut < 0.95 * (area := sum(map(math.prod, sizes))):
        yield f"{1 - cut / area:.0%} of the scenes' area, at their right and lower edges, makes no whole tile"


def _why_none(results, px, dropped):
    """What drops every tile where none is kept, and what would keep some."""
    side = max((min(result["size"]) for result in results if "size" in result), default=px)
    if side < px:
        return f"; scenes are smaller than a tile of {px} px: the largest has {side}; give a smaller --tile-px"
    if dropped["classes"] or dropped["dominant"]:
        return "; --no-filter keeps tiles of few classes, or under one class, which the paper drops"
    return "; over none of them each label source has a label and the image data"


def _begin(root, scenes, options):
    """Write what the tiles depend on beside them. True where they are complete already.

    raises: Refused where they were begun otherwise: but until they are complete, scenes may come and go, and a taxonomy
            may gain the codes and colours that a scene had and it lacked
    """
    path, complete = root / ".build" / "options.json", (root / "dataset.yaml").is_file()
    if complete and not path.is_file():
        raise Refused(f"{root}: holds a tile set that data.prepare did not make; give another folder")
    colors = {kind: {bytes(rgb).hex(): code for rgb, code in table.items()} for kind, table in options.colors.items()}
    described = {"taxonomy": taxonomy_to_dict(options.taxonomy), "colors": colors, "scenes": _described(scenes)}
    asked = json.loads(json.dumps({**vars(options), **described}))
    begun = json.loads(path.read_text()) if complete or any(root.glob(".build/scenes/*.json")) else {}
    for key in (key for key in asked if key in begun and begun[key] != asked[key]):
        if complete or not (key == "scenes" or key in described and _extends(asked[key], begun[key])):
            values = "" if key in described else f" was {begun[key]}, is {asked[key]}"
            raise Refused(f"{root}: was begun with other settings: {key}{values}; use the same or give another folder")
    if not complete:
        write_text(path, json.dumps(asked, indent=1))
    return complete


def _described(scenes):
    return [[scene.name, scene.region, scene.split] for scene in scenes]


def _extends(now, then):
    """Whether a tree of dicts is another one, or that one with more leaves."""
    if isinstance(now, dict) and isinstance(then, dict):
        return all(key in now and _extends(now[key], value) for key, value in then.items())
    return now == then


def _do(root, options, scenes):
    """Build the scenes of one job and leave their record; an expected error is returned as its line."""
    take = take_tile if options.source == "tiled" else cut_scene
    try:
        results = [take(root, scene, options) for scene in scenes]
        write_text(_record_path(root, scenes), json.dumps({"scenes": _described(scenes), "results": results}))
    except Refused as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or root}: {error.strerror}"
    return None


def _record_path(root, scenes):
    return root / ".build" / "scenes" / f"{scenes[0].name}.json"


def _results(root, scenes):
    """What a job that is done gave, a result a scene; None where it is not done."""
    path = _record_path(root, scenes)
    record = json.loads(path.read_text()) if path.is_file() else {}
    return record["results"] if record.get("scenes") == _described(scenes) else None


def _agreed(key, scenes, results):
    """The one value that all scenes agree on (to 1 %), None where none says; Refused naming two that differ."""
    said = [(result[key], scene.image) for result, scene in zip(results, scenes, strict=True) if result[key]]
    for value, image in said:
        if value != said[0][0] and (key == "tile_px" or not same_scale(value, said[0][0])):
            raise Refused(f"{image}: {key} is {value}, but {said[0][0]} for {said[0][1]}; a tile set has one")
    return said[0][0] if said else None
