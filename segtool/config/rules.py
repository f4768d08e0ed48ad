"""What must hold of the values of a config beyond their types; each rule says which keys it reads.

A rule is left out when one of its keys could not be read, so that one typing error does not raise a second complaint.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from segtool.config.bounds import BOUNDS
from segtool.config.yaml_io import flow
from segtool.errors import Problem

if TYPE_CHECKING:
    from segtool.config.sections import ClassSpec, Config

MAX_CLASSES = 255
MAX_CROP = 200_000_000
MAX_PATH = 1024
MAX_NAME = 255
_HEX_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_RANGE = re.compile(r"(-?[0-9]{1,10})\.\.(-?[0-9]{1,10})")

Rule = Callable[["Config"], Iterator[Problem]]
_rules: list[tuple[tuple[str, ...], Rule]] = []


class _Stored(NamedTuple):
    """An interval of stored values (or a colour as a number), and the key that gives it."""

    low: int
    high: int
    path: str
    text: str


def problems(config: Config, *, unread: Iterable[str] = ()) -> list[Problem]:
    """Returns everything that does not fit together, in the order of the sections.

    Args:
        unread: Dotted keys that could not be read and hold their defaults instead; rules that read them are left out.
    """
    patterns = [_pattern(key) for key in unread]
    held = [rule for keys, rule in _rules if not any(_touch(key, pattern) for key in keys for pattern in patterns)]
    found = [problem for rule in held for problem in rule(config)]
    for path, bounds in BOUNDS.items():
        value = attrgetter(path)(config)
        if isinstance(value, int | float) and not bounds.hold(value) and not any(_touch(path, p) for p in patterns):
            found.append(Problem(path, f"expected {bounds.words}, found {flow(value)}"))
    return found


def _rule(*keys: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        _rules.append((keys, rule))
        return rule

    return add


@_rule("data.classes")
def _classes_are_counted(config: Config) -> Iterator[Problem]:
    count = len(config.data.classes)
    if count == 0:
        yield Problem("data.classes", "no classes; list them, `segtool init DATA_DIR` finds those of a data set")
    elif count == 1:
        yield Problem(
            "data.classes", "one class only, so there is nothing to tell apart; add the background as a class"
        )
    elif count > MAX_CLASSES:
        yield Problem(
            "data.classes",
            f"{count} classes; expected at most {MAX_CLASSES}, which fit a mask of bytes with one to ignore",
        )


@_rule("data.classes.*.name")
def _names_are_names(config: Config) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, spec in enumerate(config.data.classes):
        path = f"data.classes.{index}.name"
        if not spec.name.strip():
            yield Problem(path, "an empty name; name the class, it stands in tables and legends")
        elif any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") for c in spec.name):
            yield Problem(path, f"{spec.name!r} has characters that do not print; remove them")
        elif spec.name in seen:
            yield Problem(path, f"class {seen[spec.name]} is named {spec.name!r} too; give each class its own name")
        seen.setdefault(spec.name, index)


@_rule("data.encoding", "data.classes.*.values", "data.classes.*.colors")
def _classes_match_the_encoding(config: Config) -> Iterator[Problem]:
    encoding = config.data.encoding
    needed, other = ("colors", "values") if config.data.by_color else ("values", "colors")
    fitting = "index, threshold or alpha" if needed == "colors" else "palette or rgb"
    for index, spec in enumerate(config.data.classes):
        path = f"data.classes.{index}"
        if getattr(spec, other):
            message = f"not read with data.encoding: {encoding}, which reads `{needed}`; remove it, or use {fitting}"
            yield Problem(f"{path}.{other}", message)
        elif not getattr(spec, needed):
            example = '["#ff0000"]' if needed == "colors" else "[1]"
            yield Problem(path, f"no `{needed}`, which data.encoding: {encoding} reads; add {needed}: {example}")


@_rule("data.classes.*.values", "data.ignore", "data.encoding")
def _values_are_values(config: Config) -> Iterator[Problem]:
    if config.data.by_color:
        return
    stored = []
    for path, item in _items(config, "values"):
        bounds, reason = interval(item)
        if reason:
            yield Problem(path, reason)
        else:
            stored.append(_Stored(*bounds, path, str(item)))
    yield from _overlaps(stored, config)


@_rule("data.classes.*.colors", "data.ignore", "data.encoding")
def _colors_are_colors(config: Config) -> Iterator[Problem]:
    if not config.data.by_color:
        return
    stored = []
    for path, item in _items(config, "colors"):
        if isinstance(item, str) and _HEX_COLOR.fullmatch(item):
            code = int(item[1:], 16)
            stored.append(_Stored(code, code, path, item.lower()))
        else:
            yield Problem(path, _not_a_color(item))
    yield from _overlaps(stored, config)


@_rule("data.classes.*.color")
def _display_colors_are_colors(config: Config) -> Iterator[Problem]:
    for index, spec in enumerate(config.data.classes):
        if spec.color is not None and not _HEX_COLOR.fullmatch(spec.color):
            yield Problem(f"data.classes.{index}.color", _not_a_color(spec.color))


@_rule("data.encoding", "data.classes.*.values")
def _a_threshold_parts_two_values(config: Config) -> Iterator[Problem]:
    values = [value for spec in config.data.classes for value in spec.values]
    encoding = config.data.encoding
    if encoding in ("threshold", "alpha") and config.data.classes and len(values) < 2:
        message = f"data.encoding: {encoding} takes the nearest of at least two values; give each class its own"
        yield Problem("data.classes", message)


@_rule("data.encoding", "data.nearest")
def _nearest_is_for_colors(config: Config) -> Iterator[Problem]:
    if config.data.nearest and not config.data.by_color:
        remedy = "use data.encoding: threshold for grey masks, palette or rgb for coloured ones"
        yield Problem("data.nearest", f"only for colours, but data.encoding is {config.data.encoding}; {remedy}")


@_rule("data.root", "data.train", "data.val", "data.test")
def _paths_are_short_enough_to_be_paths(config: Config) -> Iterator[Problem]:
    places = {"data.root": config.data.root}
    for split, folders in config.data.parts.items():
        places |= {f"data.{split}.{name}": getattr(folders, name) for name in ("images", "masks", "list")}
    for path, place in places.items():
        if place and (len(place) > MAX_PATH or max(map(len, place.encode(errors="replace").split(b"/"))) > MAX_NAME):
            yield Problem(path, f"{len(place):,} characters, which no file system takes for a path; correct it")


def _a_split_has_its_files(config: Config, *, split: str) -> Iterator[Problem]:
    """Yields what a split lacks for `data.format`, and what it has that is not read.

    Training pairs may be left out: a config that only scores or predicts has none.
    """
    folders = config.data.parts.get(split)
    given = {name: value for name, value in vars(folders).items() if value is not None} if folders else {}
    if folders is None or (split == "train" and not given):
        return
    listed = config.data.format == "list"
    path = f"data.{split}"
    missing = [name for name in (("list",) if listed else ("images", "masks")) if name not in given]
    if missing:
        yield Problem(path, f"no {' and no '.join(missing)}, which data.format: {config.data.format} reads; add it")
    for name, value in given.items():
        if name == "pairing" and listed:
            yield Problem(f"{path}.pairing", "not read with data.format: list, which names both files; remove it")
        elif name == "part" and "list" not in given:
            yield Problem(f"{path}.part", "names lines of a list, but there is no list; add it, or remove this")
        elif not value:
            yield Problem(f"{path}.{name}", "an empty path; write . for data.root itself")


for _split in ("train", "val", "test"):
    _rule("data.format", f"data.{_split}")(partial(_a_split_has_its_files, split=_split))


@_rule("data.split.val", "data.split.test", "data.val", "data.test")
def _something_is_left_to_train_on(config: Config) -> Iterator[Problem]:
    data = config.data
    val = data.split.val if data.val is None else 0.0
    test = data.split.test if data.test is None else 0.0
    if val < 1 and test < 1 and val + test >= 1:
        yield Problem("data.split", f"val {val:g} and test {test:g} leave nothing to train on; expected a sum below 1")


@_rule("data.split.group")
def _a_group_is_a_pattern(config: Config) -> Iterator[Problem]:
    group = config.data.split.group
    if group is None:
        return
    try:
        compiled = re.compile(group)
    except (re.error, OverflowError, RecursionError) as error:
        yield Problem("data.split.group", f"{group!r} is no regular expression ({error}); mend it")
        return
    if compiled.groups < 1:
        message = f"{group!r} has no group; put parentheses around what names the group, such as '^([^_]+)_'"
        yield Problem("data.split.group", message)


@_rule("data.fold")
def _a_fold_is_one_of_several(config: Config) -> Iterator[Problem]:
    fold = config.data.fold
    match = None if fold is None else re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", fold)
    if fold is not None and not (match and int(match[2]) >= 2 and 1 <= int(match[1]) <= int(match[2])):
        yield Problem("data.fold", f"expected k/n with n from 2 and k from 1 to n, such as 2/5, found {fold!r}")


@_rule("data.channels", "data.mean", "data.std")
def _normalisation_fits_the_channels(config: Config) -> Iterator[Problem]:
    data = config.data
    if (data.mean is None) != (data.std is None):
        given, other = ("mean", "std") if data.std is None else ("std", "mean")
        yield Problem(f"data.{given}", f"given without data.{other}; give both, or neither to have them measured")
    for name, values, expected in (("mean", data.mean, "from 0"), ("std", data.std, "above 0")):
        if values is None:
            continue
        if len(values) != data.channels:
            yield Problem(f"data.{name}", f"{len(values)} values for {data.channels} channels; give one for each")
        elif min(values) < 0 or max(values) > 1 or (name == "std" and min(values) == 0):
            message = f"expected {expected} to 1, found {flow(values)}; divide by 255 what is meant for 0..255"
            yield Problem(f"data.{name}", message)


@_rule("data.seen")
def _what_was_seen_are_ranges(config: Config) -> Iterator[Problem]:
    seen = config.data.seen
    if seen is None:
        return
    for name, ranges, least in (("mean", seen.mean, 0), ("std", seen.std, 0), ("size", seen.size, 1)):
        if any(not least <= low <= high < math.inf for low, high in ranges):
            found = flow(ranges)
            yield Problem(f"data.seen.{name}", f"expected ranges from the least to the largest, found {found}; or null")
    if len(seen.size) != 2 or len(seen.mean) != len(seen.std):
        yield Problem("data.seen", "expected as many ranges in mean as in std, and two in size; remove it, or null")


@_rule("data.palette")
def _a_palette_is_triples(config: Config) -> Iterator[Problem]:
    palette = config.data.palette
    if palette is None:
        return
    if not re.fullmatch(r"([0-9a-fA-F]{6}){1,256}", palette):
        message = f"expected 6 hexadecimal digits for each of 1 to 256 colours, found {len(palette)} characters"
        yield Problem("data.palette", f"{message}; null takes the palette of the first training mask")


@_rule("loss")
def _losses_have_weight(config: Config) -> Iterator[Problem]:
    if not config.loss:
        yield Problem("loss", "no loss; give at least one, such as [cross_entropy]")
    for index, term in enumerate(config.loss):
        if not 0 <= term.weight < math.inf:
            yield Problem(f"loss.{index}.weight", f"expected at least 0, found {flow(term.weight)}")
    if config.loss and all(term.weight == 0 for term in config.loss):
        yield Problem("loss", "every weight is 0, so nothing would be learned; give one loss a weight above 0")


@_rule("augment.crop")
def _a_crop_has_pixels(config: Config) -> Iterator[Problem]:
    if config.augment.crop is not None and min(config.augment.crop) < 1:
        found = flow(config.augment.crop)
        yield Problem("augment.crop", f"expected a height and a width of at least 1 pixel, found {found}")
    elif config.augment.crop is not None and math.prod(config.augment.crop) > MAX_CROP:
        found = flow(config.augment.crop)
        yield Problem("augment.crop", f"expected at most {MAX_CROP:,} pixels, found {found}")


@_rule("augment.scale")
def _a_scale_is_a_range(config: Config) -> Iterator[Problem]:
    low, high = config.augment.scale
    found = flow(config.augment.scale)
    if not 0 < low <= high:
        yield Problem("augment.scale", f"expected a lower end above 0 and an upper end not below it, found {found}")
    elif low < 0.001 or high > 1000:
        yield Problem("augment.scale", f"expected a range within 0.001 to 1,000, found {found}")


@_rule("augment.jpeg", "data.channels")
def _a_jpeg_file_holds_the_channels(config: Config) -> Iterator[Problem]:
    channels = config.data.channels
    if config.augment.jpeg is not None and channels not in (1, 3):
        message = f"JPEG files hold 1 or 3 channels, but data.channels is {channels}; remove it, or write null"
        yield Problem("augment.jpeg", message)


@_rule("train.epochs", "train.steps")
def _length_is_given_once(config: Config) -> Iterator[Problem]:
    if config.train.epochs is not None and config.train.steps is not None:
        yield Problem("train.steps", "train.epochs is given too, and they exclude each other; keep one of the two")


@_rule("train.batch_size", "train.accumulate")
def _a_batch_has_its_parts(config: Config) -> Iterator[Problem]:
    train = config.train
    if train.accumulate > train.batch_size >= 1:
        message = f"{train.accumulate} parts of a batch of {train.batch_size}; expected at most one for each image"
        yield Problem("train.accumulate", message)


def _items(config: Config, name: str) -> Iterator[tuple[str, int | str]]:
    """Yields every stored value or colour of the classes and of `data.ignore`, with its key."""
    for index, spec in enumerate(config.data.classes):
        for position, item in enumerate(getattr(spec, name)):
            yield f"data.classes.{index}.{name}.{position}", item
    for position, item in enumerate(config.data.ignore):
        yield f"data.ignore.{position}", item


def interval(item: int | str) -> tuple[tuple[int, int], str]:
    """Returns the lowest and highest value that an item of a class's `values` means, or what is wrong with it."""
    if isinstance(item, int):
        low = high = item
    elif match := _RANGE.fullmatch(item):
        low, high = int(match[1]), int(match[2])
    else:
        return (0, 0), f"expected a whole number, or a range such as 1..65535, found {item!r}"
    if low > high:
        return (0, 0), f"an empty range, {item}; write the smaller end first, {high}..{low}"
    if low < -(2**31) or high >= 2**32:
        return (0, 0), f"{item} is beyond the 32-bit integers that a mask can hold"
    return (low, high), ""


def _not_a_color(item: int | str) -> str:
    return f"expected a colour as '#rrggbb', found {item!r}; put quotes around it, # begins a comment"


def _overlaps(stored: list[_Stored], config: Config) -> Iterator[Problem]:
    """Yields a problem for each item that means something which an earlier one means already."""
    order = {item.path: position for position, item in enumerate(stored)}
    widest: _Stored | None = None
    for item in sorted(stored):
        if widest is not None and item.low <= widest.high:
            first, second = sorted((widest, item), key=lambda one: order[one.path])
            message = (
                f"{second.text} is already given by {_owner(first.path, config.data.classes)}; keep it in one place"
            )
            yield Problem(second.path, message)
        if widest is None or item.high > widest.high:
            widest = item


def _owner(path: str, classes: tuple[ClassSpec, ...]) -> str:
    parts = path.split(".")
    if parts[1] == "ignore":
        return path
    return f"{path} (class {classes[int(parts[2])].name!r})"


def _pattern(path: str) -> str:
    return ".".join("*" if name.isdigit() else name for name in path.split("."))


def _touch(one: str, other: str) -> bool:
    """Whether one of two dotted keys is the other or holds it."""
    return all(a == b for a, b in zip(one.split("."), other.split("."), strict=False))
