"""A cloud-optimised GeoTIFF: all directories first, then the smallest overview's tiles, the full resolution's last.

So a reader over the network learns of all resolutions in one request. As GDAL's COG driver lays them, ghost area and
tiles framed by their sizes included (gdal.org/drivers/raster/cog.html#file-format-details).
"""

import struct

import numpy as np

GHOST = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(GHOST) + GHOST
FRAME = 4  # bytes before and after each tile
OFFSETS, COUNTS = 324, 325
TYPES = {1: "B", 2: "B", 3: "<u2", 4: "<u4", 12: "<f8", 16: "<u8"}


def tag(code, kind, values):
    """(code, type, count, bytes) of numbers; of text with type 2."""
    data = values + b"\0" if kind == 2 else np.asarray(values, TYPES[kind]).tobytes()
    return code, kind, len(data) // np.dtype(TYPES[kind]).itemsize, data


def layout(pages, classic_bytes):
    """What stands before the tiles: header, ghost area, directories.

    pages:         [(tags, bytes of each tile)], full resolution first
    classic_bytes: a larger file is a BigTIFF
    returns:       (bytes, whether it is a BigTIFF); the tiles follow, the last page's first, each as `framed` has it
    """
    stored = sum(size + 2 * FRAME for _, sizes in pages for size in sizes)
    for big in (False, True):
        head = _head(pages, [np.zeros(len(sizes), np.uint64) for _, sizes in pages], big)  # for its length
        if len(head) + stored <= classic_bytes:
            break
    offsets, position = [], len(head)
    for _, sizes in reversed(pages):
        ends = position + np.cumsum(np.asarray(sizes, np.uint64) + 2 * FRAME)
        offsets.insert(0, ends - np.asarray(sizes, np.uint64) - FRAME)
        position = int(ends[-1])
    return _head(pages, offsets, big), big


def framed(data):
    """A tile as it stands in the file."""
    return struct.pack("<I", len(data)) + data + (data[-FRAME:] if len(data) >= FRAME else bytes(FRAME))


def _head(pages, offsets, big):
    parts = [struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else struct.pack("<2sHI", b"II", 42, 0), GHOST]
    at = sum(map(len, parts))
    parts.append(bytes(at % 2))
    at += at % 2
    first, kind = at, 16 if big else 4
    for i, ((tags, sizes), places) in enumerate(zip(pages, offsets, strict=True)):
        tags = sorted([*tags, tag(OFFSETS, kind, places), tag(COUNTS, 4, sizes)])
        parts.append(_directory(tags, at, i + 1 == len(pages), big))
        at += len(parts[-1])
    parts[0] = parts[0][:-8] + struct.pack("<Q", first) if big else parts[0][:-4] + struct.pack("<I", first)
    return b"".join(parts)


def _directory(tags, at, last, big):
    """One directory at a place of the file, and the values that do not fit into its entries; the next one follows."""
    head, word, room = ("<Q", "<Q", 8) if big else ("<H", "<I", 4)
    data_at = at + struct.calcsize(head) + len(tags) * (12 + 8 * big) + room
    entries, values = [], []
    for code, kind, count, data in tags:
        inline = len(data) <= room
        entries.append(struct.pack("<HH" + word[1:], code, kind, count))
        entries.append(data.ljust(room, b"\0") if inline else struct.pack(word, data_at))
        if not inline:
            values.append(data + bytes(-len(data) % 8))
            data_at += len(values[-1])
    values = b"".join(values)
    filler = bytes(data_at % 2)
    following = 0 if last else data_at + len(filler)
    return b"".join([struct.pack(head, len(tags)), *entries, struct.pack(word, following), values, filler])
