"""Is this tile set whole?

    python -m data.check ROOT               the manifest, and every tile's header
    python -m data.check ROOT --decode      every pixel too

Names everything that is wrong, one line each, then a count. Ends with 0 if nothing is wrong, else with 2.
"""

import sys
from contextlib import closing
from functools import partial
from pathlib import Path

from data.manifest import read_description, read_tiles
from data.rasters import geotiff
from data.rasters.alignment import check_high, check_label, tile_grid
from data.taxonomy import merge
from runtime import command
from runtime.errors import Refused
from runtime.workers import default_workers, map_unordered

ROWS_PER_JOB = 64  # of headers; pixels are decoded tile by tile, so that a crash is one tile's


def check(root, decode=False, workers=1, same_crs=False):
    """(tiles in the manifest, one line for each thing that is wrong, in a fixed order)."""
    root = Path(root)
    description = read_description(root)
    rows, problems = read_tiles(root)
    users = {}
    for row in rows:
        for kind in ("image", "high", "low"):
            first = users.setdefault(row[kind], row["tile"]) if row[kind] else row["tile"]
            if first != row["tile"]:
                problems.append(f"{root / row[kind]}: belongs to two tiles, {first} and {row['tile']}")
    per_job, died = (1, partial(_crashed, root)) if decode else (ROWS_PER_JOB, None)
    jobs = [rows[i : i + per_job] for i in range(0, len(rows), per_job)]
    found, check_rows = [], partial(_check_rows, root, description, decode, same_crs=same_crs)
    with closing(map_unordered(check_rows, jobs, workers, "tiles", died)) as done:
        for lines in done:
            found += lines
    return len(rows), problems + sorted(found)


def _check_rows(root, description, decode, rows, same_crs=False):
    return [line for row in rows for line in _check_tile(root, description, decode, row, same_crs)]


def _crashed(root, rows):
    files = ", ".join(row[kind] for row in rows for kind in ("image", "high", "low") if row[kind])
    return [f"{root}/{files}: reading one of them ends the process (a crash inside a codec, or out of memory)"]


def _check_tile(root, description, decode, row, same_crs):
    """Lines on what is wrong with one tile's files, each on its own and against each other."""
    headers, problems = {}, []
    for kind in ("image", "high", "low"):
        if not row[kind]:
            continue
        try:
            with geotiff.open_raster(root / row[kind]) as raster:
                header = headers[kind] = raster.header
                if kind == "image":
                    problems += _check_image(header, description)
                else:
                    check_label(header)
                if decode:
                    pixels = raster.read()
                    if kind != "image":
                        merge(pixels[..., 0], getattr(description.taxonomy, kind), header.path)
        except Refused as error:
            problems.append(str(error))
    try:
        if "image" in headers and "high" in headers:
            check_high(headers["image"], headers["high"], same_crs)
        if "image" in headers and "low" in headers:
            tile_grid(headers["image"], headers["low"], description.scale, same_crs)
    except Refused as error:
        problems.append(str(error))
    return problems


def _check_image(header, description):
    px = description.tile_px
    for what, here, wanted in (
        ("size", (header.height, header.width), (px, px)),
        ("bands", header.bands, description.bands),
        ("type", str(header.dtype), description.dtype),
    ):
        if here != wanted:
            yield f"{header.path}: {what} is {here}, dataset.yaml says {wanted}"


def main(arguments=None):
    parser = command.parser(__doc__, "python -m data.check")
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the tile set")
    parser.add_argument("--decode", action="store_true", help="decode every tile, and look up every label code")
    parser.add_argument("--same-crs", action="store_true", help="as it was given to data.prepare --tiled")
    parser.add_argument(
        "--workers", type=int, default=default_workers(), metavar="N", help="processes (default: one a processor)"
    )
    given = parser.parse_args(arguments)
    return command.status(lambda: _report(given), "begins anew")


def _report(given):
    command.require_options(vars(given), workers=1)
    tiles, problems = check(given.root, given.decode, given.workers, given.same_crs)
    for line in problems:
        print(line)
    print(f"{given.root}: {tiles} tiles, {len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}")
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
