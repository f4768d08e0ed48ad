"""What the commands that use a network do, `eval` and `predict`: from what the user names to scores and masks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from segtool.commands.provenance import refuse_changes, require_alike
from segtool.commands.score_report import Scored
from segtool.config import Config, load_config, located
from segtool.data.dataset import EvaluationSet
from segtool.data.formats import data_root, records_to_score, split_records
from segtool.data.loader import num_workers
from segtool.data.pairs import Record
from segtool.data.reader import Reader
from segtool.errors import CheckpointError, DataError, DiskError, few
from segtool.prediction.predict import build_ensemble, predict
from segtool.prediction.predicted_files import Job, list_jobs, masks_among, unread_pictures
from segtool.prediction.unlike import Unlike
from segtool.runs.checkpoint import Checkpoint
from segtool.runs.members import find_checkpoints, part_members
from segtool.runs.run_directory import CONFIG, RunDirectory
from segtool.scoring.evaluate import evaluate
from segtool.scoring.metrics import Scores
from segtool.system.devices import choose_device, place
from segtool.system.distributed import World, join_world
from segtool.system.memory import keep_freed_memory
from segtool.system.pools import end_imports
from segtool.system.terminal import Mute, Reporter, counted


def evaluate_session(
    paths: Sequence[Path],
    split: str | None,
    overrides: Sequence[str],
    *,
    flip: bool = False,
    tile: int | None,
    device: str,
    quiet: bool,
) -> Scored:
    """Returns the scores of a run's best checkpoint, or of a checkpoint, on a split; of several as an ensemble.

    The data is that of the first; warns where another was trained on images of the split. Of several processes each
    scores its share, and all return the scores of the whole.
    """
    end_imports()
    keep_freed_memory()
    with join_world() as world:
        reporter = Reporter(quiet=quiet) if world.is_main else Mute()
        with world.agreed():
            where = place(world, choose_device(device))
            checkpoints = find_checkpoints(paths, reporter)
            configs = _configs(checkpoints, paths, overrides)
            config, first = configs[0], checkpoints[0]
            with located(config):
                records = records_to_score(config, first.path, split)
            name = _split_to_score(records, split, paths, folds=len(checkpoints) > len(paths))
            # The first one was trained on none of its own val and test, and on all of its train, as the scores tell.
            asked = 1 if name == "train" or not _changes_splits(overrides) else 0
            _warn_of_seen(records[name], checkpoints[asked:], configs[asked:], reporter)
            if name != "train" and config.data == first.config.data:
                _warn_of_others(records, first, reporter)
            predictor = build_ensemble(checkpoints, where, flip=flip)
        require_alike(world, [[record.stem for record in records[name]], [str(c.progress) for c in checkpoints]])
        dataset = EvaluationSet(records[name], replace(Reader.of(config), channels=predictor.channels))
        workers = num_workers(config.train.workers, where, world)
        limited = world.limited(config.train.timeout)
        scores = evaluate(predictor, dataset, limited, workers=workers, reporter=reporter, tile=tile)
        return _scored(scores, name, paths, checkpoints, flip=flip)._replace(is_main=world.is_main)


def _scored(
    scores: Scores, split: str, paths: Sequence[Path], checkpoints: Sequence[Checkpoint], *, flip: bool
) -> Scored:
    """Returns scores with what is told beside them; the table of an ensemble does not replace that of a run."""
    members = [{"checkpoint": str(one.path), "step": one.progress.step} for one in checkpoints]
    if len(members) == 1:
        what, kind = f"step {members[0]['step']}" + (", mean with the mirror image" if flip else ""), ""
    else:
        what = f"mean of {len(members)} networks" + (" and of their mirror images" if flip else "")
        kind = "-ensemble"
    facts = {"members": members, "flip": flip} if flip or kind else members[0]
    directory = paths[0] if len(members) > len(paths) == 1 else _run_directory(checkpoints[0].path)
    table = directory / f"per-image-{split}{kind}{'-flip' if flip else ''}.csv"
    return Scored(scores, f"{', '.join(map(str, paths))}, {split} split, {what}", {"split": split, **facts}, table)


def _configs(checkpoints: Sequence[Checkpoint], paths: Sequence[Path], overrides: Sequence[str]) -> list[Config]:
    """Returns the configs after `--set`. Raises ConfigError for what their weights were made for."""
    configs = [_overridden(c, paths, overrides) if overrides else c.config for c in checkpoints]
    for checkpoint, config in zip(checkpoints, configs, strict=True):
        refuse_changes(checkpoint.config, config, checkpoint.path)
    return configs


def _overridden(checkpoint: Checkpoint, paths: Sequence[Path], overrides: Sequence[str]) -> Config:
    """Returns the config of a checkpoint after `--set`, whose `data.root` is relative to the run that was named."""
    config = load_config(checkpoint.path / CONFIG, overrides)
    named = any(os.path.samefile(checkpoint.path, path) for path in paths)
    if named or not config.origins.of("data.root").startswith("--set"):
        return config
    root = data_root(config.data, checkpoint.path.parent.parent)
    return replace(config, data=replace(config.data, root=str(root)))


def _split_to_score(
    records: Mapping[str, Sequence[Record]], split: str | None, paths: Sequence[Path], *, folds: bool
) -> str:
    """Returns the split that the user named, else test where there is one, else val. Raises DataError if none."""
    name = split or ("test" if records.get("test") else "val")
    if name != "test" and folds:
        found = "has no test split" if split is None else f"--split {split}"
        raise DataError(
            f"{', '.join(map(str, paths))}: {found}, but of folds only a test split that none was trained on can be "
            "scored as an ensemble. Each fold's own score, and that of all together, are in folds.json; use "
            "data.split.test to hold a test out, or score one fold: segtool eval DIR/fold-1"
        )
    if not records.get(name):
        there = ", ".join(key for key, found in records.items() if found)
        raise DataError(f"{paths[0]}: has no {name} split; its data has {there}: choose with --split")
    return name


def _changes_splits(overrides: Sequence[str]) -> bool:
    """Whether `--set` may put other images into a split than a run had there; another root alone does not."""
    keys = [override.partition("=")[0].strip() for override in overrides]
    return any(key.split(".")[0] == "data" and key != "data.root" for key in keys)


def _warn_of_seen(
    records: Sequence[Record], checkpoints: Sequence[Checkpoint], configs: Sequence[Config], reporter: Reporter
) -> None:
    """Warns where networks were trained on images that are to be scored.

    Args:
        configs: After `--set`, which says where the data lies now.
    """
    scored = {os.path.realpath(record.image) for record in records}
    for checkpoint, config in zip(checkpoints, configs, strict=True):
        before = replace(checkpoint.config, data=replace(checkpoint.config.data, root=config.data.root))
        try:
            trained = {os.path.realpath(record.image) for record in split_records(before, checkpoint.path)["train"]}
        except DataError as error:
            reason = error.problems[0]
            reporter.warn(f"{checkpoint.path}: whether it was trained on images of the split is not known: {reason}")
            continue
        if seen := len(scored & trained):
            reporter.warn(
                f"{checkpoint.path}: was trained on {seen} of the {len(records)} images of the split, so the score "
                "flatters"
            )


def _warn_of_others(records: Mapping[str, Sequence[Record]], checkpoint: Checkpoint, reporter: Reporter) -> None:
    """Warns where the splits that are shares of one whole have other sizes than in the run, as files came or went."""
    data, run = checkpoint.config.data, RunDirectory(checkpoint.path.parent.parent)
    whole = ["train", *(name for name in records if getattr(data, name) is None or (name == "val" and data.fold))]
    try:
        before = run.read_facts().get("splits")
    except CheckpointError:  # a damaged record costs no score, for which the checkpoint is enough
        return
    now = {name: len(found) for name, found in records.items()}
    if before and len(now) > 1 and any(before.get(name) != now[name] for name in whole):
        sizes = [", ".join(f"{count} {name}" for name, count in each.items()) for each in (before, now)]
        reporter.warn(
            f"{run.directory}: its data was {sizes[0]} and is {sizes[1]} now, and with other files other images are "
            "held out: it may have been trained on images of this split, and the score flatters"
        )


def predict_session(
    paths: Sequence[Path],
    out: Path,
    overrides: Sequence[str] = (),
    *,
    flip: bool = False,
    overlays: bool,
    probabilities: bool,
    tile: int | None,
    resume: bool,
    device: str,
    quiet: bool,
) -> None:
    """Predicts the masks of images as `segtool predict` does; images that cannot be used are told at the end.

    Of several processes each predicts its share.

    Args:
        paths: One or more members (runs, checkpoints, directories of folds), then the images.
        overrides: `KEY=VALUE`, of what may differ from the training, such as `limits.max_pixels`.
    """
    end_imports()
    keep_freed_memory()
    with join_world() as world:
        with world.agreed():
            members, inputs = part_members(paths)
            jobs = list_jobs(inputs, out, overlays=overlays, probabilities=probabilities)
            reporter = Reporter(quiet=quiet) if world.is_main else Mute()
            if left := unread_pictures(inputs):
                reporter.warn(f"{few(left, 1)}: left out, of a kind that is not read; convert to PNG or TIFF")
            checkpoints = find_checkpoints(members, reporter)
            config = _configs(checkpoints, members, overrides)[0]
            for warning in masks_among(config.data, inputs, jobs):
                reporter.warn(warning)
            predictor = build_ensemble(checkpoints, place(world, choose_device(device)), flip=flip)
        require_alike(world, [[str(job.image) for job in jobs], [str(c.progress) for c in checkpoints]])
        if len(checkpoints) > 1:
            listed = ", ".join(str(checkpoint.path) for checkpoint in checkpoints)
            reporter.say(f"ensemble of {len(checkpoints)} networks: {listed}")
        mine = jobs[world.rank :: world.size]
        unlike = Unlike(config)
        results = predict(predictor, config, mine, tile=tile, resume=resume, look=unlike.look)
        failures = sorted(world.gather_json(_predict_all(results, mine, out, world, reporter)))
        unlike.tell(world, reporter)
        reporter.say(f"{len(jobs) - len(failures)} of {counted(len(jobs), 'mask')} in {out}")
        if failures and world.is_main:
            raise DataError(*(problem for _, problems in failures for problem in problems))


def _predict_all(
    results: Iterator[Path | DataError], mine: Sequence[Job], out: Path, world: World, reporter: Reporter
) -> list[tuple[int, Sequence[str]]]:
    """Has the masks made, and returns the problems of the images that cannot be used, each with its place among all.

    Where a signal or the disk ends it, it says what is done and how to go on.
    """
    done = 0
    failures: list[tuple[int, Sequence[str]]] = []
    try:
        for number, result in enumerate(reporter.track(results, total=len(mine), unit="image", label="predicting")):
            if isinstance(result, DataError):
                failures.append((number * world.size + world.rank, result.problems))
            else:
                done += 1
    except SystemExit:  # at a signal
        reporter.say(f"{done} of {counted(len(mine), 'mask')} or more are in {out}, whole; --resume makes the others")
        raise
    except DiskError as error:
        problems = [problem for _, found in failures for problem in found]
        left = (
            f"{done} of {counted(len(mine), 'mask')} are in {out}, whole; --resume makes the others when that is mended"
        )
        raise DiskError(*problems, *error.problems, left) from error
    return failures


def _run_directory(checkpoint: Path) -> Path:
    """Returns the run that a checkpoint lies in, or the current folder where it has been moved out of one."""
    runs = (path.parent.parent for path in (Path(os.path.abspath(checkpoint)), checkpoint.resolve()))
    return next((run for run in runs if (run / CONFIG).is_file()), Path())
