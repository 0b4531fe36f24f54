"""One label raster against another, by windows: how far a map agrees with the truth of its place."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.label_source import ROWS, Label
from data.laying import in_one_system, require_one_place, require_same_pixels, same_pixels
from data.rasters import Raster
from data.taxonomy import classes_in, codes_in_words
from data.voids import join
from metrics import Tally
from runtime.errors import Refused, require
from runtime.labels import IGNORE

MOST = 0.995  # of the truth's labels: below it, a note says so
MARGIN_PX = 3  # rows beside those counted, which their borders may be near to


def scene_tally(predicted, truth, taxonomy, same_crs=False):
    """Tally over the pixels with a class in both, on the truth's pixels; raises Refused.

    The truth's own nodata is ignored unless it has a class. A note says where the map covers a part of it alone.
    """
    kind = "high" if taxonomy.high else "low"
    count, tally = len(taxonomy.names), Tally(taxonomy.names)
    with ExitStack() as stack:
        ours = Label(stack.enter_context(Raster(predicted)), {})
        theirs = Label(stack.enter_context(Raster(truth)), getattr(taxonomy, kind), taxonomy.masks.get(kind))
        require_classes(ours.raster, theirs, taxonomy.names)
        nodata = IGNORE if ours.raster.nodata is None else ours.raster.nodata
        ours.raster = on_pixels_of(theirs.raster, ours.raster, same_crs, stack)
        height, width = theirs.raster.size
        named, labelled = [code for code, class_ in theirs.known().items() if class_ != IGNORE], 0
        for top in tqdm(range(0, height, ROWS), desc=Path(predicted).name, disable=None, leave=False):
            rows = min(ROWS, height - top)
            above, below = min(top, MARGIN_PX), min(height - top - rows, MARGIN_PX)
            window = top - above, 0, above + rows + below, width
            (classes, beyond), (codes, hidden) = ours.over(*window), theirs.over(*window)
            labels = theirs.merged(codes, join(classes == nodata, beyond, hidden))
            strange = classes[(labels != IGNORE) & ((classes < 0) | (classes >= count))]
            if strange.size:
                raise Refused(f"{predicted}: holds {strange[0]}, which is none of the {count} classes")
            maps = torch.from_numpy(classes.astype(np.int64))[None], torch.from_numpy(labels)[None]
            tally.add(*maps, rows=slice(above, above + rows))
            there = np.isin(codes, named) if hidden is None else np.isin(codes, named) & ~hidden
            labelled += np.count_nonzero(there[above : above + rows])
    scored = tally.counts["confusion"].sum().item()
    require(scored, f"{predicted}: no pixel has a class both there and in {truth}")
    share = scored / labelled
    if share < MOST:
        print(f"note: {predicted}: covers {100 * share:.3g} % of what {truth} labels; the rest is not scored")
    return tally


def require_classes(ours, theirs, names):
    """Refused where the band of a map says that its numbers are other classes than these, or that of the truth that its
    codes are other classes than the taxonomy gives them."""
    for i, name in classes_in(ours.dataset.descriptions[0]):
        if i >= len(names) or names[i] != name:
            wanted = f"the taxonomy's are {codes_in_words(names)}; give the one of its training"
            raise Refused(f"{ours.path}: its class {i} is {name}, {wanted}")
    for code, name in classes_in(theirs.raster.dataset.descriptions[0]):
        if name in names and theirs.table.get(code) != names.index(name):
            raise Refused(f"{theirs.raster.path}: its code {code} is {name}, but not in the taxonomy; give its own")


def on_pixels_of(theirs, ours, same_crs, stack):
    """The prediction on the truth's pixels; one line says where its file has it otherwise."""
    if require_one_place(ours, theirs, same_crs):
        print(f"note: {theirs.path}: does not say where it lies; it is taken to have the pixels of {ours.path}")
    if not (ours.affine and theirs.affine):
        require_same_pixels(ours, theirs)
    if same_pixels(ours, theirs) and in_one_system(ours, theirs, same_crs):
        return ours
    print(f"note: {ours.path}: is warped to the pixels of {theirs.path}, by nearest neighbours")
    return stack.enter_context(ours.onto(theirs, same_crs))
