"""From a script's main to the shell: an expected error is one line on stderr and exit status 2, never a traceback.

A run that a signal stopped is one line too, with the status that shells give it: 128 + the signal's number.
"""

import multiprocessing
import os
import signal
import sys

from runtime import distributed
from runtime.signals import Stopped


def run(main, expected):
    """Call main(); leave the process group at the end. expected: the errors that a user can cause."""
    rank = f"rank {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""
    try:
        main()
    except (*expected, OSError) as error:
        if isinstance(error, OSError):  # a folder that cannot be written, a full disk
            error = f"{error.filename}: {error.strerror}" if error.filename else error
        _leave(f"error: {rank}{error}", 2, at_once=rank)
    except KeyboardInterrupt:
        _leave(f"{rank}stopped; the same command goes on from what is complete", 128 + signal.SIGINT, at_once=rank)
    except Stopped as stopped:  # on all ranks alike, so the first speaks for them
        distributed.stop()
        _leave("" if os.environ.get("RANK", "0") != "0" else str(stopped), 128 + stopped.number)
    finally:  # an error leaves loaders open, and Python would wait for their workers, which pass over a SIGTERM
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises an error where a worker dies
        for worker in multiprocessing.active_children():
            worker.kill()
    distributed.stop()


def _leave(line, status, at_once=False):
    """at_once: under torchrun the other ranks wait in a collective; the launcher ends them when this one is gone."""
    if line:
        print(line, file=sys.stderr, flush=True)
    os._exit(status) if at_once else sys.exit(status)
