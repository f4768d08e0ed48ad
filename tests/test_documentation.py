"""README, docs and the comments of configs name what is there: files, headings, keys, commands and options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from segtool.cli import app
from segtool.config.description import schema

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "configs").glob("*.yaml")),
]
SECTIONS = ("data", "augment", "optim", "train", "limits")


def links(text: str) -> list[str]:
    """Returns where the links of a page in Markdown lead, those of the web aside."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def headings(text: str) -> set[str]:
    """Returns the headings of a page as links name them."""
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {title.strip().replace(" ", "-") for title in plain}


def broken_links(page: Path) -> list[str]:
    """Returns the links of a page that lead to no file, or to no heading of it."""
    broken = []
    for target in links(page.read_text("utf-8")):
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (heading and heading not in headings(file.read_text("utf-8"))):
            broken.append(target)
    return broken


def commands(text: str) -> Iterator[list[str]]:
    """Yields the arguments of segtool's commands in blocks of code, in the comments of a config, and in quotes."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^#   (.+)$", text, re.MULTILINE)
    quoted = re.findall(r"(?<!`)`(segtool [a-z]+ [^`]*)`", text.replace("\n", " "))
    for line in [*(line.removeprefix("srun ") for line in lines), *quoted]:
        if line.startswith("segtool "):
            yield shlex.split(re.split(r"\s{2,}| > |; ", line.replace("\\|", "|"))[0])[1:]


def unknown_words(arguments: list[str]) -> list[str]:
    """Returns the command and the options among the arguments that segtool does not have."""
    command: Any = get_command(app)
    while hasattr(command, "commands") and arguments:
        name, *arguments = arguments
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    known = {name for parameter in command.params for name in parameter.opts}
    return [word for word in arguments if word.startswith("-") and word not in known]


def keys(text: str) -> set[str]:
    """Returns the dotted keys of sections that are quoted, without what is set behind them; no files, no modules."""
    quoted = re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+(?:\.[a-z_]+)?)(?=[`=: ])", text)
    modules = {".".join(path.with_suffix("").parts[-2:]) for path in (ROOT / "segtool").glob("*/*.py")}
    return {key for key in quoted if key not in modules and not key.endswith((".log", ".py", ".txt"))}


def known_keys() -> set[str]:
    """Returns the dotted keys of all sections, and of the sections in them."""
    found = set()
    for section in SECTIONS:
        properties = schema()["properties"][section]["properties"]
        for key, one in properties.items():
            found.add(f"{section}.{key}")
            for kind in (one, one.get("items", {}), *one.get("anyOf", [])):
                found |= {f"{section}.{key}.{below}" for below in kind.get("properties", {})}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_what_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    assert broken_links(page) == []
    assert {key for key in keys(text) if key not in known_keys()} == set()
    assert [words for arguments in commands(text) if (words := unknown_words(arguments))] == []


def test_what_is_not_there_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# One Two\n[a](#one-two) [b](#three) [c](none.md)\n`train.epoch` `train.seed`\n"
    text += "`segtool train x --epoch 3` `segtool teach x`"
    page.write_text(text)
    assert broken_links(page) == ["#three", "none.md"]
    assert keys(text) - known_keys() == {"train.epoch"}
    assert [unknown_words(arguments) for arguments in commands(text)] == [["--epoch"], ["teach"]]
