"""Writes tests/surface.json: what other programs and configs rely on. Run as `python tests/surface.py`."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import typer

from segtool import cli, errors
from segtool.commands.listing import KINDS, entries
from segtool.config.description import schema

SURFACE = Path(__file__).with_name("surface.json")
GOLDEN = Path(__file__).with_name("golden") / "format-1"


def commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each command with its words, such as `config show`."""
    for name, command in (group or typer.main.get_command(cli.app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def surface(scratch: Path) -> str:
    """Returns the surface as JSON text, a line for each thing that can change. Writes to an empty folder."""
    for name in ("data", "unet", "palette"):
        shutil.copytree(GOLDEN / name, scratch / name)
    found = {
        "commands": {name: dict(map(_parameter, command.params)) for name, command in commands()},
        "exit codes": {
            **{name: kind.exit_code for name, kind in vars(errors).items() if hasattr(kind, "exit_code")},
            "told": cli.app.info.epilog,
        },
        "json": {name: sorted(_keys(_output(words, scratch))) for name, words in OUTPUTS.items()},
        "files": {name: sorted(_keys(value)) for name, value in _files(scratch / "unet")},
        "config": dict(_schema_lines(schema(), "")),
        "components": {kind: {e.name: dict(map(_setting, e.options)) for e in entries(kind)} for kind in KINDS},
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


OUTPUTS = {
    "check": ("check", "{}/data", "--json"),
    "eval": ("eval", "{}/unet", "--json"),
    "eval --flip": ("eval", "{}/unet", "--flip", "--json"),
    "eval --predictions": (
        "eval", "--predictions", "{}/data/test/masks", "--masks", "{}/data/test/masks",
        "--config", "{}/unet/config.yaml", "--csv", "{}/table.csv", "--json",
    ),
    "inspect": ("inspect", "{}/unet", "--json"),
    "inspect --measure": ("inspect", "{}/unet", "--measure", "--json"),
    "list": ("list", "losses", "--json"),
}  # fmt: skip


def _parameter(parameter: Any) -> tuple[str, str]:
    name = ", ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        name = str(parameter.metavar)
    takes = "flag" if getattr(parameter, "is_flag", False) else str(parameter.metavar or "value")
    many = parameter.multiple or parameter.nargs == -1
    facts = [takes, *(["required"] if parameter.required else []), *(["repeatable"] if many else [])]
    return name, f"{', '.join(facts)} = {parameter.default}"


def _setting(setting: Any) -> tuple[str, str]:
    return setting.name, f"{setting.type} = {'required' if setting.required else json.dumps(setting.default)}"


def _output(words: tuple[str, ...], scratch: Path) -> Any:
    argv = ["segtool", *(word.replace("{}", str(scratch)) for word in words)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(f"exit {ended.code}: {' '.join(argv)}") from ended
    return json.loads(out.getvalue())


def _keys(value: Any, path: str = "") -> set[str]:
    """Returns the dotted keys of plain data; items of a list are `[]`, names of things in it `*`."""
    if isinstance(value, dict):
        named = path.endswith(("iou", "files", "choices", "splits", "versions"))
        return {
            found for key, item in value.items() for found in _keys(item, f"{path}.{'*' if named else key}".strip("."))
        }
    if isinstance(value, list):
        return {found for item in value for found in _keys(item, f"{path}[]")} or {f"{path}[]"}
    return {path}


def _files(run: Path) -> Iterator[tuple[str, Any]]:
    yield "run.json", json.loads((run / "run.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    yield "metrics.jsonl", rows
    checkpoint = next((run / "checkpoints").iterdir())
    for name in ("state.json", "manifest.json"):
        yield name, json.loads((checkpoint / name).read_text())


def _schema_lines(part: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Yields each key of a JSON Schema with its type and default."""
    for key, below in part.get("properties", {}).items():
        at = f"{path}.{key}".strip(".")
        yield at, f"{_kind(below)}{' = ' + json.dumps(below['default']) if 'default' in below else ''}"
        for member in [below, *below.get("anyOf", [])]:
            yield from _schema_lines(member, at)
            items = member.get("items", {})
            for item in [items, *items.get("anyOf", [])]:
                yield from _schema_lines(item, f"{at}[]")


def _kind(part: dict[str, Any]) -> str:
    if "anyOf" in part:
        return " or ".join(map(_kind, part["anyOf"]))
    return "|".join(map(json.dumps, part["enum"])) if "enum" in part else part.get("type", "any")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        SURFACE.write_text(surface(Path(directory)), encoding="utf-8")
