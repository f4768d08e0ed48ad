"""What a stored mask means: from stored values or colours to class indices, and back for predictions.

Everything that reads or writes class indices goes through `Labels`, so that training, scoring and prediction agree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from segtool.config import Data
from segtool.data import palette as palettes
from segtool.data.codes import IGNORE, UNKNOWN, Codes, code_interval, pack, unpack
from segtool.data.mask_writer import LARGEST, MaskWriter
from segtool.data.masks import StoredMask, read_mask
from segtool.errors import DataError, few, shown
from segtool.system.terminal import counted

MOST_CODES = 12  # colours or values that a message lists
MANY = 16  # of no class, above which they come of smoothed edges or are numbers of objects, and no slips
_NO_ALPHA = "without a channel of opacity, which data.encoding alpha reads; set data.encoding to what the masks are"


@dataclass(frozen=True, eq=False)
class Labels:
    """The classes of a config and the codes that stand for them in its masks."""

    names: tuple[str, ...]
    colors: np.ndarray
    """K 3 uint8, for display."""
    data: Data = field(repr=False)
    codes: Codes = field(repr=False)
    order: tuple[int, ...] = field(repr=False)
    """Packed colours of the classes in their order, then the ignored ones."""
    writer: MaskWriter = field(repr=False)
    """Of predictions."""
    _tables: dict[tuple[object, ...], np.ndarray] = field(default_factory=dict, repr=False)
    """By kind of mask the index of each value of 8 or 16 bits, made when the first mask of that kind comes."""

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
        first = tuple(own[0][0] for own in by_class)
        first_ignored = next((low for low, _ in ignored if data.by_color or 0 <= low <= LARGEST), None)
        colors = _display_colors(data)
        writer = MaskWriter(data, codes, colors, first, first_ignored)
        if data.mask_mode:
            _ = writer.table  # raises where the mode cannot hold them
        names, order = tuple(item.name for item in data.classes), tuple(low for low, _, _ in owned)
        return cls(names, colors, data, codes, order, writer)

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
        spare, pixels, table = IGNORE - 1, self.looked_at(stored), self._table(stored)
        if table is None or pixels.itemsize > 1 or self.num_classes > spare:
            return None
        indices = bytearray(pixels).translate(np.where(table == UNKNOWN, spare, table).astype(np.uint8).tobytes())
        return None if spare in indices else np.frombuffer(indices, np.uint8).reshape(pixels.shape)

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
        """Returns class indices H W as a mask in the training encoding; see `MaskWriter.encode`."""
        return self.writer.encode(indices)

    def look_up(self, stored: StoredMask) -> np.ndarray:
        """Returns the class indices of a mask that the encoding reads, H W int16: IGNORE, UNKNOWN among them."""
        table = self._table(stored)
        return self._match(self.plain(stored)) if table is None else table[self.looked_at(stored)]

    def places(self, stored: StoredMask) -> np.ndarray:
        """Returns rows of a matrix of K + 2 that counts pixels, H W intp: the index of a class, K where ignored, K + 1
        where it is neither. The mask must be of a kind that the encoding reads."""
        rows = np.arange(IGNORE + 2)
        rows[[IGNORE, UNKNOWN]] = self.num_classes, self.num_classes + 1  # UNKNOWN is -1: the last one
        pixels, table = self.looked_at(stored), self._table(stored)
        if table is None or pixels.itemsize > 1:
            return rows[self.look_up(stored)]
        return rows[table].take(pixels)  # 256 rows are sooner found than those of all pixels

    def looked_at(self, stored: StoredMask) -> np.ndarray:
        """Returns what of a mask the encoding reads, as it is stored: its opacity, else its values or colours."""
        if self.data.encoding != "alpha":
            return stored.values
        assert stored.alpha is not None, "misfit() was not asked"
        return stored.alpha

    def _table(self, stored: StoredMask) -> np.ndarray | None:
        """Returns the index of each value that a pixel of this kind of mask can have; None where these are many."""
        pixels = self.looked_at(stored)
        if pixels.ndim == 3 or pixels.dtype not in (np.uint8, np.uint16):
            return None
        kind = (stored.mode, stored.step, stored.palette, pixels.dtype)
        if kind not in self._tables:
            every = np.arange(np.iinfo(pixels.dtype).max + 1).astype(pixels.dtype)
            self._tables[kind] = self._match(self.plain(replace(stored, values=every, alpha=every)))
        return self._tables[kind]

    def _match(self, values: np.ndarray) -> np.ndarray:
        if self.data.encoding in ("threshold", "alpha"):
            return self.codes.nearest(values)
        if self.data.encoding == "index" or not self.data.nearest:
            return self.codes.exact(values)
        indices = self.codes.nearest_color(np.maximum(values, 0), self.order)
        return np.where(values < 0, np.int16(UNKNOWN), indices)

    def plain(self, stored: StoredMask) -> np.ndarray:
        """Returns what is looked up, H W integers: values, opacity, or colours packed as 0xRRGGBB."""
        if self.data.encoding == "threshold":
            return stored.grey
        if not self.data.by_color:
            return self.looked_at(stored)
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
        more = f", and {few((self.name_of(code) for code, _ in others), MOST_CODES)} elsewhere" if others else ""
        known = f"{what}s {few((self.name_of(low, high) for low, high in self.codes.intervals()), MOST_CODES)}"
        remedy = self.remedy(unknown, [set(np.unique(self.plain(stored)).tolist())])
        return (
            f"{what} {self.name_of(value)} at ({x}, {y}) and {counted(count, 'pixel')} in all{more}, but data.classes "
            f"and data.ignore have {known}; {remedy}"
        )

    def name_of(self, low: int, high: int | None = None) -> str:
        """Returns a stored value, an interval of them, or a packed colour, as people write it."""
        if self.data.by_color:
            return f"#{low:06x}" if low >= 0 else f"#? (palette index {-1 - low} has none)"
        return str(low) if high in (None, low) else f"{low}..{high}"

    def remedy(self, unknown: Collection[int], of_masks: Sequence[set[int]]) -> str:
        """Returns what to do about values or packed colours that are no class, of masks that have these values each."""
        if self.data.by_color:
            near = "; or set data.nearest: true, which takes each colour as the nearest class"
            return "add a class with the colour, or put it in data.ignore" + (near if len(unknown) > MANY else "")
        known = set().union(*of_masks)
        if known == {0, 255} and self.num_classes == 2:
            return "the masks are 0/255: give the second class `values: [255]`"
        if known == {0, 1, 255} and set(unknown) == {255} and not any({1, 255} <= values for values in of_masks):
            return (
                "masks of 0 and 255 beside others of 0 and 1: give the second class `values: [1, 255]`; or put 255 in "
                "data.ignore, where it marks what nobody labelled"
            )
        if set(unknown) == {255}:
            return "255 often marks what nobody labelled: put it in data.ignore, or add a class with `values: [255]`"
        if len(unknown) > MANY and max(unknown) > 255:
            return "these look like instance ids: give the object class a range, `values: [1..65535]`"
        if len(unknown) > 2 and {low for low, _ in self.codes.intervals()} == {0, 255}:
            return (
                "values between 0 and 255 look like soft edges: set data.encoding: threshold; or add a class with each"
            )
        if len(unknown) > MANY:
            return (
                "many stray values: soft edges or lossy compression need data.encoding: threshold; instance ids a "
                "range, `values: [1..65535]`"
            )
        return "add a class with the value, or put it in data.ignore"


def resolve(data: Data, first: StoredMask) -> Data:
    """Returns `data` as `MaskWriter.like` fills it in after the first training mask.

    Raises:
        ConfigError: predictions cannot be written in this encoding, such as a class whose first value is negative.
    """
    resolved = Labels.from_config(data).writer.like(first)
    Labels.from_config(resolved)  # raises
    return resolved


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
