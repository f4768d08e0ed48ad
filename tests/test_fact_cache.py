"""Facts are kept by path, size and time of change, and a cache that is broken in any way is no more than slow."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import age
from PIL import Image

from segtool.data import fact_cache, facts, user_cache
from segtool.data.fact_cache import FactCache
from segtool.data.facts import (
    ImageFacts,
    MaskFacts,
    facts_of_images,
    facts_of_masks,
    look_at_files,
    look_at_images,
    look_at_masks,
)
from segtool.data.user_cache import VERSION, cache_directory, stamp
from segtool.system import pools

Looks = list[Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's cache comes to lie; nothing is there yet."""
    monkeypatch.setenv("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "segtool"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The files that are decoded."""
    seen: Looks = []
    for name in ("facts_of_images", "facts_of_masks"):
        real = getattr(facts, name)
        monkeypatch.setattr(
            facts, name, lambda paths, real=real, **options: (seen.extend(paths), real(paths, **options))[1]
        )
    return seen


def pictures(folder: Path, count: int = 3) -> list[Path]:
    """Writes pictures an hour old."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        values = np.random.default_rng(index).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(values).save(path)
        age(path)
    return paths


def same(one: ImageFacts | MaskFacts, other: ImageFacts | MaskFacts) -> bool:
    for name in one.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, np.ndarray):
            if a.dtype != b.dtype or not np.array_equal(a, b):
                return False
        elif a != b or type(a) is not type(b):
            return False
    return True


def test_a_second_look_decodes_nothing_and_finds_the_same(tmp_path: Path, home: Path, looks: Looks) -> None:
    paths = pictures(tmp_path / "set")
    palette = Image.fromarray(np.eye(9, dtype=np.uint8)).convert("P")
    palette.save(paths[0].with_name("mask.png"))
    age(paths[0].with_name("mask.png"))
    masks = [*paths, paths[0].with_name("mask.png")]
    first = look_at_images(paths, max_pixels=10**8), look_at_masks(masks, max_pixels=10**8)
    assert len(looks) == 7
    second = look_at_images(paths, max_pixels=10**8), look_at_masks(masks, max_pixels=10**8)
    assert len(looks) == 7
    for before, after in zip(first, second, strict=True):
        assert list(before) == list(after)
        assert all(same(before[path], after[path]) for path in before)
    assert [path.name for path in home.iterdir()] == [f"facts-{VERSION}.sqlite3"]


@pytest.mark.parametrize("change", ["time", "size"])
def test_a_file_that_changed_is_looked_at_again(tmp_path: Path, home: Path, looks: Looks, change: str) -> None:
    paths = pictures(tmp_path / "set")
    look_at_images(paths, max_pixels=10**8)
    looks.clear()
    before = paths[1].stat()
    if change == "size":
        paths[1].write_bytes(paths[1].read_bytes() + b"more")
        os.utime(paths[1], ns=(before.st_mtime_ns, before.st_mtime_ns))
    else:
        os.utime(paths[1], ns=(before.st_mtime_ns + 1, before.st_mtime_ns + 1))
    look_at_images(paths, max_pixels=10**8)
    assert looks == [paths[1]]


def test_what_cannot_be_read_is_not_kept(tmp_path: Path, home: Path, looks: Looks) -> None:
    paths = pictures(tmp_path / "set")
    paths[0].write_bytes(b"nothing")
    age(paths[0])
    for _ in range(2):
        assert look_at_images(paths, max_pixels=10**8)[paths[0]].error
    with FactCache() as cache:
        assert [path for _, path in cache.recall((ImageFacts, path) for path in paths)] == paths[1:]


def test_a_file_of_this_very_moment_is_not_kept_since_it_may_change_within_its_time(
    tmp_path: Path, home: Path, looks: Looks
) -> None:
    (path,) = pictures(tmp_path / "set", 1)
    age(path, 0)
    look_at_images([path], max_pixels=10**8)
    os.utime(path, ns=((time.time_ns() // 10**9) * 10**9,) * 2)  # whole seconds, as FAT has them
    look_at_images([path], max_pixels=10**8)
    look_at_images([path], max_pixels=10**8)
    assert len(looks) == 3


def test_the_facts_of_an_older_segtool_go_and_those_of_a_newer_one_stay(tmp_path: Path, home: Path) -> None:
    home.mkdir(parents=True)
    for version in (VERSION - 1, VERSION + 1):
        (home / f"facts-{version}.sqlite3").write_bytes(b"")
    look_at_images(pictures(tmp_path / "set"), max_pixels=10**8)
    assert {path.name for path in home.iterdir()} == {f"facts-{v}.sqlite3" for v in (VERSION, VERSION + 1)}


def test_entries_of_vanished_files_go(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path / "set")
    look_at_images(paths, max_pixels=10**8)
    marks = {path: stamp(path) or (0, 0) for path in paths}
    paths[0].unlink()
    age(paths[1], 1800)
    look_at_images(paths[1:], max_pixels=10**8)
    monkeypatch.setattr(fact_cache, "stamp", lambda path: stamp(path) or marks[path])
    with FactCache() as cache:
        assert [path for _, path in cache.recall((ImageFacts, path) for path in paths)] == paths[1:]


def test_entries_of_many_vanished_files_go_in_no_more_steps_each_than_those_of_few(tmp_path: Path, home: Path) -> None:
    def steps(count: int) -> int:
        paths = [tmp_path / str(count) / f"{index}.png" for index in range(count)]
        entries = [(kind, path, (1, 10**18), b"-") for kind in (ImageFacts, MaskFacts) for path in paths]
        taken = []
        with FactCache() as cache:
            cache.recall((kind, path) for kind, path, _, _ in entries)
            cache.keep(entries)
            cache._database.set_progress_handler(lambda: taken.append(1), 100)  # of SQLite's instructions
            cache.forget_vanished()
            assert not cache._database.execute("SELECT count(*) FROM facts").fetchone()[0]
        return len(taken)

    assert steps(400) <= 5 * steps(100)


def test_folders_that_nobody_looked_at_for_long_go(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = pictures(tmp_path / "old"), pictures(tmp_path / "new")
    look_at_images(old, max_pixels=10**8)
    later = time.time() + 100 * 86400
    monkeypatch.setattr(fact_cache.time, "time", lambda: later)
    look_at_images(new, max_pixels=10**8)
    with FactCache() as cache:
        assert [path for _, path in cache.recall((ImageFacts, path) for path in (*old, *new))] == new


@pytest.mark.parametrize("state", ["noise", "other tables", "cut", "folder", "read-only", "a file for a folder"])
def test_a_broken_foreign_or_unwritable_cache_is_passed_over(tmp_path: Path, home: Path, state: str) -> None:
    paths = pictures(tmp_path / "set")
    file = home / f"facts-{VERSION}.sqlite3"
    home.parent.mkdir()
    if state == "a file for a folder":
        home.write_text("")
    else:
        home.mkdir()
    if state == "noise":
        file.write_bytes(np.random.default_rng(0).bytes(5000))
    elif state == "other tables":
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE facts (story TEXT)")
        database.close()
    elif state == "cut":
        look_at_images(paths, max_pixels=10**8)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif state == "folder":
        file.mkdir()
    elif state == "read-only":
        home.chmod(0o500)
    try:
        for _ in range(2):
            found = look_at_images(paths, max_pixels=10**8)
            assert all(map(same, found.values(), facts_of_images(paths, max_pixels=10**8)))
    finally:
        if home.is_dir():
            home.chmod(0o700)


def test_an_entry_whose_content_is_damaged_is_looked_at_again(tmp_path: Path, home: Path) -> None:
    paths = pictures(tmp_path / "set")
    look_at_images(paths, max_pixels=10**8)
    with sqlite3.connect(home / f"facts-{VERSION}.sqlite3") as database:
        database.execute("UPDATE facts SET content = substr(content, 1, 40)")
    database.close()
    assert all(facts.size == (20, 30) for facts in look_at_images(paths, max_pixels=10**8).values())


def test_two_processes_at_once_find_the_same(tmp_path: Path, home: Path) -> None:
    paths = pictures(tmp_path / "set", 12)
    program = (
        "import sys; from pathlib import Path; from segtool.data.facts import look_at_images\n"
        "found = look_at_images([Path(p) for p in sys.argv[1:]], max_pixels=10**8)\n"
        "print([facts.digest for facts in found.values()])"
    )
    command = [sys.executable, "-c", program, *map(str, paths)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate(timeout=60)[0] for process in running]
    expected = [facts.digest for facts in facts_of_images(paths, max_pixels=10**8)]
    assert told == [f"{expected}\n"] * 3


def test_masks_of_very_many_colours_are_not_kept(tmp_path: Path, home: Path, looks: Looks) -> None:
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).save(path)
    age(path)
    for _ in range(2):
        look_at_masks([path], max_pixels=10**8)
    assert len(looks) == 2


def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(user_cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "segtool"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "segtool"
    monkeypatch.setattr(user_cache.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_directory() == tmp_path / "segtool"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_several_processes_find_what_one_finds(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(pools, "SHARE", 4)
    monkeypatch.setattr(pools.threading, "active_count", lambda: 1)  # whatever idles since another test
    paths = pictures(tmp_path / "set", 12)
    told: list[tuple[int, int]] = []
    found, masks = look_at_files(
        paths, paths[:3], max_pixels=10**8, progress=lambda done, total: told.append((done, total))
    )
    assert (list(found), list(masks)) == (paths, paths[:3])
    assert all(map(same, found.values(), facts_of_images(paths, max_pixels=10**8)))
    assert all(map(same, masks.values(), facts_of_masks(paths[:3], max_pixels=10**8)))
    assert told == [(done, 15) for done in range(1, 16)]
