"""What lies in a folder: which images and masks belong together and what they hold, for `init`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from segtool.check.findings import num
from segtool.check.fit import choose_grid, votes_for_upright
from segtool.config import Data, Folders, Limits, Pairing
from segtool.data.affixes import NEARLY
from segtool.data.facts import ImageFacts, MaskFacts, Progress, as_read, look_at_files
from segtool.data.files import stem_of
from segtool.data.formats import Places
from segtool.data.layout import Layout, find_layout
from segtool.data.lists import is_image_name, pairs_there
from segtool.data.pairs import Pairs, Record, image_key, mask_key
from segtool.data.words import meaning_of
from segtool.errors import DataError, shown
from segtool.init.encoding import guess_encoding
from segtool.init.evidence import Guess
from segtool.init.foreign import explain, other_pictures
from segtool.init.names import NamesFile, find_names
from segtool.init.refusals import (
    require_no_better,
    require_no_pictures,
    require_one_kind,
    require_one_picture,
    require_pictures,
    require_whole_masks,
)
from segtool.init.split_lists import find_pair_lists, find_split_lists
from segtool.init.split_names import find_split_folders, find_split_names

MAX_PIXELS = Limits().max_pixels
PARTLY = 0.1
"""Share of the files without a partner from which a set is labelled in part, and not by mistake."""
SOME = 3  # fewer are a mistake, however small the set
FEW_SETS = 4  # more folders with splits are places or scenes of one set
LEAST = 0.25  # of the pairs of a reading whose masks are none: what pairs fewer is no other reading of the set
MORE = 1.1  # a list of pairs is taken where it names so many times more than the folders give


@dataclass(frozen=True)
class Found:
    """A data set as it lies there."""

    root: Path
    data: Data
    """What is known of its section of the config: where files lie, how they are paired, what becomes of EXIF."""
    pairs: dict[str, Pairs]
    images: dict[Path, ImageFacts]
    masks: dict[Path, MaskFacts]
    guess: Guess
    names: list[NamesFile]
    notes: tuple[str, ...]
    """What was left out."""
    exif_reason: str = ""

    @property
    def alone(self) -> tuple[int, int]:
        """The numbers of images without a mask and of masks without an image."""
        pairs = self.pairs.values()
        return sum(len(p.images_without_mask) for p in pairs), sum(len(p.masks_without_image) for p in pairs)

    @property
    def shares_files(self) -> bool:
        """Whether splits share a folder of images or masks: what has no partner in one has one in another."""
        pairs = self.pairs.values()
        paired = {file for part in pairs for record in part.records for file in (record.image, record.mask)}
        return any(not paired.isdisjoint((*part.images_without_mask, *part.masks_without_image)) for part in pairs)

    @property
    def in_parts(self) -> tuple[Path, ...]:
        """The masks without an image that lie in a folder below the place of one: `frog/1/7.png` of `frog/7.jpg`."""
        found = []
        for split, pairs in self.pairs.items():
            part = self.data.parts[split]
            images, masks = self.root / str(part.images), self.root / str(part.masks)
            pairing = part.pairing or self.data.pairing
            alone = {image_key(stem_of(image, images), pairing) for image in pairs.images_without_mask}
            for mask in pairs.masks_without_image:
                *around, name = (mask_key(stem_of(mask, masks), pairing) or "").split("/")
                if "/".join([*around[:-1], name]) in alone and around:
                    found.append(mask)
        return tuple(found)

    @property
    def skips_unpaired(self) -> bool:
        """Whether so many files of one side have no partner that the set is one that is labelled in part.

        Where both sides have some, names do not meet, which is no such thing, unless the masks are parts.
        """
        paired = sum(len(pairs.records) for pairs in self.pairs.values())
        images, masks = self.alone
        few, many = sorted((images, masks - len(self.in_parts)))
        return many >= max(SOME, PARTLY * (paired + many)) and few <= PARTLY * many


@dataclass(frozen=True)
class _Way:
    """One reading of a folder: what its config would say."""

    data: Data
    notes: tuple[str, ...] = ()
    masks: frozenset[str] = field(default_factory=frozenset)
    """The folders that were taken for masks."""


def discover(root: Path, progress: Progress | None = None) -> Found:
    """Returns the files of a data set, their facts and what the masks say.

    Where the masks of one reading are pictures or hold nothing, the next likely folders are taken, if they pair a fair
    part of what the first do.

    Args:
        progress: Called with the number of files of a reading that were looked at, and their total.

    Raises:
        DataError: nothing pairs, or no folder holds class masks; says what lies there and how to go on.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise DataError(f"{shown(root)}: {what}; expected a folder with images and masks")
    first: DataError | None = None
    most = 0
    for way in _ways(root):
        if first and len(_partners(root, way.data)) < LEAST * most:
            continue
        try:
            return _look(root, way, progress)
        except DataError as error:
            if first is None:
                first, most = error, len(_partners(root, way.data))
    raise first or DataError(explain(root))


def without_ignored(found: Found, ignored: Collection[int]) -> Found:
    """Returns the data set without the held-out splits whose masks hold ignored values alone: no truth to score."""
    held = {split: part for split, part in found.pairs.items() if split != "train" and part.records}
    bare = [split for split, part in held.items() if _values(part, found.masks) <= set(ignored)]
    data, pairs, told = _leave_out(bare, "ignored values alone, which are", found.data, found.pairs)
    images, masks = _of_pairs(pairs, found.images, found.masks)
    return replace(found, data=data, pairs=pairs, images=images, masks=masks, notes=(*found.notes, *told))


def _leave_out(
    splits: Collection[str], why: str, data: Data, pairs: dict[str, Pairs]
) -> tuple[Data, dict[str, Pairs], list[str]]:
    """Returns a set without some splits, and a note on each."""
    told = [f"{data.parts[split].masks}: {why} no truth to score by: left out" for split in splits]
    kept = {split: part for split, part in pairs.items() if split not in splits}
    val, test = (None if split in splits else getattr(data, split) for split in ("val", "test"))
    return replace(data, val=val, test=test), kept, told


def _of_pairs(
    pairs: dict[str, Pairs], images: dict[Path, ImageFacts], masks: dict[Path, MaskFacts]
) -> tuple[dict[Path, ImageFacts], dict[Path, MaskFacts]]:
    records = [record for part in pairs.values() for record in part.records]
    return {r.image: images[r.image] for r in records}, {r.mask: masks[r.mask] for r in records if r.mask}


def _values(pairs: Pairs, masks: dict[Path, MaskFacts]) -> set[int]:
    """Returns what is stored in the masks of some pairs."""
    facts = (masks[record.mask] for record in pairs.records if record.mask)
    return {value for mask in facts if not mask.error for value in mask.values.tolist()}


def _ways(root: Path) -> Iterator[_Way]:
    """Yields the readings of a folder, the most likely first."""
    layout = find_layout(root)
    way = _of_folders(root, layout) if layout else None
    listed = _of_lists(root, way)
    if listed:
        yield listed
    refused: set[str] = set()
    while way:
        yield way
        if way.masks <= refused:
            return
        refused |= way.masks
        layout = find_layout(root, without=refused)
        way = _of_folders(root, layout) if layout else None


def _of_lists(root: Path, folders: _Way | None) -> _Way | None:
    """Returns what lists of pairs say, where they name more pairs than the folders, others, or divide them."""
    parts, count = find_pair_lists(root)
    if not parts:
        return None
    listed = _Way(_divided(Data(root=str(root), format="list"), parts))
    known = _partners(root, folders.data) if folders else {}
    if count > MORE * len(known):
        return listed
    others = _partners(root, listed.data)
    differ = any(known.get(image, mask) != mask for image, mask in others.items())
    divide = folders is not None and len(parts) > 1 and folders.data.val is None and folders.data.test is None
    return listed if (differ or divide) and count >= NEARLY * len(known) else None


def _partners(root: Path, data: Data) -> dict[Path, Path | None]:
    return {record.image: record.mask for pairs in _pairs(root, data).values() for record in pairs.records}


def _of_folders(root: Path, layout: Layout) -> _Way:
    """Returns what a layout says, divided by lists where there are any and no folders do it."""
    parts = layout.splits
    data = _divided(Data(root=str(root), pairing=layout.pairing), parts)
    masks = frozenset(_masks_of(part, part.pairing or layout.pairing) for part in parts.values())
    require_one_picture(root, data)
    require_no_better(root, data, layout.unused)
    notes = layout.notes
    if "val" not in parts:
        train = Places(data, root).of("train").pairs
        pairing = data.train.pairing or layout.pairing
        found = find_split_lists(root, data.train, train, pairing)
        if "test" in parts:  # whose images may bear the names of others
            found = {split: part for split, part in found.items() if split != "test"} if "val" in found else {}
        if not found and "test" not in parts and (found := find_split_names(data.train, train, pairing)):
            notes = (*notes, "The beginnings of the names tell the splits")
        if not found and (found := find_split_folders(root, data.train, train, pairing)):
            notes = (*notes, "Folders in the midst of the paths tell the splits", *_pooled(train))
        data = _divided(data, found)
        if not found and "test" not in parts:
            notes = (*notes, *_undivided(train))
        if data.train.list:
            notes = (*notes, *_in_no_list(root, data, train))
    return _Way(data, notes, masks)


def _pooled(train: Pairs) -> list[str]:
    """Returns a note on a few folders that may be data sets of their own, as each has splits."""
    tops = sorted({record.stem.partition("/")[0] for record in train.records})
    few = len(tops) if not any(meaning_of(top).split for top in tops) else 0
    if not 1 < few <= FEW_SETS:
        return []
    return [f"{', '.join(tops)} are taken as one data set: for one of them alone, give its folder to init"]


def _in_no_list(root: Path, data: Data, train: Pairs) -> list[str]:
    """Returns a note on pairs that the lists leave out, as those of a second set beside the one they divide."""
    listed = _partners(root, data).keys()
    left = [record for record in train.records if record.image not in listed]
    if not left:
        return []
    verb = "is" if len(left) == 1 else "are"
    return [f"{num(left, 'pair')} that the lists do not name, such as {left[0].stem}, {verb} not used"]


def _undivided(train: Pairs) -> list[str]:
    """Returns a note on folders of splits around most pairs that are not told apart, as of several sets."""
    around = [record.stem.split("/")[:-1] for record in train.records]
    told = [("/".join(parts), *{split for part in parts if (split := meaning_of(part).split)}) for parts in around]
    splits = {split for _, *own in told for split in own}
    if len(splits) < 2 or 2 * sum(len(own) > 1 for own in told) < len(told):
        return []
    return [
        f"FOLDERS OF SPLITS, SUCH AS {min(told)[0]}, ARE NOT FOLLOWED: for one of several sets, give its folder to init"
    ]


def _divided(data: Data, parts: dict[str, Folders]) -> Data:
    """Returns the data with some splits set."""
    train, val, test = parts.get("train", data.train), parts.get("val", data.val), parts.get("test", data.test)
    return replace(data, train=train, val=val, test=test)


def _masks_of(part: Folders, pairing: Pairing) -> str:
    return f"{part.masks}/*/{pairing.mask_folder}" if pairing.mask_folder else str(part.masks)


def _pairs(root: Path, data: Data) -> dict[str, Pairs]:
    places = Places(data, root)
    if data.format == "list":
        return {split: Pairs(tuple(pairs_there(part, root)[0]), (), (), ()) for split, part in data.parts.items()}
    return {split: places.of(split).pairs for split in data.parts}


# --- what the files hold


def _look(root: Path, way: _Way, progress: Progress | None) -> Found:
    data = way.data
    pairs = _pairs(root, data)
    require_whole_masks(pairs["train"], data)
    require_one_kind(pairs["train"], data)
    records = [record for part in pairs.values() for record in part.records]
    both = [record.image for record in records], [record.mask for record in records if record.mask]
    images, masks = look_at_files(*both, max_pixels=MAX_PIXELS, progress=progress)
    if all(facts.error for facts in images.values()):
        others = other_pictures(root)
        first = list(images.values())[:5]
        raise DataError(*([others] if others else []), *(f"{shown(facts.path)}: {facts.error}" for facts in first))
    require_pictures(pairs["train"].records, data)
    require_no_pictures(pairs["train"].records, masks)
    notes = list(way.notes)
    if kinds := sorted({kind for part in pairs.values() for kind in part.kinds}):
        notes.append(_about(kinds, data.train.pairing or data.pairing, records[0]))
    dummies = ["test"] if "test" in pairs and _is_dummy(pairs, masks) else []
    data, pairs, told = _leave_out(dummies, "one value in all masks, which is", data, pairs)
    images, masks = _of_pairs(pairs, images, masks)
    guess = guess_encoding(list(masks.values()))
    records = [record for part in pairs.values() for record in part.records]
    names = [file for file in find_names(root) if not _lists_images(file, records)]
    if why := _why_stored_grid(records, images, masks):
        data = replace(data, exif="ignore")
        images = {
            path: as_read(facts, channels=facts.channels or 3, exif="ignore", max_pixels=MAX_PIXELS)
            for path, facts in images.items()
        }
    return Found(root, data, pairs, images, masks, guess, names, (*notes, *told), why)


def _lists_images(file: NamesFile, records: Sequence[Record]) -> bool:
    """Whether what would be names of classes are for the most part those of images: a list of a split."""
    names = [*file.by_order, *file.by_color.values(), *file.by_value.values()]
    images = {name for record in records for name in (record.image.name, record.image.stem, record.stem)}
    words = [[name, *re.split(r"[\s,;]+", name)] for name in names]
    return 2 * sum(any(word in images or is_image_name(word) for word in own) for own in words) > len(names)


def _about(kinds: Sequence[str], pairing: Pairing, first: Record) -> str:
    """Returns a note on files that stand beside the pairs."""
    if re.fullmatch(r"_0+", pairing.image_suffix) and all(re.fullmatch(r"_\d+", kind) for kind in kinds):
        return (
            f"EACH IMAGE HAS {len(kinds) + 1} FILES, one for each of its channels, and {pairing.image_suffix} alone is "
            "used: to train on more, write up to 4 of them as the channels of one picture"
        )
    image, suffix = first.image, pairing.image_suffix
    around = image.parent if suffix and image.parent != first.truth.parent else None
    stem = image.stem.removesuffix(suffix)
    images = [kind for kind in kinds if around and (around / f"{stem}{kind}{image.suffix}").is_file()]
    rest = [kind for kind in kinds if kind not in images]
    told = [f"files with {', '.join(rest[:8])} in their names stand beside the pairs and are not used"] if rest else []
    if images:
        told.append(
            f"EACH MASK HAS {len(images) + 1} IMAGES, and those with {suffix} alone are used: to train on the others "
            f"({', '.join(images[:8])}) too, write a CSV with a line `IMAGE,MASK` for each"
        )
    return ". ".join(told)


def _is_dummy(pairs: dict[str, Pairs], masks: dict[Path, MaskFacts]) -> bool:
    """Whether the masks of test all hold one value, as where its truth is kept back, and those of train more."""
    test, train = (_values(pairs[split], masks) for split in ("test", "train"))
    return len(pairs["test"].records) > 1 and len(test) == 1 < len(train)


def _why_stored_grid(records: Sequence[Record], images: dict[Path, ImageFacts], masks: dict[Path, MaskFacts]) -> str:
    """Returns why masks were drawn on photographs as stored, not as EXIF turns them; nothing where they were not.

    The sizes of those that lie on their side tell; where there are none, what masks and images show does.
    """
    turned = [
        (images[record.image], masks[record.mask])
        for record in records
        if record.mask and images[record.image].orientation != 1 and not masks[record.mask].error
    ]
    lying = [(i.size, m.size) for i, m in turned if i.orientation >= 5 and i.size[0] != i.size[1]]
    if lying:
        stored = all(mask == image[::-1] for image, mask in lying)
        return "The masks of photographs that EXIF would turn have the size before the turn." if stored else ""
    fitting = [(image, mask) for image, mask in turned if image.size == mask.size]
    votes = votes_for_upright([image for image, _ in fitting], [mask for _, mask in fitting]) if fitting else ()
    if len(votes) == 0 or choose_grid(votes) != "ignore":
        return ""
    return f"The masks of {len(votes)} photographs that EXIF would turn fit what is stored, and not what viewers show."
