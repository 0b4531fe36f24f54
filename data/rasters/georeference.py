"""Where a GeoTIFF says that it lies: affine, ground control points, coordinate system (GeoTIFF 1.1, OGC 19-008)."""

import math

import numpy as np

SCALE, TIES, MATRIX, DIRECTORY, DOUBLES, TEXTS, RPC = 33550, 33922, 34264, 34735, 34736, 34737, 50844
TAGS = (SCALE, TIES, MATRIX, DIRECTORY, DOUBLES, TEXTS, RPC)  # all that places a raster; RPC: of raw satellite scenes
METRES = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}  # ProjLinearUnits: metre, foot, US survey foot
MODEL, RASTER_TYPE, GEOGRAPHIC, PROJECTED, UNIT = 1024, 1025, 2048, 3072, 3076
PRIME_MERIDIAN, ANGLES, PROJECTED_CITATION = 2051, 2054, 3073
POINT = 2  # RASTER_TYPE: coordinates are those of pixel centres
USER_DEFINED = 32767
CITATIONS = (1026, 2049, PROJECTED_CITATION)
ON_THE_ELLIPSOID = range(2050, 2063)  # what an EPSG code of the geographic system says already
# Without one of these a user-defined system is told by its citations alone.
ELLIPSOIDS, METHODS = {2050, 2056, 2057}, {3074, 3075}
# Keys beside an EPSG code that say otherwise: Greenwich, degrees and metres are what they say most.
USUAL = {True: {UNIT: 9001}, False: {PRIME_MERIDIAN: 8901, ANGLES: 9102}}
DATUMS = {267: 4267, 269: 4269, 326: 4326, 327: 4326}  # of UTM's codes, by their hundreds
HEIGHTS = range(4096, 4100)  # the vertical system moves no pixel


def affine(tags):
    """(a, b, c, d, e, f) of pixel corners; None where a file has none, or ground control points only."""
    scale, tie, matrix = (_numbers(tags, code) for code in (SCALE, TIES, MATRIX))
    if len(scale) >= 2 and scale[0] and scale[1]:
        if len(tie) < 6:
            return None
        a, b, d, e = scale[0], 0.0, 0.0, -abs(scale[1])  # as GDAL: north is up, whatever the sign
        c, f = tie[3] - tie[0] * a, tie[4] - tie[1] * e
    elif len(matrix) == 16:
        a, b, _, c, d, e, _, f = matrix[:8]
    else:
        return None
    if geo_keys(tags).get(RASTER_TYPE) == POINT:
        c, f = c - (a + b) / 2, f - (d + e) / 2
    return (a, b, c, d, e, f) if all(map(math.isfinite, (a, b, c, d, e, f))) and a * e != b * d else None


def control_points(tags):
    """((col, row, 0, x, y, z), ...) of a file that lies by ground control points; None where it does not."""
    ties = _numbers(tags, TIES)
    if len(ties) < 12 or _numbers(tags, SCALE) or _numbers(tags, MATRIX):
        return None
    return tuple(tuple(ties[i : i + 6]) for i in range(0, len(ties) - 5, 6))


def geo_keys(tags):
    """{GeoKey: int, tuple of floats or text}."""
    directory = [int(value) for value in tags.valueof(DIRECTORY, default=())]
    doubles, texts, keys = _numbers(tags, DOUBLES), str(tags.valueof(TEXTS, default="")), {}
    for i in range(4, len(directory) - 3, 4):
        key, place, count, value = directory[i : i + 4]
        if place == DOUBLES:
            # Ten digits: what two programs make of one constant differs in the last.
            keys[key] = tuple(float(f"{number:.10g}") for number in doubles[value : value + count])
        elif place == TEXTS:
            keys[key] = texts[value : value + count].strip("| \0")
        else:
            keys[key] = value
    return keys


def epsg_code(keys):
    """The EPSG code of a coordinate system; None where it is user-defined or not said."""
    code = keys.get(PROJECTED) if _is_projected(keys) else keys.get(GEOGRAPHIC)
    return code if isinstance(code, int) and 1024 <= code < USER_DEFINED else None


def unit_metres(keys):
    """Metres per unit of the coordinates; None for degrees."""
    if not _is_projected(keys) and (GEOGRAPHIC in keys or keys.get(MODEL) == 2):
        return None
    if in_degrees(epsg_code(keys) or 0):
        return None
    return METRES.get(keys.get(UNIT, 9001))


def system(keys):
    """What tells a coordinate system from another, to be compared by ==; None where nothing is said.

    Its EPSG code and what is said beside it otherwise, or all parameters of a user-defined one. Names do not count,
    unless they are all there is: some projections have no keys, and a citation spells them ("ESRI PE String").
    """
    code, projected = epsg_code(keys), _is_projected(keys)
    if code:
        usual = dict(USUAL[projected])
        if projected and code // 100 in DATUMS:
            usual[GEOGRAPHIC] = DATUMS[code // 100]
        other = {key: keys[key] for key, value in usual.items() if keys.get(key, value) not in (value, 0, USER_DEFINED)}
        return ("EPSG", code, *sorted(other.items()))
    apart = {MODEL, RASTER_TYPE, *CITATIONS, 4097, *HEIGHTS}
    if keys.get(GEOGRAPHIC, USER_DEFINED) != USER_DEFINED:
        apart.update(ON_THE_ELLIPSOID)
    said = {key: value for key, value in keys.items() if key not in apart and value not in (0, USER_DEFINED)}
    if not (METHODS if projected else ELLIPSOIDS) & said.keys():
        said.update({key: keys[key] for key in CITATIONS if key in keys})
    if said and projected:
        said.setdefault(UNIT, 9001)
    return tuple(sorted(said.items())) or None


def stored(tags, file):
    """The tags that place a raster as they stand in its file: [(code, type, count, little-endian bytes)].

    file: tifffile's FileHandle of it
    """
    found = []
    for code in TAGS:
        tag = tags.get(code)
        if tag is None:
            continue
        if code == TEXTS:
            file.seek(tag.valueoffset)
            found.append((code, 2, tag.valuebytecount, file.read(tag.valuebytecount)))
            continue
        values = np.asarray(tag.value, "<u2" if code == DIRECTORY else "<f8").ravel()
        found.append((code, 3 if code == DIRECTORY else 12, values.size, values.tobytes()))
    return found


def system_alone(stored_tags):
    """Of tags as `stored` gives them those of the coordinate system, for a raster whose affine is of pixel corners."""
    made = []
    for code, kind, count, values in stored_tags:
        if code == DIRECTORY:
            directory = np.frombuffer(values, "<u2").copy()
            entries = directory[: directory.size // 4 * 4].reshape(-1, 4)
            entries[1:][entries[1:, 0] == RASTER_TYPE, 3] = 1
            values = directory.tobytes()
        if code in (DIRECTORY, DOUBLES, TEXTS):
            made.append((code, kind, count, values))
    return made


def in_degrees(epsg):
    """Whether a code is one of the common geographic systems; GDAL reads the others by either key."""
    return 4120 <= epsg <= 4326 and epsg != 4217 or 4600 <= epsg <= 4646 or 4657 <= epsg <= 4765 or epsg == 4490


def _is_projected(keys):
    spelt = "PROJCS[" in str(keys.get(PROJECTED_CITATION, ""))  # an "ESRI PE String", where no key has the projection
    return keys.get(MODEL) != 2 and (spelt or any(keys.get(key) for key in (PROJECTED, 3074, 3075)))


def _numbers(tags, code):
    return np.asarray(tags.valueof(code, default=()), float).ravel().tolist()
