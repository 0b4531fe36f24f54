import pytest
import torch

from models.discriminator import Discriminator


@pytest.mark.parametrize("size", [(16, 16), (64, 96), (50, 33)])
def test_scores_come_for_maps_of_any_size(size):
    scores = Discriminator(width=4)(torch.rand(2, 1, *size))
    assert scores.shape[:2] == (2, 1) and scores.shape[2] >= 2


@pytest.mark.parametrize("layers, sees_px", [(1, 10), (2, 22), (3, 46)])
def test_a_score_sees_its_receptive_field_and_no_more(layers, sees_px):
    torch.manual_seed(0)
    net = Discriminator(width=4, layers=layers).eval()
    maps = torch.rand(1, 1, 128, 128, requires_grad=True)
    scores = net(maps)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    rows = maps.grad[0, 0].abs().sum(dim=1).nonzero()
    assert rows.max() - rows.min() + 1 == sees_px
