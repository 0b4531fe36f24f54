"""Tiles, label maps and photographs as arrays: small files, read and written whole by tifffile (pictures by pillow).

An affine is the tuple (a, b, c, d, e, f): the corner of pixel (row, col) lies at x = a col + b row + c,
y = d col + e row + f. The tiles of a set share one coordinate system, so nothing here compares systems.
data/rasters.py reads large rasters, of any format and system.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from data.voids import holds_nothing, join, takes_alpha
from runtime.errors import DiskFull, Refused, naming, require
from runtime.files import open_whole, require_file

TIFFS, PICTURES = (".tif", ".tiff"), (".png", ".jpg", ".jpeg")
SCALE, TIE, MATRIX, NODATA = 33550, 33922, 34264, 42113  # tags of GeoTIFF 1.1 (OGC 19-008), and GDAL's
DIRECTORY = 34735
KEYS = {DIRECTORY: "H", 34736: "d", 34737: "s"}  # tags of the GeoKeys: the coordinate system, by the types of the tags
POINT_OR_AREA = 1025  # GeoKey; 2: coordinates are those of pixel centres
GREY = {"1": "1", "L": "L", "LA": "L", "I;16": "I;16", "I;16B": "I;16", "I": "I"}  # pillow's modes of one band
ORIENTATION = 0x0112  # of EXIF; 1: upright

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it also reports oddities that do no harm


@dataclass(frozen=True)
class Stored:
    """What a file holds."""

    path: Path
    size: tuple  # (H, W)
    bands: int
    dtype: np.dtype
    pixels: np.ndarray | None  # (H, W, K) as stored; None where only the header was asked for
    affine: tuple | None = None
    system: tuple = ()  # the GeoKeys, [(tag, type, count, value)]: compared by ==, and copied
    nodata: float | None = None
    alpha: int | None = None  # the band that is tagged as alpha
    mask: np.ndarray | None = None  # (H, W), True where the file itself hides a pixel: a mask, or transparency
    palette: np.ndarray | None = None  # (N, 3) uint8, the colours of one band of indices

    @property
    def crs(self):
        return self.system or None

    @property
    def picture(self):
        return self.path.suffix.lower() in PICTURES

    def read(self, row, col, height, width, bands):
        """Pixels (height, width, bands) from (row, col) on, and what a mask or an alpha band hides: bool, or None.

        bands: one fewer than the file has leaves its alpha band out, which then tells where there are data
        """
        place = np.s_[row : row + height, col : col + width]
        pixels, hidden = self.pixels[place], None if self.mask is None else self.mask[place]
        if takes_alpha(self, bands):
            pixels, hidden = np.delete(pixels, self.alpha, axis=2), join(hidden, pixels[..., self.alpha] == 0)
        return pixels, join(hidden)

    def seen(self, bands):
        """An image's pixels (H, W, bands), as stored, and where they are void: (H, W) bool, or None."""
        pixels, hidden = self.read(0, 0, *self.size, bands)
        return pixels, join(holds_nothing(pixels, self.nodata), hidden)


def read(path, pixels=True, indices=True):
    """Stored of a GeoTIFF, PNG or JPEG, its pixels too where they are asked for.

    indices: a palette's indices are codes, as in labels; False: a picture's palette stands for its colours
    raises:  Refused, one line that names the file
    """
    path = Path(path)
    require_file(path)
    if path.suffix.lower() in PICTURES:
        with naming(path, "cannot be read as a picture: "):
            return _read_picture(path, indices)
    if path.suffix.lower() not in TIFFS:
        raise Refused(f"{path}: not an image; its name must end in one of {', '.join(TIFFS + PICTURES)}")
    with naming(path, "corrupt or not supported: "), tifffile.TiffFile(path) as tiff:
        return _read_tiff(path, tiff, pixels)


def write(path, array, *, affine=None, system=(), nodata=None, compression="zlib"):
    """Write (H, W) or (H, W, K) pixels as a GeoTIFF that GDAL reads too; an older file stays until the new is whole.

    system:      Stored.system of another file, or `epsg_system`
    compression: "zlib"; or "none", in one strip that is read in one go
    raises:      DiskFull
    """
    pixels = np.asarray(array)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    rgb = pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype in (np.uint8, np.uint16)
    layout = {"photometric": "rgb" if rgb else "minisblack", "metadata": None, "software": False, "maxworkers": 1}
    if pixels.ndim == 3:
        others = pixels.shape[2] - (3 if rgb else 1)  # near infrared is no transparency
        layout |= {"planarconfig": "contig", "extrasamples": ("unspecified",) * others}
    if compression == "zlib":
        layout |= {"compression": "zlib", "tile": [min(512, -(-side // 16) * 16) for side in pixels.shape[:2]]}
    else:
        layout["rowsperstrip"] = pixels.shape[0]
    tags = list(system)
    if affine is not None:
        a, b, c, d, e, f = affine
        if b == d == 0 and a > 0 > e:
            tags += [(SCALE, "d", 3, (a, -e, 0.0)), (TIE, "d", 6, (0.0, 0.0, 0.0, c, f, 0.0))]
        else:
            tags += [(MATRIX, "d", 16, (a, b, 0.0, c, d, e, 0.0, f, *[0.0] * 7, 1.0))]
    if nodata is not None:
        tags += [(NODATA, "s", 0, str(nodata))]
    with naming(f"{path}: cannot be written", kind=DiskFull), open_whole(path, flush=False) as file:
        tifffile.imwrite(file, pixels, extratags=[(*tag, True) for tag in tags], **layout)


def epsg_system(code):
    """The GeoKeys of a projected system by its EPSG code, as Stored.system has them."""
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, POINT_OR_AREA, 0, 1, 1, 3072, 0, 1, code)  # projected, pixel is area, the code
    return ((DIRECTORY, "H", len(keys), keys),)


def _read_picture(path, indices):
    """Pixels (H, W, K): one band where it is grey or holds indices, else red, green and blue."""
    Image.MAX_IMAGE_PIXELS, mask, palette = None, None, None  # a photograph of 200 megapixels is no attack
    with Image.open(path) as picture:
        if picture.mode.startswith("RGB") and picture.tile and "16" in str(picture.tile[0][-1]):  # pillow keeps 8
            raise Refused(f"{path}: has 16 bits per band; 16-bit colours are read only from GeoTIFFs; save it as one")
        if picture.format != "PNG" and picture.getexif().get(ORIENTATION, 1) not in (0, 1):
            raise Refused(f"{path}: is rotated by an EXIF orientation tag; save it upright, like its labels")
        if indices and picture.mode == "P":  # an index says itself what it means, be it transparent or not
            pixels, palette = np.array(picture), np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        else:
            pixels = np.array(picture.convert(GREY.get(picture.mode, "RGB")))
            if picture.has_transparency_data:
                mask = np.array(picture.convert("RGBA").getchannel("A")) == 0
    pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return Stored(path, pixels.shape[:2], pixels.shape[2], pixels.dtype, pixels, mask=mask, palette=palette)


def _read_tiff(path, tiff, pixels):
    page = tiff.pages.first
    end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)))
    require(end <= tiff.filehandle.size, f"{path}: truncated: {tiff.filehandle.size:,} bytes of at least {end:,}")
    size, bands, array, mask = (page.imagelength, page.imagewidth), page.samplesperpixel, None, None
    if pixels:
        separate, _, *rest = page.shaped  # bands stored one after the other, depth, H, W, bands side by side
        array = np.moveaxis(page.asarray(maxworkers=1).reshape(separate, *rest), 0, -1).reshape(*size, bands)
        for other in tiff.pages[1:]:
            if other.is_mask and not other.is_reduced:
                mask = other.asarray() == 0
        beside = path.with_name(f"{path.name}.msk")  # where rasterio puts a mask unless it is told otherwise
        if beside.is_file():
            mask = tifffile.imread(beside).reshape(-1, *size)[0] == 0
    extra = page.extrasamples
    alpha = max((bands - len(extra) + i for i, kind in enumerate(extra) if kind in (1, 2)), default=None)
    palette = None if page.colormap is None else (page.colormap.T // 257).astype(np.uint8)
    dtype = page.dtype.newbyteorder("=")
    nodata = nodata_of(page.tags.valueof(NODATA), dtype)
    return Stored(path, size, bands, dtype, array, *placed(page.tags), nodata, alpha, mask, palette)


def placed(tags):
    """The affine of pixel corners, None without one, and the GeoKeys, which then say that it is of corners."""
    system = {code: tags.valueof(code) for code in KEYS if code in tags}
    keys = np.array(system.get(DIRECTORY, ()), int).reshape(-1, 4)
    of_centres = [POINT_OR_AREA, 2] in keys[:, [0, 3]].tolist()
    if of_centres:
        keys[keys[:, 0] == POINT_OR_AREA, 3] = 1
        system[DIRECTORY] = tuple(keys.ravel().tolist())
    system = tuple((code, KEYS[code], tags[code].count, value) for code, value in system.items())
    scale, tie, matrix = (tags.valueof(code, default=()) for code in (SCALE, TIE, MATRIX))
    if len(scale) >= 2 and len(tie) == 6:
        a, b, d, e = scale[0], 0.0, 0.0, -scale[1]
        c, f = tie[3] - tie[0] * a, tie[4] - tie[1] * e
    elif len(matrix) == 16:
        a, b, _, c, d, e, _, f = matrix[:8]
    else:
        return None, system
    if of_centres:
        c, f = c - (a + b) / 2, f - (d + e) / 2
    return (a, b, c, d, e, f), system


def nodata_of(tag, dtype):
    """A file's nodata value, from a number or its text; None without one, or where no pixel of this dtype can be it."""
    if tag in (None, ""):
        return None
    value = float(tag)
    if dtype.kind not in "iu":
        return float(dtype.type(value))
    return int(value) if value % 1 == 0 and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max else None
