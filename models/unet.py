"""U-Net on ResNet-18 (Sec. 4.2): image -> logits at the image's own resolution."""

import torch
import torch.nn.functional as F
from torch import nn

from models.resnet import ResNet18


class Double(torch.autograd.Function):
    """Bilinear upsampling: (B, D, H, W) -> (B, D, 2H, 2W). Its gradient is a convolution of stride 2 by the same
    weights. By torch's own a CPU's step takes 5 % (width 16) to 22 % (width 64) longer, and GPUs add it in no fixed
    order."""

    @staticmethod
    def forward(ctx, x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    @staticmethod
    def backward(ctx, grad):
        steps = torch.arange(4, dtype=grad.dtype, device=grad.device)  # made there: a GPU would wait for a list
        line = 1 - (steps - 1.5).abs() / 2  # 0.25, 0.75, 0.75, 0.25
        weights = (line[:, None] * line).expand(grad.shape[1], 1, 4, 4)
        grad = F.pad(grad, (1, 1, 1, 1), mode="replicate")  # what edge pixels gave beyond the edge, they get back
        return F.conv2d(grad, weights, stride=2, groups=grad.shape[1])


class UpBlock(nn.Module):
    """Upsample, join the skip, then conv-ReLU-conv-ReLU [paper ambiguous]; no norm [paper silent; ours]."""

    def __init__(self, in_channels, skip_channels, out_channels):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels + skip_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x, skip):
        x = F.relu(self.conv1(torch.cat([Double.apply(x), skip], dim=1)), inplace=True)
        return F.relu(self.conv2(x), inplace=True)


class UNet(nn.Module):
    """image (B, K, H, W) of any size -> logits (B, C, H, W).

    Bottleneck layer4 (/32); skips layer3 (/16), layer2 (/8), layer1 (/4) and the stem (/2), the "first four stages";
    decoder channels 4, 2, 1, 1/2 times the width [paper silent; ours].

    gain: the logits are this times the last layer's output: n² where the paper's sum is taken to the letter
          (models/regions.py), else 1
    head: how the last layer starts: zeros [paper silent; ours], or random, as torch draws it
    """

    def __init__(self, bands=3, classes=4, width=64, gain=1.0, head="zeros"):
        super().__init__()
        self.gain = gain
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
        # so nothing would take it away again (docs/diary.md).
        if head == "zeros":
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, image):
        height, width = image.shape[-2:]
        # A multiple of 32 keeps every upsampling an exact doubling. The edge's pixels go on up to there: before a strip
        # of zeros the outermost pixels are mapped worse by several points [ours: docs/diary.md].
        image = F.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")
        stem, layer1, layer2, layer3, layer4 = self.encoder(image)
        x = self.up3(layer4, layer3)
        x = self.up2(x, layer2)
        x = self.up1(x, layer1)
        x = self.up0(x, stem)
        # "Upsampled and passed through a final convolutional layer": a 1x1 convolution commutes with bilinear
        # upsampling. After it a step of width 64 on a CPU takes 7 % longer.
        logits = F.interpolate(self.head(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.gain * logits[..., :height, :width] if self.gain != 1 else logits[..., :height, :width]
