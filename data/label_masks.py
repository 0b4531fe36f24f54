"""Labels as people have them: codes, a palette picture's indices, or colours -> integer codes."""

import numpy as np

from data.taxonomy import Unknown, merge
from data.voids import holds_nothing, join
from runtime.errors import Refused

CLEAR = -1  # stands for a transparent pixel among colours r << 16 | g << 8 | b


def require_label(label, colors=()):
    """Refused unless a raster can be a label: one band of integers or of whole numbers, or colours where the taxonomy
    says so. label: data.tile_io.Stored or data.rasters.Raster"""
    holds = f"{label.path}: has {label.bands} bands of {label.dtype}"
    if colors and (label.dtype != np.uint8 or label.bands > 4):
        raise Refused(f"{holds}; a mask of colours has red, green and blue of uint8, or a palette, or is grey")
    if not colors and (label.bands - (label.alpha is not None) != 1 or label.dtype.kind not in "iuf"):
        mend = "; for a mask of colours, give the taxonomy `colors`" if label.bands in (3, 4) else ""
        raise Refused(f"{holds}; a label has one band, of integers{mend}")


def codes_of(pixels, hidden, label, colors=()):
    """(H, W) integer codes of a label's pixels (H, W, K), and where it has none: (H, W) bool, or None.

    hidden: what a mask or an alpha band hides, or None
    colors: {(r, g, b): code} of Taxonomy.masks where it holds colours, be they a palette's or grey; else it
            holds codes, and a palette picture's are its indices
    raises: Unknown, a Refused that counts the colours without a code
    """
    if colors:
        return _codes_of_colors(pixels, hidden, label, colors), hidden
    codes = pixels[..., 0]
    if codes.dtype.kind == "f":
        empty = holds_nothing(pixels, label.nodata)
        codes, hidden = codes if empty is None else np.where(empty, 0, codes), join(hidden, empty)
        if (codes != np.rint(codes)).any():
            raise Refused(f"{label.path}: holds numbers that are not whole, as {codes[codes != np.rint(codes)][0]:g}")
        codes = codes.astype(np.uint8 if 0 <= codes.min() <= codes.max() <= 255 else np.int32)
    return codes, hidden


def _codes_of_colors(pixels, hidden, label, colors):
    """What is transparent has the code 0, which is ignored."""
    if label.palette is not None:
        pixels = label.palette[pixels[..., 0]]
    rgb = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)
    red, green, blue = np.moveaxis(rgb.astype(np.int32), -1, 0)
    packed = red << 16 | green << 8 | blue
    if hidden is not None:
        packed[hidden] = CLEAR
    table = {CLEAR: 0, **{r << 16 | g << 8 | b: code for (r, g, b), code in colors.items()}}
    return merge(packed, table, label.path, UnknownColors)


class UnknownColors(Unknown):
    """Lists every colour of a mask without a code, the most frequent first: a taxonomy is mended in one go."""

    def __str__(self):
        listed = ", ".join(f"#{color:06X} ({n} px)" for color, n in self.counts.most_common(20))
        more = f" and {len(self.counts) - 20} more" if len(self.counts) > 20 else ""
        known = ", ".join(f"#{color:06X}" for color in sorted(self.table) if color != CLEAR)
        lossy = "; JPEG changes colours: save masks as PNG" if self.where.suffix.lower() in (".jpg", ".jpeg") else ""
        return f"{self.where}: colours without a class: {listed}{more}; the taxonomy knows {known}{lossy}"
