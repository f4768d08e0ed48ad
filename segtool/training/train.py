"""Training: from a config and a run directory to checkpoints and scores."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from segtool.config import Config, located
from segtool.data.cache import make_cache
from segtool.data.dataset import EvaluationSet, Sample, TrainingSet
from segtool.data.loader import little_shared_memory, num_workers, training_batches
from segtool.data.reader import Reader
from segtool.errors import DivergedError, Interrupted, shown
from segtool.prediction.inference import Predictor, fast_dtype
from segtool.runs import checkpoint, history
from segtool.runs.checkpoint import Progress
from segtool.runs.run_directory import RunDirectory, relocate
from segtool.scoring.evaluate import evaluate
from segtool.system.distributed import World
from segtool.system.memory import keep_freed_memory
from segtool.system.shortage import shortage_told
from segtool.system.signals import catch_signals, raised_at_signals
from segtool.system.terminal import Reporter, counted
from segtool.training import training_step
from segtool.training.budget import Budget
from segtool.training.divergence import not_finite
from segtool.training.memory import lighter
from segtool.training.optim import learning_rate
from segtool.training.plan import Plan, Prepared, largest_part, of_length
from segtool.training.samples import Samples
from segtool.training.training_log import Logs
from segtool.training.training_step import MakeStep, Outcome, Training

LATE_STEPS = 1  # by which a device that runs ahead may be behind, before the loss of a step is waited for
CHECKPOINT_SECONDS = 600  # a checkpoint at the latest after this long, whatever the validations do


def train(
    work: Prepared,
    run: RunDirectory,
    *,
    reporter: Reporter,
    resumed: checkpoint.Checkpoint | None = None,
    budget: Budget | None = None,
) -> Progress:
    """Trains to the end of the plan and returns where it stands then.

    Args:
        budget: The time that it has, where it is limited; the plan's length is then decided again on the way.

    Raises:
        ConfigError: the encoder's pretrained weights are not there, or of another network.
        CheckpointError: they cannot be read, or not be downloaded; or a checkpoint cannot be written.
        DivergedError: loss or gradient is not finite; the step was not made, and what was saved before stays.
        Interrupted: a signal came; the step was finished and saved, or left out while its network was compiled.
    """
    config, plan = work.config, work.plan
    world = work.world.limited(config.train.timeout)
    budget = budget or Budget(math.inf)
    keep_freed_memory()
    training_set = build_training_set(work)
    samples = Samples(EvaluationSet(work.records.get("val", []), Reader.of(config)), config.train.samples)
    with work.world.agreed():
        if world.is_main:
            samples.require_places(run.samples)
    training, progress = begin(work, world, run, resumed, reporter)
    budget.frozen_steps = training_step.frozen_steps(training, len(training_set.records))
    make_step = first_step(training, run, progress, reporter)
    workers = num_workers(config.train.workers, work.device, world)
    logs = Logs(run, world, reporter, config, plan, workers=workers, frequencies=work.frequencies)
    batches = logs.awaited(load(training, training_set, plan, start=progress.step, workers=workers, reporter=reporter))
    world.meet()
    saved_at = time.monotonic()
    with (
        catch_signals() as signals,
        logs.flushed_where_it_diverges(config),
        shortage_told(partial(shortage_advice, training, plan, run)),
    ):
        while progress.step < plan.steps:
            batch = next(batches)
            rate = learning_rate(config.optim, progress.step, plan.steps)
            outcome = make_step(training, batch, progress.step, rate, training_set.records)
            make_step = training_step.train_step
            progress = replace(progress, step=progress.step + 1, score=None)
            logs.step(progress, outcome, late=LATE_STEPS if training.runs_ahead else 0)

            # Once in a while: decide the length anew, validate, save, end.
            steps = world.largest(budget.stepped(plan, progress.step) if world.is_main else 0)
            if resized := steps != plan.steps:
                training.config, plan = of_length(training.config, plan, steps)
                progress = replace(progress, steps=steps)
                logs.resize(plan)
            last = progress.step == plan.steps or bool(world.largest(budget.is_up))
            scored = last or progress.step % plan.eval_steps == 0
            if scored:
                logs.settle()
                progress = validate(training, samples, progress, run, logs, workers)
                last = last or is_out_of_patience(progress, config, reporter)
                last = last or bool(world.largest(budget.is_up))  # where that took longer than was foretold
            # Looked at once: a signal that comes later ends the next step, after its save.
            stop = world.largest(signals[0] if signals else 0)
            due = world.largest(time.monotonic() - saved_at > CHECKPOINT_SECONDS)
            if last or stop or due or resized or progress.score is not None:
                progress = replace(progress, finished=last)
                log_and_save(training, progress, run, logs)
                saved_at = time.monotonic()
            if resized and world.is_main:
                run.write_length(training.config)
            if last:
                break
            if stop:
                raise Interrupted(stop, run.resume_command, progress.step)
            budget.goes_on(scored=scored)
    return progress


def begin(
    work: Prepared, world: World, run: RunDirectory, resumed: checkpoint.Checkpoint | None, reporter: Reporter
) -> tuple[Training, Progress]:
    """Returns a training and where it stands: at a checkpoint, or at its start.

    What the run had saved beyond that checkpoint is set aside; the start is saved.
    """
    start = None if resumed else partial(training_step.load_pretrained, base=run.directory, reporter=reporter)
    with located(work.config):
        training = training_step.build_training(work.config, work.frequencies, work.device, world, start=start)
    if resumed:
        resumed.restore(training.state)
        if world.is_main:
            history.set_aside(run.checkpoints, after=resumed.progress.step)
            history.remove_old(run.checkpoints, keep=work.config.train.keep, warn=reporter.warn)
        return training, replace(resumed.progress, steps=work.plan.steps)
    progress = Progress(steps=work.plan.steps)
    save(training, progress, run, reporter)
    return training, progress


def first_step(training: Training, run: RunDirectory, progress: Progress, reporter: Reporter) -> MakeStep:
    """Returns what makes the first step, in which the network is compiled where the config says so.

    That takes minutes, and what the compiler leaves out when it is ended changes the step: so a signal ends it there,
    without the step.
    """
    make_step = training_step.start_compilation(training, reporter)
    if not training.config.train.compile:
        return make_step

    def interruptible(*arguments: Any) -> Outcome:
        with raised_at_signals(partial(stopped_at, run, training.world, progress.step)):
            return make_step(*arguments)

    return interruptible


def log_and_save(training: Training, progress: Progress, run: RunDirectory, logs: Logs) -> None:
    """Commits a checkpoint whose steps are all known to be made and finite, and are in the logs."""
    logs.settle()
    require_finite(training, progress.step)
    logs.flush()
    save(training, progress, run, logs.reporter)


def save(training: Training, progress: Progress, run: RunDirectory, reporter: Reporter) -> None:
    """Commits a checkpoint, and removes those that are not kept; the main process does."""
    if training.world.is_main:
        run.require_there()
        config = relocate(training.config, run.directory, run.checkpoints / "step")
        checkpoint.save(run.checkpoints, training.state, config, progress)
        history.remove_old(run.checkpoints, keep=config.train.keep, warn=reporter.warn)


def load(
    training: Training, dataset: TrainingSet, plan: Plan, *, start: int, workers: int, reporter: Reporter
) -> Iterator[Sample]:
    """Returns the batches from a step on, after warning where the memory that they come through is too little."""
    config, world = training.config, training.world
    here = config.train.batch_size * world.local_size // world.size  # images of a batch on this machine
    if warning := little_shared_memory(here * plan.crop[0] * plan.crop[1] * (config.data.channels + 1), workers):
        reporter.warn(warning)
    return training_batches(
        dataset,
        world,
        batch_size=config.train.batch_size,
        start=start,
        steps=max(plan.steps, plan.most_steps),
        workers=workers,
        device=training.device,
    )


def stopped_at(run: RunDirectory, world: World, step: int, number: int) -> BaseException:
    """Returns the error that ends a training at a signal; `step` is saved, and the main process tells how to go on."""
    if world.is_main:
        return Interrupted(number, run.resume_command, step)
    return SystemExit(128 + number)


def shortage_advice(training: Training, plan: Plan, run: RunDirectory) -> str:
    """Returns, where a training ran out of memory, what is saved and the command to try next."""
    config, train = training.config, training.config.train
    found = lighter(config, training.model, plan.crop, largest_part(train, training.world.size) / 2)
    if found and plan.cache and training.device.type == "cpu":
        found = f"{found[0]} --set train.cache=false", found[1]
    smaller = "a network of fewer channels, in a new run"
    advice = f"{run.resume_command} --set {found[0]}: {found[1]}" if found else smaller
    saved = checkpoint.committed(run.checkpoints)[-1].name
    return (
        f"with train.batch_size {train.batch_size} in {train.accumulate} part(s), augment.crop "
        f"{plan.crop[0]}x{plan.crop[1]}, train.precision {train.precision}. The last checkpoint, {saved}, is intact; "
        f"try {advice}"
    )


def validation_shortage(run: RunDirectory, image: Path, size: tuple[int, int]) -> str:
    """Returns, where a validation ran out of memory, the image and what to try; its tiles cannot be made smaller."""
    return (
        f"in validation, at {shown(image)}, {size[1]}x{size[0]} pixels, which goes through the network as a whole "
        "up to 2 megapixels; make the images of the validation split smaller, or leave more memory free: "
        f"{run.resume_command} --set train.cache=false --set train.workers=0"
    )


def require_finite(training: Training, step: int) -> None:
    """Raises DivergedError where a step, itself finite, left weights or statistics that are not."""
    networks = dict.fromkeys([training.model, training.scored])
    tensors = chain(*(chain(x.named_parameters(), x.named_buffers()) for x in networks))
    spoiled = list(dict.fromkeys(not_finite(tensors)))  # what was averaged bears the same name
    if spoiled:
        raise DivergedError(
            f"step {step}: loss and gradient were finite, but what it made of {', '.join(spoiled[:3])} is not (of "
            f"{counted(len(spoiled), 'tensor')} in all); nothing of it is saved."
        )


def build_training_set(work: Prepared) -> TrainingSet:
    """Returns the training images as they come to the network, kept in memory where the plan says so."""
    config, plan, records = work.config, work.plan, work.records["train"]
    cache = make_cache(len(records)) if plan.cache else None
    return TrainingSet(
        records, Reader.of(config), config.augment, plan.crop, config.train.seed, work.frequencies, cache=cache
    )


def is_out_of_patience(progress: Progress, config: Config, reporter: Reporter) -> bool:
    """Whether so many validations in a row were no better that the training ends, which is said."""
    patience = config.train.patience
    if patience is None or progress.stale < patience:
        return False
    reporter.say(f"no better mean IoU in {patience} validations: training ends here")
    return True


def validate(
    training: Training, samples: Samples, progress: Progress, run: RunDirectory, logs: Logs, workers: int
) -> Progress:
    """Scores the validation split, draws its samples where it is the best so far, and returns the scored progress."""
    dataset = samples.dataset
    if not len(dataset):
        return progress
    training.world.spread(training.scored.buffers())  # those of BatchNorm have seen each process's images only
    predictor = build_predictor(training)
    began = time.monotonic()
    advise = partial(validation_shortage, run)
    note = samples.note if training.world.is_main else None
    scores = evaluate(
        predictor, dataset, training.world, workers=workers, reporter=logs.reporter, advise=advise, note=note
    )
    score = scores.miou
    better = score is not None and (progress.best is None or score > progress.best)
    if better and training.world.is_main:
        run.require_there()
        samples.draw(predictor, run.samples)
    progress = replace(
        progress,
        score=score,
        best=score if better else progress.best,
        stale=0 if better else progress.stale + (score is not None),
    )
    logs.validation(progress, scores, time.monotonic() - began, better=better)
    return progress


def build_predictor(training: Training) -> Predictor:
    """Returns what validates: the network as it stands, copied, in the arithmetic that predicts from a checkpoint."""
    dtype = fast_dtype(training.device)
    return Predictor(copy.deepcopy(training.scored), training.normalize, training.device, dtype=dtype)
