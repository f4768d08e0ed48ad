"""Words in the midst of paths that tell masks from images, proved by the pairs that are left without them.

`camera/7_camera_001` and `label/7_label_001`; `um_000001` and `um_road_000001`; `01/t000` and `01_GT/SEG/man_seg000`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import product

from segtool.config import Pairing
from segtool.data.pairs import words_and_numbers, words_left
from segtool.data.words import CAMERA, is_for_people, mask_rank, roles_in

Kind = frozenset[str]

FREQUENT = 0.05
"""A word in fewer of the paths names what a picture shows, and not what kind of file it is."""
MOST_KINDS = 12
ENOUGH = 0.9
"""So many of the masks must find an image."""


def guess_words(images: Sequence[str], masks: Sequence[str]) -> tuple[Pairing, int]:
    """Returns the words that tell images and masks, and the number of pairs; none where they are not certain.

    Args:
        images: Stems, within their folder.
        masks: Stems too; the same as `images` where both lie in one folder, where a word must say image or mask.
    """
    counted = {pairing: _count(images, masks, pairing) for pairing in _candidates(images, masks)}
    worth = {
        pairing: (*_rank(pairing), count, *_image_rank(pairing.image_words))
        for pairing, count in counted.items()
        if count
    }
    alike = [pairing for pairing in worth if worth[pairing] == max(worth.values())]
    best = [pairing for pairing in alike if not any(_takes_more(pairing, other) for other in alike)]
    if len(best) != 1:  # two kinds of masks, neither of them all
        return Pairing(), 0
    return best[0], counted[best[0]]


def further_kinds(stems: Sequence[str], pairing: Pairing) -> list[str]:
    """Returns the words of further files that most paired images have: `depth` beside `camera` and `label`.

    Args:
        stems: Those of images, masks and all else within their folder.
    """
    of_images, of_masks = set(pairing.image_words.split()), set(pairing.mask_words.split())
    kinds: dict[Kind, list[str]] = defaultdict(list)
    for stem, kind in zip(stems, _kinds_of(stems), strict=True):
        kinds[kind].append(stem)
    own = [kind for kind in kinds if of_images <= kind]
    paired = {words_left(stem, pairing.mask_words) for stem in stems}
    images = {key for stem in stems if (key := words_left(stem, pairing.image_words)) in paired} - {None}
    counts: Counter[str] = Counter()
    for kind, several in kinds.items():
        words = kind - (min(own, key=lambda one: len(one ^ kind), default=kind) - of_images)
        if words and not words >= of_images and not words >= of_masks:
            told = " ".join(sorted(words))
            counts[told] += sum(words_left(stem, told) in images for stem in several)
    return [words for words, count in counts.items() if 2 * count > len(images)]


def _takes_more(one: Pairing, other: Pairing) -> bool:
    """Whether a pairing takes more words than another one and all of its masks': `ok` and `truth ko` for `truth`."""
    images, masks = len(one.image_words.split()), set(one.mask_words.split())
    fewer_images, fewer_masks = len(other.image_words.split()), set(other.mask_words.split())
    return masks >= fewer_masks and images >= fewer_images and (images, masks) != (fewer_images, fewer_masks)


def _candidates(images: Sequence[str], masks: Sequence[str]) -> Iterator[Pairing]:
    found = set()
    for one, other in _likely(_kinds(images), _kinds(masks)):
        pairing = Pairing(image_words=" ".join(sorted(one - other)), mask_words=" ".join(sorted(other - one)))
        of_images, of_masks = _roles(pairing.image_words), _roles(pairing.mask_words)
        camera = () if "masks" in _roles(" ".join(one)) else CAMERA
        own = [word for word in pairing.image_words.split() if word.lower() not in camera]
        unlike = " ".join(word for word in own if "images" not in _roles(word))
        other_kind = "masks" in of_images or mask_rank(unlike) < 0  # instances, overlays; `rgb` is a word for both
        told = not (other_kind or is_for_people(pairing.mask_words)) and ("masks" in of_masks or "images" in of_images)
        if pairing not in found and one != other and (told or images is not masks):
            found.add(pairing)
            yield pairing


def _roles(words: str) -> set[str]:
    return {role for word in words.split() if len(word) > 1 for role in roles_in(word)}  # x and y are objects here


def _likely(ones: list[Kind], others: list[Kind]) -> Iterator[tuple[Kind, Kind]]:
    """Yields kinds of images and of masks: the most frequent, and to each that says masks the one that is most alike.

    Where each of many objects has folders of its own, the most frequent kinds are all of images.
    """
    pictures = [kind for kind in ones if "masks" not in _roles(" ".join(kind))]
    yield from product((pictures or ones)[:MOST_KINDS], others[:MOST_KINDS])
    for other in [kind for kind in others if kind not in pictures][:MOST_KINDS]:
        if "masks" in _roles(" ".join(other)) and pictures:
            yield min(pictures, key=lambda one, mask=other: len(one ^ mask)), other


def _kinds(stems: Sequence[str]) -> list[Kind]:
    """Returns the sets of frequent words that paths hold, the most frequent sets first."""
    return [kind for kind, _ in Counter(_kinds_of(stems)).most_common()]


def _kinds_of(stems: Sequence[str]) -> list[Kind]:
    """Returns the frequent words that each path holds."""
    held = [frozenset(word for word in words_and_numbers(stem) if not word.isdigit()) for stem in stems]
    counts = Counter(word for words in held for word in words)
    least = max(2, FREQUENT * len(stems))
    return [frozenset(word for word in words if counts[word] >= least) for words in held]


def _rank(pairing: Pairing) -> tuple[bool, int]:
    """Returns how likely the words say masks: none of second choice, then how many of them, up to two.

    `GroundTruth iMap` comes before `GroundTruth color`, `GT SEG` before `GT TRA`.
    """
    words = pairing.mask_words
    return mask_rank(words) >= 0, min(2, sum("masks" in _roles(word) for word in words.split()))


def _image_rank(words: str) -> tuple[int, bool]:
    """Returns how likely words say images: a word for them, none at all, a camera; the left one of two cameras."""
    own = {word.lower() for word in words.split()}
    return 3 if "images" in _roles(words) else 2 if not own else int(not own.isdisjoint(CAMERA)), "right" not in own


def _count(images: Sequence[str], masks: Sequence[str], pairing: Pairing) -> int:
    """Returns how many stems pair one to one; 0 where masks are left over."""
    of_masks = [stem for stem in masks if words_left(stem, pairing.mask_words) is not None]
    without = set(of_masks) if pairing.mask_words and images is masks else set()
    ones: dict[str, int] = defaultdict(int)
    for stem in images:
        key = words_left(stem, pairing.image_words)
        if key is not None and stem not in without:
            ones[key] += 1
    others = Counter(words_left(stem, pairing.mask_words) for stem in of_masks)
    count = sum(1 for key, number in others.items() if number == 1 and key and ones.get(key) == 1)
    return count if count >= max(2, ENOUGH * len(of_masks)) else 0
