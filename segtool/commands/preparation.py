"""From a config to its training: parts that fit together, data that is checked, and what is left open decided."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import torch

from segtool.check.findings import Finding, Report
from segtool.check.report import examine
from segtool.config import Config, Data, located
from segtool.config.yaml_io import flow
from segtool.data.formats import Places, data_root, split_records
from segtool.data.images import image_size, value_bytes
from segtool.data.pairs import Record
from segtool.data.statistics import class_frequencies, resolve_data
from segtool.errors import ConfigError, DataError, Problem, SegtoolError
from segtool.models.encoders import Pretrained
from segtool.models.segmenter import verify
from segtool.system.distributed import World
from segtool.system.terminal import Reporter, counted
from segtool.training.budget import LEFT_OVER, MOST, Budget
from segtool.training.forecast import Times
from segtool.training.losses import Criterion, needs_frequencies
from segtool.training.plan import Choice, Plan, Prepared, check_machine, make_plan, of_length, smallest_part

Records = dict[str, list[Record]]
# Once all is compiled, a second start takes this share of the first: 1.6 s after 161 were measured, with a U-Net on two
# busy cores.
STARTED_AGAIN = 0.1
FEW_STEPS = 100  # below it a network from scratch finds little but the most frequent classes
SOME_STEPS = 300
NAMED = 5  # files of a finding


def verify_components(
    config: Config, device: torch.device, processes: int, base: Path | None = None
) -> Pretrained | None:
    """Builds network and losses on no device, so that what does not fit is told before any data is read.

    Args:
        device: That the training shall be on.
        base: Folder of the config, where training begins: the pretrained weights are looked at too, and returned.

    Raises:
        ConfigError: with file and line.
        CheckpointError: a file of weights cannot be read, or not be downloaded.
    """
    num_classes, channels = len(config.data.classes), config.data.channels
    problems: list[str | Problem] = []
    pretrained = None
    try:
        part = smallest_part(config.train, 1)
        network = verify(config.model, num_classes, channels, crop=config.augment.crop, batch=part)
        pretrained = None if base is None else network.encoder.pretrained(base)
        if pretrained is not None:
            network.encoder.load(pretrained)  # on no device: whether they fit
    except ConfigError as error:
        problems += error.details
    try:
        with torch.device("meta"):
            Criterion(config.loss, num_classes)
    except ConfigError as error:
        problems += error.details
    try:
        check_machine(config.train, device, processes)
    except ConfigError as error:
        problems += error.details
    if problems:
        with located(config):
            raise ConfigError(*problems)
    return pretrained


def checked_records(config: Config, base: Path, reporter: Reporter) -> tuple[Records, Report]:
    """Returns the records of each split and what `check` found, and says the warnings. Raises DataError of errors."""
    places = Places(config.data, data_root(config.data, base))
    reporter.say("checking the data (segtool check shows all that it finds)")
    report = examine(config, base, progress=reporter.counter(unit="file", label="checking"), places=places)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if errors:
        raise DataError(
            *("; ".join([_told(error, beside=error.example), error.example, error.remedy]) for error in errors),
            "the data cannot be trained on as it is; `segtool check` shows every finding",
        )
    for finding in report.findings:
        if finding.severity == "warning":
            reporter.warn(f"{_told(finding)}; {finding.remedy}")
    with located(config):
        return split_records(config, base, places), report


def _told(finding: Finding, beside: str = "") -> str:
    """Returns what was found, and in which files, but for a single one that is named beside it."""
    files = finding.files
    if not files or (len(files) == 1 and files[0] in beside):
        return f"{finding.code}: {finding.message}"
    such = "such as " if len(files) > NAMED else ""
    return f"{finding.code}: {finding.message} ({such}{', '.join(files[:NAMED])})"


def planned(
    config: Config,
    records: Records,
    device: torch.device,
    world: World,
    pretrained: Pretrained | None = None,
    *,
    budget: float | None = None,
) -> tuple[Config, Plan]:
    """Returns the config with nothing left open, by the data, the pretrained weights and the device, and the plan.

    `budget`: as `make_plan` takes it.
    """
    first = records["train"][0].image
    size = image_size(first, exif=config.data.exif, max_pixels=config.limits.max_pixels)
    deep = value_bytes(first, max_pixels=config.limits.max_pixels)
    choices = _held_out(config.data, records) if config.origins.of("data.split") == "default" else []
    reason = None
    if config.data.mean is None:  # and so is the deviation
        reason = "measured on the training images"
        if pretrained is not None:
            config = replace(config, data=replace(config.data, mean=pretrained.mean, std=pretrained.std))
            reason = f"what {pretrained.name} was trained with"
    recorded = config.data.seen
    with located(config):
        config = resolve_data(config, records["train"])
        if recorded not in (None, config.data.seen) and (pretrained is None or config.data.mean != pretrained.mean):
            reason = reason or "those of a run on other images; --set data.mean=null --set data.std=null decides anew"
        if reason:
            value = f"{flow(config.data.mean)} and {flow(config.data.std)}"
            choices.append(Choice("data.mean and std", value, reason))
        images = len(records["train"])
        config, plan = make_plan(
            config, images=images, first_size=size, value_bytes=deep, device=device, world=world, budget=budget
        )
    if config.augment.hue and config.data.channels not in (3, 4):
        channels = counted(config.data.channels, "channel")
        reason = f"does nothing: it turns the colours of RGB, and data.channels gives {channels}"
        choices.append(Choice("augment.hue", f"{config.augment.hue:g}", reason))
    given = {config.origins.of(f"train.{key}") for key in ("epochs", "steps")}
    if given == {"default"} and config.train.epochs and budget is None:
        choices.append(Choice("train.epochs", f"{config.train.epochs:g}", "neither epochs nor steps is given"))
    return config, replace(plan, choices=(*choices, *plan.choices))


def _held_out(data: Data, records: Records) -> list[Choice]:
    """Returns how many pairs chance has put into a validation split, where the config says nothing of one."""
    if data.fold is not None or data.val is not None or not records.get("val"):
        return []
    total = len(records["train"]) + len(records["val"])
    return [
        Choice(
            "data.val",
            f"{len(records['val'])} of {total} pairs",
            f"neither a folder nor data.split is given, so a share of {data.split.val:g} by seed {data.split.seed}",
        )
    ]


def prepared(config: Config, plan: Plan, records: Records, device: torch.device, world: World) -> Prepared:
    """Returns the training of a plan, its classes counted where a loss or the augmentation asks for that."""
    asked = needs_frequencies(config.loss) or config.augment.rare
    frequencies = class_frequencies(config, records["train"]) if asked else None
    return Prepared(config, plan, records, frequencies, world, device)


def budgeted(work: Prepared, times: Times, seconds: float, began: float, reporter: Reporter) -> tuple[Prepared, Budget]:
    """Returns the training with the number of steps that fits a budget of so many seconds, as measured, and the budget.

    Raises:
        SegtoolError: not one step goes into it.
    """
    plan, budget = work.plan, Budget(began + seconds, per_validation=times.per_validation, per_step=times.step)
    now = time.monotonic()
    left = max(0.0, budget.end - now)
    starting = STARTED_AGAIN * times.starting
    steps = budget.length(plan, 0, now=now + starting + times.saving)
    if steps < 1:
        ending = budget.end - budget.deadline
        least = math.ceil(now - began + starting + times.saving + times.step / (1 - LEFT_OVER) + ending)
        raise SegtoolError(
            f"--budget: getting going takes {starting:.0f} s, a step {times.step:.1f} s and the end, with its "
            f"validation, {ending:.0f} s, and {left:.0f} s are left after preparing; give more time, at least {least} s"
            + (", or do not compile: --set train.compile=false" if work.config.train.compile else "")
        )
    reporter.say(
        f"budget: {counted(steps, 'step')} ({steps * plan.batch_size / plan.images:.1f} epochs) at {times.step:.2f} s "
        f"each, validations of {times.validation:.1f} s included; decided again by the steps of the training itself"
    )
    if steps < FEW_STEPS:
        minutes = math.ceil((seconds + (SOME_STEPS - steps) * times.step) / 60)
        reporter.warn(
            f"a training of {counted(steps, 'step')} learns little; --budget {minutes}m has room for some {SOME_STEPS}"
        )
    config, plan = of_length(work.config, replace(plan, most_steps=MOST * steps), steps)
    return replace(work, config=config, plan=plan), budget
