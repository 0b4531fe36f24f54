"""Checkpoints: tensors and plain values, whole or not at all."""

import os
import pickle
from pathlib import Path

import torch


class CheckpointError(Exception):
    """A checkpoint that cannot be written or read; one line that names the file."""


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
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
