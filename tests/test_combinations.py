"""Every encoder with every decoder and upsampler, and the options with each other: trained, or refused with reason."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from itertools import combinations, product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtool.config import Model, registry
from segtool.config.registry import Component
from segtool.errors import ConfigError, Problem
from segtool.models.encoders import Encoder
from segtool.models.segmenter import Segmenter, build_model, deep_supervision_weights, verify

UPSAMPLERS = registry.names("upsampler")
DECODERS = [("unet", {})] + [("fcn", {"skips": skips}) for skips in (0, 1, 2)]
CONV = {"channels": [4, 6, 8]}
EVERY = list(product(DECODERS, UPSAMPLERS))
EACH = [(DECODERS[number % len(DECODERS)], upsample) for number, upsample in enumerate(UPSAMPLERS)]
"""Each decoder and each upsampler at least once. Of an encoder they know channels, strides and indices alone, and
test_models lays all of them on any strides; all on all backbones is left to the slow tests."""
SMALL = [("conv", {**CONV, "downsample": kind}) for kind in ("max", "avg", "stride")]
BACKBONES = [(name, {}) for name in registry.names("encoder") if name != "conv"]
ENCODERS = [pytest.param(*encoder, EVERY, id="-".join(map(str, encoder))) for encoder in SMALL]
ENCODERS += [pytest.param(*encoder, EACH, id=encoder[0]) for encoder in BACKBONES]
ENCODERS += [pytest.param(*encoder, EVERY, id=f"{encoder[0]}, all", marks=pytest.mark.slow) for encoder in BACKBONES]
UNPOOLABLE = {("conv", "max"), ("vgg16_bn", None)}
SIZE = (17, 31)  # 32x32 inside every network here


def train_two_steps(network: nn.Module, *, lr: float = 1e-3) -> None:
    """Makes two steps of SGD, and fails where a loss or gradient is not finite or none reaches the first layer."""
    images, target = torch.randn(2, 3, *SIZE), torch.randint(3, (2, *SIZE))
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    ends, reached = (next(network.encoder.parameters()), network.head.weight), [False, False]
    for _ in range(2):
        terms: Tensor | list[Tensor] = network(images)
        terms = terms if isinstance(terms, list) else [terms]
        assert all(term.shape == (2, 3, *SIZE) for term in terms)
        losses = [F.cross_entropy(term, target) for term in terms]
        loss = sum(w * one for w, one in zip(deep_supervision_weights(len(losses)), losses, strict=True))
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        reached = [before or bool(p.grad.any()) for before, p in zip(reached, ends, strict=True)]
        optimizer.step()
    assert all(reached)


def built(name: str, downsample: str | None) -> Encoder:
    """Returns a copy of an untrained encoder, since building a large one takes longer than training it."""
    return deepcopy(_built(name, downsample))


@cache
def _built(name: str, downsample: str | None) -> Encoder:
    options = {**CONV, "downsample": downsample} if downsample else {}
    return registry.build("encoder", Component(name, options), 3, path="model.encoder")


@pytest.mark.parametrize(("name", "options", "pairs"), ENCODERS)
def test_every_encoder_trains_with_every_decoder_and_upsampler_or_is_a_config_error(name, options, pairs):
    if name == "timm":
        pytest.importorskip("timm")
    kind = options.get("downsample")
    torch.manual_seed(0)
    for (decoder, settings), upsample in pairs:
        if upsample == "max_unpool" and (name, kind) not in UNPOOLABLE:
            model = Model(Component(name, options), Component(decoder, {"upsample": upsample, **settings}))
            with pytest.raises(ConfigError) as error:
                verify(model, 3)
            assert [problem.path for problem in error.value.details] == ["model.decoder.upsample"]
            continue
        encoder = built(name, kind)
        if upsample != "max_unpool" and name != "conv":  # as narrow as the test needs
            levels = len(encoder.channels) - (encoder.strides[0] == 1)
            settings = {**settings, "channels": [8] * levels}
        shape = (encoder.channels, encoder.strides, 3)
        component = Component(decoder, {"upsample": upsample, **settings})
        network = Segmenter(encoder, registry.build("decoder", component, *shape, path="model.decoder"), 3)
        train_two_steps(network.train())
        assert network.eval()(torch.randn(1, 3, 5, 3)).shape == (1, 3, 5, 3)


OPTIONS = {
    "residual": ({"residual": True}, {"residual": True}),
    "dropout": ({"dropout": 0.3}, {"dropout": 0.3}),
    "blocks": ({"blocks": [1, 3, 2]}, {"blocks": 1}),
    "channels": ({}, {"channels": [5, 7]}),
    "group": ({"norm": "group"}, {"norm": "group"}),
    "none": ({"norm": "none", "activation": "gelu"}, {"norm": "none"}),
    "avg": ({"downsample": "avg"}, {"upsample": "bilinear"}),
    "aux": ({}, {"aux": True}),
    "valid": ({}, {"valid": True}),
}
PAIRS = [pair for pair in combinations(OPTIONS, 2) if pair != ("group", "none")]


@pytest.mark.parametrize("decoder", registry.names("decoder"))
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_options_train_with_each_other_in_pairs(pair, decoder):
    if decoder != "unet" and "valid" in pair:
        pytest.skip("only unet has valid convolutions")
    encoder, settings = ({key: value for name in pair for key, value in OPTIONS[name][side].items()} for side in (0, 1))
    network = build_model(Model(Component("conv", {**CONV, **encoder}), Component(decoder, settings)), 3)
    train_two_steps(network, lr=0.05)  # a residual branch that starts at 0 lets little through in two steps
    for size in (SIZE, (1, 1)):
        assert network.eval()(torch.randn(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize(
    "options", [{}, {"aux": True}, {"residual": True, "dropout": 0.2}, {"channels": [8, 9, 10, 11, 12]}], ids=str
)
def test_the_image_is_the_finest_skip_where_the_encoder_starts_above_stride_1(options):
    encoder = built("mobilenet_v3_large", None)
    component = Component("unet", {"image_skip": True, "upsample": "nearest", **options})
    shape = (encoder.channels, encoder.strides, 3)
    decoder = registry.build("decoder", component, *shape, path="model.decoder")
    seen = []
    decoder.levels[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network = Segmenter(encoder, decoder, 3).train()
    seen.clear()
    train_two_steps(network)
    images = torch.randn(1, 3, *SIZE)
    network.eval()(images)
    torch.testing.assert_close(seen[-1][..., :17, :31][:, :3], images)


@pytest.mark.parametrize(
    ("encoder", "decoder", "path", "words"),
    [
        (("conv", {}), {"image_skip": True}, "model.decoder.image_skip", "has a map at stride 1"),
        (("resnet18", {}), {"valid": True}, "model.decoder.valid", "downsample: max"),
        (("conv", {"downsample": "stride"}), {"valid": True}, "model.decoder.valid", "downsample: max"),
        (("conv", {}), {"valid": True, "upsample": "max_unpool"}, "model.decoder.valid", "another upsample"),
        (("conv", {}), {"channels": [4]}, "model.decoder.channels", "expected 2 positive widths"),
        (("conv", {}), {"channels": [4, 0]}, "model.decoder.channels", "[4, 0]"),
        (("resnet18", {}), {"channels": [8] * 4}, "model.decoder.channels", "null is [32, 64, 64, 128, 256]"),
        (("conv", {}), {"channels": [4, 7], "upsample": "max_unpool"}, "model.decoder.channels", "[4, 6]"),
        (("conv", {"channels": [4, 6]}), {"aux": True}, "model.decoder.aux", "no level but the finest"),
        (("conv", {"blocks": [1, 2]}), {}, "model.encoder.blocks", "3, one for each"),
        (("conv", {"blocks": [1, 2, 0]}), {}, "model.encoder.blocks", "at least 1"),
        (("conv", {"dropout": 1.0}), {}, "model.encoder.dropout", "below 1"),
        (("conv", {}), {"dropout": -0.1}, "model.decoder.dropout", "from 0"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_a_config_error_with_the_remedy(encoder, decoder, path, words):
    name, options = encoder
    options = {**CONV, **options} if name == "conv" else options
    with pytest.raises(ConfigError) as error:
        verify(Model(Component(name, options), Component("unet", decoder)), 3)
    (problem,) = error.value.details
    assert isinstance(problem, Problem)
    assert problem.path == path
    assert words in problem.message
