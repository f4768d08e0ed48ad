"""`--set KEY=VALUE` over the data of a config file, and where every value of a config came from."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from segtool.config.yaml_io import MAX_DEPTH, join, load, walk
from segtool.errors import ConfigError, Problem

COMPONENT_SECTIONS = ("model", "loss")
_QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'[^']*'")
EXCLUSIVE = (("train.epochs", "train.steps"), ("train.steps", "train.epochs"))


class Origins:
    """Where the values of a config came from: `camvid.yaml:12` or `--set train.epochs`, by dotted path."""

    def __init__(self, source: str = "", places: Mapping[str, str] | None = None) -> None:
        self.source = source
        self.places = dict(places or {})

    def of(self, path: str) -> str:
        """Returns where a value came from, "default" where nothing gave it."""
        below = [place for at, place in self.places.items() if at.startswith(f"{path}.") and _is_set(place)]
        own = self.places.get(path, "default")
        return ", ".join(dict.fromkeys([own, *below]))

    def locate(self, problem: str | Problem) -> str:
        """Returns the message of a problem, with the place of its key or of the nearest section that is written."""
        if isinstance(problem, str):
            return problem
        where = self.places.get(self._nearest(problem.path), self.source)
        if where == f"--set {problem.path}":
            return f"{where}: {problem.message}"
        return ": ".join(part for part in (where, problem.path, problem.message) if part)

    def in_order(self, problems: Iterable[Problem]) -> list[Problem]:
        """Returns problems in reading order: by the place of their key, or of the nearest section that is written."""
        order = {path: position for position, path in enumerate(self.places)}
        return sorted(problems, key=lambda problem: order.get(self._nearest(problem.path), -1))

    def _nearest(self, path: str) -> str:
        while path and path not in self.places:
            path = path.rpartition(".")[0]
        return path


def apply(
    data: Mapping[str, Any], places: Mapping[str, str], overrides: Iterable[str], *, defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Returns `data` and `places` with the overrides applied, in their order, and what is wrong with the others.

    A section or list that the data do not have is made; where a component or a list stands there by default, its
    default is what is changed. `train.epochs` and `train.steps` exclude each other: one that is set here takes away the
    one of the file.

    Args:
        data: What the file says. Not changed.
        overrides: `KEY=VALUE`, where KEY is dotted with list positions as numbers, and VALUE is YAML.
        defaults: A config of defaults, as plain data.
    """
    settings = _Settings(copy.deepcopy(dict(data)), dict(places), defaults)
    problems: list[str] = []
    for override in overrides:
        try:
            settings.put(*_split(override))
        except ConfigError as error:
            problems += error.problems
    settings.exclude()
    return settings.data, settings.places, problems


class _Settings:
    """The data while overrides are put into it."""

    def __init__(self, data: dict[str, Any], places: dict[str, str], defaults: Mapping[str, Any]) -> None:
        self.data = data
        self.places = places
        self.defaults = defaults

    def put(self, key: str, value: Any, lines: Iterable[str]) -> None:
        names = key.split(".")
        node: Any = self.data
        path = ""
        for name, following in pairwise(names):
            index = _index(node, name, key, path)
            path = join(path, name)
            child = node[index] if isinstance(node, list) else node.get(name)
            node[index] = self.container(child, path, key, following)
            node = node[index]
        node[_index(node, names[-1], key, path)] = value
        self.record(key, lines)

    def container(self, child: Any, path: str, key: str, following: str) -> Any:
        """Returns what `following` can be set in: `child`, or what it is short for, or what is there by default."""
        if child is None:
            child = copy.deepcopy(walk(self.defaults, path))
            if child is None and following.isdigit():
                raise ConfigError(f"--set {key}: {path} has no items; set the whole list, such as {path}=[1, 2]")
            if child is None or isinstance(child, dict):
                child = child if child and "name" in child else {}
                self.places.setdefault(path, f"--set {key}")
        if isinstance(child, str) and path.split(".")[0] in COMPONENT_SECTIONS and "." in path:
            # Not where the section stands there only because something below it was set.
            if path in self.places and not self.places[path].startswith(f"--set {path}."):
                self.places[f"{path}.name"] = self.places[path]
            child = {"name": child}
        if not isinstance(child, dict | list):
            raise ConfigError(f"--set {key}: {path} is {child!r}, which has no keys; set {path} itself")
        return child

    def record(self, key: str, lines: Iterable[str]) -> None:
        for path in [at for at in self.places if at == key or at.startswith(f"{key}.")]:
            del self.places[path]
        for path in (key, *(f"{key}.{line}" for line in lines)):
            self.places[path] = f"--set {key}"

    def exclude(self) -> None:
        for path, other in EXCLUSIVE:
            is_given = walk(self.data, path) is not None and _is_set(self.places.get(path, ""))
            if is_given and not _is_set(self.places.get(other, "")):
                section, _, name = other.rpartition(".")
                self.data[section].pop(name, None)
                self.places.pop(other, None)


def _split(override: str) -> tuple[str, Any, Iterable[str]]:
    """Returns the key, the value and the dotted paths inside the value."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as optim.lr=3e-4")
    if "" in key.split("."):
        raise ConfigError(f"--set {override}: an empty name in {key!r}; expected names with single dots between them")
    if key.count(".") > MAX_DEPTH or not key.isprintable():
        raise ConfigError(f"--set {key[:40]}…: is no key of a config; `segtool config show` lists them")
    comment = re.search(r"(?:^|\s)#.*", _QUOTED.sub("", text))
    if comment:
        raise ConfigError(
            f"--set {key}: {comment.group().strip()} begins a comment in YAML; put quotes around the text"
        )
    document = load(text, where=lambda line: f"--set {key}")
    return key, document.data, document.lines


def _index(node: Any, name: str, key: str, path: str) -> Any:
    """Returns `name`, or the position it means where `node` is a list."""
    if not isinstance(node, list):
        return name
    if not (name.isascii() and name.isdigit()):
        raise ConfigError(f"--set {key}: {path} is a list; expected a position from 0, found {name!r}")
    if len(name) > 9 or int(name) >= len(node):
        last = f"the last position is {len(node) - 1}" if node else "it is empty"
        raise ConfigError(f"--set {key}: {path} has no position {name}, {last}; set the whole list to add to it")
    return int(name)


def _is_set(place: str) -> bool:
    return place.startswith("--set ")
