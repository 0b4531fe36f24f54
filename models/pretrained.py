"""Weights of a ResNet-18 from elsewhere: a file of pretraining or of torchvision, with other band counts."""

from pathlib import Path

import torch

from runtime import checkpoint
from runtime.errors import Refused


def load_resnet18(encoder, state, source):
    """Load ResNet-18 weights under torchvision's names, adapting the first convolution to other band counts.

    returns: a line that counts matched and adapted keys and names missing and unexpected ones
    raises:  Refused if a tensor has another shape
    """
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    own = encoder.state_dict()
    adapted = []
    first = state.get("conv1.weight")
    if first is not None and first.ndim == 4 and first.numel() and first.shape[1] != own["conv1.weight"].shape[1]:
        state["conv1.weight"] = adapt_bands(first, own["conv1.weight"].shape[1])
        adapted = ["conv1.weight"]
    for key in own.keys() & state.keys():
        if own[key].shape != state[key].shape:
            raise Refused(
                f"{source}: {key} has shape {tuple(state[key].shape)}, this network {tuple(own[key].shape)}; "
                f"model.width must be the width it was trained with"
            )
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if len(missing) == len(own):
        raise Refused(f"{source}: holds no weight of a ResNet-18 (torchvision's names, as conv1.weight)")
    encoder.load_state_dict(state, strict=False)
    matched = len(own) - len(missing) - len(adapted)
    return (
        f"encoder starts from {source}: {matched} tensors matched, {len(adapted)} adapted {adapted}, "
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
    from torchvision.models import ResNet18_Weights

    try:
        return ResNet18_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True)
    except Exception as error:  # no network, no disk, a broken download: the mend is the same
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise Refused(
            f"model.init=imagenet: torchvision could not fetch its weights ({reason}); "
            "download resnet18-f37072fd.pth where there is a network and give its path as model.init"
        ) from None


def resnet18_file(path, asked, others):
    """The weights of a file. asked: how an error names it; others: what may stand in its place"""
    if not Path(path).is_file():
        raise Refused(f"{asked}: no such file; {others}")
    state = checkpoint.load(path)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise Refused(f"{asked}: is no file of weights; train_mae.py writes one as resnet18.pt")
    return state
