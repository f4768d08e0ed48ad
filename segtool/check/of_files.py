"""Checks of the files: which there are, and whether they can be read. To add one, write it below the decorator."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from segtool.check.findings import NAMED, Finding, a_check, counted, few_names, num, size_text
from segtool.check.survey import Survey
from segtool.data.facts import ImageFacts, MaskFacts
from segtool.data.pairs import name_twins
from segtool.errors import shown

_LINE = re.compile(r".+?:\d+(?=: )")

# ------------------------------------------------------------------------------------------------- 1 which files


@a_check
def folders_exist(survey: Survey) -> Iterator[Finding]:
    """SEG101: a folder or list that the config names is not there, or cannot be read."""
    missing = survey.listing.missing
    if missing:
        is_root = survey.root.is_dir()
        there = "" if is_root else f"; data.root {shown(survey.root)} itself is not there"
        yield Finding(
            "SEG101",
            "error",
            f"{num(len(missing), 'folder or list', 'folders or lists')} named by the config not found",
            *counted(survey, missing),
            next(iter(missing.values())) + there,
            "correct the folders under data.train, data.val and data.test, or put the data there"
            if is_root
            else "put the data there, or say where it is: --set data.root=DIR",
        )


@a_check
def pairs_found(survey: Survey) -> Iterator[Finding]:
    """SEG102: a part of the data has no pair at all."""
    for split, pairs in survey.pairs.items():
        if not pairs.records:
            without = f"{num(pairs.images_without_mask, 'image')} and {num(pairs.masks_without_image, 'mask')}"
            empty = survey.listing.empty.get(split)
            hint = survey.listing.hints.get(split)
            yield Finding(
                "SEG102",
                "error",
                f"{split}: no pair of an image and its mask",
                1,
                few_names(survey, [*pairs.images_without_mask[:2], *pairs.masks_without_image[:2]]),
                "; ".join(empty) if empty else f"data.{split} holds {without} whose names do not meet",
                "put the files there, or correct the folders"
                if empty
                else hint or "correct the folders; where names differ by a prefix or suffix, say so in data.pairing",
            )


@a_check
def everything_paired(survey: Survey) -> Iterator[Finding]:
    """SEG103, SEG104: an image without a mask, a mask without an image, in a part that has pairs."""
    paired = {split: pairs for split, pairs in survey.pairs.items() if pairs.records}
    hint = next((hint for split, hint in survey.listing.hints.items() if split in paired and hint), "")
    skipped = survey.data.unpaired == "skip"
    records = [record for pairs in paired.values() for record in pairs.records if skipped]
    taken = {file for record in records for file in (record.image, record.mask)}  # by another split
    images = [path for pairs in paired.values() for path in pairs.images_without_mask if path not in taken]
    masks = [path for pairs in paired.values() for path in pairs.masks_without_image if path not in taken]
    for code, what, partner, files, without in (
        ("SEG103", "image", "mask", images, "not labelled yet"),
        ("SEG104", "mask", "image", masks, "of other images or of another kind"),
    ):
        if files:
            article = "an" if partner == "image" else "a"
            unread = [file for file in files if file in survey.listing.unread]
            first = (unread or files)[0]
            example = f"{survey.name(first)}: no {partner} of that stem"
            remedy = (
                f"add the {partner}s, or move the {what}s out of the folder; where names differ, see data.pairing; "
                "where only a part is labelled, set data.unpaired to skip"
            )
            if unread:
                example += f" but {survey.name(survey.listing.unread[first])}, which is of a kind that is not read"
                kinds = ", ".join(sorted({survey.listing.unread[file].suffix.lower() for file in unread}))
                remedy = f"convert {num(unread, partner)} ({kinds}) to PNG or TIFF; {remedy}"
            yield Finding(
                code,
                "note" if skipped else "error",
                f"{num(files, what)} without {article} {partner}{', left out' if skipped else ''}",
                *counted(survey, files),
                example,
                f"nothing, where they are {without}" if skipped and not unread else hint or remedy,
            )


@a_check
def names_unambiguous(survey: Survey) -> Iterator[Finding]:
    """SEG105: several files that claim the same partner."""
    twins = [files for pairs in survey.pairs.values() for files in pairs.ambiguous]
    if twins:
        yield Finding(
            "SEG105",
            "error",
            f"{num(twins, 'name')} that several files share, so that a pair is not certain",
            len(twins),
            few_names(survey, [path for files in twins for path in files]),
            f"{name_twins([survey.name(path) for path in twins[0]])} have one stem",
            "keep one file of each name and move the others away",
        )


@a_check
def lists_sound(survey: Survey) -> Iterator[Finding]:
    """SEG107: lines of a list that name no pair."""
    problems = survey.listing.list_problems
    if problems:
        yield Finding(
            "SEG107",
            "error",
            f"{num(problems, 'line')} of the lists that cannot be used",
            len(problems),
            tuple(dict.fromkeys(match[0] for problem in problems if (match := _LINE.match(problem))))[:NAMED],
            "; ".join(problems[:3]),
            "give an image and its mask on each line, with paths relative to data.root",
        )


@a_check
def affixes_carried(survey: Survey) -> Iterator[Finding]:
    """SEG108: files passed over because they lack the prefix or suffix of data.pairing."""
    files = {
        path for pairs in survey.pairs.values() for record in pairs.records for path in (record.image, record.mask)
    }
    unnamed = dict.fromkeys(path for pairs in survey.pairs.values() for path in pairs.unnamed if path not in files)
    if unnamed:
        yield Finding(
            "SEG108",
            "note",
            f"{num(unnamed, 'file')} passed over: not named as data.pairing says",
            *counted(survey, unnamed),
            survey.name(next(iter(unnamed))),
            "nothing, where they are neither images nor masks; else correct data.pairing",
        )


@a_check
def files_excluded(survey: Survey) -> Iterator[Finding]:
    """SEG112: files that `data.exclude` leaves out with their partners."""
    names = [shown(name) for name in survey.data.exclude]
    if names:
        yield Finding(
            "SEG112",
            "note",
            f"{num(names, 'file')} left out by data.exclude, each with its partner",
            len(names),
            tuple(names[:NAMED]),
            names[0],
            "nothing, where that is meant",
        )


@a_check
def listed_names_known(survey: Survey) -> Iterator[Finding]:
    """SEG110: names in the list of a split that no image of its folder bears."""
    unknown = [text for lines in survey.listing.unknown.values() for text in lines]
    if unknown:
        all_unknown = any(not survey.pairs[split].records for split in survey.listing.unknown)
        yield Finding(
            "SEG110",
            "error" if all_unknown else "warning",
            f"{num(unknown, 'name')} in the lists of the splits that no image bears",
            len(unknown),
            tuple(dict.fromkeys(match[0] for text in unknown if (match := _LINE.match(text))))[:NAMED],
            "; ".join(unknown[:3]),
            "put the images there, or take the lines out of the list; what the list does name is used",
        )


@a_check
def split_possible(survey: Survey) -> Iterator[Finding]:
    """SEG106: what the config asks of the pairs cannot be done."""
    problems = survey.listing.split_problems
    if problems:
        yield Finding(
            "SEG106",
            "error",
            "the pairs cannot be split as the config asks",
            len(problems),
            (),
            problems[0],
            "change data.split or data.fold, or give the folders data.val and data.test",
        )


# ------------------------------------------------------------------------------------------------- 2 reading


@a_check
def files_readable(survey: Survey) -> Iterator[Finding]:
    """SEG201, SEG202: an image or a mask that cannot be decoded, or is of a kind that is not accepted.

    There is a finding for each remedy: what mends an empty file does not mend one with transparent pixels.
    """
    for code, what, files in (("SEG201", "image", survey.images), ("SEG202", "mask", survey.masks)):
        by_remedy: dict[str, list[tuple[Path, str]]] = defaultdict(list)
        for path, facts in files.items():
            if facts.error:
                reason, _, remedy = facts.error.rpartition("; ")
                by_remedy[remedy].append((path, reason))
        for remedy, bad in by_remedy.items():
            path, reason = bad[0]
            them = "it and its partner" if len(bad) == 1 else "them and their partners"
            yield Finding(
                code,
                "error",
                f"{num(bad, what)} cannot be read",
                *counted(survey, [path for path, _ in bad]),
                f"{survey.name(path)}: {reason}",
                f"{remedy}; or leave {them} out by data.exclude",
            )


@a_check
def sizes_match(survey: Survey) -> Iterator[Finding]:
    """SEG203: a mask of another size than its image; one finding for each way in which they differ."""
    by_remedy: dict[str, list[tuple[ImageFacts, MaskFacts, str]]] = defaultdict(list)
    for image, mask in survey.readable_pairs:
        if image.size != mask.size:
            guess, remedy = _why_another_size(image, mask)
            by_remedy[remedy].append((image, mask, guess))
    for remedy, wrong in by_remedy.items():
        image, mask, guess = wrong[0]
        yield Finding(
            "SEG203",
            "error",
            f"{num(wrong, 'mask')} with another size than the image",
            *counted(survey, [mask.path for _, mask, _ in wrong]),
            f"{survey.name(mask.path)}: {size_text(mask.size)}, but its image {survey.name(image.path)} has "
            f"{size_text(image.size)}: {guess}",
            remedy,
        )


def _why_another_size(image: ImageFacts, mask: MaskFacts) -> tuple[str, str]:
    """Returns a guess at what was done to a mask of another size than its image, and the remedy."""
    if mask.size == image.size[::-1]:
        turned = f"; the image has EXIF orientation {image.orientation}" if image.orientation != 1 else ""
        return f"rotated?{turned}", (
            "the mask fits the stored grid: set data.exif to ignore, or turn the mask as viewers show the image"
            if image.orientation >= 5
            else "turn the image or the mask; look at both first, a wrong turn trains nonsense"
        )
    if _is_scaled(image, mask):
        guess = f"scaled by {mask.size[0] / image.size[0]:.3g}?"
        return guess, "export the masks at the size of the images, with nearest-neighbour scaling"
    return (
        "cropped, or the mask of another image?",
        "look at image and mask together: give each image the mask that was drawn on it, whole and at its size",
    )


def _is_scaled(image: ImageFacts, mask: MaskFacts) -> bool:
    """Whether the mask's sides are the image's, times one factor and rounded to whole pixels; a pixel more is none."""
    (height, width), (mask_height, mask_width) = image.size, mask.size
    factor, other = mask_height / height, mask_width / width
    return abs(factor - other) < 0.02 * max(factor, other) and abs(factor - 1) > 0.01


@a_check
def modes_alike(survey: Survey) -> Iterator[Finding]:
    """SEG204, SEG207: images of several pixel formats, which the reader turns into one; masks of several that are read.

    Images of 1 bit and in grey are of one, and those in colour with those of a palette.
    """
    images = [facts for facts in survey.images.values() if not facts.error]
    masks = [survey.masks[path] for path, use in survey.uses.items() if not use.error]
    kinds = {{"1": "L", "P": "RGB"}.get(facts.mode, facts.mode) for facts in images}
    become = f"; all become {num(survey.data.channels, 'channel')}"
    remedy = "nothing, if data.channels is meant so; else store all images alike"
    if len(kinds) > 1:
        yield _of_several_modes(survey, "SEG204", images, "images of {} pixel formats: {}" + become, remedy)
    remedy = "look whether they mean the same: they may come from different programs"
    if len({facts.mode for facts in masks}) > 1:
        yield _of_several_modes(survey, "SEG207", masks, "masks of {} pixel formats (P is a palette): {}", remedy)


def _of_several_modes(
    survey: Survey, code: str, files: Sequence[ImageFacts | MaskFacts], message: str, remedy: str
) -> Finding:
    modes = Counter(facts.mode for facts in files)
    rarest = min(modes, key=lambda mode: modes[mode])
    few = [facts.path for facts in files if facts.mode == rarest]
    listed = ", ".join(f"{count} {mode}" for mode, count in modes.most_common())
    told = message.format(len(modes), listed)
    return Finding(code, "note", told, len(few), few_names(survey, few), f"{survey.name(few[0])}: {rarest}", remedy)
