"""One pass over a data set: which files there are, what each holds, and what it means under the config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from segtool.config import Augment, Config, Data, Folders, Limits
from segtool.data.facts import ImageFacts, MaskFacts, Progress, as_read, look_at_files
from segtool.data.formats import Places, data_root, empty_folders, pairing_hint, read_parts, skip_unpaired
from segtool.data.images import read_image
from segtool.data.labels import Labels
from segtool.data.pairs import Pairs, Record, unread_partners
from segtool.data.splits import divide
from segtool.data.uses import Decoder, Use
from segtool.data.words import SPLITS
from segtool.errors import DataError, shown

Pair = tuple[ImageFacts, MaskFacts]


@dataclass(frozen=True)
class Listing:
    """Which files the config names, as far as they are there."""

    pairs: dict[str, Pairs]
    """Of each split that the config gives."""
    records: dict[str, list[Record]]
    """Of each split, after holding out."""
    missing: dict[Path, str]
    """Folders and lists that are not there, with a sentence about each."""
    list_problems: list[str]
    """Lines of lists that name no pair."""
    split_problems: list[str]
    """What a training would say of how the pairs are to be divided."""
    complete: bool
    """Whether a training gets as far as that: no file is missing, without a partner or doubled."""
    hints: dict[str, str] = field(default_factory=dict)
    """Of a split with files that have no partner: what would pair more, where that is known."""
    empty: dict[str, list[str]] = field(default_factory=dict)
    """Of a split with a folder that holds no image file: a sentence about each."""
    unknown: dict[str, list[str]] = field(default_factory=dict)
    """Of a split whose list names images that are not there: a sentence about each line."""
    unread: dict[Path, Path] = field(default_factory=dict)
    """Of files without a partner: the picture that bears its name, of a kind that is not read."""

    def images(self) -> list[Path]:
        """Returns the images that are looked at, those without a mask too."""
        parts = self.pairs.values()
        paired = [record.image for part in parts for record in part.records]
        return paired + [path for part in parts for path in part.images_without_mask]

    def masks(self) -> list[Path]:
        """Returns the masks that are looked at, those without an image too."""
        parts = self.pairs.values()
        paired = [record.mask for part in parts for record in part.records if record.mask]
        return paired + [path for part in parts for path in part.masks_without_image]

    def without_unpaired(self) -> Listing:
        """Returns the listing without the files that `data.unpaired: skip` leaves out, whatever they hold."""
        return replace(self, pairs={split: skip_unpaired(pairs) for split, pairs in self.pairs.items()})


@dataclass(frozen=True)
class Survey:
    """All that the checks look at: nothing of how a network is made and trained."""

    data: Data
    augment: Augment
    limits: Limits
    root: Path
    labels: Labels
    listing: Listing
    images: dict[Path, ImageFacts]
    masks: dict[Path, MaskFacts]
    uses: dict[Path, Use]
    """Of each readable mask."""

    @property
    def pairs(self) -> dict[str, Pairs]:
        """Of each split that the config gives."""
        return self.listing.pairs

    @property
    def records(self) -> dict[str, list[Record]]:
        """Of each split, after holding out."""
        return self.listing.records

    def name(self, path: Path) -> str:
        """Returns a path for people: relative to the data's root where it lies there, escaped."""
        return shown(path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path)

    @cached_property
    def readable_pairs(self) -> list[Pair]:
        """Image and mask of each pair, of whatever split, where both can be read."""
        both = (
            (self.images[record.image], self.masks[record.mask])
            for pairs in self.pairs.values()
            for record in pairs.records
            if record.mask in self.masks
        )
        return [(image, mask) for image, mask in both if not image.error and not mask.error]

    @cached_property
    def fitting_pairs(self) -> list[Pair]:
        """Those of one size."""
        return [(image, mask) for image, mask in self.readable_pairs if image.size == mask.size]

    @cached_property
    def samples(self) -> dict[Path, np.ndarray]:
        """The classes of each mask on a small map, as of `Decoder.sample`; of those that have one."""
        decoder = Decoder(self.labels)
        found = ((path, decoder.sample(self.masks[path])) for path in self.uses)
        return {path: sample for path, sample in found if sample is not None}

    def holds_one_class(self, mask: Path) -> bool:
        """Whether a mask holds nothing but one class and what is ignored: its edges are no edges of what it shows."""
        use = self.uses[mask]
        return not use.error and not use.unknown and int(np.count_nonzero(use.pixels)) < 2

    def uses_of(self, split: str) -> Iterator[Use]:
        """Yields what each mask of a split means, of those that can be read."""
        for record in self.records.get(split, ()):
            if record.mask in self.uses:
                yield self.uses[record.mask]

    def class_pixels(self, split: str) -> np.ndarray:
        """Returns the pixels of each class in a split, K int64."""
        start = np.zeros(self.labels.num_classes, np.int64)
        return sum((use.pixels for use in self.uses_of(split)), start)


def survey_files(config: Config, base: Path, listing: Listing, *, progress: Progress | None) -> Survey:
    """Returns what one pass over all files finds; nothing is raised for bad files.

    Args:
        base: Directory of the config file.
        listing: Of these two; what it holds out is entered here.
        progress: Called with the number of files done and their total.

    Raises:
        ConfigError: a split that names no folder or list, or a file to exclude that is not there.
    """
    labels = Labels.from_config(config.data)
    seen = listing.without_unpaired() if config.data.unpaired == "skip" else listing
    data, max_pixels = config.data, config.limits.max_pixels
    upright, mask_facts = look_at_files(seen.images(), seen.masks(), max_pixels=max_pixels, progress=progress)
    image_facts = {
        path: as_read(facts, channels=data.channels, exif=data.exif, max_pixels=max_pixels)
        for path, facts in upright.items()
    }
    decoder = Decoder(labels)
    uses = {path: decoder.use(facts) for path, facts in mask_facts.items() if not facts.error}
    _divide(config, listing, uses)
    given = (data, config.augment, config.limits)
    return Survey(*given, data_root(data, base), labels, listing, image_facts, mask_facts, uses)


def read_pair(
    survey: Survey, image: ImageFacts, mask: MaskFacts, *, channels: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns an image H W C and the class indices of its mask H W; None where they cannot be read."""
    limit = survey.limits.max_pixels
    try:
        picture = read_image(image.path, channels=channels, exif=survey.data.exif, max_pixels=limit)
        return picture, survey.labels.read(mask.path, max_pixels=limit)
    except DataError:  # told elsewhere
        return None


# ------------------------------------------------------------------------------------------------- listing


def list_files(config: Config, base: Path, places: Places | None = None) -> Listing:
    """Returns the files of a config, nothing held out; where a training would stop, still all that can be found.

    Args:
        places: Of this config, where they have been searched.
    """
    places = places or Places(config.data, data_root(config.data, base))
    try:
        read_parts(config.data, base, places)
        complete = True
    except DataError:  # whose problems are told file by file
        complete = False
    found = Listing({}, {}, {}, [], [], complete=complete)
    for split in SPLITS:
        part = getattr(config.data, split)
        if part is not None:
            _list_part(places, part, split, found)
    return found


def _list_part(places: Places, part: Folders, split: str, found: Listing) -> None:
    root = places.root
    if part.list is not None and not (root / part.list).is_file():
        found.missing[root / part.list] = f"data.{split}.list: no file {shown(root / part.list)}"
        return
    if places.data.format == "list":
        try:
            found.pairs[split] = places.of(split).pairs
        except DataError as error:
            found.list_problems.extend(error.problems)
        return
    folders = {key: root / str(getattr(part, key)) for key in ("images", "masks")}
    absent = {
        path: f"data.{split}.{key}: no folder {shown(path)}" for key, path in folders.items() if not path.is_dir()
    }
    found.missing.update(absent)
    if absent:
        return
    try:
        listed = places.of(split)
    except DataError as error:
        found.list_problems.extend(error.problems)
        return
    found.pairs[split] = pairs = listed.pairs
    if listed.unknown:
        found.unknown[split] = list(listed.unknown)
    if not pairs.records:
        found.empty[split] = [*empty_folders(split, folders["images"], folders["masks"])]
    if pairs.images_without_mask or pairs.masks_without_image or not pairs.records:
        both = (pairs, folders["images"], folders["masks"], places.pairing(part))
        found.hints[split] = pairing_hint(*both)
        found.unread.update(unread_partners(*both))


def _divide(config: Config, found: Listing, uses: dict[Path, Use]) -> None:
    """Enters which of the pairs that are there train, validate and test; all in their own split where that fails.

    A mask that cannot be read has no class here; a training does not get as far as dividing such masks.
    """
    none = np.zeros(len(config.data.classes), bool)

    def presence(records: Sequence[Record]) -> np.ndarray:
        return np.stack([uses[r.mask].pixels > 0 if r.mask in uses else none for r in records])

    given = {split: list(pairs.records) for split, pairs in found.pairs.items()}
    found.records.update(given)
    if "train" not in given:
        return
    try:
        found.records.update(divide(given, config.data, presence))
    except DataError as error:
        if found.complete:
            found.split_problems.extend(error.problems)


# ------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class SplitSummary:
    """Figures of one split, over the files that can be read."""

    pairs: int
    sizes: dict[str, tuple[int, int]]
    """H, W of the smallest, median and largest image by area; empty where none can be read."""
    pixels: dict[str, int]
    """Pixels of each class."""
    ignored: int

    def share(self, name: str) -> float:
        """Returns the share of a class among the pixels that count; 0 where there are none."""
        return self.pixels[name] / max(1, sum(self.pixels.values()))

    @property
    def share_ignored(self) -> float:
        """Share of the ignored among all pixels."""
        return self.ignored / max(1, self.ignored + sum(self.pixels.values()))

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as plain data; sizes as [height, width]."""
        sizes = {label: list(size) for label, size in self.sizes.items()}
        return {"pairs": self.pairs, "sizes": sizes, "pixels": self.pixels, "ignored": self.ignored}


@dataclass(frozen=True)
class Summary:
    """Figures of a data set."""

    classes: tuple[str, ...]
    splits: dict[str, SplitSummary]


def summarize(survey: Survey) -> Summary:
    """Returns the figures of each split."""
    return Summary(survey.labels.names, {split: _summarize(survey, split) for split in survey.records})


def _summarize(survey: Survey, split: str) -> SplitSummary:
    records = survey.records[split]
    facts: Iterable[ImageFacts] = (survey.images[record.image] for record in records)
    sizes = sorted((image.size for image in facts if not image.error), key=lambda size: (size[0] * size[1], size))
    three = {"smallest": sizes[0], "median": sizes[len(sizes) // 2], "largest": sizes[-1]} if sizes else {}
    pixels = dict(zip(survey.labels.names, survey.class_pixels(split).tolist(), strict=True))
    return SplitSummary(len(records), three, pixels, sum(use.ignored for use in survey.uses_of(split)))
