"""Checkpoints: tensors and plain values, whole or not at all."""

import math
from pathlib import Path

import torch

from runtime.errors import DiskFull, Refused, reason
from runtime.files import open_whole, require_file


def require_finite(record, networks, run_dir, step):
    """Stop a run of which a recorded value, or a weight of the networks given, is not finite: it would spoil last.pt.

    raises: Refused, the same on every rank, since both are
    """
    weights = [p.detach().isfinite().all() for network in networks for p in network.parameters()]
    bad = [name for name, value in record.items() if not math.isfinite(value)]
    if bad or weights and not torch.stack(weights).all():
        kept = "last.pt is still good" if (Path(run_dir) / "last.pt").exists() else "nothing was saved yet"
        raise Refused(
            f"{run_dir}: {', '.join(bad) or 'a weight'} is not finite at step {step}; {kept}; "
            "try a lower train.learning_rate first"
        )


def save(path, state):
    """Write `state`; the file under `path` is always whole. raises: DiskFull, and what stood under `path` stays"""
    try:
        with open_whole(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        if isinstance(error.__context__, OSError):  # torch makes a riddle of the system's error
            error = error.__context__
        kept = "the previous checkpoint stays" if Path(path).exists() else "nothing was written"
        raise DiskFull(f"{path}: could not be saved ({reason(error)}); {kept}") from None


def load(path):
    """The state under `path`, on the CPU. Tensors and plain values only: nothing in the file is executed."""
    require_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError
        return state
    except Exception as error:  # a damaged archive raises nearly anything
        raise Refused(f"{path}: is not a checkpoint, or is damaged ({type(error).__name__})") from None
