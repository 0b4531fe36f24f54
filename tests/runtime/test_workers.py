"""Work over processes: results, and what happens when a process dies."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.errors import Refused
from runtime.workers import map_unordered

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_job_is_done_once(workers):
    assert sorted(map_unordered(math.sqrt, [1, 4, 9, 16], workers, "roots")) == [1, 2, 3, 4]


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(Refused, match="^scenes: a worker process died .* fewer --workers"):
        list(map_unordered(os._exit, [1, 1], 2, "scenes"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_end_with_the_process_that_started_them():
    code = "import time; from runtime.workers import map_unordered; list(map_unordered(time.sleep, [60, 60], 2, ''))"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.PIPE)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    workers = []
    until = time.monotonic() + 20
    while len(workers) < 2 and time.monotonic() < until:
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()}
        workers = [pid for pid, command in commands.items() if b"spawn_main" in command]
        time.sleep(0.05)
    time.sleep(0.5)  # until they have begun
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in workers):
        assert time.monotonic() < until, "workers outlive their parent"
        time.sleep(0.05)
    assert len(workers) == 2


def root_of(number):
    """Of 13 it dies, of the others it is the root."""
    if number == 13:
        os.kill(os.getpid(), signal.SIGSEGV)
    return math.sqrt(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_of_jobs_whose_process_dies_each_is_named_and_the_others_are_done(workers):
    jobs = [13, 1, 4, 9, 13, 16, 25]
    done = map_unordered(root_of, jobs, workers, "roots", died=lambda number: -number)
    assert sorted(done) == [-13, -13, 1, 2, 3, 4, 5]
