"""Write maps larger than memory as cloud-optimised GeoTIFFs, block by block: tiles, overviews, georeference.

The tiles of the map and of its overviews are compressed as they come and wait in one temporary file; when the last is
there, they are put in order. So one pass makes everything, and the size decides between TIFF and BigTIFF.
"""

import contextlib
import tempfile
import zlib
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import tifffile

from maps.cloud_layout import framed, layout, tag
from runtime.errors import DiskFull, naming
from runtime.files import open_whole, remove_leftovers, require_file

TILE = 512  # pixels along a tile (or some less across), and the size up to which a raster has no overview
CLASSIC_BYTES = 2**32 - 1  # larger files are BigTIFF


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
        sizes = [(height, width)]
        while max(sizes[-1]) > TILE and sizes[-1][1] > 1:  # validators refuse to halve a single column
            sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
        # Validators take tall images of one column of tiles for strips, unless the tiles are wider than they.
        columns = {width for height, width in sizes if height > TILE}
        self._across = next(side for side in range(TILE, 0, -16) if side not in columns)
        self._levels = [_Level(height, width, bands, nodata, self._across) for height, width in sizes]
        self._first, self._each = list(georeference), _page_tags(bands, nodata, palette, self._across)
        if description:
            self._first.append(tag(270, 2, description.encode(errors="backslashreplace")))
        if names:
            names = (escape(escape(name)) for name in names)  # twice, as GDAL does
            item = '<Item name="DESCRIPTION" sample="{}" role="description">{}</Item>'
            items = (item.format(i, name) for i, name in enumerate(names))
            self._first.append(tag(42112, 2, f"<GDALMetadata>{''.join(items)}</GDALMetadata>".encode()))
        with self._naming():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path.parent, self.path.name)
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
        for left in range(0, level.band.shape[1], self._across):
            packer = zlib.compressobj(1, strategy=strategy)
            tile = packer.compress(np.ascontiguousarray(level.band[:, left : left + self._across])) + packer.flush()
            with self._naming():
                level.tiles.append((self._tiles.tell(), len(tile)))
                self._tiles.write(tile)

    def _finish(self):
        pages = []
        for i, level in enumerate(self._levels):
            size = [tag(256, 4, [level.width]), tag(257, 4, [level.height])]
            use = self._first if i == 0 else [tag(254, 4, [1])]  # 1: a reduced version of another page
            pages.append((self._each + size + use, [count for _, count in level.tiles]))
        with self._naming(), open_whole(self.path) as file:
            file.write(layout(pages, CLASSIC_BYTES)[0])
            for level in reversed(self._levels):
                for position, count in level.tiles:
                    self._tiles.seek(position)
                    file.write(framed(self._tiles.read(count)))

    def _naming(self):
        return naming(f"{self.path}: cannot be written", kind=DiskFull)


def read_description(path):
    """The text that a MapWriter was given; "" where the file is none of its maps."""
    try:
        require_file(path)
        with tifffile.TiffFile(path) as tiff:
            return tiff.pages.first.description
    except Exception:  # whatever is wrong with it, it is no map
        return ""


def read_overview(path, level):
    """(H, W) of a one-band map: at 0 as it is, and each further level halves both sides."""
    with tifffile.TiffFile(path) as tiff:
        held = min(level, len(tiff.pages) - 1)  # a map of a single column has no more
        step = 2 ** (level - held)
        return tiff.pages[held].asarray(maxworkers=1)[::step, ::step]


class _Level:
    """One resolution: the row of tiles that is being filled, and where those that are done wait."""

    def __init__(self, height, width, bands, fill, across):
        self.height, self.width = height, width
        self.band = np.full((TILE, -(-width // across) * across, bands), fill, np.uint8)
        self.filled = self.written = 0
        self.tiles = []


def _page_tags(bands, nodata, palette, across):
    """What every resolution says of its pixels."""
    tags = [
        tag(258, 3, [8] * bands),  # BitsPerSample
        tag(259, 3, [8]),  # Compression: zlib
        tag(262, 3, [1 if palette is None else 3]),  # Photometric: grey, or a palette
        tag(277, 3, [bands]),  # SamplesPerPixel
        tag(284, 3, [1]),  # PlanarConfiguration: samples of a pixel side by side
        tag(322, 4, [across]),  # TileWidth
        tag(323, 4, [TILE]),  # TileLength
        tag(339, 3, [1] * bands),  # SampleFormat: unsigned
        tag(42113, 2, str(nodata).encode()),
    ]
    if bands > 1:
        tags.append(tag(338, 3, [0] * (bands - 1)))  # ExtraSamples: classes, and neither colours nor opacity
    if palette is not None:
        colors = np.zeros((3, 256), np.uint16)
        colors[:, : len(palette)] = np.asarray(palette, np.uint16).T * 257
        tags.append(tag(320, 3, colors.ravel()))
    return tags


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
