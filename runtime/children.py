"""The project's own commands as child processes: one from its beginning to its end, or some at a time."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from runtime.errors import Refused

ROOT = Path(__file__).resolve().parent.parent
RUNNING = []  # processes, for the signals that they are to get
ASKED = []  # signals that asked to stop


STOPPED = "stopped; the same line goes on"


class Command:
    """One command, printed and begun. Beside others it has one thread, and `name` before each of its lines."""

    def __init__(self, words, name=None):
        if ASKED:
            raise Refused(STOPPED)
        self.words, self.started, self.reader = [str(word) for word in words], time.perf_counter(), None
        print("$ python " + shlex.join(self.words), flush=True)
        more = {}
        if name is not None:
            more = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
            more["env"] = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen([sys.executable, *self.words], cwd=ROOT, **more)
        RUNNING.append(self.process)
        # Ctrl-C reaches the commands themselves, SIGTERM is passed on: they save and leave, and so does this process.
        signal.signal(signal.SIGINT, lambda number, _: ASKED.append(number))
        signal.signal(signal.SIGTERM, _pass_on_sigterm)
        if name is not None:
            self.reader = threading.Thread(target=self._pass_on, args=(name,), daemon=True)
            self.reader.start()

    def _pass_on(self, name):
        for line in self.process.stdout:
            print(f"[{name}] {line}", end="", flush=True)

    def ended(self):
        return self.process.poll() is not None

    def stop(self):
        if not ASKED:  # else it has its signal, and a second one would make it leave without its save
            self.process.terminate()
        self._wait()

    def result(self):
        """Minutes taken. raises: Refused where it was stopped or failed"""
        status = self._wait()
        if status in {sign for n in (signal.SIGINT, signal.SIGTERM) for sign in (128 + n, -n)}:
            raise Refused(STOPPED)
        if status != 0:
            raise Refused(f"stopped: python {shlex.join(self.words)} failed; mend it and run the same line again")
        return (time.perf_counter() - self.started) / 60

    def _wait(self):
        status = self.process.wait()
        RUNNING.remove(self.process)
        if self.reader:
            self.reader.join()
        return status


def _pass_on_sigterm(number, _):
    ASKED.append(number)
    for process in RUNNING:
        process.terminate()


def command(*words):
    """One command, alone -> minutes taken. raises: Refused where it was stopped or failed"""
    return Command(words).result()


def side_by_side(words, after, jobs, name):
    """{key: words of a command} -> {key: minutes taken}, `jobs` at a time, in order but for those that must wait.

    after: {key: key of the command that must have ended before}; name: of a key, before its lines
    raises: Refused where one was stopped or failed; those beside it are stopped, they save and leave
    """
    waiting, running, minutes = list(words), {}, {}
    jobs = min(jobs, len(words))
    try:
        while waiting or running:
            ready = [key for key in waiting if after.get(key) not in (*waiting, *running)]
            if ready and len(running) < jobs:
                waiting.remove(ready[0])
                running[ready[0]] = Command(words[ready[0]], name(ready[0]) if jobs > 1 else None)
                continue
            for key in [key for key, child in running.items() if child.ended()]:
                minutes[key] = running.pop(key).result()
            time.sleep(0.05)
    finally:
        for child in running.values():
            child.stop()
    return minutes
