"""Batch normalisation taken into the convolution before it: one operation in prediction instead of two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from segtool.models.segmenter import Segmenter


def fold_norms(model: Segmenter) -> Segmenter:
    """Folds every BatchNorm of a network in evaluation mode into the convolution before it; the network is changed.

    In evaluation BatchNorm is `gain * x + shift` by channel, so it can scale the weights that make x. Which convolution
    it follows is seen by running the network once on a small image: whatever way an encoder names and nests its layers,
    a norm is folded only where it alone reads what a convolution makes, and both run once.

    Returns:
        The network, whose logits are the same but for rounding. Norms that follow no convolution stay.

    Source: Markuš 2018, "Fusing batch normalization and convolution in runtime".
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    for conv, norm in _pairs(model):
        _scale(conv, norm)
        # Not replaced but changed, since an encoder may hold its layers in other places than where they are registered.
        norm.__class__ = nn.Identity if type(norm) is nn.BatchNorm2d else _Activation  # type: ignore[assignment]
    return model


def _pairs(model: Segmenter) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Returns the convolutions that are read by a norm and by nothing else, each with that norm."""
    weight = next(model.parameters())
    side = 2 * model.stride
    images = torch.zeros((1, model.in_channels, side, side), device=weight.device, dtype=weight.dtype)
    watch = _Watch()
    # Not a class of its own, which may do anything with its weights.
    watched = [module for module in model.modules() if type(module) is nn.Conv2d or _is_norm(module)]
    handles = [module.register_forward_hook(watch.note) for module in watched]
    try:
        with torch.no_grad(), watch:
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return watch.pairs()


class _Watch(TorchFunctionMode):
    """Notes what convolutions made and norms were given, and counts how often each tensor was read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[int] = Counter()
        self.calls: Counter[nn.Module] = Counter()
        self.made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by id; the tensor is kept so that its id is
        self.given: list[tuple[nn.BatchNorm2d, Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # else only a shape or the like was asked
            self.reads.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return result

    def note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.calls[module] += 1
        if isinstance(module, nn.Conv2d):
            self.made[id(output)] = module, output
            self.reads[id(output)] = 0  # a tensor that is gone by now may have had the same id
        elif isinstance(module, nn.BatchNorm2d):
            self.given.append((module, inputs[0]))

    def pairs(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        found = [(self.made[id(x)][0], norm) for norm, x in self.given if id(x) in self.made and self.reads[id(x)] == 1]
        return [(conv, norm) for conv, norm in found if self.calls[conv] == self.calls[norm] == 1]


def _is_norm(module: nn.Module) -> bool:
    own = type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"  # timm's, with its activation
    return own and module.running_mean is not None


class _Activation(nn.Module):
    """What is left of a BatchNormAct2d."""

    act: nn.Module
    drop: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(x))


@torch.no_grad()
def _scale(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Gives a convolution the weights and the bias of both, computed in float64 and rounded once."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    bias = None if conv.bias is None else conv.bias.double()
    gain = None if norm.weight is None else norm.weight.double()
    shift = None if norm.bias is None else norm.bias.double()
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(), bias, mean.double(), variance.double(), norm.eps, gain, shift
    )
    dtype, layout = conv.weight.dtype, {"requires_grad": conv.weight.requires_grad}
    conv.weight, conv.bias = nn.Parameter(weight.to(dtype), **layout), nn.Parameter(bias.to(dtype), **layout)
