import pytest
import torch
import torch.nn.functional as F
import torchvision
from commands import run_script

from models.pretrained import adapt_bands, load_resnet18
from models.resnet import ResNet18
from models.unet import Double, UNet


def test_resnet_gives_torchvisions_outputs_for_the_same_weights():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    ours = ResNet18().eval()
    report = load_resnet18(ours, theirs.state_dict(), "torchvision")
    assert "0 missing" in report and "0 unexpected" in report and "0 adapted" in report  # so names move both ways
    x = torch.randn(2, 3, 70, 96)
    stem = theirs.relu(theirs.bn1(theirs.conv1(x)))
    layer1 = theirs.layer1(theirs.maxpool(stem))
    expected = [stem, layer1]
    for layer in (theirs.layer2, theirs.layer3, theirs.layer4):
        expected.append(layer(expected[-1]))
    for mine, other in zip(ours(x), expected, strict=True):
        assert torch.equal(mine, other)


THIN = """
import torch
from models.unet import UNet
for width in (2, 4, 8):
    network = UNet(4, 4, width).to(memory_format=torch.channels_last)
    for px in (64, 64, 256, 256):
        images = torch.randn(4, 4, px, px).contiguous(memory_format=torch.channels_last)
        network(images).square().mean().backward()
"""


def test_thin_networks_train_where_their_channels_lie_last():
    """With a strided shortcut the process is killed: of width 4 on CPUs with AVX2, of width 8 on those with AVX-512."""
    run_script("-c", THIN)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (10, 47), (128, 100)])
def test_logits_have_the_images_size(size):
    net = UNet(bands=4, classes=5, width=8)
    assert net(torch.randn(2, 4, *size)).shape == (2, 5, *size)


def test_an_image_is_seen_as_if_its_edge_went_on():
    torch.manual_seed(0)
    net = UNet(bands=3, width=8).eval()
    torch.nn.init.normal_(net.head.weight)
    image = torch.randn(1, 3, 50, 70)
    going_on = torch.cat([image, image[..., -1:].expand(-1, -1, -1, 26)], dim=3)
    going_on = torch.cat([going_on, going_on[:, :, -1:].expand(-1, -1, 14, -1)], dim=2)
    with torch.no_grad():
        assert torch.equal(net(image), net(going_on)[..., :50, :70])


@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_doubling_and_its_gradient_are_those_of_bilinear_interpolation(size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    doubled, expected = Double.apply(x), F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(doubled, expected)
    weights = torch.randn_like(doubled)
    mine, other = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (doubled, expected))
    assert torch.allclose(mine, other, atol=1e-12)


def test_logits_start_at_zero_or_as_torch_draws_the_last_layer():
    image, nets = torch.randn(1, 3, 64, 64), {}
    for head in ("zeros", "random"):
        torch.manual_seed(0)
        nets[head] = UNet(width=8, head=head)
    assert (nets["zeros"](image) == 0).all() and nets["random"](image).std() > 0.01
    bound = nets["random"].head.in_channels ** -0.5  # of nn.Conv2d's uniform draws
    assert 0.7 * bound < nets["random"].head.weight.abs().max() <= bound
    weights, others = (net.state_dict() for net in nets.values())
    assert all(torch.equal(weights[name], others[name]) for name in weights if not name.startswith("head."))


def test_bands_in_common_are_kept_and_the_size_of_the_sum_stays():
    weight = torch.randn(8, 3, 7, 7)
    four = adapt_bands(weight, 4)
    assert torch.allclose(four[:, :3], weight * 0.75)
    assert torch.allclose(four.sum(dim=1), weight.sum(dim=1), atol=1e-5)
    assert adapt_bands(weight, 1).shape == (8, 1, 7, 7)
