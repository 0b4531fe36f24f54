"""What a GeoTIFF says of itself: size, bands, pixels' type, nodata, palette, and where it lies."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.rasters import georeference
from runtime.errors import Refused

NODATA = 42113  # GDAL's tag
MOST_TAG_BYTES = 2**24  # of what places a raster: 350,000 ground control points
METRES_PER_DEGREE = 111_320  # of latitude


@dataclass(frozen=True)
class Header:
    """What a raster says of itself; None where it does not."""

    path: Path
    height: int
    width: int
    bands: int
    dtype: np.dtype
    nodata: float | None = None
    transform: tuple[float, ...] | None = None  # (a, b, c, d, e, f), of pixel corners
    gcps: tuple | None = None  # ground control points, where there is no transform
    epsg: int | None = None
    crs: tuple | None = None  # equal for equal coordinate systems, of an EPSG code or user-defined
    palette: np.ndarray | None = None  # (N, 3) uint8
    unit_m: float | None = 1.0  # metres per unit of the transform; None for degrees
    alpha: int | None = None  # the band that is tagged as opacity; near infrared often is
    masked: bool = False  # whether the file says of each pixel if it has data


class Opened(AbstractContextManager):
    """A raster that is open, for use in a `with` statement: `header`, `window(...)`, `close()` and, of it, `read()`."""

    def __exit__(self, *_):
        self.close()

    def read(self):
        """All pixels, (H, W, K)."""
        return self.window(0, 0, self.header.height, self.header.width)


def gsd(header):
    """Metres per pixel, the root of a pixel's area, of degrees at the raster's middle; None without a georeference."""
    if header.transform is None:
        return None
    a, b, _, d, e, _ = header.transform
    side = math.sqrt(abs(a * e - b * d))
    if header.unit_m is not None:
        return side * header.unit_m
    lon, lat = middle(header)
    on_earth = abs(lon) <= 180 and abs(lat) < 85
    return METRES_PER_DEGREE * side * math.sqrt(math.cos(math.radians(lat))) if on_earth else None


def middle(header):
    """(x, y) of the middle of a raster that has a transform."""
    a, b, c, d, e, f = header.transform
    col, row = header.width / 2, header.height / 2
    return a * col + b * row + c, d * col + e * row + f


def read_header(path, page, masked):
    """Header of a page of tifffile's; masked: whether the file has a mask of it. raises: Refused"""
    for code in (*georeference.TAGS, NODATA):
        tag = page.tags.get(code)
        if tag is not None and tag.valuebytecount > MOST_TAG_BYTES:  # not read yet
            raise Refused(f"{path}: corrupt: its tag {code} claims {tag.valuebytecount:,} bytes")
    planes, _, height, width, samples = page.shaped
    dtype = np.dtype(np.uint8) if page.dtype == bool else page.dtype.newbyteorder("=")
    palette = None
    if page.colormap is not None:
        colours = np.asarray(page.colormap).T
        palette = (colours // 257 if colours.max() > 255 else colours).astype(np.uint8)  # some writers stay at 8 bits
    keys = georeference.geo_keys(page.tags)
    bands, extra = planes * samples, page.extrasamples[: planes * samples]
    opaque = (bands - len(extra) + i for i, kind in enumerate(extra) if kind in (1, 2))  # associated or not
    return Header(
        path,
        height,
        width,
        bands,
        dtype,
        nodata=nodata_value(page.tags.valueof(NODATA), dtype),
        transform=georeference.affine(page.tags),
        gcps=georeference.control_points(page.tags),
        epsg=georeference.epsg_code(keys),
        crs=georeference.system(keys),
        palette=palette,
        unit_m=georeference.unit_metres(keys),
        alpha=next(opaque, None),
        masked=masked,
    )


def nodata_value(text, dtype):
    """The text of GDAL_NODATA as a number; None where it is absent or no pixel of this dtype can hold it."""
    try:
        text = text.strip().replace(",", ".")
        value = math.nan if "#IND" in text or "#QNAN" in text else float(text)  # Windows' names for nan
        if dtype.kind not in "iu":
            with np.errstate(over="ignore"):
                held = float(dtype.type(value).real)  # what a pixel of this value reads as
            return held if math.isfinite(held) or not math.isfinite(value) else None
        value = int(text) if text.lstrip("+-").isdecimal() else value  # 64-bit codes are no floats
        fits = np.iinfo(dtype).min <= value <= np.iinfo(dtype).max and value == int(value)
        return int(value) if fits else None
    except (AttributeError, ValueError, OverflowError):
        return None
