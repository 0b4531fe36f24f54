import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from models.mae import MaskedAutoencoder, blank, patch_statistics, patchify, reconstruct, token_grid, unpatchify
from models.unet import UNet
from models.vit import sincos_positions


def tiny(**settings):
    torch.manual_seed(0)
    return MaskedAutoencoder(**{"resnet_width": 8, "size": "tiny", **settings})


def draw(batch=2, bands=3, height=64, width=96):
    torch.manual_seed(1)
    rows, columns = token_grid(height, width)
    return torch.randn(batch, bands, height, width), torch.rand(batch, rows * columns)


def real_or_made_images(count, size_px):
    """Crops of Dubai, one from each tile, or waves of random direction: (B, 3, H, W), mean 0 and deviation 1 a band."""
    root = os.environ.get("LOW2HIGH_REAL")
    if root:
        paths = [sorted(Path(root, "dubai", f"Tile {i + 1}", "images").iterdir())[0] for i in range(count)]
        box = (200, 200, 200 + size_px, 200 + size_px)
        crops = np.stack([np.asarray(Image.open(path).convert("RGB").crop(box)) for path in paths])
        image = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    else:
        generator = torch.Generator().manual_seed(0)
        row, column = torch.meshgrid(torch.arange(size_px), torch.arange(size_px), indexing="ij")
        down, across, phase = torch.rand(3, count, 3, 1, 1, generator=generator)
        image = torch.sin(down * row + across * column + 6 * phase)
    return (image - image.mean((0, 2, 3), keepdim=True)) / image.std((0, 2, 3), keepdim=True)


# The mask


@pytest.mark.parametrize("tokens, ratio, masked", [(16, 0.75, 12), (24, 0.75, 18), (1024, 0.75, 768), (24, 0.6, 14)])
def test_exactly_the_asked_share_is_masked_in_each_image(tokens, ratio, masked):
    visible_index, mask, restore_index = MaskedAutoencoder.random_mask(torch.rand(5, tokens), ratio)
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == [masked] * 5
    assert visible_index.shape == (5, tokens - masked)
    assert not mask.gather(1, visible_index).any()
    assert (restore_index.sort(dim=1).values == torch.arange(tokens)).all()


def test_equal_noise_still_masks_the_asked_share():
    assert MaskedAutoencoder.random_mask(torch.zeros(2, 16), 0.75)[1].sum(1).tolist() == [12, 12]


def test_each_image_has_another_draw_and_the_same_noise_the_same():
    noise = torch.rand(6, 64)
    mask = MaskedAutoencoder.random_mask(noise, 0.75)[1]
    assert len({tuple(row.tolist()) for row in mask}) == 6
    assert torch.equal(mask, MaskedAutoencoder.random_mask(noise.clone(), 0.75)[1])
    assert torch.equal(mask[[3]], MaskedAutoencoder.random_mask(noise[[3]], 0.75)[1])


def test_every_token_is_masked_equally_often():
    mask = MaskedAutoencoder.random_mask(torch.rand(4000, 16, generator=torch.Generator().manual_seed(0)), 0.75)[1]
    assert (mask.float().mean(0) - 0.75).abs().max() < 0.03


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.9, 1.0])
def test_a_share_that_leaves_nothing_visible_or_nothing_masked_is_named(ratio):
    with pytest.raises(ValueError, match=str(ratio)):
        MaskedAutoencoder.random_mask(torch.rand(1, 4), ratio)


# The order


def test_patches_are_cut_row_by_row_and_put_back():
    image, _ = draw(bands=4)
    patches = patchify(image)
    assert patches.shape == (2, 4 * 6, 4 * 256)
    for row in range(4):
        for column in range(6):
            patch = image[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            assert torch.equal(patches[:, 6 * row + column], patch.flatten(1))
    assert torch.equal(unpatchify(patches, 64, 96), image)


def test_a_patch_that_moves_in_the_image_moves_in_the_patches():
    for start, end in [((0, 0), (3, 5)), ((1, 4), (2, 0))]:
        image = torch.zeros(1, 3, 64, 96)
        image[..., 16 * start[0] : 16 * start[0] + 16, 16 * start[1] : 16 * start[1] + 16] = 1
        moved = image.roll((16 * (end[0] - start[0]), 16 * (end[1] - start[1])), (2, 3))
        assert patchify(image)[0].sum(1).nonzero().tolist() == [[6 * start[0] + start[1]]]
        assert patchify(moved)[0].sum(1).nonzero().tolist() == [[6 * end[0] + end[1]]]


def test_the_decoder_puts_each_visible_token_back_in_its_place():
    # With a decoder that mixes nothing, a change of one token is seen in its own patch and nowhere else.
    mae, (_, noise) = tiny(), draw()
    mae.decoder = nn.Identity()
    visible_index, mask, restore_index = mae.random_mask(noise, 0.75)
    encoded = torch.randn(2, visible_index.shape[1], 128)
    before = mae.decode(encoded, restore_index, 4, 6)
    for position in range(visible_index.shape[1]):
        changed = encoded.clone()
        changed[:, position] += 1
        moved = (mae.decode(changed, restore_index, 4, 6) - before).abs().amax(2) > 1e-4
        assert torch.equal(moved, F.one_hot(visible_index[:, position], 24).bool())
    places = sincos_positions(4, 6, 64)[mask[0]]
    torch.testing.assert_close(before[0, mask[0]], mae.head(mae.mask_token + places))
    mae.mask_token.data += 1
    assert torch.equal((mae.decode(encoded, restore_index, 4, 6) - before).abs().amax(2) > 1e-4, mask)


def test_the_encoder_reads_visible_tokens_at_their_places():
    # Without mixing, every token is the 1x1 convolution of the upsampled feature map at its place, plus its position.
    mae, (image, noise) = tiny().eval(), draw()
    mae.encoder = nn.Identity()
    all_index = torch.arange(24).expand(2, 24)
    visible_index, mask, _ = mae.random_mask(noise, 0.75)
    tokens = mae.encode(image, all_index, mask)
    encoded = mae.encode(image, visible_index, mask)
    for b in range(2):
        assert torch.equal(encoded[b], tokens[b, visible_index[b]])
    features = mae.resnet(image)[-1]
    assert features.shape == (2, 64, 2, 3)
    # Token (1, 2) stands a quarter of a cell below row 0 and a quarter left of column 1.
    row = 0.75 * features[:, :, 0] + 0.25 * features[:, :, 1]
    column = 0.25 * row[:, :, 0] + 0.75 * row[:, :, 1]
    expected = column @ mae.embed.weight[:, :, 0, 0].T + mae.embed.bias + sincos_positions(4, 6, 128)[6 * 1 + 2]
    torch.testing.assert_close(tokens[:, 6 * 1 + 2], expected)


# What the encoder may see


def encoded_before_and_after_a_change(mask_where, training, value=7.0):
    """Encoder output before and after the masked patches of image 0 are set to a value; image 1 stays."""
    mae, (image, noise) = tiny(mask_where=mask_where).train(training), draw(batch=2)
    visible_index, mask, _ = mae.random_mask(noise, 0.75)
    patches = patchify(image)
    patches[0, mask[0]] = value
    changed = unpatchify(patches, 64, 96)
    with torch.no_grad():
        return mae.encode(image, visible_index, mask), mae.encode(changed, visible_index, mask)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("value", [7.0, float("inf")])  # blanking replaces, it does not multiply
def test_with_mask_where_pixels_masked_pixels_change_no_encoder_output(training, value):
    before, after = encoded_before_and_after_a_change("pixels", training, value)
    assert torch.equal(before, after)


def test_with_mask_where_tokens_masked_pixels_leak_into_visible_tokens():
    before, after = encoded_before_and_after_a_change("tokens", training=False)
    assert (before[0] - after[0]).abs().amax(1).min() > 1e-3  # into every token: ResNet-18 sees some 400 px
    assert torch.equal(before[1], after[1])


def test_with_mask_where_tokens_batch_norm_leaks_into_other_images_in_training():
    before, after = encoded_before_and_after_a_change("tokens", training=True)
    assert (before[1] - after[1]).abs().max() > 1e-3


def test_with_mask_where_pixels_visible_pixels_still_matter():
    mae, (image, noise) = tiny(mask_where="pixels").eval(), draw()
    visible_index, mask, _ = mae.random_mask(noise, 0.75)
    with torch.no_grad():
        before, after = (mae.encode(i, visible_index, mask) for i in (image, image.flip(1)))
    assert (before - after).abs().amax(2).min() > 1e-3


def test_blanking_zeroes_masked_patches_alone():
    image, noise = draw()
    mask = MaskedAutoencoder.random_mask(noise, 0.75)[1]
    assert torch.equal(patchify(blank(image, mask)), patchify(image) * ~mask[..., None])


# The loss


def test_the_loss_equals_a_slow_loop_over_masked_patches():
    mae, (image, noise) = tiny(bands=4), draw(bands=4)
    loss, predicted, mask = mae(image, noise)
    errors = []
    for b in range(2):
        for n in range(24):
            if mask[b, n]:
                patch = image[b, :, 16 * (n // 6) :, 16 * (n % 6) :][:, :16, :16].flatten()
                target = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
                errors.append(((predicted[b, n] - target) ** 2).mean())
    assert len(errors) == 36
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_predictions_of_visible_patches_do_not_count():
    mae, (image, noise) = tiny(), draw()
    loss, predicted, mask = mae(image, noise)
    elsewhere = predicted + 100 * ~mask[..., None]
    assert torch.equal(mae.loss(image, elsewhere, mask), loss)


def test_a_flat_patch_has_a_finite_loss():
    image, noise = draw()
    assert torch.isfinite(tiny()(torch.full_like(image, 3.0), noise)[0])


def test_every_weight_receives_a_gradient():
    mae, (image, noise) = tiny(), draw()
    mae(image, noise)[0].backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in mae.parameters())


def test_the_loss_is_float32_and_near_the_same_under_autocast():
    mae, (image, noise) = tiny(), draw()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = mae(image, noise)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, mae(image, noise)[0], rtol=0.02, atol=0)


@pytest.mark.parametrize("mask_where", ["tokens", "pixels"])
def test_a_batch_of_a_few_images_is_overfitted(mask_where):
    mae, image = tiny(mask_where=mask_where), real_or_made_images(4, 64)
    noise = torch.rand(4, 16, generator=torch.Generator().manual_seed(0))  # one draw: the task stays the same
    optimiser = torch.optim.AdamW(mae.parameters(), lr=2e-3, fused=True)
    losses = []
    for _ in range(150):
        loss = mae(image, noise)[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


# Pictures


def test_a_perfect_prediction_gives_the_image_back():
    image, noise = draw(bands=4)
    image = 50 * image + 90
    mask = MaskedAutoencoder.random_mask(noise, 0.75)[1]
    mean, std = patch_statistics(patchify(image))
    torch.testing.assert_close(reconstruct(image, (patchify(image) - mean) / std, mask), image)


def test_a_picture_keeps_visible_patches_and_gives_masked_ones_their_own_mean():
    image, noise = draw()
    mask = MaskedAutoencoder.random_mask(noise, 0.75)[1]
    patches = patchify(reconstruct(image, torch.zeros(2, 24, 768), mask))
    assert torch.equal(patches[~mask], patchify(image)[~mask])
    torch.testing.assert_close(patches[mask], patchify(image)[mask].mean(1, keepdim=True).expand(-1, 768))


# The ResNet-18 inside


def test_the_resnet_gives_the_same_feature_maps_in_torchvision_and_in_the_segmenter():
    mae, (image, noise) = tiny(resnet_width=64), draw()
    optimiser = torch.optim.SGD(mae.parameters(), lr=0.1)
    for _ in range(2):  # so that no weight and no running statistic stands at its start
        mae(image, noise)[0].backward()
        optimiser.step()
    weights = mae.resnet.state_dict()
    network, segmenter = torchvision.models.resnet18(), UNet()
    unmatched = network.load_state_dict(weights, strict=False)
    assert set(unmatched.missing_keys) == {"fc.weight", "fc.bias"} and not unmatched.unexpected_keys
    segmenter.encoder.load_state_dict(weights)
    nodes = ["relu", "layer1", "layer2", "layer3", "layer4"]
    with torch.no_grad():
        theirs = create_feature_extractor(network.eval(), nodes)(image)
        ours, segmenters = mae.eval().resnet(image), segmenter.eval().encoder(image)
    for node, ours_map, segmenters_map in zip(nodes, ours, segmenters, strict=True):
        torch.testing.assert_close(ours_map, theirs[node])
        assert torch.equal(ours_map, segmenters_map)


# Sizes and bad input


@pytest.mark.parametrize("bands, height, width", [(3, 32, 32), (4, 64, 96), (1, 128, 32), (6, 32, 160)])
def test_any_band_count_and_any_multiple_of_32_pixels(bands, height, width):
    image, noise = draw(bands=bands, height=height, width=width)
    loss, predicted, mask = tiny(bands=bands)(image, noise)
    tokens = (height // 16) * (width // 16)
    assert predicted.shape == (2, tokens, bands * 256) and mask.shape == (2, tokens)
    assert loss.shape == () and torch.isfinite(loss)


def test_base_is_vit_base_with_a_decoder_of_8_blocks_of_512():
    with torch.device("meta"):
        mae = MaskedAutoencoder(size="base")
    assert len(mae.encoder.blocks) == 12 and len(mae.decoder.blocks) == 8
    # 12 blocks of 12 D^2 + 13 D weights, and the last normalisation; likewise for the decoder
    assert sum(p.numel() for p in mae.encoder.parameters()) == 12 * (12 * 768**2 + 13 * 768) + 2 * 768
    assert sum(p.numel() for p in mae.decoder.parameters()) == 8 * (12 * 512**2 + 13 * 512) + 2 * 512


@pytest.mark.parametrize("height, width", [(64, 80), (100, 64), (16, 64), (0, 32)])
def test_a_size_that_is_no_multiple_of_32_is_named(height, width):
    with pytest.raises(ValueError, match=f"{height} x {width} px"):
        tiny()(torch.zeros(1, 3, height, width), torch.zeros(1, 4))


def test_noise_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"\(2, 16\).*\(2, 24\)"):
        tiny()(draw()[0], torch.rand(2, 16))


def test_an_unknown_size_or_place_of_the_mask_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="'huge'.*tiny, base"):
        MaskedAutoencoder(size="huge")
    with pytest.raises(ValueError, match="'image'.*tokens or pixels"):
        MaskedAutoencoder(mask_where="image")
