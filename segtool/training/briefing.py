"""What `train` tells of a training before it begins: why each value is what it is, and in a dry run what it will do.

What was measured of its time is in `forecast`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from segtool.check.findings import SEVERITIES, Report, num, size_text
from segtool.check.survey import SplitSummary
from segtool.config import Augment, Config, Optim, plain
from segtool.config.yaml_io import flow, walk
from segtool.data.preview import in_words
from segtool.data.statistics import ClassFrequencies
from segtool.errors import few, shown
from segtool.models.layers import describe
from segtool.models.segmenter import verify
from segtool.system.terminal import counted
from segtool.training.losses import ClassWeighted, Criterion
from segtool.training.optim import learning_rate
from segtool.training.plan import Choice, Plan

MOST_CLASSES = 12  # that are told one by one
QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'')


def reasons(text: str, config: Config) -> list[Choice]:
    """Returns what the comments of a config say of its values, as `init` writes them: above a key, or behind it.

    Of a value that `--set` has changed nothing is returned, and neither of a section as a whole, nor of one class.
    """
    comments = _comments(text)
    places = config.origins.places
    data = plain(config)
    found = []
    for path, place in places.items():
        number = int(place.rpartition(":")[2]) if place.rpartition(":")[2].isdigit() else 0
        first = next(at for at, where in places.items() if where == place) == path
        whole = "." in path and not path.startswith("data.classes.")
        if whole and first and number in comments and "--set" not in config.origins.of(path):
            value = walk(data, path)
            names = few((spec["name"] for spec in value), MOST_CLASSES) if path == "data.classes" else flow(value)
            found.append(Choice(path, names, comments[number]))
    return found


def _comments(text: str) -> dict[int, str]:
    """Returns the comment of each line, numbered from 1, that has one behind it or directly above it."""
    found: dict[int, str] = {}
    above: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if bare.startswith("#"):
            above.append(bare.lstrip("# ").rstrip())
            continue
        # A `#` within quotes, as of a colour, is none.
        masked = QUOTED.sub(lambda quoted: "_" * len(quoted[0]), line)
        behind = line[masked.index(" #") + 2 :].strip() if " #" in masked else ""
        if words := [word for word in (*above, behind) if word]:
            found[number] = " ".join(words).rstrip(".")
        above = []
    return found


def brief(config: Config, plan: Plan, report: Report, frequencies: ClassFrequencies | None) -> list[str]:
    """Returns the lines that tell the data, the network, the loss and the augmentation of a plan."""
    summary, counts = report.summary, Counter(finding.severity for finding in report.findings)
    found = ", ".join(num(counts[severity], severity) for severity in SEVERITIES if counts[severity])
    return [
        f"check: {found or 'no problem found'}",
        *(_split(name, part, summary.classes) for name, part in summary.splits.items()),
        _network(config, plan),
        *_loss(config, frequencies),
        f"augmentation: {_augmentation(config.augment)}",
        f"optimizer: {config.optim.name}, weight decay {config.optim.weight_decay:g}",
    ]


def _split(name: str, part: SplitSummary, classes: Sequence[str]) -> str:
    sizes = list(
        dict.fromkeys(size_text(part.sizes[label]) for label in ("smallest", "median", "largest") if part.sizes)
    )
    shares = [f"{shown(one)} {100 * part.share(one):.3g} %" for one in classes[:MOST_CLASSES]]
    shares += [f"and {len(classes) - MOST_CLASSES} more classes"] * (len(classes) > MOST_CLASSES)
    ignored = f"; {100 * part.share_ignored:.3g} % ignored" if part.ignored else ""
    return f"{name}: {num(part.pairs, 'pair')} of {' to '.join(sizes) or 'unknown size'}: {', '.join(shares)}{ignored}"


def _network(config: Config, plan: Plan) -> str:
    model = verify(config.model, len(config.data.classes), config.data.channels).train()
    found = describe(model, *plan.crop)
    adds = found.multiply_adds
    told = f"{adds / 1e9:.3g} billion" if adds >= 1e8 else f"{adds / 1e6:.3g} million"
    field = "the whole image" if found.receptive_field is None else f"{found.receptive_field} pixels"
    return (
        f"network: {config.model.encoder.name} and {config.model.decoder.name}, {found.parameters:,} parameters, "
        f"stride {found.stride}, a receptive field of {field}, {told} "
        "multiply-adds a crop; segtool inspect shows its layers"
    )


def _loss(config: Config, frequencies: ClassFrequencies | None) -> list[str]:
    terms = [f"{term.weight:g} {term.name}" if term.weight != 1 else term.name for term in config.loss]
    lines = [f"loss: {' + '.join(terms)}"]
    names = [spec.name for spec in config.data.classes]
    criterion = Criterion(config.loss, len(names), frequencies)
    for number, loss in enumerate(criterion.losses):
        if isinstance(loss, ClassWeighted) and loss.weight is not None:
            weights = sorted(zip(loss.weight.tolist(), names, strict=True), reverse=True)
            told = [f"{shown(name)} {weight:.3g}" for weight, name in weights]
            if len(told) > MOST_CLASSES:
                told = [*told[: MOST_CLASSES // 2], "…", *told[-MOST_CLASSES // 2 :]]
            lines.append(f"loss.{number}: a pixel counts {', '.join(told)}")
    return lines


def _augmentation(augment: Augment) -> str:
    assert augment.crop is not None, "make_plan leaves nothing open"
    height, width = augment.crop
    return f"crops of {width}x{height}, {in_words(augment) or 'unchanged'}; segtool check CONFIG --augment DIR draws it"


def course(optim: Optim, steps: int) -> str:
    """Returns the line that tells the learning rate: where it begins, is highest, stands halfway and ends."""
    grid = {min(round(steps * part / 1000), steps - 1) for part in range(1001)}  # and the warm-up step by step
    rates = {step: learning_rate(optim, step, steps) for step in sorted(grid | set(range(min(steps, 2000))))}
    highest = max(rates, key=rates.__getitem__)
    told = {0: "in the first step", steps // 2: "halfway", highest: f"at its highest (step {highest + 1})"}
    told[steps - 1] = f"in the last of {counted(steps, 'step')}"
    rate = ", ".join(f"{learning_rate(optim, step, steps):.3g} {where}" for step, where in sorted(told.items()))
    return f"learning rate: {optim.schedule}: {rate}"
