"""p(label | composition): against slow loops, and what the posterior promises."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from losses import label_misfit_sum
from models.observation import FLOOR, SLOPE, Observation, features, fit, merged_table, misfits, posterior
from models.observation_table import fit_codes, from_plain, from_yaml, to_plain, to_yaml
from models.regions import compositions
from runtime.errors import Refused

NAMES = ["water", "forest", "field"]
CODES, CLASSES = [11, 41, 42, 81], [0, 1, 1, 2]
MERGED = {0: 255, 11: 0, 41: 1, 42: 1, 43: 1, 81: 2}
TILT = (0.093, 0.021, -0.6, -0.021, 0.094, 0.9)  # about 12.7 degrees, cells of some 10.5 px


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_model(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Observation(CODES, CLASSES, torch.randn(4, 6, generator=generator), torch.randn(4, generator=generator))


def true_cells(count, seed=0):
    """Compositions and codes drawn by random_model."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(count, 3, generator=generator) ** 3 + 1e-3
    shares /= shares.sum(dim=1, keepdim=True)
    probs = random_model()(shares.T[None])[0, :4].exp().T
    return shares, torch.multinomial(probs, 1, generator=generator)[:, 0]


def test_the_likelihood_equals_a_slow_loop():
    model, logits = random_model(), torch.randn(2, 3, 12, 15)
    index = torch.randint(-1, 4, (2, 12, 15))
    labels = torch.tensor([[0, 3, 255, 1], [2, 4, 5, 6]])  # 4 to 6: some row of water, forest, field
    expected = 0.0
    for b in range(2):
        for r in range(4):
            inside = [torch.softmax(logits[b, :, i, j], 0) for i in range(12) for j in range(15) if index[b, i, j] == r]
            m = [sum(float(q[c]) for q in inside) / len(inside) for c in range(3)]
            scores = []
            for k in range(4):
                score = float(model.bias[k])
                for c in range(3):
                    score += float(model.weight[k, c]) * math.log(m[c] + FLOOR)
                    score += float(model.weight[k, 3 + c]) * SLOPE * m[c]
                scores.append(math.exp(score))
            label = int(labels[b, r])
            if label == 255:
                continue
            rows = [label] if label < 4 else [k for k in range(4) if CLASSES[k] == label - 4]
            expected -= math.log(sum(scores[k] for k in rows) / sum(scores))
    loss = label_misfit_sum(model(compositions(logits, index, 4)), labels)
    assert loss.item() == pytest.approx(expected, abs=1e-10)


def test_gradients_in_float64():
    model, index = random_model(), torch.randint(0, 3, (1, 5, 6))
    labels = torch.tensor([[1, 5, 6]])

    def loss(logits):
        return label_misfit_sum(model(compositions(logits, index, 3)), labels)

    assert gradcheck(loss, torch.randn(1, 3, 5, 6, requires_grad=True))


def test_a_table_that_is_the_identity_gives_mean_probabilities_back():
    weight, bias = merged_table([0, 1, 2], [5, 70, 25], 3)
    assert torch.equal(weight, torch.eye(3, 6)) and torch.equal(bias, torch.zeros(3))
    composition = torch.rand(2, 3, 7).softmax(dim=1)
    probs = Observation(NAMES, [0, 1, 2], weight, bias)(composition).exp()
    assert torch.allclose(probs[:, :3], (composition + FLOOR) / (1 + 3 * FLOOR))  # but for the floor of f
    assert torch.allclose(probs[:, 3:], probs[:, :3])


def test_at_the_start_the_loss_is_finite_and_pure_cells_are_too():
    model = random_model()
    for composition in (torch.full((1, 3, 1), 1 / 3), torch.eye(3)[None]):
        assert model(composition).isfinite().all()


def test_labels_of_rows_come_first_and_other_codes_say_their_class():
    by_code, by_class = random_model().labels(MERGED)
    assert by_code == {0: 255, 11: 0, 41: 1, 42: 2, 43: 5, 81: 3} and by_class == [4, 5, 6]
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 255])
    assert random_model().classes_of(labels).tolist() == [0, 1, 1, 2, 0, 1, 2, 255]


def test_the_fit_is_the_minimum_and_the_same_again():
    shares, codes = true_cells(2000)
    model = fit(shares, codes, CODES, CLASSES)
    again = fit(shares, codes, CODES, CLASSES)
    assert torch.equal(model.weight, again.weight) and torch.equal(model.bias, again.bias)
    weight0, bias0 = merged_table(CLASSES, torch.bincount(codes), 3)

    def cost(weight, bias):
        rows = features(shares.T[None])[0].T @ weight.T + bias
        likelihood = rows.log_softmax(dim=1)[range(len(codes)), codes].mean()
        return 3e-3 * ((weight - weight0).square().sum() + (bias - bias0).square().sum()) - likelihood

    least = cost(model.weight, model.bias)
    for seed in range(20):
        torch.manual_seed(seed)
        moved = cost(model.weight + 1e-2 * torch.randn(4, 6), model.bias + 1e-2 * torch.randn(4))
        assert moved > least
    assert cost(random_model().weight, random_model().bias) > least  # the ridge is part of it
    own = model(shares.T[None])[0].T[range(2000), codes].mean()
    true = random_model()(shares.T[None])[0].T[range(2000), codes].mean()
    assert own > true - 0.05


def test_rows_of_few_cells_stay_near_what_their_class_says():
    shares, codes = true_cells(500)
    few = torch.cat([torch.nonzero(codes == 0)[:3, 0], torch.nonzero(codes)[:, 0]])  # three cells of 11
    model = fit(shares[few], codes[few], CODES, CLASSES)
    far = (model.weight - merged_table(CLASSES, [1, 1, 1, 1], 3)[0])[0].abs().max()
    assert far < 1.0
    loose = fit(shares[few], codes[few], CODES, CLASSES, ridge=1e-7)
    assert loose.weight[0].abs().max() > 5


def test_codes_of_few_cells_fall_back_to_their_class():
    shares, rows = true_cells(400)
    codes = torch.tensor(CODES)[rows]
    codes[torch.nonzero(codes == 11)[4:]] = 81  # 4 cells of the only water code remain
    model, cells, rare = fit_codes(shares.numpy(), codes.numpy(), MERGED, NAMES)
    assert model.names == (41, 42, 81, "water") and model.classes == (1, 1, 2, 0)
    assert rare == {11: 4, 43: 0} and cells["water"] == 4
    assert model.labels(MERGED)[0] == {0: 255, 11: 4, 41: 0, 42: 1, 43: 5, 81: 2}
    merged = torch.tensor([MERGED[code] for code in codes.tolist()])
    model, cells, rare = fit_codes(shares, merged, MERGED, NAMES, native=False)
    assert model.names == tuple(NAMES) and rare == {} and sum(cells.values()) == 400


def test_a_written_table_is_the_table(tmp_path):
    shares, rows = true_cells(400)
    model, cells, _ = fit_codes(shares, torch.tensor(CODES)[rows], MERGED, NAMES)
    plain = to_plain(model, NAMES, cells)
    (tmp_path / "table.yaml").write_text(to_yaml(plain))
    for again in (from_yaml(tmp_path / "table.yaml", NAMES), from_plain(plain, NAMES, "here")):
        assert again.names == model.names and again.classes == model.classes
        assert torch.equal(again.weight, model.weight) and torch.equal(again.bias, model.bias)


def test_the_published_table_loads_and_knows_developed_from_forest():
    names = [*NAMES, "impervious"]
    model = from_yaml("configs/tables/nlcd_observation.yaml", names)
    composition = torch.tensor([[0.01, 0.97, 0.01, 0.01], [0.01, 0.01, 0.01, 0.97], [0.01, 0.3, 0.34, 0.35]]).T[None]
    named = [model.names[k] for k in model(composition)[0, : len(model.names)].argmax(dim=0)]
    assert named[0] in (41, 42, 43) and named[1] in (23, 24) and named[2] == 22
    assert model(composition)[0, -4:].argmax(dim=0).tolist() == [1, 3, 3]


@pytest.mark.parametrize(
    "text, says",
    [
        ("[1, 2]", "should hold"),
        ("classes: [water, field]\nrows: {11: {class: water}}", "the tile set has water, forest, field"),
        ("classes: [water, forest, field]\nrows: {11: {class: sea}}", "needs the class"),
        ("classes: [water, forest, field]\nrows: {sea: {class: water}}", "neither a code nor"),
        (
            "classes: [water, forest, field]\nrows: {11: {class: water, log: [1, 0], linear: [0, 0, 0], bias: 0}}",
            "log is .1, 0.; it should be 3 numbers",
        ),
        (
            "classes: [water, forest, field]\nrows: {1: {class: water, log: [1, 0, .nan], linear: [0, 0, 0], bias: 0}}",
            "log is",
        ),
        (
            "classes: [water, forest, field]\nrows: {11: {class: water, log: [1, 0, 0], linear: [0, 0, 0], bias: 0}}",
            "no row is of the class forest",
        ),
        ("classes: [water, forest, field]\nrows: {11: {class: water}}", "log is None"),
        ("rows: {11: [", "cannot be read as YAML"),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path, text, says):
    (tmp_path / "table.yaml").write_text(text)
    with pytest.raises(Refused, match=says) as caught:
        from_yaml(tmp_path / "table.yaml", NAMES)
    assert "\n" not in str(caught.value) and "table.yaml" in str(caught.value)
    with pytest.raises(Refused, match="no_such.yaml"):
        from_yaml(tmp_path / "no_such.yaml", NAMES)


LAYOUTS = {
    "blocks": ((0.125, 0, 0, 0, 0.125, 0), (5, 6), 64),
    "offset, oblong": ((0.11, 0, 0.4, 0, 0.13, -1.2), (4, 7), 70),
    "tilted": (TILT, (6, 7), 110),
}


def window(layout, windows=2):
    to_cell, shape, cell_px = LAYOUTS[layout]
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(windows, 3, 40, 48, generator=generator)
    labels = torch.randint(0, 7, (windows, *shape), generator=generator)
    labels[:, ::3, ::2] = 255
    return logits, labels, [to_cell] * windows, cell_px


def index_by_a_slow_loop(to_cell, shape, height, width):
    a, b, c, d, e, f = to_cell
    index = torch.full((height, width), -1)
    for row in range(height):
        for col in range(width):
            x = math.floor(round(a * (col + 0.5) + b * (row + 0.5) + c, 6))
            y = math.floor(round(d * (col + 0.5) + e * (row + 0.5) + f, 6))
            if 0 <= x < shape[1] and 0 <= y < shape[0]:
                index[row, col] = y * shape[1] + x
    return index


def misfit_by_a_slow_loop(model, logits, labels, to_cell, cell_px):
    """Of one window, over all of its pixels."""
    index, total = index_by_a_slow_loop(to_cell, labels.shape, *logits.shape[1:]), 0.0
    for cell, label in enumerate(labels.flatten().tolist()):
        inside = index == cell
        if label != 255 and inside.sum() >= cell_px / 2:
            m = logits.softmax(dim=0)[:, inside].mean(dim=1)
            total -= float(model(m[None, :, None])[0, label, 0])
    return total


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("resistance", [0.01, 1.0])
def test_the_posterior_never_makes_the_labels_less_likely(layout, resistance):
    model, (logits, labels, to_cell, cell_px) = random_model(), window(layout)
    moved = posterior(model, logits, labels, to_cell, cell_px, resistance=resistance)
    for i in range(2):
        before, after = (misfit_by_a_slow_loop(model, u[i], labels[i], to_cell[i], cell_px) for u in (logits, moved))
        assert after < before - 0.1


def test_labels_that_cannot_be_explained_leave_the_prediction_as_it_is():
    """A step that is far too large makes every d worse than none."""
    model, (logits, labels, to_cell, cell_px) = random_model(), window("blocks")
    assert torch.equal(posterior(model, logits, labels, to_cell, cell_px, resistance=50.0, rate=1e3), logits)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_posterior_that_resists_without_bound_is_the_plain_prediction(layout):
    model, (logits, labels, to_cell, cell_px) = random_model(), window(layout)
    near = posterior(model, logits, labels, to_cell, cell_px, resistance=1e6)
    assert (near - logits).abs().max() < 1e-3
    far = posterior(model, logits, labels, to_cell, cell_px, resistance=1e12)
    assert (far - logits).abs().max() < 1e-9


def test_without_a_label_nothing_moves_and_what_is_void_is_not_read():
    model, (logits, labels, to_cell, cell_px) = random_model(), window("tilted")
    nothing = torch.full_like(labels, 255)
    assert torch.equal(posterior(model, logits, nothing, to_cell, cell_px), logits)
    void = torch.zeros(2, 40, 48, dtype=torch.bool)
    void[:, :, 24:] = True
    spoilt = torch.where(void[:, None], 50 * torch.rand_like(logits), logits)
    left = [posterior(model, u, labels, to_cell, cell_px, void)[..., :24] for u in (logits, spoilt)]
    assert torch.equal(*left) and not torch.equal(left[0], logits[..., :24])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_of_a_batch_do_not_see_each_other(layout):
    model, (logits, labels, to_cell, cell_px) = random_model(), window(layout)
    together = posterior(model, logits, labels, to_cell, cell_px)
    alone = [posterior(model, logits[i : i + 1], labels[i : i + 1], to_cell[:1], cell_px) for i in range(2)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-9)


def test_the_cells_of_the_posterior_are_those_of_training():
    model, (logits, labels, to_cell, cell_px) = random_model(), window("tilted", 1)
    from models.observation import lay

    index, _ = lay(to_cell, labels.shape[1:], logits, 1)
    expected = index_by_a_slow_loop(TILT, labels.shape[1:], 40, 48)
    assert torch.equal(index[0], expected)
    slow = misfit_by_a_slow_loop(model, logits[0], labels[0], TILT, cell_px)
    assert misfits(model, logits, labels, index, cell_px).item() == pytest.approx(slow)


def test_the_posterior_works_where_gradients_are_off():
    model, (logits, labels, to_cell, cell_px) = random_model(), window("blocks")
    expected = posterior(model, logits, labels, to_cell, cell_px)
    with torch.inference_mode():
        assert torch.equal(posterior(model, logits.clone(), labels.clone(), to_cell, cell_px), expected)


def test_the_offset_is_bilinear_between_the_centres_of_cells():
    from models.observation import lay, spread

    to_cell, shape = (0.125, 0, 0, 0, 0.125, 0), (5, 6)
    like, offsets = torch.zeros(1, 2, 40, 48), torch.randn(1, 2, 5, 6)
    field = spread(offsets, lay([to_cell], shape, like, 1)[1])
    expected = torch.nn.functional.interpolate(offsets, scale_factor=8, mode="bilinear", align_corners=False)
    assert torch.allclose(field, expected)
