"""YAML is read as it is written or refused with its line, and what is written reads back the same."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segtool.config.yaml_io import MAX_DEPTH, dump, load, load_file
from segtool.errors import ConfigError


@pytest.fixture(params=["libyaml", "python"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML as it is, and as it is where it was built without libyaml."""
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


def read(text: str) -> Any:
    return load(text, where=lambda line: f"c.yaml:{line}").data


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("3e-4", 0.0003),
        ("1e-4", 0.0001),
        ("1e5", 100000.0),
        ("1E+2", 100.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1.5", -1.5),
        ("0", 0),
        ("-0", 0),
        ("+3", 3),
        ("9223372036854775807", 2**63 - 1),
        ("true", True),
        ("false", False),
        ("True", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("010", "010"),
        ("01.5", "01.5"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("2024-01-31", "2024-01-31"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        (".inf", ".inf"),
        ("-.INF", "-.INF"),
        (".nan", ".nan"),
        ("1..65535", "1..65535"),
        ("=", "="),
        ("e5", "e5"),
        ('"3"', "3"),
        ("'off'", "off"),
        ('"#808080"', "#808080"),
        ("a#b", "a#b"),
        ("data/x y.png", "data/x y.png"),
        ("tRuE", "tRuE"),
    ],
)
def test_a_scalar_is_what_is_written(written: str, meant: Any, reader: None) -> None:
    value = read(f"key: {written}\n")["key"]
    assert (value, type(value)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "already given in line 1"),
        ("a: {b: 1,\n  b: 2}\n", 2, "a.b: the key is already given in line 1"),
        ("a: &x 1\nb: 2\n", 1, "anchors"),
        ("a: 1\nb: *x\n", 2, "aliases"),
        ("a: 1\nb:\n  <<: {c: 1}\n", 3, "merge keys"),
        ("a: 1\nb: !!python/object/apply:os.system [id]\n", 2, "tags"),
        ("a: !!str 010\n", 1, "tags"),
        ("a: ! x\n", 1, "tags"),
        ("a: " + "!" * 9000 + "\n", 1, "tags"),
        ("a:\n\t- 1\n", 2, "use spaces"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: [1,\nb: 2\n", 3, "begun in line 1"),
        ("a: 'x\n", 2, "not YAML"),
        ("a: 1\ncolor: #808080\n", 2, 'write "#808080"'),
        ("a:\n  - 1\n  - #808080\n", 3, 'write "#808080"'),
        ("a: {color: #808080}\nb: 1\n", 2, "#808080 in line 1 begins a comment"),
        ("a: 1\nb: 1e999\n", 2, "range of 64-bit floats"),
        ("a: 1\nb: 1e-999\n", 2, "range of 64-bit floats"),
        ("a: 1\nb: 9223372036854775808\n", 2, "beyond 64 bits"),
        (f"a: {'9' * 5000}\n", 1, "beyond 64 bits"),
        ('a: 1\nb: "\\0"\n', 2, "U+0000"),
        ('a: 1\nb: "\\e[31m"\n', 2, "U+001B"),
        ("a: 1\nb: \x07\n", 2, "U+0007"),
        ("? [a]\n: 1\n", 1, "as a key"),
        ("a: 1\n*x : 1\n", 2, "aliases"),
        ("a: 1\nb:2\n", 3, "a space must follow the colon"),
    ],
)
def test_what_would_mean_something_else_is_refused_with_its_line(
    text: str, line: int, words: str, reader: None
) -> None:
    message = refusal(text)
    assert words in message
    assert f"c.yaml:{line}: " in message
    assert len(message) < 1000


@pytest.mark.parametrize("key", ["on", "no", "null", "~", "true", "1", "010", "1e3", "2024-01-31", "'3'", '"a b"'])
def test_a_key_is_the_text_that_is_written(key: str, reader: None) -> None:
    assert read(f"{key}: 1\n") == {key.strip("'\""): 1}


def test_all_problems_that_do_not_stop_the_parser_are_told_at_once() -> None:
    assert refusal("a: 1\na: 2\nb: !x y\nc: *d\n").count("\n") == 2


def test_the_two_words_for_surrogates_are_refused(reader: None) -> None:
    assert "c.yaml:1: " in refusal('a: "\\ud800"\n')


@pytest.mark.parametrize("text", ["a: " + "[" * 10_000, "{" * 10_000, "a: " + "{a: " * 10_000, "- " * 10_000])
def test_deep_nesting_is_refused_within_a_second(text: str, reader: None) -> None:
    began = time.process_time()
    assert "c.yaml:1: " in refusal(text)
    assert time.process_time() - began < 1


def test_nesting_is_read_to_the_limit_and_no_further() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    assert "deeper than" in refusal("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))


def test_a_bomb_of_aliases_is_refused_within_a_second(reader: None) -> None:
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    began = time.process_time()
    message = refusal("\n".join(["a0: &a0 [x]", *levels]))
    assert "c.yaml:2: aliases" in message
    assert message.count("\n") < 20
    assert time.process_time() - began < 1


def test_lines_are_those_of_keys_and_items(reader: None) -> None:
    text = "# first\na:\n  b: {c: 1,\n      d: 2}\nl:\n  - x\n  - {weight: 1}\n"
    lines = load(text, where=str).lines
    assert lines == {"a": 2, "a.b": 3, "a.b.c": 3, "a.b.d": 4, "l": 5, "l.0": 6, "l.1": 7, "l.1.weight": 7}


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfa: 1\nb: \xc3\xa4\n", b"a: 1\r\nb: \xc3\xa4\r\n", b"a: 1\rb: \xc3\xa4"])
def test_byte_order_marks_and_line_endings_change_nothing(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(raw)
    assert load_file(path) == ({"a": 1, "b": "ä"}, {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "c.yaml: the file is empty"),
        (b"# only a comment\n", "c.yaml: the file is empty"),
        (b"---\n...\n", "c.yaml: the file is empty"),
        (b"- a\n- b\n", "c.yaml: found a list at the top"),
        (b"data\n", "c.yaml: found 'data' at the top"),
        (b"a: 1\nb: \xff\n", "c.yaml:2: byte 0xff is not UTF-8"),
        (b"a: x\x00\n", "c.yaml:1: the character U+0000"),
        (b"\xef\xbb\xbfa: #808080\n", "c.yaml:1: #808080 without quotes"),
        (b"a: " + b"x" * (1 << 20), "c.yaml: larger than 1 MiB"),
    ],
)
def test_a_file_that_holds_no_mapping_is_refused(raw: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    assert words in str(caught.value)


def test_a_file_that_is_not_there_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        load_file(tmp_path)


SURPRISING = [
    "1..65535",
    "off",
    "3e-4",
    "#808080",
    "010",
    "null",
    "~",
    "",
    " a",
    "a ",
    "a: b",
    "a #b",
    "1:30",
    "y",
    "2024-01-31",
    "-",
    "- a",
    "*x",
    "&x",
    "!x",
    "%x",
    "@x",
    "`x",
    "{a",
    "[a",
    "a,b",
    "'",
    '"',
    "\\",
    "é",
    "🙂",
    "a\tb",
    "a\nb",
    "\u2028",
    "\x85",
    "\x7f",
    "\ue000",
    "---",
    "...",
    ".5",
    ".inf",
    "0x10",
    "<<",
    "=",
    "true",
    "C:\\x",
    "x" * 3000,
    "_mask",
    "./a b/c.png",
]


@pytest.mark.parametrize("text", SURPRISING)
def test_surprising_text_is_written_so_that_it_reads_the_same_here_and_elsewhere(text: str, reader: None) -> None:
    written = dump({"key": text, "list": [text, {"in": text}]})
    assert read(written) == {"key": text, "list": [text, {"in": text}]}
    assert yaml.safe_load(written) == {"key": text, "list": [text, {"in": text}]}


TEXT = st.text(st.characters(blacklist_categories=["Cs"], min_codepoint=32), max_size=20) | st.sampled_from(SURPRISING)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
KEYS = TEXT.filter(lambda key: len(key) < 100)
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_data_is_read_back_exactly(data: dict[str, Any]) -> None:
    assert repr(read(dump(data)) or {}) == repr(data)


@settings(max_examples=100, deadline=None)
@given(st.text("ab:- #&*!|>{}[],'\"\n\t%?~1.e", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):  # anything else that is raised fails the test
        load(text, where=str)


def test_a_dump_breaks_long_sections_and_keeps_short_ones_on_a_line() -> None:
    data = {"a": {"b": [1, 2], "c": None}, "d": {"e": "x" * 60, "f": [{"g": "y" * 60, "h": "z" * 60}]}}
    expected = "\n".join(
        [
            "a: {b: [1, 2], c: null}",
            "d:",
            f"  e: {'x' * 60}",
            "  f:",
            f"    - g: {'y' * 60}",
            f"      h: {'z' * 60}",
            "",
        ]
    )
    assert dump(data) == expected


def test_numbers_of_numpy_are_written_as_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    assert dump({"a": numpy.float64(0.1), "b": numpy.int64(3), "c": numpy.float32(0.5)}) == "a: 0.1\nb: 3\nc: 0.5\n"
