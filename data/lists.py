"""CSV and plain lists, and paths in them that stay in their folder."""

import csv
import os

from runtime.errors import Refused, naming, nearest


def read_csv(path, required, optional=()):
    """[(line number, row)] of a CSV with these columns; absent optional cells are "".

    Other columns are left out, but refused where some are optional: a misspelt `high` would go unnoticed.
    """
    with naming(path, "not a CSV in UTF-8: "), open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        missing = [column for column in required if column not in columns]
        if missing:
            raise Refused(f"{path}: no column {missing[0]!r}; the header should hold {','.join(required)}")
        known = [*required, *optional]
        for column in columns if optional else ():
            if column not in known:
                raise Refused(f"{path}: unknown column {column!r:.80}; did you mean {nearest(column, known)!r}?")
        rows = []
        for row in reader:
            short = [column for column in required if row[column] is None]
            if short:
                raise Refused(f"{path}, line {reader.line_num}: no value for {short[0]!r}")
            rows.append((reader.line_num, {key: (row.get(key) or "").strip() for key in (*required, *optional)}))
        return rows


def read_lines(path):
    """[(line number, text)] of the lines of a .txt that are not blank."""
    with naming(f"{path}: cannot be read"):
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def relative_path(path, where):
    """The path in its shortest form; Refused if its name leads out of the folder that it is relative to.

    Symbolic links are followed as the file system has them: `data.build --tiled` makes some.
    """
    shortest = os.path.normpath(path) if path else ""
    if "\0" in path or os.path.isabs(path) or shortest == ".." or shortest.startswith(f"..{os.sep}"):
        raise Refused(f"{where}: {path!r:.300} leaves the folder; paths are relative and stay in it or its links")
    return shortest
