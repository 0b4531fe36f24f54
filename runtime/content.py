"""Whether files are those of before: by their content, wherever they lie. Times of change only spare reading it."""

import hashlib
import os

from runtime.files import require_file

PIECE = 2**16
EDGES = 2 * PIECE  # bytes read of a training image: its head and its tail
WHOLE = 2**24  # of a label or a scene: all, or of a larger one pieces from head to tail
MOST_FILES = 20_000  # read of a set, evenly spread; of further ones the size tells, as compressed files rarely share it


def checksum(path, most=WHOLE):
    """Of a file's size and of up to `most` of its bytes. raises: OSError, Refused"""
    require_file(path)
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        if size <= most:
            digest.update(file.read())
        else:
            last = most // PIECE - 1
            for i in range(last + 1):
                file.seek((size - PIECE) * i // last)
                digest.update(file.read(PIECE))
    return digest.hexdigest()


def record(files, before=None):
    """{"times", "content"} of files, in plain values, for a later run to compare "content".

    files:  [(name, path, most)], names as they stay when all is copied elsewhere; most: as in checksum
    before: an earlier record: where no size and no time differs (ctime among them, which no program can put back), it
            holds, and nothing is read
    raises: OSError, Refused
    """
    stats = [(name, os.stat(path)) for name, path, _ in files]
    times = _digest((name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats)
    if before and before["times"] == times:
        return before
    every = len(files) // MOST_FILES + 1
    read = {name: checksum(path, most) for name, path, most in files[::every]}
    return {"times": times, "content": _digest((name, stat.st_size, read.get(name)) for name, stat in stats)}


def _digest(rows):
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(f"{row!r}\n".encode())
    return digest.hexdigest()
