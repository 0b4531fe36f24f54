"""A trained segmenter from its checkpoint: what evaluate.py scores and predict.py maps with."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from config import SegmenterConfig
from data.transforms import normalize
from models import UNet, build_segmenter
from runtime.checkpoint import load
from runtime.errors import naming
from runtime.settings import config_from_flat


@dataclass(frozen=True)
class Trained:
    """name: the row's name in tables; facts: what the checkpoint says of its data, as data.manifest wrote it."""

    name: str
    facts: dict
    segmenter: UNet
    mean: torch.Tensor
    std: torch.Tensor

    def __call__(self, images):
        """(B, K, H, W) stored pixels -> (B, C, H, W) logits, by the checkpoint's own band statistics."""
        return self.segmenter(normalize(images, self.mean, self.std))


def checkpoint_path(path):
    """A run's folder stands for its best.pt."""
    return Path(path) / "best.pt" if Path(path).is_dir() else Path(path)


def told_apart(methods, files):
    """The same Trained objects; where several share a name, each name gets its file appended."""
    names = [method.name for method in methods]
    return [
        replace(method, name=f"{method.name} ({file})") if names.count(method.name) > 1 else method
        for method, file in zip(methods, files, strict=True)
    ]


def load_trained(path, device):
    """-> Trained, in eval mode on the device; of last.pt, the averaged weights where the run kept an average.

    raises: Refused, one line, for anything but a checkpoint of train_seg.py
    """
    state = load(path)
    with naming(path, "is not a checkpoint of train_seg.py: "):
        config, facts = config_from_flat(SegmenterConfig, state["config"]), state["data"]
        weights, classes, bands = state["segmenter"], len(facts["classes"]), facts["bands"]
        if "averaged" in state:  # of last.pt; best.pt holds the average alone
            weights = {key.removeprefix("module."): w for key, w in state["averaged"].items() if key != "n_averaged"}
        segmenter, _ = build_segmenter(config, bands, classes, facts["scale"], init="none")
        segmenter.load_state_dict(weights)
        mean, std = (torch.tensor(facts[key], dtype=torch.float32, device=device) for key in ("band_mean", "band_std"))
    name = config.run.name or Path(os.path.abspath(path)).parent.name
    return Trained(name, facts, segmenter.to(device).eval(), mean, std)
