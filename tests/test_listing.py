"""What `segtool list` prints."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from segtool.commands.listing import COMPONENTS, KINDS, entries, print_entries
from segtool.config import Augment, registry


@pytest.mark.parametrize("kind", COMPONENTS)
def test_every_component_is_listed_with_its_options_and_defaults(kind):
    found = {entry.name: entry for entry in entries(kind)}
    assert list(found) == registry.names(COMPONENTS[kind])
    for name, entry in found.items():
        options = registry.options(registry.lookup(COMPONENTS[kind], name, path=""))
        assert [setting.name for setting in entry.options] == list(options)
        assert entry.doc.endswith((".", ":"))


def test_defaults_and_types_by_hand():
    (skips,) = [s for entry in entries("decoders") if entry.name == "fcn" for s in entry.options if s.name == "skips"]
    assert (skips.type, skips.required, skips.default) == ("0, 1 or 2", False, 2)


def test_augmentations_are_those_of_the_config():
    (entry,) = entries("augmentations")
    assert entry.name == "augment"
    assert {s.name: s.default for s in entry.options}["scale"] == [1, 1]
    assert [s.name for s in entry.options] == list(Augment.__dataclass_fields__)


@pytest.mark.parametrize("kind", KINDS)
def test_a_listing_is_json_and_fits_80_columns_without_colour_in_a_pipe(kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = entries(kind)
    json.dumps([asdict(entry) for entry in found])
    print_entries(found)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert all(len(line) <= 80 and line == line.rstrip() for line in text.splitlines())
    assert all(f"{entry.name}  " in text for entry in found)


def test_what_needs_an_extra_says_what_to_install():
    (timm,) = [entry for entry in entries("encoders") if entry.name == "timm"]
    assert "pip install 'segtool[timm]'" in timm.doc
