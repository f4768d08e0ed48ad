"""What `segtool train` does: from what the user names to a run that is trained, continued, or foretold."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from segtool.commands.continuation import continue_run, restarted
from segtool.commands.execution import execute, follow, working_in
from segtool.commands.preparation import budgeted, checked_records, planned, prepared, verify_components
from segtool.commands.provenance import first_facts
from segtool.commands.sources import (
    Session,
    is_data,
    load_any,
    load_text,
    new_directory,
    refuse_run,
    run_name,
    scaffolded,
)
from segtool.config import Config, located
from segtool.config.yaml_io import flow
from segtool.errors import DivergedError, Interrupted, LostError, SegtoolError
from segtool.runs.run_directory import Run, next_free, relocate
from segtool.system import launch
from segtool.system.devices import check_gpus, choose_device, place
from segtool.system.disk import make_folder, write_atomically
from segtool.system.distributed import World, join_world, world_of
from segtool.system.pools import end_imports
from segtool.system.terminal import Reporter, counted
from segtool.training import preflight
from segtool.training.briefing import brief, course, reasons
from segtool.training.forecast import Forecast, describe, measure
from segtool.training.plan import Prepared, check_machine


def train_session(session: Session, *, dry_run: bool = False) -> float | None:
    """Trains as `segtool train` does: resolves everything, then trains or continues, and says what came of it.

    Returns:
        With `dry_run`, the seconds that a new run would take; else None.
    """
    end_imports()
    if session.gpus > 1:
        _launch(session, dry_run=dry_run)
        return None
    with join_world() as world:
        if not world.is_main:
            _serve(session, world)
            return None
        seconds = None
        session = restarted(session)
        reporter = Reporter(quiet=session.quiet)
        if session.resume:
            continue_run(session, world, reporter, dry_run=dry_run)
        else:
            seconds = _begin(session, world, reporter, dry_run=dry_run)
        world.send("")
        return seconds


def _serve(session: Session, world: World) -> None:
    """Trains as the main process orders, until it sends no more orders."""
    try:
        while text := world.receive():
            follow(json.loads(text), world, session.device)
    except DivergedError as error:  # of all processes alike, and the main one tells it
        raise LostError(*error.problems) from error
    except Interrupted as error:
        with contextlib.suppress(RuntimeError):
            world.receive()  # until the main process has saved and ended
        raise SystemExit(error.exit_code) from error


def _launch(session: Session, *, dry_run: bool) -> None:
    """Checks what can be checked without them, starts the processes of a session, and waits for their end."""
    if (world := world_of(os.environ)).size > 1:
        problem = f"--gpus {session.gpus}: torchrun has started {world.size} processes already; leave it out"
        raise SegtoolError(problem) if world.is_main else LostError(problem)
    device = choose_device(session.device)
    if device.type == "cuda":
        check_gpus(session.gpus)
    there = session.config if session.resume else next_free(Path("runs"), run_name(session.config))
    directory = session.run or there
    timeout = Config().train.timeout
    if session.resume or not is_data(session.config):
        config, _ = load_any(directory if session.resume else session.config, session.overrides)
        with located(config):
            check_machine(config.train, device, session.gpus)
        timeout = config.train.timeout
    is_claimed = not (session.run or session.resume or dry_run)
    if is_claimed:
        directory = _claim(directory)
    reporter = Reporter(quiet=session.quiet)
    try:
        launch.launch(
            lambda: _arguments(session, directory, dry_run=dry_run),
            processes=session.gpus,
            max_restarts=session.max_restarts,
            patience=timeout,
            say=reporter.warn,
        )
    finally:
        if is_claimed:
            with contextlib.suppress(OSError):
                directory.rmdir()  # where nothing came to lie in it


def _arguments(session: Session, directory: Path, *, dry_run: bool) -> list[str]:
    """Returns the arguments that each process of a session is started with."""
    arguments = ["--debug"] if "--debug" in sys.argv else []
    arguments += ["train", "--run", str(directory), "--device", session.device]
    arguments += [word for override in session.overrides for word in ("--set", override)]
    if (left := session.left()) is not None:
        arguments += ["--budget", f"{max(1.0, left):.0f}s"]
    flags = {"--resume": session.resume, "--quiet": session.quiet, "--dry-run": dry_run}
    flags["--no-preflight"] = not session.preflight
    arguments += [flag for flag, given in flags.items() if given]
    return [*arguments, "--", str(session.config)]


def _begin(session: Session, world: World, reporter: Reporter, *, dry_run: bool) -> float | None:
    """Trains a new run; in a dry run returns the seconds that it would take."""
    directory = new_directory(session)
    device = place(world, choose_device(session.device))
    text = None
    if is_data(session.config):
        looking = reporter.counter(unit="file", label="looking at the data")
        text = scaffolded(session.config, directory, looking)
        config, base = load_text(text, session.config, session.overrides), directory
    else:
        config, base = load_any(session.config, session.overrides)
    relocate(config, base, directory)  # for its errors, before the data is read
    pretrained = verify_components(config, device, world.size, base)
    _say_reasons(session.config, text, config, reporter, dry_run=dry_run)
    records, report = checked_records(config, base, reporter)
    config, plan = planned(config, records, device, world, pretrained, budget=session.budget)
    work = prepared(config, plan, records, device, world)
    _say_plan(work, session, reporter)
    if dry_run:
        reporter.say("\n".join(brief(config, plan, report, work.frequencies)))
    trial = preflight.look(work, base, directory, reporter) if session.preflight else None
    budget = None
    if dry_run or session.budget is not None:
        spent = time.monotonic() - session.began
        forecast = measure(work, reporter, within=session.budget)
        if session.budget is not None:
            work, budget = budgeted(work, forecast.times, session.budget, session.began, reporter)
        if dry_run:
            return _foretell(work, forecast, spent, directory, reporter)
    run = Run(directory if session.run else _claim(directory), device=session.device, processes=world.size)
    with working_in(run, reporter):
        refuse_run(run.directory, session.device)  # that another process has made meanwhile
        if text is not None:
            write_atomically(run.directory / "init.yaml", text.encode())
        if trial is not None:
            preflight.look_into(run, trial, reporter)
            trial = None  # and its memory is free again
        work = replace(work, config=relocate(work.config, base, run.directory))
        facts = first_facts(work)
        run.write_facts(facts)  # before the config, which without them counts as the user's own
        run.write_config(work.config)
        execute(work, run, reporter, facts, budget=budget)
    return None


def _foretell(work: Prepared, forecast: Forecast, spent: float, directory: Path, reporter: Reporter) -> float:
    """Says what a training would take, and returns its seconds, those of preparing it included."""
    lines = describe(forecast, work, prepared=spent, directory=directory)
    reporter.say("\n".join([course(work.config.optim, work.plan.steps), *lines]))
    reporter.say(f"would write {directory}; dry run: nothing was written")
    return spent + forecast.times.total(work.plan)


def _claim(directory: Path) -> Path:
    """Returns a directory that this process has made, with a later number where another was there first."""
    make_folder(directory.parent)
    while True:
        try:
            directory.mkdir()
        except FileExistsError:
            directory = next_free(directory.parent, directory.name.rpartition("-")[0])
        except OSError:
            return directory  # and whoever opens a run there tells why
        else:
            return directory


def _say_reasons(source: Path, text: str | None, config: Config, reporter: Reporter, *, dry_run: bool) -> None:
    """Says why `init` chose what it did for a data folder, and in a dry run what the comments of a config say."""
    if text is not None:
        reporter.say(f"config: none given, so it is the one that segtool init writes for {source}; the run keeps it")
    elif dry_run and source.is_file():
        text = source.read_text(encoding="utf-8", errors="replace")
    for choice in reasons(text or "", config):
        reporter.say(f"{choice.what}: {choice.value} ({choice.reason})")


def _say_plan(work: Prepared, session: Session, reporter: Reporter) -> None:
    plan = work.plan
    counts = ", ".join(f"{len(found)} {name}" for name, found in work.records.items())
    together = f"; {work.world.size} processes" if work.world.size > 1 else ""
    classes = len(work.config.data.classes)
    pairs = "pair" if sum(map(len, work.records.values())) == 1 else "pairs"
    why = " (no GPU is found)" if session.device == "auto" and work.device.type == "cpu" else ""
    reporter.say(f"data: {counts} {pairs}; {classes} classes; device: {work.device}{why}{together}")
    steps = f"{counted(plan.steps, 'step')} of {counted(plan.batch_size, 'image')} ({plan.epochs:.1f} epochs)"
    if session.budget is not None:
        steps = f"as many steps of {counted(plan.batch_size, 'image')} as go into the budget"
    at_end = session.budget is None and plan.eval_steps >= plan.steps
    validation = "validation " + ("at the end" if at_end else f"every {counted(plan.eval_steps, 'step')}")
    if not work.records.get("val"):
        validation = "no validation, as no pairs are held out"
        if work.config.train.patience is not None:
            validation += " (nor any end by train.patience)"
    reporter.say(f"length: {steps}, {validation}, crop {flow(plan.crop)}")
    for choice in plan.choices:
        reporter.say(f"{choice.what}: {choice.value} ({choice.reason})")
