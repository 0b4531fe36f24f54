"""One label raster against another, by windows: how far a map agrees with the truth of its place."""

from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.label_masks import open_label
from data.rasters.alignment import check_high, check_label
from data.rasters.images import open_image
from data.taxonomy import IGNORE, merge
from metrics import Tally
from runtime.errors import Refused

MARGIN_PX = 3  # rows beside those counted, which their borders may be near to


def scene_tally(predicted, truth, taxonomy, same_crs=False, colors=()):
    """Tally over the pixels with a class in both, some rows at a time.

    The truth's own nodata is ignored unless it has a class.
    colors: of the truth, as of data.label_masks.open_label
    raises: Refused
    """
    count = len(taxonomy.names)
    tally = Tally(count)
    with open_image(predicted) as ours, open_label(truth, colors) as theirs:
        header = ours.header
        check_label(header)
        check_high(header, theirs.header, same_crs)
        merges = merges_of(theirs, taxonomy)
        if theirs.header.nodata is not None:
            merges = {theirs.header.nodata: IGNORE, **merges}
        for top in tqdm(range(0, header.height, 256), desc=Path(predicted).name, disable=None, leave=False):
            rows = min(256, header.height - top)
            above, below = min(top, MARGIN_PX), min(header.height - top - rows, MARGIN_PX)
            window = (top - above, 0, above + rows + below, header.width)
            classes, labels = ours.window(*window)[..., 0], merge(theirs.window(*window)[..., 0], merges, truth)
            void = classes == (IGNORE if header.nodata is None else header.nodata)
            if (strange := np.unique(classes[~void & ((classes < 0) | (classes >= count))])).size:
                raise Refused(f"{predicted}: holds {strange[0]}, which is none of the {count} classes")
            labels[void] = IGNORE
            maps = torch.from_numpy(classes.astype(np.int64))[None], torch.from_numpy(labels)[None]
            tally.add(*maps, rows=slice(above, above + rows))
    if not tally.confusion.any():
        raise Refused(f"{predicted}: no pixel has a class both there and in {truth}")
    return tally


def merges_of(truth, taxonomy):
    """The taxonomy's high table; its low one, which is worth a line, where that alone knows all codes of the truth, as
    of NLCD that was warped to the map's pixels."""
    high, low = taxonomy.high, taxonomy.low
    if not high or not low:
        return high or low
    header, codes = truth.header, set()
    for top in range(0, header.height, 256):
        codes |= set(np.unique(truth.window(top, 0, min(256, header.height - top), header.width)).tolist())
        codes.discard(header.nodata)
        if not codes <= low.keys():
            return high
    if codes <= high.keys():
        return high
    print(f"note: {header.path}: its codes are low ones of the taxonomy, not high ones; scored against coarse labels")
    return low
