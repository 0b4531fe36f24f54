"""Made-up landscapes with coarse labels, for tests and the demo.

    python -m data.synthetic OUT                                 # 400 tiles of 128 px, 1 m; some ten seconds

Each tile is a landscape of its own (landscape.py), drawn from (seed, number of the tile): neither the other
tiles nor the number of workers changes it.
"""

import sys
from pathlib import Path

from data.synthetic.tile_set import make_tile_set
from runtime import command
from runtime.workers import default_workers


def main(arguments=None):
    parser = command.parser(__doc__, "python -m data.synthetic")
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder of the tile set")
    add("--tiles", type=int, default=400, metavar="N", help="how many (default 400)")
    add("--tile-px", type=int, default=128, metavar="PX", help="side of a tile (default 128)")
    add("--scale", type=int, default=16, metavar="N", help="pixels along a coarse cell (default 16)")
    add("--bands", type=int, default=3, metavar="K", help="3, or 4 with near infrared (default 3)")
    add("--seed", type=int, default=0, help="of landscapes and splits (default 0)")
    add("--workers", type=int, default=default_workers(), metavar="N", help="processes (default: one per processor)")
    given = vars(parser.parse_args(arguments))
    out = given.pop("out")
    return command.status(lambda: make_tile_set(out, **given), "begins anew", where=out)


if __name__ == "__main__":
    sys.exit(main())
