"""What `segtool inspect` says of a network, against the network itself and independent counts."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import saved_bytes
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from segtool.config import Model, registry
from segtool.config.registry import Component
from segtool.data.statistics import ClassFrequencies
from segtool.models.layers import describe, rows_table
from segtool.models.segmenter import Segmenter, build_model, verify
from segtool.training.losses import Criterion
from segtool.training.memory import memory_lines, training_memory
from segtool.training.optim import Ema, build_optimizer


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


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_has_every_layer_and_the_totals_at_any_width(width):
    summary = describe(network(), 24, 32, batch=2)
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(rows_table(summary, width=width))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    assert all(layer.formula in text and layer.name in text for layer in summary.layers)
    end = "\n".join(text.splitlines()[-3:])
    assert f"{summary.parameters:,}" in end
    assert f"{summary.multiply_adds:,}" in end
    assert f"{summary.kept / 2e6:,.2f}" in end


@pytest.mark.parametrize(("size", "title"), [((24, 32), "image"), ((21, 30), "image, padded to 24 x 32")])
def test_the_title_tells_a_size_that_is_padded(size, title):
    assert rows_table(describe(network(), *size), width=200).title == f"3 x {size[0]} x {size[1]} {title}"


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize("upsample", registry.names("upsampler"))
def test_what_is_kept_of_a_batch_is_what_autograd_saves_in_truth(upsample, aux):
    model = build_model(
        Model(Component("conv", {"channels": [4, 6, 8, 8]}), Component("unet", {"upsample": upsample, "aux": aux})), 3
    )
    summary = describe(model, 21, 30, batch=2)
    images = torch.randn(2, 3, 21, 30)
    assert summary.kept == saved_bytes(lambda: model(images), model.state_dict().values())
    assert sum(layer.kept for layer in summary.layers) == pytest.approx(summary.kept / 2, abs=len(summary.layers))


LOSSES = [[name] for name in registry.names("loss")] + [[{"name": "cross_entropy", "class_weights": "enet"}, "dice"]]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_memory_of_a_step_is_that_of_its_parts(make_config, loss):
    config = make_config(loss=loss)
    model = build_model(config.model, 3)
    summary = describe(model, 48, 32, batch=2)
    memory = training_memory(model, summary, config)
    logits = torch.randn(2, 3, 48, 32, requires_grad=True)
    target = torch.randint(3, (2, 48, 32), dtype=torch.uint8)
    criterion = Criterion(config.loss, 3, ClassFrequencies((1, 1, 1), (1, 1, 1)))
    kept = saved_bytes(lambda: criterion(logits, target, criterion.denominators(target)), [logits])
    assert memory.loss == pytest.approx(kept + logits.nbytes, rel=0.02)
    optimizer = build_optimizer(model, config.optim)
    model(torch.randn(2, 3, 48, 32)).sum().backward()
    optimizer.step()
    held = sum(value.nbytes for state in optimizer.state.values() for key, value in state.items() if key != "step")
    assert memory.optimizer == held
    assert memory.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert memory.averages == sum(value.nbytes for value in Ema(model, 0.9).model.state_dict().values())
    assert memory.activations == summary.kept
    assert memory.total == sum(vars(memory).values())


def test_memory_follows_optimizer_averages_and_parts_of_a_batch(make_config):
    plain = make_config(optim={"name": "sgd", "momentum": 0.0}, train={"ema": None, "batch_size": 6, "accumulate": 3})
    model = build_model(plain.model, 3)
    summary = describe(model, 16, 16, batch=2)
    memory = training_memory(model, summary, plain)
    assert (memory.optimizer, memory.averages) == (0, 0)
    text = "\n".join(memory_lines(memory, summary, plain))
    assert "2 images of 16x16, one of 3 parts of a batch of 6" in text


def test_a_crop_that_leaves_a_single_pixel_is_a_warning():
    (warning,) = describe(network(), 4, 3).warnings
    assert "4x3" in warning
    assert describe(network(), 4, 5).warnings == ()
