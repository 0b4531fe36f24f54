"""Linear: ridge regression of coarse labels on the mean features of their cells, applied pixel by pixel [ours].

No step of a gradient: normal equations are added up tile by tile, and solved once. Features are the bands and the five
stages of a frozen ResNet-18, at random or pretrained, each upsampled bilinearly to the image.
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.regions import region_means
from runtime.labels import IGNORE

RIDGE = 1e-2
CHANNELS = 64  # upsampled at a time: 64 MB of a tile of 512 px


class Linear(nn.Module):
    """image (B, K, H, W), normalised -> (B, C, H, W), by all features side by side: weight (C, D), bias (C,).

    encoder: ResNet18, or None for the bands alone
    """

    def __init__(self, encoder, weight, bias):
        super().__init__()
        self.encoder = encoder
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, image):
        return classify(feature_maps(self.encoder, image), self.weight, self.bias, image.shape[-2:])


def feature_maps(encoder, image):
    """[bands, stem, layer1, layer2, layer3, layer4], each (B, D, h, w) of its own size, from image (B, K, H, W)."""
    height, width = image.shape[-2:]
    image = F.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")  # as the U-Net does
    return [image, *(encoder(image) if encoder else [])]


def upsample(features, size):
    """A feature map, bilinear between its pixels, at the image's size (H, W)."""
    padded = [side + -side % 32 for side in size]
    return F.interpolate(features, padded, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]


def classify(maps, weight, bias, size):
    """Logits (B, C, H, W) from some feature maps and the weight (C, D) of them all. Convolved before upsampling: the
    two commute, and it costs less."""
    parts = weight.split([features.shape[1] for features in maps], dim=1)
    convolved = (F.conv2d(features, part[:, :, None, None]) for features, part in zip(maps, parts, strict=True))
    return bias.view(-1, 1, 1) + sum(upsample(features, size) for features in convolved)


def mean_features(maps, region_index, num_regions):
    """The mean features of each region, (B, D, R), D of all maps side by side."""
    parts = [part for features in maps for part in features.split(CHANNELS, dim=1)]
    size = region_index.shape[-2:]
    return torch.cat([region_means(upsample(part, size), region_index, num_regions) for part in parts], dim=1)


@torch.no_grad()
def settle(encoder, batches):
    """Give batch norm the statistics of these images, (B, K, H, W) each. -> the encoder, in eval mode"""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a mean over all batches
    encoder.train()
    for images in batches:
        alone = images[:, 0].numel() <= 32**2  # one value a channel at its end, and batch norm needs two
        encoder(torch.cat([images, images]) if alone else images)
    return encoder.eval()


class Moments:
    """The sums that ridge regression needs, float64: of (1, x) (1, x)^T and (1, x) y^T, y the one-hot labels."""

    def __init__(self, num_classes):
        self.num_classes, self.inputs, self.targets = num_classes, 0, 0

    def add(self, means, labels):
        """means: (B, D, R) of mean_features; labels: (B, R), 255 is left out"""
        known = labels != IGNORE
        x = F.pad(means.mT[known].cpu().double(), (1, 0), value=1.0)  # on the CPU: MPS has no float64
        self.inputs = self.inputs + x.T @ x
        self.targets = self.targets + x.T @ F.one_hot(labels[known].cpu().long(), self.num_classes).double()

    def solve(self, first=0, last=None):
        """-> weight (C, D) and bias (C,), by the features first to last - 1 alone. Each is standardised, and the ridge
        weighs against the mean squared error; then both are undone."""
        columns, count = slice(1 + first, last and 1 + last), self.inputs[0, 0]
        mean, share = self.inputs[0, columns] / count, self.targets[0] / count
        covariance = self.inputs[columns, columns] / count - torch.outer(mean, mean)
        deviation = covariance.diagonal().clamp(min=1e-12).sqrt()  # of a ReLU that never fires: 0
        correlation = covariance / torch.outer(deviation, deviation)
        cross = (self.targets[columns] / count - torch.outer(mean, share)) / deviation[:, None]
        ridge = RIDGE * torch.eye(len(mean), dtype=torch.float64)
        weight = torch.linalg.solve(correlation + ridge, cross) / deviation[:, None]
        return weight.T, share - mean @ weight
