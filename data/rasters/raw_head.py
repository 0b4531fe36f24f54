"""What stands before the pixels of a raw GeoTIFF: made once for the tiles of a set, which differ by place alone."""

import functools
import io
import struct

import numpy as np
import tifffile

MARKS = [-1.7e-300 * (k + 1) for k in range(40)]  # stand for the doubles of a place; no georeference holds them


def raw_head(shape, dtype, extratags, layout):
    """The bytes that tifffile writes before pixels in one strip; extratags, layout: of its `write`, no palette."""
    tags, place = [], []
    for code, kind, count, values, once in extratags:
        if kind == "d":
            values, place = tuple(MARKS[len(place) : len(place) + count]), [*place, *values]
        tags.append((code, kind, count, values, once))
    head, positions = _marked(shape, np.dtype(dtype).str, tuple(tags), tuple(sorted(layout.items())))
    head = bytearray(head)
    for position, number in zip(positions, place, strict=True):
        struct.pack_into("<d", head, position, number)
    return head


@functools.lru_cache(16)
def _marked(shape, dtype, extratags, layout):
    """The head with MARKS for the place, and where each of them lies."""
    file, pixels = io.BytesIO(), np.zeros(shape, dtype)
    tifffile.imwrite(file, pixels, byteorder="<", extratags=extratags, maxworkers=1, **dict(layout))
    head = file.getvalue()[: -pixels.nbytes]
    count = sum(number for _, kind, number, *_ in extratags if kind == "d")
    return head, [head.index(struct.pack("<d", mark)) for mark in MARKS[:count]]
