"""A config read from YAML and `--set`, and written back.

pydantic parses the sections at this boundary only, strictly and with unknown keys forbidden.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segtool.config.overrides import Origins, apply
from segtool.config.parsing import Fault, examine
from segtool.config.rules import problems
from segtool.config.sections import Config, Sections, plain
from segtool.config.yaml_io import Document, dump, join, load, load_file, walk
from segtool.errors import ConfigError

DEFAULT_EPOCHS = 100.0


def load_config(path: Path, overrides: Sequence[str] = (), *, content: bytes | None = None) -> Config:
    """Returns the config of a YAML file with `--set` overrides applied.

    `data.root` stays as written; it is relative to the folder of `path`, whether the file or an override gives it.

    Args:
        path: The file, as messages shall name it.
        overrides: `KEY=VALUE`, as given to `--set`.
        content: Of the file, where it has been read already.

    Raises:
        ConfigError: with every problem, each as `camvid.yaml:12: data.encodng: unknown key; did you mean 'encoding'?`.
    """
    document = load_file(path, content)
    found = document.data.get("format")
    if type(found) is int and found > Config.format:
        # Before all else: what a newer version means by the rest is not known here.
        raise ConfigError(
            f"{path}:{document.lines['format']}: format: config format {found}, but this segtool reads up to "
            f"{Config.format}; upgrade segtool"
        )
    return _overridden(document, str(path), overrides)


def parse_text(text: str, name: str, overrides: Sequence[str] = ()) -> Config:
    """Returns the config of YAML text as `load_config` does that of a file; messages call it `name`."""
    return _overridden(load(text, where=lambda line: f"{name}:{line}"), name, overrides)


def parse_config(raw: Mapping[str, Any], origins: Origins | None = None, known: Sequence[str] = ()) -> Config:
    """Returns the config of plain data, as `load_config` does.

    Raises:
        ConfigError: with every problem of structure and between values, whose places `origins` tells, and those that
            are `known` before.
    """
    origins = origins or Origins()
    sections, faults = examine(Sections, raw)
    for whole_lists in (False, True):
        if sections is None:
            sections, _ = examine(Sections, _without(raw, faults, whole_lists=whole_lists))
    found = [fault.problem for fault in faults]
    config = None if sections is None else Config(**vars(sections), origins=origins)
    if config is not None:
        found += problems(config, unread=[fault.key for fault in faults])
    if config is None or found or known:
        ordered = origins.in_order(dict.fromkeys(found))
        raise ConfigError(*(origins.locate(problem) for problem in ordered), *known)
    return _with_length(config)


@contextmanager
def located(config: Config) -> Generator[None]:
    """Gives the problems of a ConfigError that is raised inside, such as by a component's options, their places."""
    try:
        yield
    except ConfigError as error:
        if all(isinstance(detail, str) for detail in error.details):
            raise
        raise ConfigError(*(config.origins.locate(detail) for detail in error.details)) from error


def dump_config(config: Config) -> str:
    """Returns the YAML text of a config, every value resolved, that loads to an equal one."""
    return dump(plain(config))


def show(config: Config) -> list[tuple[str, Any, str]]:
    """Returns each value as (dotted key, plain value, where it came from: `camvid.yaml:12`, `--set KEY` or
    `default`)."""
    return [(path, value, config.origins.of(path)) for path, value in _leaves(plain(config), "")]


def _overridden(document: Document, name: str, overrides: Sequence[str]) -> Config:
    places = {at: f"{name}:{line}" for at, line in document.lines.items()}
    data, places, problems = apply(document.data, places, overrides, defaults=plain(Config()))
    return parse_config(data, Origins(name, places), problems)


def _with_length(config: Config) -> Config:
    train = config.train
    if train.epochs is not None or train.steps is not None:
        return config
    return dataclasses.replace(config, train=dataclasses.replace(train, epochs=DEFAULT_EPOCHS))


def _without(raw: Mapping[str, Any], faults: Sequence[Fault], *, whole_lists: bool) -> dict[str, Any]:
    """Returns the data without what could not be read, so that the rest can be looked at in the same pass.

    An item is not taken out of its list, which would move those behind it. Where a list's item cannot do without what
    is taken out, the list goes whole.
    """
    data = copy.deepcopy(dict(raw))
    for fault in faults:
        names = fault.problem.path.split(".")
        positions = [index for index, name in enumerate(names) if name.isdigit()]
        if positions and (whole_lists or names[-1].isdigit()):
            names = names[: positions[0 if whole_lists else -1]] or names
        holder = walk(data, ".".join(names[:-1])) if names[1:] else data
        if isinstance(holder, dict):
            holder.pop(names[-1], None)
    return data


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields what is no section: scalars, lists of scalars, and what is empty."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        items = ((str(index), item) for index, item in enumerate(value))
    if not items:
        yield path, value
    for key, item in items:
        yield from _leaves(item, join(path, key))
