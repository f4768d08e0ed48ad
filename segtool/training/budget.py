"""`--budget`: how many steps go into a time, and until when the last one must be done.

The length is decided before the first step, by what a training that is thrown away took (`forecast`), and again when an
eighth and when a half of the time has gone by, by the steps themselves: what was compiled once compiles faster, decoded
images may be kept, and what else the machine does comes and goes. Near the end it may become shorter once more. Where a
frozen encoder begins to learn, steps are timed anew, as they take longer from there on. The learning rate then goes on
as that of a run of the new length.
"""

from __future__ import annotations

import time
from bisect import bisect_right

from segtool.training.plan import Plan

MOMENTS = (1 / 8, 1 / 2, 7 / 8)  # shares of the time of all steps, after which the length is decided again
WARM_UP = 3  # steps that are not timed: in the first the network is compiled
LEAST_STEPS = 4  # that must be timed
LEFT_OVER = 0.03  # of the time, for what varies
CHANGED = 0.02  # of the length: what is less is not worth another learning rate
SLACK = 1.5  # of the time that the last validation takes, as it may take longer than the others did
ENDING = 4.0  # seconds, for the beginning and the end of the process
MOST = 10  # times the first length


class Budget:
    """The time that a training has, and what its steps and validations take of it.

    Args:
        end: When all must be over, by `time.monotonic()`, as all moments here.
        per_validation: Seconds of a validation with its samples and its checkpoint, until one is seen.
        per_step: Seconds of a step, until some are seen.
    """

    def __init__(self, end: float, *, per_validation: float = 0.0, per_step: float = 0.0) -> None:
        self.end = end
        self.per_validation = per_validation
        self.per_step = per_step
        self.frozen_steps = 0  # from the first, in which the encoder is frozen
        self.longest = 0.0  # of the validations that were seen
        self.began = self.goes_on_at = self.stepped_at = time.monotonic()
        self._begin()

    @property
    def deadline(self) -> float:
        """When the last step must be done, so that a validation and a checkpoint end in time."""
        return self._deadline(self.per_validation)

    @property
    def is_up(self) -> bool:
        """Whether a further step would be one too many; asked after a step, or after its validation."""
        now = time.monotonic()
        return now + self.per_step > self._deadline(max(self.per_validation, now - self.stepped_at))

    def length(self, plan: Plan, step: int, *, now: float) -> int:
        """Returns how many steps a run has in all that goes on from `step` at `now`, to be done at the deadline."""
        left = (1 - LEFT_OVER) * (self.deadline - now)

        def seconds(length: int) -> float:
            # That of `step` itself is still to come; the last one comes after the deadline.
            validations = (length - 1) // plan.eval_steps - max(step - 1, 0) // plan.eval_steps
            return (length - step) * self.per_step + validations * self.per_validation

        most = max(0, int(left / self.per_step))
        return step + bisect_right(range(step + 1, step + most + 1), left, key=seconds)

    def stepped(self, plan: Plan, step: int) -> int:
        """Notes that a step is done, which is the run's `step`-th, and returns the length of the run from now on."""
        now = self.stepped_at = time.monotonic()
        if step == self.frozen_steps:
            self._begin()
            return plan.steps
        if self.warm_up:
            self.warm_up -= 1
            self.began = now
            return plan.steps
        self.timed += 1
        self.seconds += now - self.goes_on_at
        self.per_step = self.seconds / self.timed
        gone = (now - self.began) / max(self.deadline - self.began, 1e-9)
        if not plan.most_steps or self.timed < LEAST_STEPS or gone < min(self.moments, default=gone + 1):
            return plan.steps
        length = self.length(plan, step, now=now)
        self.moments = [moment for moment in self.moments if moment > gone]
        self.timed, self.seconds = 0, 0.0
        # The last time it becomes no longer: so late, a higher learning rate would do more harm than the steps do good.
        length = min(max(step, length), plan.most_steps if self.moments else plan.steps)
        return length if abs(length - plan.steps) > CHANGED * plan.steps else plan.steps

    def goes_on(self, *, scored: bool) -> None:
        """Notes that what came after a step is done; where it was `scored`, a validation and its checkpoint."""
        self.goes_on_at = time.monotonic()
        if scored:
            self.per_validation = self.longest = max(self.longest, self.goes_on_at - self.stepped_at)

    def _begin(self) -> None:
        """Has the length decided by the steps from here on."""
        self.moments = list(MOMENTS)
        self.warm_up = WARM_UP  # steps that are left of it
        self.timed = 0  # steps, since the length was decided
        self.seconds = 0.0  # of these

    def _deadline(self, per_validation: float) -> float:
        return self.end - SLACK * per_validation - ENDING
