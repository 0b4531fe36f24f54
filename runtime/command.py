"""From a script's main to the shell: an expected error is one line on stderr and exit status 2, never a traceback."""

import os
import sys

from runtime import distributed


def run(main, expected):
    """Call main(); leave the process group at the end. expected: the errors that a user can cause."""
    try:
        main()
    except (*expected, OSError) as error:
        if isinstance(error, OSError):  # a folder that cannot be written, a full disk
            error = f"{error.filename}: {error.strerror}" if error.filename else error
        rank = f"rank {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""
        print(f"error: {rank}{error}", file=sys.stderr, flush=True)
        # Under torchrun the other ranks wait in a collective: leave at once, and the launcher ends them.
        os._exit(2) if rank else sys.exit(2)
    distributed.stop()
