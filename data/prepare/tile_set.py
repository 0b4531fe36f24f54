"""Scenes, cut or taken as they are, to one tile set. A second call completes the first.

Each scene that is done leaves a record below ROOT/.build, and dataset.yaml comes last.
"""

import json
import math
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from data.laying import same_scale
from data.prepare.cutting import DEFAULT_SCALE, cut_scene, ignoring
from data.prepare.taking import take_tile
from data.taxonomy import taxonomy_to_dict
from data.tile_writer import write_tile_set
from runtime.errors import Refused
from runtime.files import remove_leftovers, write_text
from runtime.workers import map_unordered

TILES_PER_JOB = 256  # of --tiled
MIN_TILE_PX = 32  # the segmenter's smallest image


def build(root, scenes, options, workers=1):
    """Build the tile set of some scenes (data/prepare/sources.py) below root, or complete it.

    returns: the summary of write_tile_set; None where the tile set was complete already
    """
    root = Path(root)
    for scene in scenes:
        for path in (scene.image, *scene.labels().values()):
            if not path.is_file():
                raise Refused(f"{scene.line}{path}: no such file")
    complete = _bind(root, options)
    per_job = TILES_PER_JOB if options.source == "tiled" else 1
    jobs = [scenes[i : i + per_job] for i in range(0, len(scenes), per_job)]
    to_do = [job for job in jobs if _results(root, job) is None]
    if complete and (to_do or len(jobs) < len(list((root / ".build" / "scenes").glob("*.json")))):
        raise Refused(f"{root}: was built from another list of scenes; give another folder")
    if complete:
        print(f"{root}: is complete already")
        return None
    for folder in ("", "images", "high", "low", ".build", ".build/scenes"):
        remove_leftovers(root / folder)
    with closing(map_unordered(partial(_do, root, options), to_do, workers, "scenes")) as done:
        for error in filter(None, done):
            raise Refused(error)
    results = [result for job in jobs for result in _results(root, job)]
    for scene, result in zip(scenes, results, strict=True):
        if result["range"] != results[0]["range"]:
            kinds = "whole numbers as they are stored, and values that --range brings to such"
            raise Refused(f"{scene.image} and {scenes[0].image}: one set would mix {kinds}")
    tile_px = _agreed("tile_px", scenes, results)
    if options.tile_px not in (None, tile_px):
        raise Refused(f"--tile-px {options.tile_px}: the tiles have {tile_px} px")
    codes = {kind: sorted({code for r in results for code in r["nodata"].get(kind, ())}) for kind in ("high", "low")}
    dropped = {rule: sum(result["dropped"][rule] for result in results) for rule in results[0]["dropped"]}
    scale = _agreed("scale", scenes, results)
    made = options.scale or DEFAULT_SCALE
    for note in _notes(scenes, results, options):
        print(f"note: {note}")
    return write_tile_set(
        root,
        name=options.source if options.source in ("chesapeake", "naip215") else root.absolute().name,
        taxonomy=ignoring(options.taxonomy, codes),
        records=[record for result in results for record in result["records"]],
        image_gsd=_agreed("image_gsd", scenes, results),
        scale=scale or made,
        tile_px=tile_px,
        seed=options.seed,
        value_range=results[0]["range"],
        dropped=dropped,
        why_none=_why_none(scenes, results, dropped),
    )


def _notes(scenes, results, options):
    """What a user must know of how the scenes' files were read."""
    if by_pixels := sum(result["by_pixels"] for result in results):
        yield f"labels without a georeference, which lie by pixels on images that have one: {by_pixels}"
    if taken := sum(result.get("unit_taken", 0) for result in results):
        yield f"tiles whose system --tiled does not know, and whose units were taken for metres on the ground: {taken}"
    if warped := sum(result["warped"] for result in results):
        yield f"fine labels on another grid or in another system, brought to their images' pixels: {warped}"
    if held := sum(result["held"] for result in results):
        area = sum(record["area"] for result in results for record in result["records"])
        yield f"{held / area:.1%} of the pixels lie beyond --range in some band, and are held to its ends"
    tags = {str(result["tags"]): scene.image for scene, result in zip(scenes, results, strict=True) if result["tags"]}
    if len(tags) > 1:
        told = ", ".join(f"{image}: scales and offsets {said}" for said, image in tags.items())
        yield f"images carry different scale or offset tags ({told}); " + (
            "their values are brought together"
            if results[0]["range"]
            else "stored numbers are kept, and mean different values"
        )
    sizes, px = [result["size"] for result in results if "size" in result], options.tile_px
    if 0 < (small := sum(min(size) < px for size in sizes)) < len(sizes):
        yield f"{small} of {len(sizes)} scenes are smaller than a tile of {px} px and give none"
    cut = sum(height // px * px * (width // px * px) for height, width in sizes)
    if 0 < cut < 0.95 * (area := sum(map(math.prod, sizes))):
        yield f"{1 - cut / area:.0%} of the scenes' area, at their right and lower edges, makes no whole tile"


def _why_none(scenes, results, dropped):
    """What drops every tile where none is kept, and what would keep some."""
    px = results[0]["tile_px"]
    sizes = [result.get("size", (math.inf,) * 2) for result in results]
    side, i = max((min(size), -i) for i, size in enumerate(sizes))
    if side < px:
        fits = 2 ** int(math.log2(side))
        mend = f"--tile-px {fits} fits into it" if fits >= MIN_TILE_PX else f"a tile has {MIN_TILE_PX} px or more"
        size = "{} x {}".format(*sizes[-i])
        return f"; scenes are smaller than a tile of {px} px: the largest, {scenes[-i].image}, has {size} px; {mend}"
    if dropped.get("classes") or dropped.get("dominant"):
        return "; --no-filter keeps tiles of few classes, or under one class, which the paper drops"
    return "; over none of them each label source has a label and the image data"


def _bind(root, options):
    """Bind root to the options: refuse other ones than those it was begun with. True where it is complete."""
    path, complete = root / ".build" / "options.json", (root / "dataset.yaml").is_file()
    plain = asdict(replace(options, colors={}))
    plain["taxonomy"] = taxonomy_to_dict(options.taxonomy)
    plain["colors"] = {kind: {bytes(rgb).hex(): code for rgb, code in c.items()} for kind, c in options.colors.items()}
    asked = json.loads(json.dumps(plain))
    if not path.is_file() and complete:
        raise Refused(f"{root}: holds a tile set that data.prepare did not make; give another folder")
    begun = _read_json(path) if path.is_file() and (complete or any(path.parent.glob("scenes/*.json"))) else asked
    for key in asked:
        # Until it is complete a taxonomy may gain codes and colours: those that a scene had and it lacked.
        if not complete and key in ("taxonomy", "colors") and _extends(asked[key], begun.get(key)):
            continue
        if begun.get(key) != asked[key]:
            option = {"taxonomy": "--taxonomy", "colors": "--taxonomy", "filter": "--no-filter", "source": "source"}
            named = option.get(key, f"--{key.replace('_', '-')}")
            values = "" if isinstance(asked[key], dict) else f": {begun.get(key)} then, {asked[key]} now"
            raise Refused(f"{root}: was begun with another {named}{values}; use the same or give another folder")
    if not complete:
        write_text(path, json.dumps(asked, indent=1))
    return complete


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
        record = {"scenes": [scene.name for scene in scenes], "results": results}
        write_text(_record_path(root, scenes), json.dumps(record))
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
    record = _read_json(path) if path.is_file() else {}
    return record["results"] if record.get("scenes") == [scene.name for scene in scenes] else None


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
