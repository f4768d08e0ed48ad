"""The learning rate as a closed form, what is decayed, and the averaged weights."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from segtool.config import Model, Optim
from segtool.config.registry import Component
from segtool.models.segmenter import Segmenter, build_model
from segtool.training.optim import Ema, build_optimizer, learning_rate

SCHEDULES = ["poly", "cosine", "constant"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 1))


def averaged(ema: Ema) -> float:
    """Returns the average of a single weight."""
    return next(ema.model.parameters()).item()


def rates(optim: Optim, steps: int) -> list[float]:
    return [learning_rate(optim, step, steps) for step in range(steps)]


def test_warm_up_rises_in_equal_steps_to_the_largest_rate():
    found = rates(Optim(lr=0.4, warmup=4, schedule="constant"), 100)
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4] + [0.4] * 96)


def test_poly_by_hand():
    found = rates(Optim(lr=0.5, schedule="poly", power=2, warmup=0), 4)
    assert found == pytest.approx([0.5, 0.5 * 0.75**2, 0.5 * 0.5**2, 0.5 * 0.25**2])


def test_cosine_by_hand():
    found = rates(Optim(lr=2.0, schedule="cosine", warmup=0), 4)
    assert found == pytest.approx([2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5)])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedule_begins_where_the_warm_up_ends(schedule):
    optim = Optim(lr=0.3, warmup=5, schedule=schedule)
    found = rates(optim, 65)
    assert found[4] == found[5] == pytest.approx(0.3)
    assert found[5:] == pytest.approx(rates(Optim(lr=0.3, warmup=0, schedule=schedule), 60))


def test_a_warm_up_longer_than_a_tenth_of_the_run_is_cut_to_it():
    assert rates(Optim(warmup=1000), 50) == rates(Optim(warmup=5), 50)
    assert rates(Optim(warmup=1000), 9) == rates(Optim(warmup=0), 9)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 10, 33, 1000])
def test_one_cycle_is_the_one_of_torch(steps):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=steps, pct_start=0.3, div_factor=25, final_div_factor=1e4, cycle_momentum=False
    )
    wanted = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps - 1):
        scheduler.step()
        wanted.append(optimizer.param_groups[0]["lr"])
    assert rates(Optim(lr=0.3, schedule="one_cycle", warmup=5), steps) == pytest.approx(wanted, rel=1e-9)


def test_one_cycle_by_hand():
    found = rates(Optim(lr=1.0, schedule="one_cycle"), 10)  # rises over steps 0 to 2, falls over 2 to 9
    assert found[:3] == pytest.approx([0.04, 0.52, 1])
    assert found[9] == pytest.approx(1 / 250_000)


@given(
    schedule=st.sampled_from(SCHEDULES),
    lr=st.floats(1e-6, 10),
    power=st.floats(0.01, 5),
    warmup=st.integers(0, 500),
    steps=st.integers(1, 400),
)
def test_the_rate_rises_once_then_falls_and_stays_between_zero_and_its_largest(schedule, lr, power, warmup, steps):
    found = rates(Optim(schedule=schedule, lr=lr, power=power, warmup=warmup), steps)
    ulps = 1 + 1e-12
    assert all(0 < rate <= lr * ulps for rate in found)
    assert max(found) == pytest.approx(lr)
    warm = min(warmup, steps // 10)
    assert all(before < after for before, after in pairwise(found[:warm]))
    assert all(before * ulps >= after for before, after in pairwise(found[warm:]))


def test_only_weights_of_more_than_one_dimension_are_decayed():
    model = network()
    decayed, others = build_optimizer(model, Optim(weight_decay=0.1, layer_decay=0.5)).param_groups
    assert [id(p) for p in decayed["params"]] == [id(model[0].weight), id(model[3].weight)]
    assert [id(p) for p in others["params"]] == [id(model[1].weight), id(model[1].bias), id(model[3].bias)]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
    assert (decayed["factor"], others["factor"]) == (1, 1)  # what has no levels has no factors


def segmenter() -> Segmenter:
    torch.manual_seed(0)
    encoder = Component("conv", {"channels": [2, 4, 8], "downsample": "stride"})
    return build_model(Model(encoder=encoder, decoder=Component("unet")), 3)


def factors_of(model: Segmenter, optim: Optim) -> dict[str, float]:
    """Returns each parameter's factor, found in the groups of the optimizer."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, optim).param_groups
    found = [(names[parameter], group["factor"]) for group in groups for parameter in group["params"]]
    assert len(found) == len(dict(found)) == len(names), "each parameter once"
    return dict(found)


def test_without_factors_a_network_has_two_groups_in_the_order_of_its_parameters():
    model = segmenter()
    groups = build_optimizer(model, Optim()).param_groups
    kinds = [p.ndim > 1 for p in model.parameters()]
    weights = [p for p, kind in zip(model.parameters(), kinds, strict=True) if kind]
    others = [p for p, kind in zip(model.parameters(), kinds, strict=True) if not kind]
    assert [[id(p) for p in group["params"]] for group in groups] == [[*map(id, weights)], [*map(id, others)]]
    assert [group["factor"] for group in groups] == [1, 1]


def test_what_is_nearer_to_the_image_learns_more_slowly_and_the_decoder_at_the_full_rate():
    model = segmenter()
    model.encoder.lr_factor = 0.2
    for name, factor in factors_of(model, Optim(layer_decay=0.5)).items():
        level = {"encoder.levels.0": 0, "encoder.levels.1": 1, "encoder.levels.2": 2}.get(name[:16])
        if name.startswith("encoder.downs."):
            level = int(name.split(".")[2]) + 1  # what leads to a level is of it
        wanted = 1 if level is None else 0.2 * 0.5 ** (2 - level)
        assert factor == pytest.approx(wanted), name


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_was_frozen_at_first_steps_beside_what_was_not(name):
    model = segmenter()
    model.encoder.freeze = 1.0
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(model, Optim(name=name))
    model.encoder.requires_grad_(False)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        model.encoder.requires_grad_(True)
    assert not any(torch.equal(p, before[key]) for key, p in model.named_parameters())


def test_norms_and_biases_of_every_factor_are_not_decayed():
    optimizer = build_optimizer(segmenter(), Optim(weight_decay=0.1, layer_decay=0.5))
    assert {group["factor"] for group in optimizer.param_groups} == {0.25, 0.5, 1}
    assert len(optimizer.param_groups) == 6
    for group in optimizer.param_groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}


def test_a_network_without_norms_and_biases_has_one_group():
    assert len(build_optimizer(nn.Conv2d(1, 1, 3, bias=False), Optim()).param_groups) == 1


def test_frozen_weights_are_left_out():
    model = network()
    model[0].weight.requires_grad_(False)
    held = {id(p) for group in build_optimizer(model, Optim()).param_groups for p in group["params"]}
    assert id(model[0].weight) not in held
    assert len(held) == 4


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.01), (0.0, 0.0)])
def test_sgd_makes_the_step_of_the_textbook(momentum, weight_decay):
    weight = nn.Linear(1, 1, bias=False)
    value, speed = weight.weight.item(), 0.0
    optimizer = build_optimizer(weight, Optim(name="sgd", lr=0.1, momentum=momentum, weight_decay=weight_decay))
    for gradient in (2.0, -1.0, 0.5):
        weight.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        pull = gradient + weight_decay * value
        speed = momentum * speed + pull
        value -= 0.1 * speed
        assert weight.weight.item() == pytest.approx(value, rel=1e-5)


def test_adamw_makes_the_step_of_the_paper():
    weight = nn.Linear(1, 1, bias=False)
    value, first, second = weight.weight.item(), 0.0, 0.0
    optimizer = build_optimizer(weight, Optim(name="adamw", lr=0.1, momentum=0.8, weight_decay=0.05))
    for step, gradient in enumerate((2.0, -1.0, 0.5), start=1):
        weight.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        first = 0.8 * first + 0.2 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        value *= 1 - 0.1 * 0.05
        value -= 0.1 * (first / (1 - 0.8**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
        assert weight.weight.item() == pytest.approx(value, rel=1e-4)


def test_averaged_weights_follow_their_closed_form():
    model = nn.Linear(1, 1, bias=False)
    values = [3.0, -1.0, 4.0, 1.5, -9.0]
    with torch.no_grad():
        model.weight.fill_(values[0])
    ema = Ema(model, 0.25)
    wanted = values[0]
    for step, value in enumerate(values[1:]):
        with torch.no_grad():
            model.weight.fill_(value)
        ema.update(step)
        decay = [1 / 10, 2 / 11, 3 / 12, 0.25][step]  # min(0.25, (1 + t) / (10 + t))
        wanted = decay * wanted + (1 - decay) * value
        assert averaged(ema) == pytest.approx(wanted)


def test_the_decay_reaches_its_limit_late_in_a_run():
    model = nn.Linear(1, 1, bias=False)
    ema = Ema(model, 0.99)
    before = averaged(ema)
    with torch.no_grad():
        model.weight.add_(1)
    ema.update(100_000)
    assert averaged(ema) == pytest.approx(before + 0.01, abs=1e-5)


def test_what_is_not_a_parameter_is_copied():
    model = network()
    ema = Ema(model, 0.9)
    model(torch.randn(4, 1, 6, 6))
    ema.update(0)
    assert dict(model.named_buffers())["1.running_mean"].any()
    for (name, mine), (_, buffer) in zip(ema.model.named_buffers(), model.named_buffers(), strict=True):
        assert torch.equal(mine, buffer), name


def test_the_average_is_a_model_of_its_own_that_is_not_trained():
    model = network()
    before = copy.deepcopy(model.state_dict())
    ema = Ema(model, 0.9)
    assert model.training
    assert not ema.model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in ema.model.parameters())
    with torch.no_grad():
        for p in ema.model.parameters():
            p.add_(1)
    ema.update(5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_averaging_a_network_whose_weights_lie_channels_last_gives_the_same_numbers():
    model = network()
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    averages = [Ema(m, 0.9) for m in (model, other)]
    for m, ema in zip((model, other), averages, strict=True):
        with torch.no_grad():
            for p in m.parameters():
                p.add_(torch.arange(p.numel()).reshape(p.shape))
        ema.update(3)
    found, wanted = averages[1].model.state_dict(), averages[0].model.state_dict()
    assert all(torch.allclose(found[name], wanted[name]) for name in wanted)
