"""Checks of whose masks they are: SEG109, SEG111, SEG209. To add one, write it below the decorator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segtool.check.findings import SHOWN_BROKEN, Finding, a_check, few_names, num
from segtool.check.fit import turned_masks
from segtool.check.matches import LOW, gain_of_turn, match, strangers
from segtool.check.seats import Laid, Seats, lay_over, look_closely
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
    wrong, strange = dict(matches.wrong), []
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
        wrong = {place: j for place, j in wrong.items() if place not in known} | dict(seats.exchanged)
        turned = {place: how for place, how in turned.items() if place not in {*seats.denied, *wrong}}
        turned |= {
            place: how
            for place, how in seats.turned
            if images[place].orientation == 1 and gain_of_turn(images, masks, place, how) >= TURN_GAIN
        }
        strange = [place for place in seats.strange if place in foreign or matches.own.get(place, np.inf) <= LOW]
    yield from _tell_wrong(survey, pairs, sorted(wrong.items()))
    yield from _tell_strange(survey, pairs, sorted({*strange} - {*wrong, *turned}))
    yield from _tell_turned(survey, pairs, sorted(turned.items()), len(plain))


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
    most_pixels = max(MOST_PIXELS, sum(image.size[0] * image.size[1] for image, _ in pairs) // 8)

    def look(places: Sequence[int]) -> list[Laid]:
        left, chosen = most_pixels, []  # each time anew: what is suspected tells nothing without what is usual
        for place in places:
            image, _ = pairs[place]
            pixels = image.size[0] * image.size[1]
            if pixels <= left and image.channels in (1, 3):
                left -= pixels
                chosen.append(place)
        return [laid for laid in in_threads(lay, chosen) if laid]

    def lay(place: int) -> Laid | None:
        both = read_pair(survey, *pairs[place], channels=pairs[place][0].channels)
        return lay_over(place, *both) if both else None

    most = max(LEAST_CLOSELY, min(MOST_CLOSELY, len(suspected) // 20))
    usual = sorted(suspected)[:: max(1, len(suspected) // USUAL)][:USUAL]
    return look_closely(suspected[:most], usual, look, count=len(pairs), wrong=wrong, turned=turned, strange=strange)


def _tell_wrong(survey: Survey, pairs: Sequence[Pair], wrong: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    if wrong:
        (own, mask), (fitting, _) = pairs[wrong[0][0]], pairs[wrong[0][1]]
        yield Finding(
            "SEG109",
            "warning",
            f"{num(wrong, 'mask')} of {len(pairs)} fit another image better than their own: is the pairing right?",
            len(wrong),
            few_names(survey, [pairs[place][1].path for place, _ in wrong], SHOWN_BROKEN),
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
            f"{num(strange, 'mask')} of {len(pairs)} fit no edges of their image, as others do: of another picture?",
            len(strange),
            few_names(survey, [pairs[place][1].path for place in strange], SHOWN_BROKEN),
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
            f"{num(turned, 'mask')} of {among} fit their image only when they are turned: another origin?",
            len(turned),
            few_names(survey, [pairs[place][1].path for place, _ in turned], SHOWN_BROKEN),
            f"{survey.name(mask.path)}: {how}, by the edges of {survey.name(image.path)}",
            "look at these images and masks together, and mirror or turn the masks back",
        )
