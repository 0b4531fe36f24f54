import pytest
import torch

from maps.windows import Blend, blend_weights, window_starts


@pytest.mark.parametrize("side", [1, 31, 32, 40, 255, 256, 257, 300, 448, 449, 1000, 5000, 20000])
@pytest.mark.parametrize(("window", "overlap"), [(256, 64), (256, 128), (256, 0), (1024, 128)])
def test_windows_cover_a_side_and_overlap_as_asked(side, window, overlap):
    starts, size = window_starts(side, window, overlap)
    assert starts[0] == 0 and starts[-1] + size == -(-side // 32) * 32 and size <= window
    assert all(start % 32 == 0 for start in [*starts, size])
    assert all(0 < b - a <= size - overlap for a, b in zip(starts, starts[1:], strict=False))
    weights = blend_weights(starts, size)
    total = torch.zeros(starts[-1] + size)
    for start, line in zip(starts, weights, strict=True):
        total[start : start + size] += line
    assert weights.min() > 0 and torch.allclose(total, torch.ones_like(total))
    if overlap:  # no step where a window begins: its weight rises from next to nothing
        assert all(line[0] < 0.05 and line.diff().abs().max() < 0.1 for line in weights[1:])


@pytest.mark.parametrize(("window", "overlap"), [(256, 64), (64, 32), (96, 32), (512, 64)])
def test_windows_of_one_map_blend_to_this_map(window, overlap):
    whole = torch.rand(3, 320, 480)
    (rows, height), (cols, width) = (window_starts(side, window, overlap) for side in whole.shape[1:])
    blend, result = Blend(3, rows, cols, height, width, "cpu"), torch.full_like(whole, torch.nan)
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            block = blend.add(i, j, whole[:, row : row + height, col : col + width].clone())
            result[:, row : row + block.shape[1], col : col + block.shape[2]] = block
    assert torch.allclose(result, whole, atol=1e-6)
