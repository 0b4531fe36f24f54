"""Files that are whole or not there: written under a temporary name, flushed to disk, renamed."""

import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def open_whole(path):
    """A binary file that stands under `path` only when the `with` block ends well; until then an older one stays."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path, text):
    """raises: OSError that names the file, as where the disk is full"""
    try:
        with open_whole(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # a failed write names no file


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
