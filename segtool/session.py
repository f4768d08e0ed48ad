"""What `segtool train` does: from what the user names to a run that is trained, continued, or foretold."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segtool.config import Config, load_config, located, parse_config, plain
from segtool.disk import write_atomically
from segtool.errors import (
    CheckpointError,
    ConfigError,
    DiskError,
    DivergedError,
    Interrupted,
    LostError,
    SegtoolError,
)
from segtool.members import fold_runs
from segtool.preparation import (
    Records,
    budgeted,
    checked_records,
    frequencies_of,
    last_step,
    planned,
    require_shares,
    verify_components,
)
from segtool.provenance import (
    continued_facts,
    fingerprint,
    first_facts,
    is_of_this_job,
    refuse_changes,
    require_alike,
    say_differences,
    timestamp,
)
from segtool.runs import CONFIG, Run, RunDirectory, holds_run, next_free, relocate, typed
from segtool.sources import is_data, load_any, load_text, run_name, scaffolded

if TYPE_CHECKING:
    import torch

    from segtool.check.findings import Report
    from segtool.checkpoint import Checkpoint
    from segtool.data.statistics import ClassFrequencies
    from segtool.distributed import World
    from segtool.plan import Plan
    from segtool.terminal import Reporter
    from segtool.trial import Trial


@dataclass(frozen=True)
class Session:
    """What `segtool train` was asked for."""

    config: Path
    overrides: tuple[str, ...] = ()
    run: Path | None = None
    resume: bool = False
    budget: float | None = None
    device: str = "auto"
    quiet: bool = False
    gpus: int = 1
    """Processes to start for it; 1: this one, or those that torchrun has started."""
    max_restarts: int = 0
    preflight: bool = True
    """Whether a new training is tried on small crops before its first step."""


def train_session(session: Session, *, dry_run: bool = False) -> float | None:
    """Trains as `segtool train` does: resolves everything, then trains or continues, and says what came of it.

    Returns:
        With `dry_run`, the seconds that a new run would take; else None.

    Raises:
        SegtoolError: of the kind that tells what is wrong.
    """
    began = time.monotonic()
    if not session.resume and "RANK" not in os.environ:
        _new_directory(session, dry_run=dry_run)  # before torch is loaded, which takes seconds
    from segtool.distributed import join_world
    from segtool.terminal import Reporter

    if session.gpus > 1:
        _launch(session, began, dry_run=dry_run)
        return None
    with join_world() as world:
        if not world.is_main:
            try:
                while text := world.receive():
                    _follow(session, json.loads(text), world)
            except DivergedError as error:  # of all processes alike, and the main one tells it
                raise LostError(*error.problems) from error
            except Interrupted as error:
                with contextlib.suppress(RuntimeError):
                    world.receive()  # until the main process has saved and ended
                raise SystemExit(error.exit_code) from error
            return None
        seconds = None
        session = _restarted(session)
        reporter = Reporter(quiet=session.quiet)
        if session.resume:
            _resume(session, world, reporter, began, dry_run=dry_run)
        else:
            seconds = _begin(session, world, reporter, began, dry_run=dry_run)
        world.send("")
        return seconds


def _launch(session: Session, began: float, *, dry_run: bool) -> None:
    """Starts the session's processes, after what can be known without them is looked at, and waits for their end."""
    from segtool.distributed import check_gpus, choose_device, world_of
    from segtool.launch import launch
    from segtool.terminal import Reporter

    if (world := world_of(os.environ)).size > 1:
        problem = f"--gpus {session.gpus}: torchrun has started {world.size} processes already; leave it out"
        raise SegtoolError(problem) if world.is_main else LostError(problem)
    if choose_device(session.device).type == "cuda":
        check_gpus(session.gpus)
    there = session.config if session.resume else next_free(Path("runs"), run_name(session.config))
    directory = session.run or there
    timeout = Config().train.timeout
    if session.resume or not is_data(session.config):
        config, _ = load_any(directory if session.resume else session.config, session.overrides)
        require_shares(config, session.gpus)
        timeout = config.train.timeout
    arguments = ["--debug"] if "--debug" in sys.argv else []
    arguments += ["train", "--run", str(directory), "--device", session.device]
    arguments += [word for override in session.overrides for word in ("--set", override)]
    if session.budget is not None:
        arguments += ["--budget", f"{max(1.0, session.budget - (time.monotonic() - began)):.0f}s"]
    flags = {"--resume": session.resume, "--quiet": session.quiet, "--dry-run": dry_run}
    flags["--no-preflight"] = not session.preflight
    arguments += [flag for flag, given in flags.items() if given]
    reporter = Reporter(quiet=session.quiet)
    launch(
        [*arguments, "--", str(session.config)],
        processes=session.gpus,
        max_restarts=session.max_restarts,
        patience=timeout,
        say=reporter.warn,
    )


def _begin(session: Session, world: World, reporter: Reporter, began: float, *, dry_run: bool) -> float | None:
    from segtool import checkpoint
    from segtool.distributed import choose_device, place
    from segtool.forecast import describe, measure

    directory = _new_directory(session, dry_run=dry_run)
    device = place(world, choose_device(session.device))
    text = scaffolded(session.config, directory) if is_data(session.config) else None
    if text is None:
        config, base = load_any(session.config, session.overrides)
    else:
        config, base = load_text(text, session.config, session.overrides), directory
    require_shares(config, world.size)
    relocate(config, base, directory)  # for its errors, before the data is read
    pretrained = verify_components(config, base)
    _say_reasons(session.config, text, config, reporter, dry_run=dry_run)
    records, report = checked_records(config, base, reporter)
    config, plan = planned(config, records, device, world, pretrained)
    _say_plan(config, plan, records, device, world, reporter)
    frequencies = frequencies_of(config, records)
    if dry_run:
        _say_brief(config, plan, report, frequencies, reporter)
    trial = None
    if session.preflight:
        trial = _preflight(config, plan, records, frequencies, base, directory, device, world, reporter)
    deadline = None
    if dry_run or session.budget is not None:
        prepared = time.monotonic() - began
        forecast = measure(config, records, frequencies, plan, world, device, reporter)
        if session.budget is not None:
            config, plan, deadline = budgeted(config, plan, forecast.times, session.budget, began, reporter)
        if dry_run:
            for line in describe(forecast, config, plan, prepared=prepared, directory=directory):
                reporter.say(line)
            reporter.say(f"would write {directory}; dry run: nothing was written")
            return prepared + forecast.times.total(plan)
    run = Run(directory) if session.run else _next_run(directory)
    with _working_in(run, reporter):
        _refuse_run(run.directory)  # that another process has made meanwhile
        checkpoint.remove_unfinished(run.checkpoints)
        if text is not None:
            write_atomically(run.directory / "init.yaml", text.encode())
        if trial is not None:
            _try_directory(trial, run, reporter)
            trial = None  # and its memory is free again
        config = relocate(config, base, run.directory)
        facts = first_facts(config, plan, records, device, world)
        run.write_facts(facts)  # before the config, which without them counts as the user's own
        run.write_config(config)
        _train(config, plan, records, frequencies, run, reporter, world, device, facts, deadline=deadline)
    return None


def _preflight(
    config: Config,
    plan: Plan,
    records: Records,
    frequencies: ClassFrequencies | None,
    base: Path,
    directory: Path,
    device: torch.device,
    world: World,
    reporter: Reporter,
) -> Trial:
    """Says what is found before anything is written; raises SegtoolError where no training comes through it."""
    from segtool.preflight import look, suffice, tell

    tell(suffice(config, plan, directory, device, world), reporter)  # first, since a trial takes memory itself
    return look(config, records, frequencies, plan, base=base, device=device, reporter=reporter)


def _try_directory(trial: Trial, run: RunDirectory, reporter: Reporter) -> None:
    from segtool.preflight import checkpoint_holds, draw_first_batch, tell

    tell([checkpoint_holds(trial, run)], reporter)
    reporter.say(f"preflight: the first batch with its masks: {draw_first_batch(trial, run.samples)}")


def _new_directory(session: Session, *, dry_run: bool) -> Path:
    """Returns where a new run goes, after what could be wrong with it is looked at, without torch."""
    directory = session.run or next_free(Path("runs"), run_name(session.config))
    _refuse_run(directory)
    if fold_runs(directory):
        raise SegtoolError(f"{directory}: holds folds, beside which no single run can lie; choose another --run")
    if not dry_run:
        _claimable(directory)
    return directory


def _nothing_to_continue(directory: Path) -> str:
    if not (directory / "run.json").exists():
        return f"{directory}: holds no run to continue; start one by leaving out --resume"
    quoted = typed(directory)
    again = f": segtool train {quoted} --run {quoted}" if (directory / CONFIG).exists() else " by leaving out --resume"
    return f"{directory}: ended before its first checkpoint, so there is nothing to continue; begin it again{again}"


def _refuse_run(directory: Path) -> None:
    """Raises SegtoolError where a directory holds a run."""
    if holds_run(directory):
        raise SegtoolError(
            f"{directory}: holds a run; continue it with: segtool train {typed(directory)} --resume, "
            "or choose another --run"
        )


def _next_run(directory: Path) -> Run:
    """Returns the run of a directory that this process has made, with a later number where another was there first."""
    while True:
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            directory.mkdir()
        except FileExistsError:
            directory = next_free(directory.parent, directory.name.rpartition("-")[0])
        except OSError:
            return Run(directory)  # which tells why
        else:
            return Run(directory)


def _resume(session: Session, world: World, reporter: Reporter, began: float, *, dry_run: bool) -> None:
    from segtool import checkpoint
    from segtool.data.formats import split_records
    from segtool.distributed import choose_device, place
    from segtool.forecast import scored_seconds
    from segtool.models.segmenter import outline

    directory = session.run or session.config
    if folds := len(fold_runs(directory)):
        command = f"segtool train CONFIG --folds N --run {typed(directory)} --resume"
        raise SegtoolError(f"{directory}: holds {folds} folds and is no run of its own; continue them with: {command}")
    if (directory / checkpoint.MANIFEST).is_file():
        run_directory = typed(Path(os.path.normpath(directory.absolute().parent.parent)))
        raise CheckpointError(
            f"{directory}: is a checkpoint, which is never changed; its run goes on from its last one with: segtool "
            f"train {run_directory} --resume; or give --run DIR in place of --resume to train its config anew"
        )
    if not holds_run(directory):
        raise CheckpointError(_nothing_to_continue(directory))
    device = place(world, choose_device(session.device))
    run = RunDirectory(directory) if dry_run else Run(directory)
    with _working_in(run, reporter):
        resumed = checkpoint.last(run.checkpoints, warn=reporter.warn)
        if resumed is None:
            raise CheckpointError(f"{directory}: holds no checkpoint to continue from; start afresh with another --run")
        if session.run is not None and session.config != session.run:
            given, base = load_any(session.config, session.overrides)
            config = _resolved_like(relocate(given, base, directory), resumed.config)
        else:
            config = load_config(directory / CONFIG, session.overrides)
        refuse_changes(relocate(resumed.config, resumed.path, directory), config, directory)
        require_shares(config, world.size)
        verify_components(config)
        resumed.require_fit(outline(config.model, len(config.data.classes), config.data.channels))
        with located(config):
            records = split_records(config, directory)
        config, plan = planned(config, records, device, world)
        say_differences(load_config(directory / CONFIG), config, reporter)
        _say_rate(resumed, config, plan, reporter)
        facts = run.read_facts()
        if facts.get("data") not in (None, fingerprint(records)):
            reporter.warn("the data is not what the run began with: its files have other names or sizes")
        step = resumed.progress.step
        if resumed.progress.finished and step >= plan.steps:
            reporter.say(f"{directory}: is done at step {step}; extend it with --set train.epochs=… or train.steps=…")
            if "end" not in facts and not dry_run:  # the process ended between its last checkpoint and this
                checkpoint.remove_unfinished(run.checkpoints)
                checkpoint.remove_old(run.checkpoints, keep=config.train.keep, warn=reporter.warn)
                run.write_facts({**facts, "end": timestamp(), "steps_done": step})
            return
        if step >= plan.steps:
            raise ConfigError(
                f"{directory}: stands at step {step}, and the length given is {plan.steps} steps; give a longer one"
            )
        patience = config.train.patience
        if resumed.progress.finished and patience is not None and resumed.progress.stale >= patience:
            reporter.say(f"{directory}: ended at step {step} for want of improvement; raise train.patience to go on")
            return
        reporter.say(f"continuing {directory} from step {step} of {plan.steps}")
        if dry_run:
            return
        deadline = None
        if session.budget is not None:
            deadline = last_step(began + session.budget, scored_seconds(config, records, world, device))
        checkpoint.remove_unfinished(run.checkpoints)
        run.drop_after(step)
        run.write_config(config)
        facts = continued_facts(facts, step, plan, device, reporter)
        run.write_facts(facts)
        frequencies = frequencies_of(config, records)
        _train(
            config, plan, records, frequencies, run, reporter, world, device, facts, resumed=resumed, deadline=deadline
        )


def _train(
    config: Config,
    plan: Plan,
    records: Records,
    frequencies: ClassFrequencies | None,
    run: RunDirectory,
    reporter: Reporter,
    world: World,
    device: torch.device,
    facts: dict[str, Any],
    *,
    resumed: Checkpoint | None = None,
    deadline: float | None = None,
) -> None:
    from segtool.train import train

    reporter.keep_in(run.log)
    reporter.say(f"run directory: {run.directory}")
    world.send(_orders(config, plan, records, frequencies, run, resumed))
    require_alike(world, fingerprint(records))
    progress = train(
        config,
        records,
        frequencies,
        plan,
        run,
        world=world.limited(config.train.timeout),
        device=device,
        reporter=reporter,
        resumed=resumed,
        deadline=deadline,
    )
    run.write_facts({**facts, "end": timestamp(), "steps_done": progress.step})
    if progress.step < plan.steps:
        reporter.say(f"ended at step {progress.step} of {plan.steps}")
    quoted = typed(run.directory)
    if progress.best is not None:
        reporter.say(
            f"best mIoU on val: {100 * progress.best:.2f} % (it chose the checkpoint, so it flatters; see test)"
        )
    reporter.say(f"next: segtool eval {quoted}; segtool predict {quoted} IMAGES --out MASKS --overlay")


@contextlib.contextmanager
def _working_in(run: RunDirectory, reporter: Reporter) -> Iterator[None]:
    """Keeps why a run ends in its log, tells how to go on where its disk failed, and lets go of its directory."""
    try:
        yield
    except DiskError as error:
        raise DiskError(*error.problems, _how_to_go_on(run)) from error
    except SegtoolError as error:
        with contextlib.suppress(DiskError):
            reporter.note(f"error: {error}")
        raise
    finally:
        reporter.close()
        run.close()


def _how_to_go_on(run: RunDirectory) -> str:
    """Says what a run whose disk failed has saved, after looking, and the command that continues it."""
    from segtool import checkpoint

    with contextlib.suppress(CheckpointError):
        if saved := checkpoint.last(run.checkpoints):
            command = f"segtool train {typed(run.directory)} --resume"
            return f"step {saved.progress.step} is saved and whole; when that is mended, continue with: {command}"
    return f"{run.directory}: no step is saved; when that is mended, begin again with the same command"


def _orders(
    config: Config,
    plan: Plan,
    records: Records,
    frequencies: ClassFrequencies | None,
    run: RunDirectory,
    resumed: Checkpoint | None,
) -> str:
    """Returns what the main process decided, for the others, as JSON."""
    orders = {
        "config": plain(config),
        "plan": {**vars(plan), "choices": ()},
        "frequencies": None if frequencies is None else vars(frequencies),
        "run": str(run.directory),
        "resumed": None if resumed is None else resumed.path.name,
    }
    return json.dumps(orders)


def _follow(session: Session, orders: dict[str, Any], world: World) -> None:
    """Trains along with the main process, which alone looks at the data before, speaks and writes.

    Raises:
        DataError: the data here is not what the main process has.
    """
    from segtool import checkpoint
    from segtool.data.formats import split_records
    from segtool.data.statistics import ClassFrequencies
    from segtool.distributed import choose_device, place
    from segtool.plan import Plan
    from segtool.terminal import Mute
    from segtool.train import train

    device = place(world, choose_device(session.device))
    config = parse_config(orders["config"])
    run = RunDirectory(Path(orders["run"]))
    records = split_records(config, run.directory)
    require_alike(world, fingerprint(records))
    resumed = None if orders["resumed"] is None else checkpoint.load(run.checkpoints / orders["resumed"])
    train(
        config,
        records,
        None if orders["frequencies"] is None else ClassFrequencies(**orders["frequencies"]),
        replace(Plan(**orders["plan"]), crop=tuple(orders["plan"]["crop"])),
        run,
        world=world.limited(config.train.timeout),
        device=device,
        reporter=Mute(),
        resumed=resumed,
    )


def _say_reasons(source: Path, text: str | None, config: Config, reporter: Reporter, *, dry_run: bool) -> None:
    """Says why `init` chose what it did for a data folder, and in a dry run what the comments of a config say."""
    from segtool.briefing import reasons

    if text is not None:
        reporter.say(f"config: none given, so it is the one that segtool init writes for {source}; the run keeps it")
    elif dry_run and source.is_file():
        text = source.read_text(encoding="utf-8", errors="replace")
    for choice in reasons(text or "", config):
        reporter.say(f"{choice.what}: {choice.value} ({choice.reason})")


def _say_brief(
    config: Config, plan: Plan, report: Report, frequencies: ClassFrequencies | None, reporter: Reporter
) -> None:
    from segtool.briefing import brief

    counts = Counter(finding.severity for finding in report.findings)
    for line in brief(config, plan, report.summary, counts, frequencies):
        reporter.say(line)


def _say_plan(
    config: Config, plan: Plan, records: Records, device: torch.device, world: World, reporter: Reporter
) -> None:
    counts = ", ".join(f"{len(found)} {name}" for name, found in records.items())
    together = f"; {world.size} processes" if world.size > 1 else ""
    reporter.say(f"data: {counts} pairs; {len(config.data.classes)} classes; device: {device}{together}")
    reporter.say(
        f"length: {plan.steps} steps of {plan.batch_size} images ({plan.epochs:.1f} epochs), "
        f"validation every {plan.eval_steps} steps, crop {plan.crop[0]}x{plan.crop[1]}"
    )
    for choice in plan.choices:
        reporter.say(f"{choice.what}: {choice.value} ({choice.reason})")


def _claimable(directory: Path) -> None:
    """Raises CheckpointError at once where the run directory cannot be made."""
    parent = directory
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise CheckpointError(
            f"{directory}: cannot be made, since {parent} is no folder that can be written; choose another --run"
        )


def _resolved_like(given: Config, before: Config) -> Config:
    """Returns a config as the user gives it with what the run had resolved: format of masks, mean, deviation."""
    data = replace(
        given.data,
        mean=given.data.mean or before.data.mean,
        std=given.data.std or before.data.std,
        mask_mode=given.data.mask_mode or before.data.mask_mode,
        palette=given.data.palette or before.data.palette,
    )
    return replace(given, data=data)


def _say_rate(resumed: Checkpoint, config: Config, plan: Plan, reporter: Reporter) -> None:
    """Says how the learning rate goes on, where that is not how it would have gone on."""
    from segtool.optim import learning_rate

    step, before = resumed.progress.step, resumed.progress.steps
    if step >= plan.steps:
        return
    looked_at = (step, (step + plan.steps) // 2, plan.steps - 1)
    first, *later = rates = [learning_rate(config.optim, at, plan.steps) for at in looked_at]
    if plan.steps != before or rates != [learning_rate(resumed.config.optim, at, before) for at in looked_at]:
        last = f" after {learning_rate(resumed.config.optim, step - 1, before):.3g} in step {step}" if step else ""
        reporter.say(
            f"learning rate: goes on at {first:.3g}{last} and ends at {later[-1]:.3g}, as if the run had been of "
            f"{plan.steps} steps from the beginning"
        )


def _restarted(session: Session) -> Session:
    """Returns the session as it is, or where a launcher starts it anew the one that continues its run."""
    from segtool import checkpoint

    run = session.run
    if session.resume or run is None or not is_of_this_job(run):
        return session
    if not checkpoint.committed(RunDirectory(run).checkpoints):
        return session
    return replace(session, config=run, overrides=(), resume=True)
