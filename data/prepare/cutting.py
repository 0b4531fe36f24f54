"""One scene to tiles (Sec. 3.1): cut, drop by the paper's two rules, write.

A pixel counts where there is imagery and where each label raster of its scene reaches. Elsewhere its labels are written
as ignored. This rule is applied once, when tiles are made, so every row trains and is scored on the same pixels.
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from data.cells import PIXEL_GRID, compose, corners, invert
from data.coarse import low_label
from data.ground import ground
from data.label_source import Label, leave_out
from data.laying import cell_px, in_one_system, low_grid, require_one_place, same_pixels, same_scale
from data.prepare.sources import NAIP215_MATERIALS
from data.rasters import FIT_PX, Raster, grids_under, ground_size, on_the_globe, system_tags
from data.taxonomy import Taxonomy, Unknown
from data.tile_writer import write_tile
from data.values import value_range, whole_numbers
from data.voids import count_black, doubtful_alpha, input_bands, join, marked
from runtime.errors import Refused, require

MIN_CLASSES = 3  # unique merged classes in a tile [paper, Sec. 3.1]
MAX_SHARE = 0.75  # of a tile's pixels under one class [paper, Sec. 3.1]
# What drops a tile, counted under the first that does: a label source without a label over it, or an image without data
# (always); fewer classes; one class over more (not with --no-filter; if either source does so [paper ambiguous]).
RULES = ("empty", "classes", "dominant")
BY_PIXELS = "labels without a georeference, which lie by pixels on images that have one"
WARPED = "fine labels on another grid or in another system, resampled to their images' pixels"
SMALL = "scenes smaller than --tile-px, which give no tile"
MEASURED = "images whose alpha band looks measured, like near infrared; it hides pixels: drop it or raise --bands"
BLACK = "images over 1 % black, taken as imagery; for collars, gdal_edit.py -a_nodata 0 and build in another folder"
MOST_BLACK = 0.01  # of a scene's pixels, 0 in all bands though nothing marks them as no data: above it, a note says so


@dataclass(frozen=True)
class Options:
    """What the tiles depend on, beside the scenes themselves."""

    source: str  # scenes, tiled, chesapeake or naip215
    taxonomy: Taxonomy
    tile_px: int | None = 512
    scale: int | None = None  # None: as the rasters say
    seed: int = 0
    filter: bool = True
    compression: str = "zlib"
    coarse: str | None = None  # of naip215: nlcd, made from the fine label in its manner, or majority
    bands: int | None = None  # of the images; None: as they have, none of which may be tagged as alpha
    range: tuple | None = None  # of float and signed images: the values at the ends (data/values.py)
    same_crs: bool = False  # take a scene's rasters for one coordinate system, whatever they say


def cut_scene(root, scene, options):
    """Cut a scene into tiles without overlap, from its top-left corner; edge remainders are no tiles.

    Rasters are read tile by tile: memory does not grow with the scene.
    returns: plain values: "records" of write_tile; {rule: tiles} "dropped"; "held" pixels beyond the range; the codes
             that say nothing, "nodata"; and what `check_and_lay` says
    raises:  Refused; where a label has codes or colours without a class, all of them are named
    """
    taxonomy = options.taxonomy
    with ExitStack() as stack:
        image = stack.enter_context(Raster(scene.image))
        labels = {
            kind: Label(stack.enter_context(Raster(path)), getattr(taxonomy, kind), taxonomy.masks.get(kind))
            for kind, path in scene.labels().items()
        }
        facts = check_and_lay(image, labels, options, stack)
        try:
            records, dropped, held = cut(root, scene, image, labels, options, facts)
        except Unknown as unknown:
            raise next(filter(None, (label.unknown() for label in labels.values())), unknown) from None
    nodata = {kind: sorted(label.ignored) for kind, label in labels.items()}
    return {"records": records, "tile_px": options.tile_px, "dropped": dropped, "held": held, "nodata": nodata, **facts}


def check_and_lay(image, labels, options, stack):
    """Check the rasters of a scene against each other. A fine label on another grid is warped to the image's pixels, by
    nearest neighbours; a coarse one keeps its cells, and `Label.cells` becomes their affine.

    returns: {"image_gsd": metres or None, "scale": n, or None where there is no coarse label, "bands" that are taken,
             "range" and "tags" of the image's values, "notes": {what a user must know: of how many files}}
    raises:  Refused where they do not lie over each other, or nothing says n
    """
    notes, n = {BY_PIXELS: 0, WARPED: 0, SMALL: int(min(image.size) < options.tile_px)}, None
    middle = [max(0, (side - options.tile_px) // 2) for side in image.size]
    middle = (*middle, *(min(options.tile_px, side) for side in image.size))
    for kind, label in labels.items():
        raster = label.raster
        notes[BY_PIXELS] += require_one_place(image, raster, options.same_crs)
        placed = image.affine and raster.affine
        fit_px = FIT_PX if kind == "low" else math.inf  # a fine label is warped pixel by pixel
        grid = grids_under(image, raster, [middle], options.same_crs, fit_px)[0] if placed else None
        if placed and not overlap(image, grid, raster.size):
            raise Refused(f"{raster.path}: does not overlap {image.path}; is it of another place?")
        if kind == "low":
            label.cells, n = low_grid(image, raster, options.scale, grid)
            label.block = None if label.cells else n
        elif not same_pixels(image, raster, grid):
            if not placed:
                sizes = [f"{size[0]} x {size[1]}" for size in (raster.size, image.size)]
                raise Refused(f"{raster.path}: is {sizes[0]} px, {image.path} {sizes[1]}, without a georeference")
            label.raster = stack.enter_context(raster.onto(image, options.same_crs))
            notes[WARPED] += 1
    bands = input_bands(image, options.bands, "--bands ")
    notes[MEASURED] = int(doubtful_alpha(image, bands))
    values = {"range": value_range(image, options.range), "tags": [side[:bands] for side in image.tagged]}
    return {"image_gsd": ground_size(image), "scale": n, "bands": bands, "notes": notes, **values}


def overlap(image, grid, size):
    """Whether cells on a grid, (h, w) of them, lie over an image somewhere."""
    places = zip(*corners(compose(invert(grid), image.affine), *image.size), strict=True)
    return all(min(values) < most and max(values) > 0 for values, most in zip(places, size[::-1], strict=True))


def cut(root, scene, image, labels, options, facts):
    """The tiles of a scene whose rasters are open and laid. facts: of `check_and_lay`; gains a note on black pixels.

    returns: records, {rule: tiles dropped}, pixels clipped to the range
    """
    px, low, records, dropped, held, dark = options.tile_px, labels.get("low"), [], dict.fromkeys(RULES, 0), 0, 0
    bands, limits, n = facts["bands"], facts["range"], facts["scale"]
    height, width = (side // px * px for side in image.size)
    places = [(row, col, px, px) for row in range(0, height, px) for col in range(0, width, px)]
    cells = low and low.cells  # None too where the coarse label has the image's pixels
    grids = [cells] * len(places)
    if cells and not in_one_system(image, low.raster, options.same_crs):
        grids = grids_under(image, low.raster, places, options.same_crs)
    base = image.affine or (PIXEL_GRID if cells or options.coarse == "nlcd" else None)
    system = system_tags(image.crs)
    for place, grid, globe in zip(places, grids, on_the_globe(image, places), strict=True):
        row, col = place[:2]
        name = f"{scene.name}_{row // px:03d}_{col // px:03d}"
        transform, low_transform = base and compose(base, (1, 0, col, 0, 1, row)), None
        pixels, void = image.window(*place, bands)
        dark += count_black(image, pixels, void)
        codes, unlabelled = {}, None
        for kind, label in labels.items():
            if label.cells:
                codes[kind], low_transform, beyond = label.cells_over(grid, transform, (px, px))
                here = cell_px(grid, transform) ** 0.5
                wide = f"its coarse cells are {n:g} px wide in its middle and {here:.5g} px in tile {name}"
                require(same_scale(here, n), f"{scene.image}: {wide}; list smaller scenes")
            else:
                codes[kind], beyond = label.over(*place)
            unlabelled = join(unlabelled, beyond)
        if options.coarse == "nlcd":
            codes["low"], low_transform = made_coarse(codes["high"], transform, options, name)
        of_tile = (px, px), transform, low_transform
        counts = leave_out(labels, codes, void, unlabelled, options.taxonomy, *of_tile, scene.name)
        rule = "empty" if void is not None and void.all() else broken_rule(counts, px * px, options.filter)
        if rule:
            dropped[rule] += 1
            continue
        pixels, beyond_range = whole_numbers(pixels, void, image, limits)
        held += beyond_range
        pixels, nodata = marked(pixels, void, image.nodata if limits is None else 0)
        record = write_tile(
            root, name, pixels, codes.get("high"), codes.get("low"), taxonomy=options.taxonomy, region=scene.region,
            split=scene.split, transform=transform, low_transform=low_transform, system=system, nodata=nodata,
            void=void, unlabelled=unlabelled, place=ground(globe, (px, px), "globe"), counts=counts,
            compression=options.compression,
        )  # fmt: skip
        records.append(record)
    facts["notes"][BLACK] = int(dark > MOST_BLACK * height * width)
    return records, dropped, held


def made_coarse(high_codes, transform, options, name):
    """Coarse codes in NLCD's manner from a fine label of naip215 (data/coarse.py), and where their cells lie.

    The draws come from the build's seed and the tile's name: a tile has one coarse map, whichever split it is in.
    """
    n, land_cover = options.scale, np.zeros(256, np.uint8)
    land_cover[[*NAIP215_MATERIALS]] = [*NAIP215_MATERIALS.values()]
    rng = np.random.default_rng([options.seed, *name.encode()])
    known = land_cover[np.clip(high_codes, 0, 255)]  # a code beyond is named where labels are counted
    return low_label(rng, known, n), compose(transform, (n, 0, 0, 0, n, 0))


def broken_rule(counts, area, use_filter):
    """The first of RULES that drops a tile with these pixels of each class; None where it stays."""
    counts = [pixels for pixels in counts.values() if pixels is not None]
    if any(sum(pixels) == 0 for pixels in counts):
        return "empty"
    if use_filter and any(sum(n > 0 for n in pixels) < MIN_CLASSES for pixels in counts):
        return "classes"
    if use_filter and any(max(pixels) > MAX_SHARE * area for pixels in counts):
        return "dominant"
    return None
