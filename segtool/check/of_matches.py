"""Checks of whose masks they are: SEG109, SEG111, SEG209. To add one, write it below the decorator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from segtool.check.findings import Finding, a_check, few_names, num
from segtool.check.fit import turned_masks
from segtool.check.matches import gain_of_turn, highest_low, match, strangers, tell
from segtool.check.seats import Laid, Seats, lay_over, look_closely, prefers_own
from segtool.check.shift import way_of
from segtool.check.survey import Pair, Survey, read_pair
from segtool.data.outline import SIDE
from segtool.system.pools import in_threads

MOST_PIXELS = 40_000_000  # that are looked at closely, where an eighth of all is less
LEAST_CLOSELY, MOST_CLOSELY = 24, 64  # masks that are looked at closely, a twentieth of them in between
TURN_GAIN = 0.05  # on small maps, of a mask that a closer look finds turned; no right mask of three sets has it
USUAL = 10  # that they are compared with


@a_check
def masks_fit_their_images(survey: Survey) -> Iterator[Finding]:
    """SEG109, SEG111, SEG209: masks that fit what another image shows, what none does, or theirs when it is turned.

    Small maps of all masks and images suspect some; these, and the masks that fit least, are then looked at closely.
    """
    upright = survey.data.exif == "apply"
    pairs = [(image, mask) for image, mask in survey.fitting_pairs if upright or image.orientation == 1]
    images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
    masks = [replace(mask, outline=0 * mask.outline) if survey.holds_one_class(mask.path) else mask for mask in masks]
    num_classes = survey.labels.num_classes
    classes = np.full((len(masks), SIDE, SIDE), num_classes, np.int16)  # of none where a mask has no sample
    for place, mask in enumerate(masks):
        classes[place] = survey.samples.get(mask.path, num_classes)
    matches = match(images, masks, classes, num_classes)
    wrong, strange, aside = dict(matches.wrong), [], {}
    plain = [place for place, image in enumerate(images) if image.orientation == 1]
    turned = {place: how for place, how in matches.turned.items() if images[place].orientation == 1}
    as_stored = [images[place] for place in plain], [masks[place] for place in plain], classes[plain], num_classes
    turned |= {plain[place]: how for place, how in turned_masks(*as_stored)}
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
    lost = dict.fromkeys({*strange} - {*wrong, *turned})
    aside = {place: by for place, by in aside.items() if place not in wrong}
    for code, found in (("SEG109", wrong), ("SEG111", lost), ("SEG209", turned), ("SEG210", aside)):
        if found:
            among = len(plain) if code == "SEG209" else len(pairs)
            yield _finding(survey, pairs, code, dict(sorted(found.items())), among)


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


def _finding(survey: Survey, pairs: Sequence[Pair], code: str, found: dict[int, Any], among: int) -> Finding:
    """Returns a finding on some masks, each by its place with the image that it fits, its turn or its shift."""
    (first, how), *_ = found.items()
    image, mask = (survey.name(facts.path) for facts in pairs[first])
    fit, their, lie = ("fits", "its", "lies") if len(found) == 1 else ("fit", "their", "lie")
    look = "look at these images and masks together, and"
    match code:
        case "SEG109":
            told = f"{fit} another image better than {their} own: is the pairing right?"
            example = f"{mask} fits {survey.name(pairs[how][0].path)}, not {image}"
            remedy = f"{look} give each mask the name of the image that it was drawn on"
        case "SEG111":
            told = f"{fit} nothing in {their} image, as others do: of another picture?"
            example = f"{mask} fits {image} no better than masks of other images do"
            remedy = f"{look} put the masks there that were drawn on these images"
        case "SEG209":
            told = f"{fit} {their} image only when turned: another origin?"
            example = f"{mask}: {how}, by what {image} shows"
            remedy = f"{look} mirror or turn the masks back"
        case _:
            told = f"{lie} beside what others outline"
            example = f"{mask}: pixels to move by, {way_of(how)}, to follow the edges of {image}"
            remedy = (
                "look at these images with their masks laid over them, and export the masks again, or move them by as "
                "much"
            )
    message = f"{num(found, 'mask')} of {among} {told}"
    files = few_names(survey, [pairs[place][1].path for place in found])
    return Finding(code, "warning", message, len(found), files, example, remedy)
