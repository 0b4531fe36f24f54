"""Read, window and write GeoTIFFs with tifffile: pixels, georeference, nodata, palette.

A georeference is the tuple (a, b, c, d, e, f): the corner of pixel (row, col) lies at x = a col + b row + c,
y = d col + e row + f. Arrays are (H, W, K). Whatever is wrong with a file is refused by its name.
"""

import contextlib
import itertools
import logging
import os
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile

from data.rasters import georeference
from data.rasters.geotiff_header import Opened, nodata_value, read_header
from data.rasters.limits import distinct_bytes, refuse_absurd, refuse_large
from data.rasters.raw_head import raw_head
from runtime.errors import DiskFull, Refused, naming, reason
from runtime.files import open_whole, require_file

CACHE_BYTES = 64 * 2**20  # decoded strips and tiles that a Raster keeps, so that neighbouring windows share them
READ_BYTES = 8 * 2**30  # larger rasters are read by window
SPARSE_BYTES = 2**29  # the same where strips or tiles are left out, or share their place

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it also reports oddities that do no harm


def open_raster(path, readers=1):
    """Open a GeoTIFF to read windows of it; for use in a `with` statement."""
    return Raster(path, readers=readers)


def read(path):
    """A whole file: pixels (H, W, K) and Header."""
    with Raster(path) as raster:
        return raster.read(), raster.header


def require_inside(header, row, col, height, width):
    """Refuse a window that is empty or leaves the raster."""
    if not (0 <= row < row + height <= header.height and 0 <= col < col + width <= header.width):
        raise Refused(
            f"{header.path}: a window of {height} x {width} px at row {row}, column {col} does not lie inside "
            f"{header.height} x {header.width} px"
        )


class Raster(Opened):
    """An image of a TIFF: `header`, `read()`, `window(...)`, `void(...)`, `georeference()`, `close()`.

    page:    which one; None: the first of full resolution, and its mask
    readers: threads that decode the strips or tiles of one window
    """

    def __init__(self, path, page=None, readers=1):
        self.path, self._mask, self._pool = Path(path), None, None
        require_file(self.path)
        with _naming(self.path), contextlib.ExitStack() as on_failure:
            tiff = on_failure.enter_context(tifffile.TiffFile(self.path))
            self._file = tiff.filehandle
            masks = []
            if page is None:
                # Overviews (1) and masks (4) are pages too, and a thumbnail may come first.
                pages = itertools.islice(tiff.pages, 100)
                self._page = next((each for each in pages if not each.subfiletype & 0b101), None)
                size = self._page and (self._page.imagelength, self._page.imagewidth)
                parts = itertools.takewhile(lambda each: each.subfiletype & 0b101, pages)
                masks = [p.index for p in parts if p.subfiletype & 5 == 4 and (p.imagelength, p.imagewidth) == size]
                self._page = self._page or next(iter(tiff.pages), None)
            else:
                self._page = tiff.pages[page]
            self._check_layout()
            self.header = read_header(self.path, self._page, bool(masks))
            if masks:
                self._mask = on_failure.enter_context(Raster(self.path, masks[0], readers))
            on_failure.pop_all()
        self._readers = readers
        self._segments = OrderedDict()  # index -> decoded strip or tile, the latest used last
        self._kept_bytes = 0

    def close(self):
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._segments.clear()
        self._file.close()
        if self._mask:
            self._mask.close()

    def read(self):
        """All pixels, (H, W, K)."""
        header = self.header
        claimed = header.height * header.width * header.bands * header.dtype.itemsize
        if claimed > (SPARSE_BYTES if self._sparse else READ_BYTES):
            raise Refused(f"{self.path}: claims {claimed / 2**30:.1f} GiB of pixels; read it by window")
        with _naming(self.path):
            return self._pixels(0, 0, header.height, header.width, keep=False)

    def window(self, row, col, height, width):
        """Pixels (height, width, K) from (row, col) on; only the strips or tiles they lie in are decoded."""
        require_inside(self.header, row, col, height, width)
        with _naming(self.path):
            return self._pixels(row, col, height, width, keep=True)

    def void(self, row=0, col=0, height=None, width=None):
        """(height, width), True where the file's mask says that there are no data; None without a mask."""
        if self._mask is None:
            return None
        height, width = height or self.header.height, width or self.header.width
        return self._mask.window(row, col, height, width)[..., 0] == 0

    def georeference(self):
        """The tags that place it, as they are: [(code, type, count, little-endian bytes)]."""
        with _naming(self.path):
            return georeference.stored(self._page.tags, self._file)

    def _check_layout(self):
        """Find where the strips or tiles lie; refuse what cannot be true before memory is asked for."""
        page = self._page
        if page is None or min(page.shaped) < 1 or page.imagedepth != 1 or page.tiledepth != 1:
            raise Refused(f"{self.path}: holds no image")
        if page.dtype is None:
            raise Refused(f"{self.path}: {page.bitspersample}-bit pixels of this kind are not supported")
        planes, _, height, width, _ = page.shaped
        rows, cols = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, width)
        self._rows, self._cols = max(int(rows), 1), max(int(cols), 1)
        self._down, self._across = -(-height // self._rows), -(-width // self._cols)
        count = planes * self._down * self._across
        self._offsets, self._counts = page.dataoffsets[:count], page.databytecounts[:count]
        listed = min(len(self._offsets), len(self._counts))
        if listed < count:
            raise Refused(f"{self.path}: corrupt: {listed} strips or tiles for {height} x {width} px, not {count}")
        if count == 1 and self._offsets[0] and not self._counts[0]:  # old writers leave the count of one strip open
            self._counts = (self._file.size - self._offsets[0],)
        end = max(map(sum, zip(self._offsets, self._counts, strict=True)))
        if end > self._file.size:
            raise Refused(f"{self.path}: truncated: {self._file.size:,} bytes of at least {end:,}")
        stored = min(distinct_bytes(self._offsets, self._counts), self._file.size)
        # Strips or tiles left out, or many in one place: such a file may claim any size.
        self._sparse = not all(self._counts) or stored < sum(self._counts)
        if all(self._counts):
            refuse_absurd(self.path, page, planes * height * width, stored, shared=self._sparse)
        self._raw = page.is_final and all(self._counts)

    def _pixels(self, row, col, height, width, keep):
        if self._raw:
            # Mapped anew for each window: pages that were read count as this process's memory until they are let go.
            stored = self._page.parent.byteorder + self.header.dtype.char
            pixels = np.asarray(self._file.memmap_array(stored, self._page.shaped, self._offsets[0])[:, 0])
            part = pixels[:, row : row + height, col : col + width]  # (planes, H, W, samples); planes or samples: 1
            part = part[0] if len(part) == 1 else np.moveaxis(part[..., 0], 0, -1)
            return part.astype(self.header.dtype, order="C")
        header, samples = self.header, self._page.shaped[-1]
        out = np.empty((height, width, header.bands), header.dtype)
        planes = range(self._page.shaped[0])
        down = range(row // self._rows, (row + height - 1) // self._rows + 1)
        across = range(col // self._cols, (col + width - 1) // self._cols + 1)
        touched = list(itertools.product(planes, down, across))
        indices = [(plane * self._down + down) * self._across + across for plane, down, across in touched]
        for (plane, down, across), segment in zip(touched, self._decoded(indices, keep), strict=True):
            top, left = down * self._rows, across * self._cols
            y0, y1 = max(row, top), min(row + height, top + self._rows)
            x0, x1 = max(col, left), min(col + width, left + self._cols)
            part = out[y0 - row : y1 - row, x0 - col : x1 - col, plane * samples : (plane + 1) * samples]
            # Sparse files leave empty tiles out.
            part[...] = (header.nodata or 0) if segment is None else segment[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    def _decoded(self, indices, keep):
        """Strips or tiles in this order, by the readers; they are twice their number ahead at most."""
        new, ahead = deque(index for index in indices if index not in self._segments), {}
        if self._readers > 1 and len(new) > 1:
            self._pool = self._pool or ThreadPoolExecutor(self._readers)
        for index in indices:
            while self._pool and new and len(ahead) < 2 * self._readers:
                first = new.popleft()
                ahead[first] = self._pool.submit(self._segment, first)
            if index in self._segments:
                self._segments.move_to_end(index)
                yield self._segments[index]
                continue
            segment = ahead.pop(index).result() if index in ahead else self._segment(index)
            if keep and segment is not None:
                self._segments[index] = segment
                self._kept_bytes += segment.nbytes
                while self._kept_bytes > CACHE_BYTES and len(self._segments) > 1:
                    self._kept_bytes -= self._segments.popitem(last=False)[1].nbytes
            yield segment

    def _segment(self, index):
        """A decoded strip or tile, (rows, columns, samples); None where the file leaves it out."""
        page, count = self._page, self._counts[index]
        if not count:
            return None
        rows = self._rows if page.is_tiled else min(self._rows, page.imagelength - index % self._down * self._rows)
        if page.compression != 1:  # the last raw tiles of a row may be cut short
            refuse_absurd(self.path, page, rows * self._cols, count)
        refuse_large(self.path, rows, self._cols, page.shaped[-1] * page.dtype.itemsize, "one strip or tile")
        data = os.pread(self._file.fileno(), count, self._offsets[index])
        try:
            return page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0][0]
        except Exception as error:
            if "imagecodecs" not in str(error) and not isinstance(error, ImportError):
                raise
            kind = f"{page.bitspersample}-bit, {getattr(page.compression, 'name', page.compression)}"
            raise Refused(
                f'{self.path}: its pixels ({kind}) need a codec that is not installed: pip install "tifffile[codecs]"'
            ) from error


def write(
    path, array, *, transform=None, epsg=None, crs=(), nodata=None, palette=None, compression="zlib", tile_px=512
):
    """Write (H, W) or (H, W, K) pixels as a GeoTIFF that GDAL reads too; an older file stays until the new is whole.

    transform:   (a, b, c, d, e, f), of pixel corners; what follows is ignored, so an Affine will do
    crs:         tags of georeference.system_alone, for a coordinate system that an EPSG code does not say
    palette:     (N, 3) uint8 colours of one-band uint8 or uint16 codes
    compression: "zlib", in tiles of tile_px (a multiple of 16); or "none", in one strip that is read in one go
    """
    path, pixels = Path(path), np.asarray(array)
    pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise Refused(f"{path}: cannot write pixels of shape {np.shape(array)}; (H, W) or (H, W, K) is needed")
    if compression not in ("zlib", "none"):
        raise Refused(f"{path}: unknown compression {compression!r}; it is 'zlib' or 'none'")
    layout = page_layout(pixels.shape[2] if pixels.ndim == 3 else 1, pixels.dtype, palette)
    if compression == "none":
        layout["rowsperstrip"] = pixels.shape[0]
    else:
        layout["compression"] = "zlib"
        layout["tile"] = tuple(min(tile_px, -(-side // 16) * 16) for side in pixels.shape[:2])
    extratags = geo_tags(path, pixels.dtype, transform=transform, epsg=epsg, crs=crs, nodata=nodata)
    try:
        with open_whole(path, flush=False) as file:
            if compression == "none" and palette is None:
                file.write(raw_head(pixels.shape, pixels.dtype, extratags, layout))
                file.write(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")))
            else:
                tifffile.imwrite(file, pixels, extratags=extratags, maxworkers=1, **layout)
    except Exception as error:
        full = " (is the disk full?)" if isinstance(error, OSError) and error.errno is None else ""  # as numpy says it
        raise DiskFull(f"{path}: cannot be written: {reason(error)}{full}") from error


def page_layout(bands, dtype, palette=None):
    """The options of tifffile's `write` for one image of so many bands."""
    layout = {"photometric": "minisblack", "metadata": None, "software": False}
    if palette is not None:
        colormap = np.zeros((3, 2 ** (8 * np.dtype(dtype).itemsize)), np.uint16)
        colormap[:, : len(palette)] = np.asarray(palette, np.uint16).T * 257
        layout.update(photometric="palette", colormap=colormap)
    elif bands > 1:
        colour = 3 if bands in (3, 4) and dtype in (np.uint8, np.uint16) else 1
        # Further bands are no alpha: near infrared is not transparency.
        layout.update(planarconfig="contig", extrasamples=("unspecified",) * (bands - colour))
        layout["photometric"] = "rgb" if colour == 3 else "minisblack"
    return layout


def geo_tags(path, dtype, *, transform=None, epsg=None, crs=(), nodata=None):
    """Georeference and nodata as `extratags` of tifffile's `write`."""
    tags = list(crs)
    if transform is not None:
        a, b, c, d, e, f = (float(value) for value in tuple(transform)[:6])
        if b == d == 0 and a > 0 > e:
            tags += [(33550, "d", 3, (a, -e, 0.0)), (33922, "d", 6, (0.0, 0.0, 0.0, c, f, 0.0))]
        else:
            tags += [(34264, "d", 16, (a, b, 0.0, c, d, e, 0.0, f, *[0.0] * 7, 1.0))]
    if epsg is not None and not crs:
        model, key = (2, 2048) if georeference.in_degrees(epsg) else (1, 3072)
        keys = (1, 1, 0, 3, 1024, 0, 1, model, 1025, 0, 1, 1, key, 0, 1, int(epsg))  # 1025: pixel is area
        tags += [(34735, "H", len(keys), keys)]
    if nodata is not None:
        text = str(nodata)
        if nodata_value(text, np.dtype(dtype)) is None:
            raise Refused(f"{path}: nodata {nodata} is no value of {np.dtype(dtype)}")
        tags += [(42113, "s", 0, text)]
    return [(*tag, True) for tag in tags]


@contextlib.contextmanager
def _naming(path):
    """Whatever goes wrong inside becomes one line that names the file."""
    with naming(path, "corrupt or not supported: "), np.errstate(all="ignore"):  # what a damaged tag adds up to
        try:
            yield
        except tifffile.TiffFileError as error:
            if "not a TIFF" in str(error):
                raise Refused(f"{path}: not a TIFF") from error
            raise
