import math

import torch

from config import AdversarialConfig
from losses import cross_entropy_sum, discriminator_hinge, made_map, sargmax, segmenter_hinge, straight_through


def test_cross_entropy_equals_eq_1_written_out():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 255, 1], [255, 255, 0, 2, 2]], dtype=torch.uint8)
    total = 0.0
    for b, i in (labels != 255).nonzero().tolist():
        y = logits[b, :, i].tolist()
        total -= math.log(math.exp(y[labels[b, i]]) / sum(math.exp(v) for v in y))
    assert math.isclose(cross_entropy_sum(logits, labels).item(), total, rel_tol=1e-12)


def test_a_batch_without_a_label_costs_nothing():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = cross_entropy_sum(logits, torch.full((1, 4), 255))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_sargmax_equals_eq_3_written_out():
    torch.manual_seed(0)
    logits, tau = torch.randn(2, 4, 3, 5, dtype=torch.float64), 2.5
    made = sargmax(logits, tau)
    for b, row, col in [(0, 0, 0), (1, 2, 4), (0, 1, 3)]:
        x = [tau * v for v in logits[b, :, row, col].tolist()]
        p = [math.exp(v) / sum(map(math.exp, x)) for v in x]
        assert math.isclose(made[b, 0, row, col].item(), sum(c * p[c] for c in range(4)), rel_tol=1e-12)


def test_the_temperature_is_tau_over_n_squared():
    torch.manual_seed(0)
    n, tau, u = 30, 1e3, torch.randn(2, 4, 5, 7, dtype=torch.float64)
    x = u / n**2  # the paper's logits (models/regions.py)
    assert torch.allclose(sargmax(u, tau / n**2), sargmax(x, tau), atol=1e-12)
    assert round(tau / n**2, 2) == AdversarialConfig().temperature


def test_sargmax_tends_to_argmax_as_temperature_grows():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    argmax = logits.argmax(dim=1, keepdim=True).double()
    errors = [(sargmax(logits, tau) - argmax).abs().mean().item() for tau in (1, 10, 100, 1e3, 1e5)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-6


def test_sargmax_has_the_analytic_gradient_of_eq_3():
    torch.manual_seed(0)
    logits = (torch.randn(2, 4, 2, 3, dtype=torch.float64) * 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sargmax(x, 5.0), (logits,))
    (gradient,) = torch.autograd.grad(sargmax(logits, 5.0).sum(), logits)
    p = (5 * logits).softmax(dim=1)
    c = torch.arange(4.0, dtype=torch.float64).view(1, -1, 1, 1)
    assert torch.allclose(gradient, 5 * p * (c - (c * p).sum(dim=1, keepdim=True)))


def test_sargmax_stays_finite_for_large_logits_under_bf16_autocast():
    logits = torch.tensor([1e4, -1e4, 1e4, 0.0]).view(1, 4, 1, 1).to(torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        made = sargmax(logits, 1e3)
    made.sum().backward()
    assert made.dtype == torch.float32 and made.item() == 1.0  # halfway between classes 0 and 2
    assert logits.grad.isfinite().all()


def test_straight_through_is_the_argmax_forward_and_sargmax_backward():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 1, 5, 7, dtype=torch.float64)
    soft = sargmax(logits, 1.5)
    made = straight_through(soft, logits)
    assert made.shape == (2, 1, 5, 7) and (made.detach() - soft.detach()).abs().max() > 0.1
    for b, row, col in [(0, 0, 0), (1, 4, 6), (0, 2, 3)]:
        x = logits[b, :, row, col].tolist()
        assert abs(made[b, 0, row, col].item() - x.index(max(x))) < 1e-12
    (ours,) = torch.autograd.grad((weights * made).sum(), logits, retain_graph=True)
    (theirs,) = torch.autograd.grad((weights * soft).sum(), logits)
    assert torch.equal(ours, theirs) and ours.abs().min() > 0


def test_soft_maps_are_the_sargmax_itself():
    logits = torch.randn(2, 4, 9, 9)
    assert torch.equal(made_map(logits, 1.11, "soft"), sargmax(logits, 1.11))


def test_hinge_losses_equal_eq_2_written_out():
    real, made = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([-2.0, 0.0, 3.0])
    expected = sum(max(0, 1 - r) for r in real.tolist()) / 3 + sum(max(0, 1 + m) for m in made.tolist()) / 3
    assert math.isclose(discriminator_hinge(real, made).item(), expected, rel_tol=1e-6)
    assert math.isclose(segmenter_hinge(made).item(), -sum(made.tolist()) / 3, rel_tol=1e-6)
