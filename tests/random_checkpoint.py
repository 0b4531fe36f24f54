"""A checkpoint of a segmenter with random weights, for tests that map and do not care how well."""

import torch

from config import SegmenterConfig
from data.manifest import Description
from data.taxonomy import Taxonomy
from models.unet import UNet
from runtime import checkpoint
from runtime.settings import config_from_flat, flatten

NAMES = ("water", "forest", "field", "impervious")
COLORS = ((10, 20, 200), (0, 100, 0), (200, 200, 80), (90, 90, 90))


def save_random_checkpoint(path, bands=3, dtype="uint8", width=8, seed=0, value_range=None):
    """Weights whose four classes all appear in a map of random pixels, trained on pixels of 1 m as it were."""
    torch.manual_seed(seed)
    segmenter = UNet(bands, len(NAMES), width)
    torch.nn.init.normal_(segmenter.head.weight, std=0.5)
    config = config_from_flat(SegmenterConfig, {"model.width": width, "run.name": "random"})
    table = dict(enumerate(range(len(NAMES))))
    taxonomy = Taxonomy(NAMES, COLORS, table, table)
    mean, std = (120.0,) * bands, (60.0,) * bands
    data = Description("made up", 1.0, 30.0, 30, 512, bands, dtype, mean, std, taxonomy, value_range).facts()
    checkpoint.save(path, {"config": flatten(config), "data": data, "segmenter": segmenter.state_dict()})
    return path
