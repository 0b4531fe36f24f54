"""Which coordinate system a GeoTIFF is in, by its GeoKeys, and when two are one."""

import numpy as np
import pytest
import tifffile
from geokeys import PARAMETERS, albers, tags

from data.rasters import geotiff
from data.rasters.georeference import geo_keys, system
from data.rasters.geotiff_header import gsd
from runtime.errors import Refused


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


@pytest.mark.parametrize(
    "other, same",
    [
        ([(3076, 9001), (2048, 4269)], True),
        ([(3076, 9003)], False),
        ([(2048, 4267)], False),
        ([(2048, 32767)], True),
    ],
    ids=["what it means", "feet", "another datum", "no datum"],
)
def test_keys_beside_an_epsg_code_that_say_otherwise_tell_systems_apart(tmp_path, other, same):
    utm = header_of(tmp_path, tags([(1024, 1), (3072, 26917)]))
    told = header_of(tmp_path, tags(sorted([(1024, 1), (3072, 26917), *other])))
    assert utm.epsg == told.epsg == 26917 and (utm.crs == told.crs) == same


def test_what_says_that_it_is_geographic_is_so_whatever_projection_stands_beside(tmp_path):
    header = header_of(tmp_path, tags([(1024, 2), (2048, 4269), (3072, 26917)]))
    assert (header.epsg, header.unit_m) == (4269, None)


def test_degrees_from_another_meridian_are_another_system(tmp_path):
    greenwich, paris = (header_of(tmp_path, tags([(1024, 2), (2048, 4807), *more])) for more in ([], [(2051, 8903)]))
    assert greenwich.crs == ("EPSG", 4807) != paris.crs


SPELT = ["ESRI:54009", "ESRI:54012", "+proj=moll +lon_0=-90", "+proj=igh", "+proj=geos +h=35785831 +lon_0=-75",
         "+proj=geos +h=35785831 +lon_0=-137", "+proj=eck4 +R=6371007"]  # fmt: skip


def by_rasterio(tmp_path, crs, **options):
    rasterio = pytest.importorskip("rasterio")
    layout = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint8", **options}
    with rasterio.open(tmp_path / "a.tif", "w", crs=crs, transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6), **layout):
        pass
    with geotiff.open_raster(tmp_path / "a.tif") as raster:
        return raster.header


def test_projections_that_have_no_keys_and_are_spelt_in_a_citation_are_told_apart(tmp_path):
    systems = [by_rasterio(tmp_path, crs).crs for crs in SPELT]
    assert None not in systems and len(set(systems)) == len(SPELT)
    assert systems == [by_rasterio(tmp_path, crs).crs for crs in SPELT]


def test_a_spelt_projection_is_not_the_geographic_system_that_it_is_on(tmp_path):
    flavour = {"GEOTIFF_KEYS_FLAVOR": "ESRI_PE"}
    mercator, degrees = (by_rasterio(tmp_path, crs, **flavour) for crs in ("EPSG:3857", "EPSG:4326"))
    assert (mercator.epsg, mercator.unit_m, gsd(mercator)) == (None, 1.0, 10.0) and mercator.crs
    assert (degrees.epsg, degrees.unit_m) == (4326, None)


def test_a_tag_that_claims_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), metadata=None, extratags=albers())
    with tifffile.TiffFile(path) as tiff:
        count_at = tiff.pages.first.tags[34737].offset + 4
    content = bytearray(path.read_bytes())
    content[count_at : count_at + 4] = (2**31 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    with open(path, "r+b") as file:
        file.truncate(2**31 + 1000)  # sparse: the bytes are there, and take no room
    with pytest.raises(Refused, match="a.tif: corrupt: its tag 34737 claims 2,147,483,646 bytes"):
        geotiff.open_raster(path)
