"""What a training is warned of while it runs, with what to try: pure functions of what was seen.

So every process of a distributed run comes to the same answer, and a run that is continued goes on where it was: what
was seen before is read from `metrics.jsonl`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from segtool.config import Config
from segtool.scoring.metrics import Confusion
from segtool.system.terminal import percent
from segtool.training.optim import learning_rate

NEVER_FOUND = 3  # validations in a row in which no pixel of a class is found
CONSTANT = 2  # validations in a row that answer one class everywhere
EARLY = 0.2  # share of the run in which both are no surprise: rare classes come late, and averaged weights lag behind
FLAT, RISE = 10, 0.001  # validations in which the best mIoU rises by less
HIGH_RATE = 0.5  # share of optim.lr above which a flat score is no surprise of the schedule's end

SLOW = 0.25  # share of the time spent in waiting for images that is warned of
CROWDED = 0.5  # the same of the time that threads wait for a core; beside one loading process up to 0.33 on two cores
WINDOW = 30.0  # seconds, and
WINDOW_STEPS = 50  # steps that it is taken over, those to warm up aside
WARM_UP = 10  # steps in which processes start and code is compiled


# --- validations

Row = Mapping[str, Any]  # of metrics.jsonl, with `split: val`


class Validations:
    """Looks at the validations of a run, and warns once of each thing that does not get better by itself.

    Args:
        before: Rows of the validations before a resume; what they showed was warned of then.
        absent: Classes that no training mask holds, so that they cannot be found; `check` has told them.
    """

    def __init__(self, config: Config, steps: int, before: Sequence[Row] = (), *, absent: Collection[str] = ()) -> None:
        self.config = config
        self.absent = frozenset(absent)
        self.steps = steps
        self.before = list(before)
        self.rows: list[Row] = []
        self.warned: set[str] = set()

    def look(self, row: Row, confusion: Confusion) -> list[str]:
        """Returns the warnings that a validation gives rise to.

        Args:
            row: As it stands in `metrics.jsonl`.
            confusion: Of it; which classes the truth has is the same in all validations.
        """
        names = [spec.name for spec in self.config.data.classes]
        present = [name for name, pixels in zip(names, confusion.sum(1).tolist(), strict=True) if pixels]
        earlier, self.before = self.before, []
        for one in earlier:
            self._look(one, present)
        return self._look(row, present)

    def _look(self, row: Row, present: Sequence[str]) -> list[str]:
        self.rows.append(row)
        late = row["step"] >= EARLY * self.steps and len(present) > 1
        if late and is_constant(self.rows):
            return self._once(["one class"], constant_warning(self.config))
        warnings = []
        if late and (
            missed := [name for name in never_found(self.rows, present) if name not in self.warned | self.absent]
        ):
            warnings += self._once(missed, never_found_warning(missed, self.config))
        if is_flat(self.rows, learning_rate(self.config.optim, row["step"] - 1, self.steps) / self.config.optim.lr):
            warnings += self._once(["flat"], flat_warning(self.rows, self.config))
        return warnings

    def _once(self, keys: Sequence[str], warning: str) -> list[str]:
        new = not self.warned.issuperset(keys)
        self.warned.update(keys)
        return [warning] if new else []


def never_found(rows: Sequence[Row], present: Sequence[str]) -> list[str]:
    """Returns the classes of the truth of which no pixel was found in several validations in a row."""
    last = rows[-NEVER_FOUND:]
    return [name for name in present if len(last) == NEVER_FOUND and all(row["iou"].get(name) == 0 for row in last)]


def is_constant(rows: Sequence[Row]) -> bool:
    """Whether several validations in a row answered one class for every pixel: its IoU is then the accuracy."""
    last = rows[-CONSTANT:]
    found = [[value for value in row["iou"].values() if value] for row in last]
    accuracies = [[row["pixel_accuracy"]] for row in last]
    return len(last) == CONSTANT and found == accuracies


def is_flat(rows: Sequence[Row], rate: float) -> bool:
    """Whether the best mIoU has hardly risen for several validations, at a `rate` that is a large share of optim.lr."""
    scores = [row["miou"] or 0.0 for row in rows]
    return rate > HIGH_RATE and len(rows) > FLAT and max(scores[-FLAT:]) <= max(scores[:-FLAT]) + RISE


def constant_warning(config: Config) -> str:
    """Returns what to say of a network that answers one class everywhere."""
    optim = config.optim
    steadier = [f"--set optim.lr={optim.lr / 10:g}"]
    steadier += [] if optim.warmup else ["--set optim.warmup=100"]
    steadier += [] if optim.clip else ["--set optim.clip=1"]
    return (
        f"{CONSTANT} validations in a row answer one class for every pixel: nothing is learnt. See `segtool check` for "
        f"what the masks hold, and begin a new run with {' '.join(steadier)}"
    )


def never_found_warning(names: Sequence[str], config: Config) -> str:
    """Returns what to say of classes that are never found: the first remedy that the config does not use yet."""
    weighted = [index for index, term in enumerate(config.loss) if "class_weights" in term.options]
    entropy = [index for index, term in enumerate(config.loss) if term.name == "cross_entropy"]
    if entropy and not weighted:
        remedy = f"--set loss.{entropy[0]}.class_weights=median_frequency (what is rare counts more)"
    elif not config.augment.rare:
        remedy = "--set augment.rare=0.5 (half of the crops are centred on what is rare)"
    else:
        remedy = "more training images that show it, or a larger augment.crop if it is cut off or too small"
    what = "no pixel of it was" if len(names) == 1 else "no pixel of any of these was"
    return (
        f"{', '.join(names)}: {what} found in {NEVER_FOUND} validations in a row, though their truth has some; try, in "
        f"a new run, {remedy}"
    )


def flat_warning(rows: Sequence[Row], config: Config) -> str:
    """Returns what to say of a score that does not rise."""
    best = max(rows, key=lambda row: row["miou"] or 0.0)
    patience = "" if config.train.patience else f"; --set train.patience={FLAT} would have ended the run"
    return (
        f"the best mIoU on val, {percent(best['miou'])} at step {best['step']}, has not risen by {100 * RISE:g} points "
        f"in {FLAT} validations, and the learning rate is still high: try, with --resume, --set "
        f"optim.lr={config.optim.lr / 4:g}{patience}"
    )


# --- time


class Waiting:
    """The share of its time that a training spends in waiting for something, of which up to `most` is not told."""

    def __init__(self, most: float) -> None:
        self.most = most
        self.steps = 0
        self.waited = self.seconds = 0.0
        self.warned = False

    def add(self, waited: float, seconds: float, *, steps: int = 1) -> float | None:
        """Notes some steps; returns the share, once, where over a window it is too large.

        Args:
            waited: Seconds that were waited in them, of several threads together.
            seconds: That they took.
        """
        begun, self.steps = self.steps, self.steps + steps
        if begun < WARM_UP:
            return None
        self.waited += waited
        self.seconds += seconds
        if self.seconds < WINDOW or self.steps < WARM_UP + WINDOW_STEPS:
            return None
        share = self.waited / self.seconds
        self.steps, self.waited, self.seconds = WARM_UP, 0.0, 0.0
        if share <= self.most or self.warned:
            return None
        self.warned = True
        return share


def waiting_warning(share: float, *, workers: int, cores: int, cached: bool) -> str:
    """Returns what to say of a training that waits for its images: the first remedy that is not in force."""
    same = "it changes no result"
    if workers < cores:
        remedy = f"--set train.workers={workers + 1} lets {workers + 1} processes load them; {same}"
    elif not cached:
        remedy = f"--set train.cache=true decodes each only once, as many as fit into half of the free memory; {same}"
    else:
        remedy = "store them smaller, near the size that augment.crop and augment.scale ask for"
    return f"{100 * share:.0f} % of the time goes by in waiting for images: {remedy}"


def crowding_warning(share: float, *, threads: int) -> str:
    """Returns what to say of a training whose threads wait for cores, `share` seconds in each second together."""
    fewer = max(1, int(threads - share))
    return (
        f"{threads} threads wait for a core for {share:.1f} s in each second, since other programs or the processes "
        "that load images have it, and in each layer all wait for the last: end what else runs here, or try "
        f"OMP_NUM_THREADS={fewer} for the command, also with --resume: it may be several times as fast, and rounds "
        "otherwise"
    )
