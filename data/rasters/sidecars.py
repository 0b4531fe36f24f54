"""What lies beside a raster and says of it what is not read here: where it lies, and where it has data."""

import re
from pathlib import Path

from runtime.errors import into_copy

SYSTEM, PLACE = rb"<SRS\b", rb"<(GeoTransform|GCPList)\b"  # in GDAL's .aux.xml
SAID = re.compile(rb"<(SRS|GeoTransform|GCPList)\b.*?</\1>", re.DOTALL)
MOST_BYTES = 2**20


def placed_by(header):
    """The file beside a raster that places it, or that has its coordinate system, where it does not say so itself; None
    where there is none."""
    path = header.path
    notes = path.with_name(f"{path.name}.aux.xml")
    if header.transform or header.gcps:
        return notes if header.crs is None and header.epsg is None and _holds(notes, SYSTEM) else None
    world = (path.with_suffix(f"{path.suffix[:2]}{path.suffix[-1]}w"), path.with_suffix(".wld"))  # .tfw, .jgw, .pgw
    return next(filter(Path.is_file, world), None) or (notes if _holds(notes, PLACE) else None)


def place_in(path):
    """What the file that `placed_by` found says of the place, to be compared by ==; None where it found none."""
    text = path and path.read_bytes()[:MOST_BYTES]
    return path and (text.split() if path.suffix != ".xml" else [found.group() for found in SAID.finditer(text)])


def mask_beside(path):
    """GDAL's mask of a raster in a file of its own; None where there is none."""
    mask = path.with_name(f"{path.name}.msk")
    return mask if mask.is_file() else None


def written_in(header):
    """The command that writes into a copy of a raster where it lies, by the file beside it."""
    # GDAL leaves beside a GeoTIFF the systems that its keys cannot say.
    system_alone = header.transform or header.gcps
    command = "gdalwarp -t_srs A_SYSTEM_WITH_A_CODE" if system_alone else "gdal_translate"
    return f"{command} {into_copy(header.path, 'placed')}"


def masked(path):
    """The command that writes the mask beside a raster into a copy of it."""
    return f"gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES {into_copy(path, 'masked')}"


def _holds(path, pattern):
    return path.is_file() and re.search(pattern, path.read_bytes()[:MOST_BYTES]) is not None
