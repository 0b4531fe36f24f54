import pytest
import torch

from runtime.distributed import memory_format, mixed_precision


@pytest.mark.parametrize(("units", "precision"), [("amx_tile", "bf16"), ("avx512_bf16", "bf16"), ("none", "off")])
def test_auto_means_bf16_on_a_cpu_that_multiplies_it(monkeypatch, units, precision):
    for unit in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{unit}_supported", lambda unit=unit: unit == units, raising=False)
    named, autocast, scaler = mixed_precision("auto", torch.device("cpu"))
    with autocast:
        made = torch.ones(2, 2) @ torch.ones(2, 2)
    assert named == precision and not scaler.is_enabled()
    assert made.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_a_half_precision_that_the_cpu_emulates_is_said_to_be_slow(monkeypatch):
    for unit in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{unit}_supported", lambda: False, raising=False)
    named, autocast, _ = mixed_precision("bf16", torch.device("cpu"))
    with autocast:
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert named.startswith("bf16 (emulated") and "auto" in named
    assert mixed_precision("off", torch.device("cpu"))[0] == "off"


@pytest.mark.parametrize("device, capability, width, last", [
    ("cuda", "AVX2", 64, True), ("cpu", "AVX512", 64, True), ("cpu", "AVX2", 16, True), ("cpu", "AVX2", 64, False),
    ("mps", "DEFAULT", 16, False)])  # fmt: skip
def test_auto_takes_the_layout_that_is_faster_and_words_decide_otherwise(monkeypatch, device, capability, width, last):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    formats = {True: torch.channels_last, False: torch.contiguous_format}
    assert memory_format("auto", torch.device(device), width) == formats[last]
    for word, asked in (("true", True), ("false", False)):
        assert memory_format(word, torch.device(device), width) == formats[asked]
