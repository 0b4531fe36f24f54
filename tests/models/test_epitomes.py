"""Self-Epitomic label super-resolution: each step against a slow loop, then whole tiles, made up and real."""

from itertools import product
from pathlib import Path

import pytest
import tifffile
import torch
import torch.nn.functional as F

from models import epitomes
from models.epitomes import IGNORE, NO_CODE, add_counts, draw_centres, load_table, super_resolve
from runtime.errors import Refused

NLCD_TABLE = Path(__file__).parents[2] / "configs" / "tables" / "nlcd_low2high.yaml"
WATER_OR_FIELD = {11: [0.95, 0.0, 0.05, 0.0], 81: [0.05, 0.0, 0.95, 0.0]}


def random_image(bands, height, width, seed=0):
    return torch.rand(bands, height, width, generator=torch.Generator().manual_seed(seed))


def two_colours(height=48, width=64, bands=3):
    """Water left of a slanted line, field right of it, and low codes by 16 px blocks that cannot follow the line."""
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    field = cols > width / 3 + rows / 2
    image = torch.where(field, 0.8, 0.2).expand(bands, -1, -1) + 0.02 * random_image(bands, height, width)
    blocks = F.avg_pool2d(field[None].float(), 16)[0].repeat_interleave(16, 0).repeat_interleave(16, 1)
    return image, torch.where(blocks > 0.5, 81, 11), field


def slow_log_likelihood(image, patch, inverse_variance):
    """One position at a time: minus half the inverse variance times the squared difference, wrapping round the edge."""
    (height, width), half = image.shape[1:], patch.shape[-1] // 2
    result = torch.zeros(height, width, dtype=torch.float64)
    for row, col in product(range(height), range(width)):
        for i, j in product(range(patch.shape[-1]), repeat=2):
            mean = image[:, (row + i - half) % height, (col + j - half) % width].double()
            result[row, col] -= inverse_variance / 2 * (mean - patch[:, i, j].double()).square().sum()
    return result


@pytest.mark.parametrize("bands, height, width, patch_px", [(3, 9, 12, 5), (4, 8, 7, 7)])
def test_likelihood_equals_a_slow_loop_over_positions(bands, height, width, patch_px):
    image, patches = random_image(bands, height, width), random_image(2 * bands, patch_px, patch_px, seed=1)
    patches = patches.view(2, bands, patch_px, patch_px)
    fast = epitomes.log_likelihood(*epitomes.wrap_image(image, patch_px), patches)
    slow = torch.stack([slow_log_likelihood(image, patch, 100.0) for patch in patches])
    assert fast.shape == (2, height, width)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-2)


def test_a_count_is_the_sum_of_softmaxes_of_the_slow_likelihood_over_patch_area():
    image, patch_px = random_image(3, 10, 13), 5
    centres, centre_codes = torch.tensor([[2, 2], [7, 10], [4, 6]]), torch.tensor([81, 11, 81])
    counts = epitomes.count_positions(image, centres, centre_codes, [11, 41, 81], patch_px=patch_px)
    expected = torch.zeros(3, 10, 13, dtype=torch.float64)
    for (row, col), index in zip(centres.tolist(), [2, 0, 2], strict=True):
        patch = image[:, row - 2 : row + 3, col - 2 : col + 3]
        slow = slow_log_likelihood(image, patch, 100.0) / patch_px**2
        assert slow.argmax() == row * 13 + col  # a patch is best explained where it was drawn
        expected[index] += slow.flatten().softmax(0).view(10, 13)
    torch.testing.assert_close(counts.double(), expected, rtol=1e-3, atol=1e-6)


def test_em_keeps_its_tables_normalised_and_equals_the_whole_array_form():
    counts, rows = 3 * random_image(5, 9, 11), random_image(5, 4, 1)[..., 0]
    rows /= rows.sum(1, keepdim=True)
    start = 10 + random_image(4, 9, 11, seed=1)
    position = epitomes.position_given_code(counts)
    torch.testing.assert_close(position.sum((1, 2)), torch.ones(5))
    expected = (start / start.sum(0)).double()
    for _ in range(20):
        q = torch.einsum("lhw,khw->khwl", expected, position.double()) + 1e-11
        q /= q.sum((1, 2), keepdim=True)
        expected = torch.einsum("kl,khwl->lhw", rows.double(), q) + 1e-11
        expected /= expected.sum(0)
    probs = epitomes.fit_classes(position, rows, start)
    torch.testing.assert_close(probs.sum(0), torch.ones(9, 11))
    torch.testing.assert_close(probs.double(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("bands, height, width", [(3, 48, 64), (4, 64, 48), (1, 48, 48)])
def test_an_image_of_two_colours_and_two_codes_is_split_along_the_colours(bands, height, width):
    image, codes, field = two_colours(height, width, bands)
    labels, probs = super_resolve(image, codes, WATER_OR_FIELD, patches=400)
    truth = torch.where(field, 2, 0)
    by_code = torch.where(codes == 81, 2, 0)
    assert labels.shape == (height, width) and probs.shape == (4, height, width) and labels.dtype == torch.int64
    torch.testing.assert_close(probs.sum(0), torch.ones(height, width))
    # Windows that straddle the line, or the wrapped edge, may go to either side; the others must not.
    apart = F.pad(truth[None, None].float(), [3] * 4, mode="circular")
    pure = F.avg_pool2d(apart, 7, stride=1)[0, 0]
    pure = (pure == 0) | (pure == 2)
    assert torch.equal(labels[pure], truth[pure])
    assert (by_code[pure] != truth[pure]).any()  # the codes alone would not do


def test_the_same_seed_gives_the_same_tables_and_another_seed_others():
    image, codes, _ = two_colours()
    first, again, other = (super_resolve(image, codes, WATER_OR_FIELD, patches=100, seed=s)[1] for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_code_without_a_row_is_one_line_that_lists_it():
    image, codes, _ = two_colours()
    codes[:2, :5] = 95
    with pytest.raises(Refused, match=r"no row for low code 95 \(10 px\); it has 11, 81") as error:
        super_resolve(image, codes, WATER_OR_FIELD, patches=10)
    assert "\n" not in str(error.value)


def test_no_patch_is_drawn_under_an_ignored_code_nor_over_the_edge():
    codes = torch.full((12, 15), NO_CODE)
    codes[:6] = 11
    centres = draw_centres(codes, [11], 500, 7, torch.Generator().manual_seed(0))
    assert centres[:, 0].unique().tolist() == [3, 4, 5] and centres[:, 1].unique().tolist() == list(range(3, 12))


@pytest.mark.parametrize("ignored", [NO_CODE, 0])
def test_ignored_codes_do_not_stop_the_colours_from_being_found(ignored):
    image, codes, field = two_colours()
    codes[8:16] = ignored  # NO_CODE needs no row; 0 has a row of zeros
    labels, _ = super_resolve(image, codes, WATER_OR_FIELD | {0: [0.0] * 4}, patches=400)
    assert ((labels == 2) == field).float().mean() > 0.95


def test_a_tile_without_any_known_code_has_finite_probabilities():
    codes = torch.full((20, 24), NO_CODE)
    _, probs = super_resolve(random_image(3, 20, 24), codes, load_table(NLCD_TABLE))
    torch.testing.assert_close(probs.sum(0), torch.ones(20, 24))


def test_counting_tile_by_tile_equals_a_slow_loop_and_leaves_ignored_pixels_out():
    generator, counts, expected = torch.Generator().manual_seed(0), {}, {}
    for _ in range(2):
        high = torch.randint(5, (6, 7), generator=generator).to(torch.uint8)
        high[high == 4] = IGNORE
        codes = torch.tensor([11, 81, 300, NO_CODE])[torch.randint(4, (6, 7), generator=generator)]
        add_counts(counts, high, codes, 4)
        for label, code in zip(high.flatten().tolist(), codes.flatten().tolist(), strict=True):
            if label != IGNORE and code != NO_CODE:
                expected.setdefault(code, [0] * 4)[label] += 1
    assert {code: row.tolist() for code, row in counts.items()} == expected


def test_the_published_table_loads_with_22_rows_that_sum_to_one_or_zero():
    table = load_table(NLCD_TABLE, ["water", "forest", "field", "impervious"])
    assert len(table) == 22 and table[41].index(max(table[41])) == 1
    assert {code for code, row in table.items() if sum(row) == 0} == {0, 255}
    assert all(sum(row) == pytest.approx(1) for code, row in table.items() if code not in (0, 255))


@pytest.mark.parametrize("text, message", [
    ("classes: [a, b]\n11: [0.5, 0.4]\n", "row 11"),
    ("classes: [a, b]\nforest: [0.5, 0.5]\n", "forest"),
    ("classes: [b, a]\n11: [0.5, 0.5]\n", r"the tile set has \['a', 'b'\]"),
])  # fmt: skip
def test_a_malformed_table_is_one_line_that_names_the_file(tmp_path, text, message):
    path = tmp_path / "table.yaml"
    path.write_text(text)
    with pytest.raises(Refused, match=message) as error:
        load_table(path, ["a", "b"])
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_the_labels_of_the_cpu():
    image, codes, _ = two_colours()
    cpu, _ = super_resolve(image, codes, WATER_OR_FIELD, patches=400)
    gpu, _ = super_resolve(image.cuda(), codes.cuda(), WATER_OR_FIELD, patches=400)
    assert (cpu == gpu.cpu()).float().mean() > 0.99


def test_a_real_patch_of_forest_and_field_comes_near_its_high_label(real):
    files = [real / "chesapeake" / f"m_3708020_sw_17_1_3_{kind}.tif" for kind in ("naip-new", "lc", "nlcd")]
    image, high, codes = (torch.from_numpy(tifffile.imread(file)) for file in files)
    labels, probs = super_resolve(image.permute(2, 0, 1) / 255, codes, load_table(NLCD_TABLE), patches=1000)
    truth = torch.where(high == 2, 1, 2)  # this patch has tree canopy and low vegetation only, 48 to 52
    assert torch.isfinite(probs).all()
    assert (labels == truth).float().mean() > 0.7  # the NLCD codes merged: 0.61
