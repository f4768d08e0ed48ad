"""Plain data from YAML into annotated types, strictly, with every problem worded for the person who wrote it.

pydantic says where the data do not fit; the words come from the annotation that stands there and from what was found.
It is imported on first use.
"""

from __future__ import annotations

import difflib
import functools
import json
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from segtool.config.yaml_io import flow, join
from segtool.errors import ConfigError, Problem

_WORDS = {int: "a whole number", float: "a number", str: "text", type(None): "null"}
_PLURALS = {"a whole number": "whole numbers", "a number": "numbers"}
_LISTS = (tuple, list, Sequence)
MAX_FAULTS = 100
"""Problems of structure that are worded; each takes half a millisecond, and a file may have thousands."""


@dataclass(frozen=True)
class Fault:
    """A problem of structure; `key` is the dotted path that was meant, as far as that can be guessed."""

    problem: Problem
    key: str


def parse(annotation: Any, data: Any, *, path: str) -> Any:
    """Returns `data` as `annotation` says. Raises ConfigError with all problems, each named below `path`."""
    value, faults = examine(annotation, data, path=path)
    if faults:
        raise ConfigError(*(fault.problem for fault in faults))
    return value


def examine(annotation: Any, data: Any, *, path: str = "") -> tuple[Any, list[Fault]]:
    """Returns the parsed value and no faults, or None and all faults of structure."""
    from pydantic import ValidationError

    if get_origin(annotation) is Literal and type(data) not in map(type, get_args(annotation)):
        # pydantic takes true and 1.0 for 1 where values are listed.
        return None, [_fault(path, (), _mismatch(annotation, data))]
    text = json.dumps(data)
    try:
        # As JSON, because strict parsing of Python objects refuses mappings for dataclasses and lists for tuples.
        return _adapter(annotation).validate_json(text, strict=True), []
    except ValidationError as error:
        items = error.errors(include_url=False, include_context=False)
        faults = _faults(annotation, json.loads(text), path, items[:MAX_FAULTS])
        if len(items) > MAX_FAULTS:
            problem = Problem(path, f"{len(items):,} problems, of which these are the first {MAX_FAULTS}")
            faults.insert(0, Fault(problem, path))
        return None, faults


def describe(annotation: Any) -> str:
    """Returns what `annotation` accepts, in words: "a list of 2 whole numbers or null"."""
    return _alternatives(_choices(annotation))


def suggest(word: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'?" where a word is like a known one, else the known words."""
    names = sorted(known)
    return _hint(_meant(word, names), names)


def value_text(value: Any) -> str:
    """Returns a found value for a message: text in quotes, long things cut."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


@functools.lru_cache(maxsize=256)
def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # pydantic takes no configuration beside a dataclass, which carries its own.
    return TypeAdapter(annotation, config=None if is_dataclass(annotation) else ConfigDict(allow_inf_nan=False))


def _faults(annotation: Any, data: Any, path: str, items: Sequence[Any]) -> list[Fault]:
    """Returns one fault for each place that pydantic names, in the order of the data."""
    found: dict[str, Fault] = {}
    for item in items:
        keys, value = _place(item["loc"], data)
        kind = item["type"]
        if kind == "missing" and isinstance(item["loc"][-1], str):
            key = item["loc"][-1]
            fault = _fault(path, [*keys, key], f"missing, and it has no default; {_addition(key, value)}")
        elif kind == "unexpected_keyword_argument":
            fault = _unknown(annotation, path, keys)
        else:
            fault = _fault(path, keys, _mismatch(_annotation_at(annotation, keys), value))
        found.setdefault(fault.problem.path, fault)
    return list(found.values())


def _fault(path: str, keys: Sequence[Any], message: str) -> Fault:
    at = functools.reduce(join, map(str, keys), path)
    return Fault(Problem(at, message), at)


def _addition(key: str, found: Any) -> str:
    """Returns how a missing key is added to what was found in its place, such as `{dice: {smooth: 1}}`."""
    if key == "name" and isinstance(found, dict) and len(found) == 1:
        [(word, value)] = found.items()
        if word != "weight" and not isinstance(value, str):
            return f"if {word} is the name, write {{name: {word}, …}} in place of {{{word}: …}}"
    return "add it"


def _unknown(annotation: Any, path: str, keys: Sequence[Any]) -> Fault:
    *parents, word = keys
    names = sorted(_field_names(_dataclass_of(_annotation_at(annotation, parents))))
    elsewhere = [key for key in dotted_keys(annotation) if key.rpartition(".")[2] == word]
    guess = _meant(word, names, elsewhere)
    fault = _fault(path, keys, f"unknown key{_hint(guess, names)}")
    at, meant = functools.reduce(join, map(str, parents), path), guess or word
    return Fault(fault.problem, meant if "." in meant else join(at, meant))


def _meant(word: str, names: Sequence[str], elsewhere: Sequence[str] = ()) -> str:
    """Returns the name that a word is most like, "" where none is; a key that ends in it goes before a poor likeness.

    Args:
        names: That could stand there.
        elsewhere: Dotted keys of other places that end with the word.
    """
    for guesses in (_close(word, names, 0.6), elsewhere, _close(word, names, 0.5)):
        if len(guesses) == 1:
            return guesses[0]
    return ""


def _hint(meant: str, names: Sequence[str]) -> str:
    return f"; did you mean '{meant}'?" if meant else f"; known: {', '.join(names)}"


def _place(loc: Sequence[Any], data: Any) -> tuple[list[Any], Any]:
    """Returns the keys of `loc` that lead into `data`, and what is there.

    The other elements are pydantic's names of the members of a union, and the last of a missing key.
    """
    keys: list[Any] = []
    for key in loc:
        inside_list = isinstance(data, list) and isinstance(key, int) and key < len(data)
        if inside_list or (isinstance(data, dict) and key in data):
            data = data[key]
            keys.append(key)
    return keys, data


def _annotation_at(annotation: Any, keys: Sequence[Any]) -> Any:
    for key in keys:
        is_item = isinstance(key, int)
        annotation = _item(annotation, key) if is_item else _hints(_dataclass_of(annotation)).get(key, Any)
    return annotation


def _item(annotation: Any, index: int) -> Any:
    for member in _members(annotation):
        if get_origin(member) in _LISTS:
            args = get_args(member)
            return args[0] if len(args) == 1 or args[-1] is Ellipsis else args[min(index, len(args) - 1)]
    return Any


def _dataclass_of(annotation: Any) -> Any:
    return next(member for member in _members(annotation) if is_dataclass(member))


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if _is_union(annotation) else (annotation,)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _field_names(cls: Any) -> list[str]:
    return [field.name for field in fields(cls)]


def dotted_keys(annotation: Any, path: str = "") -> list[str]:
    """Returns the dotted keys of nested dataclasses, those inside lists and optional sections aside."""
    if not is_dataclass(annotation):
        return [path]
    hints = _hints(annotation)
    return [key for name in _field_names(annotation) for key in dotted_keys(hints[name], join(path, name))]


def _mismatch(annotation: Any, value: Any) -> str:
    return f"expected {describe(annotation)}, found {value_text(value)}{_remedy(annotation, value)}"


def _remedy(annotation: Any, value: Any) -> str:
    members = _members(annotation)
    choices = [c for m in members if get_origin(m) is Literal for c in get_args(m) if isinstance(c, str)]
    wants_number = int in members or float in members
    if value is None and is_dataclass(annotation):
        return "; remove the key, or give it a value"
    if isinstance(value, float) and value.is_integer() and int in members:
        return f"; write {int(value)}"
    if isinstance(value, bool | int | float) and (str in members or str(value) in choices):
        return "; put quotes around it if it is text"
    if isinstance(value, str) and wants_number and _looks_like_a_number(value):
        return "; write a plain decimal number without quotes, such as 10 or 3e-4"
    if isinstance(value, str) and bool in members and value.lower() in ("yes", "no", "on", "off", "true", "false"):
        return "; write true or false, without quotes"
    if isinstance(value, str):
        close = _close(value, choices, 0.6)
        return f"; did you mean '{close[0]}'?" if close else ""
    return ""


def _looks_like_a_number(text: str) -> bool:
    for convert in (float, lambda text: int(text, 0)):
        try:
            convert(text)
        except ValueError:
            continue
        return True
    return False


def _close(word: str, names: Sequence[str], cutoff: float) -> list[str]:
    return difflib.get_close_matches(word, names, n=1, cutoff=cutoff)


def _choices(annotation: Any) -> list[str]:
    """Returns what `annotation` accepts, one phrase for each alternative."""
    if annotation is bool:
        return ["true", "false"]
    if annotation in _WORDS:
        return [_WORDS[annotation]]
    if get_origin(annotation) is Literal:
        return [flow(choice) for choice in get_args(annotation)]
    if _is_union(annotation):
        return [choice for member in get_args(annotation) for choice in _choices(member)]
    if get_origin(annotation) in _LISTS:
        return [f"a list of {_items(get_args(annotation))}"]
    if is_dataclass(annotation):
        return [getattr(annotation, "EXPECTED", "") or f"a mapping with {_alternatives(_field_names(annotation))}"]
    return [getattr(annotation, "__name__", str(annotation))]


def _items(args: Sequence[Any]) -> str:
    """Returns the plural of a list's items, with their number where it is fixed."""
    kinds = dict.fromkeys(choice for arg in args if arg is not Ellipsis for choice in _choices(arg))
    plural = _alternatives(
        [_PLURALS.get(kind, kind.replace("a mapping", "mappings").replace("a name", "names")) for kind in kinds]
    )
    return plural if len(args) == 1 or args[-1] is Ellipsis else f"{len(args)} {plural}"


def _alternatives(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
