"""Masked autoencoder (Sec. 4.5, ref. 10): a ViT whose patch embedding is a ResNet-18.

Three quarters of the tokens are left out; a light decoder restores their pixels from the rest. Only the ResNet-18 is
used afterwards: it starts the segmenter.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from models.resnet import ResNet18
from models.vit import Transformer, sincos_positions

PATCH_PX = 16  # a token stands for 16 x 16 px: ResNet-18's stride of 32 after the 2x upsampling

# Width, depth and heads. base: ViT-Base and the decoder of ref. 10 [paper silent; ours]; tiny: for two CPU cores.
SIZES = {
    "tiny": {"encoder": (128, 4, 4), "decoder": (64, 2, 2)},
    "base": {"encoder": (768, 12, 12), "decoder": (512, 8, 16)},
}


class MaskedAutoencoder(nn.Module):
    """image (B, K, H, W), normalised, H and W multiples of 32, and noise (B, N) -> loss, predicted, mask.

    mask_where: what is hidden from the encoder (docs/paper.md says what leaks).
        tokens [paper, Sec. 4.5, as we read it]: the masked tokens; the ResNet-18 sees the whole image. At the start, at
            128 px, 74 % of a visible token's sensitivity lies in masked patches.
        pixels [differs: nothing leaks]: the masked pixels too, which are set to zero, the band mean.
        layers [differs: nothing leaks, and batch norm sees no blanks]: masked cells of 32 px, the ResNet-18's stride,
            in the image and after every layer.
    stages: the tokens are made of "last", layer4 [paper, Sec. 4.5, as we read it], or of "all" five stages [differs:
        the segmenter reads all five, and layer4's alone would teach the first ones little].
    targets: pixels to restore, normalised by "patch", each by its own mean and deviation [ours: ref. 10], or by "band",
        as the image is [ours: brightness and near infrared, which tell classes apart, must be learnt too].
    """

    def __init__(
        self, bands, resnet_width, size="base", mask_ratio=0.75, mask_where="tokens", stages="last", targets="patch"
    ):
        super().__init__()
        self.mask_ratio, self.mask_where, self.targets = mask_ratio, mask_where, targets
        width, decoder_width = SIZES[size]["encoder"][0], SIZES[size]["decoder"][0]
        self.resnet = ResNet18(bands, resnet_width)
        self.embed = nn.Conv2d(self.resnet.channels[-1], width, 1)
        self.encoder = Transformer(*SIZES[size]["encoder"])
        self.narrow = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(decoder_width))
        self.decoder = Transformer(*SIZES[size]["decoder"])
        self.head = nn.Linear(decoder_width, bands * PATCH_PX**2)
        for layer in (self.embed, self.narrow, self.head):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Stem (/2) to layer3 (/16): a convolution of a token's size there makes one vector of it.
        sides = zip(self.resnet.channels[:4], (8, 4, 2, 1), strict=True) if stages == "all" else ()
        self.embed_stages = nn.ModuleList(nn.Conv2d(channels, width, side, stride=side) for channels, side in sides)
        for layer in self.embed_stages:
            nn.init.xavier_uniform_(layer.weight.flatten(1))
            nn.init.zeros_(layer.bias)

    def forward(self, image, noise):
        """noise: (B, N), uniform, N = H / 16 * W / 16: the draw of the mask is the caller's.

        returns: loss, predicted (B, N, K * 256) as `targets` normalises pixels, mask (B, N)
        """
        rows, columns = token_grid(*image.shape[-2:])
        visible_index, mask, restore_index = self.draw_mask(noise, rows, columns)
        encoded = self.encode(image, visible_index, mask)
        predicted = self.decode(encoded, restore_index, rows, columns)
        return self.loss(image, predicted, mask), predicted, mask

    def draw_mask(self, noise, rows, columns):
        """Mask the share mask_ratio of each image's tokens, those of the largest noise; with mask_where=layers of its
        cells of 32 px, four tokens each.

        noise:   (B, N)
        returns: visible_index (B, V) int64, the tokens kept, in order of their noise;
                 mask (B, N) bool, True where masked;
                 restore_index (B, N) int64: where each token stands among visible, then masked tokens
        """
        together = 1
        if self.mask_where == "layers":  # noise of a cell: its rank, for no two cells may be equal
            cells = noise.unflatten(1, (rows, columns))[:, ::2, ::2]
            rank = cells.flatten(1).argsort(dim=1, stable=True).argsort(dim=1).view(cells.shape)
            noise, together = enlarge(rank, 2).flatten(1), 4
        visible = rows * columns - round(self.mask_ratio * rows * columns / together) * together
        # Stable, so that every device draws the same mask: in float32, equal values are no rarity.
        order = noise.argsort(dim=1, stable=True)
        restore_index = order.argsort(dim=1)
        return order[:, :visible], restore_index >= visible, restore_index

    def encode(self, image, visible_index, mask):
        """Embed the image, add positions and encode the visible tokens: (B, V, D), in the order of visible_index."""
        if self.mask_where != "tokens":
            image = blank(image, mask)
        if self.mask_where == "layers":
            cells = mask.unflatten(1, token_grid(*image.shape[-2:]))[:, ::2, ::2]
            stages = masked_stages(self.resnet, image, ~cells)
        else:
            stages = self.resnet(image)
        # layer4 is (B, 8 resnet_width, H / 32, W / 32). Bilinear, and a 1x1 convolution to the encoder's width [paper
        # silent; ours].
        features = self.embed(F.interpolate(stages[4], scale_factor=2, mode="bilinear", align_corners=False))
        for embed, stage in zip(self.embed_stages, stages, strict=False):
            features = features + embed(stage)
        rows, columns = features.shape[-2:]
        tokens = features.flatten(2).transpose(1, 2)  # (B, N, D)
        tokens = tokens + sincos_positions(rows, columns, tokens.shape[2], tokens.device)
        return self.encoder(tokens.gather(1, visible_index[..., None].expand(-1, -1, tokens.shape[2])))

    def decode(self, encoded, restore_index, rows, columns):
        """Fill masked places with the mask token, restore the order, predict every patch: (B, N, K * 256)."""
        encoded = self.narrow(encoded)
        batch, visible, width = encoded.shape
        hidden = self.mask_token.expand(batch, rows * columns - visible, width)
        tokens = torch.cat([encoded, hidden], dim=1).gather(1, restore_index[..., None].expand(-1, -1, width))
        return self.head(self.decoder(tokens + sincos_positions(rows, columns, width, tokens.device)))

    def loss(self, image, predicted, mask):
        """Mean squared error over masked patches; 1 is what predicting each patch's mean costs, by band each band's."""
        target = patchify(image)
        if self.targets == "patch":
            mean, std = patch_statistics(target)
            target = (target - mean) / std
        error = (predicted - target).square().mean(dim=2)  # (B, N)
        return (error * mask).sum() / mask.sum()


def masked_stages(resnet, image, visible):
    """The stages of `resnet(image)` as if masked cells did not exist, as in SparK (Tian et al., ICLR 2023): every
    convolution reads zeros there, and what it writes there is dropped before the batch norm that follows it.

    image:   (B, K, H, W), zeros where masked
    visible: (B, H / 32, W / 32) bool
    returns: five maps, zeros where masked
    """
    cells = int(visible.sum())

    @cache
    def places(side):
        """Of all pixels of a map whose cells have side x side, those that are visible: (cells * side^2,) int64."""
        return enlarge(visible, side).flatten().nonzero().squeeze(1)

    def visible_of(x):
        """(B, D, h, w) -> (1, D, P, 1): its visible pixels."""
        kept = x.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, places(x.shape[2] // visible.shape[1]))
        # Channels last by its strides too: with others, (D, 1, D, 1), torch's batch norm gives false gradients on CPUs.
        return kept[None, :, None].permute(0, 3, 1, 2)

    def spread(kept):
        """The inverse of visible_of, with zeros at masked pixels."""
        side = math.isqrt(kept.shape[2] // cells)
        batch, height, width = len(visible), side * visible.shape[1], side * visible.shape[2]
        flat = kept.new_zeros(batch * height * width, kept.shape[1])
        flat = flat.index_copy(0, places(side), kept.permute(0, 2, 3, 1).flatten(0, 2))
        return flat.view(batch, height, width, -1).permute(0, 3, 1, 2)

    stem = spread(F.relu(resnet.bn1(visible_of(resnet.conv1(image)))))
    kept = visible_of(resnet.maxpool(stem))
    x, stages = spread(kept), [stem]
    for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        for block in layer:
            if block.downsample is not None:
                conv, norm = block.downsample
                kept = norm(visible_of(conv(x[:, :, :: block.take_every, :: block.take_every])))
            x = spread(F.relu(block.bn1(visible_of(block.conv1(x)))))
            kept = F.relu(block.bn2(visible_of(block.conv2(x))) + kept)
            x = spread(kept)
        stages.append(x)
    return stages


def enlarge(values, times):
    """(..., h, w) -> (..., times h, times w), each value a square."""
    return values.repeat_interleave(times, dim=-2).repeat_interleave(times, dim=-1)


def token_grid(height, width):
    """Rows and columns of tokens of an image of height x width px."""
    if height % 32 or width % 32:
        raise ValueError(f"the image is {height} x {width} px; the masked autoencoder needs multiples of 32")
    return height // PATCH_PX, width // PATCH_PX


def patchify(image):
    """(B, K, H, W) -> (B, N, K * 256): patches row by row; within a patch: band, row, column."""
    return F.pixel_unshuffle(image, PATCH_PX).flatten(2).transpose(1, 2)


def unpatchify(patches, height, width):
    """The inverse of patchify: (B, N, K * 256) -> (B, K, H, W)."""
    rows, columns = token_grid(height, width)
    return F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (rows, columns)), PATCH_PX)


def patch_statistics(patches):
    """Mean and standard deviation of each patch: twice (B, N, 1)."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + 1e-6).sqrt()  # a flat patch has a target of zeros


def blank(image, mask):
    """The image with its masked patches set to zero, the band mean. mask: (B, N) bool."""
    pixels = enlarge(mask.unflatten(1, (1, *token_grid(*image.shape[-2:]))), PATCH_PX)
    return image.masked_fill(pixels, 0.0)


def reconstruct(image, predicted, mask, targets="patch"):
    """A picture: visible patches as they are, masked ones as predicted; by patch with the image's own mean and standard
    deviation, which are not predicted."""
    patches = patchify(image)
    if targets == "patch":
        mean, std = patch_statistics(patches)
        predicted = predicted * std + mean
    return unpatchify(torch.where(mask[..., None], predicted, patches), *image.shape[-2:])
