"""Scenes and tiles by their suffix: GeoTIFFs as data/geotiff.py reads them, PNG and JPEG pictures through pillow."""

import warnings
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from PIL import Image

from data.geotiff import Header, open_raster, require_inside
from runtime.errors import Refused, naming

TIFFS = (".tif", ".tiff")
PICTURES = (".png", ".jpg", ".jpeg")
GREY = {"1": "L", "L": "L", "LA": "L", "I;16": "I;16", "I;16B": "I;16", "I": "I"}  # pillow's modes that stay one band


def open_image(path):
    """Open an image to read it whole or by window: `header`, `read()`, `window(...)`, `close()`, as of a Raster."""
    suffix = Path(path).suffix.lower()
    if suffix in TIFFS:
        return open_raster(path)
    if suffix in PICTURES:
        return Picture(path)
    raise Refused(f"{path}: not an image by its name, which would end in one of {', '.join(TIFFS + PICTURES)}")


class Picture(AbstractContextManager):
    """A PNG or JPEG, read whole: one band where it is grey, else red, green and blue. It has no georeference."""

    def __init__(self, path):
        path = Path(path)
        with naming(path, "cannot be read as a picture: "), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # pillow refuses twice that size itself
            with Image.open(path) as picture:
                self._pixels = np.array(picture.convert(GREY.get(picture.mode, "RGB")))
        if self._pixels.ndim == 2:
            self._pixels = self._pixels[..., None]
        self.header = Header(path, *self._pixels.shape, self._pixels.dtype)

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._pixels = None

    def read(self):
        """All pixels, (H, W, K)."""
        return self._pixels

    def georeference(self):
        return []

    def window(self, row, col, height, width):
        """Pixels (height, width, K) from (row, col) on."""
        require_inside(self.header, row, col, height, width)
        return self._pixels[row : row + height, col : col + width].copy()
