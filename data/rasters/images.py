"""Scenes and tiles by their suffix: GeoTIFFs as geotiff.py reads them, PNG and JPEG pictures through pillow."""

import shlex
from pathlib import Path

import numpy as np
from PIL import Image

from data.rasters.geotiff import open_raster, require_inside
from data.rasters.geotiff_header import Header, Opened
from data.rasters.limits import refuse_large
from runtime.errors import Refused, naming
from runtime.files import require_file

TIFFS = (".tif", ".tiff")
PICTURES = (".png", ".jpg", ".jpeg")
GREY = {"1": "L", "L": "L", "LA": "L", "I;16": "I;16", "I;16B": "I;16", "I": "I"}  # pillow's modes that stay one band
ORIENTATION = 0x0112  # of EXIF; 1: upright
PIXEL_BYTES = {"L": 1, "P": 1, "I;16": 2, "I": 4, "RGB": 3}


def open_image(path, indices=False, readers=1):
    """Open an image to read it whole or by window: `header`, `read()`, `window(...)`, `close()`, as of a Raster.

    indices: read a picture with a palette as one band of indices, as a GeoTIFF with one is, and not as its colours
    readers: threads that decode the strips or tiles of a window
    """
    suffix = Path(path).suffix.lower()
    if suffix in TIFFS:
        return open_raster(path, readers)
    if suffix in PICTURES:
        return Picture(path, indices)
    raise Refused(f"{path}: not an image by its name, which would end in one of {', '.join(TIFFS + PICTURES)}")


def takes_alpha(header, bands):
    """Whether an image of one band more than the `bands` that are asked for has no data where it is transparent.

    The number of bands decides, and no guess: with as many as are asked for, the alpha band is one of them.
    """
    return header.alpha is not None and header.bands == bands + 1


def input_bands(header, bands, setting):
    """How many bands of an image are taken: `bands`, or all it has where that is 0 or None.

    setting: what gives `bands` a value, as "--bands " or "data.bands="
    raises:  Refused where an alpha band leaves it open, or where the image has another number
    """
    path = header.path
    if not bands and header.alpha is not None:
        raise Refused(
            f"{path}: band {header.alpha + 1} of {header.bands} is tagged alpha; {setting}{header.bands - 1} takes it "
            f"for where there are data, {setting}{header.bands} for a band like the others, as near infrared"
        )
    if bands and header.bands != bands and not takes_alpha(header, bands):
        raise Refused(f"{path}: has {header.bands} bands, not {bands} ({setting.strip(' =')})")
    return bands or header.bands


def window_with_void(image, bands, row, col, height, width):
    """A window of an open image, and where it has no data: by nodata in all bands, by a mask, by an alpha band.

    bands:   how many are asked for; the alpha band is left out where it is one more
    returns: pixels (height, width, bands) as stored; void (height, width) bool, or None where all pixels have data
    """
    header, pixels, void = image.header, image.window(row, col, height, width), image.void(row, col, height, width)
    void = np.zeros((height, width), bool) if void is None else void
    if takes_alpha(header, bands):
        void |= pixels[..., header.alpha] == 0
        pixels = np.delete(pixels, header.alpha, axis=2)
    if header.nodata is not None:
        empty = pixels[..., 0] == header.nodata
        for k in range(1, pixels.shape[2]):
            empty &= pixels[..., k] == header.nodata
        void |= empty
    return pixels, void if void.any() else None


def window_with_nodata(image, bands, row, col, height, width):
    """Pixels as of `window_with_void`, and the value that those without data have: the file's nodata, or 0."""
    pixels, void = window_with_void(image, bands, row, col, height, width)
    nodata = image.header.nodata
    if void is not None:
        nodata = 0 if nodata is None else nodata
        pixels[void] = nodata
    return pixels, nodata


class Picture(Opened):
    """A PNG or JPEG, read whole: one band where it is grey, else red, green and blue. It has no georeference.

    indices: as of `open_image`
    """

    def __init__(self, path, indices=False):
        path = Path(path)
        require_file(path)
        Image.MAX_IMAGE_PIXELS = None  # `refuse_large` says instead what to do
        with naming(path, "cannot be read as a picture: "):
            with Image.open(path) as picture:
                kind = "P" if indices and picture.mode == "P" else GREY.get(picture.mode, "RGB")
                _refuse_unfaithful(path, picture, kind)
                refuse_large(path, picture.height, picture.width, PIXEL_BYTES[kind], "a picture")
                self._void = None
                if picture.has_transparency_data and kind != "P":  # an index says itself what it means
                    self._void = np.array(picture.convert("RGBA").getchannel("A")) == 0
                self._pixels = np.array(picture if picture.mode == kind else picture.convert(kind))
        if self._pixels.ndim == 2:
            self._pixels = self._pixels[..., None]
        self.header = Header(path, *self._pixels.shape, self._pixels.dtype, masked=self._void is not None)

    def close(self):
        self._pixels = self._void = None

    def read(self):
        """All pixels, (H, W, K)."""
        return self._pixels

    def void(self, row=0, col=0, height=None, width=None):
        """(height, width), True where the picture is transparent; None where nothing is."""
        height, width = height or self.header.height, width or self.header.width
        return self._void if self._void is None else self._void[row : row + height, col : col + width].copy()

    def georeference(self):
        return []

    def window(self, row, col, height, width):
        """Pixels (height, width, K) from (row, col) on."""
        require_inside(self.header, row, col, height, width)
        return self._pixels[row : row + height, col : col + width].copy()


def _refuse_unfaithful(path, picture, kind):
    """Refuse what pillow reads otherwise than the file means it: 16 bits a band as 8, and a photograph that is to be
    turned for show, on which nobody knows how labels lie."""
    if picture.tile and "16" in str(picture.tile[0][-1]) and not kind.startswith("I"):
        copy = path.with_suffix(".tif")
        raise Refused(
            f"{path}: holds 16 bits a band, which is read of GeoTIFFs and of grey pictures alone; "
            f"{shlex.join(['gdal_translate', str(path), str(copy)])}"
        )
    turned = 1 if picture.format == "PNG" else picture.getexif().get(ORIENTATION, 1)  # a PNG's would decode it whole
    if turned not in (0, 1):
        raise Refused(f"{path}: is turned for show (EXIF orientation {turned}); save it upright, as its labels lie")
