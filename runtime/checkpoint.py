"""Checkpoints: tensors and plain values, whole or not at all."""

import contextlib
import math
import os
import pickle
from pathlib import Path

import torch


class CheckpointError(Exception):
    """A checkpoint that cannot be written or read; one line that names the file."""


class TrainingError(Exception):
    """A run that cannot go on; one line."""


def require_finite(record, networks, run_dir, step):
    """Stop a run of which a recorded value, or a weight of the networks given, is not finite: it would spoil last.pt.

    raises: TrainingError, the same on every rank, since both are
    """
    finite = all(math.isfinite(value) for value in record.values())
    for network in networks:
        finite = finite and bool(torch.stack([p.detach().isfinite().all() for p in network.parameters()]).all())
    if not finite:
        kept = "stays as last.pt" if (Path(run_dir) / "last.pt").exists() else "was not reached yet"
        raise TrainingError(
            f"{run_dir}: the loss is not finite at step {step} ({record['loss']}); the last good checkpoint {kept}; "
            "a lower train.learning_rate is the first thing to try"
        )


def save(path, state):
    """Write `state` to a temporary name, flush it to disk, then rename: the file under `path` is always whole.

    raises: CheckpointError when the disk is full or the folder cannot be written; what stood under `path` stays
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        kept = "the previous checkpoint stays" if path.exists() else "nothing was written"
        raise CheckpointError(f"{path}: could not be saved ({reason}); {kept}") from None


def load(path):
    """The state under `path`, on the CPU. Tensors and plain values only: nothing in the file is executed.

    raises: CheckpointError when the file is missing, damaged or holds anything else
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: is damaged, or holds more than tensors and plain values; not loaded") from None
    except Exception as error:  # a damaged archive raises nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: is not a readable checkpoint ({reason[:120]})") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: is not a checkpoint of this project (it holds a {type(state).__name__})")
    return state


def remove_leftovers(folder):
    """Delete temporary files of saves that a kill broke off."""
    for leftover in Path(folder).glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _flush_folder(folder):
    with contextlib.suppress(OSError):  # some network file systems refuse; the file itself is on disk
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
