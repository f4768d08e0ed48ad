"""Networks: every combination that makes sense, at odd sizes, and their parts against slow and obvious versions."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtool.config import Model, registry
from segtool.config.registry import Component
from segtool.errors import ConfigError, Problem
from segtool.models.blocks import conv_block, conv_unit
from segtool.models.decoders import FCN, Decoder, UNet
from segtool.models.encoders import ConvEncoder, Encoder, Features
from segtool.models.segmenter import Segmenter, build_model, deep_supervision_weights, pad, verify
from segtool.models.trace import trace
from segtool.models.upsamplers import BedOfNails, Bilinear, MaxUnpool, Nearest, Transposed

SMALL = (4, 6, 8)
SIZES = [(37, 53), (1, 1), (5, 3)]
UPSAMPLES = [*registry.names("upsampler"), {"name": "transposed", "kernel": 3}, {"name": "transposed", "kernel": 4}]
DECODERS = [(name, {}) for name in registry.names("decoder")] + [("fcn", {"skips": skips}) for skips in (0, 1)]
VALID = ("unet", {"valid": True})


def conv_model(
    decoder="unet", upsample="transposed", *, downsample="max", channels=SMALL, encoder=None, **options
) -> Model:
    encoder = {"channels": list(channels), "downsample": downsample, **(encoder or {})}
    return Model(Component("conv", encoder), Component(decoder, {"upsample": upsample, **options}))


def problems(error: pytest.ExceptionInfo[ConfigError]) -> dict[str, str]:
    return {detail.path: detail.message for detail in error.value.details if isinstance(detail, Problem)}


@pytest.mark.parametrize("upsample", UPSAMPLES, ids=str)
@pytest.mark.parametrize(("decoder", "options"), DECODERS, ids=str)
@pytest.mark.parametrize("downsample", ["max", "avg", "stride"])
def test_every_combination_runs_forward_and_backward_at_odd_sizes_or_is_a_config_error(
    downsample, decoder, options, upsample
):
    model = conv_model(decoder, upsample, downsample=downsample, **options)
    if upsample == "max_unpool" and downsample != "max":
        with pytest.raises(ConfigError) as error:
            build_model(model, 5)
        assert "downsample: max" in problems(error)["model.decoder.upsample"]
        return
    network = build_model(model, 5)
    for height, width in SIZES:
        logits = network(torch.randn(2, 3, height, width))
        assert logits.shape == (2, 5, height, width)
        network.zero_grad()
        logits.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    for height, width in SIZES:
        assert network(torch.randn(1, 3, height, width)).shape == (1, 5, height, width)


@pytest.mark.parametrize("name", registry.names("encoder"))
def test_an_encoder_gives_maps_of_the_channels_and_strides_that_it_states(name):
    encoder = registry.build("encoder", Component(name), 3, path="model.encoder").eval()
    size = 2 * encoder.strides[-1]
    maps = encoder(torch.randn(1, 3, size, size)).maps
    expected = [(1, c, size // s, size // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected


class Strided(Encoder):
    """As a backbone does: starts at stride 2 and leaves one out."""

    channels = (4, 6)
    strides = (2, 8)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.body = nn.Conv2d(4, 6, 4, stride=4)

    def forward(self, images: Tensor) -> Features:
        stem = self.stem(images)
        return Features([stem, self.body(stem)], [])


@pytest.mark.parametrize("upsample", [name for name in registry.names("upsampler") if name != "max_unpool"])
@pytest.mark.parametrize(("decoder", "options"), [(UNet, {}), (FCN, {"skips": 0}), (FCN, {"skips": 1})])
def test_decoders_go_by_the_ratios_of_any_strides_and_end_at_stride_1(decoder, options, upsample):
    encoder = Strided()
    network = Segmenter(encoder, decoder((4, 6), (2, 8), upsample=Component(upsample), **options), 3).eval()
    assert network.stride == 8
    assert network(torch.randn(1, 3, 13, 21)).shape == (1, 3, 13, 21)


def test_max_unpooling_behind_an_encoder_without_indices_is_a_config_error():
    network = Segmenter(Strided(), UNet((4, 6), (2, 8), upsample=Component("max_unpool")), 3)
    with pytest.raises(ConfigError, match="max_unpool needs the indices"):
        network(torch.randn(1, 3, 16, 16))


def test_max_unpooling_with_indices_of_another_width_is_a_config_error_with_both_shapes():
    class Widening(ConvEncoder):
        def forward(self, images: Tensor) -> Features:
            features = super().forward(images)
            return Features(features.maps, [i.repeat(1, 2, 1, 1) for i in features.pool_indices])

    encoder = Widening(3, channels=(4, 6))
    network = Segmenter(encoder, UNet((4, 6), (1, 2), upsample=Component("max_unpool")), 3)
    with pytest.raises(ConfigError, match=r"\(4, 2, 2\) .* \(8, 2, 2\)"):
        network(torch.randn(1, 3, 4, 4))


def test_pooling_indices_are_made_only_where_the_decoder_unpools():
    assert build_model(conv_model(upsample="max_unpool"), 2).encoder(torch.randn(2, 3, 8, 8)).pool_indices
    assert not build_model(conv_model(upsample="nearest"), 2).encoder(torch.randn(2, 3, 8, 8)).pool_indices


def test_a_single_level_is_a_network_too():
    assert build_model(conv_model(channels=(4,)), 2)(torch.randn(2, 3, 3, 5)).shape == (2, 2, 3, 5)


@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "leaky_relu", "gelu", "silu"])
@pytest.mark.parametrize("decoder", registry.names("decoder"))
def test_every_activation_and_norm_predicts_from_1x1_up_and_starts_within_a_quarter_of_ln_k(decoder, activation, norm):
    torch.manual_seed(0)
    style = {"activation": activation, "norm": norm}
    network = build_model(conv_model(decoder, encoder=style, **style), 7)
    logits = network(torch.randn(2, 3, 16, 16))
    loss = F.cross_entropy(logits, torch.randint(7, (2, 16, 16)))
    assert loss.item() == pytest.approx(math.log(7), rel=0.25)
    loss.backward()
    assert network.eval()(torch.randn(1, 3, 1, 1)).isfinite().all()


def test_a_convolution_has_a_bias_exactly_where_no_norm_follows():
    assert conv_unit(3, 4, activation="relu", norm="batch")[0].bias is None
    assert conv_unit(3, 4, activation="relu", norm="none")[0].bias is not None


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "leaky_relu", "gelu", "silu"])
def test_initial_weights_keep_the_size_of_what_passes_through_without_norms(activation):
    torch.manual_seed(0)
    units = [conv_unit(64, 64, activation=activation, norm="none") for _ in range(4)]
    x = first = units[0].activation(torch.randn(1, 64, 24, 24))
    for unit in units:
        x = unit(x)
    assert 0.6 < (x[..., 6:-6, 6:-6].square().mean() / first.square().mean()).item() < 1.6


@pytest.mark.parametrize(("kernel", "ratio"), [(2, 2), (4, 2), (3, 3), (5, 2), (4, 4)])
def test_a_transposed_convolution_starts_with_the_size_of_its_input(kernel, ratio):
    torch.manual_seed(0)
    y = Transposed(256, 64, ratio, kernel=kernel)(torch.randn(1, 256, 20, 20))[..., 8:-8, 8:-8]
    assert 0.7 < y.square().mean().item() < 1.4


def test_the_parameters_of_a_unet_are_those_counted_by_hand():
    level_0 = (3 * 4 * 9 + 4 * 4 * 9) + 2 * (4 + 4)
    level_1 = (4 * 8 * 9 + 8 * 8 * 9) + 2 * (8 + 8)
    level_2 = (8 * 16 * 9 + 16 * 16 * 9) + 2 * (16 + 16)
    up_1 = (16 * 8 * 4 + 8) + (16 * 8 * 9 + 8 * 8 * 9) + 2 * (8 + 8)
    up_0 = (8 * 4 * 4 + 4) + (8 * 4 * 9 + 4 * 4 * 9) + 2 * (4 + 4)
    head = 4 * 3 + 3
    network = build_model(conv_model(channels=(4, 8, 16)), 3)
    assert sum(p.numel() for p in network.parameters()) == level_0 + level_1 + level_2 + up_1 + up_0 + head == 7559


def test_fcn_skips_are_the_deepest_encoder_maps_in_a_sum():
    """With all its weights but one projection's set to zero, FCN-16s passes on exactly that encoder map."""
    decoder = FCN((2, 3, 4, 5), (1, 2, 4, 8), skips=1, norm="none", upsample=Component("nearest"))
    assert [tuple(p.weight.shape) for p in decoder.skips] == [(4, 4, 1, 1)]
    seen = []
    decoder.levels[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = [torch.randn(1, c, 16 // s, 16 // s) for c, s in zip((2, 3, 4, 5), (1, 2, 4, 8), strict=True)]
    below = decoder.reduces[0](maps[3]).repeat_interleave(2, 2).repeat_interleave(2, 3)
    decoder(Features(maps, []))
    torch.testing.assert_close(seen[0], below + decoder.skips[0](maps[2]))


def test_a_unet_level_sees_the_encoders_map_and_the_upsampled_one_side_by_side():
    decoder = UNet((2, 3), (1, 2), upsample=Component("nearest"))
    seen = []
    decoder.levels[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = [torch.randn(2, 2, 4, 4), torch.randn(2, 3, 2, 2)]
    decoder(Features(maps, []))
    torch.testing.assert_close(seen[0], torch.cat([maps[0], decoder.ups[0](maps[1])], dim=1))


def test_overlapping_outputs_of_a_transposed_convolution_are_summed():
    up = Transposed(1, 1, 2, kernel=3, padding=1)
    nn.init.ones_(up.conv.weight)
    row = up(torch.tensor([[1.0, 10.0]]).view(1, 1, 1, 2))[0, 0, 0]
    assert row.tolist() == [1, 11, 10, 10]


@pytest.mark.parametrize(("kernel", "padding"), [(5, 0), (2, 1), (2, -1), (0, None), (4, 3)])
def test_a_kernel_and_padding_that_cannot_upsample_by_the_ratio_are_a_config_error_with_the_numbers(kernel, padding):
    with pytest.raises(ConfigError) as error:
        build_model(conv_model(upsample={"name": "transposed", "kernel": kernel, "padding": padding}), 2)
    ((path, message),) = problems(error).items()
    assert path.startswith("model.decoder.upsample.")
    assert str(kernel) in message


def test_bed_of_nails_by_hand():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    assert BedOfNails(1, 1, 2)(x)[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]


def test_nearest_by_hand():
    x = torch.tensor([[1.0, 2.0]]).view(1, 1, 1, 2)
    assert Nearest(1, 1, 3)(x)[0, 0].tolist() == [[1, 1, 1, 2, 2, 2]] * 3


def test_bilinear_by_hand():
    x = torch.tensor([[0.0, 4.0]]).view(1, 1, 1, 2)
    assert Bilinear(1, 1, 2)(x)[0, 0].tolist() == [[0, 1, 3, 4]] * 2


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_max_unpooling_puts_each_value_where_the_maximum_was(deterministic, layout):
    image = torch.tensor([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 0.0, 1.0]]).view(1, 1, 2, 4)
    image = torch.cat([image, -image], dim=1).contiguous(memory_format=layout)
    _, indices = F.max_pool2d(image, 2, return_indices=True)
    x = torch.tensor([7.0, 8.0, 9.0, 6.0]).view(1, 2, 1, 2).contiguous(memory_format=layout)
    torch.use_deterministic_algorithms(deterministic)
    try:
        y = MaxUnpool(2, 2, 2)(x, indices)
    finally:
        torch.use_deterministic_algorithms(False)
    assert y[0].tolist() == [[[0, 7, 8, 0], [0, 0, 0, 0]], [[9, 0, 0, 6], [0, 0, 0, 0]]]


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bed_of_nails", "max_unpool"])
def test_a_fixed_upsampler_has_a_1x1_convolution_only_where_the_width_changes(name):
    def weights(in_channels: int, out_channels: int) -> list[tuple[int, ...]]:
        up = registry.build("upsampler", Component(name), in_channels, out_channels, 2, path="")
        return [tuple(p.shape) for p in up.parameters()]

    assert weights(4, 4) == []
    assert weights(4, 6) == [(6, 4, 1, 1), (6,)]


@pytest.mark.parametrize(("height", "width"), [(5, 8), (1, 1), (3, 5), (16, 4), (4, 7)])
def test_padding_reflects_where_the_side_is_long_enough_and_repeats_where_not(height, width):
    images = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    padded = pad(images, (0, -height % 8), (0, -width % 8))
    assert padded.shape == (1, 1, -(-height // 8) * 8, -(-width // 8) * 8)

    def source(place: int, size: int) -> int:
        if place < size:
            return place
        return 2 * (size - 1) - place if -size % 8 < size else size - 1

    for y, x in product(range(padded.shape[2]), range(padded.shape[3])):
        assert padded[0, 0, y, x] == images[0, 0, source(y, height), source(x, width)]


@pytest.mark.parametrize("upsample", UPSAMPLES, ids=str)
@pytest.mark.parametrize(("decoder", "options"), [*DECODERS, VALID], ids=str)
def test_logits_do_not_change_with_the_image_outside_the_receptive_field(decoder, options, upsample):
    if "valid" in options and upsample == "max_unpool":
        pytest.skip("indices of a map that is cropped")
    network = build_model(conv_model(decoder, upsample, **options), 3).double().eval()
    reach = network.receptive_field // 2
    images = torch.randn(1, 3, 4, 131, dtype=torch.float64)
    before = network(images)
    for place in range(60, 64):
        outside = images.clone()
        outside[..., : place - reach] = torch.randn_like(outside[..., : place - reach])
        outside[..., place + reach + 1 :] = torch.randn_like(outside[..., place + reach + 1 :])
        torch.testing.assert_close(network(outside)[..., place], before[..., place], rtol=0, atol=1e-12)


@pytest.mark.parametrize("upsample", [up for up in UPSAMPLES if up != "max_unpool"], ids=str)
@pytest.mark.parametrize(("decoder", "options"), [*DECODERS, VALID], ids=str)
@pytest.mark.parametrize("downsample", ["avg", "stride"])
def test_the_traced_field_is_exactly_where_gradients_are_not_zero(downsample, decoder, options, upsample):
    if "valid" in options and downsample == "stride":
        pytest.skip("a convolution of stride 2 is padded")
    network = build_model(
        conv_model(decoder, upsample, downsample=downsample, encoder={"norm": "none"}, norm="none", **options), 1
    )
    for parameter in network.double().parameters():
        nn.init.constant_(parameter, 0.5)
    field = trace(network, (3, 4, 160), period=4)[-1].field
    assert field is not None
    images = torch.ones(1, 3, 4, 160, dtype=torch.float64, requires_grad=True)
    row = network(images)[0, 0].sum(dim=0)
    for phase in range(4):
        (gradient,) = torch.autograd.grad(row[80 + phase], images, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero()
        assert (seen.min() - 80, seen.max() - 80) == (field.low[phase], field.high[phase])
    assert network.receptive_field == 2 * field.reach + 1


@pytest.mark.parametrize("downsample", ["avg", "stride"])
def test_the_encoders_stride_and_field_are_those_of_its_gradients(downsample):
    encoder = ConvEncoder(1, channels=(2, 2, 2, 2), downsample=downsample, norm="none")
    for parameter in encoder.double().parameters():
        nn.init.constant_(parameter, 0.5)
    images = torch.ones(1, 1, 8, 256, dtype=torch.float64, requires_grad=True)
    row = encoder(images).maps[-1].sum(dim=(0, 1, 2))
    spans = []
    for place in (15, 16):
        (gradient,) = torch.autograd.grad(row[place], images, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero()
        spans.append((seen.min().item(), seen.max().item()))
    assert spans[1][0] - spans[0][0] == encoder.strides[-1] == 8
    classic, jump = 1, 1  # r += (k - 1) * jump
    for level in range(4):
        if level:
            classic += ((2 if downsample == "avg" else 3) - 1) * jump
            jump *= 2
        classic += 2 * 2 * jump
    assert spans[0][1] - spans[0][0] + 1 == classic


PARTS = [
    ({}, {}),
    ({"residual": True}, {"residual": True}),
    ({"residual": True, "norm": "none"}, {"residual": True, "norm": "none"}),
    ({}, {"valid": True}),
    ({"norm": "none"}, {"valid": True, "norm": "none"}),
    ({}, {"aux": True}),
]


@pytest.mark.parametrize(("encoder", "options"), PARTS, ids=str)
def test_every_head_starts_within_a_quarter_of_ln_k(encoder, options):
    torch.manual_seed(0)
    network = build_model(conv_model(encoder=encoder, **options), 7)
    images, target = torch.randn(2, 3, 16, 16), torch.randint(7, (2, 16, 16))
    logits = network(images)
    for one in logits if isinstance(logits, list) else [logits]:
        assert F.cross_entropy(one, target).item() == pytest.approx(math.log(7), rel=0.25)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_backbone_starts_within_a_quarter_of_ln_k_too(norm):
    torch.manual_seed(0)
    network = build_model(Model(Component("resnet18"), Component("unet", {"channels": [8] * 5, "norm": norm})), 7)
    loss = F.cross_entropy(network(torch.randn(2, 3, 48, 48)), torch.randint(7, (2, 48, 48)))
    assert loss.item() == pytest.approx(math.log(7), rel=0.25)


def test_a_residual_block_is_its_branch_plus_what_came_in_before_the_activation():
    torch.manual_seed(0)
    block = conv_block(3, 4, activation="relu", norm="batch", blocks=2, path="", residual=True).eval()
    (residual,) = block
    x = torch.randn(1, 3, 6, 7)
    first, second = residual.branch
    inner = F.conv2d(x, first.conv.weight, padding=1) / math.sqrt(1 + first.norm.eps)
    inner = F.conv2d(inner.clamp(min=0), second.conv.weight, padding=1) / math.sqrt(1 + second.norm.eps)
    shortcut = F.conv2d(x, residual.project.conv.weight) / math.sqrt(1 + residual.project.norm.eps)
    torch.testing.assert_close(block(x), (inner + shortcut).clamp(min=0))
    assert not list(
        conv_block(4, 4, activation="relu", norm="batch", blocks=1, path="", residual=True)[0].project.children()
    )


def test_residual_levels_without_norms_start_as_their_shortcuts():
    encoder = ConvEncoder(4, channels=(4, 4), downsample="avg", norm="none", residual=True)
    images = torch.randn(1, 4, 8, 8)
    maps = encoder(images).maps
    torch.testing.assert_close(maps[0], images.clamp(min=0))
    torch.testing.assert_close(maps[1], F.avg_pool2d(images.clamp(min=0), 2))


def test_blocks_may_differ_from_level_to_level():
    encoder = ConvEncoder(3, channels=SMALL, blocks=(1, 3, 2))
    assert [len(level) for level in encoder.levels] == [1, 3, 2]


def test_dropout_drops_whole_maps_below_the_finest_level_in_training_only():
    torch.manual_seed(0)
    encoder = ConvEncoder(3, channels=(64, 200), activation="sigmoid", norm="none", dropout=0.25)  # never 0 by itself
    decoder = UNet((64, 200, 20), (1, 2, 4), norm="none", activation="sigmoid", dropout=0.25)
    images = torch.randn(2, 3, 8, 8)
    finest, deepest = encoder(images).maps
    assert (finest != 0).all()
    dropped = (deepest == 0).flatten(2)
    assert torch.equal(dropped.all(2), dropped.any(2))
    assert 0.15 < dropped.float().mean().item() < 0.35
    assert [any(isinstance(m, nn.Dropout2d) for m in level.modules()) for level in decoder.levels] == [True, False]
    encoder.eval()
    assert torch.equal(encoder(images).maps[1], encoder(images).maps[1])
    assert (encoder(images).maps[1] != 0).all()


def test_no_dropout_is_no_module():
    assert not any(isinstance(m, nn.Dropout2d) for m in build_model(conv_model(), 3).modules())


def test_the_widths_of_a_decoder_are_the_encoders_or_those_that_are_given_finest_first():
    def widths(decoder: Decoder) -> list[int]:
        return [level[-1].conv.out_channels for level in decoder.levels][::-1]

    assert widths(UNet((4, 6, 8), (1, 2, 4))) == [4, 6]
    assert widths(UNet((4, 6, 8), (1, 2, 4), channels=(5, 7))) == [5, 7]
    assert widths(UNet((64, 64, 128), (2, 4, 8))) == [32, 64, 64]
    assert widths(FCN((20, 30, 40), (2, 4, 8))) == [16, 20, 30]
    decoder = FCN((4, 6, 8), (1, 2, 4), channels=(5, 7))
    assert widths(decoder) == [5, 7]
    assert decoder.out_channels == 5
    assert [tuple(skip.weight.shape[:2]) for skip in decoder.skips] == [(7, 6), (5, 4)]


def test_aux_supervises_all_levels_but_the_coarsest_two_of_the_network():
    def strides(levels: int) -> tuple[int, ...]:
        return UNet((4,) * levels, tuple(2**i for i in range(levels)), aux=True).aux_strides

    assert [strides(levels) for levels in (3, 4, 5)] == [(2,), (2,), (2, 4)]
    assert FCN((4,) * 5, (2, 4, 8, 16, 32), aux=True).aux_strides == (2, 4, 8)
    assert UNet((4,) * 3, (1, 2, 4)).aux_strides == ()


@pytest.mark.parametrize("decoder", registry.names("decoder"))
def test_aux_gives_a_list_in_training_and_the_same_logits_as_without_in_evaluation(decoder):
    torch.manual_seed(0)
    plain = build_model(conv_model(decoder, channels=(2, 3, 4, 5)), 3)
    network = build_model(conv_model(decoder, channels=(2, 3, 4, 5), aux=True), 3)
    images = torch.randn(2, 3, 13, 10)
    logits = network(images)
    assert isinstance(logits, list)
    assert [term.shape for term in logits] == [(2, 3, 13, 10)] * 2
    assert isinstance(network.eval()(images), Tensor)
    assert set(network.state_dict()) - set(plain.state_dict()) == {"aux_heads.0.weight", "aux_heads.0.bias"}
    plain.load_state_dict(network.state_dict(), strict=False)
    assert torch.equal(plain.eval()(images), network(images))


@pytest.mark.parametrize("options", [{}, {"valid": True}], ids=str)
def test_coarser_logits_are_enlarged_to_lie_on_the_pixels_that_they_see(options):
    """The middle of what a coarser logit depends on is its own pixel, within its stride."""
    network = build_model(
        conv_model(
            channels=(2,) * 4,
            downsample="avg",
            encoder={"norm": "none"},
            norm="none",
            aux=True,
            upsample="nearest",
            **options,
        ),
        1,
    )
    for parameter in network.double().parameters():
        nn.init.constant_(parameter, 0.5)
    images = torch.ones(1, 3, 8, 240, dtype=torch.float64, requires_grad=True)
    row = network(images)[1][0, 0].sum(dim=0)
    for place in range(120, 128):
        (gradient,) = torch.autograd.grad(row[place], images, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero()
        middle = (seen.min().item() + seen.max().item()) / 2
        assert abs(middle - place) <= 4


def test_a_valid_unet_has_the_sizes_of_the_paper():
    with torch.device("meta"):
        network = build_model(conv_model(channels=(2,) * 5, valid=True), 2)
        maps = network.encoder(torch.empty(2, 3, 572, 572))
        assert [x.shape[-1] for x in maps.maps] == [568, 280, 136, 64, 28]
        (finest,) = network.decoder(maps)
    assert finest.shape[-2:] == (388, 388)
    assert network.padding(388) == (92, 92)


@pytest.mark.parametrize("blocks", [1, [2, 1, 3]], ids=str)
@pytest.mark.parametrize("upsample", ["transposed", {"name": "transposed", "kernel": 3}, "bilinear"], ids=str)
def test_a_valid_unet_pools_even_sizes_and_gives_every_size_back(upsample, blocks):
    with torch.device("meta"):
        network = build_model(conv_model(upsample=upsample, valid=True, encoder={"blocks": blocks}), 2).eval()
        sizes: list[int] = []
        for down in network.encoder.downs:
            down.register_forward_pre_hook(lambda _, inputs: sizes.extend(inputs[0].shape[-2:]))
        for size in range(1, 20):
            assert network(torch.empty(1, 3, size, 29 - size)).shape[-2:] == (size, 29 - size)
    assert len(sizes) == 2 * 2 * 19
    assert not any(size % 2 for size in sizes)


def test_a_valid_unet_is_unpadded_convolutions_of_the_reflected_image():
    torch.manual_seed(0)
    network = build_model(
        conv_model(channels=(2, 3), encoder={"norm": "none", "blocks": 1}, norm="none", blocks=1, valid=True), 2
    ).eval()
    images = torch.randn(1, 3, 9, 12)
    rows = [abs(i) if i < 9 else 16 - i for i in range(-4, 14)]  # 4 = 1 + 2*1 + 1, and one more for even sides
    columns = [abs(i) if i < 12 else 22 - i for i in range(-4, 16)]
    x = images[:, :, rows][..., columns]
    (conv_0,), (conv_1,), (conv_2,) = (
        [m for m in level.modules() if isinstance(m, nn.Conv2d)]
        for level in (network.encoder.levels[0], network.encoder.levels[1], network.decoder.levels[0])
    )
    skip = F.conv2d(x, conv_0.weight, conv_0.bias).clamp(min=0)  # 16x18
    deep = F.conv2d(F.max_pool2d(skip, 2), conv_1.weight, conv_1.bias).clamp(min=0)  # 6x7
    up = F.conv_transpose2d(deep, network.decoder.ups[0].conv.weight, network.decoder.ups[0].conv.bias, stride=2)
    joined = torch.cat([skip[..., 2:-2, 2:-2], up], dim=1)  # 12x14
    last = F.conv2d(joined, conv_2.weight, conv_2.bias).clamp(min=0)  # 10x12
    torch.testing.assert_close(network(images), network.head(last)[..., :9, :12])


def test_a_crop_of_batch_norms_counts_the_deepest_map_of_a_valid_unet():
    network = verify(conv_model(valid=True), 3)
    sizes = []
    network.encoder.levels[-1].register_forward_hook(lambda *args: sizes.append(args[-1].shape[-1]))
    for size in range(1, 20):
        network.eval()(torch.empty(1, 3, size, size, device="meta"))
        assert sizes[-1] == network.deepest(size)


@pytest.mark.parametrize(
    "upsample", ["transposed", {"name": "transposed", "kernel": 4}, "nearest", "bilinear"], ids=str
)
def test_a_crop_of_a_valid_unet_has_the_logits_of_the_whole_image_given_its_surroundings(upsample):
    network = build_model(conv_model(upsample=upsample, valid=True), 3).double().eval()
    images = torch.randn(1, 3, 70, 90, dtype=torch.float64)
    whole = network(images)
    for bottom, right in ((40, 60), (70, 90)):
        (rows, above), (columns, beside) = network.places(24, bottom, 70), network.places(32, right, 90)
        assert min(above + beside) >= network.margin
        found = network(images[..., rows, :][..., columns], above, beside)
        torch.testing.assert_close(found, whole[..., 24:bottom, 32:right], rtol=0, atol=1e-12)
    reach = -(-(network.receptive_field // 2) // 4) * 4  # without context: far from the border of a crop on the stride
    crop = network(images[..., : 2 * reach + 4, : 2 * reach + 4])[..., reach, reach]
    torch.testing.assert_close(crop, whole[..., reach, reach], rtol=0, atol=1e-12)


@pytest.mark.parametrize("upsample", registry.names("upsampler"))
def test_an_image_has_the_same_logits_alone_as_in_a_batch(upsample):
    network = build_model(conv_model(upsample=upsample), 3).eval()
    images = torch.randn(3, 3, 11, 9)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("upsample", registry.names("upsampler"))
@pytest.mark.parametrize("decoder", registry.names("decoder"))
def test_logits_are_equal_in_channels_last(decoder, upsample):
    network = build_model(conv_model(decoder, upsample), 3).eval()
    images = torch.randn(2, 3, 21, 30)
    expected = network(images)
    found = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("upsample", registry.names("upsampler"))
def test_bf16_autocast_trains_every_upsampler(upsample):
    network = build_model(conv_model(upsample=upsample), 3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.randn(2, 3, 21, 30))
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("upsample", ["transposed", "bed_of_nails", "max_unpool"])
def test_the_network_is_one_graph_for_the_compiler(upsample):
    network = build_model(conv_model("fcn", upsample, channels=(2, 3), skips=1), 3).eval()
    images = torch.randn(1, 3, 7, 6)
    expected = network(images)
    keys = list(network.state_dict())
    network.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(network(images), expected)
    assert list(network.state_dict()) == keys


def test_the_weights_of_deep_supervision_halve_from_level_to_level_and_sum_to_1():
    assert deep_supervision_weights(1) == [1]
    assert deep_supervision_weights(3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def test_building_again_from_the_same_seed_gives_the_same_weights():
    model = conv_model(encoder={"dropout": 0.5, "residual": True}, dropout=0.5, aux=True)

    def weights(*, first_verified: bool) -> list[Tensor]:
        torch.manual_seed(3)
        if first_verified:
            verify(model, 3)  # draws nothing from the generator
        return [*build_model(model, 3).state_dict().values(), torch.rand(1)]

    assert all(map(torch.equal, weights(first_verified=True), weights(first_verified=False)))


def test_verify_takes_no_memory_for_a_network_that_would_not_fit():
    network = verify(conv_model(channels=(1024, 8192, 65536)), 3, crop=(64, 64))
    assert all(parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize(
    ("crop", "batch", "path"),
    [((8, 3), 8, "augment.crop"), ((4, 4), 1, "train.batch_size"), ((4, 4), 2, None), ((4, 5), 1, None)],
)
def test_a_crop_that_cannot_be_trained_on_is_a_config_error(crop, batch, path):
    if path is None:
        verify(conv_model(), 3, crop=crop, batch=batch)
        build_model(conv_model(), 3)(torch.randn(batch, 3, *crop))
        return
    with pytest.raises(ConfigError) as error:
        verify(conv_model(), 3, crop=crop, batch=batch)
    assert list(problems(error)) == [path]


def test_a_single_value_per_channel_is_fine_without_batch_norm():
    style = {"norm": "group"}
    verify(conv_model(encoder=style, **style), 3, crop=(4, 4), batch=1)
    build_model(conv_model(encoder=style, **style), 3)(torch.randn(1, 3, 4, 4)).sum().backward()


def test_problems_of_encoder_and_decoder_are_told_at_once():
    model = conv_model(channels=(), encoder={"chanels": 3}, skip=2, decoder="fcn")
    with pytest.raises(ConfigError) as error:
        build_model(model, 3)
    assert set(problems(error)) == {"model.encoder.chanels", "model.decoder.skip"}


def test_a_decoder_is_not_blamed_for_an_encoder_that_could_not_be_built():
    with pytest.raises(ConfigError) as error:
        build_model(Model(Component("resnet81"), Component("unet", {"channels": [8] * 5, "image_skip": True})), 3)
    assert set(problems(error)) == {"model.encoder"}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (conv_model(channels=()), "model.encoder.channels"),
        (conv_model(encoder={"blocks": "two"}), "model.encoder.blocks"),
        (conv_model(encoder={"residual": 1}), "model.encoder.residual"),
        (Model(Component("conv"), Component("unet", {"channels": "wide"})), "model.decoder.channels"),
        (conv_model(channels=(4, 0)), "model.encoder.channels"),
        (conv_model(channels=(4,) * 11), "model.encoder.channels"),
        (conv_model(encoder={"blocks": 0}), "model.encoder.blocks"),
        (conv_model(blocks=0), "model.decoder.blocks"),
        (conv_model("fcn", channels=(4, 8)), "model.decoder.skips"),
        (conv_model("fcn", skips=3), "model.decoder.skips"),
        (conv_model(upsample="bilinaer"), "model.decoder.upsample"),
        (conv_model(upsample={"name": "nearest", "kernel": 2}), "model.decoder.upsample.kernel"),
        (conv_model(upsample=3), "model.decoder.upsample"),
        (conv_model(downsample="min"), "model.encoder.downsample"),
    ],
)
def test_an_option_that_cannot_be_is_a_config_error_at_its_path(model, path):
    with pytest.raises(ConfigError) as error:
        build_model(model, 3)
    assert list(problems(error)) == [path]


@pytest.mark.parametrize("kind", ["encoder", "decoder", "upsampler"])
def test_every_option_of_a_component_is_documented(kind):
    for name in registry.names(kind):
        cls = registry.lookup(kind, name, path="")
        assert all(option.doc for option in registry.options(cls).values()), name
