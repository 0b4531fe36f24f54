"""One tile that is cut already to its record: checked, counted, and linked to or made a GeoTIFF."""

import os
from contextlib import ExitStack
from pathlib import Path

from data.band_statistics import sum_bands
from data.prepare.cutting import ignoring, lay, system_tags
from data.label_masks import ColorMask, open_label
from data.rasters import geotiff
from data.rasters.images import TIFFS, input_bands, open_image
from data.tile_writer import count_labels
from runtime.errors import Refused
from runtime.files import temporary_of


def take_tile(root, scene, options):
    """Take a tile that is cut already as it is: check it and count. GeoTIFFs of pixels and codes are not copied;
    pictures, masks of colours and images of which a mask hides something become such.

    Files below root are referred to in place; elsewhere, relative links below root/images, high and low lead to them.
    returns: as cut_scene
    """
    with ExitStack() as stack:
        image = stack.enter_context(open_image(scene.image))
        pixels, header, void = image.read(), image.header, image.void()
        if input_bands(header, options.bands or scene.bands, "--bands ") != header.bands:
            raise Refused(f"{scene.image}: has an alpha band beside the {options.bands}; --scenes cuts without it")
        if header.height != header.width:
            raise Refused(f"{scene.image}: is {header.height} x {header.width} px; tiles are square; --scenes cuts")
        rasters, codes = {"image": image}, {"high": None, "low": None}
        for kind, path in (("high", scene.high), ("low", scene.low)):
            if path:
                rasters[kind] = stack.enter_context(open_label(path, options.colors.get(kind)))
                codes[kind] = rasters[kind].read()[..., 0]
        headers = {kind: raster.header for kind, raster in rasters.items()}
        grid, facts = lay(header, headers.get("high"), headers.get("low"), options)
        taxonomy = ignoring(options.taxonomy, facts["nodata"])
        where = " or ".join(str(path) for path in (scene.high, scene.low) if path)
        counts = count_labels(codes["high"], codes["low"], taxonomy, pixels.shape[:2], header.transform, grid, where)
        hides, nodata = void is not None and void.any(), header.nodata
        if hides:
            nodata = nodata or 0
            pixels[void] = nodata
        paths = {"high": "", "low": ""}
        for kind, raster in rasters.items():
            place = root, "images" if kind == "image" else kind, scene.name
            as_it_is = not isinstance(raster, ColorMask) and raster.header.path.suffix.lower() in TIFFS
            if as_it_is and not (kind == "image" and hides):
                paths[kind] = _refer(*place, raster.header.path)
            elif kind == "image":
                paths[kind] = _convert(*place, raster, pixels, nodata, options.compression)
            else:
                paths[kind] = _convert(*place, raster, codes[kind], None, options.compression)
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


def _refer(root, folder, name, path):
    """The manifest's path of a file: itself where it lies below root, else a relative link to it, made anew."""
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
    temporary = temporary_of(link)
    os.symlink(target, temporary)
    os.replace(temporary, link)
    return f"{folder}/{name}.tif"


def _convert(root, folder, name, raster, array, nodata, compression):
    """Write a picture, or the codes of a mask of colours, as a GeoTIFF; the manifest's path of it."""
    path, header = Path(root, folder, f"{name}.tif"), raster.header
    if header.path.resolve().parent == path.parent.resolve():
        raise Refused(f"{path}: is where {header.path} becomes a GeoTIFF; give another folder than {root}")
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"transform": header.transform, "epsg": header.epsg, "crs": system_tags(raster)}
    geotiff.write(path, array, **place, nodata=nodata, compression=compression)
    return f"{folder}/{name}.tif"
