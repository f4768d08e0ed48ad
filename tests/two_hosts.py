"""Trains over two hosts: two network namespaces that a veth pair joins, each with a torchrun of its own.

Needs Linux, root and iproute2: `python tests/two_hosts.py [DIRECTORY]`. Where namespaces are not allowed it says so and
ends with 0. It compares the run with that of one process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from conftest import config_of, draw_dataset
from training import metrics_of

from segtool.config import dump_config

HOSTS = {"segtool-a": "10.77.0.1", "segtool-b": "10.77.0.2"}
NORMLESS = {
    "encoder": {"name": "conv", "channels": [4, 8], "norm": "group"},
    "decoder": {"name": "unet", "norm": "group"},
}


def main() -> int:
    """Trains with one process and over two hosts; returns 0 where both made the same, or where it is not allowed."""
    if reason := _not_allowed():
        print(f"not allowed here: {reason}")
        return 0
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="two-hosts-"))
    directory.mkdir(parents=True, exist_ok=True)
    config = _write_config(directory)
    alone, together = directory / "alone", directory / "together"
    train = ["train", str(config), "--device", "cpu", "--run"]
    subprocess.run([sys.executable, "-m", "segtool", *train, str(alone)], check=True)
    try:
        _join_hosts()
        codes = _train_on_both([*train, str(together)])
    finally:
        _remove_hosts()
    if any(codes):
        print(f"torchrun ended with {codes}")
        return 1
    losses, others = _losses(alone), _losses(together)
    worst = max(abs(one - other) for one, other in zip(losses, others, strict=True))
    print(f"{len(losses)} steps over two hosts: losses differ from one process's by at most {worst:.1e}")
    return int(worst > 1e-5)


def _not_allowed() -> str | None:
    if shutil.which("ip") is None:
        return "there is no `ip`; install iproute2"
    made = _ip("netns", "add", "segtool-try", check=False)
    if made.returncode:
        return made.stderr.strip()
    joined = _ip("link", "add", "segtool-try0", "type", "veth", "peer", "name", "segtool-try1", check=False)
    _ip("link", "delete", "segtool-try0", check=False)
    _ip("netns", "delete", "segtool-try")
    return joined.stderr.strip() if joined.returncode else None


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=check)


def _join_hosts() -> None:
    for host in HOSTS:
        _ip("netns", "add", host)
    _ip(
        "link",
        "add",
        "segtool0",
        "netns",
        "segtool-a",
        "type",
        "veth",
        "peer",
        "name",
        "segtool0",
        "netns",
        "segtool-b",
    )
    for host, address in HOSTS.items():
        _ip("-n", host, "address", "add", f"{address}/24", "dev", "segtool0")
        for link in ("lo", "segtool0"):
            _ip("-n", host, "link", "set", link, "up")


def _remove_hosts() -> None:
    for host in HOSTS:
        _ip("netns", "delete", host, check=False)


def _train_on_both(train: list[str]) -> list[int]:
    """Returns the exit codes of both hosts' torchruns."""
    first = HOSTS["segtool-a"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "segtool0"}
    processes = [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
                *(
                    "--node-rank",
                    str(number),
                    "--master-addr",
                    first,
                    "--master-port",
                    "29400",
                    "-m",
                    "segtool",
                    "--",
                    *train,
                ),
            ],
            env=environment,
        )
        for number, host in enumerate(HOSTS)
    ]
    return [process.wait(600) for process in processes]


def _write_config(directory: Path) -> Path:
    draw_dataset(directory / "data", train=8, val=3, test=2, seed=7)
    path = directory / "config.yaml"
    path.write_text(dump_config(config_of(directory / "data", model=NORMLESS, train={"steps": 20, "batch_size": 4})))
    return path


def _losses(run: Path) -> list[float]:
    rows = metrics_of(run)
    return [row["loss"] for row in rows if "loss" in row]


if __name__ == "__main__":
    sys.exit(main())
