"""Scenes, cut or taken as they are, to one tile set. A second call completes the first.

Each scene that is done leaves a record below ROOT/.build, and dataset.yaml comes last.
"""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

from data.laying import same_scale
from data.prepare.cutting import cut_scene
from data.prepare.taking import take_tile
from data.taxonomy import taxonomy_to_dict
from data.tile_writer import write_tile_set
from runtime.errors import Refused, require
from runtime.files import write_text
from runtime.labels import IGNORE
from runtime.workers import map_unordered

DERIVED = "training or validation images without a coarse label, which is derived from their fine one"
DEFAULT_SCALE = 30  # of coarse labels that are made from fine ones: NLCD's, on 1 m imagery [paper, Sec. 4.3]


def build(root, scenes, options, workers=1):
    """Build the tile set of some scenes (data/prepare/sources.py) below root, or complete it."""
    root = Path(root)
    if begin(root, scenes, options):
        print(f"{root}: is complete already; python -m data.check says whether its files are whole")
        return
    to_do = [scene for scene in scenes if result_of(root, scene) is None]
    list(map_unordered(partial(build_scene, root, options), to_do, workers, "scenes"))
    results = [result_of(root, scene) for scene in scenes]
    limits = results[0].get("range")
    for scene, result in zip(scenes, results, strict=True):
        if result.get("range") != limits:
            kinds = "uint8 or uint16 images kept as stored and images converted by --range"
            raise Refused(f"{scene.image} and {scenes[0].image}: one set would mix {kinds}")
    tile_px, scale, image_gsd = (agreed(key, scenes, results) for key in ("tile_px", "scale", "image_gsd"))
    require(options.tile_px in (None, tile_px), f"--tile-px {options.tile_px}: the tiles have {tile_px} px")
    taxonomy, dropped, notes, first = options.taxonomy, Counter(), Counter(), {}
    for scene, result in zip(scenes, results, strict=True):
        dropped.update(result.get("dropped", {}))
        notes.update(result["notes"])
        for what in +Counter(result["notes"]):  # those with a count
            first.setdefault(what, scene.image)
        for kind, codes in result["nodata"].items():  # ignored, unless they have a class of their own
            table = {**dict.fromkeys(codes, IGNORE), **getattr(taxonomy, kind)}
            taxonomy = replace(taxonomy, **{kind: table})
    records = [record for result in results for record in result["records"]]
    learned = (scene for scene in scenes if scene.split not in ("heldout", "test"))
    derived = [scene.image for scene in learned if scene.high and not scene.low]
    if derived and any(scene.low for scene in scenes):
        notes[DERIVED], first[DERIVED] = len(derived), derived[0]
    for what, count in notes.items():  # what a user must know of how the scenes' files were read
        if count:
            print(f"note: {what}: {count}, first {first[what]}")
    if held := sum(result.get("held", 0) for result in results):
        share = held / sum(record["area"] for record in records)
        print(f"note: {share:.1%} of the pixels lie outside --range in some band and are clipped to it")
    if options.range and not limits:
        print("note: --range is not used: uint8 and uint16 images are kept as stored")
    if len({str(result.get("tags")) for result in results}) > 1 and (options.range or not limits):
        what = "are applied before --range" if limits else "stay unused: numbers mean different values"
        print(f"note: images carry different scale or offset tags, which {what}")
    name = options.source if options.source in ("chesapeake", "naip215") else root.absolute().name
    write_tile_set(
        root, name=name, taxonomy=taxonomy, records=records, image_gsd=image_gsd, tile_px=tile_px,
        scale=scale or options.scale or DEFAULT_SCALE, seed=options.seed, value_range=limits, dropped=dropped,
    )  # fmt: skip


def begin(root, scenes, options):
    """Write what the tiles depend on beside them. True where they are complete already.

    raises: Refused where they were begun otherwise: but until they are complete, scenes may come and go, and a taxonomy
            may gain the codes and colours that a scene had and it lacked
    """
    path, complete = root / ".build" / "options.json", (root / "dataset.yaml").is_file()
    if complete and not path.is_file():
        raise Refused(f"{root}: holds a tile set that data.prepare did not make; give another folder")
    taxonomy, facts = options.taxonomy, [*map(facts_of, scenes)]
    colors = {kind: {bytes(rgb).hex(): code for rgb, code in table.items()} for kind, table in taxonomy.masks.items()}
    files = [scene.listed for scene in scenes]
    described = {"taxonomy": taxonomy_to_dict(taxonomy), "colors": colors, "scenes": facts, "files": files}
    asked = json.loads(json.dumps({**vars(options), **described}))
    begun = json.loads(path.read_text()) if complete or any(root.glob(".build/scenes/*.json")) else {}
    for key in (key for key in asked if key in begun and begun[key] != asked[key]):
        if complete or not (key in ("scenes", "files") or key in described and extends(asked[key], begun[key])):
            values = "" if key in described else f" was {begun[key]}, is {asked[key]}"
            raise Refused(f"{root}: was begun with other settings: {key}{values}; use the same or give another folder")
    if not complete:
        write_text(path, json.dumps(asked, indent=1))
    return complete


def extends(now, then):
    """Whether a tree of dicts is another one, or that one with more leaves."""
    if isinstance(now, dict) and isinstance(then, dict):
        return all(key in now and extends(now[key], value) for key, value in then.items())
    return now == then


def build_scene(root, options, scene):
    """Cut a scene, or take a tile, and leave its record."""
    result = (take_tile if options.source == "tiled" else cut_scene)(root, scene, options)
    write_text(record_path(root, scene), json.dumps({"scene": [*facts_of(scene), *scene.listed], "result": result}))


def result_of(root, scene):
    """What a scene that is done gave; None where it is not done."""
    path = record_path(root, scene)
    record = json.loads(path.read_text()) if path.is_file() else {}
    return record["result"] if record.get("scene") == [*facts_of(scene), *scene.listed] else None


def record_path(root, scene):
    return root / ".build" / "scenes" / f"{scene.name}.json"


def facts_of(scene):
    return [scene.name, scene.region, scene.split, *scene.labels()]


def agreed(key, scenes, results):
    """The one value that all scenes agree on (to 1 %), None where none says; Refused naming two that differ."""
    said = [(result[key], scene.image) for result, scene in zip(results, scenes, strict=True) if result[key]]
    for value, image in said:
        if value != said[0][0] and (key == "tile_px" or not same_scale(value, said[0][0])):
            raise Refused(f"{image}: {key} is {value}, but {said[0][0]} for {said[0][1]}; build two sets")
    return said[0][0] if said else None
