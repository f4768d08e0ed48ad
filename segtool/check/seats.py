"""Masks laid over images pixel by pixel: slower than the small maps of `fit`, and much surer.

Where a mask is that of an image, the slopes under its edges fall as soon as it is moved by some pixels. So they do for
697 of 701 masks of CamVid and for all of an EM stack, but hardly ever for a mask that lies over another image. A few
masks are looked at so: those that fit their images least on the small maps. Where edges tell nothing, as of streets at
night, `areas` may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from segtool.check.areas import Areas, areas_of
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
FAR = 32  # pixels to each side, as of `SIDE`, in which masks are looked for that sit beside what they outline
ALONE = 6.0  # least clearness there; masks over other images of CamVid, an EM stack and cracks have 5.6 at most
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
    step: int = 1
    """Every how many rows and columns are kept."""


class Seats(NamedTuple):
    """What a closer look finds, by the places of pairs."""

    exchanged: list[tuple[int, int]]
    """Masks i that sit on image j: in rings, or all on the next."""
    turned: list[tuple[int, str]]
    """Masks that sit on their image when they are turned, and how they lie, as in `TURNS`."""
    strange: list[int]
    """Masks that sit on nothing, or do not sit and fit no image on small maps."""
    denied: set[int]
    """Masks that sit better on their image, as it is, than small maps say, or no better when they are turned."""
    aside: Sequence[tuple[int, tuple[int, int]]] = ()
    """Masks that sit on their image when they are moved, and the pixels (y, x) to move by."""


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
    return Laid(place, image, classes, seat, step) if seat else None


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
    better = {i for i, j in wrong.items() if i in laid and j in laid and prefers_own(laid[i], laid[j])}
    denied = {i for i, j in wrong.items() if i in better and (j in better or j not in wrong)}
    denied |= {i for i, how in turned.items() if i in laid and prefers_own(laid[i], laid[i], how)}
    if all(_sits(one.seat, clear=LOOSE) for one in laid.values()):
        return Seats([], [], [], denied)
    laid |= {one.place: one for one in look([place for place in usual if place not in laid])}
    seats = [laid[place].seat for place in usual if place in laid]
    if len(seats) < LEAST_USUAL:
        return Seats([], [], [], denied)
    sitting = np.mean([_sits(seat) for seat in seats])
    peak, clear = (float(np.median([seat[index] for seat in seats])) for index in (0, 1))
    asked = turned.keys() & laid.keys() - wrong.keys()
    denied |= {i for i in asked if not _lies_near(laid[i], TURNS[turned[i]], peak / 2)}
    areas = areas_of({place: (one.image, one.classes) for place, one in laid.items()})
    as_usual = _Usual(bool(sitting >= TELLING), peak, clear, areas)
    if not as_usual.by_seats and areas is None:
        shift = _moved_on(usual, laid, look, count) if sitting < NONE_SIT else 0
        places = range(max(0, -shift), min(count, count - shift))
        return Seats([(place, place + shift) for place in places if shift], [], [], denied)
    everyone = [laid[place] for place in suspected if place in laid]
    return _apart(everyone, [*laid.values()], as_usual, strange)._replace(denied=denied)


def _apart(suspected: Sequence[Laid], everyone: Sequence[Laid], as_usual: _Usual, strange: Sequence[int]) -> Seats:
    """Returns what the suspected masks are that may not be those of their images: turned, exchanged, moved, foreign."""
    lost = [one for one in suspected if not as_usual.is_loose(one, foreign=one.place in strange)][:MOST]
    lying = {one.place: how for one in lost if (how := _turn(one, as_usual.fit))}
    left = [one for one in lost if one.place not in lying]
    exchanged = _rings(_links(left if as_usual.by_seats else suspected, left, as_usual))
    left = [one for one in left if one.place not in exchanged]
    aside = {one.place: shift for one in left if as_usual.by_seats and (shift := _shift(one, as_usual))}
    left = [one for one in left if one.place not in aside]
    places = {one.place for one in lost}
    others_sit = sum(not _sits(one.seat) for one in everyone if one.place not in places) <= DOUBTFUL * len(everyone)
    foreign = {one.place for one in left if one.place in strange}
    on_nothing = [one.place for one in left if as_usual.is_nowhere(one, others_sit=others_sit)]
    doubtful = len(left) - len(on_nothing) > DOUBTFUL * len(everyone)
    if doubtful or len(on_nothing) > max(1, STRANGE_MOST * len(everyone)):
        on_nothing = []
    found = (sorted(exchanged.items()), sorted(lying.items()), sorted({*foreign, *on_nothing}))
    return Seats(*found, set(), tuple(sorted(aside.items())))


class _Usual(NamedTuple):
    """What is usual of a set: how its masks sit, and what their areas explain. A single mask is compared with it."""

    by_seats: bool
    """Whether masks of this set sit."""
    peak: float
    clear: float
    """Medians of usual seats."""
    areas: Areas | None

    def fit(self, classes: np.ndarray, to: Laid, *, exchanged: bool = False) -> bool:
        """Whether a mask surely is that of an image; `exchanged`: in a ring, where others must fit too."""
        if classes.shape != to.classes.shape:
            return False
        seat = seat_of(to.image, classes) if self.by_seats else None
        if seat and _sits(seat) and seat.peak >= self.peak / 2 and seat.clear >= self.clear / 2:
            return True
        if self.areas is None or (self.by_seats and not exchanged):
            return False
        return self.areas.explained(to.place, classes)

    def is_loose(self, one: Laid, *, foreign: bool) -> bool:
        """Whether a mask may be that of its image; `foreign`: small maps say that it is of none of the set."""
        seat, lost = one.seat, self.areas is not None and one.place in self.areas.lost
        if not self.by_seats:
            return not lost or _sits(seat, clear=LOOSE)
        if seat.clear >= self._loosely and seat.peak >= self.peak / 2:
            return True
        if foreign or lost:
            return _sits(seat, clear=LOOSE)
        return seat.off <= 2 and seat.clear >= max(SLIGHT, self.clear / 5)

    def is_nowhere(self, one: Laid, *, others_sit: bool) -> bool:
        """Whether a mask that may not be that of its image surely is not."""
        if self.areas and one.place in self.areas.lost:
            return True
        explains = self.areas is not None and one.place in self.areas.own
        telling = one.seat.edges >= STRANGE_EDGES or (others_sit and not explains)  # no faint object, where all sit
        return self.by_seats and telling and one.seat.peak <= NOWHERE * self.peak and one.seat.clear < self._loosely

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


def _lies_near(one: Laid, turn: Callable[[np.ndarray], np.ndarray], least: float) -> bool:
    """Whether a mask that is turned lies near edges of its image, if not on them, with such a peak at least."""
    seat = seat_of(one.image, turn(one.classes))
    return seat is None or (seat.off <= NEAR and seat.peak >= least)


def prefers_own(one: Laid, other: Laid, how: str = "") -> bool:
    """Whether a mask sits better on its image as it is than on another, or turned."""
    classes = TURNS[how](one.classes) if how else one.classes
    if classes.shape != other.classes.shape:
        return True
    seat = seat_of(other.image, classes)
    return seat is None or seat.peak < one.seat.peak


def _links(everyone: Sequence[Laid], lost: Sequence[Laid], as_usual: _Usual) -> dict[int, list[int]]:
    """Returns which images each of the lost masks fits, and the masks of these in turn."""

    def fitting(one: Laid, among: Sequence[Laid]) -> list[int]:
        return [to.place for to in among if to is not one and as_usual.fit(one.classes, to, exchanged=True)]

    links = {one.place: fitting(one, everyone) for one in lost}
    reached = {place for places in links.values() for place in places} - links.keys()
    return links | {one.place: fitting(one, lost) for one in everyone if one.place in reached}


def _shift(one: Laid, as_usual: _Usual) -> tuple[int, int] | None:
    """Returns the pixels (y, x) by which a mask is to be moved to sit on its image as usual ones do, where it then
    does; masks that lie beside it by up to `NEAR` pixels may have been drawn so."""
    reach = min(FAR, min(one.classes.shape) // 4)
    if (surface := shift_surface(one.image, one.classes, reach=reach)) is None:
        return None
    y, x = divmod(int(surface.argmax()), surface.shape[1])
    far = np.ones(surface.shape, bool)
    far[max(0, y - NEAR) : y + NEAR + 1, max(0, x - NEAR) : x + NEAR + 1] = False
    height = float(surface.max() - np.median(surface[far]))
    clear = height / max(float(surface[far].std()), 1e-6)
    sits = height >= max(PEAK, as_usual.peak / 2) and clear >= max(ALONE, as_usual.clear / 2)
    moved = (one.step * (y - reach), one.step * (x - reach))
    return moved if sits and max(abs(y - reach), abs(x - reach)) > NEAR else None


def _turn(one: Laid, fit: Callable[[np.ndarray, Laid], bool]) -> str:
    """Returns how a mask lies that fits its image when it is turned back, as in `TURNS`; "" where it does not."""
    turns = list(TURNS)[: None if one.classes.shape[0] == one.classes.shape[1] else KEEPING_SHAPE]
    return next((how for how in turns if fit(TURNS[how](one.classes), one)), "")


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
