import math

import torch

from losses import cross_entropy_sum


def test_cross_entropy_equals_eq_1_written_out():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, dtype=torch.float64)
    labels = torch.tensor([[0, 1, 2, 255, 1], [255, 255, 0, 2, 2]], dtype=torch.uint8)
    total = 0.0
    for b in range(2):
        for i in range(5):
            if labels[b, i] != 255:
                y = logits[b, :, i].tolist()
                total -= math.log(math.exp(y[labels[b, i]]) / sum(math.exp(v) for v in y))
    assert math.isclose(cross_entropy_sum(logits, labels).item(), total, rel_tol=1e-12)


def test_a_batch_without_a_label_costs_nothing():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = cross_entropy_sum(logits, torch.full((1, 4), 255))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()
