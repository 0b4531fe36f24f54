"""The project's own commands as child processes: one from its beginning to its end, or some at a time."""

import os
import shlex
import signal
import subprocess
import sys
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from runtime.errors import Refused

ROOT = Path(__file__).resolve().parent.parent
RUNNING = []  # processes, which are asked to stop where one fails or a signal comes


def command(*words):
    """One command, alone. raises: Refused where it fails"""
    side_by_side({"it": words}, {}, 1, str)


def side_by_side(words, after, jobs, name):
    """Run {key: words of a command}, `jobs` at a time, in order but for those that must wait.

    after:  {key: key of the command that must have ended before}; name: of a key, before its lines
    raises: Refused where one fails; KeyboardInterrupt where a signal asks to stop. Those that run save and leave
    """
    signal.signal(signal.SIGTERM, _interrupt)
    futures, alone = {}, min(jobs, len(words)) == 1
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for key in sorted(words, key=lambda key: key in after):  # FIFO: none waits for one that has not begun
                before = futures.get(after.get(key))
                futures[key] = pool.submit(_run, words[key], before, None if alone else name(key), pool)
            wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in filter(Future.done, futures.values()):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                process.terminate()
            raise


def _run(words, before, name, pool):
    """One command, printed and run. Beside others it has one thread, and `name` before each of its lines."""
    if before:
        before.result()
    words, more = [str(word) for word in words], {}
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
        raise Refused(f"stopped: python {shlex.join(words)} failed; mend it and run the same line again")


def _interrupt(number, _):
    raise KeyboardInterrupt(number)
