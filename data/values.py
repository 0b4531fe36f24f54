"""Float and signed images to whole numbers, by one fixed rule for all images of a set; nothing is stretched by file.

A value v, after the file's scale and offset tags, becomes 1 + 65534 (v - low) / (high - low), clipped to 1 to 65535;
0 is no data. low and high are --range, or 0 and 1 where the tags say that values are reflectance.
"""

import numpy as np

from runtime.errors import Refused

MOST = 65535  # of uint16


def value_range(image, asked):
    """(low, high) for a Raster of floats or signed numbers; None where its pixels are kept as they are.

    raises: Refused where nothing says what its values mean
    """
    if image.dtype in (np.uint8, np.uint16):
        return None
    scales, offsets = image.tagged
    if asked is None and {*scales} == {1.0} and {*offsets} == {0.0}:
        raise Refused(
            f"{image.path}: pixels are {image.dtype}; give the smallest and the largest value that count, the "
            "same for all images: --range 0 1 for reflectance, --range 0 10000 for reflectance times 10,000"
        )
    return asked or (0.0, 1.0)


def whole_numbers(pixels, void, image, limits):
    """(H, W, K) pixels as uint16 by the rule above, 0 where void, and how many were clipped to the range.

    limits: of `value_range`; None: pixels stay as they are
    """
    if limits is None:
        return pixels, 0
    (scale, offset), (low, high) = (np.array(values)[: pixels.shape[2]] for values in image.tagged), limits
    values = (pixels.astype(np.float64) * scale + offset - low) / (high - low)
    whole = 1 + np.rint(np.clip(np.nan_to_num(values), 0, 1) * (MOST - 1))
    held = ((values < 0) | (values > 1)).any(axis=-1)
    if void is not None:
        whole[void], held[void] = 0, False
    return whole.astype(np.uint16), int(held.sum())
