"""GeoTIFFs as other programs write them, by rasterio."""

import warnings

import numpy as np
import rasterio
import rasterio.warp
from rasterio.errors import NotGeoreferencedWarning

UTM = (1.0, 0.0, 500_000.0, 0.0, -1.0, 4_300_000.0)


def write(path, array, transform=None, crs=None, nodata=None, mask=None, **options):
    """Write (H, W) or (H, W, K) pixels; crs: an EPSG code, or as rasterio takes it; mask: (H, W), True where there are
    data, kept inside the file unless the environment says otherwise."""
    array = np.asarray(array)
    bands = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    place = {"height": bands.shape[1], "width": bands.shape[2], "count": len(bands), "dtype": str(bands.dtype)}
    if transform is not None:
        place["transform"] = rasterio.Affine(*transform)
    crs = f"EPSG:{crs}" if isinstance(crs, int) else crs
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **{"driver": "GTiff", "crs": crs, "nodata": nodata, **place, **options}) as file:
            file.write(bands)
            if mask is not None:
                file.write_mask(mask)
    return path


def read(path):
    """(H, W, K) pixels and the open file's facts: transform, crs, nodata, ..."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return np.moveaxis(file.read(), 0, -1), file


def hide(path, held, how):
    """Give an image a mask, inside the file ("mask") or beside it, or a fourth band that is tagged "alpha"."""
    pixels, facts = read(path)
    place = None if facts.transform.is_identity else facts.transform[:6], facts.crs
    if how == "alpha":
        pixels = np.dstack([pixels, held * np.uint8(200)])
        write(path, pixels, *place, photometric="RGB", alpha="YES")
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how == "mask"):
            write(path, pixels, *place, mask=held)


def codes_by_proj(image, coarse):
    """The coarse code under the centre of each pixel of an image, each centre transformed by PROJ."""
    with rasterio.open(image) as scene, rasterio.open(coarse) as raster:
        col, row = np.meshgrid(np.arange(scene.width) + 0.5, np.arange(scene.height) + 0.5)
        x, y = scene.transform * (col.ravel(), row.ravel())
        x, y = rasterio.warp.transform(scene.crs, raster.crs, x, y)
        x, y = ~raster.transform * (np.array(x), np.array(y))
        return raster.read(1)[np.floor(y).astype(int), np.floor(x).astype(int)].reshape(scene.shape)
