import math
from types import SimpleNamespace

import pytest
import torch
from commands import ROOT
from made_runs import losses, trained

import evaluate
from beyond.region_losses import PRIOR_FLOOR, RHO_FLOOR, Matching, prior_misfit, published, statistics_misfit, tabulate
from models.regions import log_mean_exp
from runtime.errors import Refused

NAMES = ["water", "forest", "field", "impervious"]
TABLE = ROOT / "configs" / "tables" / "nlcd_low2high.yaml"


@pytest.fixture
def cells():
    """Compositions (B, C, R), labels (B, R) with ignored ones, eta and rho (K, C), all float64."""
    torch.manual_seed(0)
    composition = torch.randn(2, 4, 9, dtype=torch.float64).softmax(dim=1).requires_grad_()
    labels = torch.randint(0, 5, (2, 9)).to(torch.uint8)
    labels[0, 3] = labels[1, 5:] = 255
    eta, rho = torch.rand(5, 4, dtype=torch.float64), torch.rand(5, 4, dtype=torch.float64)
    return composition, labels, eta / eta.sum(dim=1, keepdim=True), rho


def slow_statistics(composition, labels, eta, rho):
    total = 0.0
    for of_tile, own in zip(composition, labels, strict=True):
        for k in range(len(eta)):
            members = [of_tile[:, r] for r in range(len(own)) if own[r] == k]
            for c in range(len(eta[k])) if members else ():
                mean = sum(m[c] for m in members) / len(members)
                total += len(members) * (mean - eta[k, c]) ** 2 / (2 * (rho[k, c] ** 2 + RHO_FLOOR**2))
    return total


def slow_prior(composition, labels, eta, rho):
    pairs = [(composition[b, :, r], int(labels[b, r])) for b in range(2) for r in range(9) if labels[b, r] != 255]
    mean, total = sum(q for q, _ in pairs) / len(pairs), 0.0
    for q, k in pairs:
        prior = [(value + PRIOR_FLOOR) / (1 + 4 * PRIOR_FLOOR) for value in eta[k]]
        total += sum(mean[c] * mean[c].log() - q[c] * prior[c].log() for c in range(4))
    return total


@pytest.mark.parametrize("fast, slow", [(statistics_misfit, slow_statistics), (prior_misfit, slow_prior)])
def test_losses_of_compositions_equal_slow_loops_and_their_gradients_finite_differences(cells, fast, slow):
    composition, labels, eta, rho = cells
    assert torch.allclose(fast(composition, labels, eta, rho), slow(composition, labels, eta, rho))
    assert torch.autograd.gradcheck(lambda c: fast(c, labels, eta, rho), composition)
    assert fast(composition, torch.full_like(labels, 255), eta, rho) == 0


def test_pooling_is_the_log_of_the_mean_of_exp_over_each_region():
    torch.manual_seed(0)
    logits = (100 * torch.randn(2, 3, 6, 7, dtype=torch.float64)).requires_grad_()
    index = torch.randint(-1, 4, (2, 6, 7))
    pooled = log_mean_exp(logits, index, 5)
    for b in range(2):
        for r in range(4):
            own = logits[b][:, index[b] == r]
            assert torch.allclose(pooled[b, :, r], own.logsumexp(dim=1) - math.log(own.shape[1]))
    assert (pooled[..., 4] == 0).all()
    small = (0.01 * logits).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda u: log_mean_exp(u, index, 4), small)


def test_tables_are_counted_over_the_cells_of_each_code():
    torch.manual_seed(0)
    shares = torch.rand(40, 4)
    table = tabulate(shares, torch.tensor([11] * 15 + [41] * 20 + [42] * 5))
    assert list(table) == [11, 41]  # of 42 there are too few
    for (eta, rho), own in zip(table.values(), (shares[:15], shares[15:35]), strict=True):
        assert torch.allclose(eta, own.mean(dim=0)) and torch.allclose(rho, own.std(dim=0, correction=0))


def test_a_published_table_gives_deviations_or_the_largest_there_can_be():
    table = published(TABLE, NAMES)
    assert table[22][0].sum().item() == pytest.approx(1)
    assert table[22][1].tolist() == pytest.approx([0.06, 0.24, 0.21, 0.18])
    assert table[51][1].tolist() == pytest.approx([0, 0.5, 0.5, 0])
    assert 0 not in table and 255 not in table  # rows of zeros are no shares


def test_cells_carry_rows_of_the_table_native_codes_or_classes():
    taxonomy = SimpleNamespace(names=NAMES, low={11: 0, 41: 1, 42: 1, 90: 1, 255: 255})
    table = tabulate(torch.eye(4)[[0, 1] * 20], torch.tensor([11, 41] * 20))
    native = Matching("prior", table, taxonomy, True)
    assert native.labels(taxonomy.low)[0] == {11: 0, 41: 1, 42: 2, 90: 3, 255: 255}
    assert native.class_of[:5].tolist() == [0, 1, 1, 1, 255]
    assert native.eta.tolist() == torch.eye(4)[[0, 1, 1, 1]].tolist()  # 42 and 90, which no cell has, by their class
    merged = Matching("statistics", tabulate(torch.eye(4)[[0, 1] * 20], torch.tensor([0, 1] * 20)), taxonomy, False)
    by_code, by_class = merged.labels(taxonomy.low)
    assert by_code == taxonomy.low and list(by_class) == [0, 1, 2, 3]
    assert merged.class_of[:5].tolist() == [0, 1, 2, 3, 255] and merged.eta.tolist() == torch.eye(4).tolist()
    of_90 = Matching("prior", published(TABLE, NAMES), taxonomy, True).eta[3]
    assert of_90.tolist() == pytest.approx([0.01, 0.9, 0.08, 0], abs=0.01)


def losses_of(tile_set, run_dir, *more):
    small = ["model.width=4", "train.batch_size=10", "train.precision=off", "data.workers=0", "run.log_every=1"]
    words = [f"data.root={tile_set}", f"run.dir={run_dir}", "run.device=cpu", "train.epochs=4", *small, *more]
    trained("configs/demo/agg.yaml", *words)
    return losses(run_dir)


@pytest.mark.parametrize("words", [
    *("sum", "literal_sum", "mean_probs", "log_sum_exp", "statistics", "prior", "observation"),
    *("observation supervision.codes=merged", "prior supervision.codes=merged"),
    f"statistics supervision.observation={TABLE.relative_to(ROOT)}",
])  # fmt: skip
def test_every_region_loss_trains(tile_set, tmp_path, words):
    how, *more = words.split()
    each = losses_of(tile_set, tmp_path / "run", f"supervision.aggregate={how}", *more)
    assert len(each) == 24 and all(map(math.isfinite, each)) and sum(each[-6:]) < sum(each[:6])
    if how in ("statistics", "prior"):  # and nothing of it is left to use at test
        words = [str(tmp_path / "run"), "--data", str(tile_set), "--device", "cpu"]
        assert evaluate.main(evaluate.parse(words))["rows"][0]["miou"] > 0
        with pytest.raises(Refused, match="cannot use --coarse"):
            evaluate.main(evaluate.parse([*words, "--coarse"]))


def test_a_table_of_native_codes_is_none_of_classes(tile_set, tmp_path):
    more = "supervision.aggregate=prior", f"supervision.observation={TABLE}", "supervision.codes=merged"
    with pytest.raises(Refused, match="is a table of native codes; it needs supervision.codes=native"):
        losses_of(tile_set, tmp_path / "run", *more)
