"""One scene to tiles (Sec. 3.1): cut, drop by the paper's two rules, write.

A pixel counts where there is imagery and where each label raster of its scene reaches. Elsewhere its labels are written
as ignored. This rule is applied once, when tiles are made, so every row trains and is scored on the same pixels.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from data.cells import PIXEL_GRID, compose, corners, invert
from data.coarse import low_label
from data.ground import ground, on_the_globe
from data.label_source import Label
from data.laying import low_grid, same_pixels
from data.rasters import Raster, grids_under, ground_size, require_one_place, system_tags
from data.taxonomy import IGNORE, Taxonomy, Unknown
from data.tile_writer import count_labels, write_tile
from data.values import value_range, whole_numbers
from data.voids import input_bands, join, marked
from runtime.errors import Refused

DEFAULT_SCALE = 30  # of coarse labels that are made from fine ones: NLCD's, on 1 m imagery [paper, Sec. 4.3]
MIN_CLASSES = 3  # unique merged classes in a tile [paper, Sec. 3.1]
MAX_SHARE = 0.75  # of a tile's pixels under one class [paper, Sec. 3.1]
# What drops a tile, counted under the first that does: a label source without a label over it, or an image without data
# (always); fewer classes; one class over more (not with --no-filter; if either source does so [paper ambiguous]).
RULES = ("empty", "classes", "dominant")


@dataclass(frozen=True)
class Options:
    """What the tiles depend on, beside the scenes themselves."""

    source: str  # scenes, tiled, chesapeake or naip215
    taxonomy: Taxonomy
    tile_px: int | None = 512
    scale: int | None = None  # None: as the rasters or the source say
    seed: int = 0
    filter: bool = True
    compression: str = "zlib"
    rotation: int | None = None  # of naip215
    coarse: str | None = None  # nlcd: made from the fine label in NLCD's manner; None: as the source has it
    bands: int | None = None  # of the images; None: as they have, none of which may be tagged as alpha
    range: tuple | None = None  # of float and signed images: the values at the ends (data/values.py)
    same_crs: bool = False  # take a scene's rasters for one coordinate system, whatever they say
    colors: dict = field(default_factory=dict)  # {"high": {(r, g, b): code}, "low": ...} of masks of colours


def cut_scene(root, scene, options):
    """Cut a scene into tiles without overlap, from its top-left corner; edge remainders are no tiles.

    Rasters are read by window: memory does not grow with the scene.
    returns: {"records": what write_tile returned, "dropped": {rule: tiles}, "tile_px", "size": the scene's (H, W), and
             what `lay` says of it}
    raises:  Refused; where a label has codes or colours without a class, all of them are named
    """
    with ExitStack() as stack:
        image = stack.enter_context(Raster(scene.image))
        labels = {
            kind: Label(stack.enter_context(Raster(path)), getattr(options.taxonomy, kind), options.colors.get(kind))
            for kind, path in scene.labels().items()
        }
        facts = lay(image, labels, scene, options, stack)
        taxonomy = ignoring(options.taxonomy, {kind: label.codes_of_none(True) for kind, label in labels.items()})
        try:
            records, dropped, held = cut(root, scene, image, labels, taxonomy, options, facts["range"])
        except Unknown as unknown:
            tables = ((label, getattr(taxonomy, kind)) for kind, label in labels.items())
            raise next(filter(None, (label.unknown(table) for label, table in tables)), unknown) from None
        facts["nodata"] = {kind: label.codes_of_none() for kind, label in labels.items()}
    about = {"tile_px": options.tile_px, "size": image.size, "held": held}
    return {"records": records, "dropped": dropped, **about, **facts}


def cut(root, scene, image, labels, taxonomy, options, limits):
    """The tiles of a scene whose rasters are open and laid; limits: of data/values.py.

    returns: records, {rule: tiles dropped}, pixels held to an end of the range
    """
    px, records, dropped, held = options.tile_px, [], dict.fromkeys(RULES, 0), 0
    bands, system = input_bands(image, options.bands or scene.bands, "--bands "), system_tags(image.crs)
    height, width = (side // px * px for side in image.size)
    places = [(row, col) for row in range(0, height, px) for col in range(0, width, px)]
    grids = cell_grids(image, labels, [(*place, px, px) for place in places], options)
    base = image.affine or (PIXEL_GRID if any(grids) or options.coarse else None)
    on_pixels = {kind: label for kind, label in labels.items() if label.cells is None}
    around = on_the_globe(image, [(*place, px, px) for place in places])
    tiles = zip(places, grids, around, windows(image, on_pixels, px, bands), strict=True)
    for (row, col), grid, globe, ((pixels, void), read) in tiles:
        name = f"{scene.name}_{row // px:03d}_{col // px:03d}"
        transform = base and compose(base, (1, 0, col, 0, 1, row))
        codes, low_transform = {kind: found for kind, (found, _) in read.items()}, None
        unlabelled = join(*(beyond for _, beyond in read.values()))
        if grid:
            codes["low"], low_transform, beyond = labels["low"].cells_over(grid, transform, px)
            unlabelled = join(unlabelled, beyond)
        if options.coarse:
            codes["low"], low_transform = made_coarse(codes["high"], scene.materials, transform, options, name)
        for kind, label in labels.items():
            to_cell = compose(invert(low_transform), transform) if kind == "low" and grid else None
            codes[kind] = label.without(codes[kind], void, unlabelled, to_cell)
        both = codes.get("high"), codes.get("low")
        counts = count_labels(*both, taxonomy, (px, px), transform, low_transform, scene.name)
        rule = "empty" if void is not None and void.all() else broken_rule(counts, px * px, options.filter)
        if rule:
            dropped[rule] += 1
            continue
        pixels, beyond_range = whole_numbers(pixels, void, image, limits)
        held += beyond_range
        pixels, nodata = marked(pixels, void, image.nodata if limits is None else 0)
        place = {"transform": transform, "low_transform": low_transform, "system": system, "nodata": nodata}
        facts = {"region": scene.region, "split": scene.split, "void": void, "unlabelled": unlabelled, "counts": counts}
        how = {"taxonomy": taxonomy, "compression": options.compression, "place": ground(globe, (px, px), "globe")}
        records.append(write_tile(root, name, pixels, *both, **place, **facts, **how))
    return records, dropped, held


def windows(image, labels, px, bands):
    """The tiles' windows of an image and of the labels on its pixels, row by row; a thread reads one row of tiles
    ahead.

    yields: (pixels, void), {kind: (codes, where there are none)} of each tile
    """
    height, width = (side // px * px for side in image.size)

    def read(row):
        parts = {kind: label.over(row, 0, px, width) for kind, label in labels.items()}
        return image.window(row, 0, px, width, bands), parts

    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(read, row) for row in range(0, height if width else 0, px)[:1]]
        for row in range(0, height if width else 0, px):
            pixels, parts = ahead.pop().result()
            if row + px < height:
                ahead.append(reader.submit(read, row + px))
            for col in range(0, width, px):
                here = np.s_[:, col : col + px]
                cut_out = [tuple(None if a is None else a[here] for a in pair) for pair in (pixels, *parts.values())]
                yield (cut_out[0][0], join(cut_out[0][1])), dict(zip(parts, cut_out[1:], strict=True))


def lay(image, labels, scene, options, stack):
    """Check the rasters of a scene against each other. A fine label on another grid is warped to the image's pixels, by
    nearest neighbours; a coarse one keeps its cells, and `Label.cells` becomes their affine.

    returns: {"image_gsd": metres or None, "scale": n, or None where there is no coarse label, "range" and "tags" of the
             image's values, "by_pixels": labels without a georeference on an image that has one, "warped": fine labels
             that were}
    raises:  Refused where they do not lie over each other, or nothing says n
    """
    by_pixels, warped, n = 0, 0, None
    middle = [max(0, (side - options.tile_px) // 2) for side in image.size]
    middle = (*middle, *(min(options.tile_px, side) for side in image.size))
    for kind, label in labels.items():
        raster = label.raster
        by_pixels += require_one_place(image, raster, options.same_crs)
        placed = image.affine and raster.affine
        grid = grids_under(image, raster, [middle], options.same_crs)[0] if placed else None
        if placed and not overlap(image, grid, raster.size):
            raise Refused(f"{raster.path}: does not overlap {image.path}; is it of another place?")
        if kind == "low":
            label.cells, n = low_grid(image, raster, options.scale or scene.scale, grid)
            label.block = None if label.cells else n
        elif not same_pixels(image, raster) or (placed and grid != raster.affine):
            if not placed:
                sizes = [f"{size[0]} x {size[1]}" for size in (raster.size, image.size)]
                raise Refused(f"{raster.path}: is {sizes[0]} px, {image.path} {sizes[1]}, without a georeference")
            label.raster, warped = stack.enter_context(raster.onto(image)), warped + 1
    return {
        "image_gsd": ground_size(image),
        "scale": n,
        "range": value_range(image, options.range),
        "tags": image.tagged,
        "by_pixels": by_pixels,
        "warped": warped,
    }


def overlap(image, grid, size):
    """Whether cells on a grid, (h, w) of them, lie over an image somewhere."""
    places = zip(*corners(compose(invert(grid), image.affine), *image.size), strict=True)
    return all(min(values) < most and max(values) > 0 for values, most in zip(places, size[::-1], strict=True))


def cell_grids(image, labels, windows, options):
    """The affine of the coarse label's cells near each window; None where they are blocks of the image's pixels."""
    low = labels.get("low")
    if low is None or low.cells is None:
        return [None] * len(windows)
    if not (image.affine and low.raster.affine):
        return [low.cells] * len(windows)
    return grids_under(image, low.raster, windows, options.same_crs)


def ignoring(taxonomy, codes):
    """The taxonomy with {"high": codes, "low": codes} ignored, where it does not give them a class of their own."""
    tables = {kind: {**dict.fromkeys(those, IGNORE), **getattr(taxonomy, kind)} for kind, those in codes.items()}
    return replace(taxonomy, **tables)


def made_coarse(high_codes, materials, transform, options, name):
    """Coarse codes in NLCD's manner from a fine label (data/coarse.py), and where their cells lie.

    The draws come from the build's seed and the tile's name: a tile has one coarse map, whichever split it is in.
    """
    n, land_cover = options.scale or DEFAULT_SCALE, np.zeros(256, np.uint8)
    land_cover[[code for code, _ in materials]] = [material for _, material in materials]
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
