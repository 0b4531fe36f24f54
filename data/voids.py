"""Pixels without data: how an image says which they are, and what stands in for them.

One rule serves cutting, training, pretraining, scoring and mapping: no network sees a nodata value.
"""

import numpy as np

from runtime.errors import Refused

SAMPLE_PX = 512  # along the middle of an image, where its alpha band is looked at


def holds_nothing(pixels, nodata):
    """(H, W) bool of pixels (H, W, K): True where every band is nodata or any is no finite number, or None."""
    void = ~np.isfinite(pixels).all(axis=-1) if pixels.dtype.kind == "f" else None
    if nodata is not None and (pixels[..., 0] == nodata).any():
        void = join(void, (pixels == nodata).all(axis=-1))
    return join(void)


def join(*voids):
    """Where any of several (H, W) masks is True; each may be None, which is nowhere. Returns None for nowhere too."""
    joined = None
    for void in voids:
        if void is not None and void.any():
            joined = void if joined is None else joined | void
    return joined


def filled(pixels, void):
    """(H, W, K) pixels with void ones filled from the nearest pixel with data in their row, and rows without data from
    the nearest row with data: networks map worse beside an artificial edge [ours]. void: (H, W), or None"""
    if void is None or void.all():
        return pixels if void is None else np.zeros_like(pixels)
    along = pixels[np.arange(len(pixels))[:, None], _nearest(~void)]
    return along[_nearest(~void.all(axis=1))]


def marked(pixels, void, nodata):
    """Pixels (H, W, K) whose void ones hold a nodata value, and that value.

    It is `nodata`, the file's own, where pixels can hold it, else the first of 0, the largest and the rest that no
    pixel with data has in all bands. void: (H, W) bool, or None
    """
    if void is None:
        return pixels, nodata
    if nodata is None:
        most, seen = np.iinfo(pixels.dtype).max, pixels[~void]
        nodata = next(value for value in (0, most, *range(1, most)) if not (seen == value).all(axis=-1).any())
    pixels = pixels.copy()
    pixels[void] = nodata
    return pixels, nodata


def takes_alpha(image, bands):
    """Whether an image of one band more than the `bands` that are asked for has no data where it is transparent.

    With as many as are asked for, the alpha band is one of them: NAIP's near infrared is often tagged so.
    image: has `bands` and `alpha`, as tile_io.Stored and rasters.Raster do
    """
    return image.alpha is not None and image.bands == bands + 1


def doubtful_alpha(image, bands):
    """Whether a band that hides pixels looks measured in the image's middle, as near infrared does: of what a mask
    does not hide, it shows most wholly."""
    if image.picture or not takes_alpha(image, bands):
        return False
    row, col = (max(0, side - SAMPLE_PX) // 2 for side in image.size)
    alpha = image.read(row, col, *(min(side, SAMPLE_PX) for side in image.size), image.bands)[0][..., image.alpha]
    shown = alpha[alpha > 0]
    return shown.size > 0 and bool((shown < 0.95 * shown.max()).mean() > 0.5)


def count_black(image, pixels, void):
    """How many pixels (H, W, K) are 0 in all of several bands, where nothing in the file calls them no data."""
    told = void is not None or image.nodata is not None or pixels.shape[-1] == 1
    return 0 if told else int(np.count_nonzero(~pixels.any(axis=-1)))


def input_bands(image, bands, setting):
    """How many bands of an image are taken: `bands`, or all it has where that is 0 or None.

    setting: what gives `bands` a value, as "--bands " or "data.bands="
    raises:  Refused where an alpha band leaves it open, or the image has another number, or indices for pixels
    """
    if image.palette is not None:
        raise Refused(f"{image.path}: is a palette image, whose indices are not measurements; save it as RGB")
    if not bands and image.alpha is not None:
        if image.picture:
            return image.bands - 1  # a picture's fourth channel is opacity
        raise Refused(
            f"{image.path}: band {image.alpha + 1} of {image.bands} is tagged alpha; {setting}{image.bands - 1} uses "
            f"it as the mask of valid pixels, {setting}{image.bands} as an ordinary band such as near infrared"
        )
    if bands and image.bands != bands and not takes_alpha(image, bands):
        raise Refused(f"{image.path}: has {image.bands} bands, not {bands} ({setting.strip(' =')})")
    return bands or image.bands


def _nearest(seen):
    """(..., N) bool -> of each place the nearest that is seen, by its index; where none is seen, any."""
    places, beyond = np.arange(seen.shape[-1]), seen.shape[-1]
    before = np.maximum.accumulate(np.where(seen, places, -2 * beyond), axis=-1)
    after = np.minimum.accumulate(np.where(seen, places, 3 * beyond)[..., ::-1], axis=-1)[..., ::-1]
    return np.where(places - before <= after - places, before, after).clip(0, beyond - 1)
