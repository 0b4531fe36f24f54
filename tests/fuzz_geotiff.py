"""Damage GeoTIFFs at random and read each: pixels or Refused, within 5 s and 1 GB (data/rasters/geotiff.py).

    python tests/fuzz_geotiff.py FOLDER [--cases 20000] [--minutes 10] [--seed 0] [--out failures.json]

FOLDER holds sound files of many kinds, as $LOW2HIGH_REAL/formats does; `made` adds some with masks, alpha bands and
GeoKeys. `damaged` makes a case again from (file, seed).
They are read in a child process under a memory limit, which is replaced whenever a file ends or hangs it.
Ends with 0 where no file hung, asked for 1 GB or more, or raised anything but Refused. Linux only.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from geokeys import SCALE_AND_TIE, albers, tags

from data.rasters.geotiff import open_raster
from data.rasters.images import window_with_void
from runtime.errors import Refused

SECONDS = 5  # of processor time, so that a busy machine hangs nothing
PATIENCE_S = 60  # until a child that does not answer is ended
MEMORY = 10**9  # bytes that one file may ask for above what reading the sound files needs, counted as address space
HARD_LIMIT = 6 * 10**9  # where the system says no, so that a miss does not take the machine down
FAILURES = ("exception", "hang", "memory")
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
TAGS = (254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339, 347,
        530, 532, 700, 32997, 32998, 33550, 33922, 34264, 34735, 34736, 34737, 34887, 42112, 42113, 50674)  # fmt: skip
PLACING = (254, 338, 33550, 33922, 34264, 34735, 34736, 34737)  # masks, alpha bands, places: damaged the most
NUMBERS = (*range(9), 15, 16, 17, 31, 32, 33, 64, 127, 128, 255, 256, 257, 512, 1000, 4096, 32767, 32768, 32773, 32946,
           34712, 34887, 34925, 50000, 50001, 50002, 65535, 65536, 99999, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
           2**40, 2**63 - 1, 2**64 - 1)  # fmt: skip


def made(folder):
    """Sound files of 90 x 70 px with masks, alpha bands, GeoKeys and control points; -> their paths."""
    rng = np.random.default_rng(0)
    pixels, mask = rng.integers(0, 256, (90, 70, 4), np.uint8), rng.random((90, 70)) < 0.5
    points = (33922, "d", 12, (0, 0, 0, -77, 38, 0, 70, 90, 0, -76, 37, 0), True)
    matrix = (34264, "d", 16, (3, 1, 0, 100, 1, -3, 0, 50, *[0] * 7, 1), True)
    user = tags([(1024, 32767), (3072, 32767), (4096, 5703)], {2057: 6378137.0, 2059: 298.257}, {3073: "own"})
    kinds = {
        "mask_packbits": (pixels[..., :3], albers() + SCALE_AND_TIE, {}, {"compression": "packbits"}),
        "mask_zlib_tiles": (pixels[..., 0], user + [matrix], {"tile": (16, 32)}, {"compression": "zlib"}),
        "mask_raw": (pixels[..., :3], user + [points], {"rowsperstrip": 7}, {"rowsperstrip": 11}),
        "alpha": (pixels, albers() + SCALE_AND_TIE, {"extrasamples": (2,)}, None),
        "alpha_planar": (pixels, albers() + [points], {"extrasamples": (1,), "planarconfig": "separate"}, None),
        "alpha_big_endian": (pixels, user + SCALE_AND_TIE, {"extrasamples": (2,), "compression": "zlib"}, None),
    }
    for name, (image, place, layout, masked) in kinds.items():
        if layout.get("planarconfig"):
            image = image.transpose(2, 0, 1)
        order = ">" if name.endswith("endian") else "<"
        with tifffile.TiffWriter(folder / f"made_{name}.tif", byteorder=order, bigtiff=name == "mask_raw") as tiff:
            colour = "minisblack" if image.ndim == 2 else "rgb"
            tiff.write(image, photometric=colour, metadata=None, extratags=place, **layout)
            if masked:
                tiff.write(mask, subfiletype=4, metadata=None, **masked)
    return sorted(folder.glob("*.tif"))


def damaged(content, seed):
    """The bytes of a TIFF, damaged in one to three ways that the seed draws."""
    rng, content = random.Random(seed), bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choices((_flip, _cut, _alter_tags, _overwrite), (2, 1, 5, 1))[0](rng, content)
    return bytes(content)


def _flip(rng, content):
    end = rng.choice((16, 512, 4096, len(content), len(content)))
    for _ in range(rng.choice((1, 1, 2, 8, 64, 512))):
        position = rng.randrange(min(end, len(content)))
        content[position] = rng.choice((0, 255, content[position] ^ 1 << rng.randrange(8), rng.randrange(256)))


def _cut(rng, content):
    position, count = rng.randrange(8, len(content)), rng.choice((1, 2, 64, len(content)))
    if rng.random() < 0.2:  # something too much, which moves all that follows
        content[position:position] = bytes(count % 4096)
    else:
        del content[position : position + count]
    content.extend(bytes(max(0, 16 - len(content))))


def _overwrite(rng, content):
    """A stretch repeated from elsewhere in the file, or of one byte."""
    count = rng.choice((4, 32, 256, 4096))
    source, target = rng.randrange(len(content)), rng.randrange(len(content))
    stretch = content[source : source + count] if rng.random() < 0.7 else bytes([rng.randrange(256)]) * count
    content[target : target + len(stretch)] = stretch[: len(content) - target]


def _alter_tags(rng, content):
    """Other codes, types, counts, values and offsets of the entries of a directory, or of the directory itself."""
    entries, layout = _directory(rng, content)
    if not entries:
        return _flip(rng, content)
    order, entry_bytes, word = layout  # word: the format of counts and offsets
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        placing = [e for e in entries if struct.unpack_from(order + "H", content, e)[0] in PLACING]
        position, what = rng.choice(placing if placing and rng.random() < 0.4 else entries), rng.randrange(10)
        code, kind = struct.unpack_from(order + "HH", content, position)
        value = position + 4 + struct.calcsize(word)
        (count,) = struct.unpack_from(order + word, content, position + 4)
        if what == 0:
            struct.pack_into(order + "H", content, position, rng.choice(TAGS))
        elif what == 1:
            struct.pack_into(order + "H", content, position + 2, rng.choice((*SIZES, 0, 14, 15, 19, 65535)))
        elif what == 2:
            _put(content, order, word, position + 4, _number(rng, count))
        elif what == 3:  # the directory's own length, or where the next one lies
            first = entries[0] - (8 if entry_bytes == 20 else 2)
            head = "Q" if entry_bytes == 20 else "H"
            place, form = rng.choice(((first, head), (entries[-1] + entry_bytes, word)))
            _put(content, order, form, place, _number(rng, len(entries)))
        elif what == 4:
            other = rng.choice(entries)
            here, there = (bytes(content[p + 4 : p + entry_bytes]) for p in (position, other))
            content[position + 4 : position + entry_bytes], content[other + 4 : other + entry_bytes] = there, here
        elif SIZES.get(kind, 1) * count <= struct.calcsize(word):  # a value in the entry
            form = {1: "B", 2: "H", 4: "I", 8: "Q"}[SIZES.get(kind, 1)]
            (old,) = struct.unpack_from(order + form, content, value)
            _put(content, order, form, value, _number(rng, old))
        elif what == 5:
            (old,) = struct.unpack_from(order + word, content, value)
            _put(content, order, word, value, _number(rng, old))
        else:  # one of the values that the entry points to, such as the offset of a tile
            form, size = {1: "B", 2: "H", 4: "I", 8: "Q"}[SIZES.get(kind, 1)], SIZES.get(kind, 1)
            (start,) = struct.unpack_from(order + word, content, value)
            place = start + size * rng.randrange(min(count, 100_000))
            if place + size <= len(content):
                (old,) = struct.unpack_from(order + form, content, place)
                _put(content, order, form, place, _number(rng, old))


def _directory(rng, content):
    """Positions of the entries of the first or second directory, and (byte order, bytes an entry, word); [] if none."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(content[:2]))
    try:
        big = struct.unpack_from(order + "H", content, 2)[0] == 43
        word, head, size = ("Q", "Q", 20) if big else ("I", "H", 12)
        (start,) = struct.unpack_from(order + word, content, 8 if big else 4)
        for _ in range(rng.choice((1, 1, 1, 2))):
            (count,) = struct.unpack_from(order + head, content, start)
            first = start + struct.calcsize(head)
            entries = [first + size * i for i in range(min(count, 200)) if first + size * (i + 1) <= len(content) - 8]
            (start,) = struct.unpack_from(order + word, content, first + size * count)
            if not start:
                break
        return entries, (order, size, word)
    except (struct.error, TypeError, UnboundLocalError, OverflowError):
        return [], None


def _number(rng, old):
    return rng.choice((rng.choice(NUMBERS), rng.choice(NUMBERS), old + rng.choice((-1, 1, 8, 256)), old * 2, old // 2,
                       rng.randrange(2**16), rng.randrange(2**32)))  # fmt: skip


def _put(content, order, form, position, value):
    size = struct.calcsize(form)
    if position + size <= len(content):
        struct.pack_into(order + form, content, position, value % 2 ** (8 * size))


def look_at(path):
    """Open a file and read it, as the project does: its header, windows and voids in three places, all of it."""
    with open_raster(path) as raster:
        height, width = raster.header.height, raster.header.width
        for row, col in ((0, 0), (height // 2, width // 2), (max(height - 64, 0), max(width - 64, 0))):
            size = min(64, height - row), min(64, width - col)
            raster.window(row, col, *size)
            raster.void(row, col, *size)
            alpha = raster.header.alpha is not None and raster.header.bands > 1
            window_with_void(raster, raster.header.bands - alpha, row, col, *size)
        raster.georeference()
        raster.read()


def _serve(connection, paths):
    """In the child: read what is asked for, say how it went."""
    sound = {path.name: path.read_bytes() for path in paths}
    for path in paths:
        with contextlib.suppress(Refused):
            look_at(path)
    before = _peak_address_space()
    resource.setrlimit(resource.RLIMIT_AS, (HARD_LIMIT, HARD_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        path = Path(folder, "damaged.tif")
        connection.send("ready")
        while asked := connection.recv():
            name, seed = asked
            path.write_bytes(damaged(sound[name], f"{name}:{seed}"))
            started, outcome, detail = time.process_time(), "read", ""
            try:
                look_at(path)
            except Refused as error:
                outcome, detail = "refused", str(error).removeprefix(str(path))
            except BaseException as error:  # also what no one should raise
                outcome, detail = "exception", f"{type(error).__name__}: {error}"
            peak = _peak_address_space() - before
            if peak >= MEMORY:
                outcome, detail = "memory", f"{peak / 1e9:.1f} GB; {outcome}: {detail}"
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            connection.send((outcome, detail[:300], time.process_time() - started, rss))
            if outcome == "memory":  # the peak does not come down again
                return


def _peak_address_space():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmPeak:")[1].split()[0]) * 1024


def _memory_folder():
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


class Reader:
    """A child process that reads damaged files; a new one for each that ends."""

    def __init__(self, paths):
        self.paths, self.child = paths, None

    def look_at(self, name, seed):
        """-> (outcome, detail, seconds, peak resident bytes of the child)"""
        if self.child is None:
            self.connection, theirs = multiprocessing.Pipe()
            context = multiprocessing.get_context("spawn")
            self.child = context.Process(target=_serve, args=(theirs, self.paths), daemon=True)
            self.child.start()
            theirs.close()
            self.connection.recv()  # it is ready; on a busy machine that alone takes a minute
        self.connection.send((name, seed))
        try:
            if self.connection.poll(PATIENCE_S):
                answer = self.connection.recv()
                if answer[0] == "memory":
                    self.end()
                return ("hang", *answer[1:]) if answer[2] > SECONDS else answer
        except EOFError:
            self.child.join()
            number = -self.child.exitcode
            self.child = None
            return "crash", signal.Signals(number).name if number > 0 else f"exit status {-number}", 0.0, 0
        self.end()
        return "hang", f"no answer in {PATIENCE_S} s", float(PATIENCE_S), 0

    def end(self):
        if self.child:
            self.child.kill()
            self.child.join()
            self.child = None


def compression_of(content):
    """What a damaged file says of its compression, for the name of a crash."""
    entries, layout = _directory(random.Random(0), content)
    for position in entries:
        if struct.unpack_from(layout[0] + "H", content, position)[0] == 259:
            return struct.unpack_from(layout[0] + "H", content, position + 4 + struct.calcsize(layout[2]))[0]
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--cases", type=int, default=20_000, metavar="N")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="stop then, though cases are left")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (default: 0)")
    parser.add_argument("--only", metavar="NAME", help="damage this file alone")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write every failure and crash here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(given, sorted(given.folder.glob("*.tif")) + made(Path(folder)))


def fuzz(given, paths):
    """Read given.cases damaged files and print what came of them; -> exit status."""
    began, sound = time.monotonic(), {path.name: path.read_bytes() for path in paths}
    chosen = [path for path in paths if given.only in (None, path.name)]
    reader, outcomes, slowest, largest, bad = Reader(paths), Counter(), (0.0, ""), 0, []
    for i in range(given.seed, given.seed + given.cases):
        if time.monotonic() - began > 60 * given.minutes:
            break
        name = chosen[i % len(chosen)].name
        outcome, detail, seconds, rss = reader.look_at(name, i)
        outcomes[outcome] += 1
        slowest, largest = max(slowest, (seconds, f"{name} {i}")), max(largest, rss)
        if outcome in FAILURES or outcome == "crash":
            compression = compression_of(damaged(sound[name], f"{name}:{i}"))
            bad.append({"file": name, "seed": i, "outcome": outcome, "compression": compression, "detail": detail})
            print(f"{outcome}: {name} seed {i} (compression {compression}): {detail}", flush=True)
    reader.end()
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{outcomes.total():,} damaged files: {counts}")
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}); most resident memory of a child {largest / 1e9:.2f} GB")
    if given.out:
        given.out.write_text(json.dumps(bad, indent=1))
    return 1 if any(case["outcome"] in FAILURES for case in bad) else 0


if __name__ == "__main__":
    sys.exit(main())
