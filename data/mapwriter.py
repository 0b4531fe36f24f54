"""Write maps larger than memory as GeoTIFFs, block by block: compressed tiles, overviews, georeference.

The tiles of the map and of its overviews are compressed as they come and wait in one temporary file; when the last is
there, tifffile puts them in order. So one pass makes everything, and the size decides between TIFF and BigTIFF.
"""

import contextlib
import re
import tempfile
import zlib
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import tifffile

from data.geotiff import geo_tags, page_layout
from runtime.errors import DiskFull, naming
from runtime.files import open_whole

TILE = 512  # pixels along a tile, and the size up to which a raster has no overview
CLASSIC_BYTES = 2**32 - 2**25  # of tiles; larger files are BigTIFF


class MapWriter(contextlib.AbstractContextManager):
    """A GeoTIFF of (height, width, bands) uint8, written in reading order; for use in a `with` statement.

    It is written when the statement is left without an error: the file under `path` is always whole. What a killed
    process left of the same map is deleted.

    overviews:   "nearest" (codes: each overview keeps the classes' shares, and no colour is made up; a majority would
                 thin out roads with every level [ours]) or "mean" (measures, over the pixels that hold something)
    georeference: tags as Raster.georeference gives them: where the scene says that it lies, word for word
    palette:     (N, 3) colours of one-band codes
    names:       one for each band, as GDAL has them
    description: any text; `read_description` gives it back
    raises:      DiskFull
    """

    def __init__(
        self,
        path,
        height,
        width,
        bands=1,
        *,
        georeference,
        nodata,
        overviews,
        palette=None,
        names=(),
        description="",
    ):
        self.path, self.nodata, self._rows = Path(path), nodata, None
        self._shrink = {"nearest": _nearest, "mean": _mean}[overviews]
        self._levels = [_Level(height, width, bands, nodata)]
        while max(height, width) > TILE:
            height, width = -(-height // 2), -(-width // 2)
            self._levels.append(_Level(height, width, bands, nodata))
        self._layout = {**page_layout(1, np.uint8, palette), "tile": (TILE, TILE), "compression": "zlib"}
        if bands > 1:  # classes, and no colours
            self._layout.update(planarconfig="contig", extrasamples=("unspecified",) * (bands - 1))
        self._nodata_tag = geo_tags(self.path, np.uint8, nodata=nodata)
        self._tags = self._nodata_tag + [(*tag, True) for tag in georeference]
        self._description = description
        if names:
            names = (escape(escape(name)) for name in names)  # twice, as GDAL does
            item = '<Item name="DESCRIPTION" sample="{}" role="description">{}</Item>'
            items = (item.format(i, name) for i, name in enumerate(names))
            self._tags.append((42112, "s", 0, f"<GDALMetadata>{''.join(items)}</GDALMetadata>".encode(), True))
        with self._naming():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for leftover in self.path.parent.iterdir():
                if re.fullmatch(rf"\.{re.escape(self.path.name)}\.\d+\.tmp", leftover.name):
                    leftover.unlink(missing_ok=True)
            self._tiles = tempfile.TemporaryFile(dir=self.path.parent)

    def put(self, block):
        """Add the next block, (H, W) or (H, W, bands) uint8: from left to right, until whole rows are together."""
        block = block.reshape(*block.shape[:2], -1)
        if self._rows is None:
            self._rows, self._right = np.empty((len(block), self._levels[0].width, block.shape[2]), np.uint8), 0
        self._rows[:, self._right : self._right + block.shape[1]] = block
        self._right += block.shape[1]
        if self._right == self._levels[0].width:
            self._add(0, self._rows)
            self._rows = None

    def __exit__(self, error, *_):
        try:
            if error is None:
                assert all(level.written == level.height for level in self._levels), "rows are missing"
                self._finish()
        finally:
            with contextlib.suppress(OSError):  # closing writes what is left: on a full disk it fails once more
                self._tiles.close()

    def _add(self, depth, rows):
        level = self._levels[depth]
        while len(rows):
            taken = rows[: TILE - level.filled]
            level.band[level.filled : level.filled + len(taken), : level.width] = taken
            level.filled, level.written = level.filled + len(taken), level.written + len(taken)
            rows = rows[len(taken) :]
            if level.filled == TILE or level.written == level.height:
                self._put_tiles(level)
                if depth + 1 < len(self._levels):
                    self._add(depth + 1, self._shrink(level.band[: level.filled, : level.width], self.nodata))
                level.band[...], level.filled = self.nodata, 0

    def _put_tiles(self, level):
        # Label maps are runs: packing those alone takes a third of the time of zlib's default, and speckled maps are no
        # larger for it. Measures are packed at the quickest level, in half the time for a tenth more bytes.
        strategy = zlib.Z_RLE if self._shrink is _nearest else zlib.Z_DEFAULT_STRATEGY
        for left in range(0, level.band.shape[1], TILE):
            packer = zlib.compressobj(1, strategy=strategy)
            tile = packer.compress(np.ascontiguousarray(level.band[:, left : left + TILE])) + packer.flush()
            with self._naming():
                level.tiles.append((self._tiles.tell(), len(tile)))
                self._tiles.write(tile)

    def _finish(self):
        big = self._tiles.tell() > CLASSIC_BYTES
        with self._naming(), open_whole(self.path) as file, tifffile.TiffWriter(file, bigtiff=big) as tiff:
            facts = {"description": self._description, "extratags": self._tags, "subfiletype": 0}
            for level in self._levels:
                shape = level.height, level.width, level.band.shape[2]
                shape = shape if shape[2] > 1 else shape[:2]
                tiff.write(map(self._packed, level.tiles), shape=shape, dtype=np.uint8, **facts, **self._layout)
                facts = {"extratags": self._nodata_tag, "subfiletype": 1}  # a reduced version of another page

    def _packed(self, tile):
        position, count = tile
        self._tiles.seek(position)
        return self._tiles.read(count)

    def _naming(self):
        return naming(f"{self.path}: cannot be written", kind=DiskFull)


def read_description(path):
    """The text that a MapWriter was given; "" where the file is none of its maps."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return tiff.pages.first.description
    except Exception:  # whatever is wrong with it, it is no map
        return ""


class _Level:
    """One resolution: the row of tiles that is being filled, and where those that are done wait."""

    def __init__(self, height, width, bands, fill):
        self.height, self.width = height, width
        self.band = np.full((TILE, -(-width // TILE) * TILE, bands), fill, np.uint8)
        self.filled = self.written = 0
        self.tiles = []


def _nearest(pixels, _):
    return pixels[::2, ::2]


def _mean(pixels, nodata):
    """The mean of each 2 x 2 pixels over those of them that hold something, rounded."""
    height, width, bands = pixels.shape
    pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    four = [pixels[row::2, col::2].astype(np.uint16) for row in (0, 1) for col in (0, 1)]
    held = [part != nodata for part in four]
    count = sum(part.astype(np.uint16) for part in held)
    total = sum(part * mask for part, mask in zip(four, held, strict=True))
    return np.where(count, (total + count // 2) // np.maximum(count, 1), nodata).astype(np.uint8)
