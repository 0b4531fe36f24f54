"""What there is to build from: scene lists, and public sets as they are distributed.

Each function returns scenes sorted by name; a public set's scenes do not depend on the folders it came in.
"""

import re
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from data.coarse import BARREN, BUILT, GRASS, ROAD, TREE, WATER
from data.lists import read_csv, relative_path
from data.manifest import SPLITS
from runtime.errors import Refused, nearest, require

# Mask codes of naip215, and the land cover that they are: coarse codes in NLCD's manner are made from it.
NAIP215_MATERIALS = {0: GRASS, 1: BUILT, 2: ROAD, 3: BARREN, 4: TREE, 5: WATER}
NAIP215_PLACES = Path(__file__).resolve().parents[2] / "configs" / "tables" / "naip215_places.csv"
# Of each rotation: the groups of places that train, the one whose label maps are exemplars, and the one that tests.
NAIP215_ROTATIONS = {0: ((2, 3), 1, 0), 1: ((0, 3), 2, 1), 2: ((0, 1), 3, 2), 3: ((1, 2), 0, 3), 4: ((0, 1, 2), 3, 4)}
CHESAPEAKE_FOLDER = re.compile(r"([a-z]{2})_1m_\d{4}_.+")


@dataclass(frozen=True)
class Scene:
    """One image and its labels, or (`--tiled`) one tile that is cut already."""

    name: str  # opens its tiles' names
    region: str
    image: Path
    high: Path | None = None
    low: Path | None = None
    split: str = ""  # fixed, or "" to have one drawn for each tile
    listed: tuple = ()  # the files as a list names them

    def labels(self):
        return {kind: path for kind, path in (("high", self.high), ("low", self.low)) if path}


def scene_list(path):
    """Scenes of a CSV: scene,region,split,image,high,low, or tile for scene; all but region and image may be missing or
    empty.

    Paths are relative to the list's folder and stay inside it. A scene without a name takes its image's.
    """
    path, scenes = Path(path), []
    for line, row in read_csv(path, ("region", "image"), ("tile", "scene", "split", "high", "low")):
        where = f"{path}, line {line}"
        for column in ("region", "image"):
            require(row[column], f"{where}: {column} is empty")
        if row["split"] not in ("", *SPLITS):
            raise Refused(f"{where}: split {row['split']!r:.80}; did you mean {nearest(row['split'], SPLITS)!r}?")
        listed = {kind: relative_path(row[kind], where) for kind in ("image", "high", "low")}
        files = {kind: path.parent / file for kind, file in listed.items() if file}
        name = row["tile"] or row["scene"] or files["image"].stem
        scenes.append(Scene(name, row["region"], split=row["split"], listed=tuple(listed.values()), **files))
    return _checked(scenes, path)


def chesapeake(folder):
    """The raw Chesapeake set: {state}_1m_{year}_extended-debuffered-{train,val,test}_tiles/*_{naip-new,lc,nlcd}.tif.

    The folder gives the state, which is the region and opens the scene's name, and no more: the splits are drawn anew,
    as in the paper. Files outside of such folders are of the region "unknown".
    """
    scenes = []
    for image in _files(folder, "_naip-new.tif"):
        states = [match[1] for match in map(CHESAPEAKE_FOLDER.fullmatch, image.absolute().parts[:-1]) if match]
        region, stem = (states or ["unknown"])[-1], image.name.removesuffix("_naip-new.tif")
        high, low = (image.with_name(f"{stem}_{kind}.tif") for kind in ("lc", "nlcd"))
        scenes.append(Scene(f"{region}_{stem}", region, image, high, low))
    return _checked(scenes, folder)


def naip215(folder, rotation):
    """naip215 as its repository distributes it: dataset_split/{train,val,test}/{img/tile_ID,mask/mask_ID}.tif.

    The set's own split has neighbours in train and test. Here places rotate: a rotation trains on some groups of places
    (configs/tables/naip215_places.csv), of which every eighth tile, in the order of place and tile, validates; it takes
    exemplars from one more group and tests another. region = group of places.
    """
    train, heldout, test = NAIP215_ROTATIONS[rotation]
    splits = {**dict.fromkeys(train, "train"), heldout: "heldout", test: "test"}
    found = {path.name: path for path in _files(folder, ".tif") if path.parent.name == "img"}
    rows = [row for _, row in read_csv(NAIP215_PLACES, ("tile", "place", "group")) if row["group"]]
    tiles = sorted((int(row["place"]), int(row["tile"]), int(row["group"])) for row in rows)
    validation = [tile for _, tile, group in tiles if group in train][7::8]
    scenes = []
    for _, tile, group in tiles:
        if group in splits:
            image = found.get(f"tile_{tile}.tif")
            if image is None:
                raise Refused(f"{folder}: has no tile_{tile}.tif, of a group of places that rotation {rotation} needs")
            mask = image.parent.parent / "mask" / f"mask_{tile}.tif"
            split = "validation" if tile in validation else splits[group]
            scenes.append(Scene(f"naip_{tile}", f"group{group}", image, mask, split=split))
    return _checked(scenes, folder)


def _files(folder, ending):
    found = sorted(Path(folder, name) for name in glob(f"**/*{ending}", root_dir=folder, recursive=True))
    require(found, f"{folder}: no *{ending} in it or below")
    return found


def _checked(scenes, where):
    """Scenes sorted by name, whose files are there; refuses names that cannot be file names, or stand twice (case
    ignored)."""
    require(scenes, f"{where}: lists no scene")
    seen = {}
    for scene in scenes:
        for file in (scene.image, *scene.labels().values()):
            require(file.is_file(), f"{where}: {file}: no such file")
        if not re.fullmatch(r"[^\s./\\:][^/\\:]{0,199}", scene.name):
            raise Refused(f"{where}: {scene.name!r:.80} cannot name a tile's file")
        first = seen.setdefault(scene.name.casefold(), scene)
        require(first is scene, f"{where}: {first.image} and {scene.image} are both named {scene.name}: fill `scene`")
    return sorted(scenes, key=lambda scene: scene.name)
