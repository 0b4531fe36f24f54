"""Rasters of any format, coordinate system and size, by rasterio: the only file that imports it.

To cut scenes, map them and score maps; training does without. Affines are tuples as in data/tile_io.py.
"""

import contextlib
import math
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import tifffile

from data.cells import compose, invert, move
from data.laying import cell_px, in_one_system
from data.tile_io import nodata_of, placed
from data.voids import holds_nothing, join, takes_alpha
from runtime.errors import Refused, naming, require
from runtime.files import require_file

FIT_PX = 0.1  # an affine to another system's cells may be off by this much of an image pixel
GLOBE = "EPSG:4326"  # longitude and latitude
EQUATOR, SQUARED_ECCENTRICITY = 6378137.0, 0.00669438  # of WGS 84: metres, and what flattens it
NOMINAL = 0.005  # a pixel size this near to the coordinates' own unit is that: UTM's scale is 0.9996 to 1.001


def gdal():
    """The module rasterio. raises: Refused where it is not installed"""
    try:
        import rasterio
        import rasterio.shutil
        import rasterio.vrt
        import rasterio.warp
    except ImportError:
        raise Refused("scenes need rasterio, which is missing: pip install -r requirements-scenes.txt") from None
    return rasterio


class Raster(contextlib.AbstractContextManager):
    """An open raster, for use in a `with` statement; one thread at a time may read it.

    path, size (H, W), bands, dtype; affine and crs, each None where it does not say
    nodata; alpha: the band that is tagged so; palette: (N, 3) uint8 of one band of indices; each None where there is
    none; picture: whether it is one by its format; tagged: scales and offsets of the bands' values
    """

    def __init__(self, path, dataset=None, threads=1):
        rasterio, self.path = gdal(), Path(path)
        require_file(path)
        with naming(path, "cannot be read: "), warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.Env(GDAL_NUM_THREADS=threads):
                self.dataset = dataset = dataset or rasterio.open(path)
            self.affine = None if dataset.transform.is_identity else tuple(dataset.transform)[:6]
        require(dataset.count, f"{path}: holds several rasters; translate one: {', '.join(dataset.subdatasets[:3])}")
        if len({str(value) for value in dataset.nodatavals}) > 1:
            raise Refused(f"{path}: its bands have different nodata values, {dataset.nodatavals}; give them one")
        if dataset.tags().get("EXIF_Orientation", "1") not in ("0", "1"):
            raise Refused(f"{path}: is rotated by an EXIF orientation tag; save it upright, like its labels")
        self.size, self.bands, self.dtype = dataset.shape, dataset.count, np.dtype(dataset.dtypes[0])
        self.crs, self.tagged = dataset.crs, (dataset.scales, dataset.offsets)
        self.nodata = nodata_of(dataset.nodata, self.dtype)
        kinds, self.picture = [kind.name for kind in dataset.colorinterp], dataset.driver in ("PNG", "GIF", "WEBP")
        # The last one: near infrared, which comes before, is often tagged so too.
        self.alpha, self.palette = max((i for i, kind in enumerate(kinds) if kind == "alpha"), default=None), None
        if kinds == ["palette"]:
            colors = dataset.colormap(1)
            self.palette = np.array([colors.get(i, (0, 0, 0))[:3] for i in range(max(colors) + 1)], np.uint8)
        flags = [flag.name for flag in dataset.mask_flag_enums[0]]  # with "nodata" too: NODATA_VALUES of all bands
        self._masked = "per_dataset" in flags and "alpha" not in flags

    def __exit__(self, *_):
        self.dataset.close()

    def read(self, row, col, height, width, bands):
        """Pixels (height, width, bands) from (row, col) on, and what a mask or an alpha band hides, as tile_io.Stored
        has it."""
        place = gdal().windows.Window(col, row, width, height)
        taken = [i + 1 for i in range(self.bands) if i != self.alpha or not takes_alpha(self, bands)][:bands]
        pixels, hidden = np.empty((height, width, len(taken)), self.dtype), None
        with naming(self.path, "cannot be read: "):
            self.dataset.read(taken, window=place, out=np.moveaxis(pixels, -1, 0))  # a pixel's bands side by side
            if takes_alpha(self, bands):
                hidden = self.dataset.read(self.alpha + 1, window=place) == 0
            elif self._masked:
                hidden = self.dataset.read_masks(1, window=place) == 0
        return pixels, join(hidden)

    def window(self, row, col, height, width, bands):
        """Pixels (height, width, bands) of an image, and where they are void, by all that says so; or None."""
        pixels, hidden = self.read(row, col, height, width, bands)
        return pixels, join(holds_nothing(pixels, self.nodata), hidden)

    def onto(self, image, same_crs=False):
        """This raster on the pixels of another, by nearest neighbours; what lies beyond it is hidden."""
        rasterio = gdal()
        grid = {"transform": image.dataset.transform, "height": image.size[0], "width": image.size[1]}
        how = {"src_nodata": None, "add_alpha": self.alpha is None, "tolerance": 0.01}
        crs = image.crs or self.crs
        how |= {"src_crs": crs if same_crs else self.crs or crs, "crs": crs}
        with naming(self.path, "cannot be warped: "):
            raster = Raster(self.path, rasterio.vrt.WarpedVRT(self.dataset, **grid, **how))
        raster.palette, raster.nodata = self.palette, self.nodata  # which the warped one does not tell
        return raster


def grids_under(image, other, windows, same_crs=False, fit_px=FIT_PX):
    """The affine of another raster's cells in the coordinates of an image, near each window of it (Sec. 4.3).

    Exact where both are in one system; else fitted.
    windows: [(row, col, height, width)]
    fit_px:  how far it may be off, in pixels of the image
    raises:  Refused where no affine comes as near
    """
    if in_one_system(image, other, same_crs):
        return [other.affine] * len(windows)
    found = []
    with naming(other.path, f"cannot be laid on {image.path}: "):
        fits = affines_to(other.crs, invert(other.affine), image, windows)
    for (row, col, height, width), (affine, off) in zip(windows, fits, strict=True):
        here = compose(image.affine, (1, 0, col, 0, 1, row))
        grid = compose(here, invert(affine))
        if off * cell_px(grid, here) ** 0.5 > fit_px:
            where = f"{other.path}: over a window of {height} x {width} px of {image.path}"
            mend = "take a smaller --window, or --tile-px in a build"
            raise Refused(f"{where} its cells bend by more than {fit_px} px; {mend}")
        found.append(grid)
    return found


def on_the_globe(image, windows):
    """The affine from each window's pixels to longitude and latitude, so that scenes of two zones are seen to overlap;
    None of an image without a place on the globe, as in a local system."""
    try:
        return [affine for affine, _ in affines_to(GLOBE, (1, 0, 0, 0, 1, 0), image, windows)]
    except Exception:
        return [None] * len(windows)


def affines_to(crs, to_cells, image, windows):
    """[(affine, worst error)] from each window's pixels to cells, fitted to 5 x 5 points that PROJ has transformed.

    to_cells: affine from coordinates in `crs` to cells, in which the error is too
    """
    found, rectangles = [], np.reshape(windows, (-1, 1, 4))
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, 5)] * 2), -1).reshape(-1, 2)  # (col, row) in the unit square
    pixels = points * rectangles[..., [3, 2]] + rectangles[..., [1, 0]]
    x, y = move(image.affine, *pixels.reshape(-1, 2).T)
    moved = np.stack(gdal().warp.transform(image.crs, crs, x.tolist(), y.tolist()), -1)
    if not np.isfinite(moved).all():
        raise ValueError("part of one lies outside the coordinate system of the other")
    if crs == GLOBE:  # longitudes go on beyond 180 degrees
        moved[:, 0] -= 360 * np.round((moved[:, 0] - moved[0, 0]) / 360)
    design = np.insert(points, 2, 1, axis=1)
    cells = np.stack(move(to_cells, *moved.T), -1).reshape(pixels.shape)
    for (_, _, height, width), those in zip(windows, cells, strict=True):
        middle = those.mean(axis=0)
        (a, d), (b, e), (c, f) = np.linalg.lstsq(design, those - middle, rcond=None)[0]
        off = np.abs(design @ [(a, d), (b, e), (c, f)] - (those - middle)).max()
        found.append(((a / width, b / height, c + middle[0], d / width, e / height, f + middle[1]), off))
    return found


def ground_size(raster):
    """Metres on the ground along a pixel in the middle of a raster, whatever the units and the scale of its projection;
    None where it does not say where it lies. Mean of both axes, by area."""
    if not raster.affine:
        return None
    a, b, _, d, e, _ = raster.affine
    nominal, side = abs(a * e - b * d) ** 0.5, min(raster.size) / 4
    (affine,) = on_the_globe(raster, [(*((length - side) / 2 for length in raster.size), side, side)])
    if affine is None:
        return round(nominal, 6)
    a, b, _, d, e, f = np.radians(affine)
    lat = f + (d + e) * side / 2
    bent = 1 - SQUARED_ECCENTRICITY * math.sin(lat) ** 2
    size = EQUATOR / bent * (abs(a * e - b * d) * math.cos(lat) * (1 - SQUARED_ECCENTRICITY)) ** 0.5
    nominal *= raster.crs.linear_units_factor[1] if raster.crs.is_projected else 0
    return round(float(nominal if abs(size - nominal) <= NOMINAL * size else size), 6)


@lru_cache(maxsize=8)
def system_tags(crs):
    """The GeoKeys of a coordinate system, as tile_io.Stored.system has them; GDAL writes them."""
    if crs is None:
        return ()
    rasterio = gdal()
    with rasterio.MemoryFile() as memory:
        place = {"height": 1, "width": 1, "transform": rasterio.Affine(2, 0, 0, 0, -2, 0), "crs": crs}
        memory.open(driver="GTiff", count=1, dtype="uint8", **place).close()
        with tifffile.TiffFile(memory) as tiff:
            return placed(tiff.pages.first.tags)[1]
