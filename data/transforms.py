"""One random draw for image, labels and regions; and the step from stored pixels to the network's input."""

import numpy as np
import torch


def draw(seed, step, position, *purpose):
    """The generator of one training sample: a function of the seed, the step and the place in the global batch.

    purpose: a further number where a second stream is drawn from, so that it does not shift the first
    """
    return np.random.default_rng([seed, step, position, *purpose])


def dihedral(array, view):
    """One of the eight dihedral views of (H, W) or (H, W, K): turned by `view % 4` quarters, mirrored for view >= 4."""
    turned = np.rot90(array, view % 4)
    return turned[:, ::-1] if view >= 4 else turned


def crop_draw(rng, height, width, min_area):
    """-> (top, left, height, width) of a random crop: an area of [min_area, 1] of the image, sides 3:4 to 4:3."""
    for _ in range(10):
        area = height * width * rng.uniform(min_area, 1)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        h, w = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    return 0, 0, height, width


def color_draw(rng, gain, offset):
    """-> (gain, offset) of one sample: brightness times U(1 - gain, 1 + gain), plus U(-offset, offset) deviations."""
    return 1 + gain * rng.uniform(-1, 1), offset * rng.uniform(-1, 1)


def normalize(images, mean, std, color=None):
    """Stored pixels to zero mean and unit deviation per band, on the device that holds them.

    images: (B, K, H, W) any number type; mean, std: (K,), in stored pixel units; color: (B, 2) gain and offset, or None
    returns: (B, K, H, W) in torch's default type
    """
    x = images.to(torch.get_default_dtype(), copy=True)
    x.sub_(mean.view(1, -1, 1, 1)).div_(std.view(1, -1, 1, 1))
    if color is None:
        return x
    return x.mul_(color[:, 0].view(-1, 1, 1, 1)).add_(color[:, 1].view(-1, 1, 1, 1))
