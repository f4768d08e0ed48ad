"""What `segtool doctor` prints: the facts of a machine that a report of trouble needs."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import torch
import torchvision
from PIL import Image

from segtool import __version__
from segtool.system.memory import free_memory
from segtool.system.pools import num_cores
from segtool.system.terminal import counted

SMALL_SHARED_MEMORY = 512 * 2**20  # bytes under which loading processes may run out of it


def facts() -> list[tuple[str, str]]:
    """Returns names and values, in the order in which they are printed."""
    disk = shutil.disk_usage(Path.cwd())
    return [
        ("segtool", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("torch", f"{torch.__version__}, torchvision {torchvision.__version__}, Pillow {Image.__version__}"),
        ("devices", ", ".join(_devices())),
        ("processor", f"{_cores()}, {counted(torch.get_num_threads(), 'thread')}, {_instructions()}"),
        ("compiler", next((found for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), "none")),
        ("memory", _memory()),
        ("disk", f"{disk.free / 2**30:.1f} GiB free here"),
        ("shared memory", _shared_memory()),
    ]


def _devices() -> list[str]:
    cuda = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def _cores() -> str:
    count, mine = os.cpu_count(), num_cores()
    cores = counted(count or 1, "core")
    return cores if count == mine else f"{cores}, {mine} of them for this process"


def _instructions() -> str:
    bf16 = "with" if torch.cpu._is_avx512_bf16_supported() else "without"
    return f"{torch.backends.cpu.get_cpu_capability()}, {bf16} fast bfloat16"


def _memory() -> str:
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return "unknown"
    free = free_memory()
    left = "" if free is None else f", {free / 2**30:.1f} GiB free for this process"
    return f"{whole / 2**30:.1f} GiB{left}"


def _shared_memory() -> str:
    if not Path("/dev/shm").is_dir():
        return "none"
    size = shutil.disk_usage("/dev/shm").total
    hint = "; small: give containers --shm-size=2g, or set train.workers: 0" if size < SMALL_SHARED_MEMORY else ""
    return f"{size / 2**30:.1f} GiB{hint}"
