"""A training step while another program keeps one core busy: segtool's, torch's own way of waiting, the plain loop.

    python -m benchmarks.busy_cores

So it is beside a browser, beside a colleague's job, and beside the processes that load a training's own images. The
step is that of `benchmarks.training_step`, each side in a process of its own. What keeps the core busy counts without
end, in a session of its own, so that the system gives it a fair share of the core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.harness import Row, Side, in_turn, middle, ratios, report
from benchmarks.training_step import NETWORKS, QUICK_SIZE, SIZE
from segtool.system.threads import SPINS

NETWORK = "unet16"
ROUNDS = 3
COUNTING = "import os\nos.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nwhile True: pass"


@contextmanager
def one_core_busy() -> Generator[None]:
    """Keeps the last core that this process may use busy."""
    with subprocess.Popen([sys.executable, "-c", COUNTING], start_new_session=True) as process:
        try:
            yield
        finally:
            process.kill()


def measure(*, rounds: int, quick: bool) -> list[Row]:
    """Returns the rows; none where there is one core, or where a process cannot be held to one."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        return []
    network, size = NETWORKS[NETWORK], QUICK_SIZE if quick else SIZE
    options = ("benchmarks.training_step", "--network", NETWORK, *(["--quick"] if quick else []), "--side")
    with ExitStack() as stack:
        ours = stack.enter_context(Side(*options, "ours", GOMP_SPINCOUNT=SPINS))
        spinning, plain = (stack.enter_context(Side(*options, side)) for side in ("ours", "plain"))
        idle = [middle(times) for times in in_turn(ours, spinning, plain, rounds=rounds)]
        stack.enter_context(one_core_busy())
        busy = in_turn(ours, spinning, plain, rounds=rounds)
    what = f"training step beside a program that keeps a core busy, {network.title}, batch {network.batch}"
    figures = {
        f"s a step, {name}": f"{middle(times):.2f}, idle {alone:.2f}"
        for name, times, alone in zip(("ours", "torch's waiting", "plain loop"), busy, idle, strict=True)
    }
    note = f"{size[0]}x{size[1]}, float32, not compiled. The target is ours."
    peers = (("the same, with waiting threads as torch has them", 1.5), ("the plain loop, with torch's defaults", 2.0))
    return [
        Row(what, peer, ratios(times, busy[0]), target=target, at_least=True, figures=figures, note=note)
        for (peer, target), times in zip(peers, busy[1:], strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="not used: the batch is random")
    parser.add_argument("--quick", action="store_true", help="one round on small images")
    options = parser.parse_args(arguments)
    report(*measure(rounds=1 if options.quick else ROUNDS, quick=options.quick))


if __name__ == "__main__":
    main()
