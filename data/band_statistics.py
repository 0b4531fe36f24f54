"""Band statistics from sums: exact for integers of 8 and 16 bits, so that no order of adding changes a digit."""

import math

import numpy as np

from data import tile_io
from data.voids import input_bands
from runtime.errors import require

MOST_IMAGES = 1024  # evenly spread over the list; more change no digit that matters


def sum_bands(image, void=None):
    """Sums over the pixels of (H, W, K) that are not void, (H, W) bool or None: {pixels, sums, squares}."""
    exact = image.dtype in (np.uint8, np.uint16, np.int16)  # 64 bits hold the sums of any tile
    seen = image if void is None else np.where(void[..., None], image.dtype.type(0), image)
    rows = seen.reshape(len(seen), -1).astype(np.int64 if exact else np.float64)
    # Whole rows add up eight times as fast as the few bands of a pixel.
    sums, squares = (v.sum(axis=0).reshape(-1, seen.shape[2]).sum(axis=0).tolist() for v in (rows, np.square(rows)))
    return {"pixels": seen[..., 0].size if void is None else int((~void).sum()), "sums": sums, "squares": squares}


def mean_and_std(counted, where):
    """Lists, a number a band, of images of which `sum_bands` was asked; `where` opens the error that none holds any."""
    count = sum(image["pixels"] for image in counted)
    require(count, f"{where}: no image pixel holds anything but nodata")
    sums, squares = ([sum(band) for band in zip(*(i[k] for i in counted), strict=True)] for k in ("sums", "squares"))
    std = [math.sqrt(max(count * q - s * s, 0)) / count for s, q in zip(sums, squares, strict=True)]
    # Images are divided by it: a constant band stays finite.
    return [s / count for s in sums], [value if value >= 1e-6 else 1.0 for value in std]


def band_statistics(paths, bands):
    """-> (mean, std), tuples in stored pixel units, of images that no dataset.yaml has counted: bare folders, and tile
    sets limited by region.

    bands:  that are taken of each, of which an alpha band beyond them is none
    raises: Refused where an image has another number, naming it
    """
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), MOST_IMAGES)).astype(int))
    images = (tile_io.read(paths[i], indices=False) for i in chosen)
    counted = [sum_bands(*image.seen(input_bands(image, bands, "data.bands="))) for image in images]
    mean, std = mean_and_std(counted, paths[0])
    return tuple(mean), tuple(std)
