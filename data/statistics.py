"""Band statistics of images that no dataset.yaml has counted: bare folders, and tile sets limited by region."""

import numpy as np

from data.images import open_image
from runtime.errors import Refused

MOST_IMAGES = 1024  # evenly spread over the list; more change no digit that matters


def band_statistics(paths):
    """-> (mean, std) of each band in stored pixel units; pixels that are nodata in every band are left out.

    raises: Refused where images differ in bands, naming the first that does
    """
    count, total, squares = 0, 0.0, 0.0
    for i in np.unique(np.linspace(0, len(paths) - 1, min(len(paths), MOST_IMAGES)).astype(int)):
        with open_image(paths[i]) as image:
            pixels, nodata = image.read().reshape(-1, image.header.bands), image.header.nodata
        if nodata is not None:
            pixels = pixels[(pixels != nodata).any(axis=1)]
        if count and len(total) != pixels.shape[1]:
            raise Refused(f"{paths[i]}: has {pixels.shape[1]} bands, the others {len(total)}")
        pixels = pixels.astype(np.float64)
        count, total, squares = count + len(pixels), total + pixels.sum(axis=0), squares + (pixels**2).sum(axis=0)
    if not count:
        raise Refused(f"{paths[0]}: no pixel of these images holds anything but nodata")
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    std[std < 1e-6] = 1.0  # images are divided by it: a constant band stays finite
    return tuple(mean.tolist()), tuple(std.tolist())
