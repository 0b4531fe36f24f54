"""Weights of a ResNet-18 from elsewhere: a file of pretraining or of torchvision, with other band counts."""

from pathlib import Path

import torch

from runtime import checkpoint
from runtime.errors import naming, require


def load_resnet18(encoder, state, source):
    """Load ResNet-18 weights under torchvision's names, adapting the first convolution to other band counts.

    returns: a line that counts matched and adapted tensors and names missing and unexpected ones
    raises:  Refused if a tensor has another shape, or none is there
    """
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    found, adapted = encoder.state_dict().keys() & state.keys(), []
    require(found, f"{source}: holds no weight of a ResNet-18 (torchvision's names, as conv1.weight)")
    with naming(source, "does not fit (is it a ResNet-18, and model.width the width it was trained with?): "):
        if "conv1.weight" in state and state["conv1.weight"].shape[1] != encoder.conv1.in_channels:
            state["conv1.weight"] = adapt_bands(state["conv1.weight"], encoder.conv1.in_channels)
            adapted = ["conv1.weight"]
        missing, unexpected = encoder.load_state_dict(state, strict=False)
    return (
        f"encoder starts from {source}: {len(found) - len(adapted)} tensors matched, {len(adapted)} adapted {adapted}, "
        f"{len(missing)} missing {missing}, {len(unexpected)} unexpected {unexpected}"
    )


def adapt_bands(weight, bands):
    """First convolution (D, 3, 7, 7) -> (D, bands, 7, 7): bands in common are kept, further ones start as the mean
    band, and the sum is scaled so that its size stays [paper silent; ours]."""
    before = weight.shape[1]
    mean = weight.mean(dim=1, keepdim=True)
    adapted = torch.cat([weight[:, :bands], mean.expand(-1, max(0, bands - before), -1, -1)], dim=1)
    return adapted * (before / bands)


def imagenet():
    from torchvision.models import ResNet18_Weights  # 1.3 s of an EPYC's core, which other starts do not pay

    with naming("model.init=imagenet: without internet access, set model.init to the path of resnet18-f37072fd.pth"):
        return ResNet18_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True)


def resnet18_file(path, asked, others):
    """The weights of a file. asked: how an error names it; others: what may stand in its place"""
    require(Path(path).is_file(), f"{asked}: no such file; {others}")
    return checkpoint.load(path)
