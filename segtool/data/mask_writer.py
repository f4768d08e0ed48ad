"""How class indices are written as a mask: the way back from what `Labels` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image

from segtool.config import Data
from segtool.data.codes import IGNORE, Codes, pack, unpack, unpack_palette
from segtool.data.masks import StoredMask
from segtool.errors import ConfigError, Problem

MaskMode = Literal["L", "P", "1", "I;16", "RGB", "LA", "RGBA"]

LARGEST = 65535  # value that a mask of a prediction can hold
_LARGEST = {"L": 255, "P": 255, "1": 1, "I;16": LARGEST, "LA": 255, "RGBA": 255}
_WRITABLE = {
    "index": ("L", "P", "1", "I;16"),
    "threshold": ("L", "I;16"),
    "palette": ("P",),
    "rgb": ("RGB", "P"),
    "alpha": ("RGBA", "LA"),
}


@dataclass(frozen=True, eq=False)
class MaskWriter:
    """The encoding of a config, as far as it is written in."""

    data: Data
    codes: Codes
    """All that the config gives a meaning."""
    colors: np.ndarray
    """K 3 uint8, for display."""
    first: tuple[int, ...]
    """The stored value or packed colour that each class is written with."""
    first_ignored: int | None
    """What ignored pixels are written with: the first of `data.ignore` that a file can hold, which -9999 is not."""

    def encode(self, indices: np.ndarray) -> Image.Image:
        """Returns a mask in the training encoding: each class as its first value or colour, in `data.mask_mode`.

        Args:
            indices: H W, class indices; IGNORE becomes the first of `data.ignore` that can be written.

        Raises:
            ConfigError: the mode cannot hold the classes' codes, or indices hold IGNORE and nothing is ignored.
        """
        codes, mode = self.table, self.mode
        if (indices == IGNORE).any():
            if self.first_ignored is None:
                raise ConfigError(
                    Problem("data.ignore", "lists nothing that ignored pixels can be written with; list such a value")
                )
        elif indices.size and int(indices.max()) >= len(self.first):
            raise ValueError(f"index {int(indices.max())} of {len(self.first)} classes")
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

    @cached_property
    def mode(self) -> MaskMode:
        """Pillow's name of the mode that is written: `data.mask_mode`.

        Where that is null: L (I;16 above 255), P for `palette`, RGB for `rgb`, RGBA for `alpha`.
        """
        if self.data.mask_mode:
            return self.data.mask_mode
        if self.data.by_color:
            return "P" if self.data.encoding == "palette" else "RGB"
        if self.data.encoding == "alpha":
            return "RGBA"
        return "L" if max(self.first_codes()) <= 255 else "I;16"

    @cached_property
    def table(self) -> np.ndarray:
        """What each of the 256 indices is written as: values, palette indices or packed colours.

        Raises:
            ConfigError: the mode cannot hold the classes' codes.
        """
        encoding, mode, codes = self.data.encoding, self.mode, self.first_codes()
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
            known = self.codes.intervals()
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
        table[: len(self.first)] = codes[: len(self.first)]
        if self.first_ignored is not None:
            table[IGNORE] = codes[-1]
        return table.astype(np.int32 if table.max() > 65535 else np.uint16 if table.max() > 255 else np.uint8)

    def like(self, first: StoredMask) -> Data:
        """Returns `data` with `mask_mode` and `palette` filled in where null, after a mask of the data set.

        A mode that cannot hold the first code of every class gives way to the next wider one; a palette that lacks a
        class's colour gets it at its end.
        """
        data = self.data
        if data.mask_mode is None:
            data = replace(data, mask_mode=self._mode_like(first))
        if data.mask_mode == "P" and data.palette is None and first.palette:
            data = replace(data, palette=self._palette_from(first.palette))
        return data

    def first_codes(self) -> list[int]:
        """Returns what each class is written with, then what ignored pixels are, if any are."""
        return [*self.first, *([] if self.first_ignored is None else [self.first_ignored])]

    def _mode_like(self, first: StoredMask) -> MaskMode:
        """Returns the mode of the first mask, or the narrowest that holds all codes where it cannot."""
        encoding, largest = self.data.encoding, max(self.first_codes())
        if encoding == "alpha" and first.mode == "L":
            return "LA"
        if encoding == "index" and first.mode == "P" and largest <= 255:
            return "P"
        if encoding == "index" and first.mode == "1" and largest <= 1:
            return "1"
        deep = encoding in ("index", "threshold") and first.mode in ("I", "I;16")
        return "I;16" if deep else self.mode

    def _palette_from(self, palette: bytes) -> str | None:
        colors = [int(color) for color in pack(np.frombuffer(palette, np.uint8).reshape(-1, 3))]
        if self.data.by_color:
            colors += [color for color in dict.fromkeys(self.first_codes()) if color not in colors]
        if len(colors) > 256:
            return None
        return "".join(f"{color:06x}" for color in colors)

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
