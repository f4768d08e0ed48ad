"""What a config may name, with options and defaults, from the registry, the config and the readers themselves."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import textwrap
from dataclasses import dataclass
from typing import Any, get_type_hints

from segtool.config import Augment, Optim, plain
from segtool.config.description import field_docs, settable, summary
from segtool.config.parsing import describe
from segtool.config.registry import lookup, names, options
from segtool.system.streams import is_styled

COMPONENTS = {"encoders": "encoder", "decoders": "decoder", "upsamplers": "upsampler", "losses": "loss"}
SECTIONS = {"augmentations": ("augment", Augment), "optimizers": ("optim", Optim)}
KINDS = (*COMPONENTS, "formats", *SECTIONS)
FORMATS = (
    (
        "images",
        "PNG, JPEG, TIFF, BMP, WebP; 1-bit, grey, RGB, RGBA, palette, 16-bit grey; TIFF of any number of samples",
    ),
    ("masks", "PNG, BMP, TIFF, single-frame GIF; JPEG only with data.encoding: threshold or data.nearest: true"),
    ("data.format: folders", "pairs found by stem in a folder of images and a folder of masks"),
    ("data.format: list", "pairs named in a CSV or text file"),
    ("data.encoding: index", "integers: any values with gaps, 0/1, 0/255, 1-bit, 16-bit, palette indices"),
    ("data.encoding: threshold", "grey masks with soft edges: each value counts as the nearest class's"),
    ("data.encoding: palette", "palette images by colour, also where their palettes differ"),
    ("data.encoding: rgb", "colours, exact or with data.nearest: true the nearest"),
    ("data.encoding: alpha", "the opacity, each level as the nearest class's, where the colours tell nothing"),
)
MAX_WIDTH = 100  # columns; longer lines are hard to read


@dataclass(frozen=True)
class Setting:
    """What may be set of a component."""

    name: str
    type: str
    """What it accepts, in words."""
    required: bool
    default: Any
    """As plain data; null where it is required."""
    doc: str


@dataclass(frozen=True)
class Entry:
    """Something that a config may name."""

    name: str
    doc: str
    options: tuple[Setting, ...] = ()


def entries(kind: str) -> list[Entry]:
    """Returns what there is of a kind, one of KINDS."""
    if kind == "formats":
        return [Entry(name, doc) for name, doc in FORMATS]
    if kind in SECTIONS:
        return [_section(*SECTIONS[kind])]
    return [_component(COMPONENTS[kind], name) for name in names(COMPONENTS[kind])]


def print_entries(found: list[Entry]) -> None:
    """Prints entries for people, in lines of at most the terminal's width."""
    width = min(shutil.get_terminal_size((MAX_WIDTH, 24)).columns, MAX_WIDTH)
    bold, plain_text = ("\x1b[1m", "\x1b[0m") if is_styled(sys.stdout) else ("", "")
    for number, entry in enumerate(found):
        head, *rest = _wrap(f"{entry.name}  {entry.doc}", width, "", "  ")
        print(f"{bold}{head[: len(entry.name)]}{plain_text}{head[len(entry.name) :]}", *rest, sep="\n")
        for setting in entry.options:
            given = "required" if setting.required else f"default {json.dumps(setting.default)}"
            print(*_wrap(f"{setting.name} ({setting.type}; {given})", width, "  ", "    "), sep="\n")
            print(*_wrap(setting.doc, width, "      ", "      "), sep="\n")
        if entry.options and number + 1 < len(found):
            print()


def _component(kind: str, name: str) -> Entry:
    cls = lookup(kind, name, path="")
    settings = (_setting(o.name, o.annotation, o.default, o.doc) for o in options(cls).values())
    return Entry(name, summary(cls), tuple(settings))


def _section(name: str, cls: type) -> Entry:
    hints, docs = get_type_hints(cls), field_docs(cls)
    settings = (_setting(field.name, hints[field.name], field.default, docs[field.name]) for field in settable(cls))
    return Entry(name, summary(cls), tuple(settings))


def _setting(name: str, annotation: Any, default: Any, doc: str) -> Setting:
    required = default is inspect.Parameter.empty
    return Setting(name, describe(annotation), required, None if required else plain(default), doc)


def _wrap(text: str, width: int, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
