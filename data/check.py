"""Is this tile set whole?

    python -m data.check ROOT               the manifest, and every tile's header
    python -m data.check ROOT --decode      every pixel too

Names everything that is wrong, one line each, then a count; and the ground that splits share. Ends with 0 if nothing is
wrong, else with 2.
"""

import sys
from contextlib import closing
from functools import partial
from pathlib import Path

from data import tile_io
from data.ground import ground, shared_ground
from data.label_masks import require_label
from data.laying import require_same_pixels, tile_grid
from data.manifest import read_description, read_tiles
from data.taxonomy import merge
from runtime import command
from runtime.errors import Refused
from runtime.workers import default_workers, map_unordered

ROWS_PER_JOB = 64


def check(root, decode=False, workers=1):
    """(tiles in the manifest, one line for each thing that is wrong in a fixed order, lines on shared ground)."""
    root = Path(root)
    description = read_description(root)
    rows, problems = read_tiles(root)
    users = {}
    for row in rows:
        for kind in ("image", "high", "low"):
            first = users.setdefault(row[kind], row["tile"]) if row[kind] else row["tile"]
            if first != row["tile"]:
                problems.append(f"{root / row[kind]}: belongs to two tiles, {first} and {row['tile']}")
    jobs = [rows[i : i + ROWS_PER_JOB] for i in range(0, len(rows), ROWS_PER_JOB)]
    found, grounds = [], []
    with closing(map_unordered(partial(_check_rows, root, description, decode), jobs, workers, "tiles")) as done:
        for lines, places in done:
            found += lines
            grounds += places
    return len(rows), problems + sorted(found), list(shared_ground(sorted(grounds, key=lambda r: r["tile"])))


def _check_rows(root, description, decode, rows):
    problems, grounds = [], []
    for row in rows:
        lines, place = _check_tile(root, description, decode, row)
        problems += lines
        grounds.append({"tile": row["tile"], "split": row["split"], "ground": place})
    return problems, grounds


def _check_tile(root, description, decode, row):
    """Lines on what is wrong with one tile's files, each on its own and against each other; and its ground."""
    found, problems = {}, []
    for kind in ("image", "high", "low"):
        if not row[kind]:
            continue
        try:
            stored = found[kind] = tile_io.read(root / row[kind], pixels=decode)
            if kind == "image":
                problems += _check_image(stored, description)
            else:
                require_label(stored, kinds="iu")
            if decode and kind != "image":
                merge(stored.pixels[..., 0], getattr(description.taxonomy, kind), stored.path)
        except Refused as error:
            problems.append(str(error))
    image = found.get("image")
    for kind in ("high", "low") if image else ():
        try:
            if kind in found:
                _check_label(image, found[kind], kind, description.scale)
        except Refused as error:
            problems.append(str(error))
    return problems, image and ground(image.affine, image.size, image.system)


def _check_label(image, label, kind, scale):
    if kind == "high":
        require_same_pixels(image, label)
    else:
        tile_grid(image, label, scale)


def _check_image(image, description):
    px = description.tile_px
    for what, here, wanted in (
        ("size", image.size, (px, px)),
        ("bands", image.bands, description.bands),
        ("type", str(image.dtype), description.dtype),
    ):
        if here != wanted:
            yield f"{image.path}: {what} is {here}, dataset.yaml says {wanted}"


def main(arguments=None):
    parser = command.parser(__doc__, "python -m data.check")
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the tile set")
    parser.add_argument("--decode", action="store_true", help="decode every tile, and look up every label code")
    parser.add_argument(
        "--workers", type=int, default=default_workers(), metavar="N", help="processes (default: one a processor)"
    )
    given = parser.parse_args(arguments)
    return command.status(lambda: _report(given), "begins anew")


def _report(given):
    command.require_options(vars(given), workers=1)
    tiles, problems, notes = check(given.root, given.decode, given.workers)
    for line in (*problems, *notes):
        print(line)
    print(f"{given.root}: {tiles} tiles, {len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}")
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
