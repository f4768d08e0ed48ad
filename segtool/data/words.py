"""The words in which folders and files say what they hold: images or masks, and which split."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

SPLITS = ("train", "val", "test")
_WORDS = {
    "images": "images image im img imgs imagery jpegimages pngimages input inputs photo photos picture pictures pics "
    "frame frames scans slices raw rgb rgba x leftimg8bit leftimg orig original originals source sat satellite ortho "
    "stills tiles patches",
    "masks": "masks mask maskes msk msks label labels labeled labelled labelids lab labs lbl lbls annotation "
    "annotations annot annots annotated anno annos ann anns gt gts gtfine gtcoarse groundtruth groundtruths truth "
    "truths segmentation segmentations segmentationclass segmentationclassaug seg segs segmaps segmap target "
    "targets y trimap trimaps manual semantic semantics semseg category categories ids matte mattes matting parsing "
    "parse figureground silhouettes silhouette alpha pha",
    "train": "train training tr trn trainval",
    "val": "val valid validate validation dev development tuning eval vl vd",
    "test": "test testing tests ts te tst",
}
_OTHERS = {
    "neutral": "png jpg jpeg tif tiff bmp gif bit full all data dataset set folder files new final resized crop "
    "cropped aug machine col st class id",
    "for people": "vis visual visualization visualisation visualizations overlay overlays preview previews thumb "
    "thumbs thumbnail thumbnails heatmap heatmaps",
    "observers": "annotator expert observer rater reader grader radiologist pathologist",
    "predicted": "pred preds predict predicts prediction predictions predicted prob probs probability probabilities",
    "second choice": "color colors colour colours colormap colormaps colored coloured rgb rgba instance instances "
    "instanceids panoptic confidence object objects human edge edges boundary boundaries contour contours eroded "
    "second nd depth fov tra track tracks inv save",
}
INFRARED = ("ir", "nir", "infrared", "thermal")
"""Words beside which `vis` tells visible light; elsewhere it tells what is for people."""
CAMERA = ("color", "colour")
"""Words for masks in colours that beside depth and masks tell the pictures."""
_ALONE = ("alpha", "pha")  # and single letters: beside other words they name something else
_LABELLED = ("labeled", "labelled")  # train-labeled is the part of train that has labels
_MEANING = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
_NEUTRAL, _FOR_PEOPLE, _OBSERVERS, _PREDICTED, _SECOND_CHOICE = (frozenset(words.split()) for words in _OTHERS.values())
_KNOWN = _NEUTRAL | _MEANING.keys()
FIRST = 3
_FIRST = re.compile("manual|semantic|trainid")
_RANKS = {"mask": 1, "masks": 1, "maskes": 1, "trimap": 0, "trimaps": 0}


class Meaning(NamedTuple):
    """What a folder's name tells."""

    role: str | None
    """`images`, `masks` or neither."""
    split: str | None
    rest: str
    """The words that tell neither."""
    kind: str
    """The words that tell the role, and the rest."""


@lru_cache(1 << 16)
def meaning_of(name: str) -> Meaning:
    """Returns what a folder's name tells, all of it or one word among others (`ISIC2018_Training_Input`).

    The name of a repository that was downloaded tells nothing: `nuclear-segmentation-master`.
    """
    words = words_of(name)
    if name.endswith(("-master", "-main")):
        return Meaning(None, None, " ".join(words), "")
    known = [(word, _MEANING[word]) for word in words if word in _MEANING]
    rest = [word for word in words if word not in _MEANING and word not in _NEUTRAL]
    splits = [(word, meaning) for word, meaning in known if meaning in SPLITS]
    rare = [*_ALONE, *(_LABELLED if splits else ())]
    roles = [
        (word, meaning) for word, meaning in known if meaning not in SPLITS and not (word in rare and len(words) > 1)
    ]
    role = "masks" if any(meaning == "masks" for _, meaning in roles) else roles[0][1] if roles else None
    if rest and not role:
        splits = [(word, meaning) for word, meaning in splits if len(word) > 2 or _is_set_off(word, name)]
    kind = " ".join(word for word in words if _MEANING.get(word) not in SPLITS)
    return Meaning(role, splits[0][1] if splits else None, " ".join(rest), kind)


def _is_set_off(word: str, name: str) -> bool:
    """Whether a name ends in a word, set off in upper case: `DIS-TR`, `DIS-TE1`."""
    return bool(re.search(rf"[\W_]{word.upper()}\d*$", name))


def roles_in(name: str) -> set[str]:
    """Returns the roles and splits that any word of a name tells."""
    return {_MEANING[word] for word in words_of(name) if word in _MEANING}


def is_for_people(name: str) -> bool:
    """Whether a name says that its pictures are for people to look at: overlays, thumbnails, heat maps."""
    return not _FOR_PEOPLE.isdisjoint(words_of(name))


def says_observer(name: str) -> bool:
    """Whether a name says who drew: masks of several people are no classes."""
    return not _OBSERVERS.isdisjoint(words_of(name))


@lru_cache(1 << 16)
def says_predicted(name: str) -> bool:
    """Whether a folder's name says that it holds what a network predicted."""
    return not _PREDICTED.isdisjoint(words_of(name))


def mask_rank(name: str) -> int:
    """Returns how likely a name is that of the class masks, where several kinds lie side by side.

    What one person drew by hand comes first, and ids to train on, `mask` after all other words for the truth (a mask
    beside a manual segmentation is the field of view), then a trimap, and colours, overlays, instances and a second
    observer last.
    """
    words = words_of(name)
    if (_SECOND_CHOICE | _FOR_PEOPLE | _PREDICTED) & {*words, *re.findall(r"[a-z]+", name.lower())}:
        return -1
    if _FIRST.search(re.sub("[^a-z]", "", name.lower())):
        return FIRST
    return max((_RANKS.get(word, 2 if _MEANING.get(word) == "masks" else 0) for word in words), default=0)


def words_of(name: str) -> list[str]:
    """Returns a name's words in lower case, `trainannot` and `imagesTr` as two, years and versions left out."""
    whole = re.sub(r"[^a-z]", "", name.lower())
    if whole in _MEANING and (len(whole) > 1 or name.lower() == whole):  # 512x512 are no images
        return [whole]
    name = re.split(r"[\W_]with(?=[\W_])", name)[0]  # frames-with-annotations are frames
    words: list[str] = []
    for word in re.findall(r"[A-Z]{2,}(?![a-z])|[A-Z]?[a-z]+|[A-Z]", re.sub(r"[^A-Za-z]+", " ", name)):
        words += _cut(word.lower()) if len(word) > 1 else []
    letter = re.match(r"[xyXY](?=[\W_])", name)
    if letter and all(_MEANING.get(word) in SPLITS for word in words):  # x_train
        words.insert(0, letter[0].lower())
    return _joined(words)


def _cut(word: str) -> list[str]:
    """Returns `trainannot` as two words."""
    cut = next((i for i in range(2, len(word) - 1) if {word[:i], word[i:]} <= _KNOWN), None)
    return [word] if word in _KNOWN or cut is None else [word[:cut], word[cut:]]


def _joined(words: list[str]) -> list[str]:
    """Returns the words with `ground`, `truth` as one, wherever two neighbours are a word for masks."""
    joined: list[str] = []
    for word in words:
        if joined and _MEANING.get(joined[-1] + word) in ("images", "masks"):
            joined[-1] += word
        else:
            joined.append(word)
    return joined
