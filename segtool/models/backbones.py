"""Encoders that others have designed and trained: what those of torchvision and of timm have in common.

That is their options, and how the weights of a file become those of the network.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segtool.errors import ConfigError, Problem
from segtool.models.encoders import PATH, Encoder, Pretrained
from segtool.models.weights import WEIGHTS

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
            raise unfit(pretrained, f"{spoiled[0]} holds values that are not finite")
        with torch.no_grad():
            for name, tensor in tensors.items():
                state[name].copy_(tensor)
        return words

    def _adapt(self, pretrained: Pretrained) -> tuple[dict[str, Tensor], str]:
        """Returns a tensor for each of the network's, and in words what was changed."""
        raise NotImplementedError

    def _of_channels(self, values: tuple[float, ...]) -> tuple[float, ...]:
        """Returns a mean or deviation by channel of the images that the network gets."""
        if self.in_channels == 1:
            return (round(sum(values) / len(values), 5),)
        return tuple(values[channel % len(values)] for channel in range(self.in_channels))


def is_in(name: str, module: str) -> bool:
    """Whether a module is another one or inside of it; timm writes some dots as underscores."""
    return any(name == head or name.startswith(f"{head}.") for head in (module, module.replace(".", "_")))


def other_channels(weight: Tensor, channels: int) -> tuple[Tensor, str]:
    """Returns the first convolution's weights, made for red, green and blue, for another number of channels."""
    if channels == 1:
        return weight.sum(1, keepdim=True), "the first convolution's weights are summed over red, green and blue"
    repeated = weight[:, [channel % RGB for channel in range(channels)]] * (RGB / channels)
    return repeated, f"the first convolution's weights are repeated for {channels} channels, times 3 / {channels}"


def without_prefix(given: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    """Returns the tensors by the network's own names, where all of them are inside of something (`module.`)."""
    if first in given:
        return dict(given)
    prefix = next((name[: -len(first)] for name in given if name.endswith(f".{first}")), "")
    return {name.removeprefix(prefix): tensor for name, tensor in given.items()}


def unfit(pretrained: Pretrained, why: str) -> ConfigError:
    """Returns the error about weights that are another network's."""
    return ConfigError(Problem(WEIGHTS, f"{pretrained.name} is not of this encoder: {why}; use another file or name"))
