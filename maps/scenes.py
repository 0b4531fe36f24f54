"""Scenes to map: which ones, whether they go with a network, and their pixels window by window."""

import glob
import math
from pathlib import Path

import numpy as np

from data.cells import compose
from data.lists import read_csv, read_lines, relative_path
from data.rasters import Raster, gdal, ground_size
from data.values import value_range, whole_numbers
from data.voids import filled, takes_alpha
from maps.preview import ENDING
from runtime.errors import Refused

WIDEST = 10  # up to this many times the training images' pixels, resampling is worth a try [ours]
GSD_TOLERANCE = 0.1  # beyond this share a scene's pixel size is another than the training images'


def scene_paths(words):
    """Files, patterns as 'scenes/**/*.tif', and lists -> the paths of the scenes, in this order.

    A list is a .txt with one path a line or a .csv with a column image; its paths are relative to its folder and stay
    inside it. Patterns leave out previews of maps.
    raises: Refused
    """
    paths = []
    for word in map(str, words):
        path = Path(word)
        if path.suffix.lower() in (".txt", ".csv"):
            paths += _listed(path)
        elif path.is_dir():
            raise Refused(f"{word}: is a folder; name its scenes by a pattern, as '{path / '*.tif'}'")
        elif path.exists():
            paths.append(path)
        else:
            found = [name for name in sorted(glob.glob(word, recursive=True)) if not name.endswith(ENDING)]
            if not found:
                raise Refused(f"{word}: no such file")
            paths += map(Path, found)
    return paths


def require_fitting(raster, facts):
    """Refuse a scene without the bands and the kind of pixels that a network was trained on, by its `facts`.

    returns: the values at both ends of the training images' numbers, where the scene's become such numbers; else None
    """
    bands, dtype = facts["bands"], facts["dtype"]
    if raster.bands != bands and not takes_alpha(raster, bands):
        raise Refused(f"{raster.path}: has {raster.bands} bands, the network was trained on {bands}")
    limits = value_range(raster, facts["range"]) if facts.get("range") else None
    if limits is None and raster.dtype != dtype:
        raise Refused(f"{raster.path}: its pixels are {raster.dtype}, the network was trained on {dtype}")
    return limits


def scale_warning(raster, image_gsd):
    """One line where a scene's pixels have another size on the ground than the training images'; else None."""
    size = ground_size(raster)
    if not _differs(size, image_gsd):
        return None
    line = f"{raster.path}: its pixels are {size:.3g} m, the network learned from {image_gsd:.3g} m"
    if size > WIDEST * image_gsd * (1 + GSD_TOLERANCE):
        more = (size / image_gsd) ** 2
        return f"{line}: too coarse, and with {more:,.0f} times the pixels it would show no more"
    return f"{line}; --resample maps it at {image_gsd:.3g} m"


def at_size(raster, bands, image_gsd, stack):
    """The scene on square pixels as large as the training images': averaged where it is finer, bilinear where it is
    coarser; itself where its pixels are about as large or it does not say how large they are.

    stack: ExitStack that closes what is opened
    """
    size = ground_size(raster)
    if not _differs(size, image_gsd):
        return raster
    rasterio, source, opaque = gdal(), raster.dataset, not takes_alpha(raster, bands)
    if opaque and raster.alpha is not None:  # a band like the others, which GDAL would take for opacity
        memory = stack.enter_context(rasterio.MemoryFile(ext=".vrt"))
        rasterio.shutil.copy(source, memory.name, driver="VRT")
        with rasterio.open(memory.name, "r+") as untagged:
            untagged.colorinterp = [rasterio.enums.ColorInterp.undefined] * bands
        source = stack.enter_context(rasterio.open(memory.name))
    height, width = raster.size
    a, b, _, d, e, f = raster.affine
    oblong = math.hypot(a, d) / math.hypot(b, e)  # width of a pixel by its height
    if raster.crs and raster.crs.is_geographic:
        oblong *= math.cos(math.radians(d * width / 2 + e * height / 2 + f))
    sides = height * size / oblong**0.5, width * size * oblong**0.5  # in metres
    rows, cols = (max(1, round(side / image_gsd)) for side in sides)
    system = raster.crs or "EPSG:3857"  # without one any serves: it stays the same
    warped = rasterio.vrt.WarpedVRT(
        source, src_crs=system, crs=system, height=rows, width=cols, add_alpha=opaque,
        transform=rasterio.Affine(*compose(raster.affine, (width / cols, 0, 0, 0, height / rows, 0))),
        resampling=rasterio.enums.Resampling["average" if size < image_gsd else "bilinear"],
        UNIFIED_SRC_NODATA="YES",  # a pixel is void where all its bands are
    )  # fmt: skip
    scene = stack.enter_context(Raster(raster.path, warped))
    scene.crs, scene.tagged = raster.crs, raster.tagged
    return scene


def read_windows(raster, rows, cols, height, width, bands, limits=None):
    """The windows that begin at `rows` and `cols`, in reading order.

    limits: of `require_fitting`
    Yields (i, j, pixels, void): pixels (height, width, bands) as a training tile has them, void ones filled, or None
    where there is nothing to see in a window; void (height, width), True where the scene has no data or has ended, or
    None where it has all.
    """
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            seen = min(height, raster.size[0] - row), min(width, raster.size[1] - col)
            pixels, void = raster.window(row, col, *seen, bands)
            if void is not None and void.all():
                yield i, j, None, np.ones((height, width), bool)
                continue
            pixels = filled(whole_numbers(pixels, void, raster, limits)[0], void)
            rest = [(0, height - seen[0]), (0, width - seen[1])]
            if any(map(sum, rest)):
                void = np.zeros(seen, bool) if void is None else void
                pixels, void = np.pad(pixels, [*rest, (0, 0)], mode="edge"), np.pad(void, rest, constant_values=True)
            yield i, j, pixels, void


def _differs(size, image_gsd):
    return size is not None and abs(size / image_gsd - 1) > GSD_TOLERANCE


def _listed(path):
    if path.suffix.lower() == ".csv":
        rows = [(line, row["image"]) for line, row in read_csv(path, ("image",))]
    else:
        rows = read_lines(path)
    if not rows:
        raise Refused(f"{path}: lists no scene")
    found = []
    for line, name in rows:
        scene = path.parent / relative_path(name, f"{path}, line {line}")
        if not scene.is_file():
            raise Refused(f"{path}, line {line}: {name}: no such file")
        found.append(scene)
    return found
