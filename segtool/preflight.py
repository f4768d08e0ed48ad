"""Preflight: what would make a training worthless, looked for within seconds and before its first step.

Each function looks at one thing and returns a `Verdict`. What passes is told in a line, what is doubtful is a warning
with the remedy, and only what no training can come through stops it. All of it happens on a network and on crops of its
own (a `Trial`), which are thrown away: the training starts as it would without, bit for bit.
"""

from __future__ import annotations

import math
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segtool import checkpoint, disk, draw, train
from segtool.allocator import keep_freed_memory
from segtool.checkpoint import Progress
from segtool.config import Config
from segtool.data.cache import free_memory
from segtool.data.dataset import EvaluationSet, Sample, TrainingSet
from segtool.data.formats import Record
from segtool.data.labels import IGNORE
from segtool.data.loader import training_batches
from segtool.data.opening import shown
from segtool.data.preview import SMALLEST, visible
from segtool.data.reader import Reader
from segtool.data.statistics import ClassFrequencies
from segtool.distributed import ALONE, World
from segtool.errors import CheckpointError, ConfigError, DataError, DiskError, SegtoolError, ShortageError
from segtool.evaluate import evaluate
from segtool.forecast import free_disk, num_validations
from segtool.layers import describe, training_memory
from segtool.losses import Loss
from segtool.models.segmenter import verify
from segtool.plan import Plan, parts_of
from segtool.runs import RunDirectory
from segtool.terminal import Mute, Reporter, amount, percent
from segtool.watchdogs import lighter

WINDOWS, SIDE = 4, 64  # of how many crops a part is taken, and its side in pixels, or twice the stride
SHOWN = 8  # crops of the first batch that are drawn
NEAR = 0.25  # how far from ln K the first cross-entropy may be, as a share of it, or in nats where K is 2
RATE, MOST_STEPS = 3e-3, 60  # of AdamW on one small batch
LEARNT, SLOW = 0.8, 0.95  # what the loss falls to, as a share of the first: is seen to learn; hardly learns
UNMOVED = 1e-6  # share by which a loss that learns nothing changes all the same
ALIKE = 0.02  # by how much of their deviation logits may differ with the batch: algorithms and TF32 round otherwise
TOGETHER = 0.9  # share of the pixels away from borders whose image and mask must be the same class
JUDGED = 0.005  # and what those pixels are of all at least: fewer are left where a mask is torn
PROBE_CLASSES, PROBE_CROP, PROBE_BLOCK = 4, (96, 128), 24
PROBE_SIZES = ((132, 150), (80, 170), (72, 90))  # H W, larger and smaller than the crop
VALIDATED = 256  # largest side in pixels of the part of a validation image that is scored
SWAPPED = 1.5  # what a step takes as a multiple of the free memory, beyond which no swap makes up for it
TOLD = 5  # names in a message


@dataclass(frozen=True)
class Verdict:
    """What was found of one thing."""

    what: str
    found: str
    """With the remedy where it does not pass."""
    grade: Literal["passed", "doubt", "fault"] = "passed"
    error: type[SegtoolError] = ConfigError
    """What a fault is raised as."""

    @property
    def line(self) -> str:
        """What is told."""
        return f"preflight: {self.what}: {self.found}"


@dataclass(frozen=True)
class Trial:
    """A training that is thrown away, with the first crops of the real one."""

    training: train.Training
    plan: Plan
    crops: Sample
    """As training sees them, N C H W and N H W."""
    windows: Sample
    """The part of each with the most classes, N C h w and N h w."""

    @property
    def counted(self) -> int:
        """Pixels of the windows that count."""
        return int((self.windows.target != IGNORE).sum())


@dataclass(frozen=True)
class Rehearsal:
    """What came of learning the windows by heart."""

    losses: tuple[float, ...]
    """Before each step; where the loss is cut off from the network, none."""
    silent: tuple[str, ...]
    """Names of the parameters that should learn and that no gradient ever reached."""
    still: tuple[str, ...]
    """Names of those whose gradient was always 0, biases aside: before a norm they have none."""
    trained: int
    """Number of the parameters that should learn."""


def look(
    config: Config,
    records: dict[str, list[Record]],
    frequencies: ClassFrequencies | None,
    plan: Plan,
    *,
    base: Path,
    device: torch.device,
    reporter: Reporter,
) -> Trial:
    """Says what is found of the network, the loss, the augmentation and the validation; nothing is written.

    Args:
        config: resolved, as `train.train` takes it.
        base: Folder that the path of a file of weights is relative to.

    Raises:
        SegtoolError: with every fault that no training comes through.
    """
    keep_freed_memory()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        trial = make_trial(config, records, frequencies, plan, base, device)
        verdicts = [starts_unsure(trial), *losses_hold(trial)]
        rehearsal = rehearse(trial)
        verdicts += [learns(trial, rehearsal), gradients_arrive(trial, rehearsal), stands_alone(trial)]
        verdicts += [moves_together(config), validates(trial, records.get("val", []))]
    tell(verdicts, reporter)
    return trial


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
            *(verdict.line for verdict in faults), "nothing was trained; --no-preflight trains all the same"
        )


def make_trial(
    config: Config,
    records: dict[str, list[Record]],
    frequencies: ClassFrequencies | None,
    plan: Plan,
    base: Path,
    device: torch.device,
) -> Trial:
    """Returns the beginning of a training in float32, and its first crops."""
    plain = replace(config.train, precision="fp32", accumulate=1, ema=None, sync_batch_norm=False)
    config = replace(config, train=plain)
    start = partial(train.load_pretrained, base=base, reporter=Mute())
    training = train.build_training(config, frequencies, device, ALONE, start=start)
    dataset = train.build_training_set(config, records["train"], replace(plan, cache=False), frequencies)
    count = min(max(plan.batch_size, WINDOWS), SHOWN)
    crops = next(training_batches(dataset, ALONE, batch_size=count, start=0, steps=1, workers=0))
    train.hold_encoder(training, held=train.held_steps(training, plan.images) > 0)
    sides = [min(side, max(SIDE, 2 * training.model.stride)) for side in plan.crop]
    return Trial(training, plan, crops, windows_of(crops, (sides[0], sides[1])))


def windows_of(crops: Sample, size: tuple[int, int]) -> Sample:
    """Returns of the crops with the most classes in one place that place, of `size` (h w)."""
    found = []
    for image, target in zip(crops.image, crops.target, strict=True):
        places = [
            (slice(top, top + size[0]), slice(left, left + size[1]))
            for top in _starts(target.shape[0], size[0])
            for left in _starts(target.shape[1], size[1])
        ]
        richness = [_richness(target[place]) for place in places]
        best = max(range(len(places)), key=richness.__getitem__)
        found.append((richness[best], image[:, *places[best]], target[places[best]]))
    found = sorted(found, key=lambda item: item[0], reverse=True)[:WINDOWS]
    return Sample(
        torch.stack([image for _, image, _ in found]),
        torch.stack([target for _, _, target in found]),
        torch.arange(len(found)),
    )


def _starts(length: int, part: int) -> list[int]:
    return sorted({*range(0, length - part + 1, max(part // 2, 1)), length - part})


def _richness(target: Tensor) -> tuple[int, int]:
    """Returns the number of classes in a target, and of the pixels that count."""
    counts = torch.bincount(target.flatten(), minlength=IGNORE + 1)[:IGNORE]
    return int((counts > 0).sum()), int(counts.sum())


# ------------------------------------------------------------------------------------------------- network and loss


def starts_unsure(trial: Trial) -> Verdict:
    """Whether the network begins as one that knows nothing: with a cross-entropy near ln K.

    Each class counts as much as any other, so that a lean towards the one that happens to be frequent is not taken for
    knowledge, nor one away from it for error: of two classes that alone is up to half of ln 2.
    """
    training = trial.training
    expected = math.log(training.model.num_classes)
    with torch.no_grad():
        outputs = training.model(training.normalize(trial.windows.image.to(training.device)))
        logits = outputs[0] if isinstance(outputs, list) else outputs
        entropy = float(-logits.float().log_softmax(1).mean())
    told = f"{entropy:.3g}, where guessing among {training.model.num_classes} classes gives ln K = {expected:.3g}"
    if abs(entropy - expected) <= max(NEAR * expected, NEAR):
        return Verdict("first cross-entropy", told)
    data = training.config.data
    return Verdict(
        "first cross-entropy",
        f"{told}: the network is sure of answers that it has not learnt, and spends its first steps on unlearning "
        f"them; see whether data.mean {_numbers(data.mean)} and data.std {_numbers(data.std)} are those of the images, "
        "or take norm: batch in encoder and decoder",
        "doubt",
    )


def losses_hold(trial: Trial) -> list[Verdict]:
    """Of each loss that gives the network no gradient: that it does not."""
    training, verdicts = trial.training, []
    target = trial.windows.target.to(training.device)
    classes = training.model.num_classes
    generator = torch.Generator().manual_seed(0)
    for number, loss in enumerate(training.criterion.losses):
        assert isinstance(loss, Loss)
        what = f"loss.{number} ({training.config.loss[number].name})"
        logits = torch.randn(len(target), classes, *target.shape[1:], generator=generator).to(training.device)
        total = loss.total(logits.requires_grad_(), target)
        if not total.requires_grad:
            cut = (
                "is cut off from the network, which learns nothing by it; its `total` must not detach what it is given"
            )
            verdicts.append(Verdict(what, cut, "fault"))
        elif trial.counted and not torch.autograd.grad(total, logits)[0].any():
            flat = (
                "has no slope on the first crops, though they have pixels that count: nothing is learnt by it there; "
                "see its weights and its options"
            )
            verdicts.append(Verdict(what, flat, "doubt"))
    return verdicts


def rehearse(trial: Trial) -> Rehearsal:
    """Trains on the windows, by AdamW at a rate of its own, until the loss has fallen and each gradient was seen."""
    training = trial.training
    named = [(name, p) for name, p in training.model.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([p for _, p in named], lr=RATE, weight_decay=0.0)
    silent, losses = dict.fromkeys(name for name, _ in named), list[float]()
    still = dict.fromkeys(name for name, p in named if p.ndim > 1)
    for _ in range(MOST_STEPS):
        try:
            # Always as step 0: the same dropout, and what is held then.
            loss = train.compute_gradients(training, trial.windows, 0, trial.plan.images)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            break
        losses.append(float(loss))
        for name, parameter in named:
            if parameter.grad is not None:
                silent.pop(name, None)
                if parameter.grad.any():
                    still.pop(name, None)
        learnt = losses[-1] <= LEARNT * losses[0]
        if not math.isfinite(losses[-1]) or (learnt and not still):
            break
        optimizer.step()
    return Rehearsal(tuple(losses), tuple(silent), tuple(name for name in still if name not in silent), len(named))


def learns(trial: Trial, rehearsal: Rehearsal) -> Verdict:
    """Whether the loss falls where the network learns one small batch by heart."""
    what, losses = "one batch by heart", rehearsal.losses
    if not trial.counted:
        return _uncounted(what)
    if not losses:
        cut = "the loss does not depend on the network, so nothing can be learnt; its logits are detached on their way"
        return Verdict(what, cut, "fault")
    if not all(map(math.isfinite, losses)):
        return Verdict(
            what,
            f"the loss is {losses[-1]} after {len(losses) - 1} steps of AdamW at {RATE:g}; see `segtool check` for the "
            "images' values, and take norm: batch, or optim.clip=1 and a low optim.lr",
            "doubt",
        )
    lowest = min(losses)
    told = f"the loss goes from {losses[0]:.4g} to {lowest:.4g} in {len(losses) - 1} steps"
    if losses[0] == 0:
        none = "the loss of the first crops is 0, though they have pixels that count: their classes have weight 0"
        return Verdict(what, none, "doubt")
    if lowest > losses[0] * (1 - UNMOVED):
        return Verdict(
            what,
            f"{told}: it does not move, so nothing would be learnt; what leads from the network's logits to the loss "
            "is broken, or its weights are held",
            "fault",
        )
    if lowest > SLOW * losses[0]:
        slow = "hardly anything, where others halve it; try other activations, norm: batch, or another loss"
        return Verdict(what, f"{told}: {slow}", "doubt")
    return Verdict(what, told)


def gradients_arrive(trial: Trial, rehearsal: Rehearsal) -> Verdict:
    """Whether every parameter that should learn has a gradient."""
    what, silent, trained = "gradients", rehearsal.silent, rehearsal.trained
    if not trial.counted:
        return _uncounted(what)
    names = [name for name, _ in trial.training.model.named_parameters()]
    weights = [name for name, p in trial.training.model.named_parameters() if p.ndim > 1]
    held = len(names) - trained
    aside = f"; {held} of the encoder are held (freeze)" if held else ""
    if not silent and not rehearsal.still:
        return Verdict(what, f"reach all {trained} weights and biases{aside}")
    if not silent:
        dead = "for which they are always 0: the level makes one value everywhere; take fewer levels, or another norm"
        told = f"reach all {trained} weights and biases{aside}, but {_parts(rehearsal.still, weights)}"
        return Verdict(what, f"{told}, {dead}", "doubt")
    told = f"reach {trained - len(silent)} of {trained} weights and biases{aside}, and never {_parts(silent, names)}"
    # An encoder of a library may have a part that nothing uses; what segtool builds on it has none.
    needed = [name for name in silent if not name.startswith("encoder.")]
    encoder = [name for name, p in trial.training.model.encoder.named_parameters() if p.requires_grad]
    if needed or (encoder and len(silent) >= len(encoder)):
        part = "model.decoder" if needed else "model.encoder"
        cut = "which would never learn: what they make is detached or not used on its way to the loss; mend"
        return Verdict(what, f"{told}, {cut} {part}", "fault")
    return Verdict(what, f"{told}, which stay as they begin: nothing that the decoder is given uses them", "doubt")


def _parts(silent: Sequence[str], names: Sequence[str]) -> str:
    """Returns the names of silent parameters; of a level of which all are silent, the level's: `decoder.levels.0`."""
    speaking = {_level(name) for name in set(names) - set(silent)}
    parts = list(dict.fromkeys(name if _level(name) in speaking else _level(name) for name in silent))
    return ", ".join(parts[:TOLD]) + (" …" if len(parts) > TOLD else "")


def _level(name: str) -> str:
    return ".".join(name.split(".")[:3])


def stands_alone(trial: Trial) -> Verdict:
    """Whether what is predicted of an image depends on the others in its batch."""
    what, training = "batch mates", trial.training
    images = training.normalize(trial.windows.image.to(training.device))
    # Far from the image, so that statistics over the batch are others than its own.
    together = torch.cat([images[:1], 3 * images[1:].flip(0) + 1])
    was = training.model.training
    training.model.eval()
    with torch.no_grad():
        alone, among = training.model(images[:1])[0], training.model(together)[0]
    training.model.train(was)
    difference = float((alone - among).abs().max() / alone.std().clamp(min=1e-6))
    if difference <= ALIKE:
        return Verdict(what, "an image's prediction does not depend on the others in its batch")
    return Verdict(
        what,
        f"in evaluation mode the logits of an image change by {difference:.2g} of their deviation with the others in "
        "its batch, so a prediction is not the image's alone; a norm uses the statistics of the batch at hand: track "
        "them, or take norm: group",
        "doubt",
    )


def _uncounted(what: str) -> Verdict:
    return Verdict(what, "not judged, since no pixel of the first crops counts (segtool check tells of ignored ones)")


def _numbers(values: Sequence[float] | None) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values or ()) + "]"


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
        return np.repeat(image[..., None], self.channels, axis=2), target


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
    reader = BlocksReader(**vars(Reader.of(config)))
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
    """Writes the first crops, each over its mask, as `first-batch.png` into a folder, and returns its path."""
    labels = Reader.of(trial.training.config).labels
    scale = max(1, SMALLEST // max(trial.crops.target.shape[1:]))
    cells = []
    for image, target in list(zip(trial.crops.image, trial.crops.target, strict=True))[: trial.plan.batch_size]:
        indices = target.numpy()
        picture = draw.panel(visible(image.permute(1, 2, 0).numpy()), indices, labels.colors, scale=scale)
        cells.append((f"{len(np.unique(indices[indices != IGNORE]))} classes", picture))
    present = np.unique(trial.crops.target.numpy()).tolist()
    entries = [(labels.names[k], tuple(labels.colors[k].tolist())) for k in present if k < labels.num_classes]
    rows = [cells[start : start + WINDOWS] for start in range(0, len(cells), WINDOWS)]
    sheet = draw.gallery("the first batch", "as training sees it, and below it with its mask", rows, classes=entries)
    disk.make_folder(directory)
    path = directory / "first-batch.png"
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
    reader = CornerReader(**vars(Reader.of(training.config)))
    dataset = EvaluationSet(records[:1], reader)
    scores = evaluate(train.build_predictor(training), dataset, ALONE, workers=0, reporter=Mute())
    pixels = int(scores.confusion.sum())
    return Verdict(what, f"runs: {pixels} pixels of {shown(records[0].image.name)} scored")


# ------------------------------------------------------------------------------------------------- disk and memory


def suffice(config: Config, plan: Plan, directory: Path, device: torch.device, world: World = ALONE) -> list[Verdict]:
    """Whether memory holds what a training step keeps, and the run's disk its checkpoints; counted, not measured."""
    share = -(-plan.batch_size // world.size)
    part = -(-share // parts_of(config.train, share))
    model = verify(config.model, len(config.data.classes), config.data.channels).train()
    memory = training_memory(model, describe(model, *plan.crop, batch=part), config)
    each = memory.weights + memory.averages + memory.optimizer
    found = lighter(config, model, plan.crop)
    advice = f"try --set {found[0]}: {found[1]}" if found else "take a network of fewer channels"
    halves = config.train.precision != "fp32"
    step = memory.total - ((memory.activations + memory.loss) // 2 if halves else 0)
    return [
        _memory(step * (1 if device.type == "cuda" else world.local_size), device, advice),
        _disk(each, plan, config, directory),
    ]


def _memory(needed: int, device: torch.device, advice: str) -> Verdict:
    free = (
        torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory() if device.type == "cpu" else None
    )
    told = f"a step keeps about {amount(needed)}"
    if free is None:
        return Verdict("memory", f"{told}; how much is free is unknown")
    told += f"; {amount(free)} are free"
    if needed <= free:
        return Verdict("memory", told)
    return Verdict("memory", f"{told}: {advice}", "fault" if needed > SWAPPED * free else "doubt", ShortageError)


def _disk(each: int, plan: Plan, config: Config, directory: Path) -> Verdict:
    most = min(num_validations(plan) + 1, config.train.keep + 2)
    free = free_disk(directory)
    told = f"{amount(each)} a checkpoint, at most {most} at a time; {amount(free)} are free"
    if free >= most * each:
        return Verdict("disk", told)
    if free < each:
        remedy = "not one can be saved; free some, or choose a --run on another disk"
        return Verdict("disk", f"{told}: {remedy}", "fault", DiskError)
    return Verdict("disk", f"{told}: free {amount(most * each - free)} more, or set train.keep=1", "doubt")


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
        odd = [name for name in wanted if not torch.equal(tensors[name], wanted[name].detach().cpu())]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if odd:
        message = f"{odd[0]} is read back as another than was written; use another disk"
        return Verdict("checkpoint", message, "fault", CheckpointError)
    return Verdict("checkpoint", f"written, read back and verified ({len(wanted)} tensors), and removed again")
