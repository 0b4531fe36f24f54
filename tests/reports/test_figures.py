import numpy as np
from PIL import Image

from reports.figures import choose_varied, color_image, color_labels, contact_sheet, legend

CLASSES = [{"name": "water", "color": [0, 0, 255]}, {"name": "field", "color": [0, 255, 0]}]


def test_of_each_stretch_the_map_of_most_classes_is_chosen():
    plain, halves, thirds = np.zeros((6, 6), int), np.arange(36).reshape(6, 6) % 2, np.arange(36).reshape(6, 6) % 3
    assert choose_varied([plain, halves, thirds, plain, plain, halves], 2) == [2, 5]
    assert choose_varied([plain, halves], 6) == [0, 1]
    holes, one_pixel = np.where(halves, 255, 0), plain.copy()  # ignored pixels are no class
    one_pixel[0, 0] = 1
    assert choose_varied([holes, one_pixel, np.full((6, 6), 255)], 1) == [1]


def test_labels_take_the_classes_colours_and_holes_are_white():
    assert color_labels(np.array([[0, 1, 255]]), CLASSES).tolist() == [[[0, 0, 255], [0, 255, 0], [255, 255, 255]]]


def test_an_image_is_stretched_by_all_bands_together_and_one_band_is_grey():
    image = np.arange(3 * 100, dtype=np.uint16).reshape(10, 10, 3) * 100
    shown = color_image(image)
    assert shown.min() == 0 and shown.max() == 255 and (np.diff(shown.astype(int), axis=2) >= 0).all()
    grey = color_image(image[..., :1])
    assert (grey[..., 0] == grey[..., 2]).all()


def test_a_sheet_has_a_column_for_each_title_a_row_for_each_tile_and_a_legend(tmp_path):
    red = np.full((8, 8, 3), (200, 0, 0), np.uint8)
    contact_sheet(tmp_path / "a.png", ["one", "two"], [[red, red]] * 3, zoom=2)
    contact_sheet(tmp_path / "b.png", ["one", "two"], [[red, red]] * 3, CLASSES, zoom=2)
    plain, legend = Image.open(tmp_path / "a.png"), Image.open(tmp_path / "b.png")
    assert (np.asarray(plain) == (200, 0, 0)).all(axis=2).sum() == 2 * 3 * 16 * 16
    assert legend.height > plain.height and (np.asarray(legend) == (0, 0, 255)).all(axis=2).any()


def test_a_legend_says_what_white_means_where_there_is_some():
    whole, holed = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    assert legend(CLASSES, [whole, whole]) == CLASSES
    *classes, last = legend(CLASSES, [whole, holed], "no data")
    assert classes == CLASSES and last["name"] == "no data" and tuple(last["color"]) == (255, 255, 255)
