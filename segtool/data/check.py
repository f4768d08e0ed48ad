"""What `segtool check` finds: every problem of a data set in one pass over its files, each kind told once.

A check is a function from the survey to its findings, entered in `CHECKS` by the decorator; to add one, write it. The
codes' first digit says what they are about: 1 which files there are, 2 whether they can be read, 3 what the masks
hold, 4 the classes, 5 the splits, 6 the settings. Errors are what stops a training or makes it untrue.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segtool.config import Config
from segtool.data.facts import ImageFacts, MaskFacts, Progress
from segtool.data.masks import read_mask
from segtool.data.opening import shown
from segtool.data.survey import Summary, Survey, summarize, survey_files
from segtool.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SHOWN_FILES = 5
FEW_PAIRS = 5
RARE_SHARE = 1e-3


@dataclass(frozen=True)
class Finding:
    """One kind of problem, over all files that have it."""

    code: str
    severity: Severity
    message: str
    count: int
    """How many files, pairs or classes are concerned."""
    files: tuple[str, ...]
    """The first few, relative to the data's root."""
    example: str
    """One of them in a sentence: file, pixel, value."""
    remedy: str


Check = Callable[[Survey], Iterator[Finding]]
CHECKS: list[Check] = []


def a_check(function: Check) -> Check:
    """Enters a function among the checks; they run in the order of their definition."""
    CHECKS.append(function)
    return function


@dataclass(frozen=True)
class Report:
    """What one pass found, and the figures of the data set."""

    findings: list[Finding]
    summary: Summary


def check(config: Config, base: Path) -> list[Finding]:
    """Returns everything that is wrong with the data of a config, the gravest first; nothing is raised for bad files.

    Args:
        base: directory of the config file.
    """
    return examine(config, base).findings


def summary(config: Config, base: Path) -> Summary:
    """Returns pairs, sizes and class pixels of each split, of the files that can be read."""
    return examine(config, base).summary


def examine(config: Config, base: Path, *, progress: Progress | None = None) -> Report:
    """Returns findings and figures of one pass over all files.

    Args:
        progress: called with the number of files done and their total.
    """
    survey = survey_files(config, base, progress=progress)
    findings = [finding for function in CHECKS for finding in function(survey)]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(findings, summarize(survey))


def to_json(findings: Sequence[Finding], summary: Summary | None = None) -> dict[str, Any]:
    """Returns what `check --json` prints: `findings`, `counts` by severity and, with a summary, `splits`."""
    document: dict[str, Any] = {
        "findings": [asdict(finding) | {"files": list(finding.files)} for finding in findings],
        "counts": {severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES},
    }
    if summary is not None:
        document["splits"] = {name: split.to_json() for name, split in summary.splits.items()}
    return document


# ------------------------------------------------------------------------------------------------- 1 which files


@a_check
def folders_exist(survey: Survey) -> Iterator[Finding]:
    """SEG101: a folder or list that the config names is not there, or cannot be read."""
    missing = survey.listing.missing
    if missing:
        there = "" if survey.root.is_dir() else f"; data.root {shown(survey.root)} itself is not there"
        yield Finding(
            "SEG101",
            "error",
            f"{_num(len(missing), 'folder or list', 'folders or lists')} named by the config not found",
            len(missing),
            _names(survey, missing),
            next(iter(missing.values())) + there,
            "correct data.root and the folders under data.train, data.val and data.test, or put the data there",
        )


@a_check
def pairs_found(survey: Survey) -> Iterator[Finding]:
    """SEG102: a part of the data has no pair at all."""
    for split, pairs in survey.pairs.items():
        if not pairs.records:
            without = f"{len(pairs.images_without_mask)} images and {len(pairs.masks_without_image)} masks"
            yield Finding(
                "SEG102",
                "error",
                f"{split}: no pair of an image and its mask",
                1,
                _names(survey, [*pairs.images_without_mask[:2], *pairs.masks_without_image[:2]]),
                f"data.{split} holds {without} whose names do not meet",
                "correct the folders; where names differ by a prefix or suffix, say so in data.pairing",
            )


@a_check
def everything_paired(survey: Survey) -> Iterator[Finding]:
    """SEG103, SEG104: an image without a mask, a mask without an image."""
    images = [path for pairs in survey.pairs.values() for path in pairs.images_without_mask]
    masks = [path for pairs in survey.pairs.values() for path in pairs.masks_without_image]
    if images:
        yield Finding(
            "SEG103",
            "error",
            f"{_num(images, 'image')} without a mask",
            len(images),
            _names(survey, images),
            f"{survey.name(images[0])}: no mask of that stem",
            "add the masks, or move the images out of the folder; where names differ, see data.pairing",
        )
    if masks:
        yield Finding(
            "SEG104",
            "error",
            f"{_num(masks, 'mask')} without an image",
            len(masks),
            _names(survey, masks),
            f"{survey.name(masks[0])}: no image of that stem",
            "add the images, or move the masks out of the folder; where names differ, see data.pairing",
        )


@a_check
def names_unambiguous(survey: Survey) -> Iterator[Finding]:
    """SEG105: several files that claim the same partner."""
    twins = [files for pairs in survey.pairs.values() for files in pairs.ambiguous]
    if twins:
        yield Finding(
            "SEG105",
            "error",
            f"{_num(twins, 'name')} that several files share, so that a pair is not certain",
            len(twins),
            _names(survey, [path for files in twins for path in files]),
            f"{' and '.join(survey.name(path) for path in twins[0])} have one stem",
            "keep one file of each name and move the others away",
        )


@a_check
def lists_sound(survey: Survey) -> Iterator[Finding]:
    """SEG107: lines of a list that name no pair."""
    problems = survey.listing.list_problems
    if problems:
        yield Finding(
            "SEG107",
            "error",
            f"{_num(problems, 'line')} of the lists that cannot be used",
            len(problems),
            (),
            problems[0],
            "give an image and its mask on each line, with paths relative to data.root",
        )


@a_check
def affixes_carried(survey: Survey) -> Iterator[Finding]:
    """SEG108: files passed over because they lack the prefix or suffix of data.pairing."""
    unnamed = [path for pairs in survey.pairs.values() for path in pairs.unnamed]
    if unnamed:
        yield Finding(
            "SEG108",
            "note",
            f"{_num(unnamed, 'file')} passed over: not named as data.pairing says",
            len(unnamed),
            _names(survey, unnamed),
            survey.name(unnamed[0]),
            "nothing, where they are neither images nor masks; else correct data.pairing",
        )


@a_check
def split_possible(survey: Survey) -> Iterator[Finding]:
    """SEG106: what the config asks of the pairs cannot be done."""
    problems = survey.listing.split_problems
    if problems:
        yield Finding(
            "SEG106",
            "error",
            "the pairs cannot be split as the config asks",
            len(problems),
            (),
            problems[0],
            "change data.split, or give the folders data.val and data.test",
        )


# ------------------------------------------------------------------------------------------------- 2 reading


@a_check
def images_readable(survey: Survey) -> Iterator[Finding]:
    """SEG201: an image that cannot be decoded, or is of a kind that is not accepted."""
    yield from _unreadable(survey, "SEG201", "image", survey.images.values())


@a_check
def masks_readable(survey: Survey) -> Iterator[Finding]:
    """SEG202: a mask that cannot be decoded, or is of a kind that is not accepted."""
    yield from _unreadable(survey, "SEG202", "mask", survey.masks.values())


def _unreadable(survey: Survey, code: str, what: str, files: Iterable[ImageFacts | MaskFacts]) -> Iterator[Finding]:
    bad = [facts for facts in files if facts.error]
    if bad:
        yield Finding(
            code,
            "error",
            f"{_num(bad, what)} cannot be read",
            len(bad),
            _names(survey, [facts.path for facts in bad]),
            f"{survey.name(bad[0].path)}: {bad[0].error}",
            "replace these files by good copies, or move them and their partners out of the folders",
        )


@a_check
def sizes_match(survey: Survey) -> Iterator[Finding]:
    """SEG203: a mask of another size than its image."""
    wrong = []
    for record in (record for pairs in survey.pairs.values() for record in pairs.records):
        image, mask = survey.images[record.image], survey.masks.get(record.mask) if record.mask else None
        if mask and not image.error and not mask.error and image.size != mask.size:
            wrong.append((image, mask))
    if wrong:
        image, mask = wrong[0]
        yield Finding(
            "SEG203",
            "error",
            f"{_num(wrong, 'mask')} with another size than the image",
            len(wrong),
            _names(survey, [mask.path for _, mask in wrong]),
            f"{survey.name(mask.path)}: {_size(mask.size)}, but its image {survey.name(image.path)} has "
            f"{_size(image.size)}{_size_hint(image, mask)}",
            _size_remedy(image, mask),
        )


def _size_hint(image: ImageFacts, mask: MaskFacts) -> str:
    (height, width), (mask_height, mask_width) = image.size, mask.size
    if (mask_height, mask_width) == (width, height):
        turned = f"; the image has EXIF orientation {image.orientation}" if image.orientation != 1 else ""
        return f": rotated?{turned}"
    ratio = mask_height / height
    if abs(ratio - mask_width / width) < 0.02:
        return f": scaled by {ratio:.3g}?"
    return ": cropped, or the mask of another image?"


def _size_remedy(image: ImageFacts, mask: MaskFacts) -> str:
    if mask.size == image.size[::-1] and image.orientation >= 5:
        return "the mask fits the stored grid: set data.exif to ignore, or turn the mask as viewers show the image"
    if mask.size == image.size[::-1]:
        return "turn the image or the mask; look at both first, a wrong turn trains nonsense"
    return "export the masks at the size of the images, with nearest-neighbour scaling"


@a_check
def modes_alike(survey: Survey) -> Iterator[Finding]:
    """SEG204: images of several pixel formats, which the reader turns into one."""
    modes = Counter(facts.mode for facts in survey.images.values() if not facts.error)
    kinds = {"L" if mode in ("1", "L") else "RGB" if mode in ("RGB", "P") else mode for mode in modes}
    if len(kinds) > 1:
        rarest = min(modes, key=lambda mode: modes[mode])
        few = [facts.path for facts in survey.images.values() if facts.mode == rarest]
        listed = ", ".join(f"{count} {mode}" for mode, count in modes.most_common())
        yield Finding(
            "SEG204",
            "note",
            f"images of {len(modes)} pixel formats: {listed}; all become {survey.config.data.channels} channels",
            len(few),
            _names(survey, few),
            f"{survey.name(few[0])}: {rarest}",
            "nothing, if data.channels is meant so; else store all images alike",
        )


# ------------------------------------------------------------------------------------------------- 3 mask values


@a_check
def kind_fits(survey: Survey) -> Iterator[Finding]:
    """SEG301: masks of a kind that the encoding does not read, such as RGB with `index`, or JPEG."""
    wrong = [(path, use.error) for path, use in survey.uses.items() if use.error]
    if wrong:
        path, error = wrong[0]
        yield Finding(
            "SEG301",
            "error",
            f"{_num(wrong, 'mask')} cannot be read with data.encoding: {survey.config.data.encoding}",
            len(wrong),
            _names(survey, [path for path, _ in wrong]),
            f"{survey.name(path)}: {error}",
            _kind_remedy(survey, survey.masks[path]),
        )


def _kind_remedy(survey: Survey, mask: MaskFacts) -> str:
    if mask.lossy:
        return "export the masks as PNG; or let `segtool init` write a config that takes the nearest class"
    if mask.colored:
        return "set data.encoding to rgb and give each class its colors; `segtool init` writes them"
    return "set data.encoding to index and give each class its values; `segtool init` writes them"


@a_check
def values_known(survey: Survey) -> Iterator[Finding]:
    """SEG302: stored values or colours that no class and no `ignore` lists."""
    pixels: Counter[int] = Counter()
    files: dict[int, list[Path]] = defaultdict(list)
    for path, use in survey.uses.items():
        for value, count in use.unknown.items():
            pixels[value] += count
            files[value].append(path)
    if not pixels:
        return
    concerned = [path for path, use in survey.uses.items() if use.unknown]
    colored = survey.config.data.encoding in ("rgb", "palette")
    value, _ = pixels.most_common(1)[0]
    path = files[value][0]
    count = _num(survey.uses[path].unknown[value], "pixel")
    yield Finding(
        "SEG302",
        "error",
        f"{_num(concerned, 'mask')} with {'colours' if colored else 'values'} that are no class: "
        + _table(pixels, files, colored),
        len(concerned),
        _names(survey, concerned),
        f"{survey.name(path)}: {_value(value, colored)} at {_first_pixel(survey, path, value)}, {count} in this file",
        _value_remedy(survey, pixels, colored),
    )


def _table(pixels: Counter[int], files: dict[int, list[Path]], colored: bool) -> str:
    rows = [
        f"{_value(value, colored)} ({_num(count, 'pixel')} in {_num(files[value], 'file')})"
        for value, count in pixels.most_common(8)
    ]
    return ", ".join(rows) + (f" and {len(pixels) - 8} more" if len(pixels) > 8 else "")


def _value(value: int, colored: bool) -> str:
    if colored and value < 0:
        return f"palette index {-1 - value}, which has no colour,"
    return f"#{value:06x}" if colored else str(value)


def _first_pixel(survey: Survey, path: Path, value: int) -> str:
    """Returns where the value first stands, as `(x, y)`; the file is read once more for it."""
    try:
        stored = read_mask(path, max_pixels=survey.config.limits.max_pixels)
    except DataError:  # changed since the pass
        return "(?, ?)"
    _, place = survey.labels.unknown(stored).get(value, (0, ("?", "?")))
    return f"({place[0]}, {place[1]})"


def _value_remedy(survey: Survey, pixels: Counter[int], colored: bool) -> str:
    if colored:
        close = len(pixels) > 16
        near = "; or set data.nearest: true, which takes each colour as the nearest class" if close else ""
        return f"add a class with the colour, or put it in data.ignore{near}"
    known = sorted({value for mask in survey.masks.values() for value in mask.values.tolist()})
    if set(known) == {0, 255}:
        return "the masks are 0/255: give the second class `values: [255]`"
    if set(pixels) == {255}:
        return "255 often marks what nobody labelled: put it in data.ignore, or add a class with `values: [255]`"
    if len(pixels) > 64 and max(pixels) > 255:
        return "these look like instance ids: give the object class a range, `values: [1..65535]`"
    if len(pixels) > 16:
        return (
            "many stray values: soft edges or lossy compression need data.encoding: threshold; instance ids a range, "
            "`values: [1..255]`"
        )
    return "add a class with the value, or put it in data.ignore"


@a_check
def masks_lossless(survey: Survey) -> Iterator[Finding]:
    """SEG303: JPEG masks, whose values are not the ones that were drawn."""
    lossy = [path for path, mask in survey.masks.items() if mask.lossy and not survey.uses[path].error]
    if lossy:
        yield Finding(
            "SEG303",
            "warning",
            f"{_num(lossy, 'mask')} stored as JPEG, which is lossy: pixels near edges may count for a wrong class",
            len(lossy),
            _names(survey, lossy),
            f"{survey.name(lossy[0])}: {len(survey.masks[lossy[0]].values)} distinct values",
            "export the masks as PNG where the originals exist",
        )


@a_check
def masks_tell_something(survey: Survey) -> Iterator[Finding]:
    """SEG304, SEG305: masks that are ignored as a whole, or hold one class only."""
    ignored = [path for path, use in survey.uses.items() if use.ignored and not use.pixels.any() and not use.unknown]
    if ignored:
        yield Finding(
            "SEG304",
            "warning",
            f"{_num(ignored, 'mask')} ignored in every pixel",
            len(ignored),
            _names(survey, ignored),
            f"{survey.name(ignored[0])}: all of its {survey.uses[ignored[0]].ignored} pixels are in data.ignore",
            "label these images or take them out: they teach nothing",
        )
    blank = [path for path, use in survey.uses.items() if (use.pixels > 0).sum() == 1 and not use.unknown]
    if blank:
        only = survey.labels.names[int(survey.uses[blank[0]].pixels.argmax())]
        yield Finding(
            "SEG305",
            "note",
            f"{_num(blank, 'mask')} of {len(survey.uses)} with one class only",
            len(blank),
            _names(survey, blank),
            f"{survey.name(blank[0])}: nothing but {shown(only)}",
            "nothing, where these images really show nothing else",
        )


# ------------------------------------------------------------------------------------------------- 4 classes


@a_check
def classes_occur(survey: Survey) -> Iterator[Finding]:
    """SEG401, SEG402: classes that never occur in the training, validation or test masks."""
    train = survey.class_pixels("train")
    if train.any():
        absent = [name for name, pixels in zip(survey.labels.names, train, strict=True) if not pixels]
        yield from _absent(
            "SEG401", "train", absent, "the network cannot learn them; label some, or remove the classes"
        )
    for split in ("val", "test"):
        here = survey.class_pixels(split)
        if here.any():
            rows = zip(survey.labels.names, here, train, strict=True)
            absent = [name for name, pixels, taught in rows if taught and not pixels]
            yield from _absent("SEG402", split, absent, "their scores are null there; another split may hold them")


def _absent(code: str, split: str, absent: list[str], remedy: str) -> Iterator[Finding]:
    if absent:
        listed = ", ".join(shown(name) for name in absent[:8]) + (", …" if len(absent) > 8 else "")
        what = _num(absent, "class", "classes")
        verb = "occurs" if len(absent) == 1 else "occur"
        message = f"{what} never {verb} in the {split} masks: {listed}"
        yield Finding(code, "warning", message, len(absent), (), f"{shown(absent[0])}: 0 pixels in {split}", remedy)


@a_check
def classes_not_rare(survey: Survey) -> Iterator[Finding]:
    """SEG403: classes that cover hardly anything of the training masks."""
    train = survey.class_pixels("train")
    shares = train / max(1, int(train.sum()))
    rare = [index for index in range(len(shares)) if 0 < shares[index] < RARE_SHARE]
    if rare:
        parts = [f"{shown(survey.labels.names[index])} {100 * shares[index]:.2g} %" for index in rare]
        yield Finding(
            "SEG403",
            "note",
            f"{_num(rare, 'class', 'classes')} under 0.1 % of the training pixels: {', '.join(parts[:8])}",
            len(rare),
            (),
            f"{shown(survey.labels.names[rare[0]])}: {int(train[rare[0]])} pixels",
            "class_weights of the cross_entropy loss and a dice loss help; more such images help most",
        )


# ------------------------------------------------------------------------------------------------- 5 splits


@a_check
def splits_apart(survey: Survey) -> Iterator[Finding]:
    """SEG501: the same picture in two splits, so that a score tells what was learned by heart."""
    where: dict[str, dict[str, Path]] = defaultdict(dict)
    for split, records in survey.records.items():
        for record in records:
            facts = survey.images[record.image]
            if not facts.error:
                where[facts.digest].setdefault(split, record.image)
    leaks = [places for places in where.values() if len(places) > 1]
    if leaks:
        first = leaks[0]
        yield Finding(
            "SEG501",
            "warning",
            f"{_num(leaks, 'picture')} in two splits, equal in every pixel",
            len(leaks),
            _names(survey, [path for places in leaks for path in places.values()]),
            " = ".join(f"{survey.name(path)} ({split})" for split, path in first.items()),
            "remove them from all splits but one: scores on known pictures are too high",
        )


@a_check
def stems_apart(survey: Survey) -> Iterator[Finding]:
    """SEG502: one name in two splits with different pictures, unless names are mere numbers that start again."""
    pictures: dict[str, dict[str, str]] = defaultdict(dict)
    for split, records in survey.records.items():
        for record in records:
            pictures[record.stem][split] = survey.images[record.image].digest
    shared = [stem for stem, seen in pictures.items() if len(seen) > 1 and len(set(seen.values())) > 1]
    numbering = len({"".join(c for c in stem if not c.isdigit()) for stem in pictures}) == 1
    if shared and not numbering:
        splits = " and ".join(pictures[shared[0]])
        yield Finding(
            "SEG502",
            "note",
            f"{_num(shared, 'name')} in two splits, with different pictures",
            len(shared),
            tuple(shown(stem) for stem in shared[:SHOWN_FILES]),
            f"{shown(shared[0])} is in {splits}",
            "nothing, where numbering starts again in each split; else see that no scene is in both",
        )


@a_check
def enough_pairs(survey: Survey) -> Iterator[Finding]:
    """SEG503: too few training pairs to learn from."""
    num = len(survey.records.get("train", ()))
    if 0 < num < FEW_PAIRS:
        message = f"{_num(num, 'training pair')}: too few for a network that works on other images"
        yield Finding(
            "SEG503", "warning", message, num, (), f"train: {_num(num, 'pair')}", "label more images, or hold out fewer"
        )


# ------------------------------------------------------------------------------------------------- 6 settings


@a_check
def crop_fits(survey: Survey) -> Iterator[Finding]:
    """SEG601: a training crop larger than the training images, by more than their rounding up to 32."""
    crop = survey.config.augment.crop
    facts = [survey.images[record.image] for record in survey.records.get("train", ())]
    sizes = [image.size for image in facts if not image.error]
    if crop is None or not sizes:
        return
    small = [
        image.path
        for image in facts
        if not image.error and any(side > -(-length // 32) * 32 for side, length in zip(crop, image.size, strict=True))
    ]
    if len(small) * 2 > len(sizes):
        yield Finding(
            "SEG601",
            "note",
            f"augment.crop {_size(crop)} is larger than {len(small)} of {_num(sizes, 'training image')}",
            len(small),
            _names(survey, small),
            f"{survey.name(small[0])}: {_size(survey.images[small[0]].size)}",
            "a smaller crop: what lies outside of an image is ignored, and costs time",
        )


# ------------------------------------------------------------------------------------------------- words


def _num(count: int | Sequence[object] | Sequence[Path], one: str, many: str = "") -> str:
    number = count if isinstance(count, int) else len(count)
    return f"{number} {one if number == 1 else many or one + 's'}"


def _names(survey: Survey, paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(survey.name(path) for path in list(paths)[:SHOWN_FILES])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 1e-3 or not share else f"{100 * share:.2g} %"


def _size(size: tuple[int, int]) -> str:
    """Returns H, W as width x height, the order in which image viewers tell it."""
    return f"{size[1]}x{size[0]}"


# ------------------------------------------------------------------------------------------------- terminal


def render(console: Console, findings: Sequence[Finding], summary: Summary | None = None) -> None:
    """Prints figures and findings; file names are text, never markup."""
    from rich.text import Text

    if summary is not None:
        _render_summary(console, summary)
    styles = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for finding in findings:
        line = Text(f"{finding.severity} {finding.code}", style=styles[finding.severity])
        console.print(line.append(f"  {finding.message}", style="not bold default"))
        for label, text in (("e.g.", finding.example), ("files", ", ".join(finding.files)), ("do", finding.remedy)):
            if text:
                console.print(Text(f"    {label:5} {text}"))
    counts = Counter(finding.severity for finding in findings)
    told = ", ".join(_num(counts[severity], severity) for severity in SEVERITIES if counts[severity])
    console.print(Text(told or "no problem found", style="" if told else "green"))


def _render_summary(console: Console, summary: Summary) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for split in summary.splits:
        table.add_column(split, justify="right")
    parts = list(summary.splits.values())
    table.add_row("pairs", *(str(part.pairs) for part in parts))
    for label in ("smallest", "median", "largest"):
        table.add_row(f"{label} size", *(_size(part.sizes[label]) if part.sizes else "-" for part in parts))
    for name in summary.classes:
        table.add_row(Text(shown(name)), *(_percent(part.share(name)) for part in parts))
    if any(part.ignored for part in parts):
        table.add_row("(ignored)", *(_percent(part.share_ignored) for part in parts))
    console.print(table)
