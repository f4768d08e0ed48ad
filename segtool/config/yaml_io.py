"""YAML, read strictly and written back so that it reads the same.

Scalars follow the core schema of YAML 1.2 with nothing silently different from what is written: `3e-4` is a number;
`off`, `010`, `0x1F`, `1_000`, `1:30`, `.inf` and `2024-01-31` are text. A repeated key, an alias, a merge key, a tag,
a second document or deep nesting is an error with its line. The file is walked event by event, so that no input,
however nested, recurses deeper than `MAX_DEPTH`.

Source: YAML 1.2.2, section 10.3.2 (core schema), without its octal, hexadecimal and not-a-number forms.
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from segtool.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 20_000
MAX_PROBLEMS = 20
MAX_MESSAGE = 400
WIDTH = 100

_CONSTANTS = {"": None, "~": None} | dict.fromkeys(("null", "Null", "NULL"))
_CONSTANTS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_BARE_COLOR = re.compile(r"(?:^|[\s\[,])#[0-9a-fA-F]{6}\b")
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*( [\w./-]+)*", re.ASCII)
_OTHER_READERS = re.compile(r"y|n|yes|no|on|off|\.inf|\.nan|\.[0-9].*|\.\.\..*", re.IGNORECASE)


class Document(NamedTuple):
    """What a file says, and the line (from 1) of each of its keys and list items, by dotted path."""

    data: Any
    lines: dict[str, int]


def load_file(path: Path, content: bytes | None = None) -> Document:
    """Returns the mapping that a YAML file holds, or its `content` where it has been read already.

    Raises:
        ConfigError: a file that cannot be read, is no strict YAML, or holds no mapping; with its line.
    """
    text = _decoded(path, _read(path) if content is None else content)
    document = load(text, where=lambda line: f"{path}:{line}")
    if document.data is None:
        raise ConfigError(f"{path}: the file is empty; `segtool init DATA_DIR` writes a config to start from")
    if not isinstance(document.data, dict):
        kind = "a list" if isinstance(document.data, list) else repr(document.data)
        raise ConfigError(f"{path}: found {kind} at the top; expected keys such as `data:`, `model:`, `train:`")
    return document


def load(text: str, *, where: Callable[[int], str]) -> Document:
    """Returns the data of one YAML document; None where there is nothing.

    Args:
        where: Says where a line is, such as `camvid.yaml:12`; every message begins with it.

    Raises:
        ConfigError: with all problems that can be known, each with its line.
    """
    reader = _Reader(text, where)
    try:
        data = reader.document(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        reader.problem(*_syntax(error, text))
    except UnicodeEncodeError as error:  # bytes of an argument that are no text
        reader.problem(text.count("\n", 0, error.start) + 1, "bytes that are not UTF-8; write the text as UTF-8")
    else:
        if not reader.problems:
            return Document(data, reader.lines)
    raise ConfigError(*reader.problems)


def resolve(text: str) -> Any:
    """Returns the null, boolean or number that a plain scalar means, else its text.

    Raises:
        ValueError: a number too large or too small to be held as it is written.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
            raise ValueError("a whole number beyond 64 bits")
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number) or (number == 0 and re.search("[1-9]", re.split("[eE]", text)[0])):
            raise ValueError("a number beyond the range of 64-bit floats")
        return number
    return text


class _Stop(Exception):  # noqa: N818 - not an error: the problems are already noted
    """Reading on is of no use."""


class _Reader:
    """Builds plain data from parser events, noting the line of every key and everything that is refused."""

    def __init__(self, text: str, where: Callable[[int], str]) -> None:
        self.text = text
        self.where = where
        self.lines: dict[str, int] = {}
        self.problems: list[str] = []
        self.sources: list[str] | None = None
        self.num_values = 0

    def problem(self, line: int, message: str) -> None:
        self.problems.append(f"{self.where(line)}: {_cut(message, MAX_MESSAGE)}")
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Stop

    def document(self, events: Iterator[yaml.Event]) -> Any:
        data = None
        documents = 0
        try:
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self.problem(_line(event), "a second document; a config is one document, remove the `---`")
                        break
                    data = self.node(next(events), events, "", 0)
        except _Stop:
            pass
        return data

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], path: str, depth: int) -> Any:
        self.refuse(event)
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            message = f"more than {MAX_VALUES:,} values; a config has hundreds (a range is one: `1..65535`)"
            self.problem(_line(event), message)
            raise _Stop
        if depth > MAX_DEPTH:
            self.problem(_line(event), f"nested deeper than {MAX_DEPTH} levels; no config is")
            raise _Stop
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(events, path, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(events, path, depth)
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        return None  # an alias, which `refuse` has noted

    def sequence(self, events: Iterator[yaml.Event], path: str, depth: int) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            at = join(path, str(len(items)))
            self.lines[at] = _line(event)
            items.append(self.node(event, events, at, depth + 1))
        return items

    def mapping(self, events: Iterator[yaml.Event], path: str, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.key(event)
            at = join(path, key)
            if key in data:
                message = f"{at}: the key is already given in line {self.lines[at]}; keep one of the two"
                self.problem(_line(event), message)
            self.lines[at] = _line(event)
            data[key] = self.node(next(events), events, at, depth + 1)
        return data

    def key(self, event: yaml.Event) -> str:
        """Returns a key as it is written: `on:` is the key `on`, `1:` the key `1`."""
        self.refuse(event)
        if isinstance(event, yaml.AliasEvent):
            raise _Stop
        if not isinstance(event, yaml.ScalarEvent):
            self.problem(_line(event), "a list or mapping as a key; expected a word and a colon")
            raise _Stop
        if event.value == "<<" and event.implicit[0]:
            self.problem(_line(event), "merge keys (`<<`) are not read; write the keys out")
        self.refuse_characters(event)
        return event.value

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        self.refuse_characters(event)
        if not event.implicit[0]:
            return event.value  # quoted, or a block
        if event.value == "":
            self.refuse_bare_color(event)
        try:
            return resolve(event.value)
        except ValueError as error:
            self.problem(_line(event), f"{_cut(event.value, 40)} is {error}; put quotes around it if it is text")
            return event.value

    def refuse(self, event: yaml.Event) -> None:
        """Notes what makes a value other than what stands at its place: aliases, anchors and tags."""
        if isinstance(event, yaml.AliasEvent):
            message = f"aliases (`*{event.anchor}`) are not read; write the value out, or quote text that begins with *"
            self.problem(_line(event), message)
        elif getattr(event, "anchor", None) is not None:
            message = f"anchors (`&{event.anchor}`) are not read; remove it, or quote text that begins with &"
            self.problem(_line(event), message)
        if getattr(event, "tag", None) is not None:
            message = f"tags (`{event.tag}`) are not read; remove it, or quote text that begins with !"
            self.problem(_line(event), message)

    def refuse_characters(self, event: yaml.ScalarEvent) -> None:
        odd = [c for c in event.value if (c < " " and c not in "\n\t") or "\ud800" <= c <= "\udfff"]
        if odd:
            self.problem(_line(event), f"text with the control character U+{ord(odd[0]):04X}; remove it")

    def refuse_bare_color(self, event: yaml.ScalarEvent) -> None:
        """Notes `color: #808080`, which YAML reads as nothing and a comment."""
        if self.sources is None:
            self.sources = self.text.splitlines()
        line, column = _place(event)
        row = self.sources[line - 1] if line <= len(self.sources) else ""
        found = re.match(r"\s*#[0-9a-fA-F]{6}\b", row[column:])
        if found:
            color = found.group().strip()
            self.problem(line, f'{color} without quotes is a comment in YAML; write "{color}"')


def join(path: str, key: str) -> str:
    """Returns the dotted path of `key` below `path`; "" is the root."""
    return f"{path}.{key}" if path else key


def walk(data: Any, path: str) -> Any:
    """Returns what stands at a dotted path of plain data, None where there is nothing."""
    for name in path.split("."):
        if isinstance(data, Mapping):
            data = data.get(name)
        elif isinstance(data, Sequence) and not isinstance(data, str) and name.isdigit() and int(name) < len(data):
            data = data[int(name)]
        else:
            return None
    return data


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"


def _line(event: yaml.Event) -> int:
    return _place(event)[0]


def _place(event: yaml.Event) -> tuple[int, int]:
    """Returns the line, from 1, and the column, from 0, that an event begins at."""
    assert event.start_mark is not None, "an event of a text has its place"
    return event.start_mark.line + 1, event.start_mark.column


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ConfigError(f"{path}: is a pipe or a device; expected a YAML file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a directory; expected a YAML file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error


def _decoded(path: Path, raw: bytes) -> str:
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB; a config is a few kilobytes, is this the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigError(message) from error


def _syntax(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """Returns the line of what PyYAML could not parse, and a message with what helps most often."""
    if not isinstance(error, yaml.MarkedYAMLError):
        position = getattr(error, "position", 0)
        character = getattr(error, "character", 0)
        code = character if isinstance(character, int) else ord(character)
        return text.count("\n", 0, position) + 1, f"the character U+{code:04X} is not allowed in YAML; remove it"
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    parts = [error.problem or "", error.context or ""]
    begun = error.context_mark.line + 1 if error.context_mark else line
    reason = " ".join(part for part in parts if part) + (f" begun in line {begun}" if begun != line else "")
    return line, f"not YAML: {reason}{_hint(text.splitlines()[:line])}"


def _hint(rows: Sequence[str]) -> str:
    if rows and "\t" in rows[-1]:
        return "; a tab cannot indent YAML, use spaces"
    for number in range(len(rows), 0, -1):
        found = _BARE_COLOR.search(rows[number - 1])
        if found:
            color = found.group().lstrip(" \t[,")
            return f'; {color} in line {number} begins a comment, write "{color}" with quotes'
    if rows and re.match(r"\s*[\w.]+:\S", rows[-1]):
        return "; a space must follow the colon of a key"
    return "; check the brackets, quotes and indentation there"


def dump(data: Mapping[str, Any]) -> str:
    """Returns YAML that `load` reads as `data`: one block a section, and on one line what fits there.

    Text that this or another YAML reader would take for something else is quoted.
    """
    return "\n".join(_block(data)) + "\n" if data else "{}\n"


def _block(value: Any) -> list[str]:
    """Returns the lines of a mapping or list that is not empty, unindented."""
    rows: list[str] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            head = f"{_scalar(key)}:"
            if _fits(item, len(head)):
                rows.append(f"{head} {flow(item)}")
            else:
                rows += [head, *(f"  {row}" for row in _block(item))]
        return rows
    for item in value:
        first, *rest = [flow(item)] if _fits(item, 2) else _block(item)
        rows += [f"- {first}", *(f"  {row}" for row in rest)]
    return rows


def _fits(value: Any, used: int) -> bool:
    if not value or not isinstance(value, Mapping | list | tuple):
        return True
    return used + len(flow(value)) < WIDTH


def flow(value: Any) -> str:
    """Returns plain data as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, numbers.Integral):  # NumPy's too, whose str() and repr() are their own
        return str(int(value))
    if isinstance(value, numbers.Real):
        return _number(float(value))
    assert isinstance(value, str), f"no YAML for a {type(value).__name__}"
    return value if _is_plain(value) else _quoted(value)


def _number(value: float) -> str:
    assert math.isfinite(value), "a config holds finite numbers only"
    text = repr(value)
    # PyYAML takes 1e-05 for text: it wants a point in the mantissa.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _is_plain(text: str) -> bool:
    if not _PLAIN.fullmatch(text) or _OTHER_READERS.fullmatch(text):
        return False
    return isinstance(resolve(text), str)


def _quoted(text: str) -> str:
    """Returns JSON's form of a string, which YAML reads too, with everything unprintable escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in json.dumps(text, ensure_ascii=False))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
