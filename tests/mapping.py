"""predict.py in this process; scenes and maps for it."""

import math

import numpy as np
import rasterio

import predict
from data import tile_io

UTM = (1.0, 0.0, 400_000.0, 0.0, -1.0, 4_100_000.0)
EPSG_26918 = tile_io.epsg_system(26918)


def tilted(gsd, left=0.0, top=0.0, degrees=0.0):
    """The affine of pixels of so many metres that begin so far from a scene's corner, turned."""
    cos, sin = gsd * math.cos(math.radians(degrees)), gsd * math.sin(math.radians(degrees))
    return (cos, sin, UTM[2] + left, sin, -cos, UTM[5] + top)


def run(*words):
    predict.main(predict.parse([str(word) for word in words]))


def save_scene(path, height, width, dtype=np.uint8, bands=3, **header):
    """Blocks of 8 px, each of one random colour without zeros, in UTM at 1 m."""
    rng = np.random.default_rng(height * width)
    small = rng.integers(1, 250, (height // 8 + 1, width // 8 + 1, bands))
    return save(path, np.kron(small, np.ones((8, 8, 1), int))[:height, :width].astype(dtype), **header)


def save(path, pixels, **header):
    tile_io.write(path, pixels, **{"affine": UTM, "system": EPSG_26918, **header})
    return path


def read(path):
    """(H, W) of one band, else (H, W, bands)."""
    with rasterio.open(path) as file:
        pixels = np.moveaxis(file.read(), 0, -1)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
