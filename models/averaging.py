"""The moving average of a network's weights, which is what is validated and kept."""

import torch


@torch.no_grad()
def update_average(average, network, decay):
    """average <- decay average + (1 - decay) network, of weights and batch norm's statistics; counts are copied.

    torch's AveragedModel.update_parameters has one decay for all steps.
    """
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
