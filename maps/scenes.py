"""Scenes to map: which ones, whether they go with a network, and their pixels window by window."""

import math
import sys
from glob import glob
from pathlib import Path

import numpy as np

from data.cells import compose
from data.laying import same_gsd
from data.rasters import Raster, gdal, ground_size
from data.values import value_range, whole_numbers
from data.voids import doubtful_alpha, filled, takes_alpha
from maps.preview import ENDING
from runtime import command
from runtime.errors import Refused, require


def scene_paths(words):
    """Files, and patterns as 'scenes/**/*.tif', which leave out previews -> the scenes' paths; raises Refused."""
    paths = []
    for word in words:
        if Path(word).is_file():
            paths.append(Path(word))
            continue
        named = map(Path, sorted(glob(word, recursive=True)))
        found = [path for path in named if path.is_file() and not path.name.endswith(ENDING)]
        require(found, f"{word}: no such file; for all scenes of a folder, give FOLDER/*.tif")
        paths += found
    return paths


def require_fitting(scene, facts):
    """Refuse a scene without the bands and the kind of pixels that a network was trained on, by its `facts`; returns
    the range of values that was brought to whole numbers in training, where the scene's values need that too. One line
    warns of a mask that looks measured."""
    if scene.bands != facts["bands"] and not takes_alpha(scene, facts["bands"]):
        raise Refused(f"{scene.path}: has {scene.bands} bands, the network was trained on {facts['bands']}")
    if doubtful_alpha(scene, facts["bands"]):
        what = f"hides pixels where band {scene.alpha + 1}, tagged alpha, is 0, but that band looks measured"
        command.say(f"warning: {scene.path}: {what}; remove the band from the file", file=sys.stderr)
    known = facts.get("range")
    limits = value_range(scene, known) if known else None
    if limits is None and (known or scene.dtype != facts["dtype"]):
        wanted = "values {:g} to {:g}".format(*known) if known else facts["dtype"]
        raise Refused(f"{scene.path}: its pixels are {scene.dtype}, the network was trained on {wanted}")
    return limits


def at_size(scene, facts, resample, stack):
    """The scene, with `resample` on pixels as large as the training images'; without it one line warns of others."""
    size, known = ground_size(scene), facts.get("image_gsd")
    if size is None or known is None:
        which = "the scene does" if size is None else "the training images did"
        require(not resample, f"{scene.path}: --resample: {which} not say how many metres a pixel has")
        return scene
    if same_gsd(size, known):
        return scene
    if resample:
        return resampled(scene, facts["bands"], known / size, stack)
    sizes = f"its pixels are {size:.3g} m, the network learned from {known:.3g} m"
    command.say(f"warning: {scene.path}: {sizes}; --resample maps it at {known:.3g} m", file=sys.stderr)
    return scene


def resampled(scene, bands, times, stack):
    """The scene on pixels so many times as large, and square on the ground: averaged where it is finer, bilinear where
    it is coarser. stack: ExitStack that closes what is opened"""
    rasterio, source, opaque = gdal(), scene.dataset, not takes_alpha(scene, bands)
    if opaque and scene.alpha is not None:  # a band like the others, which GDAL would take for opacity
        memory = stack.enter_context(rasterio.MemoryFile(ext=".vrt"))
        rasterio.shutil.copy(source, memory.name, driver="VRT")
        with rasterio.open(memory.name, "r+") as untagged:
            untagged.colorinterp = [rasterio.enums.ColorInterp.undefined] * bands
        source = stack.enter_context(rasterio.open(memory.name))
    (height, width), (a, b, _, d, e, f) = scene.size, scene.affine
    oblong = math.hypot(a, d) / math.hypot(b, e)  # width of a pixel by its height
    if scene.crs and scene.crs.is_geographic:
        oblong *= math.cos(math.radians(d * width / 2 + e * height / 2 + f))
    rows, cols = (max(1, round(side / times)) for side in (height / oblong**0.5, width * oblong**0.5))
    system = scene.crs or "EPSG:3857"  # without one any serves: it stays the same
    warped = rasterio.vrt.WarpedVRT(
        source, src_crs=system, crs=system, height=rows, width=cols, add_alpha=opaque,
        transform=rasterio.Affine(*compose(scene.affine, (width / cols, 0, 0, 0, height / rows, 0))),
        resampling=rasterio.enums.Resampling["average" if times > 1 else "bilinear"],
        UNIFIED_SRC_NODATA="YES",  # a pixel is void where all its bands are
    )  # fmt: skip
    made = stack.enter_context(Raster(scene.path, warped))
    made.crs, made.tagged = scene.crs, scene.tagged
    return made


def read_windows(scene, rows, cols, height, width, bands, limits=None):
    """The windows that begin at `rows` and `cols`, in reading order. limits: of `require_fitting`

    Yields (i, j, pixels, void, held): pixels (height, width, bands) as a training tile has them, void ones filled, or
    None of a window without data; void (height, width) bool, where the scene has no data or has ended, or None for
    nowhere; held, how many pixels were clipped to `limits`.
    """
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            seen = min(height, scene.size[0] - row), min(width, scene.size[1] - col)
            pixels, void = scene.window(row, col, *seen, bands)
            if void is not None and void.all():
                yield i, j, None, np.ones((height, width), bool), 0
                continue
            pixels, held = whole_numbers(pixels, void, scene, limits)
            pixels = filled(pixels, void)
            rest = [(0, height - seen[0]), (0, width - seen[1])]
            if any(map(sum, rest)):
                void = np.zeros(seen, bool) if void is None else void
                pixels, void = np.pad(pixels, [*rest, (0, 0)], mode="edge"), np.pad(void, rest, constant_values=True)
            yield i, j, pixels, void, held
