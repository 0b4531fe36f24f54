"""Class merges: the shipped ones, the look-up, and what is wrong with a bad one."""

from pathlib import Path

import numpy as np
import pytest

from data.taxonomy import IGNORE, load_taxonomy, merge, taxonomy_from_dict, taxonomy_to_dict
from runtime.errors import Refused

SHIPPED = sorted((Path(__file__).parents[2] / "configs" / "taxonomies").glob("*.yaml"))
GOOD = """
classes: [{name: water, color: [0, 0, 255]}, {name: land, color: [0, 255, 0]}]
high: {1: water, 2: land, 0: ignore}
low: {11: water, 21: land}
"""


def written(tmp_path, text):
    path = tmp_path / "taxonomy.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_taxonomies_have_the_papers_classes_in_its_order(path):
    taxonomy = load_taxonomy(path)
    assert taxonomy.names == ("water", "forest", "field", "impervious")
    assert set(taxonomy.high.values()) | {IGNORE} == set(taxonomy.low.values()) | {IGNORE} == {0, 1, 2, 3, IGNORE}
    assert taxonomy_from_dict(taxonomy_to_dict(taxonomy), path) == taxonomy


def test_low2high_follows_the_published_precedents():
    taxonomy = load_taxonomy(SHIPPED[2])
    assert {code: taxonomy.high[code] for code in (1, 2, 3, 4, 5, 6, 0, 15)} == {
        1: 0, 2: 1, 3: 2, 4: 3, 5: 3, 6: 3, 0: IGNORE, 15: IGNORE,
    }  # fmt: skip
    groups = {0: {11}, 1: {41, 42, 43, 51, 52, 90, 95}, 2: {21, 71, 72, 73, 74, 81, 82}, 3: {22, 23, 24, 31}}
    for index, codes in groups.items():
        assert {code for code, i in taxonomy.low.items() if i == index} == codes


COLORED = """
classes: [{name: water, color: [0, 0, 255]}, {name: land, color: [0, 255, 0]}]
colors: {"#0000ff": water, "#00FF00": land, "#808080": ignore, "#964B00": land}
"""


def test_colors_stand_for_the_label_sources_that_list_no_codes(tmp_path):
    codes = {(0, 0, 255): 1, (0, 255, 0): 2, (128, 128, 128): 0, (150, 75, 0): 3}
    table = {0: IGNORE, 1: 0, 2: 1, 3: 1}
    for more, colors, low in (("", codes, table), ("low: {11: water}", {}, {11: 0})):
        taxonomy = load_taxonomy(written(tmp_path, COLORED + more))
        assert (taxonomy.high, taxonomy.low, taxonomy.masks) == (table, low, {"high": codes, "low": colors})
    assert load_taxonomy(written(tmp_path, GOOD)).masks == {"high": {}, "low": {}}


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32])
def test_merge_equals_a_slow_loop(dtype):
    table = {1: 0, 3: 2, 100: 1, 0: IGNORE}
    codes = np.random.default_rng(0).choice([0, 1, 3, 100], (7, 5)).astype(dtype)
    merged = merge(codes, table, "here")
    assert merged.dtype == np.uint8 and merged.shape == codes.shape
    assert all(merged[at] == table[int(codes[at])] for at in np.ndindex(*codes.shape))


@pytest.mark.parametrize("text, old, new, said", [
    (GOOD, "2: land", "2: lnad", "high[2] is 'lnad'; did you mean 'land'?"),
    (GOOD, "2: land", "two: land", "high has the code 'two'"),
    (GOOD, "name: land", "name: water", "classes[1].name is 'water'"),
    (GOOD, "[0, 255, 0]", "[0, 256, 0]", "classes[1].color is [0, 256, 0]"),
    (GOOD, "low: {11: water, 21: land}", "", "low should map codes to class names"),
    (COLORED, '"#0000ff": water', '"#0000ff": watr', "high[1] is 'watr'; did you mean 'water'?"),
    (COLORED, '"#0000ff"', '"0000ff"', "colors has '0000ff'; a colour is \"#RRGGBB\", in quotes"),
    (COLORED, "colors:", "high: {1: land}\nlow: {11: land}\ncolors:", "colors stand for high or low"),
])  # fmt: skip
def test_a_bad_taxonomy_is_one_line_that_names_file_and_key(tmp_path, text, old, new, said):
    path = written(tmp_path, text.replace(old, new))
    with pytest.raises(Refused) as caught:
        load_taxonomy(path)
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)
