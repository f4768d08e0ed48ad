"""What is traced without computing, against what a real pass through networks that others have designed does."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from conftest import saved_bytes
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from segtool.models.trace import trace

BACKBONES = ("resnet18", "vgg16_bn", "mobilenet_v3_large", "efficientnet_b0")


def backbone(name: str, device: str = "meta") -> nn.Sequential:
    """The part of a torchvision network that ends with its deepest map, at stride 32."""
    with torch.device(device):
        network = torchvision.models.get_model(name)
    children = dict(network.named_children())
    return children["features"] if "features" in children else nn.Sequential(*list(children.values())[:-2])


def without_choices(network: nn.Module) -> nn.Module:
    """Makes every path from an input pixel to an output count: no gradient cancels, ends at a ReLU, loses a maximum or
    goes through a gate that sees the whole image. Weights keep the mean of what comes in, so nothing over- or
    underflows."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, torchvision.ops.SqueezeExcitation):
            nn.init.zeros_(module.fc2.weight)
    return network


@pytest.mark.parametrize("name", ["resnet18", "vgg16_bn", "mobilenet_v3_large"])
def test_stride_and_field_of_a_backbone_are_where_its_gradients_are_not_zero(name):
    field = trace(backbone(name), (3, 32, 32), period=32)[-1].field
    assert field is not None
    assert field.jump == 32
    (low,), (high,) = field.low, field.high
    rows = math.ceil(field.extent / 64) * 2 + 3
    image = torch.ones(1, 3, 32 * rows, 32, requires_grad=True)
    output = without_choices(backbone(name, "cpu").eval())(image)
    assert output.shape[2] == rows
    (gradient,) = torch.autograd.grad(output[:, :, rows // 2].sum(), image)
    seen = gradient.abs().sum((0, 1, 3)).nonzero().flatten() - 32 * (rows // 2)
    assert (seen.min(), seen.max()) == (low, high)


@pytest.mark.parametrize("name", BACKBONES)
def test_multiply_adds_of_grouped_and_other_convolutions_are_those_of_an_independent_count(name):
    network = backbone(name)
    operations = trace(network, (3, 64, 96), period=32)
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(1, 3, 64, 96, device="meta"))
    assert 2 * sum(operation.multiply_adds for operation in operations) == counter.get_total_flops()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "efficientnet_b0"])
def test_what_is_kept_for_the_backward_pass_is_what_autograd_saves_in_truth(name):
    operations = trace(backbone(name), (3, 32, 64), period=32, batch=2, keeping=True)
    network = backbone(name, "cpu").train()
    images = torch.randn(2, 3, 32, 64)
    kept = saved_bytes(lambda: network(images), network.state_dict().values())
    assert sum(operation.kept for operation in operations) == kept


def test_what_a_layer_keeps_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # its input, the image
        nn.BatchNorm2d(8),  # its input, and mean and deviation of each channel
        nn.ReLU(inplace=True),  # its output
        nn.MaxPool2d(2),  # its input, counted already, and the places of the maxima, 8 bytes each
        nn.Conv2d(8, 4, 1),  # its input
        nn.GELU(),  # its input
    )
    kept = [operation.kept for operation in trace(network, (3, 4, 6), period=2, batch=5, keeping=True)]
    first = 5 * 3 * 24 * 4 + 5 * 8 * 24 * 4 + 2 * 8 * 4 + 5 * 8 * 24 * 4
    assert kept == [first, 5 * 8 * 6 * 8, 5 * 8 * 6 * 4 + 5 * 4 * 6 * 4]


def test_memory_of_a_single_value_per_channel_is_counted_though_it_cannot_be_trained_on():
    network = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), nn.BatchNorm2d(8))
    (operation,) = trace(network, (3, 2, 2), period=2, keeping=True)
    assert operation.kept == 4 * (3 * 4 + 8 + 2 * 8)


class Moved(nn.Module):
    """Pads unevenly, as networks from TensorFlow do, and crops."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(1, 1, kernel, stride=2) for kernel in (5, 3))
        self.up = nn.ConvTranspose2d(1, 1, 4, stride=4)
        self.head = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs[0](F.pad(x, (1, 2, 1, 2)))
        x = self.convs[1](F.pad(x, [0, 1, 0, 1]))
        return self.head(self.up(x)[..., 5:-2, 3:])


def test_paddings_and_crops_move_the_field_as_they_move_gradients():
    network = without_choices(Moved())
    nn.init.ones_(network.up.weight)
    field = trace(network, (1, 64, 8), period=4)[-1].field
    assert field is not None
    for phase in range(4):
        image = torch.ones(1, 1, 64, 8, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(image)[:, :, 28 + phase].sum(), image)
        seen = gradient.sum((0, 1, 3)).nonzero().flatten() - 28
        assert (seen.min(), seen.max()) == (field.low[phase], field.high[phase])


class ChannelsLast(nn.Module):
    """Has its channels last in between, as ConvNeXt has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 5, stride=2, padding=2)
        self.norm = nn.LayerNorm(3)
        self.mix = nn.Linear(3, 2)
        self.up = nn.ConvTranspose2d(2, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).permute(0, 2, 3, 1)
        return self.up(F.gelu(self.mix(self.norm(x))).permute(0, 3, 1, 2))


def test_the_field_is_followed_where_channels_stand_last():
    torch.manual_seed(0)
    network = ChannelsLast()
    field = trace(network, (1, 64, 8), period=2)[-1].field
    assert field is not None
    for phase in range(2):
        image = torch.randn(1, 1, 64, 8, requires_grad=True)
        (gradient,) = torch.autograd.grad(network(image)[:, :, 28 + phase].sum(), image)
        seen = gradient.abs().sum((0, 1, 3)).nonzero().flatten() - 28
        assert (seen.min(), seen.max()) == (field.low[phase], field.high[phase])


class Attention(nn.Module):
    """Adds to each pixel something of all others."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        seen = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return x + seen.transpose(1, 2).reshape(x.shape)


def test_behind_attention_no_field_is_told():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Attention(), nn.Conv2d(4, 4, 1))
    first, last = trace(network, (1, 16, 16), period=1)
    assert first.field is not None
    assert last.field is None


def test_kinds_tell_what_a_convolution_does_with_its_channels():
    network = nn.Sequential(
        nn.Conv2d(4, 8, (1, 3)),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.AdaptiveAvgPool2d(1),
    )
    operations = trace(network, (4, 9, 9), period=1)
    expected = ["conv 1x3", "depthwise conv 3x3", "grouped conv 3x3", "avg pool to a size"]
    assert [operation.kind for operation in operations] == expected
    assert operations[-1].field is None
