import pytest
import torch

from maps.windows import Blend, blend_weights, probabilities, window_starts
from models.unet import UNet


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    segmenter = UNet(3, 4, 8).eval()
    torch.nn.init.normal_(segmenter.head.weight, std=0.5)
    return segmenter


def blended(network, image, window, overlap):
    """As predict.py does it, on an image in memory whose sides are multiples of 32."""
    rows, height = window_starts(image.shape[-2], window, overlap)
    cols, width = window_starts(image.shape[-1], window, overlap)
    blend, result = None, None
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            probs = network(image[..., row : row + height, col : col + width])[0]
            if blend is None:
                blend = Blend(len(probs), rows, cols, height, width, "cpu")
                result = torch.full((len(probs), *image.shape[-2:]), torch.nan)
            block = blend.add(i, j, probs.clone())
            result[:, row : row + block.shape[1], col : col + block.shape[2]] = block
    return result


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


@pytest.mark.parametrize(("window", "overlap"), [(256, 64), (64, 32), (96, 32), (512, 64)])
def test_windows_of_one_map_blend_to_this_map(window, overlap):
    whole = torch.rand(1, 3, 320, 480)
    assert torch.allclose(blended(lambda x: x, whole, window, overlap), whole[0], atol=1e-6)


def test_blended_maps_step_no_more_at_window_borders_than_elsewhere(segmenter):
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 20, 74), scale_factor=16) * 2 - 1
    with torch.inference_mode():
        smooth, cut = (blended(lambda x: probabilities(segmenter(x)), image, 256, overlap) for overlap in (128, 0))

    def worst_step(probs, overlap):  # at borders, and elsewhere
        starts, size = window_starts(1184, 256, overlap)
        steps = probs.diff(dim=2).abs().mean(dim=(0, 1))  # into columns 1, 2, ...
        borders = {x for start in starts for x in (start, start + size)}
        at_borders = torch.tensor([x in borders for x in range(1, 1184)])
        return steps[at_borders].max(), steps[~at_borders].max()

    at_borders, elsewhere = worst_step(smooth, 128)
    assert at_borders <= elsewhere
    at_borders, elsewhere = worst_step(cut, 0)
    assert at_borders > elsewhere
