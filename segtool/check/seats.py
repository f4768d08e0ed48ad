"""Masks laid over images pixel by pixel: slower than the small maps of `fit`, and much surer.

Where a mask is that of an image, the slopes under its edges fall as soon as it is moved by some pixels. So they do for
697 of 701 masks of CamVid and for all of an EM stack, but hardly ever for a mask that lies over another image. A few
masks are looked at so: those that fit their images least on the small maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segtool.check.fit import KEEPING_SHAPE, TURNS
from segtool.check.shift import REACH, shift_surface

SIDE = 360  # pixels of the shorter side from which on every second one is looked at, and so on
NEAR = 3  # pixels around no shift that are no part of what a seat is compared with
PEAK = 0.15  # least peak of a mask that sits; of masks over other images 1 in 50 has a higher one
CLEAR = 3.0  # least clearness; of masks over other images 1 in 100 has a higher one, and hardly any both
LOOSE = 1.5  # clearness from which on a mask is not said to lie wrong
SLIGHT = 1.0  # the same where the peak is in the midst
LEAST_USUAL = 3  # usual pairs, below which seats tell nothing of a set
TELLING = 0.6  # share of usual pairs that must sit, for seats to tell anything of a set
NONE_SIT = 0.2  # share of usual pairs up to which all masks may be those of the next images
NOWHERE = 0.2  # of the usual peak, up to which a mask sits on nothing
STRANGE_MOST = 0.1  # share of the masks looked at that may sit on nothing, for these to stand out
DOUBTFUL = 0.05  # the same of those of which nothing can be said
STRANGE_EDGES = 1000  # pixels at edges, below which a mask that sits on nothing may be a faint object
MOST = 12  # masks that are laid over each other's images


class Seat(NamedTuple):
    """How the edges of a mask lie on those of an image."""

    peak: float
    """Slopes under the edges less those when the mask is moved (the median), in deviations of the image."""
    clear: float
    """The same in deviations of what shifts of more than `NEAR` pixels give."""
    off: int
    """Pixels to the shift with the steepest slopes."""
    edges: int
    """Pixels at the edges of the mask."""


class Laid(NamedTuple):
    """A mask laid over its image, at a shorter side of about `SIDE`."""

    place: int
    image: np.ndarray
    classes: np.ndarray
    seat: Seat


class Seats(NamedTuple):
    """What a closer look finds, by the places of pairs."""

    exchanged: list[tuple[int, int]]
    """Masks i that sit on image j: in rings, or all on the next."""
    turned: list[tuple[int, str]]
    """Masks that sit on their image when they are turned, and how they lie, as in `TURNS`."""
    strange: list[int]
    """Masks that sit on nothing, or do not sit and fit no image on small maps."""
    denied: set[int]
    """Masks that sit better on their image, as it is, than small maps say."""


def seat_of(image: np.ndarray, classes: np.ndarray) -> Seat | None:
    """Returns how a mask H W sits on an image H W C, None where it has too few edges."""
    if min(classes.shape) < 4 * REACH or (surface := shift_surface(image, classes)) is None:
        return None
    inner = np.s_[REACH - 1 : REACH + 2, REACH - 1 : REACH + 2]
    far = np.ones(surface.shape, bool)
    far[REACH - NEAR : REACH + NEAR + 1, REACH - NEAR : REACH + NEAR + 1] = False
    peak = float(surface[inner].max() - np.median(surface[far]))
    y, x = divmod(int(surface.argmax()), surface.shape[1])
    edges = int((classes[1:] != classes[:-1]).sum() + (classes[:, 1:] != classes[:, :-1]).sum())
    return Seat(peak, peak / max(float(surface[far].std()), 1e-6), max(abs(y - REACH), abs(x - REACH)), edges)


def lay_over(place: int, image: np.ndarray, classes: np.ndarray) -> Laid | None:
    """Returns a mask H W laid over an image H W C of its size, of which every n-th row and column is kept; None where
    the mask has too few edges."""
    step = max(1, min(classes.shape) // SIDE)
    image, classes = image[::step, ::step].copy(), classes[::step, ::step].copy()
    seat = seat_of(image, classes)
    return Laid(place, image, classes, seat) if seat else None


def look_closely(
    suspected: Sequence[int],
    usual: Sequence[int],
    look: Callable[[Sequence[int]], list[Laid]],
    *,
    count: int,
    wrong: Mapping[int, int],
    turned: Mapping[int, str],
    strange: Sequence[int],
) -> Seats:
    """Returns how the suspected masks sit; of sets whose masks do not sit clearly on their images, only what is denied.

    Args:
        suspected: Places of pairs, those that fit least first.
        usual: Places of pairs as they come, which the others are compared with.
        look: Reads pairs; those that cannot be read, or whose masks have too few edges, are not returned.
        count: Of all pairs, in the order of their names.
        wrong: Masks and the images that they fit, by small maps.
        turned: Masks that lie otherwise, by small maps.
        strange: Masks of no image of the set, by small maps.
    """
    laid = {one.place: one for one in look(suspected)}
    better = {i for i, j in wrong.items() if i in laid and j in laid and _prefers_own(laid[i], laid[j])}
    denied = {i for i, j in wrong.items() if i in better and (j in better or j not in wrong)}
    denied |= {i for i, how in turned.items() if i in laid and _prefers_own(laid[i], laid[i], how)}
    if all(_sits(one.seat, clear=LOOSE) for one in laid.values()):
        return Seats([], [], [], denied)
    laid |= {one.place: one for one in look([place for place in usual if place not in laid])}
    seats = [laid[place].seat for place in usual if place in laid]
    if len(seats) < LEAST_USUAL:
        return Seats([], [], [], denied)
    sitting = np.mean([_sits(seat) for seat in seats])
    if sitting < TELLING:
        shift = _moved_on(usual, laid, look, count) if sitting < NONE_SIT else 0
        places = range(max(0, -shift), min(count, count - shift))
        return Seats([(place, place + shift) for place in places if shift], [], [], denied)
    as_usual = _Usual(*(float(np.median([seat[index] for seat in seats])) for index in (0, 1)))
    loose = {place for place, one in laid.items() if as_usual.is_loose(one.seat, strange=place in strange)}
    lost = [laid[place] for place in suspected if place in laid and place not in loose][:MOST]
    lying = {one.place: how for one in lost if (how := _turn(one, as_usual.is_sure))}
    left = [one for one in lost if one.place not in lying]
    exchanged = _rings({one.place: _fitting(one, left, as_usual.is_sure) for one in left})
    left = [one for one in left if one.place not in exchanged]
    foreign = {one.place for one in left if one.place in strange}
    on_nothing = [one.place for one in left if as_usual.is_nowhere(one.seat)]
    if len(left) - len(on_nothing) > DOUBTFUL * len(laid) or len(on_nothing) > STRANGE_MOST * len(laid):
        on_nothing = []
    return Seats(sorted(exchanged.items()), sorted(lying.items()), sorted({*foreign, *on_nothing}), denied)


class _Usual(NamedTuple):
    """The medians of how a set's masks sit, which a single one is compared with."""

    peak: float
    clear: float

    def is_sure(self, seat: Seat | None) -> bool:
        """Whether a mask sits there as surely as the others on their images; None is of too few edges."""
        return seat is not None and _sits(seat) and seat.peak >= self.peak / 2 and seat.clear >= self.clear / 2

    def is_loose(self, seat: Seat, *, strange: bool) -> bool:
        """Whether a mask sits well enough not to be said to lie wrong; `strange` ones fit no image on small maps."""
        slightly = max(SLIGHT, self.clear / 5)
        near = _sits(seat, clear=LOOSE) if strange else seat.off <= 2 and seat.clear >= slightly
        return near or (seat.clear >= self._loosely and seat.peak >= self.peak / 2)

    def is_nowhere(self, seat: Seat) -> bool:
        """Whether a mask sits on nothing that the image shows."""
        return seat.peak <= NOWHERE * self.peak and seat.clear < self._loosely and seat.edges >= STRANGE_EDGES

    @property
    def _loosely(self) -> float:
        return max(LOOSE, self.clear / 4)


def _moved_on(
    usual: Sequence[int], laid: dict[int, Laid], look: Callable[[Sequence[int]], list[Laid]], count: int
) -> int:
    """Returns by how many places all masks are moved on, 1 or -1; 0 where that is not so."""
    for shift in (1, -1):
        here = [place for place in usual if place in laid and 0 <= place + shift < count]
        there = {one.place: one for one in look([place + shift for place in here])}
        beside = [
            seat_of(there[place + shift].image, laid[place].classes)
            for place in here
            if place + shift in there and there[place + shift].classes.shape == laid[place].classes.shape
        ]
        if len(beside) > len(usual) / 2 and np.mean([bool(seat and _sits(seat)) for seat in beside]) >= TELLING:
            return shift
    return 0


def _sits(seat: Seat, *, clear: float = CLEAR) -> bool:
    return seat.off <= 1 and seat.peak >= PEAK and seat.clear >= clear


def _prefers_own(one: Laid, other: Laid, how: str = "") -> bool:
    """Whether a mask sits better on its image as it is than on another, or turned."""
    classes = TURNS[how](one.classes) if how else one.classes
    if classes.shape != other.classes.shape:
        return True
    seat = seat_of(other.image, classes)
    return seat is None or seat.peak < one.seat.peak


def _turn(one: Laid, sits: Callable[[Seat | None], bool]) -> str:
    """Returns how a mask lies that sits when it is turned back, as in `TURNS`; "" where it does not."""
    turns = list(TURNS)[: None if one.classes.shape[0] == one.classes.shape[1] else KEEPING_SHAPE]
    return next((how for how in turns if sits(seat_of(one.image, TURNS[how](one.classes)))), "")


def _fitting(one: Laid, others: Sequence[Laid], sits: Callable[[Seat | None], bool]) -> list[int]:
    """Returns the places of the other images of a mask's size on which it sits."""
    return [
        other.place
        for other in others
        if other is not one and other.classes.shape == one.classes.shape and sits(seat_of(other.image, one.classes))
    ]


def _rings(fits: dict[int, list[int]]) -> dict[int, int]:
    """Returns the links of rings of masks, each of which sits on the next one's image, the shortest rings first."""
    found: dict[int, int] = {}
    for length in (2, 3, 4):
        for start in fits:
            if start not in found and (ring := _ring([start], fits, length, found)):
                found |= dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    return found


def _ring(way: list[int], fits: dict[int, list[int]], length: int, taken: Iterable[int]) -> list[int]:
    """Returns a way of so many masks that leads back to its beginning; [] where there is none."""
    if len(way) == length:
        return way if way[0] in fits[way[-1]] else []
    ways = (_ring([*way, j], fits, length, taken) for j in fits[way[-1]] if j not in way and j not in taken)
    return next(filter(None, ways), [])
