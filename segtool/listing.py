"""What a config may name, with options and defaults, from the registry and the readers themselves."""

from __future__ import annotations

import inspect
from typing import Any

from rich.markup import escape
from rich.table import Table

from segtool.registry import Option, lookup, names, options

KINDS = {
    "encoders": "encoder",
    "decoders": "decoder",
    "upsamplers": "upsampler",
    "losses": "loss",
    "formats": "format",
}
FORMATS = (
    ("images", "PNG, JPEG, TIFF, BMP, WebP; 1-bit, grey, RGB, RGBA, palette, 16-bit grey"),
    ("masks", "PNG, BMP, TIFF, single-frame GIF; JPEG only with data.encoding: threshold or data.nearest: true"),
    ("data.format: folders", "pairs found by stem in a folder of images and a folder of masks"),
    ("data.format: list", "pairs named in a CSV or text file"),
    ("data.encoding: index", "integers: any values with gaps, 0/1, 0/255, 1-bit, 16-bit, palette indices"),
    ("data.encoding: threshold", "grey masks with soft edges: each value counts as the nearest class's"),
    ("data.encoding: palette", "palette images by colour, also where their palettes differ"),
    ("data.encoding: rgb", "colours, exact or with data.nearest: true the nearest"),
)


def component_table(kind: str) -> Table:
    """Returns the components of a kind (a key of KINDS) with what each is and may be told."""
    table = Table(title=kind, title_justify="left", show_lines=True)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is, and its options", overflow="fold")
    if kind == "formats":
        for name, text in FORMATS:
            table.add_row(name, text)
        return table
    for name in names(KINDS[kind]):
        cls = lookup(KINDS[kind], name, path="")
        first = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        lines = [first, *(_line(option) for option in options(cls).values())]
        table.add_row(name, escape("\n".join(lines)))
    return table


def _line(option: Option) -> str:
    default = "required" if option.default is inspect.Parameter.empty else f"default {_plain(option.default)}"
    return f"- {option.name} ({_annotation(option.annotation)}; {default}): {option.doc}"


def _plain(value: Any) -> str:
    import json

    from segtool.config import plain

    return json.dumps(plain(value))


def _annotation(annotation: Any) -> str:
    from segtool.parsing import describe

    return describe(annotation)
