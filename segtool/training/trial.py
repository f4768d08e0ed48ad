"""A training that is thrown away, for preflight to try things on, and what is found of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from segtool.data.codes import IGNORE
from segtool.data.dataset import Sample
from segtool.data.loader import training_batches
from segtool.data.preview import MAX_PIXELS
from segtool.errors import ConfigError, SegtoolError
from segtool.system.distributed import ALONE
from segtool.system.terminal import Mute
from segtool.training import train, training_step
from segtool.training.plan import Plan, Prepared

WINDOWS, SIDE = 4, 64  # of how many crops a part is taken, and its side in pixels, or twice the stride
SHOWN = 8  # crops of the first batch that are drawn


@dataclass(frozen=True)
class Verdict:
    """What was found of one thing."""

    what: str
    found: str
    """With the remedy where it does not pass."""
    grade: Literal["passed", "doubt", "fault"] = "passed"
    error: type[SegtoolError] = ConfigError
    """What a fault is raised as."""

    @property
    def line(self) -> str:
        """What is told."""
        return f"preflight: {self.what}: {self.found}"


@dataclass(frozen=True)
class Trial:
    """A training that is thrown away, with the first crops of the real one."""

    training: training_step.Training
    plan: Plan
    crops: Sample
    """As training sees them, N C H W and N H W."""
    windows: Sample
    """The part of each with the most classes, N C h w and N h w."""

    @property
    def counted(self) -> int:
        """Pixels of the windows that count."""
        return int((self.windows.target != IGNORE).sum())

    @property
    def uniform(self) -> bool:
        """Whether each window is of one colour."""
        return bool((self.windows.image == self.windows.image[..., :1, :1]).all())


def make_trial(work: Prepared, base: Path) -> Trial:
    """Returns the beginning of a training in float32, and its first crops."""
    plan = work.plan
    plain = replace(work.config.train, precision="fp32", accumulate=1, ema=None, sync_batch_norm=False)
    config = replace(work.config, train=plain)
    start = partial(training_step.load_pretrained, base=base, reporter=Mute())
    training = training_step.build_training(config, work.frequencies, work.device, ALONE, start=start)
    dataset = train.build_training_set(replace(work, config=config, plan=replace(plan, cache=False)))
    count = max(num_shown(plan), WINDOWS)
    crops = next(training_batches(dataset, ALONE, batch_size=count, start=0, steps=1, workers=0))
    training_step.freeze_encoder(training, frozen=training_step.frozen_steps(training, plan.images) > 0)
    sides = [min(side, max(SIDE, 2 * training.model.stride)) for side in plan.crop]
    return Trial(training, plan, crops, windows_of(crops, (sides[0], sides[1])))


def num_shown(plan: Plan) -> int:
    """Returns how many crops of the first batch are drawn, each with its mask: of large ones fewer."""
    return max(1, min(plan.batch_size, SHOWN, MAX_PIXELS // (2 * plan.crop[0] * plan.crop[1])))


def windows_of(crops: Sample, size: tuple[int, int]) -> Sample:
    """Returns the window of `size` (h w) that has the most classes, of each of the crops that have most in theirs."""
    found = []
    for image, target in zip(crops.image, crops.target, strict=True):
        places = [
            (slice(top, top + size[0]), slice(left, left + size[1]))
            for top in _starts(target.shape[0], size[0])
            for left in _starts(target.shape[1], size[1])
        ]
        richness = [_richness(target[place]) for place in places]
        best = max(range(len(places)), key=richness.__getitem__)
        found.append((richness[best], image[:, *places[best]], target[places[best]]))
    found = sorted(found, key=lambda item: item[0], reverse=True)[:WINDOWS]
    return Sample(
        torch.stack([image for _, image, _ in found]),
        torch.stack([target for _, _, target in found]),
        torch.arange(len(found)),
    )


def _starts(length: int, part: int) -> list[int]:
    return sorted({*range(0, length - part + 1, max(part // 2, 1)), length - part})


def _richness(target: Tensor) -> tuple[int, int]:
    """Returns the number of classes in a target, and of the pixels that count."""
    counts = torch.bincount(target.flatten(), minlength=IGNORE + 1)[:IGNORE]
    return int((counts > 0).sum()), int(counts.sum())
