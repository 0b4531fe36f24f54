"""Source codes to merged classes (Sec. 3.1, "Merged Label Taxonomy").

A taxonomy names the merged classes, in the order that is part of the model (Eq. 3), and says for each code of the two
label sources which class it becomes. Tile sets keep native codes: `merge` is applied when loading. Masks of colours get
codes where a tile set is built (data/label_masks.py).
"""

import re
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from runtime.errors import Refused, nearest
from runtime.files import read_yaml
from runtime.labels import IGNORE

_UNKNOWN = 254  # marks codes without a class inside the look-up table; no class index reaches it
_KEYS = ("classes", "colors", "high", "low")


@dataclass(frozen=True)
class Taxonomy:
    names: tuple  # merged classes; the position is the class index
    colors: tuple  # one (r, g, b) per class
    high: dict  # code of the high-resolution source -> class index or IGNORE
    low: dict  # code of the low-resolution source -> class index or IGNORE
    masks: dict = field(default_factory=dict, compare=False)  # {"high": {(r, g, b): code}, "low": ...}


def load_taxonomy(path):
    """Taxonomy of configs/taxonomies/*.yaml.

    `colors` maps "#RRGGBB" to class names and stands for `high` and `low`, whichever is not given: a colour's code is 0
    where it is ignored; the others are 1, 2, ... as they are listed.
    """
    description, masks = read_yaml(path), {"high": {}, "low": {}}
    for key in description:
        if key not in _KEYS:
            raise Refused(f"{path}: unknown key {key!r}; did you mean {nearest(key, _KEYS)!r}?")
    if "colors" in description:
        if "high" in description and "low" in description:
            raise Refused(f"{path}: colors stand for high or low; leave out the one whose masks hold colours")
        codes, table = _read_colors(description["colors"], path)
        for source in masks.keys() - description.keys():
            masks[source], description[source] = codes, table
    return replace(taxonomy_from_dict(description, path), masks=masks)


def _read_colors(colors, where):
    """{"#RRGGBB": class name} -> ({(r, g, b): code}, {code: class name})."""
    if not isinstance(colors, dict) or not 0 < len(colors) < _UNKNOWN:
        raise Refused(f'{where}: colors should map up to {_UNKNOWN - 1} of "#RRGGBB", in quotes, to class names')
    codes, table = {}, {0: "ignore"}
    for color, name in colors.items():
        if not re.fullmatch("#[0-9A-Fa-f]{6}", str(color)):
            raise Refused(f'{where}: colors has {color!r:.80}; a colour is "#RRGGBB", in quotes')
        code = 0 if name == "ignore" else len(table)
        codes[tuple(bytes.fromhex(color[1:]))], table[code] = code, name
    return codes, table


def taxonomy_from_dict(description, where):
    """Taxonomy from {classes: [{name, color}], high: {code: name}, low: {code: name}}; `where` opens every error."""
    classes, index, tables = description.get("classes"), {"ignore": IGNORE}, {}
    if not isinstance(classes, list) or not 2 <= len(classes) < _UNKNOWN:
        raise Refused(f"{where}: classes should be a list of 2 to {_UNKNOWN - 1} entries {{name, color}}")
    for i, entry in enumerate(classes):
        name, color = (entry.get("name"), entry.get("color")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or name in index:
            raise Refused(f"{where}: classes[{i}].name is {name!r:.80}; it should be a new name other than ignore")
        if not (isinstance(color, list) and len(color) == 3 and all(v in range(256) for v in color)):
            raise Refused(f"{where}: classes[{i}].color is {color!r:.80}; it should be [r, g, b], each 0 to 255")
        index[name] = i
    for source in ("high", "low"):
        table = description.get(source)
        if not isinstance(table, dict):
            raise Refused(f"{where}: {source} should map codes to class names; {{}} if there are no such labels")
        for code, name in table.items():
            if type(code) is not int:
                raise Refused(f"{where}: {source} has the code {code!r:.80}; codes are integers, as pixels are")
            if name not in list(index):
                raise Refused(f"{where}: {source}[{code}] is {name!r:.80}; did you mean {nearest(name, index)!r}?")
        tables[source] = {code: index[name] for code, name in table.items()}
    return Taxonomy(tuple(index)[1:], tuple(tuple(entry["color"]) for entry in classes), **tables)


def codes_in_words(names):
    """What the band of a map says of its class indices."""
    return ", ".join(f"{i} {name}" for i, name in enumerate(names))


def classes_in(words):
    """[(number, name)] of such words; none where a band's description is None or other ones."""
    found = re.findall(r"(\d+) (.+?)(?=, \d+ |$)", words) if (words or "").startswith("0 ") else []
    return [(int(number), name) for number, name in found]


def taxonomy_to_dict(taxonomy):
    """The inverse of taxonomy_from_dict, of plain values only."""
    named = {**dict(enumerate(taxonomy.names)), IGNORE: "ignore"}
    classes = zip(taxonomy.names, taxonomy.colors, strict=True)
    return {
        "classes": [{"name": name, "color": list(color)} for name, color in classes],
        "high": {code: named[i] for code, i in sorted(taxonomy.high.items())},
        "low": {code: named[i] for code, i in sorted(taxonomy.low.items())},
    }


class Unknown(Refused):
    """Codes of a label that a taxonomy does not know. counts: Counter of how often each stands there"""

    def __init__(self, where, counts, table):
        super().__init__(where, counts, table)
        self.where, self.counts, self.table = where, counts, table

    def __str__(self):
        listed = ", ".join(f"{code} ({self.counts[code]} times)" for code in sorted(self.counts))
        known = ", ".join(map(str, sorted(self.table)))
        return f"{self.where}: codes without a class: {listed}; the taxonomy knows {known}"


def merge(codes, table, where, error=Unknown):
    """Merged classes of native codes by table look-up: uint8 of the same shape.

    codes:  integer array of any shape; table: {code: class index or IGNORE}; where: names the codes' file in errors
    raises: `error`, a Refused that lists each code that the table does not know, and how often it stands there
    """
    values, places = np.arange(256), codes
    if codes.dtype != np.uint8:
        values, places = np.unique(codes, return_inverse=True)
    merged = np.array([table.get(v, _UNKNOWN) for v in values.tolist()], np.uint8)[places].reshape(codes.shape)
    if (unknown := merged == _UNKNOWN).any():
        raise error(where, Counter(codes[unknown].tolist()), table)
    return merged
