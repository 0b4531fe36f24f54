"""The project's own commands as child processes: one from its beginning to its end, or some at a time."""

import os
import shlex
import signal
import subprocess
import sys
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from runtime.errors import Refused
from runtime.signals import interrupt

ROOT = Path(__file__).resolve().parent.parent
RUNNING = []  # processes, which are asked to stop where one fails or a signal comes


def command(*words):
    """One command, alone. raises: Refused where it fails"""
    side_by_side({"it": words}, {}, 1, str)


def side_by_side(words, after, jobs, name, then=None):
    """Run {key: words of a command}, `jobs` at a time, in order.

    after: {key: an earlier key, whose command must have ended before}; name: of a key, before its lines
    then:  {key: words of a command that follows at once}
    raises: Refused where one fails; KeyboardInterrupt where a signal asks to stop. Those that run save and leave
    """
    signal.signal(signal.SIGTERM, interrupt)
    jobs, futures = min(jobs, len(words)), {}
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        try:
            for key in words:
                before = futures[after[key]] if key in after else None
                steps = [commands[key] for commands in (words, then or {}) if key in commands]
                futures[key] = pool.submit(_run, steps, before, name(key) if jobs > 1 else None, pool)
            wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in filter(Future.done, futures.values()):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                process.terminate()
            raise


def _run(steps, before, name, pool):
    """Commands, one after the other."""
    if before:
        before.result()
    for words in steps:
        _run_one([str(word) for word in words], name, pool)


def _run_one(words, name, pool):
    """One command, printed and run. Beside others it has one thread, and `name` before each of its lines."""
    more = {}
    print("$ python " + shlex.join(words), flush=True)
    if name is not None:
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        more["env"] = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, **more) as process:
        RUNNING.append(process)
        for line in process.stdout or ():
            print(f"[{name}] {line}", end="", flush=True)
    RUNNING.remove(process)
    if process.returncode:
        pool.shutdown(wait=False, cancel_futures=True)  # before this thread takes up the next one
        raise Refused(f"stopped: python {shlex.join(words)} failed; fix the error and run the same command again")

