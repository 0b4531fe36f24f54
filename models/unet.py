"""U-Net on ResNet-18 (Sec. 4.2): image -> logits at the image's own resolution."""

import torch
import torch.nn.functional as F
from torch import nn

from models.resnet import ResNet18


class UpBlock(nn.Module):
    """Upsample, join the skip, then conv-ReLU-conv-ReLU [paper ambiguous]; no norm [paper silent; ours]."""

    def __init__(self, in_channels, skip_channels, out_channels):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x, skip):
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        x = F.relu(self.conv1(torch.cat([x, skip], dim=1)), inplace=True)
        return F.relu(self.conv2(x), inplace=True)


class UNet(nn.Module):
    """image (B, K, H, W), any H and W from 32 px up -> logits (B, C, H, W).

    Bottleneck layer4 (/32); skips layer3 (/16), layer2 (/8), layer1 (/4) and the stem (/2), the "first four stages";
    decoder channels 4, 2, 1, 1/2 times the width [paper silent; ours].
    """

    def __init__(self, bands=3, classes=4, width=64):
        super().__init__()
        self.encoder = ResNet18(bands, width)
        stem, layer1, layer2, layer3, layer4 = self.encoder.channels
        self.up3 = UpBlock(layer4, layer3, 4 * width)
        self.up2 = UpBlock(4 * width, layer2, 2 * width)
        self.up1 = UpBlock(2 * width, layer1, width)
        self.up0 = UpBlock(width, stem, width // 2)
        self.head = nn.Conv2d(width // 2, classes, 1)
        for block in (self.up3, self.up2, self.up1, self.up0):
            for conv in (block.conv1, block.conv2):
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)
        # Zero logits at the start [paper silent; ours]: the sum over a region does not see the texture of random ones,
        # so nothing would take it away again (docs/experiments.md).
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, image):
        height, width = image.shape[-2:]
        if min(height, width) < 32:
            raise ValueError(f"the image is {height} x {width} px; the network needs at least 32 x 32")
        # Zeros (the band mean) up to a multiple of 32 keep every upsampling an exact doubling.
        image = F.pad(image, (0, -width % 32, 0, -height % 32))
        stem, layer1, layer2, layer3, layer4 = self.encoder(image)
        x = self.up3(layer4, layer3)
        x = self.up2(x, layer2)
        x = self.up1(x, layer1)
        x = self.up0(x, stem)
        # "Upsampled and passed through a final convolutional layer": a 1x1 convolution commutes with bilinear
        # upsampling, whose weights sum to one, and costs a quarter before it. A test holds the two orders equal.
        logits = F.interpolate(self.head(x), scale_factor=2, mode="bilinear", align_corners=False)
        return logits[..., :height, :width]
