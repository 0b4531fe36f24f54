"""One scene to tiles (Sec. 3.1): cut, merge, drop by the paper's two rules, write. And tiles that are cut already."""

import itertools
import math
import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.band_statistics import sum_bands
from data.build.sources import codes_from_colors
from data.cells import compose, invert
from data.rasters import geotiff
from data.rasters.alignment import DEFAULT_SCALE, check_high, check_label, lies_by_pixels, low_grid
from data.rasters.georeference import system_alone
from data.rasters.geotiff_header import gsd
from data.rasters.images import open_image, takes_alpha, window_with_void
from data.synthetic.coarse import low_label
from data.taxonomy import IGNORE, Taxonomy, unknown_codes
from data.tile_writer import PIXEL_GRID, count_labels, write_tile
from runtime.errors import Refused

MIN_CLASSES = 3  # unique merged classes in a tile [paper, Sec. 3.1]
MAX_SHARE = 0.75  # of a tile's pixels under one class [paper, Sec. 3.1]
# What drops a tile, counted under the first that does: a label source without a label over it, or an image without data
# (always); fewer classes; one class over more (not with --no-filter; if either source does so [paper ambiguous]).
RULES = ("empty", "classes", "dominant")


@dataclass(frozen=True)
class Options:
    """What the tiles depend on, beside the scenes themselves."""

    source: str  # scenes, tiled, chesapeake, dubai or naip215
    taxonomy: Taxonomy
    tile_px: int = 512
    scale: int | None = None  # None: as the rasters say, or 30
    seed: int = 0
    filter: bool = True
    compression: str = "zlib"
    rotation: int | None = None  # of naip215
    coarse: str | None = None  # nlcd: made from the fine label in NLCD's manner; None: as the source has it
    bands: int | None = None  # of the images; None: as they have, none of which may be tagged as alpha
    same_crs: bool = False  # take a scene's rasters for one coordinate system, whatever they say


def cut_scene(root, scene, options):
    """Cut a scene into tiles without overlap, from its top-left corner; edge remainders are no tiles.

    Rasters are read by window: memory does not grow with the scene (PNG and JPEG are read whole).
    returns: {"records": what write_tile returned, "dropped": {rule: tiles}, "tile_px", "image_gsd", "scale": n or None
             where the rasters do not say, "nodata": label codes to ignore by source, "by_pixels": labels without a
             georeference on an image with one}
    """
    px, records, dropped = options.tile_px, [], dict.fromkeys(RULES, 0)
    with ExitStack() as stack:
        image = stack.enter_context(open_image(scene.image))
        high = stack.enter_context(_open_label(scene.high, scene.colors)) if scene.high else None
        low = stack.enter_context(_open_label(scene.low)) if scene.low else None
        header = image.header
        bands = _input_bands(header, options.bands or scene.bands)
        grid, facts = _lay(header, high and high.header, low and low.header, options)
        taxonomy = ignoring(options.taxonomy, facts["nodata"])
        # An EPSG code and metres are written as such; whatever else the image says of its system goes with its tiles.
        said_by_code = header.epsg and header.unit_m in (1.0, None)
        crs = () if said_by_code else system_alone(image.georeference())
        base = header.transform or (PIXEL_GRID if grid or options.coarse else None)
        for row, col in itertools.product(range(header.height // px), range(header.width // px)):
            window = (row * px, col * px, px, px)
            transform = base and compose(base, (1, 0, col * px, 0, 1, row * px))
            name = f"{scene.name}_{row:03d}_{col:03d}"
            high_codes = high.window(*window)[..., 0] if high else None
            low_codes, low_transform = None, None
            if options.coarse:
                low_codes, low_transform = _made_coarse(high_codes, scene.materials, transform, options, name)
            if grid:
                low_codes, low_transform = _cells_over(low, grid, transform, px)
            elif low:
                low_codes = low.window(*window)[..., 0]
            if grid and low_codes is None:
                dropped["empty"] += 1
                continue
            try:
                counts = count_labels(high_codes, low_codes, taxonomy, (px, px), transform, low_transform, scene.name)
            except Refused as error:
                unknown = _all_unknown_codes(high, taxonomy.high) or _all_unknown_codes(low, taxonomy.low)
                raise unknown or error from None
            rule = _broken_rule(counts, px * px, options.filter)
            if not rule:
                pixels, nodata = _with_nodata(image, bands, window)
                rule = "empty" if nodata is not None and (pixels == nodata).all() else None
            if rule:
                dropped[rule] += 1
                continue
            records.append(
                write_tile(
                    root,
                    name,
                    pixels,
                    high_codes,
                    low_codes,
                    taxonomy=taxonomy,
                    region=scene.region,
                    split=scene.split,
                    transform=transform,
                    low_transform=low_transform,
                    epsg=header.epsg,
                    crs=crs,
                    nodata=nodata,
                    compression=options.compression,
                    counts=counts,
                )
            )
    return {"records": records, "dropped": dropped, "tile_px": px, **facts}


def take_tile(root, scene, options):
    """Take a tile that is cut already as it is: check it and count; nothing is copied.

    Files below root are referred to in place; elsewhere, relative links below root/images, high and low lead to them.
    returns: as cut_scene
    """
    with geotiff.open_raster(scene.image) as image:
        pixels, header, void = image.read(), image.header, image.void()
    if _input_bands(header, options.bands or scene.bands) != header.bands:
        raise Refused(f"{scene.image}: has an alpha band beside the {options.bands}; --scenes cuts without it")
    labels, headers = {"high": None, "low": None}, {"high": None, "low": None}
    for kind in labels:
        if getattr(scene, kind):
            codes, headers[kind] = geotiff.read(getattr(scene, kind))
            check_label(headers[kind])
            labels[kind] = codes[..., 0]
    if header.height != header.width:
        raise Refused(f"{scene.image}: is {header.height} x {header.width} px; tiles are square; --scenes cuts")
    grid, facts = _lay(header, headers["high"], headers["low"], options)
    taxonomy = ignoring(options.taxonomy, facts["nodata"])
    where = " or ".join(str(path) for path in (scene.high, scene.low) if path)
    counts = count_labels(labels["high"], labels["low"], taxonomy, pixels.shape[:2], header.transform, grid, where)
    paths = {
        kind: _refer(root, folder, scene.name, getattr(scene, kind))
        for kind, folder in (("image", "images"), ("high", "high"), ("low", "low"))
    }
    record = {
        "tile": scene.name,
        "region": scene.region,
        "split": scene.split,
        **paths,
        "dtype": str(pixels.dtype),
        **sum_bands(pixels if void is None else pixels[~void][None], header.nodata),
        **counts,
    }
    return {"records": [record], "dropped": {}, "tile_px": header.height, **facts}


def ignoring(taxonomy, nodata):
    """The taxonomy with {"high": codes, "low": codes} ignored, where it does not give them a class of their own."""
    tables = {kind: {**dict.fromkeys(codes, IGNORE), **getattr(taxonomy, kind)} for kind, codes in nodata.items()}
    return replace(taxonomy, **tables)


class _Codes:
    """A mask of colours as a raster of codes. Pictures are read whole anyway; so an error counts the whole mask."""

    def __init__(self, mask, colors):
        self.header = replace(mask.header, bands=1, dtype=np.dtype(np.uint8), nodata=None)
        self._codes = codes_from_colors(mask.read(), colors, mask.header.path)[..., None]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def window(self, row, col, height, width):
        return self._codes[row : row + height, col : col + width]


def _open_label(path, colors=()):
    raster = open_image(path)
    if colors:
        with raster:
            return _Codes(raster, colors)
    check_label(raster.header)
    return raster


def _lay(image, high, low, options):
    """Check the rasters of one scene against each other, by their headers.

    returns: the low label's own grid or None (rasters/alignment.py), {"image_gsd", "scale", "nodata", "by_pixels": the
             labels that lie by their pixels alone}
    """
    if image.dtype not in (np.uint8, np.uint16):
        raise Refused(
            f"{image.path}: pixels are {image.dtype}; convert them to uint8 or uint16: gdal_translate -ot "
            "UInt16 [-scale]"
        )
    if high:
        check_high(image, high, options.same_crs)
    grid, n = low_grid(image, low, options.scale, options.same_crs) if low else (None, None)
    nodata = {
        kind: [label.nodata] if label and label.nodata is not None else []
        for kind, label in (("high", high), ("low", low))
    }
    by_pixels, size = sum(lies_by_pixels(image, label) for label in (high, low) if label), round(gsd(image) or 1.0, 6)
    return grid, {"image_gsd": size, "scale": n, "nodata": nodata, "by_pixels": by_pixels}


def _input_bands(header, bands):
    """How many bands of an image the tiles have: all, or `bands`; Refused where an alpha band leaves it open."""
    path = header.path
    if bands is None and header.alpha is not None:
        raise Refused(
            f"{path}: band {header.alpha + 1} of {header.bands} is tagged alpha; --bands {header.bands - 1} takes it "
            f"for where there are data, --bands {header.bands} for a band like the others, as near infrared"
        )
    if bands and header.bands != bands and not takes_alpha(header, bands):
        raise Refused(f"{path}: has {header.bands} bands, not {bands} (--bands)")
    return bands or header.bands


def _with_nodata(image, bands, window):
    """Pixels of a window, and the value of those without data: what a mask or an alpha band hides gets it, or 0."""
    pixels, void = window_with_void(image, bands, *window)
    nodata = image.header.nodata
    if void is not None and nodata is None:
        nodata = 0
    if void is not None:
        pixels[void] = nodata
    return pixels, nodata


def _made_coarse(high_codes, materials, transform, options, name):
    """Coarse codes in NLCD's manner from a fine label (data/synthetic/coarse.py), and where their cells lie.

    The draws come from the build's seed and the tile's name: a tile has one coarse map, whichever split it is in.
    """
    n, land_cover = options.scale or DEFAULT_SCALE, np.zeros(256, np.uint8)
    land_cover[[code for code, _ in materials]] = [material for _, material in materials]
    rng = np.random.default_rng([options.seed, *name.encode()])
    return low_label(rng, land_cover[high_codes], n), compose(transform, (n, 0, 0, 0, n, 0))


def _cells_over(low, grid, transform, px):
    """The cells that touch a tile, and their transform; (None, None) where the raster has none there."""
    a, b, c, d, e, f = compose(invert(grid), transform)
    corners = [(a * x + b * y + c, d * x + e * y + f) for x in (0, px) for y in (0, px)]
    (left, right), (top, bottom) = (
        (max(0, math.floor(round(min(values), 6))), math.ceil(round(max(values), 6)))
        for values in zip(*corners, strict=True)
    )
    right, bottom = min(right, low.header.width), min(bottom, low.header.height)
    if left >= right or top >= bottom:
        return None, None
    cells = low.window(top, left, bottom - top, right - left)[..., 0]
    return cells, compose(grid, (1, 0, left, 0, 1, top))


def _broken_rule(counts, area, use_filter):
    counts = [pixels for pixels in counts.values() if pixels is not None]
    if any(sum(pixels) == 0 for pixels in counts):
        return "empty"
    if use_filter and any(sum(n > 0 for n in pixels) < MIN_CLASSES for pixels in counts):
        return "classes"
    if use_filter and any(max(pixels) > MAX_SHARE * area for pixels in counts):
        return "dominant"
    return None


def _all_unknown_codes(label, table):
    """The error that lists every unknown code of a raster, so that a taxonomy is mended in one go; None without any."""
    found, rows = Counter(), 256
    for row in range(0, label.header.height if label else 0, rows):
        codes = label.window(row, 0, min(rows, label.header.height - row), label.header.width)
        values, counts = np.unique(codes, return_counts=True)
        found.update({v: n for v, n in zip(values.tolist(), counts.tolist(), strict=True) if v not in table})
    return unknown_codes(found, table, label.header.path) if found else None


def _refer(root, folder, name, path):
    """The manifest's path of a file: itself where it lies below root, else a relative link to it, made anew."""
    if not path:
        return ""
    root, path = Path(os.path.abspath(root)), Path(os.path.abspath(path))
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    link = root / folder / f"{name}.tif"
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(os.path.realpath(path), os.path.realpath(link.parent))
    if link.is_symlink() and os.readlink(link) == target:
        return f"{folder}/{name}.tif"
    if link.exists() and not link.is_symlink():
        raise Refused(f"{link}: is there already; give another folder than {root}")
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    os.symlink(target, temporary)
    os.replace(temporary, link)
    return f"{folder}/{name}.tif"
