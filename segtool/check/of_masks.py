"""What masks hold: values, classes, palettes, noise. Codes 3xx, but SEG307 and SEG309, which compare pictures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from segtool.check.findings import Finding, a_check, counted, num, share_text
from segtool.check.survey import Survey
from segtool.data.codes import IGNORE, UNKNOWN, pack, unpack
from segtool.data.facts import MaskFacts
from segtool.data.labels import MANY
from segtool.data.masks import read_mask
from segtool.data.specks import SLIP_MASKS, SLIP_PIXELS, SPECK_PIXELS
from segtool.errors import DataError, shown

NOISE_EACH = 10  # specks of each of two classes that lie in each other, where they are no small objects of one
NOISE_MIXED = 8  # the same where hardly any other mask has a speck, however long the edges
NOISE_LONELY = 6  # specks of each of two classes that lie alone within another, as stray pixels do, not pieces of poles
NOISE_OFTEN = 0.2  # of the masks have so many; of CamVid's 0.06, and fewer where they are made smaller
NOISE_ALONE = 40  # specks of a mask, from which on they are noise, whatever their class, where others have none
NOISE_MANY = 200  # and where others have a few
NOISE_FEW = 0.1  # share of the masks, up to which specks of one class are no small objects, if others have none
NOISE_TIMES = 10  # the specks of nine in ten masks that noise is more than; of classes of CamVid, the most is 3
NOISE_EDGE = 0.1  # specks for each pixel at an edge; in CamVid, with poles of one pixel, up to 0.06
NOISE_USUAL = 4  # times as many as usual, as masks made smaller have more: in those of CamVid 3.4 at most
NOISE_SURE = 0.2  # enough of them whatever is usual
NOISE_EVERYWHERE = (
    0.4  # share of the pixels that differ from one beside them, of a mask that is noise; dithered grey has 0.3 to 0.75
)
NOISE_SIDE = 64  # pixels of the shorter side, below which fine detail looks so
FAR = 32  # grey levels, or as far in colour, from which on a value is not that of a class in a lossy or soft mask
IN_AREAS = 0.25  # 2x2 blocks per pixel, from which on values form areas
PICTURE = 0.5  # share of the pixels that are as far in a photograph; of soft masks a twentieth
PICTURE_USUAL = 0.05  # most of them in the median mask, for one with more to stand out


@a_check
def kind_fits(survey: Survey) -> Iterator[Finding]:
    """SEG301: masks of a kind that the encoding does not read, such as RGB with `index`, or JPEG."""
    wrong = [(path, use.error) for path, use in survey.uses.items() if use.error]
    if wrong:
        path, error = wrong[0]
        reason, _, remedy = error.partition("; ")
        yield Finding(
            "SEG301",
            "error",
            f"{num(wrong, 'mask')} cannot be read with data.encoding: {survey.data.encoding}",
            *counted(survey, [path for path, _ in wrong]),
            f"{survey.name(path)}: {reason}",
            remedy,
        )


@a_check
def values_known(survey: Survey) -> Iterator[Finding]:
    """SEG302, SEG313: stored values or colours that no class and no `ignore` lists, be they a few or whole pictures."""
    pixels: Counter[int] = Counter()
    files: dict[int, list[Path]] = defaultdict(list)
    pictures = _pictures(survey)
    yield from _tell_pictures(survey, pictures)
    concerned = [path for path, use in survey.uses.items() if use.unknown and path not in pictures]
    for path in concerned:
        for value, count in survey.uses[path].unknown.items():
            pixels[value] += count
            files[value].append(path)
    if not pixels:
        return
    value, _ = pixels.most_common(1)[0]
    path = files[value][0]
    yield Finding(
        "SEG302",
        "error",
        f"{num(concerned, 'mask')} with {'colours' if survey.data.by_color else 'values'} that are no class: "
        + _table(survey, pixels, files),
        *counted(survey, concerned),
        _where(survey, path, value, survey.uses[path].unknown[value]),
        survey.labels.remedy(pixels, [set(mask.values.tolist()) for mask in survey.masks.values()]),
    )


def _table(survey: Survey, pixels: Counter[int], files: dict[int, list[Path]]) -> str:
    rows = [
        f"{survey.labels.name_of(value)} ({num(count, 'pixel')} in {num(files[value], 'file')}, "
        f"{'first ' if len(files[value]) > 1 else ''}{survey.name(files[value][0])})"
        for value, count in pixels.most_common(8)
    ]
    return ", ".join(rows) + (f" and {len(pixels) - 8} more" if len(pixels) > 8 else "")


def _where(survey: Survey, path: Path, code: int, count: int) -> str:
    """Returns where a value or packed colour first stands in a mask, which is read once more for it."""
    place = "(?, ?)"  # in a file that was changed since the pass
    with suppress(DataError):
        found = survey.labels.plain(read_mask(path, max_pixels=survey.limits.max_pixels)) == code
        if found.any():
            y, x = divmod(int(found.argmax()), found.shape[1])
            place = f"({x}, {y})"
    return f"{survey.name(path)}: {survey.labels.name_of(code)} at {place}, {num(count, 'pixel')} in this file"


def _tell_pictures(survey: Survey, found: dict[Path, float]) -> Iterator[Finding]:
    if found:
        path, share = next(iter(found.items()))
        refused = any(survey.uses[path].unknown for path in found)
        nearest = f"more than {FAR} from " if not refused else "not "
        yield Finding(
            "SEG313",
            "error" if refused else "warning",
            f"{num(found, 'mask')} of {len(survey.uses)} with little of what any class has: pictures among the masks?",
            *counted(survey, found),
            f"{survey.name(path)}: {share_text(share)} of the pixels are {nearest}the "
            f"{'colour' if survey.data.by_color else 'value'} of any class",
            "put the masks of these images there, or leave them and their images out by data.exclude",
        )


def _pictures(survey: Survey) -> dict[Path, float]:
    """Returns the masks most pixels of which have what no class has, and their share, where hardly any others have."""
    shares = {path: _share_of_strangers(survey, path) for path, use in survey.uses.items() if not use.error}
    found = {path: share for path, share in shares.items() if share >= PICTURE}
    return found if found and np.median(list(shares.values())) <= PICTURE_USUAL else {}


def _share_of_strangers(survey: Survey, path: Path) -> float:
    """Returns the share of a mask's pixels that have one of many values of no class, not in areas as numbers of objects
    are; of a mask that is read by what is nearest, of those that are far from the values or colours of all classes."""
    unknown, by_nearest = survey.uses[path].unknown, survey.data.nearest or survey.data.encoding == "threshold"
    if len(unknown) <= MANY and (unknown or not by_nearest):
        return 0.0
    mask, codes = survey.masks[path].seen_by(survey.data.encoding), survey.labels.codes
    stored = survey.labels.plain(mask.stored(mask.values)).ravel()
    if unknown:
        strange = np.isin(stored, list(unknown))
        if mask.solid[strange].sum() >= IN_AREAS * mask.counts[strange].sum():
            return 0.0
    elif survey.data.by_color:
        colors, known = unpack(stored).astype(np.int32), unpack(codes.lowest).astype(np.int32)
        strange = np.min([np.square(colors - color).sum(1) for color in known], axis=0) > FAR**2
    else:
        values = stored.astype(np.int32)
        strange = np.min([np.maximum(low - values, values - high) for low, high in codes.intervals()], axis=0) > FAR
    return float(mask.counts[strange].sum() / mask.counts.sum())


@a_check
def masks_lossless(survey: Survey) -> Iterator[Finding]:
    """SEG303: JPEG masks under an encoding that takes what is near (others refuse them, SEG301)."""
    lossy = [path for path, mask in survey.masks.items() if mask.lossy and not survey.uses[path].error]
    if lossy:
        yield Finding(
            "SEG303",
            "note",
            f"{num(lossy, 'mask')} stored as JPEG, which is lossy: pixels near edges may count for a wrong class",
            *counted(survey, lossy),
            f"{survey.name(lossy[0])}: {len(survey.masks[lossy[0]].values)} distinct values",
            "export the masks as PNG where the originals exist",
        )


@a_check
def masks_tell_something(survey: Survey) -> Iterator[Finding]:
    """SEG304, SEG305: masks that are ignored as a whole, or hold one class only."""
    ignored = [path for path, use in survey.uses.items() if use.ignored and not use.pixels.any() and not use.unknown]
    if ignored:
        training = {record.mask for record in survey.records.get("train", ())}
        nothing_left = training <= set(ignored)
        yield Finding(
            "SEG304",
            "error" if nothing_left else "warning",
            f"{num(ignored, 'mask')} ignored in every pixel{', all training masks among them' if nothing_left else ''}",
            *counted(survey, ignored),
            f"{survey.name(ignored[0])}: all of its {survey.uses[ignored[0]].ignored} pixels are in data.ignore",
            "label these images or take them out: they teach nothing",
        )
    blank = [path for path, use in survey.uses.items() if (use.pixels > 0).sum() == 1 and not use.unknown]
    if blank:
        only = survey.labels.names[int(survey.uses[blank[0]].pixels.argmax())]
        yield Finding(
            "SEG305",
            "note",
            f"{num(blank, 'mask')} of {len(survey.uses)} with one class only",
            *counted(survey, blank),
            f"{survey.name(blank[0])}: nothing but {shown(only)}",
            "nothing, where these images really show nothing else",
        )


@a_check
def palettes_agree(survey: Survey) -> Iterator[Finding]:
    """SEG306: palette masks that are read by index, while a colour stands at another index in some of them."""
    if survey.data.encoding != "index":
        return
    where: dict[int, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for mask in survey.masks.values():
        for color, index in _used_colors(mask).items():
            where[color][index].append(mask.path)
    torn = {color: places for color, places in where.items() if len(places) > 1}
    if torn:
        color, places = max(torn.items(), key=lambda item: sum(map(len, item[1].values())))
        usual = max(places, key=lambda index: len(places[index]))
        odd = [path for index, paths in places.items() if index != usual for path in paths]
        other = next(index for index in places if index != usual)
        yield Finding(
            "SEG306",
            "warning",
            f"{num(torn, 'colour')} at different indices in different palettes: one index may mean different classes",
            *counted(survey, odd),
            f"#{color:06x} is index {other} in {survey.name(places[other][0])}, but {usual} in "
            f"{survey.name(places[usual][0])}",
            "set data.encoding to palette, and give each class its colors; `segtool init` writes them",
        )


def _used_colors(mask: MaskFacts) -> dict[int, int]:
    """Returns the index of each colour that a palette mask shows, without those that it has at several indices."""
    if not mask.palette:
        return {}
    colors = pack(np.frombuffer(mask.palette, np.uint8).reshape(-1, 3)).tolist()
    used = [(colors[index], index) for index in mask.values.tolist() if index < len(colors)]
    often = Counter(color for color, _ in used)
    return {color: index for color, index in used if often[color] == 1}


@a_check
def masks_without_specks(survey: Survey) -> Iterator[Finding]:
    """SEG308: masks strewn with regions of a few pixels: label noise."""
    if survey.data.nearest or survey.data.encoding not in ("index", "rgb"):
        return
    noisy = _noisy(_understood(survey))
    if noisy:
        mask = noisy[0]
        yield Finding(
            "SEG308",
            "warning",
            f"{num(noisy, 'mask')} of {len(survey.uses)} strewn with tiny regions, as of label noise",
            *counted(survey, [mask.path for mask in noisy]),
            f"{survey.name(mask.path)}: {_noise_of(mask)}",
            "look at these masks; a median filter or an export without scaling may mend them",
        )


def _noise_of(mask: MaskFacts) -> str:
    if mask.specks.any():
        values = num(int((mask.specks > 0).sum()), "value")
        return f"{int(mask.specks.sum())} regions of up to {SPECK_PIXELS} pixels, of {values}"
    return f"{mask.outline.mean() / 255:.0%} of its pixels differ from one beside them".replace("%", " %")


def _understood(survey: Survey) -> list[MaskFacts]:
    """Returns the masks of which no other finding tells what they hold."""
    return [survey.masks[path] for path, use in survey.uses.items() if not use.error and not use.unknown]


def _noisy(masks: Sequence[MaskFacts]) -> list[MaskFacts]:
    """Returns the masks with many specks for the length of their edges: of two classes, or of any where hardly any
    other mask has one. And those of two classes where none has, or that lie alone in many masks, or far more than in
    nine of ten masks. And those that are noise everywhere, of which no specks are counted."""
    if not masks:
        return []
    specks = np.array([int(mask.specks.sum()) for mask in masks])
    edges = np.array([float(mask.outline.mean()) / 255 * mask.size[0] * mask.size[1] for mask in masks])
    at_edges = specks / np.maximum(edges, 1.0)
    strewn = at_edges >= max(NOISE_EDGE, min(NOISE_SURE, NOISE_USUAL * float(np.median(at_edges))))
    noisy = strewn & [(mask.specks >= NOISE_EACH).sum() >= 2 for mask in masks]
    mixed = np.array([(mask.specks >= NOISE_MIXED).sum() >= 2 for mask in masks])
    for many in (strewn & (specks >= NOISE_ALONE), mixed):
        if many.sum() <= NOISE_FEW * len(masks) and (specks[~many] > 0).sum() <= NOISE_FEW / 2 * len(masks):
            noisy |= many
    alone = np.array([np.sort(mask.lonely)[-2] if len(mask.lonely) > 1 else 0 for mask in masks]) >= NOISE_LONELY
    if alone.mean() >= NOISE_OFTEN:
        noisy |= alone
    noisy |= specks >= max(NOISE_MANY, NOISE_TIMES * float(np.quantile(specks, 1 - NOISE_FEW)))
    pixels = np.array([mask.size[0] * mask.size[1] * (min(mask.size) >= NOISE_SIDE) for mask in masks])
    noisy |= (pixels > 0) & (edges >= NOISE_EVERYWHERE * pixels)
    return [mask for mask, is_noisy in zip(masks, noisy.tolist(), strict=True) if is_noisy]


@a_check
def written_alike(survey: Survey) -> Iterator[Finding]:
    """SEG312: masks stored in another way than most: 0/1 or soft edges beside 0/255, blended beside exact colours."""
    kinds: dict[str, list[MaskFacts]] = defaultdict(list)
    for mask in _understood(survey):
        if kind := _stored_as(survey, mask):
            kinds[kind].append(mask)
    usual, *others = sorted(kinds, key=lambda name: -len(kinds[name])) or [""]
    odd = [mask for name in others for mask in kinds[name]]
    if odd and usual in ("0/255", "0/1", "exact colours"):
        first = odd[0]
        what, upto = ("colour", "") if survey.data.by_color else ("value", f", up to {first.values.max()}")
        yield Finding(
            "SEG312",
            "note",
            f"{num(odd, 'mask')} of {sum(map(len, kinds.values()))} stored in another way than most: "
            f"{' and '.join(others)}, not {usual}",
            *counted(survey, [mask.path for mask in odd]),
            f"{survey.name(first.path)}: {num(len(first.values), f'distinct {what}')}{upto}",
            "look whether they mean the same as the others, as the config reads them; else export all alike",
        )


def _stored_as(survey: Survey, mask: MaskFacts) -> str:
    """Returns how a mask is stored, of those of two classes in grey, or read by the nearest colour; "" of others."""
    data, values = survey.data, mask.values.tolist()
    if mask.lossy:
        return ""
    if data.by_color:
        strays = survey.labels.codes.exact(survey.labels.plain(mask.stored(mask.values)).ravel()) == UNKNOWN
        if not strays.any():
            return "exact colours"
        edges = mask.counts[strays].sum() * 2 < mask.counts.sum()
        return "blended colours" if edges and strays.sum() > MANY else ""
    if mask.mode != "L" or data.encoding == "alpha" or not survey.uses[mask.path].pixels.all():
        return ""
    soft = "soft edges" if data.encoding == "threshold" and len(values) > MANY else ""
    return "0/1" if values == [0, 1] else "0/255" if values == [0, 255] else soft


@a_check
def objects_not_ignored(survey: Survey) -> Iterator[Finding]:
    """SEG312: masks of one class and an ignored value that no others hold, as masks of 0 and 255 among those of ids."""
    uses = {path: use for path, use in survey.uses.items() if not use.error}
    several = sum((use.pixels > 0).sum() > 1 for use in uses.values())
    holding = [path for path, use in uses.items() if use.ignored]
    if survey.labels.num_classes < 3 or len(holding) > NOISE_FEW * len(uses) or 2 * several <= len(uses):
        return
    if holding and all((uses[path].pixels > 0).sum() == 1 and uses[path].ignored > SLIP_PIXELS for path in holding):
        first = holding[0]
        codes = survey.labels.plain(survey.masks[first].stored(survey.masks[first].values)).ravel()
        value = int(codes[survey.labels.codes.exact(codes) == IGNORE][0])
        yield Finding(
            "SEG312",
            "warning",
            f"{num(holding, 'mask')} of {len(uses)} with one class and an ignored value, which no other mask holds: "
            "objects without their class?",
            *counted(survey, holding),
            _where(survey, first, value, uses[first].ignored),
            "give these pixels the values of their classes; as it is, no network learns from them",
        )


@a_check
def ignored_slips(survey: Survey) -> Iterator[Finding]:
    """SEG310: ignored values that a few pixels of one mask have, and no other mask."""
    encoding = survey.data.encoding
    if encoding in ("threshold", "alpha") or survey.data.nearest:
        return
    places: dict[int, list[tuple[Path, int]]] = defaultdict(list)
    for path, use in survey.uses.items():
        if not use.error:
            mask = survey.masks[path]
            codes = survey.labels.plain(mask.stored(mask.values)).ravel()
            ignored = survey.labels.codes.exact(codes) == IGNORE
            for code, count in zip(codes[ignored].tolist(), mask.counts[ignored].tolist(), strict=True):
                places[code].append((path, count))
    slips = {v: where[0] for v, where in places.items() if len(where) == 1 and where[0][1] <= SLIP_PIXELS}
    if slips and len(survey.uses) >= SLIP_MASKS:
        value, (path, count) = next(iter(slips.items()))
        paths = list(dict.fromkeys(path for path, _ in slips.values()))
        yield Finding(
            "SEG310",
            "note",
            f"{num(slips, 'ignored value')} of a few pixels, each in one mask alone: a slip of the pen?",
            *counted(survey, paths),
            _where(survey, path, value, count),
            "give these pixels the value of what they show; ignored as they are, they do no harm",
        )
