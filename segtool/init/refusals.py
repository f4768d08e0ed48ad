"""Masks that are not one whole truth for each picture: told with the remedy, and refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from segtool.config import Data, Limits
from segtool.data.facts import MaskFacts, look_at_masks
from segtool.data.files import MASK_SUFFIXES, stem_of
from segtool.data.flatness import are_flat
from segtool.data.images import read_image
from segtool.data.masks import read_mask
from segtool.data.pairs import Pairs, Record, words_and_numbers
from segtool.data.words import is_for_people, mask_rank, meaning_of, roles_in
from segtool.errors import DataError, shown
from segtool.init.foreign import MERGE

MAX_PIXELS = Limits().max_pixels
PARTS = 2  # so many kinds of masks beside the chosen one, and none is called the mask
FEW_VALUES = 4
SAMPLE = 5
MOST = 40  # pairs of masks that are compared
TOUCHING = 0.02
MANY_COLORS = 256  # of a mask: no classes
MOVED = 16  # a channel by a lossy format
SAME = 0.25  # of the pixels of an overlay or a cut-out are those of the image
PARTLY = 0.1  # of the images have no mask of the chosen kind where kinds are classes
_TWINS = {"a": "b", "im1": "im2", "image1": "image2", "t1": "t2", "time1": "time2", "pre": "post", "before": "after"}
"""Names of folders that hold the same places before and after."""


def require_whole_masks(train: Pairs, data: Data) -> None:
    """Raises DataError where each image has several masks, and nothing says that one of them is the whole truth."""
    suffix = (data.train.pairing or data.pairing).mask_suffix
    kinds = [kind for kind in train.kinds if not kind[0].isalnum()]
    numbered = bool(suffix) and not re.search("[^\\W\\d_]", suffix + "".join(kinds))  # 12_02_01 and 12_02_02
    several = numbered or len(kinds) >= PARTS or any(_name_two_parts(suffix, kind) for kind in kinds)
    if kinds and several and suffix and "masks" not in roles_in(suffix):
        raise DataError(_parts(data))
    if (data.train.pairing or data.pairing).mask_words and _have_others_beside(train):
        raise DataError(_parts(data))


def _name_two_parts(one: str, other: str) -> bool:
    """Whether two ends of names differ in one word, which tells no kind of mask: `-Cup-T` and `-Disc-T`."""
    ones, others = words_and_numbers(one), words_and_numbers(other)
    differ = [pair for pair in zip(ones, others, strict=False) if pair[0] != pair[1]]
    return (
        len(ones) == len(others)
        and len(differ) == 1
        and all(len(word) > 2 and word.isalpha() and mask_rank(word) >= 0 for word in differ[0])
        and not (is_for_people(other) or "masks" in roles_in(other))
    )


def require_one_kind(train: Pairs, data: Data) -> None:
    """Raises DataError where folders beside the masks hold other objects of the same images, in places of their own.

    Two observers' masks of one object lie on each other, and `mask` beside `background_mask` leaves nothing over: those
    are no two classes.
    """
    masks = [record.mask for record in train.records if record.mask]
    around = masks[0].parent.parent if masks else None
    if around is None or not around.is_relative_to(data.root) or not meaning_of(masks[0].parent.name).rest:
        return
    role = meaning_of(masks[0].parent.name).role
    chosen = {mask.parent for mask in masks}  # one folder for each patient is a kind of its own in none
    for folder in sorted(set(around.iterdir()) - chosen):
        name = meaning_of(folder.name)
        if name.role != role or not name.rest or mask_rank(folder.name) < 0:
            continue
        others = {mask: mask.parent.parent / folder.name / mask.name for mask in masks}
        both = [(mask, other) for mask, other in others.items() if other.is_file()][:MOST]
        apart = [told for mask, other in both if (told := _lie_apart(mask, other)) is not None]
        if len(apart) > 1 and all(apart):
            raise DataError(_parts(data))


def _lie_apart(one: Path, other: Path) -> bool | None:
    """Whether the objects of two masks of one size, all that is not 0, share hardly a pixel and leave some over.

    None where one of them has no object, or cannot be read.
    """
    try:
        first, second = (read_mask(path, max_pixels=MAX_PIXELS).values != 0 for path in (one, other))
    except DataError:
        return None
    if first.shape != second.shape or first.ndim > 2 or not (first.any() and second.any()):
        return None
    shared = (first & second).sum() / min(first.sum(), second.sum())
    return bool(shared < TOUCHING and (first | second).mean() < 1 - TOUCHING)


def _have_others_beside(train: Pairs) -> bool:
    """Whether many images have no mask, and masks beside the paired ones bear their names but for one word."""
    if len(train.images_without_mask) < PARTLY * (len(train.records) + len(train.images_without_mask)):
        return False
    masks = {record.mask for record in train.records if record.mask}
    others = [path for folder in {mask.parent for mask in masks} for path in folder.iterdir() if path not in masks]
    stems = {_without_last_word(mask.stem) for mask in masks}
    return sum(_without_last_word(path.stem) in stems for path in others if path.suffix in MASK_SUFFIXES) > 1


def _without_last_word(stem: str) -> tuple[str, ...]:
    words = words_and_numbers(stem)
    return tuple(words[:-1]) if words and words[-1].isalpha() and mask_rank(words[-1]) >= 0 else (stem,)


def require_one_picture(root: Path, data: Data) -> None:
    """Raises DataError where masks are about two pictures each."""
    images = Path(str(data.train.images))
    other = _TWINS.get(images.name.lower())
    beside = [
        path for path in (root / images.parent).iterdir() if path.is_dir() and path != root / str(data.train.masks)
    ]
    for name in (path.name for path in beside if path.name.lower() == other):
        raise DataError(
            f"{shown(images.as_posix())}: beside it lies {shown(name)}, the same places at another time, and the masks "
            "hold what has changed. segtool learns from one picture a mask: use a tool that detects changes"
        )


def require_no_better(root: Path, data: Data, unused: Sequence[str]) -> None:
    """Raises DataError where a folder for each class lies beside, under a name that says more of truth: `labels/weed`.

    What is called `mask` there is which pixels are there at all.
    """
    masks = Path(str(data.train.masks))
    if meaning_of(masks.name).role != "masks":
        return
    for folder in (root / path for path in unused if Path(path).parent == masks.parent):
        kinds = [{path.name for path in kind.iterdir()} for kind in folder.iterdir() if kind.is_dir()]
        alike = [names for names in kinds if 2 * len(names & kinds[0]) > len(kinds[0])]
        if len(alike) > 1 and mask_rank(folder.name) > mask_rank(masks.name):
            raise DataError(_merge(folder))


def require_pictures(records: Sequence[Record], data: Data) -> None:
    """Raises DataError where what would be the images hold values in areas as masks do.

    In one folder with the masks those are a few; or any number where they lie in folders that are named for masks.
    """
    folders = {record.image.parent for record in records}
    images = [record.image for record in records]
    if images and all(_is_for_masks(folder, Path(data.root)) for folder in folders) and are_flat(images):
        raise DataError(
            f"{shown(images[0])} and {shown(str(records[0].mask))} are masks both, of two kinds, and their images are "
            "not here: put them into a folder images/, with the names of the masks"
        )
    sample = [record for record in records if record.mask and record.mask.parent == record.image.parent][:SAMPLE]
    pairing = data.train.pairing or data.pairing
    if "masks" in roles_in(f"{pairing.mask_prefix} {pairing.mask_suffix} {pairing.mask_words}"):
        return
    facts = look_at_masks([record.image for record in sample], max_pixels=MAX_PIXELS).values()
    flat = [not fact.error and len(fact.values) <= FEW_VALUES for fact in facts]
    if len(flat) > 1 and all(flat):
        image, mask = sample[0].image, sample[0].truth
        raise DataError(
            f"{shown(image)} and {shown(mask.name)} hold a few values each, as masks do, and no word in their names "
            "says which is the image. Where they are several masks of one image, one for each part or object, merge "
            "them into one whose pixels hold the class; where one is the image, put masks into a folder masks/ beside "
            "images/"
        )


def require_no_pictures(records: Sequence[Record], masks: Mapping[Path, MaskFacts]) -> None:
    """Raises DataError where what would be the masks shows the images again, cut out or with something drawn on them.

    Where the opacity differs within a mask, it is what tells the classes.
    """
    facts = [masks[record.mask] for record in records if record.mask]
    many = {fact.path for fact in facts if len(fact.values) > MANY_COLORS and len(fact.alpha_values) < 2}
    sample = [record for record in records if record.mask in many][:SAMPLE]
    if len(sample) > 1 and 2 * len(many) > len(facts) and all(_shows_again(record) for record in sample):
        raise DataError(
            f"{shown(sample[0].truth)} shows what {shown(sample[0].image.name)} shows, as overlays and cut-outs do, "
            "and no classes: put masks that hold each pixel's class, of the names of the images, into a folder masks/"
        )


def _shows_again(record: Record) -> bool:
    """Whether a mask has the colours of its image, many of them, in a fair part of the pixels."""
    try:
        image = read_image(record.image, channels=3, max_pixels=MAX_PIXELS)
        mask = np.atleast_3d(read_mask(record.truth, max_pixels=MAX_PIXELS).values)
    except DataError:
        return False
    if image.shape[:2] != mask.shape[:2]:
        return False
    same = (np.abs(image.astype(np.int16) - mask) <= MOVED).all(-1)
    return bool(same.mean() >= SAME and len(np.unique(image[same], axis=0)) > MANY_COLORS)


def _is_for_masks(folder: Path, root: Path) -> bool:
    roles = roles_in(stem_of(folder, root))
    return "masks" in roles and "images" not in roles


def _parts(data: Data) -> str:
    return _merge(Path(data.root) / str(data.train.masks))


def _merge(masks: Path) -> str:
    return f"{shown(str(masks))}: each image has several masks, one for each part or object. {MERGE}"
