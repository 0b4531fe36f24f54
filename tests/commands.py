"""The project's commands, run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_script(*words, status=0, **environment):
    """A command of the project, in its folder -> what it printed; fails unless it ends with `status`."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=240,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def error_of(*words):
    """The one line of a command that is expected to fail with exit status 2."""
    printed = run_script(*words, status=2)
    errors = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Traceback" not in printed, printed
    return errors[0]
