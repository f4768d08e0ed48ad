"""What `segtool inspect` says of a network, against the network itself and independent counts."""

from __future__ import annotations

import math

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from segtool import registry
from segtool.config import Model
from segtool.layers import describe, rows_table
from segtool.models.segmenter import Segmenter, build_model, verify
from segtool.registry import Component


def network(decoder="unet", upsample="transposed", downsample="max", **encoder) -> Segmenter:
    options = {"channels": [4, 6, 8], "downsample": downsample, **encoder}
    return build_model(Model(Component("conv", options), Component(decoder, {"upsample": upsample})), 3)


CASES = [(d, u, "max") for d in registry.names("decoder") for u in registry.names("upsampler")] + [
    ("unet", {"name": "transposed", "kernel": 5}, "avg"),
    ("fcn", {"name": "transposed", "kernel": 3}, "stride"),
]


@pytest.mark.parametrize(("decoder", "upsample", "downsample"), CASES, ids=str)
def test_every_formula_holds_and_gives_the_height_of_a_real_forward(decoder, upsample, downsample):
    model = network(decoder, upsample, downsample)
    summary = describe(model, 21, 30)
    outputs = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
    model(torch.randn(2, 3, 21, 30))
    for layer in summary.layers:
        left, _, right = layer.formula.partition(" = ")
        assert eval(left, {"floor": math.floor}) == int(right) == layer.height
        output = outputs[layer.name]
        output = output[0] if isinstance(output, tuple) else output  # pooling may return its indices too
        assert output.shape[1:] == (layer.channels, layer.height, layer.width)
    assert summary.padded == (24, 32)


@pytest.mark.parametrize(("decoder", "upsample", "downsample"), CASES, ids=str)
def test_parameters_and_multiply_adds_are_those_of_independent_counts(decoder, upsample, downsample):
    model = network(decoder, upsample, downsample)
    summary = describe(model, 24, 32)
    assert summary.parameters == sum(p.numel() for p in model.parameters())
    assert summary.parameters == sum(layer.parameters for layer in summary.layers)
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.randn(1, 3, 24, 32))
    assert summary.multiply_adds * 2 == counter.get_total_flops()
    assert summary.multiply_adds == sum(layer.multiply_adds for layer in summary.layers)


def test_strides_and_fields_of_the_plain_encoder_by_hand():
    rows = {layer.name: (layer.stride, layer.receptive_field) for layer in describe(network(), 32, 32).layers}
    assert rows["encoder.levels.0.1.conv"] == (1, 5)
    assert rows["encoder.downs.0"] == (2, 6)
    assert rows["encoder.levels.1.1.conv"] == (2, 14)
    assert rows["encoder.levels.2.1.conv"] == (4, 32)
    assert rows["decoder.ups.0.conv"] == (2, 32)
    assert rows["head"][0] == 1


def test_describing_leaves_the_network_as_it_was():
    model = network(upsample="max_unpool")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    describe(model, 9, 9)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_network_that_was_never_built_is_described_too():
    model = Model(Component("conv", {"channels": [1000, 20000, 40000]}))
    assert describe(verify(model, 3), 1000, 1000).parameters > 10**10


def test_a_kernel_that_is_no_multiple_of_the_stride_is_a_warning_with_the_numbers():
    (first, second) = describe(network(upsample={"name": "transposed", "kernel": 3}), 16, 16).warnings
    assert "decoder.ups.0.conv" in first
    assert "3 % 2 = 1" in first
    assert "decoder.ups.1.conv" in second
    assert describe(network(upsample={"name": "transposed", "kernel": 4}), 16, 16).warnings == ()


def test_the_table_has_a_row_for_each_layer_and_the_totals():
    summary = describe(network(), 24, 32)
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(rows_table(summary))
    text = capture.get()
    assert all(layer.formula in text and layer.name in text for layer in summary.layers)
    assert f"{summary.parameters:,}" in text.splitlines()[-2]
