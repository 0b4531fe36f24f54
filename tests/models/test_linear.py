import pytest
import torch
import torch.nn.functional as F

from models.linear import CHANNELS, RIDGE, Linear, Moments, feature_maps, mean_features, settle
from models.resnet import ResNet18


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return settle(ResNet18(3, 16), [torch.randn(2, 3, 64, 64) for _ in range(2)])


def upsampled_features(encoder, image):
    """Of an image whose sides are multiples of 32: (B, D, H, W)."""
    stages = [image, *encoder(image)]
    return torch.cat([F.interpolate(s, image.shape[-2:], mode="bilinear", align_corners=False) for s in stages], dim=1)


def test_means_of_regions_are_those_of_upsampled_features(encoder):
    image, index = torch.randn(2, 3, 64, 96), torch.randint(-1, 5, (2, 64, 96))
    with torch.no_grad():
        means, features = mean_features(feature_maps(encoder, image), index, 6), upsampled_features(encoder, image)
    assert means.shape == (2, 3 + 16 * 16, 6) and max(encoder.channels) > CHANNELS  # in parts
    for b in range(2):
        for r in range(5):
            assert torch.allclose(means[b, :, r], features[b][:, index[b] == r].mean(dim=1), atol=1e-5)
    assert (means[..., 5] == 0).all()


def test_moments_of_tiles_give_the_ridge_regression_of_all_samples():
    torch.manual_seed(0)
    x = torch.randn(2, 7, 30).double() * torch.logspace(-2, 2, 7)[:, None] + 5
    x[:, 4] = 3.0  # a feature that says nothing
    labels = torch.randint(0, 3, (2, 30))
    labels[0, :9] = 255
    moments = Moments(3)
    for one in (0, 1):
        moments.add(x[one : one + 1], labels[one : one + 1])
    for first, last in ((0, None), (2, 6)):
        weight, bias = moments.solve(first, last)
        samples, known = x[:, first:last].mT[labels != 255].double(), labels[labels != 255]
        standard = (samples - samples.mean(dim=0)) / samples.std(dim=0, correction=0).clamp(min=1e-6)
        targets = F.one_hot(known, 3).double()
        more = RIDGE**0.5 * len(known) ** 0.5 * torch.eye(standard.shape[1], dtype=torch.float64)  # as further samples
        left, right = torch.cat([standard, more]), torch.cat([targets - targets.mean(dim=0), torch.zeros(len(more), 3)])
        expected = standard @ torch.linalg.lstsq(left, right).solution + targets.mean(dim=0)
        assert torch.allclose(samples @ weight.T + bias, expected, atol=1e-8)


@pytest.mark.parametrize("size", [(64, 96), (50, 70)])
def test_the_classifier_is_linear_in_the_features_of_each_pixel(encoder, size):
    torch.manual_seed(0)
    weight, bias, image = torch.randn(4, 3 + 16 * 16), torch.randn(4), torch.randn(2, 3, *size)
    padded = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32), mode="replicate")
    with torch.no_grad():
        features = upsampled_features(encoder, padded)[..., : size[0], : size[1]]
        logits = Linear(encoder, weight, bias)(image)
    expected = torch.einsum("cd,bdhw->bchw", weight, features) + bias.view(-1, 1, 1)
    assert logits.shape[-2:] == size and torch.allclose(logits, expected, atol=1e-3)


def test_batch_norm_takes_the_mean_of_the_batches(encoder):
    batches = [torch.randn(2, 3, 64, 64) + shift for shift in (0.0, 3.0)]
    settled = settle(ResNet18(3, 4), iter(batches))
    firsts = [settled.conv1(images).transpose(0, 1).flatten(1) for images in batches]
    assert torch.allclose(settled.bn1.running_mean, sum(f.mean(dim=1) for f in firsts) / 2, atol=1e-5)
    assert torch.allclose(settled.bn1.running_var, sum(f.var(dim=1) for f in firsts) / 2, rtol=1e-4)
    assert not settled.training
    settle(ResNet18(3, 4), [torch.randn(1, 3, 32, 32)])  # one value a channel at its end
