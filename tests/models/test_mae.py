import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.mae import MaskedAutoencoder, blank, masked_stages, patchify, reconstruct, token_grid, unpatchify
from models.vit import sincos_positions

# As configs/naip215/mae_masked.yaml.
WHOLE = {"mask_where": "layers", "stages": "all", "targets": "band"}


def tiny(**settings):
    torch.manual_seed(0)
    return MaskedAutoencoder(**{"bands": 3, "resnet_width": 8, "size": "tiny", **settings})


def draw(batch=2, bands=3, height=64, width=96):
    torch.manual_seed(1)
    rows, columns = token_grid(height, width)
    return torch.randn(batch, bands, height, width), torch.rand(batch, rows * columns)


def waves(count, size_px):
    """Waves of random direction: (B, 3, H, W), mean 0 and deviation 1 a band."""
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(torch.arange(size_px), torch.arange(size_px), indexing="ij")
    down, across, phase = torch.rand(3, count, 3, 1, 1, generator=generator)
    image = torch.sin(down * row + across * column + 6 * phase)
    return (image - image.mean((0, 2, 3), keepdim=True)) / image.std((0, 2, 3), keepdim=True)


@pytest.mark.parametrize("rows, columns, ratio, masked", [(4, 4, 0.75, 12), (4, 6, 0.6, 14), (32, 32, 0.75, 768)])
def test_exactly_the_asked_share_is_masked_in_each_image(rows, columns, ratio, masked):
    mae, tokens = tiny(mask_ratio=ratio), rows * columns
    for noise in (torch.rand(5, tokens), torch.zeros(5, tokens)):  # equal numbers too
        visible_index, mask, restore_index = mae.draw_mask(noise, rows, columns)
        assert mask.dtype == torch.bool and mask.sum(1).tolist() == [masked] * 5
        assert visible_index.shape == (5, tokens - masked)
        assert not mask.gather(1, visible_index).any()
        assert (restore_index.sort(dim=1).values == torch.arange(tokens)).all()
        assert (len(mask.unique(dim=0)) == 1) == (noise.max() == 0)  # each image has another draw


@pytest.mark.parametrize("height, width", [(64, 64), (64, 96), (256, 256)])
def test_with_mask_where_layers_whole_cells_of_32_px_are_masked(height, width):
    image, noise = draw(batch=5, height=height, width=width)
    for drawn in (noise, torch.zeros_like(noise)):
        mask = tiny(mask_where="layers")(image, drawn)[2].unflatten(1, token_grid(height, width))
        cells = mask[:, ::2, ::2]
        assert torch.equal(mask, cells.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2))
        assert cells.sum((1, 2)).tolist() == [round(0.75 * height * width / 32**2)] * 5


def test_patches_are_cut_row_by_row_and_put_back():
    image, _ = draw(bands=4)
    patches = patchify(image)
    assert patches.shape == (2, 4 * 6, 4 * 256)
    for row in range(4):
        for column in range(6):
            patch = image[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            assert torch.equal(patches[:, 6 * row + column], patch.flatten(1))
    assert torch.equal(unpatchify(patches, 64, 96), image)


def test_the_decoder_puts_each_visible_token_back_in_its_place():
    # With a decoder that mixes nothing, a change of one token is seen in its own patch and nowhere else.
    mae, (_, noise) = tiny(), draw()
    mae.decoder = nn.Identity()
    visible_index, mask, restore_index = mae.draw_mask(noise, 4, 6)
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
    visible_index, mask, _ = mae.draw_mask(noise, 4, 6)
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


def test_each_stage_adds_its_own_pixels_to_a_token():
    mae, (image, _) = tiny(stages="all").eval(), draw()
    mae.encoder = nn.Identity()
    all_index, mask = torch.arange(24).expand(2, 24), torch.zeros(2, 24, dtype=torch.bool)
    tokens = mae.encode(image, all_index, mask)
    stages, embeds = mae.resnet(image), mae.embed_stages
    mae.embed_stages = nn.ModuleList()
    expected = mae.encode(image, all_index, mask)[:, 6 * 1 + 2]
    for stage, embed, side in zip(stages, embeds, (8, 4, 2, 1), strict=False):
        pixels = stage[:, :, side : 2 * side, 2 * side : 3 * side].flatten(1)  # of token (1, 2)
        expected = expected + pixels @ embed.weight.flatten(1).T + embed.bias
    torch.testing.assert_close(tokens[:, 6 * 1 + 2], expected)


def encoded(mae, image, noise):
    visible_index, mask, _ = mae.draw_mask(noise, 4, 6)
    with torch.no_grad():
        tokens = mae.encode(image, visible_index, mask)
    return tokens, {name: value.clone() for name, value in mae.resnet.named_buffers()}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("value", [7.0, float("inf")])  # blanking replaces, it does not multiply
@pytest.mark.parametrize("settings", [{"mask_where": "pixels"}, WHOLE])
def test_masked_pixels_change_no_encoder_output_and_no_statistic(settings, training, value):
    image, noise = draw()
    patches = patchify(image)
    patches[0, tiny(**settings).draw_mask(noise, 4, 6)[1][0]] = value
    images = image, unpatchify(patches, 64, 96)
    (before, buffers), (after, others) = (encoded(tiny(**settings).train(training), i, noise) for i in images)
    assert torch.equal(before, after)
    assert all(torch.equal(buffers[name], others[name]) for name in buffers)
    assert (encoded(tiny(**settings).eval(), image.flip(1), noise)[0] - before).abs().amax(2).min() > 1e-3


def test_with_mask_where_tokens_masked_pixels_leak_into_each_visible_token():
    image, noise = draw()
    patches = patchify(image)
    patches[0, tiny().draw_mask(noise, 4, 6)[1][0]] = 7.0
    before, after = (encoded(tiny().eval(), i, noise)[0] for i in (image, unpatchify(patches, 64, 96)))
    assert (before[0] - after[0]).abs().amax(1).min() > 1e-3  # ResNet-18 sees some 400 px
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("training", [False, True])
def test_masked_stages_are_the_resnets_own_where_all_is_visible(training):
    ours, theirs, image = tiny().train(training).resnet, tiny().train(training).resnet, waves(4, 64)
    stages = masked_stages(ours, image, torch.ones(4, 2, 2, dtype=torch.bool))
    for value, expected in zip([*stages, *ours.buffers()], [*theirs(image), *theirs.buffers()], strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_the_stem_learns_the_statistics_of_whole_images():
    image, noise = waves(16, 128), torch.rand(16, 64, generator=torch.Generator().manual_seed(0))
    mask = tiny(mask_where="layers").draw_mask(noise, 8, 8)[1]
    masked, visible = blank(image, mask), ~mask.unflatten(1, (8, 8))[:, ::2, ::2]

    def variance(see):
        resnet = tiny().resnet
        see(resnet)
        return resnet.bn1.running_var.mean() - 0.9  # momentum 0.1, from 1

    whole = variance(lambda resnet: resnet(image))
    # On real NAIP images 0.995; the rest is the edge of cells.
    assert 0.9 < variance(lambda resnet: masked_stages(resnet, masked, visible)) / whole < 1.1
    assert variance(lambda resnet: resnet(masked)) / whole < 0.4  # with mask_where=pixels


def test_the_loss_equals_a_slow_loop_over_masked_patches():
    mae, (image, noise) = tiny(bands=4), draw(bands=4)
    loss, predicted, mask = mae(image, noise)
    errors = []
    for b, n in mask.nonzero().tolist():
        patch = image[b, :, 16 * (n // 6) :, 16 * (n % 6) :][:, :16, :16].flatten()
        target = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
        errors.append(((predicted[b, n] - target) ** 2).mean())
    assert len(errors) == 36
    torch.testing.assert_close(loss, torch.stack(errors).mean())
    assert torch.equal(mae.loss(image, predicted + 100 * ~mask[..., None], mask), loss)  # visible ones do not count
    assert mae(torch.full_like(image, 3.0), noise)[0].isfinite()  # flat patches


def test_targets_by_band_are_the_normalised_image():
    mae, (image, noise) = tiny(targets="band"), draw()
    loss, predicted, mask = mae(image, noise)
    expected = (unpatchify(predicted, 64, 96) - image)[blank(torch.ones_like(image), mask) == 0].square().mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("settings", [{}, WHOLE])
def test_the_loss_gives_every_weight_a_gradient_and_is_float32_and_near_the_same_under_autocast(settings):
    mae, (image, noise) = tiny(**settings), draw()
    plain = mae(image, noise)[0]
    plain.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in mae.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _, _ = mae(image, noise)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain, rtol=0.02, atol=0)


@pytest.mark.parametrize("settings", [{}, WHOLE])
def test_a_batch_of_a_few_images_is_overfitted(settings):
    mae, image = tiny(**settings), waves(4, 64)
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


def test_a_picture_keeps_visible_patches_and_puts_what_is_predicted_in_masked_ones():
    image, noise = draw(bands=4)
    image = 50 * image + 90
    mask, patches = tiny().draw_mask(noise, 4, 6)[1], patchify(image)
    normalised = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(reconstruct(image, normalised, mask), image)  # a perfect prediction
    assert torch.equal(reconstruct(image, patches, mask, "band"), image)
    means = patchify(reconstruct(image, torch.zeros_like(patches), mask))
    assert torch.equal(means[~mask], patches[~mask])
    torch.testing.assert_close(means[mask], patches[mask].mean(1, keepdim=True).expand(-1, 1024))


@pytest.mark.parametrize("bands, height, width", [(3, 32, 32), (4, 64, 96), (6, 32, 160)])
def test_any_band_count_and_any_multiple_of_32_pixels(bands, height, width):
    loss, predicted, mask = tiny(bands=bands)(*draw(bands=bands, height=height, width=width))
    tokens = (height // 16) * (width // 16)
    assert predicted.shape == (2, tokens, bands * 256) and mask.shape == (2, tokens) and torch.isfinite(loss)


def test_base_is_vit_base_with_a_decoder_of_8_blocks_of_512():
    with torch.device("meta"):
        mae = MaskedAutoencoder(3, 64, "base")
    for part, blocks, width in ((mae.encoder, 12, 768), (mae.decoder, 8, 512)):  # and the last normalisation
        assert sum(p.numel() for p in part.parameters()) == blocks * (12 * width**2 + 13 * width) + 2 * width


@pytest.mark.parametrize("height, width", [(64, 80), (100, 64), (16, 64)])
def test_a_size_that_is_no_multiple_of_32_is_named(height, width):
    with pytest.raises(ValueError, match=f"{height} x {width} px"):
        tiny()(torch.zeros(1, 3, height, width), torch.zeros(1, 4))
