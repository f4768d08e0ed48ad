"""Which prefixes and suffixes tell the names of images and masks apart, proved by the pairs that they give."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from segtool.config import Pairing
from segtool.data.files import stem_of
from segtool.data.flatness import are_flat
from segtool.data.pairs import image_key, mask_key, strip, tell_apart
from segtool.data.words import FIRST, INFRARED, mask_rank, roles_in, words_of

NEARLY = 0.9
"""What pairs this share of what the best does is as good, and the words decide."""
FEW = 3
"""So few names agree by chance in an end of one side and a beginning of the other."""
_SAMPLE = 400
_LIKELY = 12


def guess_pairing(images: Sequence[str], masks: Sequence[str]) -> tuple[Pairing, int]:
    """Returns what to take off the stems of images and masks so that most pair, and the number of pairs.

    Of equal numbers the least that is taken off wins; nothing is taken off where that pairs no more.
    """
    if (count := count_pairs(images, masks, Pairing())) == min(len(images), len(masks)):
        return Pairing(), count
    candidates = {Pairing(), *_contained(images, masks), *_both_sided(images, masks)}
    known = {unicodedata.normalize("NFC", stem) for stem in masks}
    sampled = {pairing: _count_sample(images, known, pairing) for pairing in candidates}
    # By the affixes themselves in the end: the order of a set is another one in each process.
    likely = sorted(candidates, key=lambda p: (-sampled[p], length_of(p), _affixes_of(p)))[:_LIKELY]
    best = _best(likely, {pairing: count_pairs(images, masks, pairing) for pairing in likely})
    return best if 2 * best[1] >= min(len(images), len(masks)) else _by_number(images, masks, candidates) or best


def _by_number(
    images: Sequence[str], masks: Sequence[str], candidates: Iterable[Pairing]
) -> tuple[Pairing, int] | None:
    """Returns a pairing that compares numbers by value, and its pairs, where nearly all names meet one to one by it."""
    valued = {replace(pairing, by_number=True) for pairing in candidates}
    counts = {pairing: count_pairs(images[:_SAMPLE], masks, pairing) for pairing in valued}
    pairing, _ = _best(valued, counts)
    count = count_pairs(images, masks, pairing)
    return (pairing, count) if count >= max(2, NEARLY * min(len(images), len(masks))) else None


def guess_by_name(images: Sequence[str], masks: Sequence[str]) -> tuple[Pairing, int]:
    """Returns a pairing by names alone, and its pairs; none where a name stands twice or masks find no image."""
    own, others = ([stem.rpartition("/")[2] for stem in stems] for stems in (images, masks))
    pairing, count = guess_pairing(own, others)
    unique = len(set(own)) == len(own) and len(set(others)) == len(others)
    return (
        (replace(pairing, by_name=True), count) if unique and count >= max(2, NEARLY * len(masks)) else (Pairing(), 0)
    )


def guess_apart(files: Sequence[Path], folder: Path) -> tuple[Pairing, int]:
    """Returns what tells images and masks in one folder apart, and the number of pairs that gives."""
    stems = [stem_of(file, folder) for file in files]
    tails, heads = _affixes(stems, end=True, least=0.2), _affixes(stems, end=False, least=0.2)
    candidates = {Pairing(mask_suffix=affix) for affix in _affixes(stems, end=True, role="masks")}
    candidates |= {Pairing(mask_prefix=affix) for affix in _affixes(stems, end=False, role="masks")}
    candidates |= {Pairing(image_suffix=a, mask_suffix=b) for a, b in product(tails, tails) if a != b}
    candidates |= {Pairing(image_prefix=a, mask_prefix=b) for a, b in product(heads, heads) if a != b}
    if len(set(stems)) < len(stems) and (by_format := _told_by_format(files)):
        candidates = candidates - {Pairing()} | {by_format}
    likely = [pairing for pairing in candidates if _sounds_like_masks(pairing)]
    bounds = _most_pairs(stems, likely)
    counts = dict.fromkeys(likely, 0)
    of_masks = set()
    for pairing in sorted(likely, key=lambda pairing: -bounds[pairing]):
        if not bounds[pairing] or bounds[pairing] < NEARLY**2 * max(counts.values()):
            break  # neither nearly as good as the best, nor as what is nearly that
        images, masks = ([stem_of(path, folder) for path in part] for part in tell_apart(files, pairing))
        counts[pairing] = count_pairs(images, masks, pairing)
        if counts[pairing] and _are_named_masks(images, masks, pairing):
            of_masks.add(pairing)
    most = max(counts.values())
    of_images = [pairing for pairing in likely if pairing not in of_masks]
    told = any(most and counts[pairing] >= NEARLY * most for pairing in of_images)
    return _best(of_images if told else likely, counts)


def _most_pairs(stems: Sequence[str], pairings: Iterable[Pairing]) -> dict[Pairing, int]:
    """Returns how many pairs each pairing of one folder makes at most: the keys that both sides have."""
    images: dict[tuple[str, str], set[str | None]] = {}
    masks: dict[tuple[str, str], set[str | None]] = {}
    bounds = {}
    for pairing in pairings:
        one, other = (pairing.image_prefix, pairing.image_suffix), (pairing.mask_prefix, pairing.mask_suffix)
        if one not in images:
            images[one] = {image_key(stem, pairing) for stem in stems} - {None}
        if other not in masks:
            masks[other] = {mask_key(stem, pairing) for stem in stems} - {None}
        bounds[pairing] = len(images[one] & masks[other])
    return bounds


def _told_by_format(files: Sequence[Path]) -> Pairing | None:
    """Returns a pairing by the one format that masks have, where files of others than the usual one hold areas."""
    formats: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        formats[file.suffix.lower()[1:]].append(file)
    flat: list[Any] = [name for name in formats if are_flat(formats[name])] if len(formats) > 1 else []
    told = Pairing(mask_format=flat[0]) if len(flat) == 1 else Pairing()
    return told if tell_apart(files, told) != tell_apart(files, Pairing()) else None


def _are_named_masks(images: Iterable[str], masks: Iterable[str], pairing: Pairing) -> bool:
    """Whether what would be the images that have a mask are masks by their names: `1_label` of `1_label_semantic`."""
    keys = {mask_key(stem, pairing) for stem in masks}
    paired = [stem.rpartition("/")[2] for stem in images if image_key(stem, pairing) in keys]
    return bool(paired) and all("masks" in roles_in(name) for name in paired[:_LIKELY])


def count_pairs(images: Iterable[str], masks: Iterable[str], pairing: Pairing) -> int:
    """Returns how many stems pair one to one."""
    one = Counter(image_key(stem, pairing) for stem in images)
    other = Counter(mask_key(stem, pairing) for stem in masks)
    return sum(1 for stem, count in one.items() if stem is not None and count == 1 and other[stem] == 1)


def _count_sample(images: Sequence[str], masks: set[str], pairing: Pairing) -> int:
    """Returns how many of some images have a mask, without a pass over all masks."""
    count = 0
    for stem in images[:: len(images) // _SAMPLE + 1]:
        if key := strip(stem, pairing.image_prefix, pairing.image_suffix):
            folder, slash, name = key.rpartition("/")
            count += f"{folder}{slash}{pairing.mask_prefix}{name}{pairing.mask_suffix}" in masks
    return count


def _best(candidates: Collection[Pairing], counts: Mapping[Pairing, int]) -> tuple[Pairing, int]:
    """Returns the pairing that makes the most pairs; of those that make nearly as many, the one whose words fit."""

    def rank(pairing: Pairing) -> tuple[object, ...]:
        values = [[-ord(letter) for letter in affix] for affix in _affixes_of(pairing)]  # the first of two by name
        affix = _of_image(pairing)
        shown = "vis" not in words_of(affix) if by_light else mask_rank(affix) < 0  # `_color` beside `_label`
        rank = mask_rank(f"{pairing.mask_prefix} {pairing.mask_suffix}")
        kind = -1 if rank < 0 else int(rank == FIRST)  # second observers and colours last, train ids before ids
        return kind, _words_fit(pairing), not shown, counts[pairing], -length_of(pairing), values

    most = max(counts[pairing] for pairing in candidates)
    known = [pairing for pairing in candidates if counts[pairing] >= NEARLY * most]
    words = {word for pairing in known for word in words_of(_of_image(pairing))}
    by_light = "vis" in words and not words.isdisjoint(INFRARED)  # `_vis` beside `_nir` is the photograph
    best = max(known, key=rank)
    return best, counts[best]


def _of_image(pairing: Pairing) -> str:
    return f"{pairing.image_prefix} {pairing.image_suffix}"


def _words_fit(pairing: Pairing) -> int:
    """Returns how well the words taken off each side speak of that side."""
    image = roles_in(f"{pairing.image_prefix} {pairing.image_suffix}")
    mask = roles_in(f"{pairing.mask_prefix} {pairing.mask_suffix}")
    return ("images" in image and "masks" not in image) + ("masks" in mask)


def _sounds_like_masks(pairing: Pairing) -> bool:
    """Whether of two kinds of file in one folder the chosen one is that of the masks, by its words."""
    image = roles_in(f"{pairing.image_prefix} {pairing.image_suffix}")
    mask = roles_in(f"{pairing.mask_prefix} {pairing.mask_suffix}")
    if pairing.image_prefix + pairing.image_suffix and not ("images" in image or "masks" in mask):
        return False  # volume-1_045 and volume-2_045 are two images
    return "masks" not in image and not ("images" in mask and "masks" not in mask)


def _contained(images: Sequence[str], masks: Sequence[str]) -> set[Pairing]:
    """Returns the differences between names where one stem contains the other: `a` and `a_mask`."""
    found: set[Pairing] = set()
    own, others = dict.fromkeys(images[:_SAMPLE]), dict.fromkeys(masks[:_SAMPLE])
    for stem in _spread(others):
        found |= {Pairing(mask_prefix=head, mask_suffix=tail) for head, tail in _around(stem, own)}
    for stem in _spread(own):
        found |= {Pairing(image_prefix=head, image_suffix=tail) for head, tail in _around(stem, others)}
    return found


def _spread(stems: Collection[str]) -> list[str]:
    """Returns up to 40 of the stems, evenly spaced."""
    return list(stems)[:: -(-len(stems) // 40)]


def _around(stem: str, shorter: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yields what stands before and behind each of the shorter stems within one."""
    folder, slash, name = stem.rpartition("/")
    for start in range(len(name)):
        for end in range(start + 1, len(name) + 1):
            inner = folder + slash + name[start:end]
            if end - start < len(name) and inner in shorter and _is_joint(name, start) and _is_joint(name, end):
                yield name[:start], name[end:]


def _is_joint(name: str, place: int) -> bool:
    """Whether two words of a name meet there, or it ends."""
    if place in (0, len(name)):
        return True
    left, right = name[place - 1], name[place]
    return not (left.isalpha() and right.isalpha() and left.isupper() == right.isupper()) and not (
        left.isdigit() and right.isdigit()
    )


def _both_sided(images: Sequence[str], masks: Sequence[str]) -> set[Pairing]:
    """Returns pairings by frequent ends of both names, `_leftImg8bit` and `_gtFine_labelIds`, or beginnings.

    Or an end of nearly all of one side and a beginning of nearly all of the other: `7_ch00` and `GT_7`.
    """
    kinds = [tail for tail in _affixes(images, end=True, least=0.2) if re.search(r"[^\W\d_]", tail)]  # _1 is no kind
    ends = dict.fromkeys([*_affixes(images, end=True, least=0.9), *kinds])
    tails = product(ends, _affixes(masks, end=True, least=0.15))
    heads = product(_affixes(images, end=False, least=0.9), _affixes(masks, end=False, least=0.15))
    found = {Pairing(image_suffix=a, mask_suffix=b) for a, b in tails}
    found |= {Pairing(image_prefix=a, mask_prefix=b) for a, b in heads}
    if min(len(images), len(masks)) < FEW:
        return found
    ends_of = [_affixes(stems, end=True, least=0.9) for stems in (images, masks)]
    begins_of = [_affixes(stems, end=False, least=0.9) for stems in (images, masks)]
    found |= {Pairing(image_suffix=a, mask_prefix=b) for a, b in product(ends_of[0], begins_of[1])}
    return found | {Pairing(image_prefix=a, mask_suffix=b) for a, b in product(begins_of[0], ends_of[1])}


def _affixes(stems: Sequence[str], *, end: bool, least: float = 0, role: str = "") -> list[str]:
    """Returns the ends (or beginnings) at a boundary of words that at least that share of the stems has, and "".

    One stem of a few may lack them.

    Args:
        role: What a word in them says; one stem is then enough.
    """
    names = [stem.rpartition("/")[2] for stem in (stems if role else stems[:_SAMPLE])]
    same, counts = Counter(names), Counter[str]()
    for name in names:
        cuts = [match.start() for match in re.finditer(r"(?<=[^\W_])(?=[\W_])|(?<=\))(?=.)|(?<=\d)(?=[^\W\d_])", name)]
        if not end:
            cuts = [match.end() for match in re.finditer(r"[\W_]+|(?<=[^\W\d_])(?=\d)", name)]
        whole = {name} if end and same[name] > 1 and roles_in(name) else set()
        counts.update(whole | {name[cut:] if end else name[:cut] for cut in cuts})
    enough = 1 if role else max(min(least * len(names), len(names) - 1), min(2, len(names)))
    frequent = [affix for affix, count in counts.items() if count >= enough and (not role or role in roles_in(affix))]
    return ["", *sorted(frequent, key=lambda affix: -counts[affix])[:16]]


def length_of(pairing: Pairing) -> int:
    """Returns how many characters a pairing takes off."""
    return sum(map(len, _affixes_of(pairing)))


def _affixes_of(pairing: Pairing) -> tuple[str, ...]:
    return pairing.image_prefix, pairing.image_suffix, pairing.mask_prefix, pairing.mask_suffix
