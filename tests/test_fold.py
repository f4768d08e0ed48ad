"""Folding: the logits stay, the norms go, and what must not be folded is left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segtool.config import Model, registry
from segtool.config.registry import Component
from segtool.models.fold import fold_norms
from segtool.models.segmenter import build_model

CONV = {"channels": [4, 6, 8]}
LARGE = {"vgg16_bn", "resnet34", "resnet50"}  # as the others, only slower
ENCODERS = [("conv", CONV), ("conv", {**CONV, "residual": True}), ("conv", {**CONV, "downsample": "stride"})]
ENCODERS += [(name, {}) for name in registry.names("encoder") if name != "conv" and name not in LARGE]


def network(encoder: Component, decoder: Component) -> Any:
    """A network in evaluation whose norms have seen data: none of them is the identity, nor nearly so."""
    torch.manual_seed(0)
    model = build_model(Model(encoder, decoder), 3).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


def num_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def logits(model: nn.Module, size: tuple[int, int] = (35, 50)) -> Tensor:
    with torch.no_grad():
        return model(torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("name", "options"), ENCODERS, ids=str)
@pytest.mark.parametrize("decoder", [Component("unet"), Component("fcn", {"skips": 1, "residual": True})], ids=str)
def test_every_encoder_gives_the_same_logits_without_its_norms(name, options, decoder):
    if name == "timm":
        pytest.importorskip("timm")
    model = network(Component(name, options), decoder)
    expected, before = logits(model).double(), num_norms(model)
    folded = fold_norms(model)
    left = num_norms(folded)
    # timm's strided convolutions, which pad as TensorFlow does, are of a class of their own.
    assert left < before / 3 if name == "timm" else left == 0
    scale = expected.abs().max()
    assert scale > 0
    assert (logits(folded) - expected).abs().max() < 1e-5 * scale


@pytest.mark.parametrize("upsample", registry.names("upsampler"))
def test_every_upsampler_gives_the_same_logits(upsample):
    model = network(Component("conv", CONV), Component("unet", {"upsample": upsample}))
    expected = logits(model)
    torch.testing.assert_close(logits(fold_norms(model)), expected, rtol=1e-5, atol=1e-5)


def test_valid_convolutions_are_folded_too():
    model = network(Component("conv", CONV), Component("unet", {"valid": True}))
    expected = logits(model)
    torch.testing.assert_close(logits(fold_norms(model)), expected, rtol=1e-5, atol=1e-5)
    assert num_norms(model) == 0


def test_a_folded_convolution_is_the_written_out_formula():
    model = network(Component("conv", CONV), Component("unet"))
    unit = copy.deepcopy(model.encoder.levels[0][0])
    folded = fold_norms(model).encoder.levels[0][0]
    norm = unit.norm
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(folded.conv.weight, unit.conv.weight * gain[:, None, None, None])
    torch.testing.assert_close(folded.conv.bias, norm.bias - norm.running_mean * gain)


class Net(nn.Module):
    """Two convolutions and a norm, as `way` puts them together."""

    stride, in_channels = 1, 3

    def __init__(self, way: Any) -> None:
        super().__init__()
        self.way = way
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def skip(net: Net, x: Tensor) -> Tensor:
    y = net.first(x)
    return net.norm(y) + y


def twice(net: Net, x: Tensor) -> Tensor:
    return net.norm(net.first(x)) + net.first(x.neg())


def shared_norm(net: Net, x: Tensor) -> Tensor:
    return net.norm(net.first(x)) + net.norm(net.second(x))


def activated(net: Net, x: Tensor) -> Tensor:
    return net.norm(net.first(x).relu())


def before(net: Net, x: Tensor) -> Tensor:
    return net.first(net.norm(x))


def out_of_order(net: Net, x: Tensor) -> Tensor:
    return net.first(net.norm(net.second(x)))  # the norm lies behind both, and follows the second only


@pytest.mark.parametrize("way", [skip, twice, shared_norm, activated, before])
def test_a_norm_is_left_where_something_else_reads_or_runs(way):
    torch.manual_seed(0)
    net: Any = Net(way).eval()
    expected = logits(net)
    assert num_norms(fold_norms(net)) == 1
    assert torch.equal(logits(net), expected)


def test_a_norm_is_folded_into_what_it_follows_and_not_into_its_neighbour():
    torch.manual_seed(0)
    net: Any = Net(out_of_order).eval()
    expected, first = logits(net), net.first.weight.clone()
    assert num_norms(fold_norms(net)) == 0
    torch.testing.assert_close(logits(net), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(net.first.weight, first)


def test_other_norms_stay_and_a_network_without_norms_is_left():
    for norm in ("group", "none"):
        model = network(Component("conv", {**CONV, "norm": norm}), Component("unet", {"norm": norm}))
        expected = logits(model)
        assert torch.equal(logits(fold_norms(model)), expected)


def test_weights_that_a_library_made_by_itself_are_not_scaled():
    class Squared(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return self._conv_forward(input, self.weight.square(), self.bias)

    net: Any = Net(lambda net, x: net.norm(net.first(x))).eval()
    net.first = Squared(3, 3, 1)
    expected = logits(net)
    assert num_norms(fold_norms(net)) == 1
    assert torch.equal(logits(net), expected)
