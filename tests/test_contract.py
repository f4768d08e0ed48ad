"""The command line as a contract: every command explains itself, refuses what is wrong, and keeps its streams clean."""

from __future__ import annotations

import ast
import difflib
import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, snapshot
from rich.console import Console
from surface import SURFACE, commands, surface

from segtool import __version__, cli
from segtool.commands import sources
from segtool.system import streams, terminal

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).with_name("golden") / "format-1"
COMMANDS = dict(commands())
QUICK = ("--set=train.steps=2", "--set=train.batch_size=2", "--set=train.workers=0", "--set=train.compile=false")
SMALL = ("--set=model.encoder.channels=[4, 8]", "--set=augment.crop=[16, 16]", *QUICK)
COLOUR = re.compile(r"\x1b\[[0-9;]*[34][0-9]")
HEAVY = ("torch", "torchvision", "numpy", "PIL", "yaml")
# What each command is given where everything is in order; {} stands for a folder with data, a run and room for more.
TOUR: dict[str, tuple[str, ...]] = {
    "init": ("{}/data", "--out", "{}/out/new.yaml"),
    "check": ("{}/data",),
    "train": ("{}/data", "--run", "{}/out/run", *SMALL),
    "eval": ("{}/unet",),
    "predict": ("{}/unet", "{}/data/test/images", "--out", "{}/out/masks"),
    "inspect": ("{}/unet",),
    "list": ("decoders",),
    "config show": ("{}/unet",),
    "config schema": (),
    "doctor": (),
}
READING: dict[str, tuple[str, ...]] = {
    "train --dry-run": ("train", "{}/data", "--dry-run", *SMALL),
    "train --run --dry-run": ("train", "{}/unet/config.yaml", "--run", "{}/out/run", "--dry-run", *QUICK),
    "train --resume --dry-run": ("train", "{}/unet", "--resume", "--dry-run"),
    "check": ("check", "{}/data"),
    "inspect": ("inspect", "{}/unet"),
    "inspect --measure": ("inspect", "{}/unet", "--measure"),
    "list": ("list", "losses"),
    "config show": ("config", "show", "{}/data"),
    "doctor": ("doctor",),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with data, the run `unet` and a folder `out`."""
    for name in ("data", "unet"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
    (tmp_path / "out").mkdir()
    return tmp_path


def filled(arguments: tuple[str, ...], place: Path) -> list[str]:
    return [argument.replace("{}", str(place)) for argument in arguments]


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Runs segtool as its users do, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    words = [sys.executable, "-m", "segtool", *arguments]
    return subprocess.run(words, env=environment, timeout=120, **{"stderr": subprocess.PIPE, **options})


# --- help and usage


def test_help_of_every_command_loads_nothing_that_takes_time() -> None:
    code = (
        "import sys\n"
        "from segtool.cli import app\n"
        f"for words in {[*COMMANDS, 'config', '']!r}:\n"
        "    assert app([*words.split(), '--help'], prog_name='segtool', standalone_mode=False) in (0, None), words\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.strip() == "[]"
    assert done.stdout.count("Usage: segtool") == len(COMMANDS) + 2


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_option_exits_with_2_and_is_named(segtool: Command, command: str) -> None:
    result = segtool(*command.split(), "--no-such-option")
    assert (result.code, result.out) == (2, "")
    assert "--no-such-option" in result.err


@pytest.mark.parametrize("command", [name for name, found in COMMANDS.items() if any(p.required for p in found.params)])
def test_a_missing_argument_exits_with_2_and_is_named(segtool: Command, command: str) -> None:
    result = segtool(*command.split())
    assert (result.code, result.out) == (2, "")
    assert "Missing" in result.err


def test_a_command_or_option_that_is_misspelt_is_suggested(segtool: Command) -> None:
    assert "train" in segtool("trian").err
    assert "--resume" in segtool("train", "--resum").err


def test_the_version_is_told_without_a_command(segtool: Command) -> None:
    result = segtool("--version")
    assert (result.code, result.out, result.err) == (0, f"segtool {__version__}\n", "")


# --- standard output and standard error


@pytest.mark.parametrize("command", TOUR)
def test_what_goes_into_a_pipe_is_plain_text_without_escapes_or_carriage_returns(
    segtool: Command, place: Path, command: str
) -> None:
    result = segtool(*command.split(), *filled(TOUR[command], place))
    assert result.code == 0, result.err
    for text in (result.out, result.err):
        assert "\x1b" not in text
        assert "\r" not in text
        assert "Traceback" not in text


def test_the_tour_leaves_out_no_command() -> None:
    assert {*TOUR, "demo"} == set(COMMANDS)  # `demo` runs five of the others; it has a test of its own


def with_option(option: str) -> list[str]:
    return [name for name, found in COMMANDS.items() if any(option in p.opts for p in found.params)]


@pytest.mark.parametrize("command", [name for name in with_option("--quiet") if name != "demo"])
def test_quiet_leaves_warnings_and_results_only(segtool: Command, place: Path, command: str) -> None:
    result = segtool(*command.split(), *filled(TOUR[command], place), "--quiet")
    assert result.code == 0
    said = [line for line in result.err.splitlines() if not line.startswith(("warning: ", "per image: "))]
    assert said == []


@pytest.mark.parametrize("command", with_option("--json"))
def test_json_is_one_document_and_the_rest_goes_to_standard_error(segtool: Command, place: Path, command: str) -> None:
    result = segtool(*command.split(), *filled(TOUR[command], place), "--json")
    assert result.code == 0
    assert json.loads(result.out)


@pytest.mark.parametrize("command", with_option("--json"))
@pytest.mark.parametrize("wrong", ["missing", "damaged"])
def test_json_of_a_failure_is_nothing_or_one_document(segtool: Command, place: Path, command: str, wrong: str) -> None:
    if wrong == "damaged":
        (place / "data" / "test" / "images" / "0.png").write_bytes(b"")
        for path in (place / "unet").rglob("*.safetensors"):
            path.write_bytes(b"")
        (place / "unet" / "config.yaml").write_text("data: [")
    else:
        shutil.rmtree(place / "unet")
        shutil.rmtree(place / "data")
    words = ["none"] if command == "list" else filled(TOUR[command], place)
    result = segtool(*command.split(), *words, "--json")
    assert result.code in (2, 3, 4)
    if result.out:
        json.loads(result.out)
    assert result.out or result.err.startswith("error: ")


def test_json_with_a_score_below_its_limit_is_still_one_document(segtool: Command, place: Path) -> None:
    result = segtool("eval", place / "unet", "--json", "--fail-under", "miou=1")
    assert result.code == 6
    assert json.loads(result.out)["split"] == "test"


def test_a_reader_that_has_seen_enough_changes_neither_the_exit_code_nor_what_is_done(place: Path) -> None:
    for arguments, code in ((("config", "schema"), 0), (("--help",), 0), (("check", f"{place}/data", "--strict"), 3)):
        read, write = os.pipe()
        os.close(read)
        done = program(*arguments, stdout=write)
        os.close(write)
        assert (done.returncode, done.stderr) == (code, b""), arguments


@pytest.mark.slow
def test_the_work_goes_on_where_nobody_reads_what_it_says(place: Path) -> None:
    """Both streams of a run are left, as when its terminal is closed or `2>&1 | head` has ended."""
    read, write = os.pipe()
    os.close(read)
    done = program("train", f"{place}/data", f"--run={place}/out/run", *SMALL, stdout=write, stderr=write)
    os.close(write)
    assert done.returncode == 0
    assert "next: segtool eval" in (place / "out" / "run" / "train.log").read_text()


@pytest.mark.parametrize(("closed", "code"), [("<&-", 3), (">&-", 3), ("2>&-", 3), ("<&- >&- 2>&-", 3)])
def test_a_closed_stream_is_no_bug_and_no_file_takes_its_place(place: Path, closed: str, code: int) -> None:
    command = f'"$0" -m segtool check "$1" --strict --json {closed}'
    words = ["sh", "-c", command, sys.executable, f"{place}/data"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stderr == ""
    if ">" not in closed or closed == "2>&-":
        json.loads(done.stdout)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_results_that_a_full_disk_does_not_take_exit_with_4() -> None:
    with open("/dev/full", "wb") as full:
        for words in (("config", "schema"), ("--version",)):  # more than a buffer holds, and less
            done = program(*words, stdout=full)
            assert done.returncode == 4
            told = done.stderr.decode()
            assert told.startswith("error: standard output: cannot be written (No space left on device)")
        assert program("list", "nothing", stdout=subprocess.DEVNULL, stderr=full).returncode == 2


def test_streams_left_as_python_makes_them_break_the_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without `secure` a reader that is gone ends the work."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", buffering=1) as plain:
        with pytest.raises(BrokenPipeError):
            os.write(write, b"x")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", plain)
            patch.setattr(sys, "__stderr__", plain)
            streams.secure()
            print("x", file=sys.stderr, flush=True)
            os.write(write, b"x")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_each_line_of_standard_error_comes_out_when_it_is_written(unbuffered: str) -> None:
    code = (
        "import os, sys; from segtool.system import streams; streams.secure(); "
        "print('first', file=sys.stderr); os.write(2, b'second\\n')"
    )
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert done.stderr == "first\nsecond\n"


def test_a_character_that_the_terminal_does_not_have_is_escaped(place: Path) -> None:
    folder = place / "häuser \N{SNOWMAN}"
    (place / "data").rename(folder)
    for arguments in (("check", str(folder)), ("init", str(folder), "--out", f"{folder}.yaml")):
        done = program(*arguments, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
        assert done.returncode == 0, done.stderr
        (done.stdout + done.stderr).decode("ascii")
    assert Path(f"{folder}.yaml").exists()


@pytest.mark.parametrize("arguments", [("list", "nothing"), ("check", "{}/data")])
def test_colour_is_for_terminals_that_want_it(place: Path, arguments: tuple[str, ...]) -> None:
    plain, bare, styled = (
        in_terminal(*filled(arguments, place), TERM=term, NO_COLOR=asked)
        for term, asked in (("xterm-256color", "1"), ("dumb", ""), ("xterm-256color", ""))
    )
    assert not COLOUR.search(plain)
    assert "\x1b" not in bare
    assert "\x1b[" in styled  # negative control: the terminal is taken for one


@pytest.mark.parametrize("command", ["init", "check", "config show", "train"])
def test_the_first_look_at_a_data_folder_shows_how_far_it_is(
    segtool: Command, place: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(terminal, "PLAIN_SECONDS", -1)
    more = {"init": ["--out", f"{place}/new.yaml"], "train": filled(READING["train --dry-run"][2:], place)}
    done = segtool(*command.split(), place / "data", *more.get(command, []))
    count = len([*(place / "data").rglob("*.png")])
    assert f"looking at the data: {count} of {count} files\n" in done.err
    if command == "train":
        assert segtool("train", place / "data", *more["train"], "--quiet").err.count("looking") == 0


def in_terminal(*arguments: str, **environment: str) -> str:
    """Returns what a terminal is sent."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "segtool", *arguments],
        env={**os.environ, **environment},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(master)
    process.wait(60)
    return shown.decode()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_lines_end_between_words_in_a_terminal_alone_and_commands_stay_whole(is_terminal: bool) -> None:
    reporter = terminal.Reporter()
    reporter.console = Console(file=io.StringIO(), force_terminal=is_terminal, width=20, highlight=False)
    reporter.say("a line longer than the terminal is\nnext: segtool eval runs/cells-1 --split val")
    first = ["a line longer than", "the terminal is"] if is_terminal else ["a line longer than the terminal is"]
    told = [line.rstrip() for line in reporter.console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert told == [*first, "next: segtool eval runs/cells-1 --split val"]


def test_a_narrow_terminal_cuts_no_score_short_and_no_word_apart(place: Path) -> None:
    told = COLOUR.sub("", in_terminal("eval", str(place / "unet"), TERM="xterm", NO_COLOR="1", COLUMNS="40"))
    table, _, text = told.replace("\r", "").partition("From one")
    scores = json.loads(program("eval", str(place / "unet"), "--json", stdout=subprocess.PIPE).stdout)
    assert all(f"{100 * one['recall']:.2f}" in table for one in scores["classes"] if one["recall"] is not None)
    assert "…" not in table
    assert max(map(len, text.partition("per image")[0].splitlines())) <= 40
    assert "confusion matrix over" in " ".join(text.split())


@pytest.mark.parametrize("width", ["20", "0", "1000", "wide"])
def test_any_width_of_the_terminal_will_do(segtool: Command, place: Path, monkeypatch: Any, width: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    for command in ("check", "inspect", "list", "config show", "eval"):
        assert segtool(*command.split(), *filled(TOUR[command], place)).code == 0, command


# --- errors


@pytest.mark.parametrize("place_of_debug", ["first", "last"])
def test_a_traceback_is_shown_with_debug_and_never_without(
    segtool: Command, monkeypatch: pytest.MonkeyPatch, place_of_debug: str
) -> None:
    assert "Traceback" not in segtool("check", "nowhere").err
    words = ["--debug", "check", "nowhere"] if place_of_debug == "first" else ["check", "nowhere", "--debug"]
    done = program(*words)
    assert b"Traceback" in done.stderr
    assert b"nowhere: no such file or folder" in done.stderr


def test_a_bug_of_ours_exits_with_1_and_asks_to_report_it_with_debug(
    segtool: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a quotient")

    monkeypatch.setattr(sources, "load_any", broken)
    result = segtool("check", "anything")
    assert (result.code, result.out) == (1, "")
    assert "a bug of ours: ZeroDivisionError: a quotient" in result.err
    assert "--debug" in result.err
    assert "report" in result.err
    assert "Traceback" not in result.err


def test_no_assert_does_what_is_lost_without_it() -> None:
    """Python leaves them out with -O: none may do anything but look."""
    found = 0
    for path in (ROOT / "segtool").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                found += 1
                calls = [part for part in ast.walk(node.test) if isinstance(part, ast.Call)]
                changing = [ast.unparse(call) for call in calls if ast.unparse(call.func) not in PURE]
                assert changing == [], f"{path}:{node.lineno}: an assert that does something"
    assert found > 10, "the scan itself must see some"


PURE = {"isinstance", "len", "set", "all", "any", "type", "math.isfinite"}


# --- what only reads


@pytest.fixture
def homes(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Current folder, home and temporary folder within `place`, so that whatever is written is seen."""
    for name, variable in (("home", "HOME"), ("temporary", "TMPDIR"), ("cache", "XDG_CACHE_HOME")):
        (place / name).mkdir()
        monkeypatch.setenv(variable, str(place / name))
    (place / "here").mkdir()
    monkeypatch.chdir(place / "here")
    monkeypatch.setattr("tempfile.tempdir", None)
    yield place
    monkeypatch.setattr("tempfile.tempdir", None)


def check_unchanged(segtool: Command, place: Path, name: str) -> None:
    before = snapshot(place)
    result = segtool(*filled(READING[name], place))
    assert result.code == 0, result.err
    after = snapshot(place)
    for found in (before, after):
        del found["temporary"]  # what came and went there moves its own time of change
        found.pop("cache", None)  # in which the facts of files are kept, where the data is looked at
        for path in [path for path in found if path.startswith(("temporary/torchinductor", "cache/segtool"))]:
            del found[path]  # torch makes its own cache where it is imported
    assert after == before


@pytest.mark.parametrize("name", READING)
def test_what_only_reads_changes_no_byte_and_no_time_anywhere(segtool: Command, homes: Path, name: str) -> None:
    check_unchanged(segtool, homes, name)


@pytest.mark.parametrize("name", ["check", "train --resume --dry-run"])
def test_a_command_that_leaves_a_file_is_seen(segtool: Command, homes: Path, name: str, monkeypatch: Any) -> None:
    """Negative control."""
    monkeypatch.setattr(cli.streams, "secure", lambda: Path("left").touch())
    with pytest.raises(AssertionError):
        check_unchanged(segtool, homes, name)


# --- the surface


def test_the_surface_is_what_was_agreed(tmp_path: Path) -> None:
    """Options, exit codes, JSON keys and config keys; what depends on them breaks with them."""
    was = SURFACE.read_text(encoding="utf-8")
    now = surface(tmp_path)
    change = "".join(difflib.unified_diff(was.splitlines(True), now.splitlines(True), "agreed", "now", n=1))
    assert not change, f"the surface has changed:\n{change}\nif that is meant: python tests/surface.py; CHANGELOG.md"
