import pytest
import torch

from runtime.distributed import mixed_precision


@pytest.mark.parametrize(("matrix_units", "precision"), [(True, "bf16"), (False, "off")])
def test_auto_means_bf16_on_a_cpu_where_it_has_matrix_units_for_it(monkeypatch, matrix_units, precision):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrix_units)
    named, autocast, scaler = mixed_precision("auto", torch.device("cpu"))
    with autocast:
        made = torch.ones(2, 2) @ torch.ones(2, 2)
    assert named == precision and not scaler.is_enabled()
    assert made.dtype == (torch.bfloat16 if matrix_units else torch.float32)
