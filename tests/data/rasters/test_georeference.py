"""Which coordinate system a GeoTIFF is in, by its GeoKeys, and when two are one."""

import numpy as np
import pytest
import tifffile
from geokeys import PARAMETERS, albers, tags

from data.rasters import geotiff
from data.rasters.georeference import geo_keys, system


def header_of(tmp_path, extratags):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), metadata=None, extratags=extratags)
    with geotiff.open_raster(tmp_path / "a.tif") as raster:
        return raster.header


@pytest.mark.parametrize(
    "other, same",
    [
        (albers(), True),
        (albers(name="NAD83 / Conus Albers"), True),
        (albers({3079: 45.5 + 1e-12}), True),
        (albers(short=[(4096, 5703)]), True),
        (albers(short=[(2054, 9102)]), True),
        (albers({3079: 46.5}), False),
        (albers({3080: -98.0}), False),
        (tags([(1024, 1), (3072, 5070)]), False),
        (tags([(1024, 1), (3072, 32767)]), False),
        ([], False),
    ],
    ids=["itself", "name", "last digit", "heights", "ellipsoid", "parallel", "meridian", "code", "bare", "none"],
)  # fmt: skip
def test_user_defined_systems_are_one_if_their_parameters_are(tmp_path, other, same):
    mine, theirs = header_of(tmp_path, albers()), header_of(tmp_path, other)
    assert mine.epsg is None and mine.crs and (mine.crs == theirs.crs) == same


def test_an_epsg_code_says_all(tmp_path):
    utm = header_of(tmp_path, tags([(1024, 1), (3072, 26917)])).crs
    more = tags([(1024, 1), (2048, 4269), (3072, 26917), (3076, 9001), (4096, 5703)], texts={1026: "any"})
    assert utm == header_of(tmp_path, more).crs == ("EPSG", 26917)
    assert utm != header_of(tmp_path, tags([(1024, 1), (3072, 32617)])).crs


def test_a_system_told_by_its_name_alone_is_another_under_another_name(tmp_path):
    named = [tags([(1024, 1), (3072, 32767)], texts={3073: f"ESRI PE String = {name}"}) for name in "AB"]
    one, two = (header_of(tmp_path, each).crs for each in named)
    assert one and two and one != two and one == header_of(tmp_path, named[0]).crs


def test_a_method_without_a_code_of_its_own_is_no_geographic_system(tmp_path):
    header = header_of(tmp_path, tags([(1024, 1), (2048, 4269), (3075, 11)], PARAMETERS))
    assert (header.epsg, header.unit_m) == (None, 1.0)


def test_keys_that_say_nothing_are_no_system():
    class Tags:
        def valueof(self, code, default=None):
            return (1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 1) if code == 34735 else default

    assert system(geo_keys(Tags())) is None
