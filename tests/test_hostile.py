"""Files, settings and names of a stranger: each ends at once, in the right error."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import yaml
from PIL import Image

from segtool.config import Sections, dump_config, load_config
from segtool.data.formats import read_list
from segtool.data.images import read_image
from segtool.data.masks import read_mask
from segtool.errors import ConfigError, DataError
from segtool.parsing import MAX_FAULTS
from segtool.yaml_io import MAX_BYTES, MAX_VALUES

COMMANDS = ("check", "train")
SECONDS = 1.0  # of processor time, in which a bomb is refused

LETTERS = "abcdefghijklmnopqrst"
LAUGHS = 'a: &a ["lol"]\n' + "".join(
    f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n" for before, after in pairwise(LETTERS)
)
BOMBS = {
    "aliases": (LAUGHS, "1: anchors"),
    "merge keys": ("a: 1\nb: {<<: {c: 1}}\n", "2: merge keys"),
    "brackets": ("a:\n  " + "[" * 10_000, "2: "),
    "braces": ("{a: " * 10_000, "1: nested deeper"),
    "dashes": ("- " * 10_000, "1: nested deeper"),
    "blocks": ("".join(f"{' ' * level}a:\n" for level in range(1000)), ": nested deeper"),
    "2 MiB": ("a: " + "b" * (2 << 20), "larger than 1 MiB"),
    "a long scalar": ("data: " + "b" * (MAX_BYTES - 10), "1: data: expected a mapping"),
    "a long number": ("train:\n  steps: " + "9" * 5000, "2: 9999"),
    "many values": ("data: [" + "a," * 400_000 + "]", f"1: more than {MAX_VALUES:,} values"),
    "many keys": ("".join(f"k{n}: 1\n" for n in range(19_000)), "19,000 problems"),
    "an object": ("a: 1\nb: !!python/object/apply:os.system [true]", "2: tags"),
    "a large float": ("optim:\n  lr: 1e400", "2: 1e400"),
    "two documents": ("a: 1\n---\nb: 2\n", "2: a second document"),
    "a list as a key": ("a: 1\n? [b]\n: 1\n", "2: a list or mapping as a key"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", BOMBS)
def test_a_yaml_bomb_is_a_config_error_with_its_line_within_a_second(segtool, tmp_path, kind, command):
    text, words = BOMBS[kind]
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    segtool("check", tmp_path / "nothing")  # what is imported on first use
    start = time.process_time()
    done = segtool(command, path)
    assert time.process_time() - start < SECONDS
    assert done.code == 2
    assert words in done.err
    assert len(done.err) < 40_000
    assert not any(path.parent.glob("runs"))


def test_a_plain_loader_is_hung_by_what_is_refused_here():
    """Negative control: PyYAML builds what the aliases stand for, already nine times more a line."""
    few = "".join(LAUGHS.splitlines(keepends=True)[:5])
    built = yaml.safe_load(few)
    assert len(str(built["e"])) > 9**4


def test_of_thousands_of_problems_the_first_are_worded_and_all_are_counted(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data:\n" + "".join(f"  k{n}: 1\n" for n in range(1000)))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert f"1,000 problems, of which these are the first {MAX_FAULTS}" in caught.value.problems[0]
    assert len([problem for problem in caught.value.problems if "unknown key" in problem]) == MAX_FAULTS


SETTINGS = [
    ".".join("a" * 10_000) + "=1",
    ".".join(["model", "encoder", *"a" * 900]) + "=1",
    "data.classes.99999999.name=x",
    f"data.classes.{'9' * 5000}.name=x",
    "data.classes.-1.name=x",
    "=1",
    "a..b=1",
    "a=[",
    "a=" + "[" * 10_000,
    "train.steps=1" + "0" * 4400,
    "train.steps=1000000000000000000",
    "train.epochs=1e300",
    "train.batch_size=9223372036854775807",
    "train.workers=100000",
    "augment.crop=[1000000000, 1000000000]",
    "data.channels=9223372036854775807",
    "\x1b[31m=1",
    "a=\udcff",
    "\udcff=1",
    "data=&a [*a]",
]


@pytest.fixture
def config_file(make_config: Callable[..., Any], tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(make_config()))
    return path


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: ascii(setting[:30]))
def test_a_hostile_set_is_a_config_error(segtool, config_file, setting):
    done = segtool("check", config_file, "--set", setting)
    assert done.code == 2
    assert "a bug of ours" not in done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize("widths", [[10**9, 10**9], [2**63 - 1, 4], [4, 0]])
def test_a_network_that_no_memory_holds_is_a_config_error(segtool, config_file, widths):
    done = segtool("inspect", config_file, "--set", f"model.encoder.channels={widths}")
    assert done.code == 2
    assert "model.encoder" in done.err


# --- typing errors, of every key


def keys_of(cls: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, hint in get_type_hints(cls).items():
        if name.startswith("_"):
            continue
        yield (*path, name)
        if hasattr(hint, "__dataclass_fields__") and hint.__name__ not in ("Component", "LossTerm"):
            yield from keys_of(hint, (*path, name))


def told(path: Path, names: tuple[str, ...]) -> list[str]:
    """Returns the problems of a file in which the last of the keys stands, each in a line of its own."""
    path.write_text("".join(f"{'  ' * level}{name}:\n" for level, name in enumerate(names)).rstrip("\n") + " 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return list(caught.value.problems)


@pytest.mark.parametrize("names", list(keys_of(Sections)), ids=".".join)
def test_every_key_misspelt_by_a_letter_is_told_with_its_line_and_what_was_meant(tmp_path, names):
    *section, word = names
    path = tmp_path / "c.yaml"
    wrong = word + word[-1]
    problems = told(path, (*section, wrong))
    expected = f"{path}:{len(names)}: {'.'.join((*section, wrong))}: unknown key; did you mean '{word}'?"
    assert expected in problems


def test_a_key_that_is_spelt_right_is_not_told_as_unknown(tmp_path):
    """Negative control of the test above."""
    assert not any("unknown key" in problem for problem in told(tmp_path / "c.yaml", ("train", "ema")))


# --- what is no file


def test_a_pipe_in_place_of_a_config_is_refused_and_not_waited_for(segtool, tmp_path):
    os.mkfifo(tmp_path / "c.yaml")
    done = segtool("check", tmp_path / "c.yaml")
    assert done.code == 2
    assert "is a pipe or a device" in done.err


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_in_place_of_a_config_or_list_is_refused(tmp_path, device):
    with pytest.raises(ConfigError, match="pipe or a device"):
        load_config(Path(device))
    with pytest.raises(DataError, match="is no regular file"):
        read_list(Path(device), tmp_path)


def test_a_pipe_in_place_of_a_list_or_image_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "a.png"
    os.mkfifo(path)
    for read in (lambda: read_list(path, tmp_path), lambda: read_image(path, channels=3), lambda: read_mask(path)):
        with pytest.raises(DataError, match="no regular file"):
            read()


LISTS = {
    "a cell of 200 kB": b"a.png,b.png\nc.png," + b"x" * 200_000,
    "a carriage return": b'a.png,b.png\nc.png,"d\re.png",f\n',
    "a name too long": b"a.png,b.png\n" + b"c" * 300 + b".png,d.png\n",
    "a path too long": b"a.png,b.png\n" + b"c/" * 5000 + b".png,d.png\n",
    "NUL": b"a.png,b.png\nc\0.png,d.png\n",
    "a quote left open": b'a.png,b.png\n"c.png,d.png\n',
    "a million columns": b"a.png" + b"," * 1_000_000,
    "no UTF-8": b"a.png,\xff\xfe.png\n",
    "only commas": b",,,\n,,,\n",
    "nothing": b"",
    "a binary": bytes(range(256)) * 50,
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_hostile_list_is_a_data_error_that_names_it(tmp_path, kind):
    path = tmp_path / "pairs.csv"
    path.write_bytes(LISTS[kind])
    with pytest.raises(DataError, match=r"pairs\.csv"):
        read_list(path, tmp_path)


@pytest.mark.parametrize("root", ["x" * 5000, "x/" * 3000, "/dev/null", "/proc/self/mem"])
def test_a_root_that_can_be_no_folder_is_an_error_of_config_or_data(segtool, config_file, root):
    done = segtool("train", config_file, "--dry-run", "--set", f'data.root="{root}"')
    assert done.code in (2, 3), done.err


# --- what libraries print


BROKEN_TIFF = """
import io, sys, zlib
from PIL import Image
import numpy as np
buffer = io.BytesIO()
Image.fromarray(np.arange(3000, dtype=np.uint8).reshape(50, 60)).save(buffer, "TIFF", compression="tiff_deflate")
content = bytearray(buffer.getvalue())
start = content.index(b"\\x78")
content[start + 20 : start + 40] = b"\\xff" * 20
"""


def test_libraries_print_nothing_of_a_broken_file(tmp_path, capfd):
    space: dict[str, Any] = {}
    exec(BROKEN_TIFF, space)
    path = tmp_path / "a.tif"
    path.write_bytes(space["content"])
    for read in (lambda: read_image(path, channels=1), lambda: read_mask(path)):
        with pytest.raises(DataError):
            read()
    assert capfd.readouterr() == ("", "")


def test_the_same_broken_file_makes_the_library_print_where_it_is_not_silenced():
    """Negative control: Pillow alone, in a process without segtool."""
    script = BROKEN_TIFF + "try:\n    Image.open(io.BytesIO(bytes(content))).load()\nexcept OSError:\n    pass\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "ZIPDecode" in done.stderr


# --- no network, no secrets


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Makes every way to another machine raise, and notes the tries."""
    tries: list[Any] = []
    real = socket.socket.__init__

    def refuse(*arguments: Any, **_: Any) -> Any:
        tries.append(arguments)
        raise AssertionError("no network")

    def guarded(self: socket.socket, family: int = -1, *rest: Any, **more: Any) -> None:
        if family in (-1, socket.AF_INET, socket.AF_INET6):
            refuse(family)
        real(self, family, *rest, **more)

    monkeypatch.setattr(socket.socket, "__init__", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    return tries


def test_training_scoring_and_predicting_open_no_connection(segtool, config_file, tiny_ds, tmp_path, offline):
    run = tmp_path / "run"
    for arguments in (
        ["train", config_file, "--run", run, "--set=train.steps=1", "--device=cpu"],
        ["eval", run, "--device=cpu"],
        ["predict", run, tiny_ds / "test" / "images", "--out", tmp_path / "masks", "--device=cpu"],
    ):
        done = segtool(*arguments)
        assert done.code == 0, done.err
    assert offline == []


def test_a_backbone_is_built_without_a_connection(segtool, config_file, offline):
    done = segtool("inspect", config_file, "--set", "model.encoder=resnet18")
    assert (done.code, offline) == (0, []), done.err


def test_the_guard_of_the_network_sees_a_connection(offline):
    """Negative control."""
    with pytest.raises(AssertionError, match="no network"):
        socket.create_connection(("127.0.0.1", 9))
    with pytest.raises(AssertionError, match="no network"):
        socket.socket()
    assert len(offline) == 2
    socket.socket(socket.AF_UNIX).close()


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_shows_neither_the_environment_nor_what_variables_hold(segtool, config_file, monkeypatch, capsys, debug):
    monkeypatch.setenv("API_TOKEN", "of-the-environment")

    def fail(*_: Any) -> Any:
        secret = "".join(("of-a-", "variable"))
        raise RuntimeError(f"broken after {len(secret)} letters")

    monkeypatch.setattr("segtool.session.load_any", fail)
    if debug:
        monkeypatch.setattr(sys, "argv", ["segtool", "check", str(config_file), "--debug"])
        from segtool import cli

        with pytest.raises(RuntimeError) as caught:
            cli.main()
        shown = "".join(traceback.format_exception(caught.value)) + "".join(capsys.readouterr())
        assert "in fail" in shown
    else:
        done = segtool("check", config_file)
        assert done.code == 1
        shown = done.out + done.err
    assert "broken after" in shown
    assert "of-the-environment" not in shown
    assert "of-a-variable" not in shown


# --- bombs of pixels


def peak_of(script: str, *arguments: str) -> int:
    """Returns by how many megabytes a process grows while it runs `script` after its imports."""
    head = (
        "import sys\nfrom pathlib import Path\nfrom segtool.data.images import read_image\n"
        "from segtool.data.masks import read_mask\nfrom segtool.errors import DataError\nimport tifffile\n"
        "def peak():\n    text = Path('/proc/self/status').read_text()\n"
        "    return int(text.partition('VmHWM:')[2].split()[0])\nbefore = peak()\n"
    )
    tail = "\nprint((peak() - before) // 1024)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + script + tail, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return int(done.stdout)


REFUSED = """
for name in sys.argv[1:]:
    for read in (lambda: read_image(Path(name), channels=3), lambda: read_mask(Path(name))):
        try:
            read()
        except DataError:
            continue
        raise SystemExit(name + " was read")
"""


def png_header(side: int) -> bytes:
    """Returns a PNG of `side` squared pixels whose data are those of 8 x 8."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_bombs_of_pixels_are_refused_and_take_no_memory(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for side in (15_000, 30_000, 60_000):
        (tmp_path / f"{side}.png").write_bytes(png_header(side))
    gif = io.BytesIO()
    Image.new("P", (8, 8)).save(gif, "GIF")
    (tmp_path / "canvas.gif").write_bytes(gif.getvalue()[:6] + b"\xff\xff\xff\xff" + gif.getvalue()[10:])
    tifffile.imwrite(tmp_path / "many.tif", np.zeros((50, 64, 64), np.uint8), photometric="minisblack")
    assert peak_of(REFUSED, *map(str, sorted(tmp_path.iterdir()))) < 300


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_the_measure_of_memory_sees_what_is_held():
    """Negative control."""
    assert peak_of("held = b'x' * 400_000_000") > 300


def test_a_name_of_an_image_cannot_leave_the_folder_of_predictions(tmp_path):
    from segtool.predict import list_jobs

    out = tmp_path / "masks"
    folder = tmp_path / "images"
    folder.mkdir()
    names = [
        "a\\..\\..\\x.png",
        "C:\\x.png",
        "CON.png",
        "[red].png",
        "=HYPERLINK().png",
        "\x1b]0;x\x07.png",
        "a\nb.png",
    ]
    names += ["y" * 251 + ".png", os.fsdecode(b"\xff.png")]
    for name in names:
        (folder / name).write_bytes(b"x")
    jobs = list_jobs([folder], out, overlays=True, probabilities=True)
    assert len(jobs) == len(names)
    for path in (path for job in jobs for path in job.outputs):
        assert os.path.normpath(path).startswith(f"{out}{os.sep}")


NAMES = {
    "labels.txt": "9" * 5000 + " cat\n1 dog\n",
    "labelmap.txt": "cat:" + "9" * 5000 + ",0,0::\ndog:1,1,1::\n",
    "label_colors.txt": f"{'9' * 5000} 0 0 cat\n",
    "dataset.json": '{"labels": {"\u00b2": "cat", "' + "9" * 5000 + '": "dog", "x": 7}}',
}


@pytest.mark.parametrize("file", NAMES)
def test_a_hostile_file_of_class_names_does_not_end_init(tmp_path, file):
    from segtool.data.names import find_names

    (tmp_path / file).write_text(NAMES[file], encoding="utf-8")
    find_names(tmp_path)


@pytest.mark.parametrize("size", ["9" * 5000 + "x1", "1x" + "9" * 5000, "\u00b2x1", "999999999999x999999999999"])
def test_a_hostile_size_is_wrong_usage(segtool, config_file, size):
    assert segtool("inspect", config_file, "--size", size).code == 2
