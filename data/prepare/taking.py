"""One tile that is cut already to its record: checked, counted, and linked to or made a GeoTIFF. No rasterio."""

import math
import os
from pathlib import Path

import numpy as np

from data import tile_io
from data.cells import PIXEL_GRID
from data.ground import ground
from data.label_source import Label, leave_out
from data.laying import in_one_system, low_grid, require_one_place, require_same_pixels
from data.prepare.cutting import BLACK, BY_PIXELS, MEASURED, MOST_BLACK
from data.tile_writer import tile_record
from data.voids import count_black, doubtful_alpha, input_bands, join, marked
from runtime.errors import Refused, require


def take_tile(root, scene, options):
    """Take a tile as it is. GeoTIFFs are not copied, but for those that must say more: images of which a mask hides
    something, and labels where there is no imagery or that do not reach all of the tile. Pictures become GeoTIFFs.

    Files below root are referred to in place; elsewhere, relative links below root/images, high and low lead to them.
    returns: as cut_scene
    """
    image = tile_io.read(scene.image, indices=False)
    bands = input_bands(image, options.bands, "--bands ")
    height, width = image.size
    if image.dtype not in (np.uint8, np.uint16):
        raise Refused(f"{scene.image}: pixels are {image.dtype}; use --scenes with --range")
    require(height == width, f"{scene.image}: is {height} x {width} px, not square; --scenes cuts it into tiles")
    pixels, void = image.seen(bands)
    labels, codes, grid, n, unlabelled, by_pixels = {}, {}, None, None, None, 0
    for kind, path in scene.labels().items():
        stored = tile_io.read(path)
        by_pixels += require_one_place(image, stored, options.same_crs)
        if not in_one_system(image, stored, options.same_crs):
            mend = "or is written differently; --scenes brings the two together, --same-crs assumes one"
            raise Refused(f"{path}: its coordinate system is not that of {scene.image}, {mend}")
        label = labels[kind] = Label(stored, getattr(options.taxonomy, kind), options.taxonomy.masks.get(kind))
        if kind == "high":
            require_same_pixels(image, stored)
        else:
            label.cells, n = low_grid(image, stored, options.scale)
            label.block = None if label.cells else n
        if label.cells:
            codes[kind], grid, beyond = label.cells_over(label.cells, image.affine or PIXEL_GRID, image.size)
        else:
            codes[kind], beyond = label.over(0, 0, *stored.size)
        unlabelled = join(unlabelled, beyond)
    where = " or ".join(str(path) for path in scene.labels().values())
    counts = leave_out(labels, codes, void, unlabelled, options.taxonomy, image.size, image.affine, grid, where)

    marked_pixels, nodata = marked(pixels, void, image.nodata)
    keep = bands == image.bands and (void is None or image.mask is None)
    files = [("image", image, keep, marked_pixels, image.affine, nodata)]
    for kind, label in labels.items():
        keep = void is None and unlabelled is None and not label.colors and label.raster.dtype.kind in "iu"
        keep = keep and codes[kind].shape == label.raster.size  # of a larger coarse label only the cells over the tile
        files.append((kind, label.raster, keep, codes[kind], grid if label.cells else image.affine, None))
    paths = {"high": "", "low": ""}
    for kind, source, keep, array, affine, value in files:
        target = Path(root, "images" if kind == "image" else kind, f"{scene.name}.tif")
        if keep and not source.picture:
            paths[kind] = refer(root, target, source.path)
            continue
        if source.path.resolve().parent == target.parent.resolve():
            raise Refused(f"{target}: is where {source.path} becomes a GeoTIFF; give another folder than {root}")
        how = {"affine": affine, "nodata": value, "system": image.system, "compression": options.compression}
        tile_io.write(target, array, **how)
        paths[kind] = target.relative_to(root).as_posix()
    place = ground(image.affine, image.size, image.system)
    record = tile_record(scene.name, scene.region, scene.split, paths, pixels, void, unlabelled, place, counts)
    nodata = {kind: sorted(label.ignored) for kind, label in labels.items()}
    dark = count_black(image, pixels, void) > MOST_BLACK * height * width
    notes = {BY_PIXELS: by_pixels, MEASURED: int(doubtful_alpha(image, bands)), BLACK: int(dark)}
    facts = {"image_gsd": pixel_size(image), "scale": n, "notes": notes, "nodata": nodata}
    return {"records": [record], "tile_px": height, **facts}


def pixel_size(image):
    """Metres on the ground along a pixel, by its GeoKeys; None without a georeference.

    Degrees and Web Mercator have their scale at the tile's place, feet are feet; other units are taken for metres.
    """
    if image.affine is None:
        return None
    a, b, _, d, e, y = image.affine
    directory = next((tag[3] for tag in image.system if tag[0] == 34735), ())
    keys = {directory[i]: directory[i + 3] for i in range(4, len(directory) - 3, 4)}
    size = abs(a * e - b * d) ** 0.5 * {9002: 0.3048, 9003: 1200 / 3937}.get(keys.get(3076), 1.0)
    if keys.get(1024) == 2:  # geographic: y is the latitude
        size *= 111_320 * math.cos(math.radians(y)) ** 0.5
    elif keys.get(3072) in (3857, 3395) or keys.get(3075) == 7:  # Mercator, by its number or spelled out
        size /= math.cosh(y / 6378137)
    return round(size, 6)


def refer(root, link, path):
    """The manifest's path of a file: itself where it lies below root, else a relative link to it, made anew."""
    root, path = Path(os.path.abspath(root)), Path(os.path.abspath(path))
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    require(link.is_symlink() or not link.exists(), f"{link}: is there already; give another folder than {root}")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(path.resolve(), link.parent.resolve()))
    return f"{link.parent.name}/{link.name}"
