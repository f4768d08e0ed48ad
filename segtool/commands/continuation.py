"""`segtool train --resume`: from a run and what may have changed since to the training that goes on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segtool.commands.execution import execute, working_in
from segtool.commands.preparation import planned, prepared, verify_components
from segtool.commands.provenance import (
    continued_facts,
    differences,
    fingerprint,
    is_dealt_anew,
    is_of_this_job,
    refuse_changes,
    resolved_like,
    timestamp,
)
from segtool.commands.sources import Session, is_data, load_any
from segtool.config import Config, load_config, located
from segtool.data.formats import split_records
from segtool.errors import CheckpointError, ConfigError, SegtoolError
from segtool.models.segmenter import outline
from segtool.runs import checkpoint, history
from segtool.runs.checkpoint import Checkpoint
from segtool.runs.checkpoint_files import MANIFEST
from segtool.runs.run_directory import CONFIG, Run, RunDirectory, fold_runs, holds_run, relocate, resume_command, typed
from segtool.system.devices import choose_device, place
from segtool.system.distributed import World
from segtool.system.terminal import Reporter, counted, duration
from segtool.training.budget import Budget
from segtool.training.forecast import seconds_per_validation
from segtool.training.optim import learning_rate
from segtool.training.plan import Plan


def continue_run(session: Session, world: World, reporter: Reporter, *, dry_run: bool) -> None:
    """Trains a run on from its last checkpoint that verifies, or says why there is nothing left to train.

    Raises:
        CheckpointError: there is no run, or no checkpoint of it can be used.
        ConfigError: what its weights were made for has changed, or the length is reached already.
    """
    directory = session.run or session.config
    _require_run(directory, session.device)
    device = place(world, choose_device(session.device))
    run = (RunDirectory if dry_run else Run)(directory, device=session.device, processes=world.size)
    with working_in(run, reporter):
        resumed = history.last(run.checkpoints, warn=reporter.warn)
        if resumed is None:
            raise CheckpointError(f"{directory}: holds no checkpoint to continue from; start afresh with another --run")
        if not (directory / CONFIG).exists() and not dry_run:
            run.write_config(relocate(resumed.config, resumed.path, directory))
            reporter.warn(f"{directory / CONFIG}: was gone; it is written anew from {resumed.path.name}")
        config = _config_now(session, directory, resumed)
        verify_components(config, device, world.size)
        resumed.require_fit(outline(config.model, len(config.data.classes), config.data.channels))
        with located(config):
            records = split_records(config, directory)
        config, plan = planned(config, records, device, world)
        changes = differences(load_config(directory / CONFIG), config)
        facts = run.read_facts()
        if facts.get("data") not in (None, fingerprint(records)):
            other = "its files have other names or sizes"
            if is_dealt_anew(facts, records, changes):
                other = (
                    "its splits hold other pairs, so some that validate it now may have trained it, and its best "
                    "score may be of others"
                )
            reporter.warn(f"the data is not what the run began with: {other}")
        if _is_over(run, resumed, config, plan, changes, reporter):
            if "end" not in facts and not dry_run:  # the process ended between its last checkpoint and this
                history.remove_old(run.checkpoints, keep=config.train.keep, warn=reporter.warn)
                run.write_facts({**facts, "end": timestamp(), "steps_done": resumed.progress.step})
            return
        for change in changes:
            reporter.say(f"changed: {change}")
        _say_batch(resumed, plan, reporter)
        _say_rate(resumed, config, plan, reporter)
        step = resumed.progress.step
        if dry_run:
            ends = "" if session.budget is None else f", for {duration(session.budget)} at most"
            going_on = f"would continue {directory} from step {step} of {plan.steps}{ends}"
            reporter.say(f"{going_on}; dry run: nothing was written")
            return
        reporter.say(f"continuing {directory} from step {step} of {plan.steps}")
        work = prepared(config, plan, records, device, world)
        budget = None
        if session.budget is not None:
            budget = Budget(session.began + session.budget, per_validation=seconds_per_validation(work))
        run.drop_after(step, warn=reporter.warn)
        run.write_config(config)
        facts = continued_facts(facts, step, plan, device, world, reporter)
        run.write_facts(facts)
        execute(work, run, reporter, facts, resumed=resumed, budget=budget)


def restarted(session: Session) -> Session:
    """Returns the session as it is or, where a launcher has started it again, one that continues its run."""
    run = session.run
    if session.resume or run is None or not is_of_this_job(run):
        return session
    saved = checkpoint.committed(RunDirectory(run).checkpoints)
    return replace(session, config=run, overrides=(), resume=True) if saved else session


def _require_run(directory: Path, device: str) -> None:
    """Raises SegtoolError where a directory is not a run that has saved something."""
    if folds := len(fold_runs(directory)):
        command = f"segtool train CONFIG --folds N --run {typed(directory)} --resume"
        raise SegtoolError(
            f"{directory}: holds {counted(folds, 'fold')} and is no run of its own; continue them with: {command}"
        )
    if (directory / MANIFEST).is_file():
        run = Path(os.path.normpath(directory.absolute().parent.parent))
        raise CheckpointError(
            f"{directory}: is a checkpoint, which is never changed; its run goes on from its last one with: "
            f"{resume_command(run, device)}; or give --run DIR in place of --resume to train its config anew"
        )
    if directory.name == CONFIG and not is_data(directory.parent):
        command = resume_command(directory.parent, device)
        raise CheckpointError(f"{directory}: is the config of a run; continue it with: {command}")
    if not holds_run(directory) and not (directory / "run.json").exists():
        raise CheckpointError(
            f"{directory}: is no run to continue; name the directory of one, segtool train RUN --resume, or begin "
            "one by leaving out --resume"
        )
    if not holds_run(directory):
        again = f"segtool train {typed(directory)} --run {typed(directory)}"
        how = f": {again}" if (directory / CONFIG).exists() else " by leaving out --resume"
        raise CheckpointError(
            f"{directory}: ended before its first checkpoint, so there is nothing to continue; begin it again{how}"
        )


def _config_now(session: Session, directory: Path, resumed: Checkpoint) -> Config:
    """Returns the config that a run goes on with. Raises ConfigError for changes of what its weights were made for."""
    if session.run is not None and session.config != session.run:
        given, base = load_any(session.config, session.overrides)
        config = resolved_like(relocate(given, base, directory), resumed.config)
    else:
        config = load_config(directory / CONFIG, session.overrides)
    refuse_changes(relocate(resumed.config, resumed.path, directory), config, directory)
    return config


def _is_over(
    run: RunDirectory, resumed: Checkpoint, config: Config, plan: Plan, changes: Sequence[str], reporter: Reporter
) -> bool:
    """Whether a run has come to its end, which is said; ConfigError where it is beyond the length that is given now."""
    progress, patience = resumed.progress, config.train.patience
    left = f"; nothing is left that this would change: {', '.join(changes)}" if changes else ""
    if progress.step >= plan.steps:
        before, now = ((train.epochs, train.steps) for train in (resumed.config.train, config.train))
        if not progress.finished or (progress.step > plan.steps and before != now):
            raise ConfigError(
                f"{run.directory}: stands at step {progress.step}, and the length given is "
                f"{counted(plan.steps, 'step')}; give a longer one"
            )
        reporter.say(
            f"{run.directory}: is done at step {progress.step}; extend it with --set train.epochs=… or train.steps=…"
            f"{left}"
        )
        return True
    if progress.finished and patience is not None and progress.stale >= patience:
        reporter.say(
            f"{run.directory}: ended at step {progress.step} for want of improvement; raise train.patience to go on"
            f"{left}"
        )
        return True
    return False


def _say_batch(resumed: Checkpoint, plan: Plan, reporter: Reporter) -> None:
    """Says what a changed batch makes of the epochs, as step s takes the images of the stream from s batches on."""
    step, before = resumed.progress.step, resumed.config.train.batch_size
    if plan.batch_size != before:
        was, now = (step * size / plan.images for size in (before, plan.batch_size))
        reporter.say(
            f"epochs: step {step} was epoch {was:.1f} and counts as {now:.1f}, as if all batches had been of "
            f"{counted(plan.batch_size, 'image')}; the order of the images goes on from there"
        )


def _say_rate(resumed: Checkpoint, config: Config, plan: Plan, reporter: Reporter) -> None:
    """Says how the learning rate goes on, where the config or the length that changed has changed it."""
    step, before = resumed.progress.step, resumed.progress.steps
    looked_at = (step, (step + plan.steps) // 2, plan.steps - 1)
    first, *later = rates = [learning_rate(config.optim, at, plan.steps) for at in looked_at]
    if plan.steps != before or rates != [learning_rate(resumed.config.optim, at, before) for at in looked_at]:
        last = f" after {learning_rate(resumed.config.optim, step - 1, before):.3g} in step {step}" if step else ""
        reporter.say(
            f"learning rate: goes on at {first:.3g}{last} and ends at {later[-1]:.3g}, as if the run had been of "
            f"{counted(plan.steps, 'step')} from the beginning"
        )
