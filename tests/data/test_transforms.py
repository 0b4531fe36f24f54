import pytest
import torch

from data.transforms import normalize, normalize_rows


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_whole_rows_are_normalized_as_bands_are(bands, dtype):
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 200, (2, 5, 7, bands), generator=rng).to(dtype)
    mean, std = 100 * torch.rand(bands, generator=rng), 1 + torch.rand(bands, generator=rng)
    before = pixels.clone()
    found = normalize_rows(pixels, mean, std)
    assert torch.equal(found, normalize(pixels.permute(0, 3, 1, 2), mean, std)) and torch.equal(pixels, before)
    assert found.is_contiguous(memory_format=torch.channels_last)
    loop = [[(pixels[1, 2, 3, k].double() - mean[k]) / std[k] for k in range(bands)]]
    assert torch.allclose(found[1, :, 2, 3].double(), torch.tensor(loop).double())
