"""A Run opened without a script, for tests."""

import torch

from config import SegmenterConfig
from runtime import distributed
from runtime.run import Run
from runtime.settings import config_from_flat, flatten


def opened(folder, step=0, *overrides):
    """A run of epochs of ten items, in one process; it goes on from `step` where that is not 0."""
    words = {key: int(value) for key, value in (override.split("=") for override in overrides)}
    config = config_from_flat(SegmenterConfig, {"run.dir": str(folder), **words})
    best = {"step": 0, "score": -1.0}
    if step:
        torch.save({"config": flatten(config), "data": {}, "step": step, "best": best}, folder / "last.pt")
    run = Run(config, distributed.start("cpu"))
    run.begin({}, {"data": {}}, items=10, best=best)
    return run
