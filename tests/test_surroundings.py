"""The program where it was not written: other clocks, languages, homes, folders, interpreters and terminals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from conftest import Command

GOLDEN = Path(__file__).with_name("golden") / "format-1"
SMALL = (
    "--set=model.encoder.channels=[4, 8]",
    "--set=augment.crop=[16, 16]",
    "--set=train.steps=2",
    "--set=train.batch_size=2",
)
LIGHT = (("init", "data", "--out", "new.yaml"), ("check", "new.yaml"), ("config", "show", "new.yaml"))
WHOLE = (
    *LIGHT,
    ("list", "encoders"),
    ("train", "new.yaml", "--run", "run", *SMALL),
    ("eval", "run"),
    ("predict", "run", "data/test/images", "--out", "masks", "--overlay"),
    ("inspect", "run"),
    ("doctor",),
)
# Every command in one process, as torch takes seconds to import: each by the program's own entry point.
TOUR = """
import json, sys
from segtool.__main__ import main
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["segtool", *words]
    try:
        main()
    except SystemExit as ended:
        codes.append(ended.code or 0)
print("codes:", codes, file=sys.stderr)
"""
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
# What is changed of the environment; None takes a variable away.
ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "a time zone of half an hour": {"TZ": "Asia/Kolkata"},
    "no time zone of that name": {"TZ": "Nowhere/Nothing"},
    "ASCII only": {**ASCII},
    "Turkish": {"LC_ALL": "tr_TR.UTF-8", "LOCPATH": "locales"},
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "a home where nothing can be made": {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null"},
    "a temporary folder where nothing can be made": {"TMPDIR": "/dev/null"},
    "without asserts and docstrings": {"PYTHONOPTIMIZE": "2"},
    "warnings are errors": {"PYTHONWARNINGS": "error"},
    "a narrow terminal without colours": {"COLUMNS": "20", "NO_COLOR": "1"},
    "a dumb terminal": {"TERM": "dumb"},
    "no terminal": {"TERM": None},
}
NAMES = ("with  spaces", "'quotes' \"double\"", "häuser ☃", "new\nline", "$HOME [x] #y: - {z}", "-dash", "a" * 200)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "data", tmp_path / "data")
    (tmp_path / "data" / "classes.txt").write_text("Straße\nHäuser\n☃\n", encoding="utf-8")
    return tmp_path


def tour(words: Sequence[Sequence[str]], cwd: Path, environment: Mapping[str, str | None], *, first: str = "") -> None:
    """Runs commands in a process of their own, which must all end well."""
    changed = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{TOUR}", json.dumps(words)],
        cwd=cwd,
        env={name: value for name, value in changed.items() if value is not None},
        capture_output=True,
        timeout=600,
    )
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, said
    assert f"codes: {[0] * len(words)}" in said, said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_whole_path_works_in_any_environment(place: Path, name: str) -> None:
    if name == "Turkish" and shutil.which("localedef"):
        (place / "locales").mkdir()
        subprocess.run(["localedef", "-i", "tr_TR", "-f", "UTF-8", place / "locales" / "tr_TR.UTF-8"], check=False)
    tour(WHOLE, place, ENVIRONMENTS[name])
    assert len(list((place / "masks").glob("*.png"))) == len(list((place / "data" / "test" / "images").iterdir()))


@pytest.mark.slow
def test_the_whole_path_works_for_a_user_whom_the_system_does_not_know(place: Path) -> None:
    """As in a container that is run with `--user 12345`."""
    unknown = "import pwd\ndef getpwuid(uid): raise KeyError(uid)\npwd.getpwuid = getpwuid"
    nobody = dict.fromkeys(("HOME", "USER", "LOGNAME", "USERNAME", "LNAME"))
    tour(WHOLE, place, nobody, first=unknown)


@pytest.mark.slow
def test_the_whole_path_works_in_a_folder_of_any_name(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*NAMES[:5])
    shutil.copytree(GOLDEN / "data", folder / "data")
    whole = json.loads(json.dumps(WHOLE).replace('"data', '"{}/data').replace('"run"', '"{}/run"'))
    tour([[word.replace("{}", str(folder), 1) for word in words] for words in whole], folder, {})


@pytest.mark.parametrize("name", ["ASCII only", "warnings are errors"])
def test_the_way_to_a_config_works_in_any_environment(place: Path, name: str) -> None:
    """What does not need torch is quick; the rest of the path is above."""
    tour(LIGHT, place, ENVIRONMENTS[name])
    assert "Häuser" in (place / "new.yaml").read_text(encoding="utf-8")


def test_a_program_that_trusts_its_surroundings_fails_in_them(place: Path) -> None:
    """Negative controls: the encoding is ASCII, and a warning is an error."""
    with pytest.raises(AssertionError, match="UnicodeEncodeError"):
        tour((), place, ENVIRONMENTS["ASCII only"], first=r"print('\u2603')")
    with pytest.raises(AssertionError, match="UserWarning"):
        tour(
            (),
            place,
            ENVIRONMENTS["warnings are errors"],
            first="import warnings; warnings.warn('')",
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_found_again_from_its_config(segtool: Command, tmp_path: Path, name: str) -> None:
    folder, config = tmp_path / name, tmp_path / f"{name}.yaml"
    shutil.copytree(GOLDEN / "data", folder)
    assert segtool("init", folder, "--out", config).code == 0
    result = segtool("check", config)
    assert result.code == 0, result.err
    assert "4 train" in " ".join(result.out.split())


@pytest.mark.parametrize("command", [("doctor",), ("check", "data"), ("train", "/data")])
def test_a_current_folder_that_was_deleted_is_told(
    segtool: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """There Intel's library ends a process that imports torch, with exit code 2 and a sentence on itself."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = segtool(*command)
    assert (result.code, result.out) == (2, "")
    assert (
        result.err == "error: the current folder: No such file or directory, it was deleted or moved; cd to another\n"
    )
