"""Scenes, cut or taken as they are, to one tile set; a second call completes the first: each scene that is done leaves
a record below ROOT/.build, and dataset.yaml comes last."""

import hashlib
import json
import math
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from data.prepare.cutting import cut_scene, ignoring
from data.prepare.taking import take_tile
from data.rasters.alignment import DEFAULT_SCALE, same_scale
from data.taxonomy import taxonomy_to_dict
from data.tile_writer import write_tile_set
from runtime import content
from runtime.errors import Refused
from runtime.files import remove_leftovers, write_text
from runtime.workers import map_unordered

TAXONOMIES = Path(__file__).resolve().parents[2] / "configs" / "taxonomies"
DEFAULT_TAXONOMY = {
    "chesapeake": TAXONOMIES / "low2high.yaml",
    "dubai": TAXONOMIES / "dubai.yaml",
    "naip215": TAXONOMIES / "naip215.yaml",
}
TILES_PER_JOB = 256  # of --tiled
MIN_TILE_PX = 32  # the segmenter's smallest image
OPTION_NAMES = {  # the others are --their-name
    "source": "source",
    "colors": "--taxonomy",
    "filter": "--no-filter",
    "scenes": "list of scenes, or other files",
}


def build(root, scenes, options, workers=1):
    """Build the tile set of some scenes (data/prepare/sources.py) below root, or complete it.

    returns: the summary of write_tile_set; None where the tile set was complete already
    """
    root = Path(root)
    inputs = [_input(scene) for scene in scenes]
    complete = _bind(root, options, inputs)
    per_job = TILES_PER_JOB if options.source == "tiled" else 1
    jobs = [(scenes[i : i + per_job], inputs[i : i + per_job]) for i in range(0, len(scenes), per_job)]
    to_do = [job for job in jobs if _load_record(root, *job) is None]
    if complete:
        changed = [job[0][0].image for job in to_do if _record_path(root, job[0]).exists()]
        if changed:
            raise Refused(f"{changed[0]}: it or its labels have changed since {root} was built; give another folder")
        print(f"{root}: is complete already")
        return None
    for folder in ("", "images", "high", "low", ".build", ".build/scenes"):
        remove_leftovers(root / folder)
    died = _died if workers > 1 else None
    with closing(map_unordered(partial(_do, root, options), to_do, workers, "scenes", died)) as done:
        for error in done:
            if error:
                raise Refused(error)

    loaded = [_load_record(root, *job) for job in jobs]
    if None in loaded:
        changed = jobs[loaded.index(None)][0][0].image
        raise Refused(f"{changed}: it or its labels changed while it was cut; the same command cuts it anew")
    results = [result for job in loaded for result in job]
    by_pixels = sum(result.get("by_pixels", 0) for result in results)
    if by_pixels:
        print(f"note: {by_pixels} labels have no georeference; they lie by pixels on their images, which have")
    dropped = {rule: sum(result["dropped"][rule] for result in results) for rule in results[0]["dropped"]}
    sizes, px = [result["size"] for result in results if "size" in result], options.tile_px  # of scenes that were cut
    small = sum(min(size) < px for size in sizes)
    if 0 < small < len(scenes):
        print(f"note: {small} of {len(scenes)} scenes are smaller than a tile of {px} px and give none")
    cut = sum(height // px * px * (width // px * px) for height, width in sizes)
    if 0 < cut < 0.95 * (area := sum(map(math.prod, sizes))):
        print(f"note: {1 - cut / area:.0%} of the scenes' area, at their right and lower edges, makes no whole tile")
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
        dropped=dropped,
        why_none=_why_none(scenes, results, dropped),
    )


def _why_none(scenes, results, dropped):
    """What drops every tile where none is kept, and what would keep some."""
    px = results[0]["tile_px"]
    sizes = [result.get("size", (math.inf,) * 2) for result in results]
    side, i = max((min(size), -i) for i, size in enumerate(sizes))
    if side < px:
        height, width = sizes[-i]
        fits = 2 ** int(math.log2(side))
        mend = f"--tile-px {fits} fits into it" if fits >= MIN_TILE_PX else f"a tile has {MIN_TILE_PX} px or more"
        return (
            f"; scenes are smaller than a tile of {px} x {px} px: the largest, {scenes[-i].image}, has "
            f"{height} x {width} px; {mend}"
        )
    if dropped.get("classes") or dropped.get("dominant"):
        return "; --no-filter keeps tiles of few classes, or under one class, which the paper drops"
    return "; over none of them each label source has a label and the image data"


def _input(scene):
    """What a scene's record holds good for, beside its files' content: its row of the list; the folder may move."""
    files = []
    for path in (scene.image, scene.high, scene.low):
        try:
            files.append([path.name, path.stat().st_size] if path else None)
        except OSError as error:
            raise Refused(f"{scene.line}{path}: {error.strerror}") from None
    return [scene.name, scene.region, scene.split, *files]


def _bind(root, options, inputs):
    """Bind root to the options: refuse other ones than those it was begun with. True where it is complete."""
    path, complete = root / ".build" / "options.json", (root / "dataset.yaml").is_file()
    asked = {
        **asdict(replace(options, colors={})),
        "taxonomy": taxonomy_to_dict(options.taxonomy),
        "colors": {
            source: {bytes(color).hex(): code for color, code in codes.items()}
            for source, codes in options.colors.items()
            if codes
        },
        "scenes": hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
    }
    asked = json.loads(json.dumps(asked))
    if not path.is_file():
        if complete:
            raise Refused(f"{root}: holds a tile set that data.prepare did not make; give another folder")
    elif complete or any(path.parent.glob("scenes/*.json")):
        begun = _read_json(path)
        # Before it is complete scenes may come and go: a damaged one is mended or left out. Records say which hold.
        # And a taxonomy may gain codes and colours: those that a scene had and it lacked.
        for key in asked:
            if not complete and key in ("taxonomy", "colors") and _extends(asked[key], begun.get(key)):
                continue
            if (begun.get(key) or None) != (asked[key] or None) and (complete or key != "scenes"):
                then, now = begun.get(key), asked[key]
                if key in ("filter", "same_crs"):
                    then, now = ("given" if bool(v) == (key == "same_crs") else "not given" for v in (then, now))
                values = "" if key in ("taxonomy", "colors", "scenes") else f": {then} then, {now} now"
                option = OPTION_NAMES.get(key, f"--{key.replace('_', '-')}")
                raise Refused(f"{root}: was begun with another {option}{values}; use the same or give another folder")
    if not complete:
        write_text(path, json.dumps(asked, indent=1))
    return complete


def _extends(now, then):
    """Whether a tree of dicts is another one, or that one with more leaves."""
    if isinstance(now, dict) and isinstance(then, dict):
        return all(key in now and _extends(now[key], value) for key, value in then.items())
    return now == then


def _do(root, options, job):
    """Build the scenes of one job and leave their record; an expected error is returned as its line."""
    take, (scenes, inputs) = take_tile if options.source == "tiled" else cut_scene, job
    try:
        files = content.record(_files(scenes))
        results = [take(root, scene, options) for scene in scenes]
        write_text(_record_path(root, scenes), json.dumps({"inputs": inputs, "files": files, "results": results}))
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
    """The results of a job that is done; None where it is not, or its files were others then."""
    path = _record_path(root, scenes)
    record = _read_json(path) if path.is_file() else {}
    if record.get("inputs") != inputs:
        return None
    files = record.get("files")  # records of the first versions have none, and hold by the files' sizes
    same = files is None or content.record(_files(scenes), files)["content"] == files["content"]
    return record["results"] if same else None


def _files(scenes):
    paths = [path for scene in scenes for path in (scene.image, scene.high, scene.low) if path]
    return [(path.name, path, content.WHOLE) for path in paths]


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
