"""The package as users get it: built, installed beside nothing of the repository, run from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone_and_runs_from_another_folder(tmp_path: Path) -> None:
    built = tmp_path / "built"
    done(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", built, ROOT, cwd=tmp_path)
    (wheel,) = built.iterdir()
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    here = {path for path in (ROOT / "segtool").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert held == {path.relative_to(ROOT).as_posix() for path in here}

    done(sys.executable, "-m", "venv", "--without-pip", "clean", cwd=tmp_path)
    site = next((tmp_path / "clean" / "lib").iterdir()) / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    # What it depends on comes from here, behind it: an editable install of this repository must not be what runs.
    (site / "depends.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = tmp_path / "clean" / "bin" / "python"
    where = done(python, "-c", "import segtool; print(segtool.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(site)
    assert done(python, "-m", "segtool", "--version", cwd=tmp_path).startswith("segtool ")
    done(python, "-m", "segtool", "demo", "--out", "demo", "--quiet", cwd=tmp_path)
    assert list((tmp_path / "demo" / "predictions").glob("*.png"))


def done(*words: object, cwd: Path) -> str:
    """Returns what a program prints, which must end well."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=1800)
    assert run.returncode == 0, run.stderr
    return run.stdout
