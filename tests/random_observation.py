"""An observation model of random numbers: four codes of three classes."""

import torch

from beyond.observation import Observation

CODES, CLASSES = [11, 41, 42, 81], [0, 1, 1, 2]


def random_model(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Observation(CODES, CLASSES, torch.randn(4, 6, generator=generator), torch.randn(4, generator=generator))
