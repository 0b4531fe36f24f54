import pytest
import torch

from runtime import distributed
from runtime.distributed import memory_format, mixed_precision


@pytest.mark.parametrize("asked, units, maker, precision", [
    ("auto", "amx_tile", "GenuineIntel", "bf16"), ("auto", "avx512_bf16", "AuthenticAMD", "bf16"),
    ("auto", "avx512_bf16", "GenuineIntel", "off"), ("auto", "none", "AuthenticAMD", "off"),
    ("bf16", "none", "GenuineIntel", "bf16")])  # fmt: skip
def test_auto_means_bf16_on_a_processor_that_is_faster_by_it(monkeypatch, tmp_path, asked, units, maker, precision):
    monkeypatch.setattr(distributed, "CPU", tmp_path / "cpuinfo")
    distributed.CPU.write_text(f"vendor_id\t: {maker}\n")
    for unit in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{unit}_supported", lambda unit=unit: unit == units, raising=False)
    own = maker == "AuthenticAMD"  # a GPU that has it, or one that emulates it
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: own or including_emulation)
    assert mixed_precision(asked, torch.device("cuda"))[0] == ("bf16" if own or asked == "bf16" else "off")
    named, autocast, scaler = mixed_precision(asked, torch.device("cpu"))
    with autocast:
        made = torch.ones(2, 2) @ torch.ones(2, 2)
    assert named == precision and not scaler.is_enabled()
    assert made.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


@pytest.mark.parametrize("device, capability, width, last", [
    ("cuda", "AVX2", 64, True), ("cpu", "AVX512", 64, True), ("cpu", "AVX2", 16, True), ("cpu", "AVX2", 64, False),
    ("mps", "DEFAULT", 16, False)])  # fmt: skip
def test_auto_takes_the_layout_that_is_faster_and_words_decide_otherwise(monkeypatch, device, capability, width, last):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    formats = {True: torch.channels_last, False: torch.contiguous_format}
    assert memory_format("auto", torch.device(device), width) == formats[last]
    for word, asked in (("true", True), ("false", False)):
        assert memory_format(word, torch.device(device), width) == formats[asked]
