"""From a command to the shell: an expected error is one line on stderr and exit status 2, never a traceback.

A run that a signal stopped is one line too, with the status that shells give it: 128 + the signal's number.
"""

import argparse
import math
import multiprocessing
import os
import signal
import sys
from functools import cache

from tqdm import tqdm

from runtime.errors import Refused
from runtime.signals import Stopped

_RANK = f"rank {os.environ.get('RANK', 0)}: " if int(os.environ.get("WORLD_SIZE", 1)) > 1 else ""


def parser(description, prog=None):
    """An argparse parser whose --help shows a module's docstring as it is."""
    return argparse.ArgumentParser(prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def require_options(given, **bounds):
    """Refuse an option below its least or out of its (least, most). given: {name: value}, None where it is not given"""
    for name, bound in bounds.items():
        least, most = bound if isinstance(bound, tuple) else (bound, math.inf)
        if given[name] is not None and not least <= given[name] <= most:
            end = f"to {most}" if most < math.inf else "or more"
            raise Refused(f"--{name.replace('_', '-')} {given[name]}: should be {least} {end}")


def say(text, file=None):
    """One line above the progress bar, on stdout or on file; in one piece, since processes share a log."""
    tqdm.write(f"{text}\n", file=file, end="")


@cache
def warn(text):
    """`say` a warning once, by the first process alone."""
    if int(os.environ.get("RANK", 0)) == 0:
        say(f"warning: {text}")


def status(work, again="resumes from what is complete", error_is="", where=""):
    """Call work() -> the status to leave with: its own number, else 0; 2 or 128 + a signal after one line.

    again: what the same command does after Ctrl-C; where: stands for the file of a system's error that names none
    """
    try:
        left = work()
        return left if isinstance(left, int) else 0  # scores, for who calls main from Python, are no status
    except Refused as error:
        line = error
    except OSError as error:
        line = f"{error.filename or where}: {error.strerror or error}"
    except KeyboardInterrupt as stop:
        say(f"{_RANK}stopped; the same command {again}", sys.stderr)
        return 128 + (stop.args or [signal.SIGINT])[0]
    say(f"{error_is}{_RANK}{line}", sys.stderr)
    return 2


def run(main, at_end=lambda: None):
    """Call main() and leave. at_end: what there is to close, as a process group, where all ranks end alike."""
    try:
        left = status(main, error_is="error: ")
        if left and _RANK:  # the other ranks wait in a collective: torchrun ends them
            sys.stdout.flush()
            os._exit(left)
    except Stopped as stopped:  # on all ranks alike, so the first speaks for them
        left = 128 + stopped.number
        if os.environ.get("RANK", "0") == "0":
            say(stopped, sys.stderr)
    finally:  # an error leaves loaders open, and Python would wait for their workers, which pass over a SIGTERM
        for worker in multiprocessing.active_children():
            worker.kill()
    at_end()
    sys.exit(left)
