"""A trained segmenter from its checkpoint: what evaluate.py scores and predict.py maps with."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from config import SegmenterConfig
from data.manifest import require_facts
from data.taxonomy import taxonomy_from_dict
from data.transforms import normalize
from models import UNet, build_segmenter
from models.observation import Observation
from models.observation_table import from_plain
from models.posterior import posterior
from runtime.checkpoint import load, refusing
from runtime.errors import Refused
from runtime.settings import config_from_flat


@dataclass(frozen=True)
class Trained:
    """name: the row's name in tables; facts: what the checkpoint says of its data, as data.manifest wrote it (with
    `range` where its images were floats or signed);
    observation: what coarse labels say of their cells, of rows that were trained by it, else None."""

    name: str
    facts: dict
    segmenter: UNet
    mean: torch.Tensor
    std: torch.Tensor
    observation: Observation | None = None

    def __call__(self, images):
        """(B, K, H, W) stored pixels -> (B, C, H, W) logits, by the checkpoint's own band statistics."""
        return self.segmenter(normalize(images, self.mean, self.std))

    def informed(self, logits, coarse, cell_px, void=None):
        """The logits in the light of the coarse labels over them.

        coarse: {"labels", "to_cell"} as data.samples.stack_cells has it; cell_px, void: of models.posterior
        """
        return posterior(self.observation, logits, coarse["labels"], coarse["to_cell"], cell_px, void)

    def coarse_labels(self):
        """{native code: label of the observation model, or IGNORE} of the coarse source that it was trained with."""
        return self.observation.labels(taxonomy_from_dict({"high": {}, **self.facts}, self.name).low)[0]

    def require_observation(self, path):
        """raises: Refused where there is none"""
        if self.observation is None:
            raise Refused(
                f"{path}: knows nothing of coarse labels, and so makes no use of --coarse; it would have been trained "
                "with supervision.aggregate=observation"
            )


def checkpoint_path(path):
    """A run's folder stands for its best.pt."""
    return Path(path) / "best.pt" if Path(path).is_dir() else Path(path)


def told_apart(methods, files):
    """The same Trained; of those of one name each with as much of its folder's path, or its file's, as tells it from
    the others."""
    named = list(methods)
    for name in {method.name for method in methods}:
        same = [i for i, method in enumerate(methods) if method.name == name]
        paths = [files[i].resolve() for i in same]
        folders = [path.parent for path in paths]
        paths = folders if len(set(folders)) == len(same) else paths
        for depth in range(1, max(len(path.parts) for path in paths)):
            tails = ["/".join(path.parts[-depth:]) for path in paths]
            if len(set(tails)) == len(set(paths)):
                break
        if len(same) > 1:
            for i, tail in zip(same, tails, strict=True):
                named[i] = replace(methods[i], name=f"{name} ({tail})")
    return named


def load_trained(path, device):
    """-> Trained, in eval mode on the device; of last.pt, the averaged weights where the run kept an average.

    raises: Refused, one line, for anything but a checkpoint of train_seg.py
    """
    state = load(path)
    with refusing(path, "train_seg.py"):
        # The adversary made no part of the network, and its settings have changed since the first checkpoints.
        settings = {key: value for key, value in state["config"].items() if not key.startswith("adversarial.")}
        try:
            config = config_from_flat(SegmenterConfig, settings)
        except Refused as error:  # it names a setting, and not this file
            raise ValueError(error) from None
        facts = state["data"]
        weights, classes, bands = state["segmenter"], len(facts["classes"]), facts["bands"]
        require_facts(facts, path, ("name", "image_gsd", "scale", "bands", "dtype", "band_mean", "band_std"))
        taxonomy_from_dict({"classes": facts["classes"], "high": {}, "low": {}}, path)
        if config.train.average and "averaged" in state:  # of last.pt; best.pt holds the average alone
            start = "module."
            weights = {key[len(start) :]: w for key, w in state["averaged"].items() if key.startswith(start)}
        with torch.device("meta"):  # a config may claim any width: memory is that of the file's own tensors
            segmenter, _ = build_segmenter(config, bands, classes, facts["scale"], init="none")
        segmenter.load_state_dict(weights, assign=True)
        _require_weights(segmenter)
        mean, std = (torch.tensor(facts[key], dtype=torch.float32, device=device) for key in ("band_mean", "band_std"))
        observation = state.get("observation")
        if observation is not None:
            observation = from_plain(observation, [c["name"] for c in facts["classes"]], path).to(device)
    name = config.run.name or Path(path).parent.name
    return Trained(name, facts, segmenter.to(device).eval(), mean, std, observation)


def _require_weights(network):
    """Refuse tensors that take the network's names and shapes, but are no weights."""
    for name, tensor in network.state_dict().items():
        whole = tensor.layout == torch.strided and tensor.dtype in (torch.get_default_dtype(), torch.int64)
        if not whole or not tensor.isfinite().all():
            raise ValueError(f"{name} is not of finite {torch.get_default_dtype()} numbers")
