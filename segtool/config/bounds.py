"""What numbers the keys of a config take, each key alone; what must hold between several, `rules` says."""

from __future__ import annotations

import operator
from typing import NamedTuple

MAX_SEED = 2**63
_HOLDS = {
    "minimum": operator.ge,
    "exclusiveMinimum": operator.gt,
    "maximum": operator.le,
    "exclusiveMaximum": operator.lt,
}


class Bounds(NamedTuple):
    """The numbers that a key takes."""

    words: str
    """As a message and the reference tell them."""
    ends: dict[str, float]
    """By the names that JSON Schema gives them."""

    def hold(self, value: float) -> bool:
        """Whether a number is within them."""
        return all(_HOLDS[name](value, end) for name, end in self.ends.items())


BOUNDS = {
    "format": Bounds("1, the version of this segtool's configs", {"minimum": 1, "maximum": 1}),
    "data.split.val": Bounds("at least 0 and below 1", {"minimum": 0, "exclusiveMaximum": 1}),
    "data.split.test": Bounds("at least 0 and below 1", {"minimum": 0, "exclusiveMaximum": 1}),
    "data.split.seed": Bounds("at least 0", {"minimum": 0, "exclusiveMaximum": MAX_SEED}),
    "data.channels": Bounds("at least 1 and at most 65,535", {"minimum": 1, "maximum": 65535}),
    "augment.rotate": Bounds("from 0 to 180 degrees", {"minimum": 0, "maximum": 180}),
    "augment.color": Bounds("from 0 to 1", {"minimum": 0, "maximum": 1}),
    "augment.hue": Bounds("from 0 to 180 degrees", {"minimum": 0, "maximum": 180}),
    "augment.tint": Bounds("at least 0 and below 1", {"minimum": 0, "exclusiveMaximum": 1}),
    "augment.gamma": Bounds("at least 0", {"minimum": 0}),
    "augment.blur": Bounds("at least 0 and at most 1,000 pixels", {"minimum": 0, "maximum": 1000}),
    "augment.noise": Bounds("from 0 to 1", {"minimum": 0, "maximum": 1}),
    "augment.jpeg": Bounds("from 1 to 100, or null for none", {"minimum": 1, "maximum": 100}),
    "augment.elastic": Bounds("at least 0 and at most 10,000 pixels", {"minimum": 0, "maximum": 10**4}),
    "augment.erase": Bounds("at least 0 and below 1", {"minimum": 0, "exclusiveMaximum": 1}),
    "augment.rare": Bounds("from 0 to 1", {"minimum": 0, "maximum": 1}),
    "optim.lr": Bounds("above 0", {"exclusiveMinimum": 0}),
    "optim.weight_decay": Bounds("at least 0", {"minimum": 0}),
    "optim.momentum": Bounds("at least 0 and below 1", {"minimum": 0, "exclusiveMaximum": 1}),
    "optim.power": Bounds("above 0", {"exclusiveMinimum": 0}),
    "optim.warmup": Bounds("at least 0", {"minimum": 0}),
    "optim.layer_decay": Bounds("above 0 and at most 1", {"exclusiveMinimum": 0, "maximum": 1}),
    "optim.clip": Bounds("above 0, or null for no clipping", {"exclusiveMinimum": 0}),
    "train.epochs": Bounds("above 0 and at most a trillion", {"exclusiveMinimum": 0, "maximum": 1e12}),
    "train.steps": Bounds("at least 1 and at most a trillion", {"minimum": 1, "maximum": 10**12}),
    "train.batch_size": Bounds("at least 1 and at most a million", {"minimum": 1, "maximum": 10**6}),
    "train.accumulate": Bounds("at least 1", {"minimum": 1}),
    "train.eval_every": Bounds("above 0 and at most a trillion", {"exclusiveMinimum": 0, "maximum": 1e12}),
    "train.patience": Bounds("at least 1, or null for never", {"minimum": 1}),
    "train.ema": Bounds("above 0 and below 1, or null for none", {"exclusiveMinimum": 0, "exclusiveMaximum": 1}),
    "train.seed": Bounds("at least 0", {"minimum": 0, "exclusiveMaximum": MAX_SEED}),
    "train.workers": Bounds("auto, or at least 0 and at most 1,024", {"minimum": 0, "maximum": 1024}),
    "train.timeout": Bounds("above 0 and at most 1,000,000 seconds", {"exclusiveMinimum": 0, "maximum": 1e6}),
    "train.keep": Bounds("at least 1", {"minimum": 1}),
    "train.samples": Bounds("at least 0 and at most a million", {"minimum": 0, "maximum": 10**6}),
    "limits.max_pixels": Bounds("at least 1", {"minimum": 1}),
}
