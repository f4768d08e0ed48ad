"""What `segtool inspect` does: the network of a config or a run, its memory, its data's structures, its behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from rich.text import Text

from segtool.commands.sources import load_any
from segtool.config import Config, located
from segtool.data.formats import split_records
from segtool.data.pairs import Record
from segtool.data.reader import Reader
from segtool.data.statistics import evenly, resolve_data
from segtool.data.structures import Structure, measure_structures
from segtool.errors import ConfigError, DataError, shown
from segtool.models.layers import DEFINITIONS, OF_LAYERS, Summary, describe, rows_table
from segtool.models.measure import SHIFTS, EffectiveField, Shift, effective_field, settle_norms, shift_consistency
from segtool.models.segmenter import Segmenter, build_model, verify
from segtool.prediction.inference import Normalize
from segtool.prediction.predict import build_predictor
from segtool.runs.members import find_checkpoints, is_member
from segtool.system.devices import choose_device
from segtool.system.terminal import Reporter, counted, percent
from segtool.training.memory import Memory, memory_lines, training_memory
from segtool.training.plan import largest_part

IMAGES = 8  # that the effective field is measured on; half of them for the shifts, which take nine passes each
MAX_SIDE = 640  # larger images are cropped about their centre for measuring
DEFAULT_SIZE = (256, 256)


@dataclass(frozen=True)
class Measured:
    """What `--measure` adds."""

    weights: str
    """Which weights were measured."""
    images: str
    """On what."""
    theoretical_field: int | None
    effective_field: EffectiveField | None
    margin: int
    """Pixels from the borders that `inside` of a shift leaves out."""
    shifts: tuple[Shift, ...]


@dataclass(frozen=True)
class Inspection:
    """All that there is to say of a network."""

    config: Config
    summary: Summary
    memory: Memory
    structures: tuple[Structure, ...] | None
    """Null where the data is not there."""
    warnings: tuple[str, ...]
    measured: Measured | None = None

    def parts(self, *, width: int) -> Iterator[Table | Text]:
        """Yields what a person reads, for a terminal of `width` columns; the warnings are left out."""
        yield rows_table(self.summary, width=width)
        lines = [DEFINITIONS, "", *memory_lines(self.memory, self.summary, self.config)]
        yield Text("\n".join([*lines, *_structure_lines(self.structures or ())]))
        if self.measured is not None:
            yield Text("\n" + "\n".join(measured_lines(self.measured)) + "\n")
            yield shifts_table(self.measured)

    def to_json(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return {
            **vars(self.summary),
            "layers": [{key: getattr(layer, key) for key in OF_LAYERS} for layer in self.summary.layers],
            "memory": {**vars(self.memory), "total": self.memory.total},
            "structures": None if self.structures is None else [asdict(structure) for structure in self.structures],
            "warnings": self.warnings,
            "measured": None if self.measured is None else asdict(self.measured),
        }


def inspect_session(
    path: Path,
    overrides: Sequence[str],
    *,
    size: tuple[int, int] | None = None,
    measuring: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> Inspection:
    """Returns what `segtool inspect` says of a config or a run; what it cannot look at is said on standard error.

    Args:
        size: Height and width of the image; None: the crop, else 256x256.

    Raises:
        ConfigError: an unknown component or option, or parts that do not fit together.
        CheckpointError: a run that shall be measured holds no checkpoint that verifies.
    """
    reporter = Reporter(quiet=quiet)
    where = choose_device(device)
    config, base = load_any(path, overrides)
    found = inspect_network(config, base, size, reporter)
    if not measuring:
        return found
    run = path if path.is_dir() and is_member(path) else None
    return replace(found, measured=measure(config, base, run, where, reporter))


def inspect_network(config: Config, base: Path, size: tuple[int, int] | None, reporter: Reporter) -> Inspection:
    """Returns what is known of the network of a config, whose `data.root` is relative to `base`, without running it."""
    height, width = size or config.augment.crop or DEFAULT_SIZE
    with located(config):
        model = verify(config.model, len(config.data.classes), config.data.channels)
    summary = describe(model, height, width, batch=largest_part(config.train, 1))
    memory = training_memory(model, summary, config)
    structures = None
    try:
        structures = tuple(measure_structures(config, _records(config, base)["train"]))
    except (DataError, ConfigError) as error:  # the network can be looked at without the data
        reporter.say(f"the receptive field is not compared with the data's structures: {error.problems[0]}")
    warnings = (*summary.warnings, *_small_field(summary.receptive_field, structures or ()))
    return Inspection(config, summary, memory, structures, warnings)


def measure(config: Config, base: Path, run: Path | None, device: torch.device, reporter: Reporter) -> Measured:
    """Returns how a network behaves: that of a run's best checkpoint, else that of the config as training begins.

    Raises:
        CheckpointError: the run holds no checkpoint that verifies.
        ConfigError: the run's network is another one than the config's, or pretrained weights are not there.
    """
    if run is None:
        model, normalize, weights = _initial(config, base)
    else:
        model, normalize, weights = _trained(config, run, device, reporter)
    images, told = _images(config, base, model, normalize, reporter)
    model, images = model.to(device), [image.to(device) for image in images]
    if run is None:
        # BatchNorm needs more than one value at the deepest level.
        settle_norms(model, [x for x in images if model.deepest(x.shape[-2]) * model.deepest(x.shape[-1]) > 1])
    side = min(min(image.shape[-2:]) for image in images)
    margin = min((model.receptive_field or side) // 2, side // 4)
    shifts = [*SHIFTS, *([model.stride] if SHIFTS[-1] < model.stride <= side // 4 else [])]
    field = effective_field(model.eval(), images)
    usable = [d for d in shifts if d < side]
    rows = shift_consistency(model, images[::2], shifts=usable, stride=model.stride, margin=margin)
    return Measured(weights, told, model.receptive_field, field, margin, tuple(rows))


def measured_lines(measured: Measured) -> list[str]:
    """Returns what was measured, as lines that stand over and under the table of shifts."""
    field, told = measured.effective_field, "no gradient reaches the image"
    if field is not None:
        half, most = (f"{side}x{side}" for side in (field.half, field.most))
        told = f"50 % of the gradient of a centre pixel's logits lies within {half} pixels about it, 95 % within {most}"
    possible = measured.theoretical_field or "the whole image"
    return [
        f"measured with {measured.weights} on {measured.images}",
        f"effective receptive field: {told}; it can see {possible} (Luo et al. 2016)",
        "shift consistency: share of pixels whose class stays when the image moves up and to the left (Zhang 2019)",
    ]


def shifts_table(measured: Measured) -> Table:
    """Returns the consistency by shift as a table."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("shift", "consistency %", f"{measured.margin} pixels from borders %"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in measured.shifts:
        note = "a multiple of the stride: only borders differ" if row.whole else ""
        table.add_row(str(row.pixels), percent(row.consistency), percent(row.inside), note)
    return table


def _structure_lines(structures: Sequence[Structure]) -> list[str]:
    told = ", ".join(f"{shown(structure.name)} {structure.length:.0f}" for structure in structures)
    head = "structures of the training masks, pixels of the longest straight run inside a class (median over the masks"
    return ["", f"{head} that have it): {told}"] if structures else []


def _small_field(field: int | None, structures: Sequence[Structure]) -> list[str]:
    longer = sorted((s for s in structures if field is not None and s.length > field), key=lambda s: -s.length)
    if not longer:
        return []
    told = ", ".join(f"{shown(structure.name)} {structure.length:.0f}" for structure in longer)
    return [
        f"the receptive field of {field} pixels is smaller than structures of the training masks: {told}; pixels in "
        "their middle do not see where they end; more levels in the encoder widen the field"
    ]


def _records(config: Config, base: Path) -> dict[str, list[Record]]:
    with located(config):
        return split_records(config, base)


def _initial(config: Config, base: Path) -> tuple[Segmenter, Normalize | None, str]:
    torch.manual_seed(config.train.seed)
    with located(config):
        model = build_model(config.model, len(config.data.classes), config.data.channels)
        pretrained = model.encoder.pretrained(base)
        told = f"the initial weights of seed {config.train.seed}"
        if pretrained is not None:
            model.encoder.load(pretrained)
            told += f", the encoder's {pretrained.name}"
    given = pretrained if pretrained and config.data.mean is None else config.data
    return model, Normalize(given.mean, given.std) if given.mean and given.std else None, told


def _trained(
    config: Config, run: Path, device: torch.device, reporter: Reporter
) -> tuple[Segmenter, Normalize | None, str]:
    checkpoint = find_checkpoints([run], reporter)[0]
    if checkpoint.config.model != config.model:
        raise ConfigError(f"{run}: its weights were made for another network; leave out --set model… with --measure")
    predictor = build_predictor(checkpoint, device, dtype=torch.float32)  # gradients are taken
    return predictor.model, predictor.normalize, f"the weights of step {checkpoint.progress.step} of {run}"


def _images(
    config: Config, base: Path, model: Segmenter, normalize: Normalize | None, reporter: Reporter
) -> tuple[list[torch.Tensor], str]:
    """Returns normalised images C H W, and in words what they are: of the data where it is there, else noise."""
    try:
        records = _records(config, base)
        split = "val" if records.get("val") else "train"
        return _read(config, records, split, normalize)
    except DataError as error:
        reporter.say(f"no images to measure on, so it is noise: {error.problems[0]}")
    side = min(MAX_SIDE, 2 * model.stride * -(-(model.receptive_field or MAX_SIDE) // model.stride))
    noise = torch.randn(IMAGES, model.in_channels, side, side, generator=torch.Generator().manual_seed(0))
    return list(noise), f"noise of {side}x{side} pixels"


def _read(
    config: Config, records: dict[str, list[Record]], split: str, normalize: Normalize | None
) -> tuple[list[torch.Tensor], str]:
    if normalize is None:
        data = resolve_data(config, records["train"]).data
        normalize = Normalize(data.mean or (), data.std or ())
    found, reader = records[split], Reader.of(config)
    picked = evenly(len(found), IMAGES)
    stored = [torch.from_numpy(reader.image(found[i])).permute(2, 0, 1) for i in picked]
    images = [normalize(_centre(image).unsqueeze(0))[0] for image in stored]
    name = "validation" if split == "val" else "training"
    return images, counted(len(images), f"{name} image")


def _centre(image: torch.Tensor) -> torch.Tensor:
    top, left = (max(0, (side - MAX_SIDE) // 2) for side in image.shape[-2:])
    return image[:, top : top + MAX_SIDE, left : left + MAX_SIDE]
