"""One label raster against another, by windows: how far a map agrees with the truth of its place."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.label_masks import codes_of, require_label
from data.laying import require_same_pixels, same_pixels
from data.rasters import Raster, in_one_system, require_one_place
from data.taxonomy import IGNORE, merge
from metrics import Tally
from runtime.errors import Refused

ROWS = 256  # read at a time
MARGIN_PX = 3  # rows beside those counted, which their borders may be near to


def scene_tally(predicted, truth, taxonomy, same_crs=False, colors=()):
    """Tally over the pixels with a class in both, some rows at a time.

    A prediction in another coordinate system or on another grid is warped to the truth's pixels by nearest neighbours.
    The truth's own nodata is ignored unless it has a class.
    colors: of the truth, as of data.label_masks.codes_of
    raises: Refused
    """
    count = len(taxonomy.names)
    tally = Tally(count)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(Raster(path)) for path in (predicted, truth))
        require_label(ours)
        require_label(theirs, colors)
        nodata = IGNORE if ours.nodata is None else ours.nodata
        ours = laid(ours, theirs, same_crs, stack)
        merges = merges_of(theirs, taxonomy, colors)
        height = theirs.size[0]
        for top in tqdm(range(0, height, ROWS), desc=Path(predicted).name, disable=None, leave=False):
            rows = min(ROWS, height - top)
            above, below = min(top, MARGIN_PX), min(height - top - rows, MARGIN_PX)
            window = top - above, above + rows + below
            (classes, hidden), (codes, unknown) = codes_at(ours, *window), codes_at(theirs, *window, colors)
            labels = merge(codes, merges, truth)
            void = (classes == nodata) | hidden
            if (strange := np.unique(classes[~void & ((classes < 0) | (classes >= count))])).size:
                raise Refused(f"{predicted}: holds {strange[0]}, which is none of the {count} classes")
            labels[void | unknown] = IGNORE
            maps = torch.from_numpy(np.where(void, 0, classes).astype(np.int64)), torch.from_numpy(labels)
            tally.add(*(each[None] for each in maps), rows=slice(above, above + rows))
    if not tally.confusion.any():
        raise Refused(f"{predicted}: no pixel has a class both there and in {truth}")
    return tally


def laid(ours, theirs, same_crs, stack):
    """The prediction on the truth's pixels; one line says where that is not as the files have it."""
    if require_one_place(ours, theirs, same_crs):
        print(f"note: {theirs.path}: does not say where it lies, and is taken to have the pixels of {ours.path}")
    if same_pixels(ours, theirs) and in_one_system(ours, theirs, same_crs):
        return ours
    if not (ours.affine and theirs.affine):
        require_same_pixels(ours, theirs)
    print(f"note: {ours.path}: is warped to the pixels of {theirs.path}, by nearest neighbours")
    return stack.enter_context(ours.onto(theirs))


def codes_at(raster, row, height, colors=()):
    """Codes (height, W) of some rows of a label, and where it has none: (height, W) bool."""
    bands = raster.bands - (raster.alpha is not None)
    codes, hidden = codes_of(*raster.read(row, 0, height, raster.size[1], bands), raster, colors)
    return codes, np.zeros(codes.shape, bool) if hidden is None else hidden


def merges_of(truth, taxonomy, colors):
    """The taxonomy's high table; its low one, which is worth a line, where that alone knows all codes of the truth, as
    of NLCD that was warped to the map's pixels. The truth's nodata is ignored where the table has no class for it."""
    high, low = ({} if truth.nodata is None else {truth.nodata: IGNORE} for _ in range(2))
    high, low = {**high, **taxonomy.high}, {**low, **taxonomy.low}
    if not taxonomy.high or not taxonomy.low:
        return high if taxonomy.high else low
    seen = set()
    for top in range(0, truth.size[0], ROWS):
        codes, hidden = codes_at(truth, top, min(ROWS, truth.size[0] - top), colors)
        seen |= set(np.unique(codes[~hidden]).tolist())
        if not seen <= low.keys():
            return high
    if seen <= high.keys():
        return high
    print(f"note: {truth.path}: its codes are low ones of the taxonomy, not high ones; scored against coarse labels")
    return low
