"""Processes: which rank this is, on which device, and sums over all of them. One process needs no process group."""

import contextlib
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from runtime.errors import Refused

CPU = Path("/proc/cpuinfo")  # of Linux, as are all systems on which torch finds AVX-512's bf16


@dataclass(frozen=True)
class Ranks:
    rank: int
    world: int
    device: torch.device

    @property
    def first(self):
        return self.rank == 0

    def sum(self, tensor):
        """The tensor summed over all ranks, in place, on this rank's device."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, number):
        """The largest of the ranks' whole numbers. They meet on the hosts, over gloo: no device is waited for."""
        if self.world == 1:
            return number
        numbers = torch.tensor(number)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def wrap(self, network):
        """The network whose backward sums gradients over ranks; itself where there is one rank.

        Batch norm's running statistics stay each rank's own, until `average_buffers`.
        """
        return DistributedDataParallel(network, broadcast_buffers=False) if self.world > 1 else network

    def synchronise(self, wrapped, last):
        """A context for one micro-batch: gradients are summed over ranks at the last one only."""
        return contextlib.nullcontext() if last or self.world == 1 else wrapped.no_sync()

    def average_buffers(self, module):
        """Make the module's floating-point buffers (batch norm's statistics) the mean over all ranks."""
        for buffer in module.buffers():
            if buffer.is_floating_point():
                self.sum(buffer).div_(self.world)

    def barrier(self):
        if self.world > 1:
            dist.barrier()


def start(device="auto", mps=True):
    """Join the process group that torchrun announces, if any -> Ranks. device: auto, cpu, cuda or mps.

    mps: whether auto may mean it; torch's grid_sample, which coarse labels at test need, has no border padding there
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":  # several processes reduce over NCCL or gloo, which do not know MPS
        device = "cuda" if available["cuda"] else "mps" if available["mps"] and mps and world == 1 else "cpu"
    if not available[device]:
        raise Refused(f"run.device={device}: there is no such device here; run.device=cpu always works")
    if device == "cuda":
        if local_rank >= (gpus := torch.cuda.device_count()):
            raise Refused(f"torchrun started process {local_rank + 1} on {gpus} GPUs; lower --nproc_per_node to {gpus}")
        torch.cuda.set_device(local_rank)
    device = torch.device(device, local_rank if device == "cuda" else None)
    if world > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=30))
    return Ranks(rank, world, device)


def mixed_precision(precision, device):
    """precision: auto, bf16, fp16 or off -> (the one that it means here, autocast context, gradient scaler)."""
    if precision == "auto":
        # GPUs before Ampere emulate bf16, and cuDNN does not convolve it.
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        fast = on_gpu or device.type == "cpu" and cpu_multiplies_bf16()
        precision = "bf16" if fast else "off"
    half = torch.float16 if precision == "fp16" else torch.bfloat16
    autocast = torch.autocast(device.type, half, enabled=precision != "off")
    return precision, autocast, torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def cpu_multiplies_bf16():
    """Whether steps are faster in bf16: those of CPUs with matrix units (AMX) take a third of the time, those of AMD's
    with AVX-512's bf16 half of it. Intel's without AMX take 1.4 to 1.6 times as long, and CPUs that emulate it ten."""
    avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # not every torch asks
    return torch.cpu._is_amx_tile_supported() or avx512() and "AuthenticAMD" in CPU.read_text()


def memory_format(channels_last, device, width):
    """channels_last: auto, true or false; width: of the ResNet-18 -> how networks and images lie in memory."""
    if channels_last == "auto":
        # On CPUs with AVX2 alone a step of a thin network is faster channels last (width 16, 256 px: contiguous takes
        # 1.2 times as long), one of width 64 slower (512 px: 0.7 times). On MPS the gradient of such convolutions took
        # up to 30 times as long in some releases (torch issue 193349).
        by_cpu = torch.backends.cpu.get_cpu_capability() == "AVX512" or width < 64
        channels_last = "true" if device.type == "cuda" or device.type == "cpu" and by_cpu else "false"
    return torch.channels_last if channels_last == "true" else torch.contiguous_format


def stop():
    if dist.is_initialized():
        dist.destroy_process_group()
