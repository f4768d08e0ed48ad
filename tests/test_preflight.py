"""Preflight: each thing that it looks at passes where a training is in order, and is told where it is broken."""

from __future__ import annotations

import itertools
import json
import math
import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLASSES, Command, config_of
from torch import Tensor, nn
from training import prepared

from segtool.commands.sources import Session
from segtool.config import registry
from segtool.data import augment, dataset, loader
from segtool.data.codes import IGNORE
from segtool.data.formats import split_records
from segtool.errors import CheckpointError, ConfigError, DataError, DiskError, ShortageError
from segtool.models.decoders import UNet
from segtool.models.layers import describe
from segtool.models.segmenter import verify
from segtool.runs import checkpoint
from segtool.runs.run_directory import RunDirectory
from segtool.system import disk
from segtool.system.distributed import World
from segtool.system.terminal import Reporter
from segtool.training import preflight, rehearsal, training_step
from segtool.training import trial as trial_of
from segtool.training.losses import CrossEntropy
from segtool.training.memory import training_memory
from segtool.training.plan import Plan, Prepared
from segtool.training.trial import Trial, Verdict

CPU = torch.device("cpu")
MODEL = {"encoder": {"name": "conv", "channels": [4, 6, 8]}, "decoder": "unet"}


def tried(config: Any) -> Trial:
    """Returns the trial of a config whose crop is given."""
    return trial_of.make_trial(prepared(config), Path("/"))


def work_of(trial: Trial, world: World | None = None) -> Prepared:
    """Returns what a trial trains, to be counted and not done."""
    return Prepared(trial.training.config, trial.plan, {}, None, world or World(), CPU)


def grades(*verdicts: Verdict) -> dict[str, str]:
    return {verdict.what: verdict.grade for verdict in verdicts}


def of_network(trial: Trial) -> dict[str, Verdict]:
    """Returns what is found of network and loss."""
    found = [rehearsal.starts_unsure(trial), *rehearsal.losses_hold(trial)]
    learnt = rehearsal.rehearse(trial)
    found += [rehearsal.learns(trial, learnt), rehearsal.gradients_arrive(trial, learnt)]
    found += [rehearsal.stands_alone(trial)]
    return {verdict.what: verdict for verdict in found}


def doubts(trial: Trial) -> dict[str, str]:
    return {what: verdict.grade for what, verdict in of_network(trial).items() if verdict.grade != "passed"}


# ------------------------------------------------------------------------------------------------- what is in order


DOWNSAMPLERS = ("max", "avg", "stride")
PLAIN = [(d, "unet", u) for d in DOWNSAMPLERS for u in registry.names("upsampler") if u != "max_unpool" or d == "max"]
PLAIN += [(d, "fcn", u) for d, _, u in PLAIN]
FEW = [one for one in PLAIN if one[:2] == ("max", "unet") or one[2] == "transposed"]


@pytest.mark.parametrize(
    ("downsample", "decoder", "upsample"),
    [pytest.param(*one, marks=() if one in FEW else pytest.mark.slow) for one in PLAIN],
)
def test_every_plain_network_passes(make_config, downsample, decoder, upsample):
    encoder = {"name": "conv", "channels": [4, 6, 8], "downsample": downsample}
    model = {"encoder": encoder, "decoder": {"name": decoder, "upsample": upsample}}
    assert doubts(tried(make_config(model=model))) == {}


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["unet", "fcn"])
@pytest.mark.parametrize("encoder", [name for name in registry.names("encoder") if name != "conv"])
def test_every_network_on_an_encoder_of_a_library_passes(make_config, encoder, decoder):
    if encoder == "timm":
        pytest.importorskip("timm")
    trial = tried(make_config(model={"encoder": encoder, "decoder": decoder}, augment={"crop": [32, 32]}))
    assert doubts(trial) == {}


OPTIONS = [
    {"norm": "none"},
    {"norm": "none", "residual": True},
    {"norm": "none", "activation": "sigmoid"},
    {"norm": "group", "activation": "tanh"},
    {"norm": "instance"},
    {"residual": True, "dropout": 0.3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_networks_that_learn_slowly_or_begin_at_zero_pass(make_config, options):
    encoder = {**MODEL["encoder"], **options}  # type: ignore[dict-item]
    assert doubts(tried(make_config(model={"encoder": encoder, "decoder": {"name": "unet", **options}}))) == {}


@pytest.mark.parametrize("decoder", [{"name": "unet", "valid": True}, {"name": "unet", "aux": True}], ids=str)
def test_valid_convolutions_and_deep_supervision_pass(make_config, decoder):
    assert doubts(tried(make_config(model={**MODEL, "decoder": decoder}))) == {}


@pytest.mark.parametrize("name", registry.names("loss"))
def test_every_loss_passes_alone(make_config, name):
    assert doubts(tried(make_config(loss=[name]))) == {}


def test_class_weights_label_smoothing_and_a_sum_of_losses_pass(make_config):
    entropy = {"name": "cross_entropy", "class_weights": [0.1, 5.0, 50.0], "label_smoothing": 0.2}
    assert doubts(tried(make_config(loss=[entropy, {"name": "dice", "weight": 0.5}]))) == {}


@pytest.mark.parametrize("train", [{"batch_size": 1}, {"accumulate": 3}, {"precision": "bf16"}, {"ema": None}], ids=str)
def test_batches_and_arithmetic_of_all_kinds_pass(make_config, train):
    assert doubts(tried(make_config(train=train))) == {}


def test_a_frozen_encoder_passes_and_its_weights_are_excepted(make_config):
    pytest.importorskip("torchvision")
    encoder = {"name": "resnet18", "freeze": 2}
    trial = tried(make_config(model={"encoder": encoder, "decoder": "fcn"}, augment={"crop": [32, 32]}))
    found = of_network(trial)
    assert {verdict.grade for verdict in found.values()} == {"passed"}
    assert "of the encoder are held (freeze)" in found["gradients"].found


def test_crops_without_a_pixel_that_counts_are_not_judged(make_config):
    trial = tried(make_config())
    target = torch.full_like(trial.windows.target, IGNORE)
    found = of_network(replace(trial, windows=trial.windows._replace(target=target)))
    assert {verdict.grade for verdict in found.values()} == {"passed"}
    assert "not judged" in found["one batch by heart"].found


def test_the_windows_are_parts_of_the_crops_where_most_classes_are():
    target = torch.full((3, 64, 64), 1, dtype=torch.uint8)
    target[1] = IGNORE
    target[2, 40:, 40:] = 2
    image = target[:, None] + torch.arange(3)[:, None, None, None]
    windows = trial_of.windows_of(dataset.Sample(image, target, torch.arange(3)), (32, 32))
    assert windows.target.shape == (3, 32, 32)
    assert windows.target[0].unique().tolist() == [1, 2]
    assert windows.target[2].unique().tolist() == [IGNORE]
    assert torch.equal(windows.image[0, 0], windows.target[0] + 2)


def test_the_trial_has_the_first_crops_of_the_training(make_config, trainer, monkeypatch):
    config = make_config(train={"steps": 1})
    seen = []
    step = training_step.train_step
    monkeypatch.setattr(training_step, "train_step", lambda *words: seen.append(words[1]) or step(*words))
    trainer("run", config)
    crops = tried(config).crops
    assert torch.equal(crops.image[:3], seen[0].image)
    assert torch.equal(crops.target[:3], seen[0].target)


# ------------------------------------------------------------------------------------------------- what is broken


def broken(
    make_config: Callable[..., Any], change: Callable[[nn.Module], object], **sections: Any
) -> dict[str, Verdict]:
    """Returns what is found, but what passes, of a network that was changed."""
    trial = tried(make_config(model=MODEL, **sections))
    change(trial.training.model)
    return {what: verdict for what, verdict in of_network(trial).items() if verdict.grade != "passed"}


def test_a_part_of_the_decoder_that_nothing_uses_is_a_fault_by_name(make_config):
    found = broken(make_config, lambda model: model.decoder.register_module("spare", nn.Conv2d(4, 4, 1)))
    assert list(found) == ["gradients"]
    assert found["gradients"].grade == "fault"
    assert "decoder.spare.weight, decoder.spare.bias" in found["gradients"].found


def test_a_part_of_the_encoder_that_nothing_uses_is_a_doubt(make_config):
    found = broken(make_config, lambda model: model.encoder.register_module("spare", nn.Conv2d(4, 4, 1)))
    assert {what: verdict.grade for what, verdict in found.items()} == {"gradients": "doubt"}
    assert "encoder.spare.weight" in found["gradients"].found


def test_a_decoder_level_that_is_detached_is_a_fault_with_the_names_below_it(make_config):
    def detach(model: nn.Module) -> None:
        model.decoder.levels[0].register_forward_hook(lambda *words: words[2].detach())

    found = broken(make_config, detach)["gradients"]
    assert found.grade == "fault"
    cut = "never encoder.levels.1, encoder.levels.2, decoder.ups.0, decoder.levels.0, which would never learn"
    assert cut in found.found
    assert "model.decoder" in found.found


def test_a_level_whose_gradient_is_always_0_is_a_doubt(make_config):
    def still(model: nn.Module) -> None:
        model.encoder.levels[2].register_forward_hook(lambda *words: 0 * words[2])

    found = broken(make_config, still)["gradients"]
    assert found.grade == "doubt"
    assert "but encoder.levels.2, decoder.ups.0, for which they are always 0" in found.found


def test_an_encoder_from_scratch_that_is_frozen_to_the_end_is_a_doubt(make_config):
    def found(freeze: float, **train: Any) -> Verdict:
        model = {"encoder": {"name": "resnet18", "freeze": freeze}, "decoder": "fcn"}
        config = make_config(model=model, augment={"crop": [32, 32]}, train=train)
        return of_network(tried(config))["gradients"]

    pytest.importorskip("torchvision")
    told = found(2, epochs=2, steps=None)
    assert told.grade == "doubt"
    assert "set model.encoder.freeze=0" in told.found
    assert found(1.5, epochs=2, steps=None).grade == "passed"


def test_a_network_of_which_nothing_learns_is_a_fault(make_config):
    found = broken(make_config, lambda model: model.requires_grad_(False))
    assert {what: verdict.grade for what, verdict in found.items()} == {"one batch by heart": "fault"}
    assert "requires_grad is off" in found["one batch by heart"].found


def test_answers_that_are_no_numbers_are_told_as_such_and_a_disk_is_not_blamed_for_them(make_config, tmp_path):
    trial = tried(make_config())
    with torch.no_grad():
        trial.training.model.head.weight[0, 0] = math.nan
    found = of_network(trial)
    assert "are no finite numbers" in found["first cross-entropy"].found
    assert "nan before any step" in found["one batch by heart"].found
    assert found["batch mates"].grade == "passed"
    assert preflight.checkpoint_holds(trial, RunDirectory(tmp_path / "run")).grade == "passed"


def test_images_of_one_colour_are_told_and_no_level_is_blamed_for_them(make_config):
    trial = tried(make_config())
    black = torch.zeros_like(trial.windows.image)
    data = replace(trial.training.config.data, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    trial.training.config = replace(trial.training.config, data=data)
    trial.training.normalize = training_step.Normalize(data.mean, data.std)
    found = of_network(replace(trial, windows=trial.windows._replace(image=black)))
    assert "of one colour each" in found["one batch by heart"].found
    assert (found["one batch by heart"].grade, found["gradients"].grade) == ("doubt", "passed")


def test_a_bias_that_a_norm_takes_away_again_passes(make_config):
    def shift(model: nn.Module) -> None:
        model.encoder.register_parameter("shift", nn.Parameter(torch.zeros(4)))
        model.encoder.levels[0].register_forward_hook(
            lambda *words: words[2] + 0 * model.encoder.shift[None, :, None, None]
        )

    assert broken(make_config, shift) == {}


def test_an_encoder_that_is_cut_off_is_a_fault(make_config):
    def detach(model: nn.Module) -> None:
        def cut(_: nn.Module, __: Any, features: Any) -> Any:
            return features._replace(maps=[x.detach() for x in features.maps])

        model.encoder.register_forward_hook(cut)

    found = broken(make_config, detach)["gradients"]
    assert found.grade == "fault"
    assert "model.encoder" in found.found


def test_a_head_that_begins_sure_is_a_doubt(make_config):
    def sharpen(model: nn.Module) -> None:
        with torch.no_grad():
            model.head.weight *= 30

    found = broken(make_config, sharpen)["first cross-entropy"]
    assert found.grade == "doubt"
    assert f"ln K = {math.log(len(CLASSES)):.3g}" in found.found
    assert "data.mean" in found.found


class BatchNormed(nn.Module):
    """A norm that uses the statistics of the batch at hand, in evaluation mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


def test_a_norm_that_uses_the_batch_in_evaluation_mode_is_a_doubt(make_config):
    found = broken(make_config, lambda model: model.encoder.levels[0].append(BatchNormed()))
    assert {what: verdict.grade for what, verdict in found.items()} == {"batch mates": "doubt"}


def test_a_loss_that_is_detached_is_a_fault_even_beside_one_that_is_not(make_config, monkeypatch):
    total = CrossEntropy.total
    monkeypatch.setattr(CrossEntropy, "total", lambda self, logits, target: total(self, logits.detach(), target))
    (found,) = rehearsal.losses_hold(tried(make_config(loss=["dice", "cross_entropy"])))
    assert (found.what, found.grade) == ("loss.1 (cross_entropy)", "fault")
    assert "detach" in found.found
    alone = of_network(tried(make_config(loss=["cross_entropy"])))
    assert grades(*alone.values())["one batch by heart"] == "fault"


def test_a_loss_that_does_not_move_is_a_fault(make_config, monkeypatch):
    monkeypatch.setattr(CrossEntropy, "total", lambda self, logits, target: 100.0 + 0 * logits.sum())
    found = of_network(tried(make_config(loss=["cross_entropy"])))
    assert found["loss.0 (cross_entropy)"].grade == "doubt"
    assert found["one batch by heart"].grade == "fault"
    assert "in 0 steps: it does not move" in found["one batch by heart"].found
    assert found["gradients"].found.startswith("not judged")


def test_a_loss_below_0_is_learnt_as_any_other(make_config, monkeypatch):
    total = CrossEntropy.total
    monkeypatch.setattr(CrossEntropy, "total", lambda *words: total(*words) - 2 * (words[2] != IGNORE).sum())
    losses = rehearsal.rehearse(tried(make_config(loss=["cross_entropy"]))).losses
    assert losses[-1] <= losses[0] - 0.5 * abs(losses[0]) < min(losses[:-1])


@pytest.mark.parametrize(
    ("optim", "steps", "told"),
    [
        ({"lr": 1e-12}, 1000, True),
        ({"schedule": "one_cycle"}, 1, True),
        ({"power": 1e9, "warmup": 5}, 10, False),
        ({"lr": 1e-6, "schedule": "constant"}, 10**9, False),
        ({}, 1, False),
    ],
    ids=str,
)
def test_learning_rates_that_move_no_weight_are_a_doubt(make_config, optim, steps, told):
    work = prepared(make_config(optim=optim, train={"steps": steps}))
    assert [verdict.grade for verdict in preflight.rates_suffice(work)] == ["doubt"] * told


def test_a_loss_that_hardly_falls_or_leaves_the_numbers_is_a_doubt(make_config):
    trial = tried(make_config())
    slow = rehearsal.Rehearsal((1.0, *[0.98] * 10), (), (), 4)
    lost = rehearsal.Rehearsal((1.0, math.nan), (), (), 4)
    for learnt, words in ((slow, "hardly anything"), (lost, "nan")):
        found = rehearsal.learns(trial, learnt)
        assert found.grade == "doubt"
        assert words in found.found


def test_a_batch_is_learnt_until_the_loss_has_halved_or_where_that_takes_long_has_fallen(make_config, monkeypatch):
    monkeypatch.setattr(rehearsal.time, "monotonic", lambda: 0.0)
    patient = rehearsal.rehearse(tried(make_config())).losses
    assert patient[-1] <= 0.5 * patient[0] < min(patient[:-1])
    trial = tried(make_config())
    clock = itertools.chain([0.0], itertools.repeat(1.1 * rehearsal.LONG))
    monkeypatch.setattr(rehearsal.time, "monotonic", lambda: next(clock))
    hasty = rehearsal.rehearse(trial).losses
    assert hasty == patient[: len(hasty)]
    assert hasty[-1] <= 0.95 * hasty[0] < min(hasty[:-1])


def test_a_network_that_learns_nothing_takes_no_longer_and_of_few_steps_nothing_is_judged(make_config, monkeypatch):
    trial = tried(make_config(model=MODEL))
    trial.training.model.encoder.levels[2].register_forward_hook(lambda *words: 0 * words[2])
    clock = itertools.count(step=3.0)
    monkeypatch.setattr(rehearsal.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(rehearsal, "RATE", 1e-5)
    seen = rehearsal.rehearse(trial)
    assert len(seen.losses) == 5
    assert seen.still
    assert grades(rehearsal.learns(trial, seen), rehearsal.gradients_arrive(trial, seen)) == {
        "one batch by heart": "passed",
        "gradients": "passed",
    }


# ------------------------------------------------------------------------------------------------- image and mask

MOVES = [
    {"crop": [16, 16]},
    {"scale": [0.5, 2.0], "flip": "both", "rotate": 180},
    {"scale": [0.05, 20.0], "flip": "horizontal"},
    {"scale": [3.0, 4.0]},
    {"elastic": 8.0, "rotate": 10},
    {"erase": 0.5, "rare": 1.0},
    {"elastic": 40.0, "erase": 0.99},
    {"color": 0.9, "gamma": 0.9, "blur": 3.0, "noise": 0.3, "jpeg": 5},
]


@pytest.mark.parametrize("options", MOVES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmentation_moves_image_and_mask_together(make_config, options, channels):
    config = make_config(augment=options, data={"channels": channels})
    found = preflight.moves_together(config)
    assert found.grade == "passed"
    share = float(found.found.split()[5])
    assert share > 98


def flipped_image(patch: pytest.MonkeyPatch) -> None:
    warp = augment.warp_image
    patch.setattr(augment, "warp_image", lambda *words: warp(*words)[:, ::-1].copy())


def upside_down_mask(patch: pytest.MonkeyPatch) -> None:
    warp = augment.warp_mask
    patch.setattr(augment, "warp_mask", lambda *words: warp(*words)[::-1].copy())


def mask_not_zoomed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(augment, "warp_mask", lambda mask, geometry: np.resize(mask, geometry.size))


def masks_of_others(patch: pytest.MonkeyPatch) -> None:
    collate = loader.collate
    patch.setattr(loader, "collate", lambda samples: (b := collate(samples))._replace(target=b.target.roll(1, 0)))


def mask_moved_aside(patch: pytest.MonkeyPatch) -> None:
    warp = augment.warp_mask
    patch.setattr(augment, "warp_mask", lambda *words: np.roll(warp(*words), 12, axis=1))


@pytest.mark.parametrize("fault", [flipped_image, upside_down_mask, mask_not_zoomed, masks_of_others, mask_moved_aside])
def test_masks_that_move_otherwise_than_their_images_are_a_fault_of_the_data(make_config, monkeypatch, fault):
    config = make_config(augment={"scale": [0.8, 1.5], "rotate": 10})
    assert preflight.moves_together(config).grade == "passed"
    fault(monkeypatch)
    found = preflight.moves_together(config)
    assert (found.grade, found.error) == ("fault", DataError)


def test_the_first_batch_is_drawn_with_its_masks(make_config, tmp_path):
    path = preflight.draw_first_batch(tried(make_config()), tmp_path / "samples")
    assert path == tmp_path / "samples" / "first-batch.png"
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("batch_size", "crop", "count"), [(3, (64, 64), 3), (99, (64, 64), 8), (8, (1000, 2000), 4), (8, (2000, 9000), 1)]
)
def test_of_large_crops_fewer_are_drawn(batch_size, crop, count):
    assert trial_of.num_shown(Plan(9, crop, 9, 9, batch_size)) == count


# ------------------------------------------------------------------------------------------------- validation, disk


def test_a_validation_image_is_scored_by_the_network_as_it_predicts(make_config, monkeypatch):
    trial = tried(make_config())
    records = split_records(trial.training.config, Path("/"))["val"]
    assert "961 pixels of val0.png scored" in preflight.validates(trial, records).found  # the rim is ignored
    assert "no validation split" in preflight.validates(trial, []).found
    monkeypatch.setattr(preflight, "VALIDATED", 9)
    assert "64 pixels of" in preflight.validates(trial, records).found


def test_a_checkpoint_is_written_read_and_removed_again(make_config, tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert preflight.checkpoint_holds(tried(make_config()), run).grade == "passed"
    assert list(run.checkpoints.iterdir()) == []


def test_a_disk_that_gives_back_something_else_is_a_fault(make_config, tmp_path, monkeypatch):
    run, trial = RunDirectory(tmp_path / "run"), tried(make_config())
    load = checkpoint.load

    def worn(path: Path) -> Any:
        found = load(path)
        tensors = {**found.tensors["model"], "head.bias": found.tensors["model"]["head.bias"] + 1}
        return replace(found, tensors={**found.tensors, "model": tensors})

    monkeypatch.setattr(checkpoint, "load", worn)
    found = preflight.checkpoint_holds(trial, run)
    assert (found.grade, found.error) == ("fault", CheckpointError)
    assert "head.bias" in found.found
    monkeypatch.setattr(checkpoint, "load", load)
    write = disk.write_new
    monkeypatch.setattr(disk, "write_new", lambda path, content: write(path, content[:-1] + b"?"))
    with pytest.raises(CheckpointError):
        preflight.checkpoint_holds(trial, run)
    assert list(run.checkpoints.iterdir()) == []


@pytest.mark.parametrize(("free", "grade"), [(10**9, "passed"), (30_000, "doubt"), (10_000, "fault")])
def test_the_disk_must_hold_the_checkpoints_that_are_kept_at_a_time(make_config, tmp_path, monkeypatch, free, grade):
    trial = tried(make_config(train={"steps": 7, "eval_every": 0.4}))
    monkeypatch.setattr(preflight, "free_disk", lambda _: free)
    _, found = preflight.suffice(work_of(trial), tmp_path)
    assert (found.what, found.grade) == ("disk", grade)
    assert found.error is DiskError or grade != "fault"
    assert ("train.keep=1" in found.found) == (grade == "doubt")
    _, least = preflight.suffice(work_of(tried(make_config(train={"steps": 7, "keep": 1}))), tmp_path)
    assert "train.keep" not in least.found


def test_the_size_of_a_checkpoint_is_foretold(make_config, tmp_path, trainer):
    config = make_config(
        train={"steps": 1, "ema": 0.9}, model={**MODEL, "encoder": {"channels": [16, 32], "name": "conv"}}
    )
    work = work_of(tried(config))
    saved = trainer("run", config).final.path
    size = sum(path.stat().st_size for path in saved.iterdir() if path.suffix == ".safetensors")
    _, found = preflight.suffice(replace(work, config=replace(work.config, train=config.train)), tmp_path)
    assert float(found.found.split()[0]) * 1e6 == pytest.approx(size, rel=0.2)


@pytest.mark.parametrize(
    ("free", "grade"), [(10**9, "passed"), (250_000, "doubt"), (100_000, "fault"), (None, "passed")]
)
def test_the_memory_must_hold_what_a_step_keeps(make_config, tmp_path, monkeypatch, free, grade):
    trial = tried(make_config())
    monkeypatch.setattr(preflight, "free_bytes", lambda _: free)
    found, _ = preflight.suffice(work_of(trial), tmp_path)
    assert (found.what, found.grade) == ("memory", grade)
    assert found.error is ShortageError or grade != "fault"
    assert ("--set train.accumulate=" in found.found) == (grade in ("doubt", "fault"))
    two, _ = preflight.suffice(work_of(trial, World(0, 2, 2)), tmp_path)
    assert two.found != found.found


def test_on_a_cpu_a_step_takes_more_than_it_keeps(make_config, tmp_path, monkeypatch):
    """Of five networks the peak of a step was 1.5 to 1.7 times what autograd kept; 17.5 GB of 21 were not enough."""
    work = work_of(tried(make_config(augment={"crop": [64, 64]}, train={"batch_size": 64})))
    model = verify(work.config.model, 3).train()
    kept = training_memory(model, describe(model, 64, 64, batch=64), work.config)
    monkeypatch.setattr(preflight, "free_bytes", lambda _: int(1.3 * kept.total))
    assert preflight.suffice(work, tmp_path)[0].grade == "doubt"
    monkeypatch.setattr(preflight, "free_bytes", lambda _: int(1.6 * kept.total))
    assert preflight.suffice(work, tmp_path)[0].grade == "passed"


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01, 0.003])
@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_proposed_for_want_of_memory_fits(make_config, tmp_path, monkeypatch, share, processes):
    trial = tried(make_config(augment={"crop": [64, 48]}, train={"batch_size": 24}))
    work = work_of(trial, World(0, processes, processes))

    def memory_with(free: float, work: Prepared) -> Verdict:
        monkeypatch.setattr(preflight, "free_bytes", lambda _: int(free))
        return preflight.suffice(work, tmp_path)[0]

    needed = bisect_left(range(10**8), True, key=lambda free: memory_with(free, work).grade == "passed")
    found = memory_with(share * needed, work)
    assert found.grade != "passed"
    config, plan = work.config, work.plan
    if parts := re.search(r"--set train\.accumulate=(\d+)", found.found):
        config = replace(config, train=replace(config.train, accumulate=int(parts[1])))
    if sides := re.search(r"--set augment\.crop=\[(\d+),(\d+)\]", found.found):
        plan = replace(plan, crop=(int(sides[1]), int(sides[2])))
    proposed = memory_with(share * needed, replace(work, config=config, plan=plan))
    assert (proposed.grade == "passed") == ("a network of fewer channels" not in found.found)
    assert "a network of fewer channels" not in found.found or share == 0.003


# ------------------------------------------------------------------------------------------------- what is told


class Told(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


def test_faults_are_raised_together_as_the_first_of_them_and_the_rest_is_told():
    reporter = Told()
    found = [Verdict("a", "is well"), Verdict("b", "is odd", "doubt"), Verdict("c", "is cut", "fault", DataError)]
    with pytest.raises(DataError) as error:
        preflight.tell([*found, Verdict("d", "is off", "fault", ConfigError)], reporter)
    assert reporter.lines == ["preflight: a: is well", "warning: preflight: b: is odd"]
    assert error.value.problems[:2] == ("preflight: c: is cut", "preflight: d: is off")
    assert "--no-preflight" in error.value.problems[2]


LINES = ["memory", "disk", "first cross-entropy", "one batch by heart", "gradients", "batch mates", "image and mask"]
LINES += ["validation", "checkpoint", "the first batch with its masks"]


@pytest.fixture
def config_file(tiny_ds: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    from segtool.config import dump_config

    path.write_text(dump_config(config_of(tiny_ds, train={"steps": 5}, model=MODEL)))
    return path


def told(text: str) -> list[str]:
    return [line.split(": ")[1] for line in text.splitlines() if line.startswith("preflight: ")]


@pytest.mark.preflight
def test_a_training_begins_with_a_line_for_each_thing_on_the_terminal_and_in_its_log(segtool: Command, config_file):
    run = config_file.parent / "run"
    result = segtool("train", config_file, "--run", run)
    assert (result.code, result.out) == (0, "")
    assert told(result.err) == told((run / "train.log").read_text()) == LINES
    assert sorted(path.name for path in run.joinpath("samples").iterdir()) == ["first-batch.png"]
    assert not list(run.joinpath("checkpoints").glob(".tmp*"))
    assert told(segtool("train", run, "--resume", "--set=train.steps=6").err) == []


@pytest.mark.preflight
@pytest.mark.parametrize("option", ["--no-preflight", "--quiet", "--dry-run"])
def test_what_is_told_where_it_is_left_out_or_nothing_is_to_be_written(segtool: Command, config_file, option):
    result = segtool("train", config_file, "--run", config_file.parent / "run", option)
    assert result.code == 0
    assert told(result.err) == (LINES[:-2] if option == "--dry-run" else [])


@pytest.mark.preflight
def test_the_training_is_bit_for_bit_the_one_without(segtool: Command, config_file):
    runs = []
    for name, options in (("with", ()), ("without", ("--no-preflight",))):
        runs.append(config_file.parent / name)
        dropout = "--set=model.encoder={name: conv, channels: [4, 8], dropout: 0.3}"
        assert segtool("train", config_file, "--run", runs[-1], dropout, *options).code == 0
    files = [path.relative_to(runs[0]) for path in sorted(runs[0].rglob("*.safetensors"))]
    assert len(files) == 6
    for file in [Path("metrics.jsonl"), *files]:
        assert (runs[0] / file).read_bytes() == (runs[1] / file).read_bytes(), file


@pytest.mark.preflight
def test_the_state_of_the_generator_is_as_before(make_config, tmp_path):
    work = prepared(make_config())
    before = torch.get_rng_state()
    preflight.look(work, Path("/"), tmp_path, Told())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.preflight
def test_a_fault_ends_the_command_with_its_exit_code_before_anything_is_written(
    segtool: Command, config_file, monkeypatch
):
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda *words: [x.detach() for x in forward(*words)])
    run = config_file.parent / "run"
    result = segtool("train", config_file, "--run", run)
    assert (result.code, result.out) == (2, "")
    assert "error: preflight: gradients: reach 2 of" in result.err
    assert not run.exists()
    assert segtool("train", config_file, "--run", run, "--no-preflight").code == 0


@pytest.mark.preflight
def test_a_disk_without_room_ends_the_command_with_4(segtool: Command, config_file, monkeypatch):
    monkeypatch.setattr(preflight, "free_disk", lambda _: 10)
    result = segtool("train", config_file, "--run", config_file.parent / "run")
    assert result.code == 4
    assert "choose a --run on another disk" in result.err


@pytest.mark.preflight
def test_class_weights_by_frequency_are_tried_too(segtool: Command, config_file):
    weights = "--set=loss=[{name: cross_entropy, class_weights: median_frequency}]"
    run = config_file.parent / "run"
    result = segtool("train", config_file, "--run", run, weights, "--set=augment.rare=0.5")
    assert result.code == 0, result.err
    assert told(result.err) == LINES
    assert json.loads((run / "run.json").read_text())["steps_done"] > 0


@pytest.mark.preflight
def test_what_a_killed_preflight_left_is_removed_by_the_next_run(segtool: Command, config_file):
    run = config_file.parent / "run"
    left = run / "checkpoints" / ".tmp-preflight" / "step-00000000"
    left.mkdir(parents=True)
    assert segtool("train", config_file, "--run", run).code == 0
    assert not left.exists()


def test_a_launcher_hands_the_choice_on(config_file, monkeypatch):
    from segtool.commands import session
    from segtool.system import launch

    given = []
    monkeypatch.chdir(config_file.parent)
    monkeypatch.setattr(launch, "launch", lambda words, **_: given.append("--no-preflight" in words()))
    for preflight_on in (True, False):
        session.train_session(Session(config_file, device="cpu", gpus=2, preflight=preflight_on))
    assert given == [False, True]
