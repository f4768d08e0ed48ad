"""Checks of whose masks they are: SEG109, SEG111, SEG209. To add one, write it below the decorator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segtool.check.findings import Finding, a_check, few_names, num
from segtool.check.fit import turned_masks
from segtool.check.matches import gain_of_turn, highest_low, match, strangers, tell
from segtool.check.seats import Laid, Seats, lay_over, look_closely, prefers_own
from segtool.check.shift import way_of
from segtool.check.survey import Pair, Survey, read_pair
from segtool.system.pools import in_threads

MOST_PIXELS = 40_000_000  # that are looked at closely, where an eighth of all is less
LEAST_CLOSELY, MOST_CLOSELY = 24, 64  # masks that are looked at closely, a twentieth of them in between
TURN_GAIN = 0.05  # on small maps, of a mask that a closer look finds turned; no right mask of three sets has it
USUAL = 10  # that they are compared with


@a_check
def masks_fit_their_images(survey: Survey) -> Iterator[Finding]:
    """SEG109, SEG111, SEG209: masks that follow the edges of another image, of none, or of theirs when it is turned.

    Small maps of all masks and images suspect some; these, and the masks that fit least, are then looked at closely.
    """
    upright = survey.data.exif == "apply"
    pairs = [(image, mask) for image, mask in survey.fitting_pairs if upright or image.orientation == 1]
    images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
    matches = match(images, masks)
    wrong, strange, aside = dict(matches.wrong), [], {}
    plain = [place for place, image in enumerate(images) if image.orientation == 1]
    turned = {place: how for place, how in matches.turned.items() if images[place].orientation == 1}
    turned |= {
        plain[place]: how
        for place, how in turned_masks([images[place] for place in plain], [masks[place] for place in plain])
    }
    order = sorted(matches.own, key=lambda place: matches.own[place])
    if order and len(wrong) + len(turned) <= len(pairs) / 2:
        foreign = strangers(matches.own, masks)
        seats = _look_closely(survey, pairs, order, wrong=wrong, turned=turned, strange=foreign)
        known = seats.denied | dict(seats.turned).keys()
        aside = dict(seats.aside)
        wrong = {place: j for place, j in wrong.items() if place not in known} | dict(seats.exchanged)
        turned = {place: how for place, how in turned.items() if place not in {*seats.denied, *wrong}}
        turned |= {
            place: how
            for place, how in seats.turned
            if images[place].orientation == 1
            and (not tell(matches.own) or gain_of_turn(images, masks, place, how) >= TURN_GAIN)
        }
        low = highest_low(matches.own)
        strange = [place for place in seats.strange if place in foreign or matches.own.get(place, np.inf) <= low]
    elif not _sit_turned(survey, pairs, turned):
        turned = {}
    yield from _tell_wrong(survey, pairs, sorted(wrong.items()))
    yield from _tell_strange(survey, pairs, sorted({*strange} - {*wrong, *turned}))
    yield from _tell_turned(survey, pairs, sorted(turned.items()), len(plain))
    yield from _tell_aside(survey, pairs, sorted((place, by) for place, by in aside.items() if place not in wrong))


def _look_closely(
    survey: Survey,
    pairs: Sequence[Pair],
    order: Sequence[int],
    *,
    wrong: dict[int, int],
    turned: dict[int, str],
    strange: Sequence[int],
) -> Seats:
    """Returns what the masks that are suspected most are, laid over images pixel by pixel."""
    suspected = list(dict.fromkeys([*wrong, *turned, *strange, *order]))
    most = max(LEAST_CLOSELY, min(MOST_CLOSELY, len(suspected) // 20))
    usual = sorted(suspected)[:: max(1, len(suspected) // USUAL)][:USUAL]

    def look(places: Sequence[int]) -> list[Laid]:
        return _lay(survey, pairs, places)

    return look_closely(suspected[:most], usual, look, count=len(pairs), wrong=wrong, turned=turned, strange=strange)


def _sit_turned(survey: Survey, pairs: Sequence[Pair], turned: dict[int, str]) -> bool:
    """Whether most of the masks of a set that small maps call turned sit better so; those of pages do not."""
    some = sorted(turned)[:: max(1, len(turned) // USUAL)][:USUAL]
    laid = _lay(survey, pairs, some)
    return sum(prefers_own(one, one, turned[one.place]) for one in laid) * 2 <= len(laid)


def _lay(survey: Survey, pairs: Sequence[Pair], places: Sequence[int]) -> list[Laid]:
    """Returns masks laid over their images, as many as may be looked at closely at a time."""
    left, chosen = max(MOST_PIXELS, sum(image.size[0] * image.size[1] for image, _ in pairs) // 8), []
    for place in places:
        image, _ = pairs[place]
        pixels = image.size[0] * image.size[1]
        if pixels <= left and image.channels in (1, 3):
            left -= pixels
            chosen.append(place)

    def lay(place: int) -> Laid | None:
        both = read_pair(survey, *pairs[place], channels=pairs[place][0].channels)
        return lay_over(place, *both) if both else None

    return [laid for laid in in_threads(lay, chosen) if laid]


def _masks_of(count: int, among: int) -> str:
    return f"{num(count, 'mask')} of {among} {'fits' if count == 1 else 'fit'}"


def _their(count: int) -> str:
    return "its" if count == 1 else "their"


def _tell_wrong(survey: Survey, pairs: Sequence[Pair], wrong: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    if wrong:
        (own, mask), (fitting, _) = pairs[wrong[0][0]], pairs[wrong[0][1]]
        yield Finding(
            "SEG109",
            "warning",
            f"{_masks_of(len(wrong), len(pairs))} another image better than {_their(len(wrong))} own: is the pairing "
            "right?",
            len(wrong),
            few_names(survey, [pairs[place][1].path for place, _ in wrong]),
            f"{survey.name(mask.path)} follows the edges of {survey.name(fitting.path)}, not those of "
            f"{survey.name(own.path)}",
            "look at these images and masks together, and give each mask the name of the image that it was drawn on",
        )


def _tell_strange(survey: Survey, pairs: Sequence[Pair], strange: Sequence[int]) -> Iterator[Finding]:
    if strange:
        image, mask = pairs[strange[0]]
        yield Finding(
            "SEG111",
            "warning",
            f"{_masks_of(len(strange), len(pairs))} no edges of {_their(len(strange))} image, as others do: of another "
            "picture?",
            len(strange),
            few_names(survey, [pairs[place][1].path for place in strange]),
            f"{survey.name(mask.path)} follows the edges of {survey.name(image.path)} no better than masks of other "
            "images do",
            "look at these images and masks together, and put the masks there that were drawn on these images",
        )


def _tell_turned(
    survey: Survey, pairs: Sequence[Pair], turned: Sequence[tuple[int, str]], among: int
) -> Iterator[Finding]:
    if turned:
        (image, mask), how = pairs[turned[0][0]], turned[0][1]
        yield Finding(
            "SEG209",
            "warning",
            f"{_masks_of(len(turned), among)} {_their(len(turned))} image only when turned: another origin?",
            len(turned),
            few_names(survey, [pairs[place][1].path for place, _ in turned]),
            f"{survey.name(mask.path)}: {how}, by the edges of {survey.name(image.path)}",
            "look at these images and masks together, and mirror or turn the masks back",
        )


def _tell_aside(
    survey: Survey, pairs: Sequence[Pair], aside: Sequence[tuple[int, tuple[int, int]]]
) -> Iterator[Finding]:
    if aside:
        (image, mask), shift = pairs[aside[0][0]], aside[0][1]
        yield Finding(
            "SEG210",
            "warning",
            f"{num(aside, 'mask')} of {len(pairs)} lie{'s' if len(aside) == 1 else ''} beside what others outline",
            len(aside),
            few_names(survey, [pairs[place][1].path for place, _ in aside]),
            f"{survey.name(mask.path)}: pixels to move by, {way_of(shift)}, to follow the edges of "
            f"{survey.name(image.path)}",
            "look at these images with their masks laid over them, and export the masks again, or move them by as much",
        )
