"""Is this tile set whole?

    python -m data.check ROOT               the manifest, and every tile's header
    python -m data.check ROOT --decode      every pixel too

It prints one line for each wrong file, then the ground that splits share, then a count. The exit status is 0 if
nothing is wrong, else 2.
"""

import sys
from functools import partial
from pathlib import Path

from data import tile_io
from data.ground import ground, shared_ground
from data.label_masks import require_label
from data.laying import require_same_pixels, tile_grid
from data.manifest import read_manifest
from data.taxonomy import merge
from data.tiles import require_image
from runtime import command
from runtime.errors import Refused
from runtime.workers import default_workers, map_unordered


def check(root, decode=False, workers=1):
    """(tiles in the manifest, one line for each thing that is wrong in a fixed order, lines on shared ground)."""
    description, rows = read_manifest(root)
    one = partial(check_tile, Path(root), description, decode)
    records, problems = zip(*map_unordered(one, rows, workers, "tiles"), strict=True)
    records = sorted(records, key=lambda record: record["tile"])
    notes, systems = list(shared_ground(records)), {record["ground"][0] for record in records if record["ground"]}
    if len(systems) > 1:
        where = "only data.prepare --scenes can tell where these overlap"
        notes.append(f"note: the tiles are in {len(systems)} coordinate systems; {where}")
    return len(rows), sorted(sum(problems, [])), notes


def check_tile(root, description, decode, row):
    """The tile's row with its ground; and lines on what is wrong with its files, alone and against each other."""
    image, place, problems = None, None, []
    for kind in [kind for kind in ("image", "high", "low") if row[kind]]:
        try:
            stored = tile_io.read(root / row[kind], pixels=decode)
            if kind == "image":
                image, place = stored, ground(stored.affine, stored.size, stored.system)
                require_image(image, description)
                continue
            require_label(stored)
            if decode:
                merge(stored.pixels[..., 0], getattr(description.taxonomy, kind), stored.path)
            if kind == "high" and image:
                require_same_pixels(image, stored)
            elif image:
                tile_grid(image, stored, description.scale)
        except Refused as error:
            problems.append(str(error))
    return {**row, "ground": place}, problems


def main(arguments=None):
    parser = command.parser(__doc__, "python -m data.check")
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the tile set")
    parser.add_argument("--decode", action="store_true", help="decode every tile, and look up every label code")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes (default: one per processor)")
    given = parser.parse_args(arguments)

    def report():
        tiles, problems, notes = check(given.root, given.decode, given.workers)
        for line in (*problems, *notes):
            print(line)
        count = f"{len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}"
        print(f"{given.root}: {tiles} tiles, {count}{'; build the set again in another folder' if problems else ''}")
        return 2 if problems else 0

    return command.status(report, "begins anew")


if __name__ == "__main__":
    sys.exit(main())
