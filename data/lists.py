"""CSV lists, and paths in them that stay in their folder."""

import csv
import os

from runtime.errors import Refused, naming, nearest
from runtime.files import require_file


def read_csv(path, required, optional=()):
    """[(line number, row)] of a CSV with these columns; absent optional cells are "".

    Other columns are left out, but refused where some are optional: a misspelt `high` would go unnoticed.
    """
    require_file(path)
    with naming(path, "not a CSV in UTF-8: "), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns, known = reader.fieldnames or (), (*required, *optional)
        for column in required:
            if column not in columns:
                wanted = ",".join(required)
                raise Refused(f"{path}: no column {column!r}; the header should hold {wanted}, separated by commas")
        for column in columns if optional else ():
            if column not in known:
                raise Refused(f"{path}: unknown column {column!r}; did you mean {nearest(column, known)!r}?")
        rows = []
        for row in reader:
            if None in row or None in row.values():  # a cell left out would move the others, or be no label in silence
                raise Refused(f"{path}, line {reader.line_num}: it should have {len(columns)} cells, as the header has")
            rows.append((reader.line_num, {key: row.get(key, "").strip() for key in known}))
        return rows


def relative_path(path, where):
    """The path in its shortest form; Refused if its name leads out of the folder that it is relative to.

    Symbolic links are followed as the file system has them: `data.prepare --tiled` makes some.
    """
    shortest = os.path.normpath(path) if path else ""
    if os.path.isabs(path) or shortest == ".." or shortest.startswith(f"..{os.sep}"):
        raise Refused(f"{where}: {path!r} leaves the folder; paths are relative and stay in it or its links")
    return shortest
