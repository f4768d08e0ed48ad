"""What a stored mask means: from stored values or colours to class indices, and back for predictions.

Everything that reads or writes class indices goes through `Labels`, so that training, scoring and prediction agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from segtool import palette as palettes
from segtool.config import Data
from segtool.data.codes import (
    IGNORE,
    UNKNOWN,
    Codes,
    code_interval,
    pack,
    unpack,
    unpack_palette,
)
from segtool.data.masks import StoredMask, read_mask
from segtool.data.opening import shown
from segtool.errors import ConfigError, DataError, Problem
from segtool.terminal import counted

MaskMode = Literal["L", "P", "1", "I;16", "RGB", "LA", "RGBA"]


@dataclass(frozen=True, eq=False)
class Labels:
    """The classes of a config and the codes that stand for them in its masks."""

    names: tuple[str, ...]
    colors: np.ndarray
    """K 3 uint8, for display."""
    data: Data = field(repr=False)
    codes: Codes = field(repr=False)
    first: tuple[int, ...]
    """The stored value or packed colour that predictions of each class are written with."""
    first_ignored: int | None
    """What ignored pixels are written with: the first of `data.ignore` that a file can hold, which -9999 is not."""
    order: tuple[int, ...] = field(repr=False)
    """Packed colours of the classes in their order, then the ignored ones."""
    _tables: dict[object, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def num_classes(self) -> int:
        """K, without the ignored."""
        return len(self.names)

    @classmethod
    def from_config(cls, data: Data) -> Labels:
        """Returns the labels that `data.classes`, `data.ignore` and `data.encoding` describe, within the rules.

        Raises:
            ConfigError: `data.mask_mode` is given and cannot hold the classes' codes.
        """
        by_class = [
            [code_interval(data, code) for code in (spec.colors if data.by_color else spec.values)]
            for spec in data.classes
        ]
        ignored = [code_interval(data, code) for code in data.ignore]
        owned = [(low, high, index) for index, own in enumerate(by_class) for low, high in own]
        owned += [(low, high, IGNORE) for low, high in ignored]
        codes = Codes(*(np.array(column, np.int64) for column in zip(*sorted(owned), strict=True)))
        assert all(codes.highest[:-1] < codes.lowest[1:]), "one code of two classes"
        labels = cls(
            names=tuple(item.name for item in data.classes),
            colors=_display_colors(data),
            data=data,
            codes=codes,
            first=tuple(own[0][0] for own in by_class),
            first_ignored=next((low for low, _ in ignored if _can_be_written(data, low)), None),
            order=tuple(low for low, _, _ in owned),
        )
        if data.mask_mode:
            labels._written(data.mask_mode)
        return labels

    def read(self, path: Path, *, max_pixels: int) -> np.ndarray:
        """Returns the class indices of a mask file, H W uint8. Raises DataError as `read_mask` and `decode` do."""
        return self.decode(read_mask(path, max_pixels=max_pixels), path)

    def decode(self, stored: StoredMask, path: Path, *, where: np.ndarray | None = None) -> np.ndarray:
        """Returns class indices, H W uint8, IGNORE where ignored, and outside of `where` (H W bool) if it is given.

        `threshold` takes each grey value as the nearest of the listed ones, halfway between two as the upper one;
        `alpha` each level of opacity.
        `nearest` takes each colour as the listed one with the least squared distance in RGB, of equally near ones that
        of the first class; an ignored colour takes part and comes last.

        Raises:
            DataError: a mask of a kind that the encoding does not read, or a value that is no class, with its pixel.
        """
        if reason := self.misfit(stored):
            raise DataError(f"{shown(path)}: {reason}")
        if where is None and (translated := self._translated(stored)) is not None:
            return translated
        indices = self.look_up(stored)
        if where is not None:
            indices = np.where(where, indices, np.int16(IGNORE))
        if indices.size and indices.min() == UNKNOWN:
            raise DataError(f"{shown(path)}: {self._describe(stored, where)}")
        return indices.astype(np.uint8)

    def _translated(self, stored: StoredMask) -> np.ndarray | None:
        """Returns what `decode` does of a mask of bytes, byte by byte in a quarter of its time.

        None where it holds a value that is no class, or there is no spare byte to tell such by.
        """
        spare = IGNORE - 1
        if not self._by_byte(stored) or self.num_classes > spare:
            return None
        key = ("bytes", stored.mode, stored.step, stored.palette)
        if key not in self._tables:
            every = self.look_up(_every_byte(stored))
            self._tables[key] = np.where(every == UNKNOWN, spare, every).astype(np.uint8)
        indices = bytearray(stored.values).translate(self._tables[key].tobytes())
        return None if spare in indices else np.frombuffer(indices, np.uint8).reshape(stored.values.shape)

    def misfit(self, stored: StoredMask) -> str:
        """Returns why the encoding does not read this kind of mask, and the remedy; "" where it does."""
        encoding, colored = self.data.encoding, stored.values.ndim == 3
        if encoding == "alpha":
            return "" if stored.alpha is not None else _NO_ALPHA
        if stored.veiled:
            return (
                f"a mask with {counted(stored.veiled, 'pixel')} that are not opaque, so their value is not certain; "
                f"fill the transparent parts with the value or colour they mean and save it without alpha, or, where "
                f"the opacity is the mask, set data.encoding: alpha"
            )
        if stored.lossy and encoding != "threshold" and not self.data.nearest:
            other = "rgb with data.nearest: true" if colored else "threshold"
            return (
                f"a JPEG mask is lossy: its values are not those that were drawn; export the masks as PNG, or accept "
                f"the loss with data.encoding: {other}"
            )
        if encoding == "palette" and stored.mode != "P":
            return f"mode {stored.mode}, but data.encoding palette reads palette images; set data.encoding: rgb"
        if encoding in ("index", "threshold") and colored:
            return (
                f"an RGB mask, but data.encoding {encoding} reads one value a pixel; set data.encoding: rgb and give "
                f"each class its colors"
            )
        if encoding == "threshold" and stored.mode == "P":
            return "a palette mask has no grey values; set data.encoding: index (its indices) or palette (its colours)"
        if encoding == "rgb" and stored.mode in ("I", "I;16"):
            return "a grey mask of more than 8 bits has no colours; set data.encoding: index"
        return ""

    def unknown(self, stored: StoredMask, *, where: np.ndarray | None = None) -> dict[int, tuple[int, tuple[int, int]]]:
        """Returns what is no class and not ignored: value or packed colour 0xRRGGBB -> pixels, first (x, y).

        Most frequent first; within `where` (H W bool) if it is given. The mask must be of a kind that the encoding
        reads (`misfit` returns ""). A palette index without a colour is told as -1 - index.
        """
        lost = self.look_up(stored) == UNKNOWN
        places = np.flatnonzero(lost if where is None else lost & where)
        values = self.plain(stored).ravel()[places]
        distinct, first, counts = np.unique(values, return_index=True, return_counts=True)
        width = stored.values.shape[1]
        found = {}
        for rank in np.argsort(-counts, kind="stable"):
            y, x = divmod(int(places[first[rank]]), width)
            found[int(distinct[rank])] = (int(counts[rank]), (x, y))
        return found

    def encode(self, indices: np.ndarray) -> Image.Image:
        """Returns a mask in the training encoding: each class as its first value or colour, in `data.mask_mode`.

        Where that is null: L (I;16 above 255), P for `palette`, RGB for `rgb`, RGBA for `alpha`.

        Args:
            indices: H W, class indices; IGNORE becomes the first of `data.ignore` that can be written.

        Raises:
            ConfigError: the mode cannot hold the classes' codes, or indices hold IGNORE and nothing is ignored.
        """
        mode = self.mask_mode
        codes = self._written(mode)
        if (indices == IGNORE).any():
            if self.first_ignored is None:
                raise ConfigError(
                    Problem("data.ignore", "lists nothing that ignored pixels can be written with; list such a value")
                )
        elif indices.size and int(indices.max()) >= self.num_classes:
            raise ValueError(f"index {int(indices.max())} of {self.num_classes} classes")
        if mode == "RGB":
            return Image.fromarray(unpack(codes)[indices])  # of 256 codes: those of all pixels would take 28 bytes each
        stored = codes[indices]
        if mode == "P":
            image = Image.fromarray(stored)
            image.putpalette(self._palette())  # turns L into P
            return image
        if mode == "1":
            return Image.fromarray(stored.astype(bool))
        if mode in ("LA", "RGBA"):  # black, more and less opaque
            black = [np.zeros_like(stored)] * (len(mode) - 1)
            return Image.fromarray(np.stack([*black, stored], axis=-1))
        return Image.fromarray(stored.astype(np.uint16 if mode == "I;16" else np.uint8, copy=False))

    @property
    def mask_mode(self) -> str:
        """Pillow's name of the mode that `encode` writes."""
        if self.data.mask_mode:
            return self.data.mask_mode
        if self.data.by_color:
            return "P" if self.data.encoding == "palette" else "RGB"
        if self.data.encoding == "alpha":
            return "RGBA"
        return "L" if max(self.first_codes()) <= 255 else "I;16"

    def first_codes(self) -> list[int]:
        """Returns what each class is written with, then what ignored pixels are, if any are."""
        return [*self.first, *([] if self.first_ignored is None else [self.first_ignored])]

    def _written(self, mode: str) -> np.ndarray:
        """Returns what each of the 256 indices is written as: values, palette indices or packed colours."""
        key = ("written", mode)
        if key not in self._tables:
            self._tables[key] = self._make_written(mode)
        return self._tables[key]

    def _make_written(self, mode: str) -> np.ndarray:
        encoding, codes = self.data.encoding, self.first_codes()
        if mode not in _WRITABLE[encoding]:
            expected = " or ".join(_WRITABLE[encoding])
            raise ConfigError(
                Problem("data.mask_mode", f"{mode} cannot hold data.encoding {encoding}; expected {expected}")
            )
        if self.data.by_color:
            codes = codes if mode == "RGB" else self._palette_places(codes)
        elif min(codes) < 0 or max(codes) > _LARGEST[mode]:
            wrong = next(code for code in codes if not 0 <= code <= _LARGEST[mode])
            wider = ", or choose a wider mode" if 0 <= wrong <= LARGEST else ""
            known = self._intervals()
            inside = (value for value in range(_LARGEST[mode] + 1) if not any(a <= value <= b for a, b in known))
            free = next(inside, None)
            example = "" if free is None else f", as in `values: [{free}, {wrong}]`"
            raise ConfigError(
                Problem(
                    "data.mask_mode",
                    f"{mode} holds 0 to {_LARGEST[mode]}, but predictions would need {wrong}; "
                    f"list first in the class's values one within the range that no mask has{example}, "
                    f"which predictions are written with then{wider}",
                )
            )
        table = np.zeros(256, np.int64)
        table[: self.num_classes] = codes[: self.num_classes]
        if self.first_ignored is not None:
            table[IGNORE] = codes[-1]
        return table.astype(np.int32 if table.max() > 65535 else np.uint16 if table.max() > 255 else np.uint8)

    def _palette_places(self, colors: Sequence[int]) -> list[int]:
        if self.data.palette is None:
            return list(range(len(colors)))
        known = unpack_palette(self.data.palette)
        missing = [f"#{color:06x}" for color in colors if color not in known]
        if missing:
            raise ConfigError(Problem("data.palette", f"lacks {', '.join(missing)}, the colour of a class; add it"))
        return [known.index(color) for color in colors]

    def _palette(self) -> bytes:
        """Returns the RGB triples that a mask of mode P is written with; an entry for each value that is written."""
        if self.data.by_color:
            colors = unpack_palette(self.data.palette) if self.data.palette else self.first_codes()
            return unpack(np.array(colors)).tobytes()
        given = unpack_palette(self.data.palette) if self.data.palette else []
        length = max(len(given), *(code + 1 for code in self.first_codes()))
        table = np.zeros((length, 3), np.uint8)
        table[list(self.first)] = self.colors
        table[: len(given)] = unpack(np.array(given, np.int64))
        return table.tobytes()

    def look_up(self, stored: StoredMask) -> np.ndarray:
        """Returns the class indices of a mask that the encoding reads, H W int16: IGNORE, UNKNOWN among them."""
        if stored.mode == "P" and self.data.by_color:
            return self._table(stored.palette or b"", _palette_colors(stored))[stored.values]
        plain = self.plain(stored)
        if plain.dtype in (np.uint8, np.uint16):
            return self._table(plain.dtype, np.arange(np.iinfo(plain.dtype).max + 1))[plain]
        return self._match(plain)

    def places(self, stored: StoredMask) -> np.ndarray:
        """Returns rows of a matrix of K + 2 that counts pixels, H W intp: the index of a class, K where ignored, K + 1
        where it is neither. The mask must be of a kind that the encoding reads."""
        key = ("places", stored.mode, stored.step, stored.palette)
        if not self._by_byte(stored):
            return self._place(self.look_up(stored))
        if key not in self._tables:
            self._tables[key] = self._place(self.look_up(_every_byte(stored))[0])
        return self._tables[key][stored.values]

    def _place(self, indices: np.ndarray) -> np.ndarray:
        special = [indices == IGNORE, indices == UNKNOWN]
        return np.select(special, [self.num_classes, self.num_classes + 1], indices).astype(np.intp)

    def _by_byte(self, stored: StoredMask) -> bool:
        """Whether a pixel's index follows from one byte of it."""
        return stored.values.dtype == np.uint8 and stored.values.ndim == 2 and self.data.encoding != "alpha"

    def _table(self, key: object, values: np.ndarray) -> np.ndarray:
        if key not in self._tables:
            self._tables[key] = self._match(values)
        return self._tables[key]

    def _match(self, values: np.ndarray) -> np.ndarray:
        if self.data.encoding in ("threshold", "alpha"):
            return self.codes.nearest(values)
        if self.data.encoding == "index" or not self.data.nearest:
            return self.codes.exact(values)
        indices = self.codes.nearest_color(np.maximum(values, 0), self.order)
        return np.where(values < 0, np.int16(UNKNOWN), indices)

    def plain(self, stored: StoredMask) -> np.ndarray:
        """Returns what is looked up, H W integers: values, opacity, or colours packed as 0xRRGGBB."""
        if self.data.encoding == "alpha":
            assert stored.alpha is not None, "misfit() was not asked"
            return stored.alpha
        if self.data.encoding == "threshold":
            return stored.grey
        if self.data.encoding == "index":
            return stored.values
        if stored.mode == "P":
            return _palette_colors(stored)[stored.values]
        if stored.values.ndim == 3:
            return pack(stored.values)
        return stored.grey.astype(np.int32) * 0x010101

    def _describe(self, stored: StoredMask, where: np.ndarray | None) -> str:
        """Returns the sentence about values that are no class."""
        unknown = self.unknown(stored, where=where)
        (value, (count, (x, y))), *others = unknown.items()
        what = "colour" if self.data.by_color else "value"
        more = f", and {_listed(self._name(code) for code, _ in others)} elsewhere" if others else ""
        known = f"{what}s {_listed(self._name(low, high) for low, high in self._intervals())}"
        return (
            f"{what} {self._name(value)} at ({x}, {y}) and {counted(count, 'pixel')} in all{more}, but data.classes "
            f"and data.ignore have {known}; {self._remedy(stored, list(unknown))}"
        )

    def _intervals(self) -> list[tuple[int, int]]:
        return list(zip(self.codes.lowest.tolist(), self.codes.highest.tolist(), strict=True))

    def _name(self, low: int, high: int | None = None) -> str:
        if self.data.by_color:
            return f"#{low:06x}" if low >= 0 else f"of palette index {-1 - low} (it has none)"
        return str(low) if high in (None, low) else f"{low}..{high}"

    def _remedy(self, stored: StoredMask, unknown: Sequence[int]) -> str:
        name = self._name(unknown[0])
        usual = f"add a class or put {name} in data.ignore"
        if self.data.by_color:
            soft = "; for soft or lossy edges set data.nearest: true" if len(unknown) > 8 else ""
            return usual + soft
        if unknown == [255] and {low for low, _ in self._intervals()} == {0, 1}:
            return f"a 0/255 mask? give class '{self.names[-1]}' values: [255]; or put 255 in data.ignore"
        if len(unknown) > 8 and stored.mode in ("I;16", "I"):
            return "these look like instance ids: give the object class a range, such as values: [1..65535]"
        if len(unknown) > 8 and stored.mode == "L":
            return (
                "so many values mean soft edges (set data.encoding: threshold) or instance ids (give the object class "
                "a range, such as values: [1..255])"
            )
        return usual


_WRITABLE = {
    "index": ("L", "P", "1", "I;16"),
    "threshold": ("L", "I;16"),
    "palette": ("P",),
    "rgb": ("RGB", "P"),
    "alpha": ("RGBA", "LA"),
}
LARGEST = 65535  # value that a mask of a prediction can hold
_LARGEST = {"L": 255, "P": 255, "1": 1, "I;16": LARGEST, "LA": 255, "RGBA": 255}
_NO_ALPHA = "without a channel of opacity, which data.encoding alpha reads; set data.encoding to what the masks are"


def _can_be_written(data: Data, code: int) -> bool:
    """Whether some mode of mask can hold a code; colours always are."""
    return data.by_color or 0 <= code <= max(_LARGEST.values())


def resolve(data: Data, first: StoredMask) -> Data:
    """Returns `data` with `mask_mode` and `palette` filled in where null, after the first training mask.

    A mode that cannot hold the first code of every class gives way to the next wider one; a palette that lacks a
    class's colour gets it at its end.

    Raises:
        ConfigError: predictions cannot be written in this encoding, such as a class whose first value is negative.
    """
    labels = Labels.from_config(data)
    if data.mask_mode is None:
        data = replace(data, mask_mode=_choose_mode(labels, first))
    if data.mask_mode == "P" and data.palette is None and first.palette:
        data = replace(data, palette=_choose_palette(labels, first.palette))
    labels = Labels.from_config(data)
    labels.encode(np.arange(labels.num_classes, dtype=np.uint8)[None])
    return data


def _choose_mode(labels: Labels, first: StoredMask) -> MaskMode:
    """Returns the mode of the first mask, or the narrowest that holds all codes where it cannot."""
    if labels.data.encoding == "palette":
        return "P"
    if labels.data.encoding == "rgb":
        return "RGB"
    if labels.data.encoding == "alpha":
        return "LA" if first.mode == "L" else "RGBA"
    largest = max(labels.first_codes())
    if first.mode == "P" and labels.data.encoding == "index" and largest <= 255:
        return "P"
    if first.mode == "1" and labels.data.encoding == "index" and largest <= 1:
        return "1"
    return "L" if largest <= 255 and first.mode not in ("I", "I;16") else "I;16"


def _choose_palette(labels: Labels, palette: bytes) -> str | None:
    colors = [int(color) for color in pack(np.frombuffer(palette, np.uint8).reshape(-1, 3))]
    if labels.data.by_color:
        colors += [color for color in dict.fromkeys(labels.first_codes()) if color not in colors]
    if len(colors) > 256:
        return None
    return "".join(f"{color:06x}" for color in colors)


def _every_byte(stored: StoredMask) -> StoredMask:
    """Returns a mask of this kind of one row, which has each value of a byte once."""
    return replace(stored, values=np.arange(256, dtype=np.uint8)[None])


def _palette_colors(stored: StoredMask) -> np.ndarray:
    """Returns the packed colours of a mask's 256 indices; -1 - index where the palette ends before it."""
    colors = -1 - np.arange(256, dtype=np.int32)
    given = pack(np.frombuffer(stored.palette or b"", np.uint8).reshape(-1, 3))
    colors[: len(given)] = given
    return colors


def _display_colors(data: Data) -> np.ndarray:
    colors = []
    for index, item in enumerate(data.classes):
        chosen = item.color or (item.colors[0] if item.colors else None)
        colors.append(unpack(np.array(int(chosen[1:], 16))) if chosen else palettes.color(index))
    return np.array(colors, np.uint8).reshape(-1, 3)


def _listed(names: Iterable[str], limit: int = 12) -> str:
    known = list(names)
    return ", ".join(known[:limit]) + (f" and {len(known) - limit} more" if len(known) > limit else "")
