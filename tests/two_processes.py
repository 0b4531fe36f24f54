"""Train in float64 with batch norm in eval mode: what the tests run on one and on two processes.

python -m tests.two_processes CONFIG.yaml [section.key=value ...]
"""

import sys

import torch

import train_mae
import train_seg
from config import PretrainConfig, SegmenterConfig
from models.mae import MaskedAutoencoder
from models.unet import UNet
from runtime import distributed
from runtime.settings import load_config


def norm_in_eval_mode(self, mode=True):
    torch.nn.Module.train(self, mode)
    for module in self.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return self


torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
UNet.train = MaskedAutoencoder.train = norm_in_eval_mode
path, *words = sys.argv[1:]
script, settings = (train_mae, PretrainConfig) if path.endswith("mae.yaml") else (train_seg, SegmenterConfig)
script.main(load_config(settings, path, words))
distributed.stop()
