"""One scene to tiles (Sec. 3.1): cut, drop by the paper's two rules, write.

A pixel counts where there is imagery and where each label raster of its scene reaches. Elsewhere its labels are written
as ignored. This rule is applied once, when tiles are made, so every row trains and is scored on the same pixels.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from data.cells import PIXEL_GRID, compose, corners, invert
from data.laying import low_grid, same_pixels
from data.prepare.labels import Label
from data.rasters import Raster, grids_under, ground_size, require_one_place, system_tags
from data.synthetic.coarse import low_label
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
    """
    px, records, dropped = options.tile_px, [], dict.fromkeys(RULES, 0)
    with ExitStack() as stack:
        image = stack.enter_context(Raster(scene.image))
        bands = input_bands(image, options.bands or scene.bands, "--bands ")
        labels = {
            kind: Label(stack.enter_context(Raster(path)), getattr(options.taxonomy, kind), options.colors.get(kind))
            for kind, path in scene.labels().items()
        }
        facts = lay(image, labels, scene, options, stack)
        taxonomy = ignoring(options.taxonomy, {kind: label.codes_of_none(True) for kind, label in labels.items()})
        (height, width), system = image.size, system_tags(image.crs)
        windows = [(row, col, px, px) for row in range(0, height - px + 1, px) for col in range(0, width - px + 1, px)]
        grids = cell_grids(image, labels, windows, options)
        base = image.affine or (PIXEL_GRID if any(grids) or options.coarse else None)
        for window, grid in zip(windows, grids, strict=True):
            row, col = window[:2]
            name = f"{scene.name}_{row // px:03d}_{col // px:03d}"
            transform = base and compose(base, (1, 0, col, 0, 1, row))
            pixels, void = image.window(*window, bands)
            codes, low_transform, unlabelled = {}, None, None
            for kind, label in labels.items():
                if kind == "low" and grid:
                    codes[kind], low_transform, beyond = label.cells_over(grid, transform, px)
                else:
                    codes[kind], beyond = label.over(*window)
                unlabelled = join(unlabelled, beyond)
            if options.coarse:
                codes["low"], low_transform = made_coarse(codes["high"], scene.materials, transform, options, name)
            gone = join(void, unlabelled)
            if gone is not None:
                for kind, label in labels.items():
                    to_cell = compose(invert(low_transform), transform) if kind == "low" and grid else None
                    codes[kind] = label.without(codes[kind], gone, to_cell)
                    label.has_gaps = True
            try:
                found = codes.get("high"), codes.get("low")
                counts = count_labels(*found, taxonomy, (px, px), transform, low_transform, scene.name)
            except Unknown as unknown:
                tables = ((label, getattr(taxonomy, kind)) for kind, label in labels.items())
                raise next(filter(None, (label.unknown(table) for label, table in tables)), unknown) from None
            rule = "empty" if void is not None and void.all() else broken_rule(counts, px * px, options.filter)
            if rule:
                dropped[rule] += 1
                continue
            pixels, held = whole_numbers(pixels, void, image, facts["range"])
            facts["held"] += held
            pixels, nodata = marked(pixels, void, image.nodata if facts["range"] is None else 0)
            records.append(
                write_tile(
                    root,
                    name,
                    pixels,
                    *found,
                    taxonomy=taxonomy,
                    region=scene.region,
                    split=scene.split,
                    transform=transform,
                    low_transform=low_transform,
                    system=system,
                    nodata=nodata,
                    void=void,
                    unlabelled=unlabelled,
                    compression=options.compression,
                    counts=counts,
                )
            )
        facts["nodata"] = {kind: label.codes_of_none() for kind, label in labels.items()}
    return {"records": records, "dropped": dropped, "tile_px": px, "size": [height, width], **facts}


def lay(image, labels, scene, options, stack):
    """Check the rasters of a scene against each other. A fine label on another grid is warped to the image's pixels, by
    nearest neighbours; a coarse one keeps its cells, and `Label.cells` becomes their affine.

    returns: {"image_gsd": metres, "scale": n, or None where there is no coarse label, "range" and "tags" of its values,
             "by_pixels": labels without a georeference on an image that has one, "warped": fine labels that were, "held":
             pixels that --range holds to its ends}
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
        elif not same_pixels(image, raster) or (placed and grid != raster.affine):
            if not placed:
                sizes = [f"{size[0]} x {size[1]}" for size in (raster.size, image.size)]
                raise Refused(f"{raster.path}: is {sizes[0]} px, its image {image.path} {sizes[1]}, without a georeference")
            label.raster, warped = stack.enter_context(raster.onto(image)), warped + 1
    return {
        "image_gsd": ground_size(image) or 1.0,
        "scale": n,
        "range": value_range(image, options.range),
        "tags": image.tagged,
        "by_pixels": by_pixels,
        "warped": warped,
        "held": 0,
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
    """Coarse codes in NLCD's manner from a fine label (data/synthetic/coarse.py), and where their cells lie.

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
