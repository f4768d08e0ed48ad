"""The folders of a data set that may hold images or masks, and which two of them may belong together.

Told by words in their names; where no word says masks, by what the files hold or by their formats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import product

from segtool.config import Limits
from segtool.data.facts import MaskFacts, look_at_images
from segtool.data.files import JPEG_SUFFIXES
from segtool.data.flatness import hold_areas, sample_of
from segtool.data.folders import Place, Tree, parent_of, share, within
from segtool.data.words import INFRARED, is_for_people, says_observer

MOST_CLASSES = 32  # values above are grey levels, or numbers of objects


class Candidates:
    """The places below a root by split, "" for those whose names tell none, and the pairs of them."""

    def __init__(self, tree: Tree, without: Collection[str]) -> None:
        """`without` are folders of masks that are none, as their pixels say."""
        self.tree = tree
        self.without = without
        self.places: dict[str, list[Place]] = defaultdict(list)
        self._in_color: dict[str, bool] = {}
        self._samples: dict[str, list[MaskFacts]] = {}
        self.add(tree.places)
        self.places[""].extend(tree.unknown())

    def add(self, places: Iterable[Place]) -> None:
        """Adds places to those of their splits."""
        for place in places:
            if place.role != "masks" or place.shown not in self.without:
                self.places[place.split or ""].append(place)

    def pairs_of_folders(self, split: str) -> Iterator[tuple[Place, Place]]:
        """Yields the folders of images and of masks that may belong together."""
        places = self.places[split]
        masks = [place for place in places if place.role == "masks"]
        images = [place for place in places if place.role == "images"]
        loose = [place for place in places if place.role is None and not is_for_people(place.shown)]
        loose = [place for place in loose if not images or place.rank >= 0]  # `panoptic` beside `images` is none
        named = {place.name.lower(): place for place in places if place.role is None}
        visible = [named["vis"]] if "vis" in named and not named.keys().isdisjoint(INFRARED) else []
        yield from ((one, other) for one, other in product(images + loose + visible, masks) if are_apart(one, other))
        if not any(place.role == "masks" for part in self.places.values() for place in part):
            photographs, others = self._told_by_files(images, loose)
            yield from ((one, other) for one, other in product(photographs, others) if not share(one, other))

    def single_folders(self, split: str) -> Iterator[tuple[Place, Place]]:
        """Yields the folders that may hold images and masks side by side."""
        for place in self.places[split]:
            if not place.inner and place.shown not in self.without:
                yield place, place

    def masks(self) -> dict[str, list[Place]]:
        """Returns the places of masks by split: where no name in the set says masks, those whose files hold areas."""
        masks = {split: [place for place in part if place.role == "masks"] for split, part in self.places.items()}
        if any(masks.values()):
            return masks
        flat = {split: [p for p in part if not p.role and self.is_flat(p)] for split, part in self.places.items()}
        return {split: [p for p in part if not is_one_of_several(p, part)] for split, part in flat.items()}

    def in_color(self, place: Place) -> bool:
        """Whether the first file of a place has colours, and is no single channel of pictures."""
        if place.shown not in self._in_color:
            facts = look_at_images(self.tree.files_of(place)[:1], max_pixels=Limits().max_pixels).values()
            self._in_color[place.shown] = all(not fact.error and fact.channels > 2 for fact in facts)
        return self._in_color[place.shown]

    def is_flat(self, place: Place) -> bool:
        """Whether the files of a place hold a few values in areas, as masks do."""
        return hold_areas(self._sample(place))

    def classes_in(self, place: Place) -> int:
        """Returns how many values some masks of a place hold; 0 for two, and for those that number no classes."""
        sample = self._sample(place)
        told = all(not mask.error and not mask.colored for mask in sample)
        values = {value for mask in sample for value in mask.values.tolist()} if told else set()
        return len(values) if len(values) > 2 and max(values) <= MOST_CLASSES else 0

    def _sample(self, place: Place) -> list[MaskFacts]:
        if place.shown not in self._samples:
            self._samples[place.shown] = sample_of(self.tree.files_of(place))
        return self._samples[place.shown]

    def _told_by_files(self, images: list[Place], loose: list[Place]) -> tuple[list[Place], list[Place]]:
        """Returns the places of images and of masks, where no name says masks: what holds areas, else what no JPEGs do.

        Args:
            images: The places that a word says to hold images. Where there are some, any other may hold masks.
            loose: Those of which no word says anything.
        """
        flat = [place for place in (*images, *loose) if self.is_flat(place)]
        masks = [place for place in flat if not is_one_of_several(place, flat)]
        if images:
            masks += [place for place in loose if place not in masks]
        elif not masks:
            masks = [p for p in loose if any(f.suffix.lower() not in JPEG_SUFFIXES for f in self.tree.files_of(p))]
        return [place for place in images or loose if place not in masks] or images, masks


def are_apart(one: Place, other: Place) -> bool:
    """Whether images do not lie within the masks."""
    return one.path == other.path or not within(one.path, other.path)


def is_one_of_several(masks: Place, kinds: Sequence[Place]) -> bool:
    """Whether other kinds of masks lie beside this one: one for each class, and none the truth.

    What several people drew are no such kinds.
    """
    beside = [kind for kind in kinds if kind.shown != masks.shown and parent_of(kind.shown) == parent_of(masks.shown)]
    of_people = all(says_observer(place.name) for place in (masks, *beside))
    return not of_people and any(kind.role != "images" and kind.rank >= 0 for kind in beside)
