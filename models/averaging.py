"""The moving average of a network's weights, which is what is validated and kept."""

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def update_average(average, network, decay):
    """average <- decay average + (1 - decay) network, of weights and batch norm's statistics; counts are copied.

    AveragedModel's own update sends its counter to the device at every step, and waits for it.
    """
    pairs = list(zip(average.state_dict().values(), network.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    get_ema_multi_avg_fn(decay)(*map(list, zip(*floating, strict=True)), None)
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)
