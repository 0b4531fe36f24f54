"""What a reader of a tile set begins with: ROOT/dataset.yaml and ROOT/tiles.csv, checked before anything is opened."""

import math
from dataclasses import dataclass
from pathlib import Path

from data.lists import read_csv, relative_path
from data.taxonomy import Taxonomy, taxonomy_from_dict, taxonomy_to_dict
from runtime.errors import Refused, nearest, require
from runtime.files import read_yaml

SPLITS = ("train", "validation", "heldout", "test")
COLUMNS = ("tile", "region", "split", "image", "high", "low")
MIN_TILE_PX = 32  # the smallest image of a segmenter


@dataclass(frozen=True)
class Description:
    """dataset.yaml."""

    name: str
    image_gsd: float | None  # metres per pixel; None where the source does not say
    label_gsd: float | None  # image_gsd * scale
    scale: float  # the paper's n
    tile_px: int
    bands: int
    dtype: str  # uint8 or uint16
    band_mean: tuple  # raw pixel units, over the valid pixels of the training split
    band_std: tuple
    taxonomy: Taxonomy
    range: tuple | None = None  # values of float and signed images at both ends of dtype (data/values.py)

    def classes(self):
        """[{"name", "color"}] in class order, as figures and checkpoints want it."""
        return taxonomy_to_dict(self.taxonomy)["classes"]

    def facts(self):
        """What a checkpoint says of its data, in plain values, so that scoring and mapping ask for nothing twice."""
        keys = "name", "bands", "dtype", "band_mean", "band_std", "image_gsd", "scale", "range"
        values = ((key, getattr(self, key)) for key in keys)
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values if value is not None}
        return {**plain, **taxonomy_to_dict(self.taxonomy)}


def read_manifest(root):
    """The description and the rows of a tile set; refused in one line at the first thing that is wrong.

    returns: Description, list of dicts with the keys COLUMNS; paths are relative to root and stay inside it by name
             (root / row["image"]); "" where there is no high or low
    """
    description, path, rows, seen = read_description(root), Path(root) / "tiles.csv", [], set()
    for line, row in read_csv(path, COLUMNS):
        where = f"{path}, line {line}"
        if row["split"] not in SPLITS:
            raise Refused(f"{where}: split {row['split']!r}; did you mean {nearest(row['split'], SPLITS)!r}?")
        if row["tile"] in seen:  # a tile in two splits would be tested on what it was trained on
            raise Refused(f"{where}: tile {row['tile']} stands twice")
        seen.add(row["tile"])
        rows.append({**row, **{key: relative_path(row[key], where) for key in ("image", "high", "low")}})
    require(rows, f"{path}: no tile is listed")
    return description, rows


def chosen_rows(root, rows, split, regions=(), exclude_regions=()):
    """The rows of one split or of "all", of some regions or all but some.

    raises: Refused for a split or a region that the set does not have
    """
    known = sorted({row["region"] for row in rows})
    for region in (*regions, *exclude_regions):
        require(region in known, f"{root}: has no region {region}; it has {', '.join(known)}")
    chosen = [row for row in rows if split in (row["split"], "all") and (not regions or row["region"] in regions)
              and row["region"] not in exclude_regions]  # fmt: skip
    if not chosen:
        splits = ", ".join(sorted({row["split"] for row in rows}))
        where = " in these regions" if regions or exclude_regions else ""
        raise Refused(f"{root}: has no tiles of the split {split}{where}; it has tiles of {splits}")
    return chosen


def _number(value, zero=False):
    return type(value) in (int, float) and 0 <= value < math.inf and (zero or value > 0)


FACTS = {  # of dataset.yaml: what is a good value, by a test and in words
    "name": (lambda v: isinstance(v, str), "a name"),
    **dict.fromkeys(("image_gsd", "label_gsd"), (lambda v: v is None or _number(v), "metres per pixel, or null")),
    "scale": (lambda v: _number(v) and v >= 1, "a number from 1 up"),
    "tile_px": (lambda v: type(v) is int and v >= MIN_TILE_PX, f"pixels, {MIN_TILE_PX} or more"),
    "bands": (lambda v: type(v) is int and v > 0, "a count"),
    "dtype": (lambda v: v in ("uint8", "uint16"), "uint8 or uint16"),
    "band_mean": (lambda v: isinstance(v, list) and all(_number(mean, zero=True) for mean in v), "one number per band"),
    "band_std": (lambda v: isinstance(v, list) and all(map(_number, v)), "one number per band, above 0"),
}


def read_description(root):
    """dataset.yaml, every key checked."""
    path = Path(root) / "dataset.yaml"
    require(path.is_file(), f"{path}: not found; a tile set is made by python -m data.prepare or data.synthetic")
    values = read_yaml(path)
    taxonomy = taxonomy_from_dict(values, path)
    for key, (is_good, meaning) in FACTS.items():
        require(is_good(values.get(key)), f"{path}: {key} is {values.get(key)!r:.80}; it should be {meaning}")
    for key in ("band_mean", "band_std"):
        if len(values[key]) != values["bands"]:
            raise Refused(f"{path}: {key} has {len(values[key])} numbers; there are {values['bands']} bands")
    fields = {key: values.get(key) for key in (*FACTS, "range")}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Description(**fields, taxonomy=taxonomy)
