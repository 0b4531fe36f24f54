"""The discriminator of Sec. 4.4: is a label map a high-resolution annotation or a prediction?"""

import torch.nn.functional as F
from torch import nn


class Discriminator(nn.Module):
    """PatchGAN on index maps [paper silent; ours]: (B, 1, H, W) in [0, 1] -> scores (B, 1, h, w), one for each patch.

    `layers` 4x4 convolutions of stride 2 from `width` channels, doubling, then one to the score. Fully convolutional;
    with 3 layers a score sees 46 x 46 px and the map may be as small as 16 px. It pads with 0, no class's value.
    """

    def __init__(self, width=16, layers=3):
        super().__init__()
        channels = [1, *(width * 2**i for i in range(layers))]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(channels, channels[1:], strict=False)
        )
        self.score = nn.Conv2d(channels[-1], 1, 4, padding=2)

    def forward(self, index_maps):
        x = index_maps
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        return self.score(x)
