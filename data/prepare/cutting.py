"""One scene to tiles (Sec. 3.1): cut, merge, drop by the paper's two rules, write."""

import itertools
import math
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from data.cells import PIXEL_GRID, compose, corners, invert
from data.label_masks import open_label
from data.rasters.alignment import DEFAULT_SCALE, check_high, check_image, lies_by_pixels, low_grid
from data.rasters.georeference import system_alone
from data.rasters.geotiff_header import gsd
from data.rasters.images import input_bands, open_image, window_with_nodata
from data.synthetic.coarse import low_label
from data.taxonomy import IGNORE, Taxonomy, unknown_codes
from data.tile_writer import count_labels, write_tile
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
    colors: dict = field(default_factory=dict)  # {"high": {(r, g, b): code}, "low": ...} of masks of colours


def cut_scene(root, scene, options):
    """Cut a scene into tiles without overlap, from its top-left corner; edge remainders are no tiles.

    Rasters are read by window: memory does not grow with the scene (PNG and JPEG are read whole).
    returns: {"records": what write_tile returned, "dropped": {rule: tiles}, "tile_px", "image_gsd", "scale": n or None
             where the rasters do not say, "nodata": label codes to ignore by source, "by_pixels": labels without a
             georeference on an image with one, "size": the scene's (height, width)}
    """
    px, records, dropped = options.tile_px, [], dict.fromkeys(RULES, 0)
    with ExitStack() as stack:
        image = stack.enter_context(open_image(scene.image))
        high, low = (
            stack.enter_context(open_label(path, options.colors.get(kind))) if path else None
            for kind, path in (("high", scene.high), ("low", scene.low))
        )
        header = image.header
        bands = input_bands(header, options.bands or scene.bands, "--bands ")
        grid, facts = lay(header, high and high.header, low and low.header, options)
        taxonomy = ignoring(options.taxonomy, facts["nodata"])
        crs = system_tags(image)
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
                pixels, nodata = window_with_nodata(image, bands, *window)
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
    return {
        "records": records,
        "dropped": dropped,
        "tile_px": px,
        "size": (header.height, header.width),
        **facts,
    }


def ignoring(taxonomy, nodata):
    """The taxonomy with {"high": codes, "low": codes} ignored, where it does not give them a class of their own."""
    tables = {kind: {**dict.fromkeys(codes, IGNORE), **getattr(taxonomy, kind)} for kind, codes in nodata.items()}
    return replace(taxonomy, **tables)


def lay(image, high, low, options):
    """Check the rasters of one scene against each other, by their headers.

    returns: the low label's own grid or None (rasters/alignment.py), {"image_gsd", "scale", "nodata", "by_pixels": the
             labels that lie by their pixels alone}
    """
    check_image(image)
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


def system_tags(raster):
    """The tags of a raster's coordinate system that its tiles need: none where an EPSG code and metres say it all."""
    said_by_code = raster.header.epsg and raster.header.unit_m in (1.0, None)
    return () if said_by_code else system_alone(raster.georeference())


def _made_coarse(high_codes, materials, transform, options, name):
    """Coarse codes in NLCD's manner from a fine label (data/synthetic/coarse.py), and where their cells lie.

    The draws come from the build's seed and the tile's name: a tile has one coarse map, whichever split it is in.
    """
    n, land_cover = options.scale or DEFAULT_SCALE, np.zeros(256, np.uint8)
    land_cover[[code for code, _ in materials]] = [material for _, material in materials]
    rng = np.random.default_rng([options.seed, *name.encode()])
    known = land_cover[np.clip(high_codes, 0, 255)]  # a code beyond is named where labels are counted
    return low_label(rng, known, n), compose(transform, (n, 0, 0, 0, n, 0))


def _cells_over(low, grid, transform, px):
    """The cells that touch a tile, and their transform; (None, None) where the raster has none there."""
    (left, right), (top, bottom) = (
        (max(0, math.floor(round(min(values), 6))), math.ceil(round(max(values), 6)))
        for values in zip(*corners(compose(invert(grid), transform), px, px), strict=True)
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
