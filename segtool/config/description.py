"""What the sections of a config say about themselves: the docstring of each field, a JSON Schema, and a reference."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from segtool.config.bounds import BOUNDS
from segtool.config.parsing import describe
from segtool.config.registry import Component
from segtool.config.sections import Sections, plain
from segtool.config.yaml_io import flow, join

_JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Returns the docstring under each field of a dataclass, those of its bases included."""
    docs: dict[str, str] = {}
    for base in reversed([base for base in cls.__mro__ if is_dataclass(base)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                docs[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return docs


def settable(cls: type) -> list[Field[Any]]:
    """Returns the fields that may be given in YAML."""
    return [field for field in fields(cls) if field.compare]


def schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of a config file, for editors."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "segtool config"}
    whole: dict[str, Any] = {**head, **_schema_of(Sections)}
    for path, bounds in BOUNDS.items():
        *sections, key = path.split(".")
        properties = whole["properties"]
        for section in sections:
            properties = properties[section]["properties"]
        properties[key].update(bounds.ends)
    return whole


def reference() -> str:
    """Returns Markdown with a table for each section of a config: key, type, default and meaning."""
    sections = _sections(Sections, "", {}).items()
    return "\n".join(line for section, paths in sections for line in _table(paths, section))


def _schema_of(annotation: Any) -> dict[str, Any]:
    if annotation in _JSON_TYPES:
        return {"type": _JSON_TYPES[annotation]}
    if get_origin(annotation) is Literal:
        return {"enum": list(get_args(annotation))}
    if get_origin(annotation) is tuple:
        return _list_schema(annotation)
    if not is_dataclass(annotation):
        return {"anyOf": [_schema_of(member) for member in get_args(annotation)]}
    body = _object_schema(annotation)
    if issubclass(annotation, Component):
        return {"anyOf": [{"type": "string", "minLength": 1}, body]}
    return body


def _list_schema(annotation: Any) -> dict[str, Any]:
    args = get_args(annotation)
    if args[-1] is Ellipsis:
        return {"type": "array", "items": _schema_of(args[0])}
    items = [_schema_of(arg) for arg in args]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _object_schema(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls)
    docs = field_docs(cls)
    is_component = issubclass(cls, Component)
    properties = {
        f.name: _schema_of(hints[f.name]) | _annotations(f, docs)
        for f in settable(cls)
        if not (is_component and f.name == "options")
    }
    required = [f.name for f in settable(cls) if f.default is MISSING and f.default_factory is MISSING]
    body = {"type": "object", "description": summary(cls), "properties": properties}
    return body | ({"required": required} if required else {}) | {"additionalProperties": is_component}


def _annotations(field: Field[Any], docs: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"description": docs[field.name]} if field.name in docs else {}
    if field.default is not MISSING and not isinstance(plain(field.default), dict):
        found["default"] = plain(field.default)
    return found


def _sections(cls: type, path: str, found: dict[type, list[str]]) -> dict[type, list[str]]:
    """Returns every section's dataclass with the dotted paths where it stands, in reading order."""
    found.setdefault(cls, []).append(path)
    hints = get_type_hints(cls)
    for field in settable(cls):
        section = _section(hints[field.name])
        if section is not None:
            is_list = get_origin(hints[field.name]) is tuple
            _sections(section, join(path, field.name) + (".N" if is_list else ""), found)
    return found


def _section(annotation: Any) -> Any:
    """Returns the dataclass that an annotation is, or is a list of, or null; None for components and scalars."""
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if is_dataclass(c) and not issubclass(c, Component)), None)


def _table(paths: Sequence[str], cls: type) -> list[str]:
    hints = get_type_hints(cls)
    docs = field_docs(cls)
    title = ", ".join(f"`{path}`" for path in paths if path) or "Sections"
    rows = [f"## {title}", "", summary(cls), ""]
    rows += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in settable(cls):
        default = _default(field, hints[field.name])
        kind = _cell(_kind(hints[field.name]))
        bounds = BOUNDS.get(join(paths[0], field.name))
        meaning = docs[field.name] + (f" Expected: {bounds.words}." if bounds else "")
        rows.append(f"| `{field.name}` | {kind} | {default} | {_cell(meaning)} |")
    return [*rows, ""]


def _kind(annotation: Any) -> str:
    section = _section(annotation)
    if section is None:
        return describe(annotation)
    if get_origin(annotation) is tuple:
        return "a list of sections"
    return "a section" if annotation is section else "a section or null"


def _default(field: Field[Any], annotation: Any) -> str:
    if field.default is MISSING:
        return "required"
    if _section(annotation) is annotation:
        return "its defaults"
    return f"`{flow(plain(field.default))}`"


def summary(cls: type) -> str:
    """Returns the first paragraph of a class's docstring, on one line."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
