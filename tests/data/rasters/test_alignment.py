"""How a label raster lies on its image, by headers alone."""

from pathlib import Path

import numpy as np
import pytest

from data.rasters.alignment import check_high, check_image, check_label, lies_by_pixels, low_grid, warp_line
from data.rasters.geotiff_header import Header
from runtime.errors import Refused

UTM = (1.0, 0.0, 500_000.0, 0.0, -1.0, 4_300_000.0)


def header(name, height=600, width=900, transform=UTM, epsg=26917, **more):
    return Header(Path(name), height, width, 1, np.dtype(np.uint8), transform=transform, epsg=epsg, **more)


def test_cells_of_30_m_have_their_own_grid_and_scale_30():
    grid = (30.0, 0.0, 499_990.0, 0.0, -30.0, 4_300_020.0)
    assert low_grid(header("i.tif"), header("l.tif", 22, 32, grid), None) == (grid, 30)


def test_a_tilted_cell_of_29_8_by_30_1_m_is_of_scale_30():
    turn = np.radians(12.7)
    grid = (30.1 * np.cos(turn), 29.8 * np.sin(turn), 5e5, 30.1 * np.sin(turn), -29.8 * np.cos(turn), 4.3e6)
    assert low_grid(header("i.tif"), header("l.tif", 22, 32, grid), None) == (grid, 30)
    assert low_grid(header("i.tif"), header("l.tif", 22, 32, grid), 30) == (grid, 30)


def test_a_scale_that_is_no_whole_number_is_kept_as_it_is():
    image = header("i.tif", transform=(0.6, 0.0, 5e5, 0.0, -0.6, 4.3e6))
    assert low_grid(image, header("l.tif", 9, 9, (10.0, 0.0, 5e5, 0.0, -10.0, 4.3e6)), None)[1] == 16.667


@pytest.mark.parametrize("scale, n", [(None, 30), (32, 32)])
def test_a_low_label_at_the_images_pixels_has_no_grid_of_its_own(scale, n):
    assert low_grid(header("i.tif"), header("l.tif"), scale) == (None, n)
    assert low_grid(header("i.tif", transform=None), header("l.tif", transform=None), scale) == (None, n)


@pytest.mark.parametrize("size", [(21, 31), (20, 30)])
def test_without_georeference_a_grid_begins_at_the_corner(size):
    low = header("l.tif", *size, None)
    assert low_grid(header("i.tif", 610, 910, None), low, None) == ((30, 0, 0, 0, -30, 0), 30)
    assert low_grid(header("i.tif", 610, 910), low, None)[0] == (30, 0, 500_000, 0, -30, 4_300_000)


def test_half_a_centimetre_of_difference_is_none():
    moved = (1.0, 0.0, 500_000.005, 0.0, -1.0, 4_300_000.0)
    check_high(header("i.tif"), header("h.tif", transform=moved))
    assert low_grid(header("i.tif"), header("l.tif", transform=moved), None)[0] is None


def test_a_pixel_size_that_drifts_over_the_raster_is_seen():
    with pytest.raises(Refused, match="h.tif: does not lie on the pixels of i.tif"):
        check_high(header("i.tif"), header("h.tif", transform=(1.001, 0.0, 500_000.0, 0.0, -1.0, 4_300_000.0)))


ALBERS = ((3075, 11), (3076, 9001), (3078, (29.5,)), (3079, (45.5,)))
OTHER_ALBERS = (*ALBERS[:-1], (3079, (46.5,)))
POINTS = ((0.0, 0.0, 0.0, 5e5, 4.3e6, 0.0), (900.0, 600.0, 0.0, 500_900.0, 4_299_400.0, 0.0))


@pytest.mark.parametrize(
    "image, label, said",
    [
        (
            {},
            {"epsg": None},
            "l.tif: is in no known coordinate system, its image i.tif in EPSG:26917; mend it: gdalwarp -s_srs "
            "ITS_SYSTEM -t_srs EPSG:26917 ",
        ),
        (
            {"epsg": None},
            {},
            "l.tif: is in EPSG:26917, its image i.tif in no known coordinate system; mend it: gdal_translate -a_srs "
            "ITS_SYSTEM i.tif i_placed.tif",
        ),
        ({}, {"epsg": None, "crs": ALBERS}, "l.tif: is in a user-defined system, its image i.tif in EPSG:26917; mend"),
        (
            {"epsg": None, "crs": ALBERS},
            {"epsg": None, "crs": OTHER_ALBERS},
            "l.tif: is in another user-defined system, its image i.tif in a user-defined system; mend it: gdalwarp "
            '-t_srs "$(gdalsrsinfo -o wkt i.tif)" -tr 1 1 -r near',
        ),
        (
            {"epsg": None, "transform": None},
            {},
            "i.tif in no known coordinate system; mend it: gdal_translate -a_srs ITS_SYSTEM -a_ullr LEFT TOP RIGHT "
            "BOTTOM i.tif",
        ),
        (
            {"transform": None, "gcps": POINTS},
            {},
            "l.tif: lies by other control points than its image i.tif; mend it: gdalwarp i.tif i_placed.tif",
        ),
    ],
    ids=["label unknown", "image unknown", "label custom", "both custom", "image plain", "control points"],
)
def test_a_label_that_may_be_from_another_place_is_refused_unless_the_user_knows_better(image, label, said):
    image, label = header("i.tif", **image), header("l.tif", **label)
    for check in (lambda **how: check_high(image, label, **how), lambda **how: low_grid(image, label, None, **how)):
        with pytest.raises(Refused) as refused:
            check()
        assert said in str(refused.value) and "or --same-crs" in str(refused.value)
        check(same_crs=True)


def test_equal_user_defined_systems_and_labels_that_claim_no_place_are_taken():
    check_high(header("i.tif", epsg=None, crs=ALBERS), header("l.tif", epsg=None, crs=ALBERS))
    check_high(header("i.tif", epsg=None), header("l.tif", epsg=None))
    check_high(header("i.tif", transform=None, gcps=POINTS), header("l.tif", transform=None, gcps=POINTS))
    plain = header("l.tif", transform=None, epsg=None)
    check_high(header("i.tif"), plain)
    assert lies_by_pixels(header("i.tif"), plain) and not lies_by_pixels(plain, plain)


def test_a_label_finer_than_the_image_is_refused():
    finer = header("l.tif", 1200, 1800, (0.5, 0.0, 5e5, 0.0, -0.5, 4.3e6))
    with pytest.raises(
        Refused, match="has pixels as small as those of i.tif, but does not lie on them; align it: gdal"
    ):
        low_grid(header("i.tif"), finer, None)


def test_georeferences_that_cannot_be_compared_are_refused():
    with pytest.raises(Refused, match=r"l.tif: its georeference .* does not go with that of i.tif"):
        low_grid(header("i.tif"), header("l.tif", 9, 9, (1e200, 0.0, 0.0, 0.0, -1e200, 0.0)), None)


def test_the_warp_line_covers_a_tilted_image_and_quotes_paths():
    line = warp_line(header("i.tif", 10, 10, (0.6, 0.8, 0.0, 0.8, -0.6, 0.0)), header("my label.tif"))
    assert line == ("gdalwarp -t_srs EPSG:26917 -tr 1 1 -r near -te 0 -6 14 8 'my label.tif' 'my label_aligned.tif'")


def beside(tmp_path, name, ending, text, **header_of):
    """A header, and a file beside it that places it."""
    raster = header(tmp_path / name, **{"transform": None, "epsg": None, **header_of})
    (tmp_path / f"{name.partition('.')[0]}{ending}").write_text(text)
    return raster


HERE, THERE = "1\n0\n0\n-1\n500000.5\n4300000.5\n", "1\n0\n0\n-1\n600000.5\n4300000.5\n"
SRS = "<PAMDataset><SRS>PROJCS[{}]</SRS></PAMDataset>"


def test_a_label_that_a_file_beside_it_places_is_not_laid_by_its_pixels(tmp_path):
    image, plain = header(tmp_path / "i.tif"), header(tmp_path / "p.png", transform=None, epsg=None)
    for name, ending in (("l.tif", ".tfw"), ("m.jpg", ".jgw"), ("n.png", ".wld")):
        label = beside(tmp_path, name, ending, HERE)
        for of in (image, plain):
            with pytest.raises(Refused, match=rf"{name}: lies by .{ending}, which is not read; gdal_translate "):
                check_high(of, label)
            check_high(of, label, same_crs=True)
    there = beside(tmp_path, "k.tif", ".tfw", THERE)
    same = beside(tmp_path, "j.tif", ".tfw", HERE.replace("\n", "\r\n"))
    with pytest.raises(Refused, match="k.tif: lies by k.tfw"):
        check_high(same, there)
    check_high(same, header(tmp_path / "l.tif", transform=None, epsg=None))
    check_high(image, plain)


def test_a_system_that_stands_in_a_file_beside_is_compared(tmp_path):
    known = {"transform": UTM}
    mine, same, other = (
        beside(tmp_path, f"{name}.tif", ".tif.aux.xml", SRS.format(text), **known)
        for name, text in (("a", "Equal Earth"), ("b", "Equal Earth"), ("c", "perspective"))
    )
    check_high(mine, same)
    for label in (other, header(tmp_path / "d.tif", epsg=None)):
        with pytest.raises(Refused, match="lies by ..tif.aux.xml, which is not read; gdalwarp -t_srs"):
            check_high(mine, label)
    (tmp_path / "e.tif.aux.xml").write_text("<PAMDataset><Metadata>statistics</Metadata></PAMDataset>")
    check_high(header(tmp_path / "f.tif", epsg=None), header(tmp_path / "e.tif", epsg=None))


def test_a_mask_in_a_file_of_its_own_is_refused(tmp_path):
    (tmp_path / "i.tif.msk").touch()
    raster = header(tmp_path / "i.tif")
    with pytest.raises(Refused, match="i.tif: i.tif.msk hides some of it and is not read; gdal_translate --config"):
        check_image(raster)
    with pytest.raises(Refused, match="i.tif: has a mask; write it into the codes"):
        check_label(raster)
    check_image(header(tmp_path / "other.tif"))
