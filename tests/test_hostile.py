"""Files, settings and names of a stranger: each ends at once, in the right error."""

from __future__ import annotations

import csv
import io
import os
import pickle
import resource
import shutil
import socket
import struct
import subprocess
import sys
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import sign
from PIL import Image
from pngs import chunk
from reading import image_size, read_image, read_mask
from safetensors.torch import load_file, save_file

from segtool.config import Folders, dump_config, load_config
from segtool.config.parsing import MAX_FAULTS
from segtool.config.yaml_io import MAX_BYTES, MAX_VALUES
from segtool.data.lists import read_list
from segtool.errors import CheckpointError, ConfigError, DataError
from segtool.models.encoders import Pretrained
from segtool.models.segmenter import build_model
from segtool.models.torchvision_encoders import ResNet18
from segtool.models.weights import read_weights
from segtool.prediction.predict import build_predictor
from segtool.runs import checkpoint
from segtool.runs.checkpoint import Progress, TrainState
from segtool.training.optim import build_optimizer

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
        read_list(Folders(list=device), tmp_path)


def test_a_pipe_in_place_of_a_list_or_image_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "a.png"
    os.mkfifo(path)
    for read in (
        lambda: read_list(Folders(list=str(path)), tmp_path),
        lambda: read_image(path, channels=3),
        lambda: read_mask(path),
    ):
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
        read_list(Folders(list=str(path)), tmp_path)


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

    def fail(*_: Any, **__: Any) -> Any:
        secret = "".join(("of-a-", "variable"))
        raise RuntimeError(f"broken after {len(secret)} letters")

    monkeypatch.setattr("segtool.commands.sources.load_any", fail)
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
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pathlib import Path\n"
        "from reading import read_image, read_mask\nfrom segtool.errors import DataError\nimport tifffile\n"
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


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """Returns a PNG of 8 x 8 with more chunks, each a kind and a body, before its pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    more = b"".join(chunk(kind, body) for kind, body in chunks)
    return buffer.getvalue()[:33] + more + buffer.getvalue()[33:]


def tiff_of(data: bytes, **tags: int) -> bytes:
    """Returns a TIFF of 8 x 8 pixels of five bytes, all in `data`; `t256=9` sets the tag 256, 0 drops it."""
    values = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 5, 278: 8, 279: len(data)}
    values |= {int(tag[1:]): value for tag, value in tags.items()}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()) if value]
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    return head + data + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


TILED = {"t273": 0, "t278": 0, "t279": 0, "t324": 8, "t325": 320}


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"t32997": 2**20}, "holds 1048576 slices"),
        ({**TILED, "t322": 2**14, "t323": 2**14}, "tiles of 16384 x 16384 pixels in an image of 8 x 8"),
        ({**TILED, "t322": 2**30, "t323": 2**30}, "tiles of 1073741824 x 1073741824 pixels"),
        ({"t256": 4096, "t257": 4096, "t258": 64, "t278": 4096, "t339": 3}, "floating-point samples of 64 bits"),
        ({"t258": 12}, "whole-number samples of 12 bits"),
        ({"t339": 2}, "signed samples of 8 bits"),
    ],
)
def test_a_tiff_that_takes_a_decoder_more_than_its_pixels_is_refused(tmp_path, tags, words):
    (tmp_path / "a.tif").write_bytes(tiff_of(bytes(320), **tags))
    with pytest.raises(DataError, match=words):
        read_image(tmp_path / "a.tif", channels=5)


def test_a_tiff_of_five_samples_and_one_tile_is_read(tmp_path):
    """Negative control of the test above."""
    pytest.importorskip("tifffile")
    (tmp_path / "strip.tif").write_bytes(tiff_of(bytes(320)))
    (tmp_path / "tile.tif").write_bytes(tiff_of(bytes(1280), **{**TILED, "t322": 16, "t323": 16, "t325": 1280}))
    for name in ("strip.tif", "tile.tif"):
        assert read_image(tmp_path / name, channels=5).shape == (8, 8, 5)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_bombs_of_pixels_are_refused_and_take_no_memory(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for side in (15_000, 30_000, 60_000):
        (tmp_path / f"{side}.png").write_bytes(png_header(side))
    gif = io.BytesIO()
    Image.new("P", (8, 8)).save(gif, "GIF")
    (tmp_path / "canvas.gif").write_bytes(gif.getvalue()[:6] + b"\xff\xff\xff\xff" + gif.getvalue()[10:])
    tifffile.imwrite(tmp_path / "many.tif", np.zeros((50, 64, 64), np.uint8), photometric="minisblack")
    packed = np.zeros((60_000, 3_750), np.uint8)
    tifffile.imwrite(tmp_path / "deflate.tif", packed, compression="zlib", rowsperstrip=60_000)
    webp = io.BytesIO()
    Image.new("RGB", (4, 4)).save(webp, "WEBP", lossless=True)
    size = webp.getvalue().index(b"VP8L") + 9
    canvas = webp.getvalue()[:size] + (2**28 - 1).to_bytes(4, "little") + webp.getvalue()[size + 4 :]
    (tmp_path / "canvas.webp").write_bytes(canvas)
    packed_text = zlib.compress(bytes(400_000_000))
    text = zlib.compress(bytes(1_000_000))
    (tmp_path / "texts.png").write_bytes(png_with(*[(b"zTXt", b"a\0\0" + text)] * 500))
    for kind, head in ((b"iCCP", b"a\0\0"), (b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
        (tmp_path / f"{kind.decode()}.png").write_bytes(png_with((kind, head + packed_text)))
    assert peak_of(REFUSED, *map(str, sorted(tmp_path.iterdir()))) < 300


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_the_measure_of_memory_sees_what_is_held():
    """Negative control."""
    assert peak_of("held = b'x' * 400_000_000") > 300


def test_a_name_of_an_image_cannot_leave_the_folder_of_predictions(tmp_path):
    from segtool.prediction.predicted_files import list_jobs

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
        assert is_within(path, out)
    assert not is_within(out / "../x.png", out), "negative control"
    assert not is_within(out / "/x.png", out), "negative control"


def is_within(path: Path, folder: Path) -> bool:
    return os.path.normpath(path).startswith(f"{folder}{os.sep}")


STEMS = ["=HYPERLINK(1)", "\x1b]0;x\x07", "a\nb", "[red]x[blue]", "C:\\x", "y" * 251, os.fsdecode(b"\xff")]


def test_hostile_names_do_nothing_in_the_tables_of_eval(segtool, config_file, tmp_path):
    for folder in ("found", "truth"):
        (tmp_path / folder).mkdir()
        for stem in STEMS:
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / folder / f"{stem}.png", "PNG")
    given = ("--predictions", tmp_path / "found", "--masks", tmp_path / "truth", "--config", config_file)
    done = segtool("eval", *given, "--csv", tmp_path / "t.csv")
    assert done.code == 0, done.err
    text = (tmp_path / "t.csv").read_bytes().decode()
    assert is_inert(done.out + done.err)
    assert is_inert(text)
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == len(STEMS) + 1
    assert {len(row) for row in rows} == {len(rows[0])}
    assert not any(row[0].startswith(("=", "+", "-", "@")) for row in rows)
    assert not is_inert("".join(STEMS)), "negative control"


def is_inert(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


NAMES = {
    "labels.txt": "9" * 5000 + " cat\n1 dog\n",
    "labelmap.txt": "cat:" + "9" * 5000 + ",0,0::\ndog:1,1,1::\n",
    "label_colors.txt": f"{'9' * 5000} 0 0 cat\n",
    "dataset.json": '{"labels": {"\u00b2": "cat", "' + "9" * 5000 + '": "dog", "x": 7}}',
}


@pytest.mark.parametrize("file", NAMES)
def test_a_hostile_file_of_class_names_does_not_end_init(tmp_path, file):
    from segtool.init.names import find_names

    (tmp_path / file).write_text(NAMES[file], encoding="utf-8")
    find_names(tmp_path)


@pytest.mark.parametrize("size", ["9" * 5000 + "x1", "1x" + "9" * 5000, "\u00b2x1", "999999999999x999999999999"])
def test_a_hostile_size_is_wrong_usage(segtool, config_file, size):
    assert segtool("inspect", config_file, "--size", size).code == 2


# --- weights and checkpoints


class Trap:
    """Makes the file that it is given when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return Path.touch, (self.sentinel,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
def test_a_pickle_of_pretrained_weights_is_refused_and_never_run(tmp_path, suffix):
    sentinel = tmp_path / "owned"
    path = tmp_path / f"weights{suffix}"
    contents = [pickle.dumps({"conv1.weight": Trap(sentinel)}, protocol=protocol) for protocol in (0, 2, 5)]
    saved = io.BytesIO()
    torch.save({"conv1.weight": Trap(sentinel)}, saved)
    for content in (*contents, saved.getvalue()):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read as weights") as caught:
            read_weights(path)
        assert "False" not in str(caught.value), "torch recommends to run it"
    assert not sentinel.exists()
    torch.load(io.BytesIO(saved.getvalue()), weights_only=False)
    assert sentinel.exists()  # the payload works where it is unpickled


def test_a_whole_network_in_place_of_its_weights_is_refused_without_the_advice_to_run_it(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"cannot be read as weights \(it is not of tensors alone"):
        read_weights(tmp_path / "w.pth")


def test_a_training_from_a_pickle_ends_with_4_before_it_begins(segtool, config_file, tmp_path):
    torch.save({"conv1.weight": Trap(tmp_path / "owned")}, tmp_path / "w.pth")
    settings = ("model.encoder={name: resnet18, weights: w.pth}", "augment.crop=[32, 32]")
    done = segtool("train", config_file, "--dry-run", *(f"--set={setting}" for setting in settings))
    assert done.code == 4, done.err
    assert not (tmp_path / "owned").exists()


def of_floats(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], dict[Any, Any]]:
    return lambda state: {k: change(v) if v.is_floating_point() else v for k, v in state.items()}


ODD_WEIGHTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "numbers as names": lambda state: dict(enumerate(state.values())),
    "no values": of_floats(lambda v: v.to("meta")),
    "complex": of_floats(lambda v: v.to(torch.complex64)),
    "8 bits": of_floats(lambda v: v.to(torch.float8_e4m3fn)),
    "whole numbers": of_floats(lambda v: v.to(torch.int8)),
    "one value for all": of_floats(lambda v: torch.zeros(1).expand(v.shape)),
    "more than any memory": lambda state: {**state, "conv1.weight": torch.zeros(1).expand(10**6, 3, 10**6)},
    "sparse": lambda state: {**state, "conv1.weight": state["conv1.weight"].to_sparse()},
    "not finite": of_floats(lambda v: v * float("inf")),
    "deep": lambda state: {"state_dict": {"state_dict": {"model": state}}},
    "nothing": lambda state: {},
}


@pytest.fixture(scope="module")
def resnet() -> Any:
    return ResNet18(3)


def load_weights(encoder: Any, path: Path) -> None:
    encoder.load(Pretrained(path.name, lambda: read_weights(path), (), ()))


@pytest.mark.parametrize("kind", ODD_WEIGHTS)
def test_weights_that_are_no_plain_numbers_are_refused(resnet, tmp_path, kind):
    torch.save(ODD_WEIGHTS[kind](resnet.network.state_dict()), tmp_path / "w.pth")
    with pytest.raises((CheckpointError, ConfigError), match=r"w\.pth"):
        load_weights(resnet, tmp_path / "w.pth")


@pytest.mark.parametrize("change", [of_floats(lambda v: v), of_floats(lambda v: v.bfloat16())])
def test_plain_weights_are_loaded(resnet, tmp_path, change):
    """Negative control of the test above."""
    torch.save(change(resnet.network.state_dict()), tmp_path / "w.pth")
    load_weights(resnet, tmp_path / "w.pth")


def test_weights_that_a_few_bytes_unpack_to_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1_000_000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "w.pth", "w") as packed:
        for item in plain.infolist():
            packed.writestr(item.filename, plain.read(item), zipfile.ZIP_DEFLATED)
    assert torch.load(tmp_path / "w.pth", weights_only=True)["conv1.weight"].numel() == 1_000_000  # torch unpacks it
    with pytest.raises(CheckpointError, match="bytes that unpack to"):
        read_weights(tmp_path / "w.pth")


class Large:
    """Becomes 16 GB of zeros when it is unpickled, by torch's safe reader too; less may fit into what tests leave."""

    def __reduce__(self) -> Any:
        return bytearray, (2**34,)


def of_a_large_storage(path: Path) -> None:
    """Writes weights in the oldest format whose 77 numbers say that they are 2^30."""
    torch.save({"conv1.weight": torch.zeros(77)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"K\x4d") == 2  # of the storage and of the tensor
    path.write_bytes(content.replace(b"K\x4d", b"J" + (2**30).to_bytes(4, "little")))


LARGE_WEIGHTS: dict[str, Callable[[Path], object]] = {
    "an archive": lambda path: torch.save({"conv1.weight": Large()}, path),
    "the oldest format": lambda path: torch.save({"conv1.weight": Large()}, path, _use_new_zipfile_serialization=False),
    "a storage": of_a_large_storage,
}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="bounded on Linux alone")
@pytest.mark.parametrize("kind", LARGE_WEIGHTS)
def test_weights_of_a_few_bytes_that_ask_for_much_memory_are_refused(tmp_path, kind):
    LARGE_WEIGHTS[kind](tmp_path / "w.pth")
    assert (tmp_path / "w.pth").stat().st_size < 10_000
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(CheckpointError, match=r"w\.pth: cannot be read as weights \(it asks for more memory"):
        read_weights(tmp_path / "w.pth")
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize(
    "weights", ["x" * 5000 + ".pth", "~nobody-of-this-name/w.pth", "/dev/zero", "a\0.pth", "pipe.pth"]
)
def test_a_path_that_can_be_no_file_of_weights_is_a_config_error(tmp_path, weights):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ConfigError):
        ResNet18(3, weights=weights).pretrained(tmp_path)


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory: pytest.TempPathFactory, tiny_ds: Path) -> Path:
    """A run with a checkpoint of its first step, after which nothing was trained."""
    from conftest import config_of

    run = tmp_path_factory.mktemp("saved") / "run"
    config = config_of(tiny_ds, data={"mean": [0.5] * 3, "std": [0.5] * 3, "mask_mode": "L"})
    model = build_model(config.model, 3)
    optimizer = build_optimizer(model, config.optim)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    checkpoint.save(run / "checkpoints", TrainState(model, None, optimizer), config, Progress(step=1, steps=7))
    return run


def forged(run: Path, target: Path, *, config: dict[str, Any], **tensors: Callable[[dict[str, Any]], Any]) -> Path:
    """Returns a copy of a checkpoint with other settings and tensors, whose manifest fits."""
    path = target / "step-00000001"
    shutil.copytree(run / "checkpoints" / path.name, path)
    plain = yaml.safe_load((path / "config.yaml").read_text())
    for part, options in config.items():
        plain["model"][part] = {**plain["model"][part], **options}
    (path / "config.yaml").write_text(yaml.safe_dump(plain))
    for name, change in tensors.items():
        file = path / f"{name}.safetensors"
        save_file(change(load_file(file)), file)
    sign(path)
    return path


def test_a_resume_looks_at_the_weights_before_it_builds_the_network(segtool, config_file, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert segtool("train", config_file, "--run", run, "--set=train.steps=1", "--device=cpu").code == 0
    for path in (run / "checkpoints").iterdir():
        model = load_file(path / "model.safetensors")
        save_file(SPOILED["not numbers"](model), path / "model.safetensors")
        sign(path)
    monkeypatch.setattr("segtool.training.training_step.build_training", lambda *_, **__: pytest.fail("it is built"))
    done = segtool("train", run, "--resume", "--set=train.steps=2", "--device=cpu")
    assert done.code == 4, done.err
    assert "not finite" in done.err


HUGE: dict[str, dict[str, Any]] = {
    "wide": {"encoder": {"channels": [1_000_000, 8]}},
    "wide and deep": {"encoder": {"channels": [40_000] * 10}},
    "a large kernel": {"decoder": {"upsample": {"name": "transposed", "kernel": 100_000}}},
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_checkpoint_whose_config_is_of_a_huge_network_is_refused_before_it_is_built(
    saved_run, tmp_path, kind, monkeypatch
):
    monkeypatch.setattr("segtool.prediction.predict.assemble", lambda *_: pytest.fail("it is built"))
    found = checkpoint.load(forged(saved_run, tmp_path, config=HUGE[kind]))
    with pytest.raises(CheckpointError, match="do not fit its config"):
        build_predictor(found, torch.device("cpu"))


def test_a_forged_checkpoint_in_order_is_built(saved_run, tmp_path):
    """Negative control of the tests around: `forged` spoils nothing."""
    found = checkpoint.load(forged(saved_run, tmp_path, config={}))
    build_predictor(found, torch.device("cpu"))
    model = build_model(found.config.model, 3)
    found.restore(TrainState(model, None, build_optimizer(model, found.config.optim)))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_billion_convolutions_are_refused_at_once(part, saved_run, tmp_path):
    found = checkpoint.load(forged(saved_run, tmp_path, config={part: {"blocks": 10**9}}))
    with pytest.raises(CheckpointError, match=r"of no network .*at most 64"):
        build_predictor(found, torch.device("cpu"))


SPOILED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "not numbers": of_floats(lambda v: v * float("nan")),
    "infinite": of_floats(lambda v: torch.full_like(v, float("inf"))),
    "whole numbers": of_floats(lambda v: v.to(torch.int32)),
    "double": of_floats(lambda v: v.double()),
    "one missing": lambda tensors: dict(list(tensors.items())[1:]),
    "one more": lambda tensors: {**tensors, "\x1b[31m": torch.zeros(1)},
    "another shape": lambda tensors: {name: tensor[None] for name, tensor in tensors.items()},
}


@pytest.mark.parametrize("kind", SPOILED)
def test_weights_that_are_not_a_networks_are_refused(saved_run, tmp_path, kind):
    found = checkpoint.load(forged(saved_run, tmp_path, config={}, model=SPOILED[kind]))
    with pytest.raises(CheckpointError, match=r"do not fit its config|not finite") as caught:
        build_predictor(found, torch.device("cpu"))
    assert "\x1b" not in str(caught.value)


SPOILED_STATES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "shapes": lambda tensors: {name: torch.zeros(1) for name in tensors},
    "names": lambda tensors: {f"{name}x": tensor for name, tensor in tensors.items()},
    "types": lambda tensors: {name: tensor.to(torch.int64) for name, tensor in tensors.items()},
    "counts": lambda tensors: {name: -tensor if name.endswith(".step") else tensor for name, tensor in tensors.items()},
    "no dots": lambda tensors: {name.replace(".", ""): tensor for name, tensor in tensors.items()},
}


@pytest.mark.parametrize("kind", SPOILED_STATES)
def test_a_state_that_is_not_the_optimizers_is_refused(saved_run, tmp_path, kind):
    found = checkpoint.load(forged(saved_run, tmp_path, config={}, optimizer=SPOILED_STATES[kind]))
    model = build_model(found.config.model, 3)
    with pytest.raises(CheckpointError, match="does not fit"):
        found.restore(TrainState(model, None, build_optimizer(model, found.config.optim)))


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_file_of_a_terabyte_in_a_checkpoint_is_not_read(saved_run, tmp_path, name, monkeypatch):
    read = Path.read_bytes

    def read_small(path: Path) -> bytes:
        assert path.stat().st_size < 2**30, "it is read"
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_small)
    path = forged(saved_run, tmp_path, config={})
    with (path / name).open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="sha256"):
        checkpoint.load(path)


# --- programs and packages that are not there, or must not be started


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a `gs` first on the path, and returns the file that it makes where it is started."""
    folder, started = tmp_path / "bin", tmp_path / "started"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\n: > '{started}'\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    return started


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.eps"])
def test_ghostscript_is_never_started(ghostscript, tmp_path, name):
    for content in (EPS, b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, len(EPS)) + bytes(18) + EPS):
        (tmp_path / name).write_bytes(content)
        for read in (read_image, image_size, read_mask):
            with pytest.raises(DataError, match="not PNG"):
                read(tmp_path / name, **({"channels": 3} if read is read_image else {}))
    assert not ghostscript.exists()


def test_pillow_alone_starts_ghostscript(ghostscript, tmp_path):
    """Negative control."""
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(OSError), Image.open(tmp_path / "a.png") as image:  # noqa: PT011 - the stub draws nothing
        image.load()
    assert ghostscript.exists()


def test_without_tifffile_a_tiff_of_many_samples_is_a_data_error_and_others_are_read(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "five.tif", np.zeros((8, 8, 5), np.uint8), photometric="rgb", planarconfig="contig")
    assert read_image(tmp_path / "five.tif", channels=5).shape == (8, 8, 5)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match="needs tifffile"):
        read_image(tmp_path / "five.tif", channels=5)
    Image.new("RGB", (8, 8)).save(tmp_path / "three.tif")
    assert read_image(tmp_path / "three.tif", channels=3).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WebP"])
def test_a_large_image_that_is_cut_is_a_data_error_and_leaves_no_file(tmp_path, monkeypatch, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    monkeypatch.setattr("segtool.data.images.BAND_PIXELS", 250)
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    (tmp_path / "x").write_bytes(buffer.getvalue())
    assert read_image(tmp_path / "x", channels=3, spool_pixels=100).shape == (60, 50, 3)
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "x").write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
        with pytest.raises(DataError, match="truncated or corrupt"):
            read_image(tmp_path / "x", channels=3, spool_pixels=100)
    assert not list((tmp_path / "spool").iterdir())


def test_loops_of_links_end(tmp_path):
    from segtool.data.files import list_files
    from segtool.data.images import IMAGE_SUFFIXES

    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "back").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    found = list_files(tmp_path, IMAGE_SUFFIXES)
    assert [path.name for path in found] == ["a.png", "self.png"]
    with pytest.raises(DataError, match=r"self\.png"):
        read_image(tmp_path / "self.png", channels=3)


def test_a_link_to_itself_in_the_place_of_an_argument_is_told(tmp_path, segtool):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "data").mkdir()
    for arguments, code, told in (
        (("init", loop), 3, "loop: no such folder"),
        (("init", tmp_path / "data", "--out", loop), 4, "loop: is a link"),
        (("predict", loop, loop, "--out", tmp_path / "out"), 3, "loop: no such file"),
    ):
        result = segtool(*arguments)
        assert (result.code, told in result.err) == (code, True), result
