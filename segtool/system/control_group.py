"""What the control group of this process leaves it, where a container, SLURM or systemd has put it into one (Linux).

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, and for version 1 its folder cgroup-v1.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def processors() -> int | None:
    """Returns the number of processors whose time the group may use, rounded up; None without a limit."""
    shares = []
    for folder in _folders("cpu"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or the limit is `max`
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            shares.append(quota / period)
        with contextlib.suppress(OSError, ValueError):
            quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            shares += [quota / period] if quota > 0 else []
    return max(1, math.ceil(min(shares))) if shares else None


def free_memory() -> int | None:
    """Returns the bytes that the group may still take, its page cache counted as free; None without a limit."""
    left = []
    for folder in _folders("memory"):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):
                cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines()).get(cache, 0)
                left.append(int((folder / limit).read_text()) - int((folder / used).read_text()) + int(cached))
    return min(left, default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Yields the folder of the group, of both versions, and those of the groups around it; a container sees its own."""
    with contextlib.suppress(OSError):
        for line in OWN.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            root = ROOT / controller if controllers else ROOT
            group = root / path.strip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))
