"""An observation model of random numbers: four codes of three classes. What uses it computes in float64."""

import pytest
import torch

from beyond.observation import Observation

CODES, CLASSES = [11, 41, 42, 81], [0, 1, 1, 2]


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_model(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Observation(CODES, CLASSES, torch.randn(4, 6, generator=generator), torch.randn(4, generator=generator))
