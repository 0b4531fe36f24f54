"""Label masks as people have them: codes, a palette picture's indices, or colours -> rasters of codes."""

from collections import Counter
from dataclasses import replace

import numpy as np

from data.rasters.alignment import check_label
from data.rasters.geotiff_header import Opened
from data.rasters.images import open_image
from runtime.errors import Refused

JPEGS = (".jpg", ".jpeg")
LISTED = 20  # colours in one line
CLEAR = 1 << 24  # stands for a transparent pixel among colours r << 16 | g << 8 | b
ROWS = 256  # read at a time where a whole mask is counted


def open_label(path, colors=()):
    """Open a label to read its codes whole or by window: `header`, `read()`, `window(...)`, as of a Raster.

    colors: {(r, g, b): code} of data.taxonomy.load_colors where it holds colours, be they a palette's or grey; else it
            holds codes, and a palette picture's are its indices
    """
    if colors:
        return ColorMask(open_image(path), colors)
    label = open_image(path, indices=True)
    try:
        check_label(label.header)
    except Refused:
        label.close()
        raise
    return label


class ColorMask(Opened):
    """A mask of colours as a raster of codes; what is transparent has the code 0, which is ignored."""

    def __init__(self, mask, colors):
        self._mask, header = mask, mask.header
        self._codes = {CLEAR: 0, **{r << 16 | g << 8 | b: code for (r, g, b), code in colors.items()}}
        self.header = replace(header, bands=1, nodata=None, palette=None, alpha=None, masked=False)
        if header.dtype != np.uint8 or header.bands not in (1, 3, 4):
            mask.close()
            raise Refused(
                f"{header.path}: has {header.bands} bands of {header.dtype}; a mask of colours has red, green and blue "
                "of uint8, or a palette, or is grey"
            )

    def close(self):
        self._mask.close()

    def georeference(self):
        return self._mask.georeference()

    def window(self, row, col, height, width):
        """Codes (height, width, 1) from (row, col) on; Refused naming all colours of the mask that have none."""
        colors, inverse = np.unique(self._colors(row, col, height, width), return_inverse=True)
        if not self._codes.keys() >= set(colors.tolist()):
            raise self._without_a_class()
        return np.array([self._codes[color] for color in colors.tolist()], np.uint8)[inverse].reshape(height, width, 1)

    def _colors(self, row, col, height, width):
        """(height, width) uint32, r << 16 | g << 8 | b or CLEAR."""
        header = self._mask.header
        pixels, void = self._mask.window(row, col, height, width), self._mask.void(row, col, height, width)
        if header.palette is not None:
            rgb = header.palette[pixels[..., 0]]
        else:
            rgb = pixels.repeat(3, axis=2) if header.bands == 1 else pixels[..., :3]
        colors = (rgb.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=-1, dtype=np.uint32)
        if header.alpha is not None:
            colors[pixels[..., header.alpha] == 0] = CLEAR
        if void is not None:
            colors[void] = CLEAR
        return colors

    def _without_a_class(self):
        """The error that lists every colour of the mask without a code, the most frequent first, so that a taxonomy is
        mended in one go."""
        header, counts = self.header, Counter()
        for row in range(0, header.height, ROWS):
            colors = self._colors(row, 0, min(ROWS, header.height - row), header.width)
            values, found = np.unique(colors, return_counts=True)
            counts.update(dict(zip(values.tolist(), found.tolist(), strict=True)))
        unknown = [(color, n) for color, n in counts.most_common() if color not in self._codes]
        listed = ", ".join(f"#{color:06X} ({n} px)" for color, n in unknown[:LISTED])
        more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        known = ", ".join(f"#{color:06X}" for color in sorted(self._codes) if color != CLEAR)
        lossy = "; JPEG blurs colours: masks are PNG" if header.path.suffix.lower() in JPEGS else ""
        return Refused(f"{header.path}: colours without a class: {listed}{more}; the taxonomy knows {known}{lossy}")
