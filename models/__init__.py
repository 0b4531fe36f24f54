"""Networks from a config and what the tile set says: the only place where `models/` sees settings."""

from models.discriminator import Discriminator
from models.mae import MaskedAutoencoder
from models.pretrained import imagenet, load_resnet18, resnet18_file
from models.unet import UNet


def build_segmenter(config, bands, classes, scale, init=None):
    """-> (UNet, a line that says how its ResNet-18 starts).

    config: config.SegmenterConfig; scale: n; init: in place of model.init, as "none" where a checkpoint follows
    """
    # The paper's sum to the letter, x = u: u becomes n² times as large, so that logits mean the same in every row.
    supervision = config.supervision
    literal = supervision.aggregate == "literal_sum" and supervision.labels == "low_regions"
    gain = float(scale) ** 2 if literal else 1.0
    segmenter, init = UNet(bands, classes, config.model.width, gain, config.model.head), init or config.model.init
    if init == "none":
        return segmenter, "encoder starts at random"
    if init == "imagenet":
        return segmenter, load_resnet18(segmenter.encoder, imagenet(), "torchvision's ImageNet weights")
    state = resnet18_file(init, f"model.init={init}", "none, imagenet or the path of a resnet18.pt")
    return segmenter, load_resnet18(segmenter.encoder, state, init)


__all__ = ["Discriminator", "MaskedAutoencoder", "UNet", "build_segmenter"]
