"""How a label raster lies on its image: same pixels, a coarser grid, or not at all."""

import math
import shlex

from data.cells import PIXEL_GRID, compose, corners, invert
from data.rasters.sidecars import mask_beside, masked, place_in, placed_by, written_in
from runtime.errors import Refused, into_copy

DEFAULT_SCALE = 30  # NLCD on 1 m imagery [paper, Sec. 4.3]
TOLERANCE_PX = 0.05  # up to here two rasters share their pixels
SCALE_TOLERANCE = 0.01  # up to here two scales are one: a tilted NLCD cell measures 29.8 by 30.1 m


def check_label(header):
    """Refused unless a raster can be a label."""
    if header.bands != 1 or header.dtype.kind not in "iu":
        mend = "; of a mask of colours the taxonomy says so: `colors`" if header.bands in (3, 4) else ""
        raise Refused(f"{header.path}: has {header.bands} bands of {header.dtype}; a label has one, of integers{mend}")
    if header.masked or mask_beside(header.path):
        mend = f"gdalwarp -dstnodata 255 {into_copy(header.path, 'burnt')}"
        raise Refused(f"{header.path}: has a mask; write it into the codes: {mend}")


def check_high(image, high, same_crs=False):
    """Refused unless the high label has the image's pixels. Both are Headers; same_crs as in `low_grid`."""
    check_crs(image, high, same_crs)
    if (image.height, image.width) != (high.height, high.width):
        raise Refused(
            f"{high.path}: is {_size(high)} px, its image {image.path} {_size(image)}"
            + (f"; align it: {warp_line(image, high)}" if image.transform and high.transform else "")
        )
    if not _same_pixels(image, high):
        raise Refused(f"{high.path}: does not lie on the pixels of {image.path}; align it: {warp_line(image, high)}")


def low_grid(image, low, scale, same_crs=False):
    """Where the low label's cells lie: on a coarser grid of its own, or in blocks of pixels, where it has the image's.

    image, low: Headers
    scale:      the n that was asked for, or None
    same_crs:   take the two for one coordinate system, whatever they say
    returns:    (transform of the label's own grid in the image's coordinates, or None where it has the image's pixels;
                n: image pixels along a cell)
    """
    check_crs(image, low, same_crs)
    same_size = (image.height, image.width) == (low.height, low.width)
    if image.transform and low.transform:
        if same_size and _same_pixels(image, low):
            return None, scale or DEFAULT_SCALE
        a, b, _, d, e, _ = compose(invert(low.transform), image.transform)
        share = abs(a * e - b * d)  # of a cell that a pixel covers
        if not 0 < share < math.inf:
            raise Refused(f"{low.path}: its georeference {low.transform} does not go with that of {image.path}")
        ratio = 1 / math.sqrt(share)
        if ratio < 1 + SCALE_TOLERANCE:
            raise Refused(
                f"{low.path}: has pixels as small as those of {image.path}, but does not lie on them; "
                f"align it: {warp_line(image, low)}"
            )
        n = round(ratio) if same_scale(ratio, round(ratio)) else round(ratio, 3)
        if scale and not same_scale(scale, ratio):
            raise Refused(
                f"{low.path}: its pixels are {n:g} times those of {image.path}, --scale says {scale}; leave --scale out"
            )
        return low.transform, n
    n = scale or DEFAULT_SCALE
    if same_size:
        return None, n
    ceil, floor = (tuple(f(side / n) for side in (image.height, image.width)) for f in (math.ceil, math.floor))
    if (low.height, low.width) not in (ceil, floor):
        raise Refused(
            f"{low.path}: is {_size(low)} px without a common georeference; on {image.path} of "
            f"{_size(image)} px at --scale {n} it should be {ceil[0]} x {ceil[1]}, or the image's size"
        )
    return compose(image.transform or PIXEL_GRID, (n, 0, 0, 0, n, 0)), n


def tile_grid(image, low, scale, same_crs=True):
    """Of a tile whose set has this scale, the low label's own grid or None, as `low_grid` has it.

    same_crs: as there; that the two have one coordinate system was asked when the tiles were cut
    raises: Refused where its cells are of another scale
    """
    own = image.transform and low.transform  # else the rasters do not say how wide a cell is
    grid, n = low_grid(image, low, None if own else round(scale), same_crs)
    if grid and not same_scale(n, scale):
        raise Refused(f"{low.path}: is at scale {n}, the tile set at {scale}")
    return grid


def same_scale(first, second):
    return abs(first - second) <= SCALE_TOLERANCE * second


def warp_line(image, label):
    """The command that puts a label raster on the image's pixels; `near` keeps coarse cells in their shape."""
    a, b, _, d, e, _ = image.transform
    xs, ys = zip(*corners(image.transform, image.height, image.width), strict=True)
    if image.epsg:
        crs = f"-t_srs EPSG:{image.epsg} "
    else:
        crs = f'-t_srs "$(gdalsrsinfo -o wkt {shlex.quote(str(image.path))})" ' if image.crs else ""
    extent = " ".join(f"{value:.12g}" for value in (min(xs), min(ys), max(xs), max(ys)))
    paths = into_copy(label.path, "aligned")
    return f"gdalwarp {crs}-tr {math.hypot(a, d):.12g} {math.hypot(b, e):.12g} -r near -te {extent} {paths}"


def check_crs(image, label, same_crs=False):
    """Refused where a label may be from another place: its coordinate system is not the image's, or one is unknown.

    A label without any georeference claims no place, and lies by its pixels (`lies_by_pixels`).
    """
    if same_crs:
        return
    theirs, ours, beside, image_beside = _system(label), _system(image), placed_by(label), placed_by(image)
    if _is_plain(label) and not beside:
        return
    if theirs == ours and label.gcps == image.gcps and place_in(beside) == place_in(image_beside):
        return
    for header, path in ((label, beside), (image, image_beside)):
        if path:
            raise Refused(
                f"{header.path}: lies by {path.name}, which is not read; {written_in(header)}; or "
                "--same-crs, where you know that image and label lie alike"
            )
    if theirs == ours:
        apart = f"lies by other control points than its image {image.path}"
    else:
        other = _named(theirs)
        if other == _named(ours):
            other = f"{other} with other keys" if theirs[0] == "EPSG" else "another user-defined system"
        apart = f"is in {other}, its image {image.path} in {_named(ours)}"
    raise Refused(
        f"{label.path}: {apart}; mend it: {_mend(image, label)}; or --same-crs, where you know that the two are one"
    )


def check_image(header):
    """Refused where an image has a mask in a file of its own."""
    if mask := mask_beside(header.path):
        raise Refused(f"{header.path}: {mask.name} hides some of it and is not read; {masked(header.path)}")


def lies_by_pixels(image, label):
    """Whether a label without any georeference is laid on an image that has one, which is worth a word."""
    return _is_plain(label) and not _is_plain(image)


def _system(header):
    return header.crs or (header.epsg and ("EPSG", header.epsg))


def _named(system):
    if system is None:
        return "no known coordinate system"
    return f"EPSG:{system[1]}" if system[0] == "EPSG" else "a user-defined system"


def _mend(image, label):
    """The command that brings a label into the image's coordinate system; or that says first which one a file has."""
    placed = into_copy(image.path, "placed")
    if image.transform is None:
        if image.gcps:
            return f"gdalwarp {placed}"
        return f"gdal_translate -a_srs ITS_SYSTEM -a_ullr LEFT TOP RIGHT BOTTOM {placed}"
    if _system(image) is None:
        return f"gdal_translate -a_srs ITS_SYSTEM {placed}"
    line = warp_line(image, label)
    return line if _system(label) else line.replace("gdalwarp ", "gdalwarp -s_srs ITS_SYSTEM ", 1)


def _is_plain(header):
    return header.transform is None and header.gcps is None and _system(header) is None


def _same_pixels(image, label):
    """Whether two rasters of one size share their pixels; true where either has no georeference to say otherwise."""
    if not (image.transform and label.transform):
        return True
    affines = (1, 0, 0, 0, 1, 0), compose(invert(label.transform), image.transform)
    moved = zip(*(corners(affine, image.height, image.width) for affine in affines), strict=True)
    return all(max(abs(x - u), abs(y - v)) <= TOLERANCE_PX for (x, y), (u, v) in moved)


def _size(header):
    return f"{header.height} x {header.width}"
