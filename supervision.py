"""What a run of train_seg.py learns from: tiles, their labels, label maps from elsewhere; and what no step changes."""

from functools import partial
from pathlib import Path

import torch

from beyond.observed import observe
from data.samples import Exemplars, ScoringTiles, TrainingTiles
from data.tiles import TileSet
from runtime import distributed
from runtime.errors import Refused
from runtime.labels import IGNORE


class Supervision:
    """train, validation: samples of both splits; watched: the validation samples, each paired with an exemplar;
    observed: the model of labels in rows beyond the paper (beyond/observed.py), else None

    saved: the checkpoint that a run resumes from, or None
    """

    def __init__(self, config, saved):
        kind, min_coverage = config.supervision.labels, config.supervision.min_coverage
        places, needs = (config.data.regions, config.data.exclude_regions), ("high" if kind == "high" else "low",)
        training, validation = (TileSet(config.data.root, split, *places, needs) for split in ("train", "validation"))
        self.description = training.described()
        exemplars = open_exemplars(config, self.description) if config.adversarial.weight else None
        # None in all rows of the paper.
        others = partial(open_exemplars, config, self.description)
        self.observed = observe(config, (training, validation), others, saved)
        if self.observed is not None:
            training, validation = (tiles.relabelled(self.observed.model.labels) for tiles in (training, validation))
        self.train = TrainingTiles(
            training, kind, min_coverage, batch_size=config.train.batch_size, seed=config.run.seed,
            dihedral=config.data.dihedral, gain=config.data.gain, offset=config.data.offset, exemplars=exemplars,
        )  # fmt: skip
        self.validation = ScoringTiles(validation, kind, min_coverage)
        self.watched = ScoringTiles(validation, kind, min_coverage, exemplars)
        # Before the first step: without training labels nothing is learned, without validation labels no step is best.
        # The first tile mostly settles it.
        for split, samples in (("train", ScoringTiles(training, kind, min_coverage)), ("validation", self.validation)):
            if not any((samples[i]["labels"] != IGNORE).any() for i in range(len(samples))):
                raise Refused(
                    f"the {split} split has no usable label: either all are ignored, or no cell lies entirely in a "
                    "tile (supervision.min_coverage=0.5 also accepts cells that lie half in it)"
                )


def open_exemplars(config, description):
    """The label maps from elsewhere."""
    adversarial = config.adversarial
    root = Path(adversarial.exemplar_root or config.data.root)
    own = root.resolve() == Path(config.data.root).resolve()  # regions are names of this tile set
    regions = (config.data.regions, config.data.exclude_regions) if own else ((), ())
    shuffle_px = round(description.scale) if adversarial.control == "shuffled" else 0
    return Exemplars(root, description, adversarial.exemplars, config.run.seed, *regions, shuffle_px=shuffle_px)


class Task:
    """What no step changes, and both updates and the validation read.

    classes: their number; cell_px: n², the pixels of a whole cell; mean, std: of the bands, (K,), stored units
    observed: as in `Supervision`
    """

    def __init__(self, config, ranks, description, observed):
        self.config = config
        self.ranks = ranks
        self.classes = len(description.taxonomy.names)
        self.cell_px = description.scale**2
        # Pixels travel as they are stored, a quarter of the bytes; they are normalised where the network is.
        self.mean = torch.tensor(description.band_mean, device=ranks.device)
        self.std = torch.tensor(description.band_std, device=ranks.device)
        self.observed = observed and observed.to(ranks.device)
        self.memory_format = distributed.memory_format(config.train.channels_last, ranks.device, config.model.width)
        # One autocast and one gradient scaler, which do nothing where the precision is off.
        self.precision, self.autocast, self.scaler = distributed.mixed_precision(config.train.precision, ranks.device)
