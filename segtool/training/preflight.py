"""Preflight: what would make a training worthless, looked for within seconds and before its first step.

Each function looks at one thing and returns a `Verdict`. What passes is told in a line, what is doubtful is a warning
with the remedy, and only what no training can come through stops it. All of it happens on a network and on crops of its
own (a `Trial`), which are thrown away: the training starts as it would without, bit for bit.
"""

from __future__ import annotations

import shutil
import statistics
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from segtool.config import Config
from segtool.data import draw
from segtool.data.codes import IGNORE
from segtool.data.dataset import EvaluationSet, Sample, TrainingSet
from segtool.data.loader import training_batches
from segtool.data.pairs import Record
from segtool.data.preview import SMALLEST
from segtool.data.reader import Reader
from segtool.data.statistics import ClassFrequencies, evenly
from segtool.errors import CheckpointError, DataError, DiskError, ShortageError, shown
from segtool.models.layers import describe
from segtool.models.segmenter import verify
from segtool.runs import checkpoint
from segtool.runs.checkpoint import Progress
from segtool.runs.run_directory import FIRST_BATCH, RunDirectory
from segtool.scoring.evaluate import evaluate
from segtool.system import disk
from segtool.system.devices import free_bytes
from segtool.system.disk import free_disk
from segtool.system.distributed import ALONE
from segtool.system.memory import keep_freed_memory
from segtool.system.terminal import Mute, Reporter, amount, counted, percent
from segtool.training import train
from segtool.training.forecast import most_checkpoints, sample_bytes
from segtool.training.memory import lighter, training_memory
from segtool.training.optim import learning_rate
from segtool.training.plan import Prepared, largest_part
from segtool.training.rehearsal import gradients_arrive, learns, losses_hold, rehearse, stands_alone, starts_unsure
from segtool.training.trial import SHOWN, WINDOWS, Trial, Verdict, make_trial, num_shown

TOGETHER = 0.9  # share of the pixels away from borders whose image and mask must be the same class
JUDGED = 0.005  # and what those pixels are of all at least: fewer are left where a mask is torn
PROBE_CLASSES, PROBE_CROP, PROBE_BLOCK = 4, (96, 128), 24
PROBE_SIZES = ((132, 150), (80, 170), (72, 90))  # H W, larger and smaller than the crop
VALIDATED = 256  # largest side in pixels of the part of a validation image that is scored
BESIDES = 0.6  # what a step on a CPU takes at its peak besides what it keeps, as a share: 0.5 to 0.7 measured
LEAST_WAY = 1e-6  # sum of the learning rates of a run below which no weight comes anywhere; at first they are 0.01 to 1
SWAPPED = 1.5  # what a step takes as a multiple of the free memory, beyond which no swap makes up for it


def look(work: Prepared, base: Path, directory: Path, reporter: Reporter) -> Trial:
    """Says what is found of memory and disk, network, loss, augmentation and validation; nothing is written.

    Args:
        base: Folder that the path of a file of weights is relative to.

    Raises:
        SegtoolError: with every fault that no training comes through.
    """
    tell(suffice(work, directory), reporter)  # first, since a trial takes memory itself
    keep_freed_memory()
    devices = [work.device] if work.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        trial = make_trial(work, base)
        verdicts = [*rates_suffice(work), starts_unsure(trial), *losses_hold(trial)]
        rehearsal = rehearse(trial)
        verdicts += [learns(trial, rehearsal), gradients_arrive(trial, rehearsal), stands_alone(trial)]
        verdicts += [moves_together(work.config), validates(trial, work.records.get("val", []))]
    tell(verdicts, reporter)
    return trial


def look_into(run: RunDirectory, trial: Trial, reporter: Reporter) -> None:
    """Says whether a checkpoint can be written into a run and read back, and draws the first batch there.

    Raises:
        CheckpointError: it cannot.
    """
    tell([checkpoint_holds(trial, run)], reporter)
    drawn = draw_first_batch(trial, run.samples)
    reporter.say(f"preflight: the first batch with its masks: {drawn}")


def tell(verdicts: Sequence[Verdict], reporter: Reporter) -> None:
    """Says each verdict, and raises the faults together as what the first of them is."""
    faults = [verdict for verdict in verdicts if verdict.grade == "fault"]
    for verdict in verdicts:
        if verdict.grade == "passed":
            reporter.say(verdict.line)
        elif verdict.grade == "doubt":
            reporter.warn(verdict.line)
    if faults:
        raise faults[0].error(
            *(verdict.line for verdict in faults), "nothing was trained; --no-preflight tries it all the same"
        )


def rates_suffice(work: Prepared) -> list[Verdict]:
    """Returns a verdict where the learning rates of all steps together are too low to move a weight."""
    optim, steps = work.config.optim, work.plan.steps
    mean = statistics.fmean(learning_rate(optim, step, steps) for step in evenly(steps, 1000))
    if steps * mean >= LEAST_WAY:
        return []
    told = (
        f"the rates of {counted(steps, 'step')} add up to {steps * mean:.2g}, about as far as a weight is moved, so "
        "nothing would be learnt; raise optim.lr, or train for more steps"
    )
    return [Verdict("learning rate", told, "doubt")]


# ------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class BlocksReader(Reader):
    """Reads, in the place of a record, a mask of random blocks and an image whose grey levels are their classes."""

    def pair(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Returns image H W C and class indices H W, a function of the record's stem."""
        rng = np.random.default_rng(zlib.crc32(record.stem.encode(errors="surrogateescape")))
        height, width = PROBE_SIZES[int(rng.integers(len(PROBE_SIZES)))]
        blocks = rng.integers(0, PROBE_CLASSES, (-(-height // PROBE_BLOCK), -(-width // PROBE_BLOCK)), np.uint8)
        target = np.kron(blocks, np.ones((PROBE_BLOCK, PROBE_BLOCK), np.uint8))[:height, :width]
        image = (target * (255 // (PROBE_CLASSES - 1))).astype(np.uint8)
        return np.repeat(image[..., None], sum(self.channels), axis=2), target


def moves_together(config: Config) -> Verdict:
    """Whether augmentation moves image and mask alike: of images made from masks, each must show its mask's classes.

    The config's augmentation without its colours, on blocks of four grey levels, so far as they stay blocks: zoomed by
    1/2 to 2, bent without folds, and half erased at most.
    """
    given = config.augment
    low = min(max(given.scale[0], 0.5), 2.0)
    moved = {"scale": (low, max(min(given.scale[1], 2.0), low)), "elastic": min(given.elastic, 10.0)}
    augment = replace(given, **moved, erase=min(given.erase, 0.5), color=0, gamma=0, blur=0, noise=0, jpeg=None)
    records = [Record(Path(stem), None, stem) for stem in map(str, range(SHOWN))]
    reader = BlocksReader.of(config)
    seen = ClassFrequencies((1,) * PROBE_CLASSES, (1,) * PROBE_CLASSES)
    dataset = TrainingSet(records, reader, augment, PROBE_CROP, config.train.seed, seen)
    batch = next(training_batches(dataset, ALONE, batch_size=len(records), start=0, steps=1, workers=0))
    same, judged = agreement(batch)
    told = f"show the same class in {percent(same / max(judged, 1))} % of the pixels away from borders, once augmented"
    if same >= TOGETHER * judged and judged >= JUDGED * batch.target.numel():
        return Verdict("image and mask", told)
    return Verdict(
        "image and mask",
        f"{told} ({judged} of {batch.target.numel()}), and must in nearly all: the masks are not moved as their images "
        "are, so the network would learn from wrong masks. This is a fault of segtool: please report it with the "
        "config's augment section, and train without what it names",
        "fault",
        DataError,
    )


def agreement(batch: Sample) -> tuple[int, int]:
    """Returns in how many pixels images of the probe show their mask's class, and how many lie away from borders."""
    levels = batch.image[:, 0].float() * (PROBE_CLASSES - 1) / 255  # N H W
    target = batch.target.float()
    around = partial(F.max_pool2d, kernel_size=7, stride=1)
    inner = (around(target[:, None]) == -around(-target[:, None]))[:, 0] & (batch.target != IGNORE)[:, 3:-3, 3:-3]
    shows = (levels - target).abs()[:, 3:-3, 3:-3] < 0.5
    return int((shows & inner).sum()), int(inner.sum())


def draw_first_batch(trial: Trial, directory: Path) -> Path:
    """Writes the first crops, each over its mask, into a folder, and returns the picture's path.

    Eight of 3000x2000 pixels took 19 s of a core and made 194 MB.
    """
    labels = Reader.of(trial.training.config).labels
    scale = max(1, SMALLEST // max(trial.crops.target.shape[1:]))
    cells = []
    for image, target in list(zip(trial.crops.image, trial.crops.target, strict=True))[: num_shown(trial.plan)]:
        indices = target.numpy()
        picture = draw.panel(image.permute(1, 2, 0).numpy(), indices, labels.colors, scale=scale)
        cells.append((f"classes: {len(np.unique(indices[indices != IGNORE]))}", picture))
    entries = draw.entries(trial.crops.target.numpy(), labels.colors, labels.names)
    rows = [cells[start : start + WINDOWS] for start in range(0, len(cells), WINDOWS)]
    sheet = draw.gallery("the first batch", "as training sees it, and below it with its mask", rows, classes=entries)
    disk.make_folder(directory)
    path = directory / FIRST_BATCH
    disk.write_atomically(path, draw.png(sheet))
    return path


@dataclass(frozen=True)
class CornerReader(Reader):
    """Reads the upper left corner of a record."""

    def pair(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Returns image H W C and class indices H W of at most VALIDATED pixels a side."""
        image, target = super().pair(record)
        return image[:VALIDATED, :VALIDATED], target[:VALIDATED, :VALIDATED]


def validates(trial: Trial, records: Sequence[Record]) -> Verdict:
    """Whether a validation image is scored, by the network as it predicts."""
    what, training = "validation", trial.training
    if not records:
        return Verdict(what, "there is no validation split, so nothing is measured")
    dataset = EvaluationSet(records[:1], CornerReader.of(training.config))
    scores = evaluate(train.build_predictor(training), dataset, ALONE, workers=0, reporter=Mute())
    pixels = int(scores.confusion.sum())
    return Verdict(what, f"runs: {pixels} pixels of {shown(records[0].image.name)} scored")


# ------------------------------------------------------------------------------------------------- disk and memory


def suffice(work: Prepared, directory: Path) -> list[Verdict]:
    """Whether memory holds what a training step takes, and the disk what the run saves; counted, not measured."""
    config, plan, world, device = work.config, work.plan, work.world, work.device
    part = largest_part(config.train, world.size)
    model = verify(config.model, len(config.data.classes), config.data.channels).train()
    memory = training_memory(model, describe(model, *plan.crop, batch=part), config)
    each = memory.weights + memory.averages + memory.optimizer
    grows = memory.activations + memory.loss
    stays = memory.total - grows
    if config.train.precision != "fp32":
        grows //= 2
    besides = int(BESIDES * grows) if device.type == "cpu" else 0
    processes = 1 if device.type == "cuda" else world.local_size  # that share the memory

    def advice(free: int) -> str:
        room = (free / processes - stays) / (grows + besides)
        found = lighter(config, model, plan.crop, room * part) if room > 0 else None
        return f"try --set {found[0]}: {found[1]}" if found else "take a network of fewer channels"

    return [_memory((grows + stays + besides) * processes, device, advice), _disk(each, work, directory)]


def _memory(needed: int, device: torch.device, advice: Callable[[int], str]) -> Verdict:
    free = free_bytes(device)
    told = f"a step takes about {amount(needed)}"
    if free is None:
        return Verdict("memory", f"{told}; how much is free is unknown")
    told += f"; {amount(free)} are free"
    if needed <= free:
        return Verdict("memory", told)
    grade = "fault" if needed > SWAPPED * free else "doubt"
    return Verdict("memory", f"{told}: {advice(free)}", grade, ShortageError)


def _disk(each: int, work: Prepared, directory: Path) -> Verdict:
    config, pictures = work.config, sample_bytes(work)
    most = most_checkpoints(config, work.plan)
    free, needed = free_disk(directory), most * each + pictures
    told = f"{amount(each)} a checkpoint, at most {most} at a time, and up to {amount(pictures)} of samples"
    told += f"; {amount(free)} are free"
    if free >= needed:
        return Verdict("disk", told)
    if free < each:
        remedy = "not one can be saved; free some, or choose a --run on another disk"
        return Verdict("disk", f"{told}: {remedy}", "fault", DiskError)
    fewer = ", or set train.keep=1" if config.train.keep > 1 else ""
    return Verdict("disk", f"{told}: free {amount(needed - free)} more{fewer}", "doubt")


def checkpoint_holds(trial: Trial, run: RunDirectory) -> Verdict:
    """Whether a checkpoint can be written where those of the run will lie, and is read back as it was; it is removed.

    Raises:
        DiskError: it cannot be written.
        CheckpointError: it cannot be read.
    """
    folder = run.checkpoints / ".tmp-preflight"  # a name that the next run removes, should this one be killed
    training = trial.training
    try:
        path = checkpoint.save(folder, training.state, training.config, Progress())
        tensors = checkpoint.load(path).tensors["model"]
        wanted = training.model.state_dict()
        # By their bytes: a number that is not finite, as where the trial diverged, equals nothing.
        odd = [name for name in wanted if tensors[name].numpy().tobytes() != wanted[name].cpu().numpy().tobytes()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if odd:
        message = f"{odd[0]} is read back as another than was written; use another disk"
        return Verdict("checkpoint", message, "fault", CheckpointError)
    return Verdict("checkpoint", f"written, read back and verified ({len(wanted)} tensors), and removed again")
