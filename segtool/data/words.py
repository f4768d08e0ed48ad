"""The words in which folders and files say what they hold: images or masks, and which split."""

from __future__ import annotations

import re

SPLITS = ("train", "val", "test")
_WORDS = {
    "images": "images image img imgs imagery jpegimages pngimages inputs input photos photo pictures pics frames frame "
    "scans slices raw rgb x leftimg8bit original originals source",
    "masks": "masks mask maskes labels label labeled labelled annotations annotation annots annot annotated gt gts "
    "groundtruth groundtruths truth truths segmentation segmentations segmentationclass segmentationclassaug seg segs "
    "segmaps targets target y gtfine gtcoarse trimaps trimap manual labelids semantic",
    "train": "train training tr trn trainval",
    "val": "val valid validation dev eval vl",
    "test": "test testing tests ts te tst",
}
_MEANING = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}


def parts_of(name: str) -> tuple[str | None, str | None]:
    """Returns the role and the split that a folder's name tells; (None, None) where a word of it is neither."""
    words = _words(name)
    meanings = [_MEANING.get(word) for word in words]
    if not words or None in meanings:
        return None, None
    splits = [meaning for meaning in meanings if meaning in SPLITS]
    roles = [meaning for meaning in meanings if meaning not in SPLITS]
    role = "masks" if "masks" in roles else roles[0] if roles else None
    return role, splits[0] if splits else None


def roles_in(name: str) -> set[str]:
    """Returns the roles and splits that any word of a name tells."""
    return {_MEANING[word] for word in _words(name) if word in _MEANING}


def _words(name: str) -> list[str]:
    """Returns a name's words in lower case, `trainannot` and `imagesTr` as two, years and versions left out."""
    whole = re.sub(r"[^a-z]", "", name.lower())
    if whole in _MEANING and (len(whole) > 1 or name.lower() == whole):  # 512x512 are no images
        return [whole]
    words = []
    for word in re.findall(r"[a-z]{2,}", name.lower()):
        cut = next((i for i in range(2, len(word) - 1) if {word[:i], word[i:]} <= set(_MEANING)), None)
        words += [word] if word in _MEANING or cut is None else [word[:cut], word[cut:]]
    return words
