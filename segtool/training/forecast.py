"""What a training will take, from a few real steps and images of a training that is thrown away. Nothing is written."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from segtool.config import Config
from segtool.data.dataset import EvaluationSet, TrainingSet
from segtool.data.images import image_size
from segtool.data.loader import num_workers, training_batches
from segtool.data.pairs import Record
from segtool.data.reader import Reader
from segtool.data.statistics import evenly
from segtool.prediction.inference import Predictor
from segtool.runs import checkpoint
from segtool.runs.checkpoint import Progress
from segtool.scoring.evaluate import evaluate
from segtool.system.devices import free_bytes
from segtool.system.disk import free_disk
from segtool.system.distributed import ALONE
from segtool.system.memory import keep_freed_memory
from segtool.system.pools import num_threads
from segtool.system.terminal import Mute, Reporter, amount, counted, duration
from segtool.system.threads import seconds_without_core
from segtool.training import train, training_step
from segtool.training.optim import learning_rate
from segtool.training.plan import Plan, Prepared
from segtool.training.samples import Samples
from segtool.training.watchdogs import CROWDED, crowding_warning

WARM_UP = 3  # steps: the allocator's pages, the oneDNN primitives and the queue of batches are made in the first ones
LEAST_STEPS, MOST_STEPS, STEP_SECONDS = 4, 40, 15.0  # how many steps are timed: as many as go into that time
LEAST_IMAGES, MOST_IMAGES, IMAGE_SECONDS = 3, 24, 8.0
PART = 2048  # pixels of a side of what is predicted of images that take longer than that
CROWDED_SECONDS = 1.0  # of steps, from which on it is told that their threads wait for cores
AMPLE = 600.0  # seconds of a budget that leave room for all of that
DISK_RATE = 200e6  # bytes a second that a disk is taken to write


@dataclass(frozen=True)
class Times:
    """Seconds of what a training is made of."""

    starting: float
    """What happens once: building the network, starting what loads the images, and what the first steps, with the
    compilation, take more than others."""
    step: float
    validation: float
    """Scoring the validation split; 0 without one."""
    samples: float
    """Drawing the samples of a validation."""
    saving: float
    """A checkpoint."""

    def total(self, plan: Plan) -> float:
        """Returns what the whole training takes, if every validation is better than those before it."""
        validations = num_validations(plan)
        scoring = validations * (self.validation + self.samples)
        return self.starting + plan.steps * self.step + scoring + (validations + 1) * self.saving

    @property
    def per_validation(self) -> float:
        """A validation with its samples and its checkpoint."""
        return self.validation + self.samples + self.saving


@dataclass(frozen=True)
class Forecast:
    """What was measured."""

    times: Times
    memory: int | None
    """Largest memory in bytes, of the process, or of the GPU where it computes; None where it cannot be known."""
    checkpoint: int
    """Bytes of a checkpoint."""


def describe(forecast: Forecast, work: Prepared, *, prepared: float, directory: Path) -> list[str]:
    """Returns the lines in which `train --dry-run` tells what was measured.

    Args:
        prepared: Seconds that the command took before, checking the data above all.
    """
    times, plan = forecast.times, work.plan
    validations = f"{counted(num_validations(plan), 'validation')} of {times.validation + times.samples:.3g} s, "
    memory = "unknown" if forecast.memory is None else f"about {amount(forecast.memory)}"
    free = free_bytes(work.device)
    left = "how much is free is unknown" if free is None else f"{amount(free)} are free"
    most, pictures = most_checkpoints(work.config, plan), amount(sample_bytes(work))
    return [
        f"time: {duration(prepared + times.starting)} to begin with, {times.step:.3g} s a step, {validations}"
        f"{times.saving:.2g} s a checkpoint: about {duration(prepared + times.total(plan))} in all",
        f"memory: {memory}, the most that these steps and images took, and the cache; {left}",
        f"disk: {amount(forecast.checkpoint)} a checkpoint, at most {most} at a time, and up to {pictures} of samples; "
        f"{amount(free_disk(directory))} are free",
    ]


def num_validations(plan: Plan) -> int:
    """Returns how often a training that goes to its end is validated."""
    return -(-plan.steps // plan.eval_steps)


def most_checkpoints(config: Config, plan: Plan) -> int:
    """Returns how many checkpoints a run holds at most: those kept, the best one, and the one that is being written."""
    return min(config.train.keep + 2, plan.steps + 1)


def sample_bytes(work: Prepared) -> int:
    """Returns the most that the samples of a run take, image, truth and prediction as if nothing were compressed."""
    data, records = work.config.data, work.records.get("val", [])
    chosen = [records[index].image for index in evenly(len(records), work.config.train.samples)]
    sizes = [image_size(path, exif=data.exif, max_pixels=work.config.limits.max_pixels) for path in chosen]
    return sum(3 * 3 * height * width for height, width in sizes)


def measure(work: Prepared, reporter: Reporter, *, within: float | None = None) -> Forecast:
    """Returns what a training takes, steps timed with the whole network in training, images with their decoding.

    Where the threads of these steps wait for cores that others have, it warns, as the training will be slow too.
    Of several processes one measures its share of the work on its own; what they say to each other is left out.

    Args:
        within: Seconds of a budget that this is a part of: measuring takes less of a short one.
    """
    share = 1.0 if within is None else min(1.0, within / AMPLE)
    config, world, device = work.config, work.world.alone, work.device
    keep_freed_memory()
    began = time.monotonic()
    training = training_step.build_training(config, work.frequencies, device, world)
    dataset = train.build_training_set(work)
    workers = num_workers(config.train.workers, device, world)
    ends = _ends_of_steps(training, work.plan, dataset, workers, share * STEP_SECONDS, reporter)
    spans = [after - before for before, after in itertools.pairwise([began, *ends])]
    per_step = statistics.median(spans[WARM_UP:])
    starting = max(sum(spans[:WARM_UP]) - WARM_UP * per_step, 0.0)
    validation, samples = _scoring(training, work.records, workers, share * IMAGE_SECONDS)
    saving, num_bytes = _saving(training)
    memory = peak_memory(device)
    if memory is not None and dataset.cache is not None and device.type != "cuda":
        seen = min(len(dataset), len(spans) * config.train.batch_size // world.size)
        memory += dataset.cache.used * len(dataset) // seen
    return Forecast(Times(starting, per_step, validation, samples, saving), memory, num_bytes)


def _ends_of_steps(
    training: training_step.Training, plan: Plan, dataset: TrainingSet, workers: int, seconds: float, reporter: Reporter
) -> list[float]:
    """Makes some steps, those that warm up and then for about so many seconds, and returns when each was done."""
    config, device = training.config, training.device
    make_step = training_step.start_compilation(training, reporter)
    first = training_step.frozen_steps(training, len(dataset.records))
    rate = learning_rate(config.optim, 0, plan.steps)
    batches = training_batches(
        dataset,
        training.world,
        batch_size=config.train.batch_size,
        start=first,
        steps=first + WARM_UP + MOST_STEPS,
        workers=workers,
        device=device,
    )
    ends: list[float] = []
    without_core = 0.0
    for step, batch in enumerate(batches, start=first):
        make_step(training, batch, step, rate, dataset.records)
        make_step = training_step.train_step
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ends.append(time.monotonic())
        if len(ends) == WARM_UP:
            without_core = seconds_without_core()
        if len(ends) >= WARM_UP + LEAST_STEPS and ends[-1] - ends[WARM_UP - 1] > seconds:
            break
    waited, took = seconds_without_core() - without_core, ends[-1] - ends[WARM_UP - 1]
    if took >= CROWDED_SECONDS and waited > CROWDED * took and num_threads() > 1:
        reporter.warn(crowding_warning(waited / took, threads=num_threads()))
    return ends


def seconds_per_validation(work: Prepared) -> float:
    """Returns the `per_validation` of a training's Times, measured without any step."""
    world = work.world.alone
    training = training_step.build_training(work.config, None, work.device, world)
    workers = num_workers(work.config.train.workers, work.device, world)
    validation, samples = _scoring(training, work.records, workers, IMAGE_SECONDS)
    saving, _ = _saving(training)
    return validation + samples + saving


def peak_memory(device: torch.device) -> int | None:
    """Returns the most memory in bytes that this process has had so far, on a GPU that of torch's tensors."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _scoring(
    training: training_step.Training, records: dict[str, list[Record]], workers: int, seconds: float
) -> tuple[float, float]:
    """Returns the seconds of scoring the validation split and of drawing the samples, measured for about so many."""
    dataset = EvaluationSet(records.get("val", []), Reader.of(training.config))
    if not len(dataset):
        return 0.0, 0.0
    predictor = train.build_predictor(training)
    share = -(-len(dataset) // training.world.size)
    samples = Samples(dataset, training.config.train.samples)
    if large := _large_images(predictor, dataset, within=seconds):
        reading, predicting = map(statistics.fmean, zip(*large, strict=True))
        each = max(reading, predicting) if workers else reading + predicting
        return reading + each * share, reading * len(samples.names)
    spans = _score(predictor, _part(dataset, LEAST_IMAGES), workers)
    count = int(np.clip(seconds / max(spans[-1], 1e-4), LEAST_IMAGES, MOST_IMAGES))
    if count > LEAST_IMAGES:
        spans = _score(predictor, _part(dataset, count), workers)
    first, *others = spans  # the first with the start of what loads them
    each = statistics.fmean(others or [0.0])
    chosen = list(samples.names)  # whose predictions a validation leaves to be drawn
    drawn = EvaluationSet([dataset.records[index] for index in chosen], dataset.reader)
    evaluate(
        predictor,
        drawn,
        ALONE,
        workers=workers,
        reporter=Mute(),
        note=lambda place, prediction: samples.note(chosen[place], prediction),
    )
    began = time.monotonic()
    list(samples.pictures(predictor))
    return first + each * (share - 1), time.monotonic() - began


def _large_images(predictor: Predictor, dataset: EvaluationSet, *, within: float) -> list[tuple[float, float]]:
    """Returns the seconds of reading and of predicting some images; nothing where the first takes less than `within`.

    A part of the first is predicted, and what that takes counted up by pixels.
    """
    found: list[tuple[float, float]] = []
    each_pixel = 0.0
    for record in _part(dataset, LEAST_IMAGES).records:
        began = time.monotonic()
        image, _ = dataset.reader.pair(record)
        reading = time.monotonic() - began
        height, width = image.shape[:2]
        if not found:
            part = np.ascontiguousarray(image[:PART, :PART])
            if height * width < 2 * part[..., 0].size:
                return []
            began = time.monotonic()
            predictor.classes(torch.from_numpy(part).permute(2, 0, 1))
            each_pixel = (time.monotonic() - began) / part[..., 0].size
            if each_pixel * height * width < within:
                return []
        found.append((reading, each_pixel * height * width))
    return found


def _saving(training: training_step.Training) -> tuple[float, int]:
    """Returns the seconds and the bytes of a checkpoint."""
    began = time.monotonic()
    num_bytes = checkpoint.num_bytes(training.state, training.config, Progress())
    return time.monotonic() - began + num_bytes / DISK_RATE, num_bytes


def _score(predictor: Predictor, dataset: EvaluationSet, workers: int) -> list[float]:
    """Returns the seconds that scoring took for each image."""
    ends = [time.monotonic()]
    evaluate(predictor, dataset, ALONE, workers=workers, reporter=Mute(), note=lambda *_: ends.append(time.monotonic()))
    return [after - before for before, after in itertools.pairwise(ends)]


def _part(dataset: EvaluationSet, count: int) -> EvaluationSet:
    return EvaluationSet([dataset.records[index] for index in evenly(len(dataset), count)], dataset.reader)
