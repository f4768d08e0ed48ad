"""What preflight finds of a network and its losses: how they begin, and whether they learn one small batch by heart."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from segtool.system.terminal import counted
from segtool.training import training_step
from segtool.training.losses import Loss
from segtool.training.trial import Trial, Verdict

NEAR = 0.25  # how far from ln K the first cross-entropy may be, as a share of it, or in nats where K is 2
RATE, MOST_STEPS = 3e-3, 60  # of AdamW on one small batch
LEARNT, SLOW = 0.5, 0.95  # what the loss falls to, as a share of the first: is learnt by heart; is hardly learnt
LONG = 6.0  # seconds after which it is enough that something is learnt: of wide networks, or where cores are shared
MOST_SECONDS, ENOUGH = 12.0, 10  # after which it ends whatever was seen; steps without which nothing is judged slow
UNMOVED = 1e-6  # share by which a loss that learns nothing changes all the same
ALIKE = 0.02  # by how much of their deviation logits may differ with the batch: algorithms and TF32 round otherwise
TOLD = 5  # names in a message
BLANK = "first crops of one colour each"


@dataclass(frozen=True)
class Rehearsal:
    """What came of learning the windows by heart."""

    losses: tuple[float, ...]
    """Before each step; where the loss is cut off from the network, none."""
    silent: tuple[str, ...]
    """Names of the parameters that should learn and that no gradient ever reached."""
    still: tuple[str, ...]
    """Names of those whose gradient was always 0, biases aside: before a norm they have none."""
    trained: int
    """Number of the parameters that should learn."""
    flat: bool = False
    """Whether every gradient was 0."""


def starts_unsure(trial: Trial) -> Verdict:
    """Whether the network begins as one that knows nothing: with a cross-entropy near ln K.

    Each class counts as much as any other, so that a lean towards the one that happens to be frequent is not taken for
    knowledge, nor one away from it for error: of two classes that alone is up to half of ln 2.
    """
    training = trial.training
    expected = math.log(training.model.num_classes)
    with torch.no_grad():
        outputs = training.model(training.normalize(trial.windows.image.to(training.device)))
        logits = outputs[0] if isinstance(outputs, list) else outputs
        entropy = float(-logits.float().log_softmax(1).mean())
    if not math.isfinite(entropy):
        odd = "the network's first answers are no finite numbers; see data.std, or take norm: batch"
        return Verdict("first cross-entropy", odd, "doubt")
    told = f"{entropy:.3g}, where guessing among {training.model.num_classes} classes gives ln K = {expected:.3g}"
    if abs(entropy - expected) <= max(NEAR * expected, NEAR):
        return Verdict("first cross-entropy", told)
    data = training.config.data
    return Verdict(
        "first cross-entropy",
        f"{told}: the network is sure of answers that it has not learnt, and spends its first steps on unlearning "
        f"them; see whether data.mean {_numbers(data.mean)} and data.std {_numbers(data.std)} are those of the images, "
        "or take norm: batch in encoder and decoder",
        "doubt",
    )


def losses_hold(trial: Trial) -> list[Verdict]:
    """Returns a verdict on each loss that gives the network no gradient."""
    training, verdicts = trial.training, []
    target = trial.windows.target.to(training.device)
    classes = training.model.num_classes
    generator = torch.Generator().manual_seed(0)
    for number, loss in enumerate(training.criterion.losses):
        assert isinstance(loss, Loss)
        what = f"loss.{number} ({training.config.loss[number].name})"
        logits = torch.randn(len(target), classes, *target.shape[1:], generator=generator).to(training.device)
        total = loss.total(logits.requires_grad_(), target)
        if not total.requires_grad:
            cut = (
                "is cut off from the network, which learns nothing by it; its `total` must not detach what it is given"
            )
            verdicts.append(Verdict(what, cut, "fault"))
        elif trial.counted and not torch.autograd.grad(total, logits)[0].any():
            flat = (
                "has no slope on the first crops, though they have pixels that count: nothing is learnt by it there; "
                "see its weights and its options"
            )
            verdicts.append(Verdict(what, flat, "doubt"))
    return verdicts


def rehearse(trial: Trial) -> Rehearsal:
    """Trains on the windows, by AdamW at a rate of its own, until the loss has halved and each gradient was seen.

    It ends where every gradient is 0, since each step would be as the last one.
    """
    training, began = trial.training, time.monotonic()
    named = [(name, p) for name, p in training.model.named_parameters() if p.requires_grad]
    if not named:
        return Rehearsal((), (), (), 0)
    optimizer = torch.optim.AdamW([p for _, p in named], lr=RATE, weight_decay=0.0)
    silent, losses, flat = dict.fromkeys(name for name, _ in named), list[float](), False
    still = dict.fromkeys(name for name, p in named if p.ndim > 1)
    for _ in range(MOST_STEPS):
        try:
            # Always as step 0: the same dropout, and what is frozen then.
            loss = training_step.compute_gradients(training, trial.windows, 0, trial.plan.images)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            break
        losses.append(float(loss))
        flat = True
        for name, parameter in named:
            if parameter.grad is not None:
                silent.pop(name, None)
                if parameter.grad.any():
                    still.pop(name, None)
                    flat = False
        took = time.monotonic() - began
        learnt = losses[-1] <= _fallen(losses[0], SLOW if took > LONG else LEARNT)
        if flat or not math.isfinite(losses[-1]) or (learnt and not still) or took > MOST_SECONDS:
            break
        optimizer.step()
    unmoved = tuple(name for name in still if name not in silent)
    return Rehearsal(tuple(losses), tuple(silent), unmoved, len(named), flat)


def learns(trial: Trial, rehearsal: Rehearsal) -> Verdict:
    """Whether the loss falls where the network learns one small batch by heart."""
    what, losses = "one batch by heart", rehearsal.losses
    if not trial.counted:
        return _uncounted(what)
    if not rehearsal.trained:
        held = "no weight of the network learns: requires_grad is off in all of them; mend what holds them"
        return Verdict(what, held, "fault")
    if not losses:
        cut = "the loss does not depend on the network, so nothing can be learnt; its logits are detached on their way"
        return Verdict(what, cut, "fault")
    if not all(map(math.isfinite, losses)):
        after = f"after {counted(len(losses) - 1, 'step')} of AdamW at {RATE:g}" if losses[1:] else "before any step"
        remedy = "see data.std, and take norm: batch, or optim.clip=1 and a low optim.lr"
        return Verdict(what, f"the loss is {losses[-1]} {after}; {remedy}", "doubt")
    lowest = min(losses)
    told = f"the loss goes from {losses[0]:.4g} to {lowest:.4g} in {counted(len(losses) - 1, 'step')}"
    if losses[0] == 0:
        none = "the loss of the first crops is 0, though they have pixels that count: their classes have weight 0"
        return Verdict(what, none, "doubt")
    if lowest > _fallen(losses[0], 1 - UNMOVED):
        return Verdict(
            what,
            f"{told}: it does not move, so nothing would be learnt; what leads from the network's logits to the loss "
            "is broken, or its weights are held",
            "fault",
        )
    if len(losses) <= ENOUGH:
        return Verdict(what, told)
    if lowest > _fallen(losses[0], LEARNT) and trial.uniform:
        return Verdict(what, f"{told} on {BLANK}, which tell nothing of their classes; see segtool check", "doubt")
    if lowest > _fallen(losses[0], SLOW):
        slow = "hardly anything, where others halve it; try other activations, norm: batch, or another loss"
        return Verdict(what, f"{told}: {slow}", "doubt")
    return Verdict(what, told)


def _fallen(first: float, share: float) -> float:
    """Returns a loss that has fallen to a share of its first value; one below 0, as -Dice is, by as much."""
    return first - (1 - share) * abs(first)


def gradients_arrive(trial: Trial, rehearsal: Rehearsal) -> Verdict:
    """Whether every parameter that should learn has a gradient."""
    what, silent, trained = "gradients", rehearsal.silent, rehearsal.trained
    if not trial.counted:
        return _uncounted(what)
    names = [name for name, _ in trial.training.model.named_parameters()]
    weights = [name for name, p in trial.training.model.named_parameters() if p.ndim > 1]
    if not trained or rehearsal.flat:
        return Verdict(what, "not judged, since no step would move a weight")
    held = len(names) - trained
    aside = f"; {held} of the encoder are held (freeze)" if held else ""
    if not silent and held and _is_never_learnt(trial):
        alone = "in all of the run's epochs, and begin at random: the encoder would never learn; set"
        return Verdict(what, f"reach all {trained} weights and biases{aside} {alone} model.encoder.freeze=0", "doubt")
    if not silent and (not rehearsal.still or len(rehearsal.losses) <= ENOUGH):
        return Verdict(what, f"reach all {trained} weights and biases{aside}")
    if not silent and trial.uniform:
        return Verdict(what, f"reach all {trained} weights and biases{aside}; not judged further on {BLANK}")
    if not silent:
        dead = "for which they are always 0: the level makes one value everywhere; take fewer levels, or another norm"
        told = f"reach all {trained} weights and biases{aside}, but {_parts(rehearsal.still, weights)}"
        return Verdict(what, f"{told}, {dead}", "doubt")
    told = f"reach {trained - len(silent)} of {trained} weights and biases{aside}, and never {_parts(silent, names)}"
    # An encoder of a library may have a part that nothing uses; what segtool builds on it has none.
    needed = [name for name in silent if not name.startswith("encoder.")]
    encoder = [name for name, p in trial.training.model.encoder.named_parameters() if p.requires_grad]
    if needed or (encoder and len(silent) >= len(encoder)):
        part = "model.decoder" if needed else "model.encoder"
        cut = "which would never learn: what they make is detached or not used on its way to the loss; mend"
        return Verdict(what, f"{told}, {cut} {part}", "fault")
    return Verdict(what, f"{told}, which stay as they begin: nothing that the decoder is given uses them", "doubt")


def _is_never_learnt(trial: Trial) -> bool:
    """Whether an encoder without pretrained weights is frozen to the end of the run."""
    given = trial.training.config.model.encoder.options.get("weights")
    return given is None and training_step.frozen_steps(trial.training, trial.plan.images) >= trial.plan.steps


def _parts(silent: Sequence[str], names: Sequence[str]) -> str:
    """Returns the names of silent parameters; of a level of which all are silent, the level's: `decoder.levels.0`."""
    speaking = {_level(name) for name in set(names) - set(silent)}
    parts = list(dict.fromkeys(name if _level(name) in speaking else _level(name) for name in silent))
    return ", ".join(parts[:TOLD]) + (" …" if len(parts) > TOLD else "")


def _level(name: str) -> str:
    return ".".join(name.split(".")[:3])


def stands_alone(trial: Trial) -> Verdict:
    """Whether what is predicted of an image depends on the others in its batch."""
    what, training = "batch mates", trial.training
    images = training.normalize(trial.windows.image.to(training.device))
    # Far from the image, so that statistics over the batch are others than its own.
    together = torch.cat([images[:1], 3 * images[1:].flip(0) + 1])
    was = training.model.training
    training.model.eval()
    with torch.no_grad():
        alone, among = training.model(images[:1])[0], training.model(together)[0]
    training.model.train(was)
    difference = float((alone - among).abs().max() / alone.std().clamp(min=1e-6))
    if not math.isfinite(difference):
        return Verdict(what, "not judged, since the network's answers are no finite numbers")
    if difference <= ALIKE:
        return Verdict(what, "an image's prediction does not depend on the others in its batch")
    return Verdict(
        what,
        f"in evaluation mode the logits of an image change by {100 * difference:.0f} % of their deviation with the "
        "others in its batch, so a prediction is not the image's alone; a norm uses the statistics of the batch at "
        "hand: track them, or take norm: group",
        "doubt",
    )


def _uncounted(what: str) -> Verdict:
    return Verdict(what, "not judged, since no pixel of the first crops counts (segtool check tells of ignored ones)")


def _numbers(values: Sequence[float] | None) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values or ()) + "]"
