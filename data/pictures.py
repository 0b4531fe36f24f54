"""PNG and JPEG pictures by pillow: photographs, and masks of codes or colours."""

import numpy as np
from PIL import Image

from runtime.errors import Refused

PICTURES = (".png", ".jpg", ".jpeg")
GREY = {"1": "1", "L": "L", "LA": "L", "I;16": "I;16", "I;16B": "I;16", "I": "I"}  # pillow's modes of one band
ORIENTATION = 0x0112  # of EXIF; 1: upright


def read_picture(path, indices):
    """A PNG or JPEG, read whole.

    indices: a palette's indices are codes, as in labels; False: they stand for its colours
    returns: pixels (H, W, K), one band where it is grey or holds indices, else red, green and blue; (H, W) bool of what
             is transparent, or None; (N, 3) uint8 palette, or None
    """
    Image.MAX_IMAGE_PIXELS = None  # a photograph of 200 megapixels is no attack
    with Image.open(path) as picture:
        kind = "P" if indices and picture.mode == "P" else GREY.get(picture.mode, "RGB")
        if picture.tile and "16" in str(picture.tile[0][-1]) and not kind.startswith("I"):
            raise Refused(f"{path}: has 16 bits a band, which are read of GeoTIFFs; gdal_translate makes one of it")
        if picture.format != "PNG" and picture.getexif().get(ORIENTATION, 1) not in (0, 1):
            raise Refused(f"{path}: is turned for show (EXIF orientation); save it upright, as its labels lie")
        mask, palette = None, None
        if picture.has_transparency_data and kind != "P":  # an index says itself what it means
            mask = np.array(picture.convert("RGBA").getchannel("A")) == 0
        if kind == "P":
            palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        pixels = np.array(picture if picture.mode == kind else picture.convert(kind))
    pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    return pixels.reshape(*pixels.shape[:2], -1), mask, palette
