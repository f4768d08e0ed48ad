"""No network: the whole path runs where there is no interface at all, and asks the system for no internet socket."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ALONE = ("unshare", "--map-root-user", "--net")
"""Starts a program in a network of its own, in which not even the loopback is up."""
NOTE = ("strace", "-f", "-qq", "-e", "trace=socket", "-o")
"""Writes each socket that a program, or one that it starts, asks for into the file that follows."""


@cache
def works(*command: str) -> bool:
    """Whether a program can be run behind a command here."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, sys.executable, "-c", ""], capture_output=True, timeout=120).returncode == 0


@pytest.fixture(autouse=True, scope="module")
def _allowed() -> None:
    """Skips all where the system lets nobody make a network."""
    if not works(*ALONE):
        pytest.skip("a network of its own is not allowed to a program here (unshare --map-root-user --net)")


def run_alone(notes: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs Python without a network, in the folder of `notes`, and notes there what sockets are asked for."""
    noted = [*NOTE, str(notes)] if works(*NOTE, "/dev/null") else []
    command = [*noted, *ALONE, sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=notes.parent, capture_output=True, text=True, timeout=900)


def internet_sockets(*notes: Path) -> list[str]:
    """Returns what was asked for."""
    if not works(*NOTE, "/dev/null"):
        pytest.skip("strace is not here, or may not trace")
    return [line for path in notes for line in path.read_text().splitlines() if "AF_INET" in line]


@pytest.fixture(scope="module")
def travelled(tiny_ds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which init, train with a loading process, eval and predict have run alone."""
    folder = tmp_path_factory.mktemp("alone")
    train = ("--set=train.steps=2", "--set=train.batch_size=2", "--set=train.workers=1")
    for command, arguments in {
        "init": (tiny_ds, "--out", "config.yaml"),
        "train": ("config.yaml", "--run", "run", "--device=cpu", *train),
        "eval": ("run", "--device=cpu"),
        "predict": ("run", tiny_ds / "test" / "images", "--out", "masks", "--device=cpu"),
    }.items():
        done = run_alone(folder / f"{command}.notes", "-m", "segtool", command, *arguments)
        assert done.returncode == 0, done.stderr
    return folder


def test_the_whole_path_works_where_there_is_no_network(travelled):
    assert len(list((travelled / "masks").glob("*.png"))) == 2


def test_nothing_on_the_way_asks_for_a_socket_of_the_internet(travelled):
    commands = ("init", "train", "eval", "predict")
    assert internet_sockets(*(travelled / f"{command}.notes" for command in commands)) == []


CALL = """
import socket
with socket.socket() as asked:
    try:
        asked.connect(("127.0.0.1", 9))
    except OSError as error:
        print(error.errno)
"""


@pytest.mark.parametrize("within", [False, True])
def test_a_program_that_calls_another_fails_and_is_noted(tmp_path, within):
    """Negative control; `within`: in a process that the program starts, as one that loads images is."""
    started = ["-c", "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"] if within else []
    done = run_alone(tmp_path / "notes", *started, "-c", CALL)
    assert done.stdout == f"{errno.ENETUNREACH}\n"
    assert len(internet_sockets(tmp_path / "notes")) == 1
