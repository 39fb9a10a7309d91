"""The schedule against a simulation of what its epochs do, and optimizers' first steps."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.errors import SpecError
from common.rungs import cooldown_epochs
from trainables.nets.build import empty_model
from trainables.recipe import Recipe
from trainables.training.optimizers import make_optimizer, set_progress
from trainables.training.schedule import learning_rate, plan_epochs

rung_lists = st.sets(st.integers(1, 40), min_size=1, max_size=4).map(sorted)


def test_plan_of_three_rungs() -> None:
    plans = plan_epochs((3, 9, 27), Recipe(epochs=27, cooldown_fraction=0.34))
    assert len(plans) == 17 + 2 + 4 + 10
    assert [p.step for p in plans if p.rung] == [3, 11, 33]
    assert [p.step for p in plans if p.restore] == [4, 12]
    assert [p.step for p in plans if p.keep] == [2, 8]
    assert [p.epoch for p in plans][:11] == [1, 2, 3, 2, 3, 4, 5, 6, 7, 8, 9]
    assert {p.branch for p in plans if p.phase == "trunk"} == {None}


@given(rungs=rung_lists, fraction=st.floats(0, 1))
def test_every_rung_ends_an_unbroken_training(rungs: list[int], fraction: float) -> None:
    recipe = Recipe(epochs=rungs[-1], cooldown_fraction=fraction)
    trained: list[tuple[int, str]] = []  # what the weights have seen
    aside: list[tuple[int, str]] | None = None
    scored = []
    for step, plan in enumerate(plan_epochs(rungs, recipe), start=1):
        assert plan.step == step
        if plan.restore:
            assert aside is not None
            trained = list(aside)
        if plan.keep:
            aside = list(trained)
        trained.append((plan.epoch, plan.phase))
        if plan.rung is not None:
            start = plan.rung - cooldown_epochs(plan.rung, recipe.schedule.cooldown_fraction)
            epochs = range(1, plan.rung + 1)
            assert trained == [(e, "trunk" if e <= start else "cooldown") for e in epochs]
            assert plan.epoch == plan.rung == plan.branch
            scored.append(plan.rung)
    assert scored == rungs


@given(rung=st.integers(1, 500), percent=st.integers(0, 100))
def test_cooldown_is_the_share_rounded_up(rung: int, percent: int) -> None:
    recipe = Recipe(epochs=rung, cooldown_fraction=percent / 100)
    assert cooldown_epochs(rung, recipe.schedule.cooldown_fraction) == max(
        1, -(-rung * percent // 100)
    )


@pytest.mark.parametrize("rungs", [(), (0, 3), (3, 3), (9, 3)])
def test_rungs_that_do_not_rise_are_refused(rungs: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="rungs must be rising"):
        plan_epochs(rungs, Recipe(epochs=3))


def test_the_last_rung_must_be_the_recipes_epochs() -> None:
    with pytest.raises(SpecError, match=r"last of rungs \[3, 9\] must be epochs = 27"):
        plan_epochs((3, 9), Recipe(epochs=27))


@given(rungs=rung_lists, fraction=st.floats(0, 1), warmup=st.floats(0, 5))
def test_rates_stay_within_the_peak_and_move_without_jumps(
    rungs: list[int], fraction: float, warmup: float
) -> None:
    recipe = Recipe(epochs=rungs[-1], cooldown_fraction=fraction, warmup_epochs=warmup)
    peak = recipe.optimizer.peak_lr
    plans = plan_epochs(rungs, recipe)
    for plan in plans:
        rates = [learning_rate(plan, i / 8, recipe) for i in range(9)]
        assert all(-1e-9 <= rate <= peak * (1 + 1e-9) for rate in rates)
        if plan.rung is not None:
            assert rates[-1] == pytest.approx(0, abs=1e-9)
    for before, after in pairwise(plans):
        if not after.restore:
            end = learning_rate(before, 1.0, recipe)
            assert end == pytest.approx(learning_rate(after, 0.0, recipe), abs=1e-9)


def test_rate_warms_up_stays_and_falls() -> None:
    recipe = Recipe(
        epochs=10, lr_per_1024=2.0, batch_size=512, warmup_epochs=2, cooldown_fraction=0.5
    )
    rates = [learning_rate(plan, 0.5, recipe) for plan in plan_epochs((10,), recipe)]
    assert rates == pytest.approx([0.25, 0.75, 1, 1, 1, 0.9, 0.7, 0.5, 0.3, 0.1])


def test_rate_is_linear_in_the_batch_for_sgd_alone() -> None:
    assert Recipe(lr_per_1024=1.5, batch_size=256).optimizer.peak_lr == pytest.approx(0.375)
    assert Recipe(optimizer="adamw", adamw_lr=0.01, batch_size=64).optimizer.peak_lr == 0.01


def test_only_weights_are_decayed_and_frozen_ones_left_out() -> None:
    model = empty_model(Recipe(width=4, attention="se"), classes=3, image_size=8)
    optimizer = make_optimizer(model, Recipe(weight_decay=0.01).optimizer)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        if name == "net.whitening.weight":
            assert id(parameter) not in decay
        else:
            wanted = 0.0 if parameter.ndim == 1 or name.endswith("bias") else 0.01
            assert decay[id(parameter)] == wanted, name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_first_step_of_sgd_is_nesterovs(momentum: float) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    recipe = Recipe(lr_per_1024=1.0, batch_size=512, momentum=momentum, weight_decay=0.1)
    optimizer = make_optimizer(model, recipe.optimizer)
    model.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    gradient = 3.0 + 0.1 * 2.0
    assert model.weight.item() == pytest.approx(2.0 - 0.5 * (1 + momentum) * gradient)


def test_first_step_of_adamw_is_the_rate_and_the_decoupled_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = make_optimizer(
        model, Recipe(optimizer="adamw", adamw_lr=0.01, weight_decay=0.5, batch_size=64).optimizer
    )
    model.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.01 * 0.5) - 0.01, abs=1e-6)


def test_first_step_of_muon_has_adamws_size_and_orthogonal_rows() -> None:
    model = nn.Linear(8, 4, bias=False)
    before = model.weight.detach().clone()
    recipe = Recipe(optimizer="muon", muon_lr=0.01, weight_decay=0.0, momentum=0.9)
    optimizer = make_optimizer(model, recipe.optimizer)
    model.weight.grad = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    step = (before - model.weight.detach()) / 0.01
    # An orthogonal [4, 8] matrix has root mean square 1/√8; 0.2·√8 brings it to AdamW's 0.2.
    values = torch.linalg.svdvals(step)
    assert values.tolist() == pytest.approx([0.2 * 8**0.5] * 4, rel=0.35)


def test_muon_leaves_vectors_to_adam() -> None:
    model = nn.BatchNorm1d(2)
    optimizer = make_optimizer(model, Recipe(optimizer="muon", muon_lr=0.01).optimizer)
    model.weight.grad, model.bias.grad = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 0.5])
    optimizer.step()
    # Adam's first step is the rate against the gradient's sign; with Nesterov's form 1.9 of it.
    assert model.weight.tolist() == pytest.approx([0.981, 1.019], abs=1e-4)
    assert model.bias.tolist() == pytest.approx([-0.019, -0.019], abs=1e-4)


def test_biases_of_norms_may_have_a_rate_of_their_own() -> None:
    recipe = Recipe(width=4, attention="se", bias_lr_scale=64.0)
    model = empty_model(recipe, classes=3, image_size=8)
    optimizer = make_optimizer(model, recipe.optimizer)
    set_progress(optimizer, rate=0.5, steps=0)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        if name != "net.whitening.weight":
            apart = ".norms." in name and name.endswith("bias")
            assert rates[id(parameter)] == (32.0 if apart else 0.5), name
            assert not (apart and decays[id(parameter)])
    assert len(rates) == sum(p.requires_grad for p in model.parameters())


def test_lookahead_goes_half_way_back() -> None:
    """SGD on a constant gradient of 1, rate 1: fast and slow weights in closed form."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    recipe = Recipe(momentum=0.0, weight_decay=0.0, lookahead=3)
    optimizer = make_optimizer(model, recipe.optimizer)
    seen = []
    for step in range(7):
        set_progress(optimizer, rate=1.0, steps=step)
        optimizer.zero_grad()
        model.weight.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen.append(model.weight.item())
    # timm's slow weights are first taken at the first synchronisation, which moves nothing.
    assert seen == [-1, -2, -3, -4, -5, -4.5, -5.5]
