"""Scenes to map: which ones, whether they go with a network, and their pixels window by window."""

import glob
from collections import Counter
from pathlib import Path

import numpy as np

from data.lists import read_csv, read_lines, relative_path
from data.rasters.geotiff_header import gsd, middle
from data.rasters.images import PICTURES, TIFFS, takes_alpha, window_with_void
from data.rasters.sidecars import mask_beside, masked, placed_by, written_in
from runtime.errors import Refused, into_copy

ROWS = 256  # read at a time: strips and tiles of this height are decoded once, taller ones are still in the cache
BAND_BYTES = 4 * 2**30  # of scene that is held at a time; a sparse file may claim any width
WIDEST = 10  # up to this many times the training images' pixels, resampling is worth a try [ours]
GSD_TOLERANCE = 0.1  # beyond this share a scene's pixel size is another than the training images'


def scene_paths(words):
    """Files, patterns as 'scenes/**/*.tif', and lists -> the paths of the scenes, in this order.

    A list is a .txt with one path a line or a .csv with a column image; its paths are relative to its folder and stay
    inside it.
    raises: Refused
    """
    paths = []
    for word in map(str, words):
        path = Path(word)
        if path.suffix.lower() in (".txt", ".csv"):
            paths += _listed(path)
        elif glob.has_magic(word) and not path.exists():
            found = [Path(name) for name in sorted(glob.glob(word, recursive=True))]
            found = [path for path in found if path.suffix.lower() in TIFFS + PICTURES]
            if not found:
                raise Refused(f"{word}: no image is named so; images end in {', '.join(TIFFS + PICTURES)}")
            paths += found
        elif path.is_dir():
            suffixes = Counter(file.suffix for file in path.iterdir() if file.suffix.lower() in TIFFS + PICTURES)
            common = max(suffixes, key=suffixes.get, default=".tif")
            raise Refused(f"{word}: is a folder; its scenes are '{path / f'*{common}'}'")
        elif not path.exists():
            raise Refused(f"{word}: no such file")
        else:
            paths.append(path)
    return paths


def require_fitting(header, facts, window):
    """Refused unless a scene has the bands and the kind of pixels that a network was trained on, by its `facts`, and
    a row of windows can be held."""
    path, bands = header.path, facts["bands"]
    if header.bands > bands and not takes_alpha(header, bands):
        chosen = " ".join(f"-b {k + 1}" for k in range(bands))
        raise Refused(
            f"{path}: has {header.bands} bands, the network was trained on {bands}; if these are the first: "
            f"gdal_translate {chosen} {into_copy(path, f'{bands}bands')}"
        )
    if header.bands < bands:
        raise Refused(f"{path}: has {header.bands} bands, the network was trained on {bands}")
    if header.dtype != facts["dtype"]:
        wanted = facts["dtype"]
        raise Refused(f"{path}: its pixels are {header.dtype}, those that the network was trained on {wanted}")
    claimed = (window + ROWS) * header.width * header.bands * header.dtype.itemsize
    if claimed > BAND_BYTES:
        raise Refused(f"{path}: claims {header.width:,} px a row: {claimed / 2**30:.0f} GiB for a row of windows")


def scale_warning(header, image_gsd):
    """One line where a scene's pixels have another size than the training images', with what mends it; else None."""
    size, target, crs = gsd(header), image_gsd / (header.unit_m or 1.0), ""
    if size is not None and header.unit_m is None:  # degrees: the UTM zone of the scene's middle
        lon, lat = middle(header)
        crs = f"-t_srs EPSG:{(32600 if lat >= 0 else 32700) + int((lon + 180) // 6) % 60 + 1} "
    if size is None or abs(size / image_gsd - 1) <= GSD_TOLERANCE:
        return None
    if size > WIDEST * image_gsd * (1 + GSD_TOLERANCE):
        return (
            f"{header.path}: its pixels are {size:.3g} m, the network learned from {image_gsd:.3g} m: too coarse, and "
            f"with {(size / image_gsd) ** 2:,.0f} times the pixels it would show no more"
        )
    how = "average" if size < image_gsd else "bilinear"
    return (
        f"{header.path}: its pixels are {size:.3g} m, the network learned from {image_gsd:.3g} m; "
        f"gdalwarp {crs}-tr {target:.12g} {target:.12g} -r {how} {into_copy(header.path, f'{image_gsd:.3g}m')}"
    )


def lost_beside(header):
    """Lines on what a file beside a scene says and is not read, where it lies or where it has data, with the mend."""
    path, placed, mask = header.path, placed_by(header), mask_beside(header.path)
    if placed:
        lost = "coordinate system" if header.transform or header.gcps else "georeference"
        yield f"{path}: lies by {placed.name}, which is not read: its map has no {lost}; {written_in(header)}"
    if mask:
        yield f"{path}: {mask.name} is not read: what it hides is mapped too; {masked(path)}"


def read_windows(raster, rows, cols, height, width, bands=None):
    """The windows that begin at `rows` and `cols`, in reading order; each row of the file is read once.

    bands: how many the network takes; an alpha band beyond them tells where there are data. None: all
    Yields (i, j, pixels, void): pixels (height, width, bands) as stored, where there are none `extended`, or None where
    there is nothing to see in a window; void (height, width), True where the scene has no data or has ended, or None
    where it has all.
    """
    header = raster.header
    bands = bands or header.bands
    band = np.empty((height + ROWS, header.width, bands), header.dtype)
    holes = np.zeros(band.shape[:2], bool)
    top = filled = 0  # these rows of the scene are in the band
    for i, row in enumerate(rows):
        for held in (band, holes):
            held[: filled - row] = held[row - top : filled - top]
        top, bottom = row, min(row + height, header.height)
        while filled < bottom:
            count = min(ROWS, header.height - filled)
            place = slice(filled - top, filled - top + count)
            band[place], void = window_with_void(raster, bands, filled, 0, count, header.width)
            holes[place] = False if void is None else void
            filled += count
        for j, col in enumerate(cols):
            inside, void = (held[: bottom - row, col : col + width] for held in (band, holes))
            if void.all():
                yield i, j, None, np.ones((height, width), bool)
                continue
            pixels = extended(inside, void) if void.any() else inside.copy()
            rest = [(0, height - inside.shape[0]), (0, width - inside.shape[1])]
            if any(map(sum, rest)):
                pixels, void = np.pad(pixels, [*rest, (0, 0)], mode="edge"), np.pad(void, rest, constant_values=True)
            yield i, j, pixels, void.copy() if void.any() else None


def extended(pixels, void):
    """(H, W, K) pixels of which those that are void (H, W) hold what the nearest of their row with data does, and rows
    without any what the nearest row with some does: at an edge that is none the network would map worse [ours]."""
    along = pixels[np.arange(len(pixels))[:, None], _nearest(~void)]
    return along[_nearest(~void.all(axis=1))]


def _nearest(seen):
    """(..., N) bool -> of each place the nearest that is seen, by its index; where none is seen, any."""
    places, beyond = np.arange(seen.shape[-1]), seen.shape[-1]
    before = np.maximum.accumulate(np.where(seen, places, -2 * beyond), axis=-1)
    after = np.minimum.accumulate(np.where(seen, places, 3 * beyond)[..., ::-1], axis=-1)[..., ::-1]
    return np.where(places - before <= after - places, before, after).clip(0, beyond - 1)


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
