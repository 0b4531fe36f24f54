"""Train in float64 with batch norm in eval mode: what test_train_seg.py runs on one and on two processes."""

import sys

import torch

import train_seg
from config import SegmenterConfig, load_config
from models.unet import UNet
from runtime import distributed


def norm_in_eval_mode(self, mode=True):
    torch.nn.Module.train(self, mode)
    for module in self.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return self


torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
UNet.train = norm_in_eval_mode
train_seg.main(load_config(SegmenterConfig, sys.argv[1], sys.argv[2:]))
distributed.stop()
