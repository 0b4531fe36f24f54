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
    """Tally over the pixels with a class in both, on the truth's pixels; raises Refused.

    The truth's own nodata is ignored unless it has a class. colors: of the truth, as of data.label_masks.codes_of
    """
    count, table, tally = len(taxonomy.names), taxonomy.high or taxonomy.low, Tally(len(taxonomy.names))
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(Raster(path)) for path in (predicted, truth))
        require_label(ours)
        require_label(theirs, colors)
        nodata = IGNORE if ours.nodata is None else ours.nodata
        ours, (height, width) = on_pixels_of(theirs, ours, same_crs, stack), theirs.size
        table = table if theirs.nodata is None else {theirs.nodata: IGNORE, **table}
        for top in tqdm(range(0, height, ROWS), desc=Path(predicted).name, disable=None, leave=False):
            rows = min(ROWS, height - top)
            above, below = min(top, MARGIN_PX), min(height - top - rows, MARGIN_PX)
            window = top - above, 0, above + rows + below, width
            (classes, beyond), (codes, hidden) = codes_at(ours, window), codes_at(theirs, window, colors)
            labels, void = merge(codes, table, truth), (classes == nodata) | beyond
            if (strange := np.unique(classes[~void & ((classes < 0) | (classes >= count))])).size:
                raise Refused(f"{predicted}: holds {strange[0]}, which is none of the {count} classes")
            labels[void | hidden] = IGNORE
            maps = torch.from_numpy(classes.astype(np.int64))[None], torch.from_numpy(labels)[None]
            tally.add(*maps, rows=slice(above, above + rows))
    if not tally.confusion.any():
        raise Refused(f"{predicted}: no pixel has a class both there and in {truth}")
    return tally


def on_pixels_of(theirs, ours, same_crs, stack):
    """The prediction on the truth's pixels; one line says where its file has it otherwise."""
    if require_one_place(ours, theirs, same_crs):
        print(f"note: {theirs.path}: does not say where it lies; it is taken to have the pixels of {ours.path}")
    if not (ours.affine and theirs.affine):
        require_same_pixels(ours, theirs)
    if same_pixels(ours, theirs) and in_one_system(ours, theirs, same_crs):
        return ours
    print(f"note: {ours.path}: is warped to the pixels of {theirs.path}, by nearest neighbours")
    return stack.enter_context(ours.onto(theirs))


def codes_at(label, window, colors=()):
    """Codes (H, W) of a window of a label, and where it has none: (H, W) bool."""
    codes, hidden = codes_of(*label.read(*window, label.bands - (label.alpha is not None)), label, colors)
    return codes, np.zeros(codes.shape, bool) if hidden is None else hidden
