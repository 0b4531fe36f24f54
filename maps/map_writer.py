"""Maps larger than memory as cloud-optimised GeoTIFFs, where their scenes lie."""

import contextlib
import errno
import math

from data.rasters import gdal
from runtime.errors import DiskFull, naming
from runtime.files import open_whole, temporary_of
from runtime.labels import IGNORE

TILE = 512  # pixels along a tile, and the size up to which a raster has no overview


class MapWriter(contextlib.AbstractContextManager):
    """A GeoTIFF of uint8 with nodata 255, written block by block, for use in a `with` statement; raises DiskFull.

    Blocks go to a plain file beside it. When the statement is left without an error, GDAL's COG driver makes the map of
    it; until then an older map stays.

    scene:   data.rasters.Raster: the map has its size and lies where it lies
    names:   one for each band
    palette: [(r, g, b)] of one band of classes, whose overviews hold the most frequent; those of measures hold means
    """

    def __init__(self, path, scene, names, palette=()):
        rasterio, self.path, self.how = gdal(), path, "mode" if palette else "average"
        place = {"height": scene.size[0], "width": scene.size[1], "crs": scene.crs}
        points, system = scene.dataset.gcps
        if scene.affine:
            place["transform"] = rasterio.Affine(*scene.affine)
        elif points:
            place |= {"gcps": points, "crs": system or rasterio.crs.CRS()}  # a scene may not say their system
        facts = {"count": len(names), "dtype": "uint8", "nodata": IGNORE, "photometric": "MINISBLACK"}
        layout = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "interleave": "pixel", "bigtiff": "IF_SAFER"}
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.raw = temporary_of(path.with_name(f"{path.name}.raw"))
            self.file = rasterio.open(self.raw, "w", "GTiff", **place, **facts, **layout)
            self.file.descriptions = names
            if palette:
                self.file.write_colormap(1, {i: (*color, 255) for i, color in enumerate(palette)})

    def put(self, block, void, row, col):
        """Write a tensor of uint8, (H, W) or (bands, H, W), from (row, col) on. void: (H, W) bool, no data; or None"""
        height, width = self.file.height - row, self.file.width - col
        block = block.cpu().numpy().reshape(-1, *block.shape[-2:])[:, :height, :width]
        if void is not None:
            block[:, void[: block.shape[1], : block.shape[2]]] = IGNORE
        with self._writing():
            self.file.write(block, window=gdal().windows.Window(col, row, block.shape[2], block.shape[1]))

    def __exit__(self, error, *_):
        try:
            if error is None:
                with self._writing(), open_whole(self.path) as whole:
                    self._finish(whole.name)
            else:
                with contextlib.suppress(Exception):  # closing writes what is left: on a full disk it fails once more
                    self.file.close()
        finally:
            self.raw.unlink(missing_ok=True)

    def _finish(self, path):
        rasterio, halvings = gdal(), ((max(self.file.shape) - 1) // TILE).bit_length()
        least = math.prod(-(-side // TILE) * TILE for side in self.file.shape) * self.file.count
        self.file.close()
        if self.raw.stat().st_size < least:  # GDAL logs what it could not write, and goes on
            raise OSError(errno.ENOSPC, "the disk is full")
        with rasterio.open(self.raw, "r+") as raw:
            raw.build_overviews([2**i for i in range(1, halvings + 1)], rasterio.enums.Resampling[self.how])
        # Validators take a tall raster of one column of tiles for strips, where the tiles are no wider than it.
        side = TILE - 16 * (TILE in {-(-self.file.width // 2**i) for i in range(halvings + 1)})
        options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": side, "BIGTIFF": "IF_SAFER", "NUM_THREADS": "ALL_CPUS"}
        rasterio.shutil.copy(self.raw, path, driver="COG", **options)
        with rasterio.open(path) as made:  # the last tile stands at the end of the file
            made.read(1, window=rasterio.windows.Window(made.width - 1, made.height - 1, 1, 1))

    def _writing(self):
        return naming(f"{self.path}: cannot be written", kind=DiskFull)
