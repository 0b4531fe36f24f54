"""CSV and plain lists, and paths in them that stay in their folder."""

import csv
import os
import re

from runtime.errors import Refused, naming, nearest
from runtime.files import require_file

# Control characters, and those that turn the direction of writing: a name would not be what it looks like.
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def read_csv(path, required, optional=()):
    """[(line number, row)] of a CSV with these columns; absent optional cells are "".

    Other columns are left out, but refused where some are optional: a misspelt `high` would go unnoticed.
    """
    require_file(path)
    with naming(path, "not a CSV in UTF-8: "), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        missing = [column for column in required if column not in columns]
        if missing:
            raise Refused(f"{path}: no column {missing[0]!r}; the header should hold {','.join(required)}")
        twice = [column for column in columns if column and columns.count(column) > 1]
        if twice:
            raise Refused(f"{path}: the column {twice[0]!r:.80} stands twice in the header")
        known = [*required, *optional]
        for column in columns if optional else ():
            if column not in known:
                raise Refused(f"{path}: unknown column {column!r:.80}; did you mean {nearest(column, known)!r}?")
        rows = []
        for row in reader:
            short = [column for column in required if row[column] is None]
            if short:
                raise Refused(f"{path}, line {reader.line_num}: no value for {short[0]!r}")
            if None in row:
                raise Refused(f"{path}, line {reader.line_num}: more cells than the header's {len(columns)} columns")
            cells = {key: (row.get(key) or "").strip() for key in known}
            for key, cell in cells.items():
                require_visible(cell, f"{path}, line {reader.line_num}: {key}")
            rows.append((reader.line_num, cells))
        return rows


def read_lines(path):
    """[(line number, text)] of the lines of a .txt that are not blank."""
    require_file(path)
    with naming(f"{path}: cannot be read"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def require_visible(text, where):
    """Refuse text that holds control or bidirectional characters."""
    if UNSEEN.search(text):
        raise Refused(f"{where}: {text[:80]!a} holds a control or bidirectional character")


def relative_path(path, where):
    """The path in its shortest form; Refused if its name leads out of the folder that it is relative to.

    Symbolic links are followed as the file system has them: `data.prepare --tiled` makes some.
    """
    require_visible(path, where)
    shortest = os.path.normpath(path) if path else ""
    if os.path.isabs(path) or shortest == ".." or shortest.startswith(f"..{os.sep}"):
        raise Refused(f"{where}: {path!r:.300} leaves the folder; paths are relative and stay in it or its links")
    return shortest
