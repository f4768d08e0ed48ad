"""`segtool train --folds N`: one ordinary run for each fold, in one directory, and their scores together."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from segtool.commands.provenance import (
    DEALT,
    differences,
    fingerprint,
    is_dealt_anew,
    refuse_changes,
    resolved_like,
)
from segtool.commands.session import train_session
from segtool.commands.sources import Session, is_data, load_any, run_name
from segtool.commands.use import evaluate_session
from segtool.config import Config, load_config, located
from segtool.config.yaml_io import flow
from segtool.data.formats import split_records
from segtool.errors import CheckpointError, ConfigError, DiskError, Interrupted, LostError, SegtoolError, few
from segtool.runs import history
from segtool.runs.run_directory import (
    CONFIG,
    RunDirectory,
    argument,
    fold_runs,
    holds_run,
    next_free,
    relocate,
    require_writable,
    typed,
)
from segtool.scoring.folds import FoldScore, definition, fold_tables, to_json
from segtool.system.disk import require_plain, write_atomically
from segtool.system.distributed import world_of
from segtool.system.signals import end_where_asked
from segtool.system.terminal import Reporter, counted, duration, percent

SCORES = "folds.json"


def cross_validate(session: Session, count: int, *, dry_run: bool = False) -> tuple[Path, list[FoldScore]]:
    """Trains the folds 1/count to count/count into `fold-1`, `fold-2`, … of a directory, and scores each.

    Each fold is scored as soon as it is trained; `folds.json` is written at the end. With `session.resume` a fold
    that is done is only scored, and one that was begun goes on to the length it began with. `session.budget` is
    divided over the folds that are left, their scoring included.

    Returns:
        The directory and the scores; none with `dry_run`, which tells the plan of the next fold and the total.

    Raises:
        Interrupted: with the command that continues all folds.
    """
    _alone(count)
    reporter = Reporter(quiet=session.quiet)
    directory = _directory(session, count)
    left = [number for number in range(1, count + 1) if not _is_done(directory / f"fold-{number}")]
    if left:
        _require_parts_of_one_whole(session, directory, reporter)
    if dry_run:
        _dry_run(session, directory, count, left, reporter)
        return directory, []
    require_plain(directory / SCORES)
    for number in left:
        require_writable(directory / f"fold-{number}")
    scores: list[FoldScore] = []
    seconds = 0.0  # that the scoring of the last fold took
    for number in range(1, count + 1):
        with _continued_by(session, directory, count, reporter):
            if number in left:
                share = _share(session, folds=len(left), scoring=seconds)
                reporter.say(f"\nfold {number}/{count}")
                train_session(_of_fold(session, directory, number, count, share))
                left.remove(number)
                end_where_asked()
            elif session.overrides:
                reporter.say(f"\nfold {number}/{count}: is done, and --set changes nothing in it")
            scoring_began = time.monotonic()
            scores.append(_score(session, directory, number, count))
            seconds = time.monotonic() - scoring_began
        reporter.say(_line(scores[-1]))
    with _continued_by(session, directory, count, reporter):
        write_atomically(directory / SCORES, (json.dumps(to_json(scores), indent=1) + "\n").encode())
    return directory, scores


def tell_folds(directory: Path, folds: Sequence[FoldScore]) -> None:
    """Prints the scores of all folds, and on standard error where they are and what may come next."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 60 + 9 * len(folds))
    console.print(f"{directory}, {len(folds)} folds", markup=False)
    for table in fold_tables(folds):
        console.print(table)
    print(definition(folds))
    print(f"all scores: {directory / SCORES}", file=sys.stderr)
    quoted = typed(directory)
    scored = f"segtool eval {quoted}; " if folds[0].test else ""
    print(f"next, all folds as one: {scored}segtool predict {quoted} IMAGES --out MASKS", file=sys.stderr)


def _directory(session: Session, count: int) -> Path:
    """Returns the directory of all folds, after checking it and the config."""
    if begun := fold_runs(session.config):
        raise SegtoolError(
            f"{session.config}: holds {counted(len(begun), 'fold')} and is no config; name the one that they were "
            f"begun with: segtool train CONFIG --folds {count} --run {typed(session.config)} --resume "
            f"({begun[0] / 'run.json'} tells the command)"
        )
    fold = None if is_data(session.config) else load_any(session.config, session.overrides)[0].data.fold
    if fold is not None or any(override.startswith("data.fold=") for override in session.overrides):
        raise SegtoolError(f"--folds {count}: data.fold is set, which is one fold of several; leave one of the two out")
    if session.resume and session.run is None:
        raise SegtoolError("--folds with --resume needs --run DIR, the directory that holds fold-1, fold-2, …")
    directory = session.run or next_free(Path("runs"), run_name(session.config))
    if holds_run(directory):
        raise SegtoolError(f"{directory}: is a run of its own and no directory of folds; choose another --run")
    if fold_runs(directory) and not session.resume:
        raise SegtoolError(f"{directory}: holds folds; continue them with --resume, or choose another --run")
    if session.resume and not directory.is_dir():
        raise CheckpointError(f"{directory}: holds no folds to continue; start them by leaving out --resume")
    for run in fold_runs(directory):
        trained = load_config(run / CONFIG).data.fold
        if trained != f"{run.name.removeprefix('fold-')}/{count}":
            raise SegtoolError(f"--folds {count}: {run} is fold {trained}; give the same number, or another --run")
    return directory


def _require_parts_of_one_whole(session: Session, directory: Path, reporter: Reporter) -> None:
    """Raises ConfigError where the folds to come would deal other pairs, or train other networks, than those begun.

    Warns where they would be trained in another way.
    """
    if not (begun := fold_runs(directory)):
        return
    given, base = load_any(session.config, session.overrides)
    trained: dict[str, list[str]] = {}  # the folds, by what has changed since
    for run in begun:
        before = load_config(run / CONFIG)
        now = resolved_like(relocate(given, base, run), before)
        now = replace(now, data=replace(now.data, fold=before.data.fold))
        refuse_changes(before, now, run)
        with located(now):
            records = split_records(now, run)
        facts, changes = RunDirectory(run).read_facts(), differences(before, now)
        if facts.get("data") not in (None, fingerprint(records)) and is_dealt_anew(facts, records, changes):
            why = ", ".join(change for change in changes if change.startswith(DEALT)) or "files came or went"
            raise ConfigError(
                f"{run}: its parts were dealt of other pairs ({why}), so a later fold would validate images that this "
                "one does too, or miss some; set it back, or begin all folds anew in another --run"
            )
        if other := ", ".join(_other_training(before, now, budgeted=session.budget is not None)):
            trained.setdefault(other, []).append(run.name)
    for other, names in trained.items():
        reporter.warn(
            f"{few(names)}: begun with another training than the folds to come ({other}), so mean, deviation and "
            "pooled scores will be of both; set it back, or begin all folds anew in another --run"
        )


def _other_training(before: Config, now: Config, *, budgeted: bool) -> list[str]:
    """Returns what makes the training of the next fold another than that of one before, as of `differences`."""
    free = {f"train.{key}" for key in ("workers", "cache", "timeout", "keep", "samples")}
    # Decided by the data and the machine where the config leaves them open, and a budget makes steps of epochs.
    free |= {f"train.{key}" for key in ("precision", "compile") if getattr(now.train, key) == "auto"}
    free |= {"augment.crop"} if now.augment.crop is None else set()
    free |= {"train.epochs", "train.steps"} if budgeted else set()
    changes = differences(before, replace(now, data=before.data, limits=before.limits))
    return [change for change in changes if change.partition(" ")[0] not in free]


def _alone(count: int) -> None:
    """Raises SegtoolError within several processes, in the first of them."""
    if (world := world_of(os.environ)).size > 1:
        problem = f"--folds {count}: takes --gpus N in torchrun's place, or one fold at a time, data.fold=1/{count}"
        raise SegtoolError(problem) if world.is_main else LostError(problem)


def _is_done(run: Path) -> bool:
    last = history.last(run / "checkpoints")
    if last is None and holds_run(run):
        raise CheckpointError(f"{run}: was begun and holds no checkpoint; remove it, and --resume trains it anew")
    return last is not None and last.progress.finished


def _of_fold(session: Session, directory: Path, number: int, count: int, budget: float | None) -> Session:
    """Returns the session that trains one fold, or continues it to the length that it was begun with."""
    # Each fold has a network of its own: what was compiled for the last one would only count towards torch's limit.
    torch.compiler.reset()
    run = directory / f"fold-{number}"
    overrides = [*session.overrides, f"data.fold={number}/{count}"]
    begun = holds_run(run)
    if begun:
        train = load_config(run / CONFIG).train
        # Both, as the other may be set too: a budget has made steps of epochs.
        overrides += [f"train.{key}={flow(getattr(train, key))}" for key in ("epochs", "steps")]
    return replace(session, overrides=tuple(overrides), run=run, resume=begun, budget=budget, began=time.monotonic())


def _share(session: Session, *, folds: int, scoring: float) -> float | None:
    """Returns the seconds of the budget that the next of `folds` folds may train, scoring left out."""
    if (left := session.left()) is None:
        return None
    if left / folds <= scoring:
        raise SegtoolError(
            f"--budget: {left:.0f} s are left for {counted(folds, 'fold')}, and scoring one takes {scoring:.0f} s; "
            "continue with --resume and more time"
        )
    return left / folds - scoring


def _score(session: Session, directory: Path, number: int, count: int) -> FoldScore:
    run = directory / f"fold-{number}"
    data = load_config(run / CONFIG).data
    splits = ["val", *(["test"] if data.test is not None or data.split.test > 0 else [])]
    scored = [
        evaluate_session([run], split, (), tile=None, device=session.device, quiet=session.quiet) for split in splits
    ]
    test = scored[1].scores if len(scored) > 1 else None
    return FoldScore(f"{number}/{count}", run.name, scored[0].facts["step"], scored[0].scores, test)


def _dry_run(session: Session, directory: Path, count: int, left: Sequence[int], reporter: Reporter) -> None:
    if not left:
        reporter.say(f"{directory}: all {count} folds are done")
        return
    reporter.say(f"plan of fold {left[0]}/{count}, of {len(left)} to train:")
    share = _share(session, folds=len(left), scoring=0.0)
    seconds = train_session(_of_fold(session, directory, left[0], count, share), dry_run=True)
    if seconds is not None:
        reporter.say(f"{counted(len(left), 'fold')}: about {duration(len(left) * seconds)} in all")


@contextmanager
def _continued_by(session: Session, directory: Path, count: int, reporter: Reporter) -> Generator[None]:
    """Tells how to continue all folds, and not the one alone, where a signal or the disk ends what is inside."""
    words = ["segtool", "train", argument(session.config), "--folds", str(count)]
    words += ["--run", argument(directory), "--resume"]
    words += [word for override in session.overrides for word in ("--set", override)]
    words += ["--gpus", str(session.gpus)] if session.gpus > 1 else []
    words += ["--max-restarts", str(session.max_restarts)] if session.max_restarts else []
    words += ["--device", session.device] if session.device != "auto" else []
    words += [] if session.preflight else ["--no-preflight"]
    try:
        yield
    except DiskError as error:
        raise DiskError(*error.problems, f"that and all other folds continue with: {shlex.join(words)}") from error
    except (Interrupted, SystemExit) as error:
        if (left := session.left()) is not None:
            words += ["--budget", f"{max(1, left):.0f}s"]
        if isinstance(error, Interrupted):
            raise Interrupted(error.exit_code - 128, shlex.join(words), error.step) from error
        reporter.warn(f"interrupted; continue with: {shlex.join(words)}")
        raise


def _line(score: FoldScore) -> str:
    test = "" if score.test is None else f", test mIoU {percent(score.test.miou)} %"
    return f"fold {score.fold}: val mIoU {percent(score.val.miou)} % at step {score.step}{test}"
