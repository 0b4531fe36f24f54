"""Checkpoints: tensors and plain values, whole or not at all."""

import contextlib
import math
import os
import pickle
import zipfile
from pathlib import Path

import torch

from runtime.errors import DiskFull, Refused
from runtime.files import open_whole, require_file


def require_finite(record, networks, run_dir, step):
    """Stop a run of which a recorded value, or a weight of the networks given, is not finite: it would spoil last.pt.

    raises: Refused, the same on every rank, since both are
    """
    finite = all(math.isfinite(value) for value in record.values())
    for network in networks:
        finite = finite and bool(torch.stack([p.detach().isfinite().all() for p in network.parameters()]).all())
    if not finite:
        kept = "stays as last.pt" if (Path(run_dir) / "last.pt").exists() else "was not reached yet"
        raise Refused(
            f"{run_dir}: the loss is not finite at step {step} ({record['loss']}); the last good checkpoint {kept}; "
            "a lower train.learning_rate is the first thing to try"
        )


def save(path, state):
    """Write `state`; the file under `path` is always whole.

    raises: Refused when the disk is full or the folder cannot be written; what stood under `path` stays
    """
    path = Path(path)
    try:
        with open_whole(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        if isinstance(error.__context__, OSError):  # torch makes a riddle of the system's error
            error = error.__context__
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        kept = "the previous checkpoint stays" if path.exists() else "nothing was written"
        raise DiskFull(f"{path}: could not be saved ({why}); {kept}") from None


def load(path):
    """The state under `path`, on the CPU. Tensors and plain values only: nothing in the file is executed.

    raises: Refused when the file is missing, damaged or holds anything else
    """
    require_file(path)
    try:
        _require_plain_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Refused(f"{path}: no such checkpoint") from None
    except pickle.UnpicklingError:
        raise Refused(f"{path}: is damaged, or holds more than tensors and plain values; not loaded") from None
    except Exception as error:  # a damaged archive raises nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(f"{path}: is not a readable checkpoint ({reason[:120]})") from None
    if not isinstance(state, dict):
        raise Refused(f"{path}: is not a checkpoint of this project (it holds a {type(state).__name__})")
    return state


@contextlib.contextmanager
def refusing(path, maker="this run"):
    """Whatever a checkpoint of another make breaks inside, loading networks and optimisers, becomes one line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        last = (str(error).splitlines() or [""])[-1].strip()[:200] or type(error).__name__
        raise Refused(f"{path}: is not a checkpoint of {maker} ({last})") from None


def _require_plain_archive(path):
    """torch writes archives that are not compressed: one that unpacks to more than its size would be a bomb."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if sum(member.file_size for member in members) > os.path.getsize(path):
        raise ValueError("it unpacks to more than its size")
    if any(member.filename.endswith("constants.pkl") for member in members):
        raise ValueError("it is a TorchScript program")
