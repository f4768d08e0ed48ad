"""What the classes of a set of masks are called and shown in, with the rows of the config that say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from segtool.config.yaml_io import flow
from segtool.data import palette
from segtool.data.codes import unpack
from segtool.data.facts import MaskFacts
from segtool.data.mask_writer import LARGEST
from segtool.data.specks import SLIP_MASKS
from segtool.errors import shown
from segtool.init.encoding_of_colors import CLOSE
from segtool.init.evidence import MOSTLY_VOID, VOID, Guess, hex_color, rounded_share
from segtool.init.names import NEARLY_ALL, NamesFile, is_void
from segtool.init.numbered import CHANNELS
from segtool.init.recipe import Row
from segtool.init.shapes import Shapes
from segtool.init.standards import find_standard

ALIKE = 40  # distance of colours, in RGB, that an overlay does not show apart
FEWEST_NAMES, MOST_COLORS = 3, 0.5  # of a file that names some of the classes: so many, and this share of the colours
STRAY_PIXELS = 256  # that a class has in one mask alone, where it may be a slip of the pen
MOSTLY = 2 / 3  # a value that covers more, and most of the frame, is what lies behind


@dataclass(frozen=True)
class Meaning:
    """Names, colours and what does not count."""

    names: dict[int, str]
    """By the first code of a class; the others are named after their code."""
    reason: str
    """Where the names come from, for a comment."""
    colors: dict[int, int] = field(default_factory=dict)
    """Packed display colour, by the first code of a class."""
    void: tuple[int, ...] = ()
    """First codes of classes that do not count."""
    void_reason: str = ""
    background: int | None = None
    """First code of the class that is listed first whatever its code."""


def with_named_colors(guess: Guess, files: Sequence[NamesFile]) -> Guess:
    """Returns the guess with the colours of a file of names where lossy masks hold all of its classes' near ones."""
    for file in files if guess.nearest else ():
        if file.by_color and (owners := _near(guess, file)):
            return replace(guess, codes=tuple((owner,) for owner in owners))
    return guess


def _near(guess: Guess, file: NamesFile) -> list[int]:
    """Returns the file's colour next to each class's, or nothing where one is far or two have the same."""
    named = np.array(sorted(file.by_color))
    found = np.array([codes[0] for codes in guess.codes])
    gaps = np.linalg.norm(unpack(found).astype(float)[:, None] - unpack(named).astype(float)[None], axis=-1)
    owners = gaps.argmin(1)
    if gaps.min(1).max() >= CLOSE or len(set(owners.tolist())) < len(found):
        return []
    return named[owners].tolist()


def arrange(guess: Guess, shapes: Shapes, meaning: Meaning) -> tuple[Guess, Shapes]:
    """Returns both with the classes in the order of the config, and what does not count among the ignored.

    Colours come in the order in which a file names them.
    """
    named = {code: place for place, code in enumerate(meaning.names)} if guess.key == "colors" else {}
    order = [index for index, codes in enumerate(guess.codes) if codes[0] not in meaning.void]
    order.sort(key=lambda index: named.get(guess.codes[index][0], len(named)))
    order.sort(key=lambda index: guess.codes[index][0] != meaning.background)
    reasons = [text.rstrip(".") for text in (guess.ignore_reason, meaning.void_reason) if text]
    arranged = replace(
        guess,
        codes=tuple(guess.codes[index] for index in order),
        shares=tuple(guess.shares[index] for index in order),
        ignore=(*guess.ignore, *(code for codes in guess.codes if codes[0] in meaning.void for code in codes)),
        ignore_reason=". ".join(f"{reason[0].upper()}{reason[1:]}" for reason in reasons),
    )
    return arranged, shapes.of_classes(order)


def class_rows(guess: Guess, meaning: Meaning, masks: Sequence[MaskFacts]) -> list[Row]:
    """Returns the rows `classes` and `ignore` of a config, of an arranged guess."""
    written = _written(guess)
    why = " Predictions hold no value above 65535: the one before such a value is written." if written else ""
    rows = [Row("classes:", f"The order is the class index. {meaning.reason}{why}")]
    colors = _colors(guess, meaning, [codes[0] for codes in guess.codes])
    taken: Counter[str] = Counter()
    for codes, share in zip(guess.codes, guess.shares, strict=True):
        name = meaning.names.get(codes[0], f"class_{codes[0]}" if guess.key == "values" else f"class_{codes[0]:06x}")
        taken[name] += 1
        name = f"{name}_{taken[name]}" if taken[name] > 1 else name
        spec: dict[str, object] = {"name": name, guess.key: [*written.get(codes[0], ()), *map(guess.text, codes)]}
        if codes[0] in colors:
            spec["color"] = hex_color(colors[codes[0]])
        where = _only_file(guess, codes, masks)
        rows.append(Row(f"- {flow(spec)}  # {rounded_share(share)} of the pixels{where}", "", 4))
    if guess.ignore:
        rows.append(Row(f"ignore: {flow([guess.text(code) for code in guess.ignore])}", f"{guess.ignore_reason}."))
    return rows


def _written(guess: Guess) -> dict[int, tuple[int]]:
    """Returns values that no mask has, by the first value of each class that is too large for a file of predictions."""
    if guess.key == "colors":
        return {}
    spans = [range(low, high + 1) for low, high in guess.spans.items()]
    known = {*guess.totals.values.tolist(), *guess.ignore}
    free = (value for value in range(LARGEST) if value not in known and not any(value in span for span in spans))
    return {codes[0]: (next(free),) for codes in guess.codes if codes[0] > LARGEST}


def find_meaning(guess: Guess, shapes: Shapes, masks: Sequence[MaskFacts], files: Sequence[NamesFile]) -> Meaning:
    """Returns what the classes mean: as a file says, a published data set, or, of two, how they lie in the images.

    Args:
        masks: All of them, for the names of files.
        files: Class names that lie beside the data, the most telling first; the first that fits is taken.
    """
    codes = {codes[0] for codes in guess.codes}
    strays = set(_strays(guess))
    told = [(file, names) for file in files if (names := _names_in(guess, file))]
    for file, names in told:
        missing = codes - names.keys()
        if missing - strays <= {0}:  # many leave out what lies behind, 0 or black
            return _named(guess, dict.fromkeys(missing - strays, "background") | names, file)
    if standard := find_standard(guess, [mask.path for mask in masks if not mask.error]):
        void = tuple(codes[0] for codes in guess.codes if codes[0] not in standard.names)
        why = f"{', '.join(map(str, void))}: left out of that data set's scores" if void else ""
        return Meaning(standard.names, f"Names of {standard.source}.", standard.colors, void, why)
    for file, names in told:
        if len(names) >= max(FEWEST_NAMES, (MOST_COLORS if file.by_color else NEARLY_ALL) * len(codes)):
            return _named(guess, names, file)
    whole = guess.key != "values" or guess.totals.share(guess.ignore) < MOSTLY_VOID
    if len(guess.codes) == 2 and whole and (guess.key == "values" or 0 in (codes[0] for codes in guess.codes)):
        return _background_and_object(guess, shapes)
    stored = "values" if guess.key == "values" else "colours"
    return Meaning(
        {}, f"Named after the stored {stored}: rename as you like.{_trimap(guess, shapes)}{_doubtful(guess)}"
    )


def _names_in(guess: Guess, file: NamesFile) -> dict[int, str]:
    """Returns the names that a file beside the data gives to the first codes of classes: of a list all or none.

    What a list names may be the classes, those and what is ignored, 0, 1, 2, … where strays follow behind a gap, or all
    but the value 0.
    """
    codes = [codes[0] for codes in guess.codes]
    file = _less_one(guess, file, codes)
    usual = [code for code in codes if code not in _strays(guess)]
    is_apart = usual == list(range(len(usual))) and len(usual) not in codes
    choices = (codes, [*codes, *guess.ignore], usual if is_apart else [], [code for code in codes if code != 0])
    names = next(filter(None, (_of_codes(guess, file, choice) for choice in choices)), {})
    return {code: name for code, name in names.items() if code in codes}


def _less_one(guess: Guess, file: NamesFile, codes: Sequence[int]) -> NamesFile:
    """Returns the file with its values less one, where 255 stands in the masks for what it calls 0 and unlabelled."""
    names = file.by_value
    shifted = VOID in guess.ignore and VOID not in names and is_void(names.get(0, "")) and max(codes) + 1 == max(names)
    if guess.key == "colors" or not shifted or 0 not in codes:
        return file
    return replace(file, by_value={value - 1: name for value, name in names.items() if value})


def _of_codes(guess: Guess, file: NamesFile, codes: Sequence[int]) -> dict[int, str]:
    if guess.key == "colors":
        named = {color: name for color, name in file.by_color.items() if color in codes}
        return named or _of_channel(file, codes)
    if file.by_color:
        return {code: file.by_color[color] for code in codes if (color := guess.colors.get(code)) in file.by_color}
    if file.of_colors_table and guess.colors:  # the palette would have its colours
        return {}
    return file.of_values(codes)


def _of_channel(file: NamesFile, codes: Sequence[int]) -> dict[int, str]:
    """Returns the names by value of colours that hold the value in one channel, or one and the same in all three."""
    for unit in CHANNELS.values():
        names = {code: file.by_value[code // unit] for code in codes if code // unit in file.by_value}
        if names and max(codes) // unit <= 255 and not any(code % unit for code in codes):
            return names
    return {}


def _named(guess: Guess, names: dict[int, str], file: NamesFile) -> Meaning:
    void = tuple(codes[0] for codes in guess.codes if is_void(names.get(codes[0], "")))
    if len(guess.codes) - len(void) < 2:
        void = ()
    absent = len(file.by_order or file.by_color or file.by_value) - len(names)
    more = f" {absent} more names in it occur in no mask and are left out." if absent > 0 else ""
    why = f"{', '.join(names[code] for code in void)}: a class of that name is what nobody labelled" if void else ""
    if guess.totals.share(void) >= MOSTLY_VOID:
        why += ". LOOK: it is most of the pixels; where it is what lies behind the objects, make it a class"
    strays = [code for code in _strays(guess) if code not in names]
    if strays:
        texts = ", ".join(str(guess.text(code)) for code in strays)
        why = ". ".join(filter(None, [why, f"{texts}: a few pixels in one mask, and no name for it: a slip"]))
    order = ", whose rows are taken as the values 0, 1, 2, …" if file.of_colors_table else ""
    unnamed = [guess.text(codes[0]) for codes in guess.codes if codes[0] not in {*names, *strays}]
    if unnamed:
        ignored = flow([guess.text(code) for code in guess.ignore] + unnamed)
        more += (
            f" It does not name {', '.join(map(str, unnamed))}: where that is no class, take its row out and have "
            f"`ignore: {ignored}` below."
        )
    return Meaning(names, f"Names from {shown(file.path.name)}{order}.{more}", {}, (*void, *strays), why)


def _background_and_object(guess: Guess, shapes: Shapes) -> Meaning:
    """Returns the names of two classes: the higher code is the object, unless it is mostly what lies behind."""
    low, high = sorted(range(2), key=lambda index: guess.codes[index][0])
    behind = low
    if not guess.spans and guess.shares[high] > MOSTLY and shapes.border[high] > MOSTLY:
        behind = high
    front = low + high - behind
    texts = [str(guess.text(guess.codes[index][0])) for index in (front, behind)]
    figures = [
        f"{rounded_share(guess.shares[i])} of the pixels and {rounded_share(shapes.border[i])} of the frame"
        for i in (front, behind)
    ]
    reason = (
        f"Nothing names the classes. {texts[0]} is taken as the object ({figures[0]} of the images), {texts[1]} as "
        f"what lies behind ({figures[1]})."
    )
    if not guess.spans:
        reason = f"{reason[:-1]}; where it is the other way round, exchange the two names."
    names = {guess.codes[behind][0]: "background", guess.codes[front][0]: "object"}
    return Meaning(names, reason, background=guess.codes[behind][0])


def _trimap(guess: Guess, shapes: Shapes) -> str:
    if shapes.between is None or guess.shares[shapes.between] == max(guess.shares):  # what lies behind two kinds
        return ""
    border = guess.codes[shapes.between][0]
    ignored = flow([guess.text(code) for code in (*guess.ignore, border)])
    return (
        f" {guess.text(border)} always lies between the other two, as the border of a trimap does, which nobody "
        f"decided: where it is one, take its class out and have `ignore: {ignored}` below."
    )


def _colors(guess: Guess, meaning: Meaning, codes: Sequence[int]) -> dict[int, int]:
    """Returns the display colours that the config has to give: those known from elsewhere, where they differ.

    Classes without colours, and with stored ones that look alike, get some that anyone tells apart.
    """
    stored = {code: code for code in codes} if guess.key == "colors" else guess.colors
    known = meaning.colors or stored
    points = [unpack(np.array(known[code])).astype(float) for code in codes if code in known]
    differ = all(np.linalg.norm(one - other) >= ALIKE for one, other in combinations(points, 2))
    if len(points) == len(codes) and differ:
        return {} if known is stored and guess.key == "colors" else {code: known[code] for code in codes}
    return {code: int.from_bytes(bytes(palette.color(index)), "big") for index, code in enumerate(codes)}


def _strays(guess: Guess) -> list[int]:
    """Returns the first codes of classes that are a few pixels in one mask of several: a slip, or a rare thing."""
    totals = guess.totals
    alone = [codes for codes in guess.codes if _is_in_one(guess, codes)]
    few = [codes[0] for codes in alone if totals.pixels[np.isin(totals.values, codes)].sum() <= STRAY_PIXELS]
    return few if len(guess.codes) - len(few) >= 2 else []


def _is_in_one(guess: Guess, codes: Sequence[int]) -> bool:
    exact = not (guess.nearest or guess.spans or guess.encoding in ("threshold", "alpha"))
    totals = guess.totals
    return exact and totals.num_files >= SLIP_MASKS and totals.files[np.isin(totals.values, codes)].sum() == 1


def _doubtful(guess: Guess) -> str:
    """Returns what to do about strays that nothing names."""
    if not (strays := _strays(guess)):
        return ""
    texts = [str(guess.text(code)) for code in strays]
    told = "are a few pixels in one mask each: where they are slips, take their rows"
    told = told if texts[1:] else "is a few pixels in one mask: where it is a slip, take its row"
    ignored = flow([guess.text(code) for code in (*guess.ignore, *strays)])
    return f" {', '.join(texts)} {told} out and have `ignore: {ignored}` below."


def _only_file(guess: Guess, codes: Sequence[int], masks: Sequence[MaskFacts]) -> str:
    """Returns where a class is that occurs in one mask of several, or ""."""
    if not _is_in_one(guess, codes):
        return ""
    holder = next((mask for mask in masks if not mask.colored and np.isin(codes, mask.values).any()), None)
    where = f": {shown(holder.path.name)}" if holder and guess.key == "values" else ""
    return f", in one mask only{where}"
