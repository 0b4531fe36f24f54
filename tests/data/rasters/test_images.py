"""Images by their suffix: pictures become one band or three, faults name the file."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from data.rasters.geotiff import write
from data.rasters.images import open_image, window_with_void
from runtime.errors import Refused


def saved(path, array, mode=None):
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(path)
    return path


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


@pytest.mark.parametrize("mode, bands", [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_grey_stays_one_band_and_the_rest_becomes_rgb(tmp_path, mode, bands):
    with open_image(saved(tmp_path / "a.png", pixels(20, 30, 3), mode)) as image:
        assert (image.header.height, image.header.width, image.header.bands) == (20, 30, bands)
        assert image.read().shape == (20, 30, bands) and image.header.dtype == image.read().dtype == np.uint8
        assert image.header.transform is None and image.header.epsg is None and image.header.nodata is None


def test_colours_of_a_palette_picture_are_those_of_its_palette(tmp_path):
    colors, codes = np.array([[226, 169, 41], [132, 41, 246]], np.uint8), pixels(20, 30) % 2
    picture = Image.fromarray(codes).convert("P")
    picture.putpalette(colors.ravel().tolist())
    picture.save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(image.read(), colors[codes])


def test_sixteen_bits_stay_sixteen(tmp_path):
    array = pixels(20, 30).astype(np.uint16) * 200
    with open_image(saved(tmp_path / "a.png", array)) as image:
        np.testing.assert_array_equal(image.read()[..., 0], array)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpeg_is_read(tmp_path, name):
    with open_image(saved(tmp_path / name, pixels(20, 30, 3))) as image:
        assert image.read().shape == (20, 30, 3)


def test_windows_are_parts_of_the_picture_and_stay_inside(tmp_path):
    array = pixels(20, 30, 3)
    with open_image(saved(tmp_path / "a.png", array)) as image:
        np.testing.assert_array_equal(image.window(3, 5, 7, 11), array[3:10, 5:16])
        with pytest.raises(Refused, match="a.png: a window of 7 x 11 px at row 14, column 5 .* 20 x 30 px"):
            image.window(14, 5, 7, 11)


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF"])
def test_tiffs_are_opened_as_rasters(tmp_path, name):
    array = pixels(20, 30, 4)
    write(tmp_path / name, array, epsg=32617)
    with open_image(tmp_path / name) as image:
        np.testing.assert_array_equal(image.window(3, 5, 7, 11), array[3:10, 5:16])
        assert image.header.epsg == 32617


def test_faults_name_the_file(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    half = saved(tmp_path / "half.png", pixels(200, 300, 3)).read_bytes()
    (tmp_path / "half.png").write_bytes(half[: len(half) // 2])
    for name, fault in {
        "text.png": "cannot",
        "half.png": "truncated",
        "none.jpg": "No such file",
        "a.gif": ".tif, .tiff, .png, .jpg, .jpeg",
    }.items():
        with pytest.raises(Refused, match=f"{name}: .*{fault}"):
            open_image(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_where_a_picture_is_transparent_it_has_no_data(tmp_path, mode):
    array = pixels(20, 30, len(mode)) | 1
    array[3:9, :, -1] = 0
    with open_image(saved(tmp_path / "a.png", array, mode)) as image:
        assert image.header.masked and image.header.bands == {"RGBA": 3, "LA": 1}[mode]
        np.testing.assert_array_equal(image.void(2, 1, 10, 5), array[2:12, 1:6, -1] == 0)
    with open_image(saved(tmp_path / "b.png", pixels(20, 30, 3))) as image:
        assert image.void(0, 0, 20, 30) is None and not image.header.masked


@pytest.mark.parametrize("extra", [(2,), (2, 0), (1,)])
@pytest.mark.parametrize("nodata", [None, 7])
def test_nodata_mask_and_alpha_are_one_void(tmp_path, extra, nodata):
    array, masked = pixels(20, 30, 3 + len(extra)) | 1, np.zeros((20, 30), bool)
    array[..., 3:] |= 128  # no nodata by chance
    array[2:4, :, 3], array[5:7, :, :3], array[10:12, :, 0], masked[8] = 0, 7, 0, True
    tags = [(42113, "s", 0, str(nodata), True)] if nodata else []
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(array, photometric="rgb", extrasamples=extra, extratags=tags, metadata=None)
        tiff.write(~masked, subfiletype=4, metadata=None)
    expected = masked.copy()
    expected[2:4] = True
    expected[5:7] |= nodata is not None
    with open_image(tmp_path / "a.tif") as image:
        found, void = window_with_void(image, array.shape[2] - 1, 1, 2, 15, 20)
        np.testing.assert_array_equal(found, np.delete(array, 3, axis=2)[1:16, 2:22])
        if len(extra) == 1:
            np.testing.assert_array_equal(void, expected[1:16, 2:22])
        whole, void = window_with_void(image, array.shape[2], 0, 0, 20, 30)  # the alpha band as one of the bands
        np.testing.assert_array_equal(whole, array)
        np.testing.assert_array_equal(void, masked)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_picture_that_decodes_to_more_than_the_ceiling_is_refused_before_it_is(tmp_path, name):
    path = saved(tmp_path / name, pixels(20, 30, 3))
    content, side = bytearray(path.read_bytes()), 13_000
    if name == "a.png":
        content[16:24] = struct.pack(">II", side, side)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", side, side)
    path.write_bytes(content)
    said = f"{path}: a picture of 13,000 x 13,000 px decodes to 507 MB, LOW2HIGH_BLOCK_MB is 256; gdal_translate -co "
    with pytest.raises(Refused) as refused:
        open_image(path)
    assert str(refused.value) == f"{said}TILED=YES -co COMPRESS=DEFLATE {path} {tmp_path / 'a_tiled.tif'}"


def png_of_16_bits(path, array, kind):
    """A PNG of 16 bits a band, as no PIL writes it; kind: 2 for colours, 4 for grey and opacity."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("bands, kind", [(3, 2), (4, 6), (2, 4)])
def test_a_picture_of_16_bits_a_band_is_not_read_with_8(tmp_path, bands, kind):
    path = png_of_16_bits(tmp_path / "a.png", np.arange(6 * bands).reshape(2, 3, bands) * 999, kind)
    with pytest.raises(Refused, match="a.png: holds 16 bits a band, .*; gdal_translate .*a.png .*a.tif"):
        open_image(path)
    grey = png_of_16_bits(tmp_path / "b.png", np.arange(6).reshape(2, 3) * 9999, 0)
    with open_image(grey) as image:
        assert image.read()[..., 0].tolist() == (np.arange(6).reshape(2, 3) * 9999).tolist()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_photograph_that_is_turned_for_show_is_refused(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels(8, 8, 3)).save(tmp_path / "a.jpg", exif=exif)
    if orientation == 1:
        with open_image(tmp_path / "a.jpg") as image:
            assert image.header.bands == 3
    else:
        with pytest.raises(Refused, match=f"a.jpg: is turned for show .EXIF orientation {orientation}.; save it"):
            open_image(tmp_path / "a.jpg")
