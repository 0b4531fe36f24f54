"""Batches of samples, by key: which samples a step takes, read ahead by worker processes.

Samples are a Dataset with `collate`. Every random choice is a function of the run's seed, the step and the sample's
position in the global batch. So workers may prefetch, a run may stop and go on, and one process sees the same batches
as many.
"""

import os
import signal
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from runtime.errors import Refused


def sample_index(seed, step, position, batch_size, length):
    """Which of `length` items stands at a position of a step: an endless stream of permutations."""
    lap, place = divmod(step * batch_size + position, length)
    return int(_permutation(seed, lap, length)[place])


def training_batches(samples, first_step, steps, per_rank, micro_batch, rank, workers, pin_memory=False):
    """Micro-batches of one rank, from `first_step` on, in the order in which the steps take them.

    samples: takes keys (step, position); per_rank: samples of a step on this rank; micro_batch: of one forward pass
    """
    keys = (  # made as they are asked for: a hundred epochs of Low2High have 0.2 GB of them
        [(step, rank * per_rank + start + i) for i in range(micro_batch)]
        for step in range(first_step, steps)
        for start in range(0, per_rank, micro_batch)
    )
    return _batches(samples, keys, workers, pin_memory)


def scoring_batches(samples, batch_size, rank, world, workers, pin_memory=False):
    """Batches over this rank's share of the samples; the shares do not overlap and together are all of them."""
    share = list(range(rank, len(samples), world))
    keys = [share[i : i + batch_size] for i in range(0, len(share), batch_size)]
    return _batches(samples, keys, min(workers, len(keys)), pin_memory)


def to_device(batch, device):
    """The batch with its tensors on `device`; small integers travel, the network's input is made there."""
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    # On MPS a copy that is not waited for may read memory that is free again (torch issue 189690).
    return batch.to(device, non_blocking=device.type == "cuda") if isinstance(batch, torch.Tensor) else batch


def to_tensor(array):
    """numpy -> torch, contiguous; uint16 as int32, since torch computes little with uint16."""
    if array.dtype == np.uint16:
        array = array.astype(np.int32)
    return torch.from_numpy(np.ascontiguousarray(array))


class _Guarded(Dataset):
    """An expected error travels as a value, so that it reaches the user without a worker's traceback around it."""

    def __init__(self, samples):
        self.samples = samples

    def __getitem__(self, key):
        try:
            return self.samples[key]
        except Refused as error:
            return error

    def collate(self, items):
        return next((item for item in items if isinstance(item, Refused)), None) or self.samples.collate(items)


def _batches(samples, keys, workers, pin_memory):
    guarded = _Guarded(samples)
    how = {"pin_memory": pin_memory, "worker_init_fn": _leave_signals_to_the_parent}
    for batch in DataLoader(guarded, batch_sampler=keys, collate_fn=guarded.collate, num_workers=workers, **how):
        if isinstance(batch, Refused):
            raise batch
        yield batch


def _leave_signals_to_the_parent(_worker):
    """Ctrl-C, torchrun and schedulers signal a whole group, and a batch that never comes would break off the last step.

    Of SIGTERM the first one alone is passed over: it is also how DataLoader ends a worker that does not end by itself.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


@lru_cache(maxsize=2)
def _permutation(seed, lap, length):
    return np.random.default_rng([seed, lap]).permutation(length)
