"""The project's commands, run as a user runs them."""

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SECONDS = 1800  # only catches a hang: ten times what a busy machine needs

# Two of three seconds of most commands are the import of torch: they are forked from a process that has it already.
# That process imports nothing of the project.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch.distributed", "torchvision.transforms.v2.functional", "tifffile", "yaml", "tqdm"])


def run_script(*words, status=0, **environment):
    """A command of the project, in its folder -> what it printed; fails unless it ends with `status`."""
    words = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{name}" for name in ("stdout", "stderr")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        process = FORKS.Process(target=_command, args=(words, paths, environment))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            pytest.fail(f"{words} took more than {SECONDS} s")
        printed = "".join(Path(path).read_text(errors="replace") for path in paths)
    assert process.exitcode == status, printed
    return printed


def on_two_ranks(*words):
    """A command as torchrun starts it in two processes -> what they printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    with ThreadPoolExecutor(2) as pool:
        ranks = [pool.submit(run_script, *words, **place, RANK=rank, LOCAL_RANK=rank) for rank in "01"]
    return "".join(rank.result() for rank in ranks)


def _command(words, paths, environment):
    """What `python words...` does from here on, in the project's folder."""
    for number, path in enumerate(paths, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)  # which the variable says too late
    os.chdir(ROOT)
    sys.path[0] = str(ROOT)
    if words[0] == "-c":
        exec(words[1], {})
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def error_of(*words):
    """The one line of a command that is expected to fail with exit status 2."""
    printed = run_script(*words, status=2)
    errors = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Traceback" not in printed, printed
    return errors[0]
