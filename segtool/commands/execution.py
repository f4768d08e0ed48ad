"""A training that is all decided, in its run directory: what the main process does, and what the others follow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segtool.commands.provenance import fingerprint, require_alike, timestamp
from segtool.config import parse_config, plain
from segtool.data.formats import split_records
from segtool.data.statistics import ClassFrequencies
from segtool.errors import CheckpointError, DataError, DiskError, HungError, SegtoolError
from segtool.runs import checkpoint, history
from segtool.runs.checkpoint import Checkpoint
from segtool.runs.run_directory import RunDirectory, typed
from segtool.system.devices import choose_device, place
from segtool.system.distributed import World
from segtool.system.terminal import Mute, Reporter
from segtool.training import train
from segtool.training.budget import Budget
from segtool.training.plan import Plan, Prepared


def execute(
    work: Prepared,
    run: RunDirectory,
    reporter: Reporter,
    facts: Mapping[str, Any],
    *,
    resumed: Checkpoint | None = None,
    budget: Budget | None = None,
) -> None:
    """Trains as the main process, after telling the others what was decided, and says what came of it.

    Args:
        facts: What `run.json` holds; the end is added to it.

    Raises:
        SegtoolError: as `train.train`; DataError also where another process finds other files.
    """
    reporter.keep_in(run.log)
    reporter.say(f"run directory: {run.directory}")
    work.world.send(_orders(work, run, resumed))
    require_alike(work.world, fingerprint(work.records))
    progress = train.train(work, run, reporter=reporter, resumed=resumed, budget=budget)
    run.write_facts({**facts, "steps": progress.steps, "end": timestamp(), "steps_done": progress.step})
    if progress.step < progress.steps:
        reporter.say(f"ended at step {progress.step} of {progress.steps}")
    quoted = typed(run.directory)
    if progress.best is not None:
        test = "; see test" if work.records.get("test") else ""
        reporter.say(f"best mIoU on val: {100 * progress.best:.2f} % (it chose the checkpoint, so it flatters{test})")
    split = "" if work.records.get("val") or work.records.get("test") else " --split train"
    reporter.say(f"next: segtool eval {quoted}{split}; segtool predict {quoted} IMAGES --out MASKS --overlay")


def follow(orders: Mapping[str, Any], world: World, device: str) -> None:
    """Trains along as `execute` orders; the main process alone has looked at the data before, speaks and writes.

    Raises:
        DataError: the data here is not what the main process has.
    """
    mine = place(world, choose_device(device))
    config = parse_config(orders["config"])
    run = RunDirectory(Path(orders["run"]), device=device, processes=world.size)
    records = split_records(config, run.directory)
    require_alike(world, fingerprint(records))
    resumed = None if orders["resumed"] is None else checkpoint.load(run.checkpoints / orders["resumed"])
    frequencies = None if orders["frequencies"] is None else ClassFrequencies(**orders["frequencies"])
    plan = replace(Plan(**orders["plan"]), crop=tuple(orders["plan"]["crop"]))
    train.train(Prepared(config, plan, records, frequencies, world, mine), run, reporter=Mute(), resumed=resumed)


@contextlib.contextmanager
def working_in(run: RunDirectory, reporter: Reporter) -> Generator[None]:
    """Logs the error that ends a run, says how to go on where disk or data failed, and unlocks the directory."""
    try:
        yield
    except DiskError as error:
        raise DiskError(*error.problems, _how_to_go_on(run)) from error
    except SegtoolError as error:
        with contextlib.suppress(DiskError):
            reporter.note(f"error: {error}")
        if isinstance(error, DataError | HungError):  # as of a disk with images that is gone for a while
            raise type(error)(*error.problems, _how_to_go_on(run)) from error
        raise
    finally:
        reporter.close()
        run.close()


def _how_to_go_on(run: RunDirectory) -> str:
    """Returns what a run has saved and the command that continues it, for where disk, data or a process failed."""
    if not run.directory.is_dir():
        return (
            f"{run.directory}: was moved or removed, or its disk is not there; what is saved lies where that is now, "
            "and goes on with: segtool train DIR --resume"
        )
    with contextlib.suppress(CheckpointError):
        if saved := history.last(run.checkpoints):
            step = saved.progress.step
            return f"step {step} is saved and whole; when that is mended, continue with: {run.resume_command}"
    return f"{run.directory}: no step is saved; when that is mended, begin again with the same command"


def _orders(work: Prepared, run: RunDirectory, resumed: Checkpoint | None) -> str:
    """Returns what the main process decided, for the others, as JSON."""
    orders = {
        "config": plain(work.config),
        "plan": {**vars(work.plan), "choices": ()},
        "frequencies": None if work.frequencies is None else vars(work.frequencies),
        "run": str(run.directory),
        "resumed": None if resumed is None else resumed.path.name,
    }
    return json.dumps(orders)
