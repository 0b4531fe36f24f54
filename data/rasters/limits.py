"""What a file may make of the bytes that it stores: damage and bombs are refused before memory is asked for."""

import os

from runtime.errors import Refused, into_copy

# How far none, LZW, deflate (two codes) and PackBits can expand what is stored; a claim beyond that is damage.
EXPANSION = {1: 1, 5: 2731, 8: 1040, 32946: 1040, 32773: 64}
SHARED = 64  # how much more a file may claim whose strips or tiles lie in one place, as some writers save blank ones
BLOCK_MB = 256  # of one strip or tile, decoded, or of a whole picture; the environment's LOW2HIGH_BLOCK_MB says else


def refuse_absurd(path, page, pixels, stored, shared=False):
    """Refuse a TIFF's page that claims so many pixels in so many stored bytes."""
    bits = page.bitspersample if isinstance(page.bitspersample, tuple) else (page.bitspersample,)
    claimed = pixels * page.shaped[-1] * sum(bits) / len(bits) / 8
    # The rest has no ceiling: ZSTD makes 128 KiB of 4 bytes, LERC a tile of any size of 100.
    most = stored * EXPANSION.get(page.compression, 40_000) + (page.compression not in EXPANSION) * 2**24
    if claimed > most * (SHARED if shared else 1):
        raise Refused(f"{path}: corrupt: claims {claimed:,.0f} bytes of pixels in {stored:,} bytes")


def distinct_bytes(offsets, counts):
    """What a file's strips or tiles store, each place counted once."""
    return sum(dict(zip(offsets, counts, strict=True)).values())


def refuse_large(path, height, width, pixel_bytes, what):
    """Refuse what decodes in one piece to more than the ceiling. what: "one strip or tile", "a picture" """
    decoded, ceiling = height * width * pixel_bytes, _ceiling_mb()
    if decoded > ceiling * 10**6:
        raise Refused(
            f"{path}: {what} of {height:,} x {width:,} px decodes to {decoded / 1e6:,.0f} MB, LOW2HIGH_BLOCK_MB is "
            f"{ceiling}; gdal_translate -co TILED=YES -co COMPRESS=DEFLATE {into_copy(path, 'tiled')}"
        )


def _ceiling_mb():
    text = os.environ.get("LOW2HIGH_BLOCK_MB", str(BLOCK_MB))
    if not text.isdecimal() or not int(text):
        raise Refused(f"LOW2HIGH_BLOCK_MB={text}: should be a whole number of megabytes, as {BLOCK_MB}")
    return int(text)
