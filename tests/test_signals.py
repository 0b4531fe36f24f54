"""Stopping and going on: signals to one process and to torchrun, Ctrl-C to a whole group, one rank's death."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from commands import ROOT
from made_runs import assert_same, losses, records, saved, trained

from data.loading import sample_index
from data.tiles import TileSet

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
SMALL = ["model.width=8", "train.batch_size=8", "train.precision=off", "run.log_every=1"]


class Begun(contextlib.AbstractContextManager):
    """A command of the project in a group of its own, as a terminal starts it; ended with its `with` block."""

    def __init__(self, *words):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        listens = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # who runs the tests may ignore Ctrl-C
        how = {"cwd": ROOT, "env": environment, "start_new_session": True, "preexec_fn": listens}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen([sys.executable, *map(str, words)], **how, **pipes)

    def until(self, holds):
        end = time.monotonic() + 120
        while not holds():
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.01)

    def end(self, seconds=60):
        """-> (exit status, what it printed)"""
        printed, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, printed

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.mark.parametrize("script, config, number, more", [
    ("train_seg.py", "agg_app", signal.SIGINT, ["train.average=0.9", "train.frozen_share=0.75"]),
    ("train_mae.py", "mae", signal.SIGTERM, ["data.crop_px=64"]),
])  # fmt: skip
def test_a_signal_to_the_group_saves_and_the_run_goes_on_bit_for_bit(tile_set, tmp_path, script, config, number, more):
    command = [f"configs/demo/{config}.yaml", f"data.root={tile_set}", *SMALL, *more, "data.workers=2",
               "train.epochs=2", "train.eval_every=12"]  # fmt: skip
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    states = [trained(*command, "data.workers=0", f"run.dir={straight}")]
    with Begun(script, *command, f"run.dir={stopped}") as run:
        run.until(lambda: len(records(stopped)) >= 3)
        os.killpg(run.process.pid, number)  # the loader's workers hear it too
        status, printed = run.end()
    step, steps = saved(stopped)["step"], states[0]["step"]
    said = f"{stopped}: {number.name}: stopped at step {step} of {steps}; the same command resumes it"
    assert status == 128 + number and printed.splitlines()[-1] == said and "Traceback" not in printed
    assert 3 <= step < 12 and records(stopped)[-1]["step"] == step
    states.append(trained(*command, "data.workers=0", f"run.dir={stopped}"))
    for state in states:
        state["config"].pop("run.dir")
    assert_same(*states, "last.pt", 0)
    assert losses(straight) == losses(stopped)


def test_a_second_signal_leaves_at_once_but_not_the_same_one_passed_on_twice():
    code = "import time; from runtime.signals import StopRequest; StopRequest(); print(1, flush=True); time.sleep(99)"
    with Begun("-c", code) as run:
        assert run.process.stdout.readline()
        for seconds in (0, 0.1, 1.1):
            time.sleep(seconds)
            assert run.process.poll() is None
            run.process.send_signal(signal.SIGTERM)
        assert run.end(5) == (143, "")


def test_two_ranks_end_with_the_error_of_one_go_on_and_stop_at_one_step(tile_set, tmp_path):
    root, run_dir = tmp_path / "set", tmp_path / "run"
    shutil.copytree(tile_set, root)
    tiles = TileSet(root, "train")
    late = sample_index(0, 5, 7, 8, len(tiles))  # the second rank reads it in step 5, and nobody before
    victim = root / tiles.rows[late]["image"]
    sound = victim.read_bytes()
    victim.write_bytes(sound[:2000])
    command = [*TORCHRUN, "train_seg.py", "configs/demo/agg.yaml", f"data.root={root}", f"run.dir={run_dir}", *SMALL,
               "data.workers=0", "train.epochs=500", "train.eval_every=2"]  # fmt: skip
    with Begun(*command) as run:
        status, printed = run.end(120)
    assert status != 0 and "error: rank 1" in printed and f"{victim}: " in printed
    victim.write_bytes(sound)
    before, since = saved(run_dir)["step"], (run_dir / "last.pt").stat().st_mtime_ns
    assert before == 4
    with Begun(*command) as run:
        run.until(lambda: (run_dir / "last.pt").stat().st_mtime_ns != since)
        run.process.terminate()
        status, printed = run.end()
    step = saved(run_dir)["step"]
    assert status != 0 and f"resuming from step {before}" in printed
    assert step > before and printed.count(f"stopped at step {step} of ") == 1


def test_ctrl_c_ends_a_command_that_works_in_processes_with_one_line(tmp_path):
    out = tmp_path / "set"
    command = ["-m", "data.synthetic", out, "--tiles", 5000, "--tile-px", 64, "--workers", 2]
    with Begun(*command) as run:
        run.until(lambda: len(list(out.glob("images/*.tif"))) > 3)
        os.killpg(run.process.pid, signal.SIGINT)
        status, printed = run.end(20)
    assert status == 130 and printed == "stopped; the same command begins anew\n"
