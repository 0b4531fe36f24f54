"""One tile that is cut already to its record: checked, counted, and linked to or made a GeoTIFF. No rasterio."""

import math
import os
from pathlib import Path

import numpy as np

from data import tile_io
from data.cells import PIXEL_GRID, compose, invert
from data.ground import ground
from data.label_source import Label
from data.laying import low_grid, require_same_pixels
from data.prepare.cutting import ignoring
from data.tile_writer import count_labels, tile_record
from data.voids import input_bands, join, marked
from runtime.errors import Refused
from runtime.files import temporary_of


def take_tile(root, scene, options):
    """Take a tile as it is. GeoTIFFs are not copied, but for those that must say more: images of which a mask hides
    something, and labels where there is no imagery or that do not reach all of the tile. Pictures become GeoTIFFs.

    Files below root are referred to in place; elsewhere, relative links below root/images, high and low lead to them.
    returns: as cut_scene
    """
    image = tile_io.read(scene.image, indices=False)
    bands = input_bands(image, options.bands or scene.bands, "--bands ")
    height, width = image.size
    if image.dtype not in (np.uint8, np.uint16):
        raise Refused(f"{scene.image}: pixels are {image.dtype}; --scenes takes them, with --range")
    if height != width:
        raise Refused(f"{scene.image}: is {height} x {width} px; tiles are square; --scenes cuts")
    pixels, void = image.seen(bands)
    labels, codes, grid, n, by_pixels, unlabelled = {}, {}, None, None, 0, None
    for kind, path in scene.labels().items():
        stored = tile_io.read(path)
        by_pixels += require_one_system(image, stored, options.same_crs)
        labels[kind] = Label(stored, getattr(options.taxonomy, kind), options.colors.get(kind))
        codes[kind], beyond = labels[kind].over(0, 0, *stored.size)
        if kind == "high":
            require_same_pixels(image, stored)
        else:
            grid, n = low_grid(image, stored, options.scale or scene.scale)
            labels[kind].block, beyond = (None, None) if grid else (n, beyond)  # beyond: of pixels, and not of cells
            if grid and image.affine and stored.affine:
                *padded, beyond = labels[kind].cells_over(grid, image.affine, height)
                if beyond is not None:
                    codes[kind], grid = padded
        unlabelled = join(unlabelled, beyond)
    gone = join(void, unlabelled)
    for kind, label in labels.items():
        to_cell = compose(invert(grid), image.affine or PIXEL_GRID) if kind == "low" and grid else None
        codes[kind] = label.without(codes[kind], void, unlabelled, to_cell)
    none = {kind: label.codes_of_none() for kind, label in labels.items()}
    where = " or ".join(str(path) for path in scene.labels().values())
    found = codes.get("high"), codes.get("low")
    counts = count_labels(*found, ignoring(options.taxonomy, none), image.size, image.affine, grid, where)

    hidden = void is not None and (pixels.shape != image.pixels.shape or image.mask is not None)
    marked_pixels, nodata = marked(pixels, void, image.nodata)
    paths = {"high": "", "low": "", "image": ""}
    how = {"system": image.system, "compression": options.compression}
    for kind, source, array in (("image", image, marked_pixels), *((k, v.raster, codes[k]) for k, v in labels.items())):
        as_image = not hidden and bands == image.bands
        as_label = gone is None and not options.colors.get(kind) and source.dtype.kind in "iu"
        kept = source.path.suffix.lower() in tile_io.TIFFS and (as_image if kind == "image" else as_label)
        place = root, "images" if kind == "image" else kind, scene.name
        affine = grid if kind == "low" and grid else image.affine
        more = {"affine": affine, "nodata": nodata if kind == "image" else None, **how}
        paths[kind] = refer(*place, source.path) if kept else convert(*place, source.path, array, **more)
    about, place = (scene.name, scene.region, scene.split, paths), ground(image.affine, image.size, image.system)
    record = tile_record(*about, pixels, void, unlabelled, place, counts)
    facts = {
        "unit_taken": int(image.affine is not None and not knows_unit(image)),
        "image_gsd": gsd(image),
        "scale": n,
        "range": None,
        "tags": None,
        "by_pixels": by_pixels,
        "warped": 0,
        "held": 0,
    }
    return {"records": [record], "dropped": {}, "tile_px": height, "nodata": none, **facts}


def require_one_system(image, label, same_crs):
    """Refused where the GeoKeys of a tile's files differ.

    returns: whether a label without any georeference lies by its pixels, on an image that has one
    """
    plain = not (label.affine or label.system)
    if not plain and not same_crs and image.system != label.system:
        raise Refused(
            f"{label.path}: its coordinate system is not that of {image.path}, or is written otherwise; --scenes "
            "brings the two together, --same-crs takes them for one"
        )
    return plain and bool(image.affine or image.system)


def geo_keys(image):
    """{GeoKey: value} of those that are numbers of 16 bits, as codes are."""
    directory = next((tag[3] for tag in image.system if tag[0] == 34735), ())
    return {directory[i]: directory[i + 3] for i in range(4, len(directory) - 3, 4)}


def knows_unit(image):
    """Whether `gsd` knows the scale of a tile's system: degrees, Web Mercator, UTM, and the US Albers."""
    keys = geo_keys(image)
    code = keys.get(3072, 0)
    return keys.get(1024) == 2 or code in (3857, 5070) or code // 100 in (267, 269, 322, 326, 327)


def gsd(image):
    """Metres on the ground along a pixel, by its GeoKeys; None without a georeference.

    Degrees and Web Mercator have their scale at the tile's place, feet are feet; other units are taken for metres.
    """
    if image.affine is None:
        return None
    a, b, _, d, e, y = image.affine
    size, keys = abs(a * e - b * d) ** 0.5, geo_keys(image)
    if keys.get(1024) == 2:  # geographic: y is the latitude
        size *= 111_320 * math.cos(math.radians(y)) ** 0.5
    elif keys.get(3072) == 3857:
        size /= math.cosh(y / 6378137)
    return round(size * {9002: 0.3048, 9003: 1200 / 3937}.get(keys.get(3076), 1.0), 6)


def refer(root, folder, name, path):
    """The manifest's path of a file: itself where it lies below root, else a relative link to it, made anew."""
    root, path = Path(os.path.abspath(root)), Path(os.path.abspath(path))
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    link = root / folder / f"{name}.tif"
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and not link.is_symlink():
        raise Refused(f"{link}: is there already; give another folder than {root}")
    temporary = temporary_of(link)
    os.symlink(os.path.relpath(os.path.realpath(path), os.path.realpath(link.parent)), temporary)
    os.replace(temporary, link)
    return f"{folder}/{name}.tif"


def convert(root, folder, name, source, array, **how):
    """Write what a file holds as a GeoTIFF of its own; the manifest's path of it."""
    path = Path(root, folder, f"{name}.tif")
    if source.resolve().parent == path.parent.resolve():
        raise Refused(f"{path}: is where {source} becomes a GeoTIFF; give another folder than {root}")
    tile_io.write(path, array, **how)
    return f"{folder}/{name}.tif"
