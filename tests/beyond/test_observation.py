"""p(label | composition): against slow loops."""

import math

import pytest
import torch
from random_observation import CLASSES, CODES, random_model

from beyond.observation import FLOOR, SLOPE, Observation, features, fit, merged_table
from beyond.table import fit_codes, from_plain, from_yaml, table_to_yaml, to_plain
from models.regions import compositions
from runtime.errors import Refused

pytestmark = pytest.mark.usefixtures("float64")
NAMES = ["water", "forest", "field"]
MERGED = {0: 255, 11: 0, 41: 1, 42: 1, 43: 1, 81: 2}


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
    loss, scores = model.judge(compositions(logits, index, 4), labels)
    assert loss.item() == pytest.approx(expected, abs=1e-10) and scores.shape == (2, 3, 4)
    assert model(torch.eye(3)[None]).isfinite().all()  # pure cells


def test_a_table_that_is_the_identity_gives_mean_probabilities_back():
    weight, bias = merged_table([0, 1, 2], [5, 70, 25], 3)
    assert torch.equal(weight, torch.eye(3, 6)) and torch.equal(bias, torch.zeros(3))
    composition = torch.rand(2, 3, 7).softmax(dim=1)
    probs = Observation(NAMES, [0, 1, 2], weight, bias)(composition).exp()
    assert torch.allclose(probs[:, :3], (composition + FLOOR) / (1 + 3 * FLOOR))  # but for the floor of f
    assert torch.allclose(probs[:, 3:], probs[:, :3])


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
    (tmp_path / "table.yaml").write_text(table_to_yaml(plain))
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


ROW = "log: [1, 0, 0], linear: [0, 0, 0], bias: 0"


def of_each(log):
    """A row of each class."""
    rows = (f"{name}: {{class: {name}, log: [{log}], linear: [0, 0, 0], bias: 0}}" for name in NAMES)
    return f"{{{', '.join(rows)}}}"


@pytest.mark.parametrize("classes, rows, says", [
    (NAMES, "3", "should hold"),
    (["water", "field"], "{11: {class: water}}", "the tile set has .'water', 'forest', 'field'."),
    (NAMES, f"{{11: {{class: sea, {ROW}}}}}", "'sea' is not in list"),
    (NAMES, f"{{sea: {{class: water, {ROW}}}}}", "'sea' is neither a code nor"),
    (NAMES, f"{{11: {{class: water, {ROW}}}}}", "no row is of the class forest"),
    (NAMES, "{1: {class: water}, 2: {class: forest}, 3: {class: field}}", "'log'"),
    (NAMES, of_each("1, 0"), "3 numbers"),
    (NAMES, of_each("1, 0, .nan"), "3 numbers"),
])  # fmt: skip
def test_a_table_that_is_none_is_one_line(tmp_path, classes, rows, says):
    (tmp_path / "table.yaml").write_text(f"classes: {classes}\nrows: {rows}")
    with pytest.raises(Refused, match=says) as caught:
        from_yaml(tmp_path / "table.yaml", NAMES)
    assert "\n" not in str(caught.value) and "table.yaml" in str(caught.value)
