"""Encoders of torchvision.

One more of its networks is a class of a few lines like those below: its name there, and the parts of it that lead from
each feature map to the next.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from segtool.config.registry import register
from segtool.models.backbones import RGB, Backbone, is_in, other_channels, unfit, without_prefix
from segtool.models.encoders import Features, Pretrained
from segtool.models.weights import download, read_weights, weights_file


class TorchvisionEncoder(Backbone):
    """A classifier of torchvision without its head; a subclass says which, and where its feature maps are."""

    strides = (2, 4, 8, 16, 32)
    architecture: ClassVar[str]
    """torchvision's name of it."""
    parts: ClassVar[tuple[tuple[str, ...], ...]]
    """Dotted names of the modules that lead to each map from the one before, the first from the image."""
    unpoolable: ClassVar[bool] = False
    """Whether a 2x2 max pooling without overlap leads from each map to the next."""

    def __init__(
        self, in_channels: int, *, weights: str | None = None, freeze: float = 0.0, lr_factor: float = 1.0
    ) -> None:
        super().__init__(in_channels, weights=weights, freeze=freeze, lr_factor=lr_factor)
        from torchvision.models import get_model

        network = get_model(self.architecture, weights=None)
        _drop_all_but(network, [name for names in self.parts for name in names])
        if in_channels != RGB:
            _replace_first_conv(network, in_channels)
        self.network = network
        self._levels = [[network.get_submodule(name) for name in names] for names in self.parts]

    def forward(self, images: Tensor) -> Features:
        x, maps, pool_indices = images, [], []
        for level in self._levels:
            for module in level:
                x = module(x)
                if isinstance(x, tuple):
                    x, indices = x
                    pool_indices.append(indices)
            maps.append(x)
        return Features(maps, pool_indices)

    def keep_indices(self) -> None:
        for module in self.network.modules():
            if self.unpoolable and isinstance(module, nn.MaxPool2d):
                module.return_indices = True

    def stages(self) -> list[list[nn.Parameter]]:
        return [[p for module in level for p in module.parameters()] for level in self._levels]

    def pretrained(self, base: Path) -> Pretrained | None:
        if self.weights is None:
            return None
        from torchvision.models import get_model_weights

        default: Any = get_model_weights(self.architecture)["DEFAULT"]
        preset = default.transforms()
        mean, std = self._of_channels(tuple(preset.mean)), self._of_channels(tuple(preset.std))
        if self.weights == "default":
            return Pretrained(str(default), partial(download, default), mean, std)
        path = weights_file(self.weights, base, ("default",))
        return Pretrained(path.name, partial(read_weights, path), mean, std)

    def _adapt(self, pretrained: Pretrained) -> tuple[dict[str, Tensor], str]:
        state = self.network.state_dict()
        given = without_prefix(pretrained.read(), next(iter(state)))
        # Files from before PyTorch 0.4.1 do not count the batches that a norm has seen; nothing here reads the count.
        wanted = [name for name in state if name in given or not name.endswith("num_batches_tracked")]
        missing = [name for name in wanted if name not in given]
        if missing:
            raise unfit(pretrained, f"{len(missing)} of {len(state)} tensors are missing, such as {missing[0]}")
        used = [part for parts in self.parts for part in parts]
        beyond = [name for name in given if name not in state and any(is_in(name, part) for part in used)]
        if beyond:
            raise unfit(pretrained, f"it has {len(beyond)} tensors more, such as {beyond[0]}: of a larger network")
        tensors = {name: given[name] for name in wanted}
        words, first = "", next(iter(state))
        if self.in_channels != RGB and tensors[first].shape[1:2] == (RGB,):
            tensors[first], words = other_channels(tensors[first], self.in_channels)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() != state[name].is_floating_point():
                raise unfit(pretrained, f"{name} is of {tensor.dtype}, expected {state[name].dtype}")
            if tensor.shape != state[name].shape:
                found, expected = tuple(tensor.shape), tuple(state[name].shape)
                raise unfit(pretrained, f"{name} has shape {found}, expected {expected}")
        return tensors, words


def _slices(*bounds: int) -> tuple[tuple[str, ...], ...]:
    """Returns the names of the items of `features` from each bound up to the next."""
    return tuple(tuple(f"features.{item}" for item in range(start, stop)) for start, stop in pairwise(bounds))


_RESNET = (("conv1", "bn1", "relu"), ("maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",))


@register("encoder", "vgg16_bn")
class VGG16BN(TorchvisionEncoder):
    """VGG-16 with BatchNorm: maps at strides 1 to 32, with 2x2 max poolings that SegNet's decoder undoes.

    Source: Simonyan & Zisserman 2015, "Very Deep Convolutional Networks", configuration D.
    """

    architecture = "vgg16_bn"
    channels = (64, 128, 256, 512, 512, 512)
    strides = (1, 2, 4, 8, 16, 32)
    parts = _slices(0, 6, 13, 23, 33, 43, 44)
    unpoolable = True


@register("encoder", "resnet18")
class ResNet18(TorchvisionEncoder):
    """ResNet-18: maps at strides 2 to 32, 11 million weights.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1.
    """

    architecture = "resnet18"
    channels = (64, 64, 128, 256, 512)
    parts = _RESNET


@register("encoder", "resnet34")
class ResNet34(TorchvisionEncoder):
    """ResNet-34: maps at strides 2 to 32, 21 million weights.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1.
    """

    architecture = "resnet34"
    channels = (64, 64, 128, 256, 512)
    parts = _RESNET


@register("encoder", "resnet50")
class ResNet50(TorchvisionEncoder):
    """ResNet-50: maps at strides 2 to 32, 24 million weights, of bottleneck blocks with the stride in the 3x3.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1.
    """

    architecture = "resnet50"
    channels = (64, 256, 512, 1024, 2048)
    parts = _RESNET


@register("encoder", "mobilenet_v3_large")
class MobileNetV3Large(TorchvisionEncoder):
    """MobileNetV3-Large: maps at strides 2 to 32, 3 million weights.

    Source: Howard et al. 2019, "Searching for MobileNetV3", table 1.
    """

    architecture = "mobilenet_v3_large"
    channels = (16, 24, 40, 112, 960)
    parts = _slices(0, 2, 4, 7, 13, 17)


@register("encoder", "efficientnet_b0")
class EfficientNetB0(TorchvisionEncoder):
    """EfficientNet-B0: maps at strides 2 to 32, 4 million weights; without the last 1x1 convolution.

    Source: Tan & Le 2019, "EfficientNet", table 1.
    """

    architecture = "efficientnet_b0"
    channels = (16, 24, 40, 112, 320)
    parts = _slices(0, 2, 3, 4, 6, 8)


def _drop_all_but(network: nn.Module, kept: list[str]) -> None:
    """Removes the modules that none of the named ones lies in."""
    for name, module in list(network.named_children()):
        inside = [part.removeprefix(f"{name}.") for part in kept if part == name or part.startswith(f"{name}.")]
        if not inside:
            delattr(network, name)
        elif name not in inside:
            _drop_all_but(module, inside)


def _replace_first_conv(network: nn.Module, in_channels: int) -> None:
    name, old = next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")  # as all of torchvision's begin
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    parent, _, child = name.rpartition(".")
    network.get_submodule(parent).register_module(child, new)
