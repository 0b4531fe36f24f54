"""Source codes to merged classes (Sec. 3.1, "Merged Label Taxonomy").

A taxonomy names the merged classes, in the order that is part of the model (Eq. 3), and says for each code of the two
label sources which class it becomes. Tile sets keep native codes: `merge` is applied when loading. Masks of colours get
codes where a tile set is built (data/label_masks.py); the codes are those of `load_colors`.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from runtime.errors import Refused, nearest
from runtime.files import read_yaml

IGNORE = 255  # merged value of pixels that neither supervise nor score
_UNKNOWN = 254  # marks codes without a class inside the look-up table; no class index reaches it


@dataclass(frozen=True)
class Taxonomy:
    names: tuple  # merged classes; the position is the class index
    colors: tuple  # one (r, g, b) per class
    high: dict  # code of the high-resolution source -> class index or IGNORE
    low: dict  # code of the low-resolution source -> class index or IGNORE


def load_taxonomy(path):
    """Taxonomy of configs/taxonomies/*.yaml."""
    return _read(path)[0]


def load_colors(path):
    """{"high": {(r, g, b): code}, "low": ...} of a taxonomy file; {} for a source whose masks hold codes.

    `colors` maps "#RRGGBB" to class names and stands for `high` and `low`, whichever is not given: a colour's code is 0
    where it is ignored; the others are 1, 2, ... as they are listed.
    """
    return _read(path)[1]


def _read(path):
    description = read_yaml(path)
    keys = "classes", "colors", "high", "low"
    unknown = [key for key in description if key not in keys]
    if unknown:
        raise Refused(f"{path}: unknown key {unknown[0]!r}; did you mean {nearest(unknown[0], keys)!r}?")
    colors = {"high": {}, "low": {}}
    if "colors" in description:
        names = taxonomy_from_dict({**description, "high": {}, "low": {}}, path).names
        codes, table = _codes_of_colors(description["colors"], names, path)
        in_colors = [source for source in colors if source not in description]
        if not in_colors:
            raise Refused(f"{path}: colors stand for high or low; leave out the one whose masks hold colours")
        for source in in_colors:
            colors[source], description[source] = codes, table
    return taxonomy_from_dict(description, path), colors


def _codes_of_colors(colors, names, where):
    """{"#RRGGBB": class name} -> ({(r, g, b): code}, {code: class name})."""
    if not isinstance(colors, dict) or not 0 < len(colors) < IGNORE:
        raise Refused(f'{where}: colors should map up to {IGNORE - 1} of "#RRGGBB", in quotes, to class names')
    codes, table = {}, {0: "ignore"}
    for color, name in colors.items():
        if not isinstance(color, str) or not re.fullmatch("#[0-9A-Fa-f]{6}", color):
            raise Refused(f'{where}: colors has {color!r:.80}; a colour is "#RRGGBB", in quotes')
        rgb = tuple(bytes.fromhex(color[1:]))
        if rgb in codes:
            raise Refused(f"{where}: colors has {color} twice")
        if name not in (*names, "ignore"):
            meant = nearest(name, (*names, "ignore"))
            raise Refused(f"{where}: colors[{color}] is {name!r:.80}; did you mean {meant!r}?")
        codes[rgb] = 0 if name == "ignore" else len(table)
        table.setdefault(codes[rgb], name)
    return codes, table


def taxonomy_from_dict(description, where):
    """Taxonomy from {classes: [{name, color}], high: {code: name}, low: {code: name}}; `where` opens every error."""
    classes = description.get("classes")
    if not isinstance(classes, list) or not 2 <= len(classes) < _UNKNOWN:
        raise Refused(f"{where}: classes should be a list of 2 to {_UNKNOWN - 1} entries {{name, color}}")
    names, colors = [], []
    for i, entry in enumerate(classes):
        name, color = (entry.get("name"), entry.get("color")) if isinstance(entry, dict) else (None, None)
        if not _is_name(name) or name == "ignore" or name in names:
            raise Refused(
                f"{where}: classes[{i}].name is {name!r:.80}; it should be a new name other than ignore, on one line"
            )
        if not (isinstance(color, list) and len(color) == 3 and all(type(v) is int and 0 <= v < 256 for v in color)):
            raise Refused(f"{where}: classes[{i}].color is {color!r:.80}; it should be [r, g, b], each 0 to 255")
        names.append(name)
        colors.append(tuple(color))
    tables = {}
    for source in ("high", "low"):
        table = description.get(source)
        if not isinstance(table, dict):
            raise Refused(
                f"{where}: {source} should map codes to class names, is {table!r:.80}; {{}} if there are no such labels"
            )
        tables[source] = {}
        for code, name in table.items():
            if type(code) is not int or abs(code) >= 2**63:
                raise Refused(f"{where}: {source} has the code {code!r:.80}; codes are integers, as pixels are")
            if name not in (*names, "ignore"):
                meant = nearest(name, (*names, "ignore"))
                raise Refused(f"{where}: {source}[{code}] is {name!r:.80}; did you mean {meant!r}?")
            tables[source][code] = IGNORE if name == "ignore" else names.index(name)
    return Taxonomy(tuple(names), tuple(colors), **tables)


def _is_name(value):
    return isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable()


def taxonomy_to_dict(taxonomy):
    """The inverse of taxonomy_from_dict, of plain values only."""

    def named(table):
        return {code: "ignore" if i == IGNORE else taxonomy.names[i] for code, i in sorted(table.items())}

    classes = [
        {"name": name, "color": list(color)} for name, color in zip(taxonomy.names, taxonomy.colors, strict=True)
    ]
    return {"classes": classes, "high": named(taxonomy.high), "low": named(taxonomy.low)}


def merge(codes, table, where):
    """Merged classes of native codes by table look-up.

    codes:   integer array of any shape
    table:   {code: class index or IGNORE}
    where:   names the codes' file in errors
    returns: uint8 array of the same shape
    raises:  Refused listing each code that the table does not know, and how often it stands there
    """
    if codes.dtype == np.uint8:
        values, merged = np.arange(256), codes
    elif np.issubdtype(codes.dtype, np.integer):
        values, merged = np.unique(codes, return_inverse=True)
        merged = merged.reshape(codes.shape)
    else:
        raise Refused(f"{where}: labels should be integers, are {codes.dtype}")
    lookup = np.array([table.get(value, _UNKNOWN) for value in values.tolist()], np.uint8)
    merged = lookup[merged]
    unknown = merged == _UNKNOWN
    if unknown.any():
        found, counts = np.unique(codes[unknown], return_counts=True)
        raise Unknown(where, Counter(dict(zip(found.tolist(), counts.tolist(), strict=True))), table)
    return merged


class Unknown(Refused):
    """Codes of a label that a taxonomy does not know. counts: Counter of how often each stands there"""

    def __init__(self, where, counts, table):
        self.where, self.counts, self.table = where, counts, table
        super().__init__(self.line())

    def __reduce__(self):  # from a worker's process it comes as its line
        return Refused, (str(self),)

    def line(self):
        listed = ", ".join(f"{code} ({self.counts[code]} times)" for code in sorted(self.counts)[:20])
        more = ", ..." if len(self.counts) > 20 else ""
        known = ", ".join(map(str, sorted(self.table)))
        return f"{self.where}: codes without a class: {listed}{more}; the taxonomy knows {known}"
