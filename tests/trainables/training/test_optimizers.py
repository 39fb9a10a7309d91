"""Optimizers: their first steps in closed form, and their parameter groups."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.errors import SpecError
from trainables.nets.build import empty_model
from trainables.recipe import Recipe
from trainables.training.optimizers import (
    check_optimizer,
    make_optimizer,
    set_progress,
    timm_optimizers,
)
from trainables.training.state import put_snapshot, take_snapshot


def test_only_sgds_learning_rate_is_linear_in_the_batch_size() -> None:
    assert Recipe(lr_per_1024=1.5, batch_size=256).optimizer.peak_lr == pytest.approx(0.375)
    assert Recipe(optimizer="adamw", adamw_lr=0.01, batch_size=64).optimizer.peak_lr == 0.01


def test_only_weights_are_decayed_and_frozen_ones_are_left_out() -> None:
    model = empty_model(Recipe(width=4, attention="se"), classes=3, image_size=8)
    optimizer = make_optimizer(model, Recipe(weight_decay=0.01).optimizer)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        if name == "net.whitening.weight":
            assert id(parameter) not in decay
        else:
            expected = 0.0 if parameter.ndim == 1 or name.endswith("bias") else 0.01
            assert decay[id(parameter)] == expected, name


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


def test_first_step_of_adamw_is_the_learning_rate_plus_the_decoupled_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    optimizer = make_optimizer(
        model, Recipe(optimizer="adamw", adamw_lr=0.01, weight_decay=0.5, batch_size=64).optimizer
    )
    model.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.01 * 0.5) - 0.01, abs=1e-6)


def test_first_step_of_muon_is_as_large_as_adamws_and_orthogonal() -> None:
    hidden = nn.Linear(8, 4, bias=False)
    model = nn.Sequential(nn.Linear(8, 8), hidden, nn.Linear(4, 3))
    weight = hidden.weight
    before = weight.detach().clone()
    recipe = Recipe(optimizer="muon", muon_lr=0.01, weight_decay=0.0, momentum=0.9)
    optimizer = make_optimizer(model, recipe.optimizer)
    weight.grad = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    step = (before - weight.detach()) / 0.01
    # An orthogonal [4, 8] matrix has root mean square 1/√8; 0.2·√8 brings it to AdamW's 0.2.
    values = torch.linalg.svdvals(step)
    assert values.tolist() == pytest.approx([0.2 * 8**0.5] * 4, rel=0.35)


def test_muon_leaves_the_first_layer_and_the_head_to_adam() -> None:
    """Adam's first step is −rate · sign(gradient); with Nesterov it is 1.9 times as long."""
    layers = [nn.Linear(8, 8) for _ in range(3)]
    model = nn.Sequential(*layers)
    recipe = Recipe(optimizer="muon", muon_lr=0.01, weight_decay=0.0)
    optimizer = make_optimizer(model, recipe.optimizer)
    before = [layer.weight.detach().clone() for layer in layers]
    for layer in layers:
        layer.weight.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    steps = [(b - layer.weight.detach()).abs() for b, layer in zip(before, layers, strict=True)]
    assert [bool((step > 0.0189).all()) for step in steps] == [True, False, True]


def test_muon_leaves_vectors_to_adam() -> None:
    model = nn.BatchNorm1d(2)
    optimizer = make_optimizer(model, Recipe(optimizer="muon", muon_lr=0.01).optimizer)
    model.weight.grad, model.bias.grad = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 0.5])
    optimizer.step()
    # Adam's first step is −rate · sign(gradient); with Nesterov it is 1.9 times as long.
    assert model.weight.tolist() == pytest.approx([0.981, 1.019], abs=1e-4)
    assert model.bias.tolist() == pytest.approx([-0.019, -0.019], abs=1e-4)


def by_singular_values(gradient: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the matrix with the iterated polynomial applied to each singular value."""
    u, s, v = np.linalg.svd(gradient, full_matrices=False)
    s = s / np.linalg.norm(gradient)
    for _ in range(3):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    result: npt.NDArray[np.float64] = (u * s) @ v
    return result


@pytest.mark.parametrize("lookahead", [0, 2])
def test_muon_sgd_equals_its_definition_written_out(lookahead: int) -> None:
    """The reference takes singular values apart, in float64, and has SGD for the other layers."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 6, 3), nn.Linear(6, 3))
    recipe = Recipe(
        optimizer="muon_sgd", muon_sgd_lr=0.2, momentum=0.6, lr_per_1024=0.3, batch_size=512,
        weight_decay=0.1, lookahead=lookahead,
    )  # fmt: skip
    optimizer = make_optimizer(model, recipe.optimizer)
    names = [name for name, _ in model.named_parameters()]
    weights = {n: p.detach().double().numpy() for n, p in model.named_parameters()}
    buffers = {name: np.zeros_like(weights[name]) for name in names}
    slow: dict[str, npt.NDArray[np.float64]] = {}
    for step in range(4):
        factor = 1 - step / 4
        set_progress(optimizer, rate=0.2 * factor, steps=step)
        for name, parameter in model.named_parameters():
            gradient = rng.normal(size=parameter.shape)
            parameter.grad = torch.from_numpy(gradient).float()
            weight, hidden = weights[name], name == "1.weight"
            if name.endswith("weight") and not hidden:
                gradient = gradient + 0.1 * weight
            momentum = 0.6 if hidden else 0.85
            buffers[name] = momentum * buffers[name] + gradient
            update = gradient + momentum * buffers[name]
            if hidden:
                update = by_singular_values(update.reshape(6, -1)).reshape(weight.shape)
                weight = weight * (6**0.5 / np.linalg.norm(weight))
            weights[name] = weight - (0.2 if hidden else 0.15) * factor * update
            if lookahead and (step + 1) % lookahead == 0:
                slow[name] = (slow.get(name, weights[name]) + weights[name]) / 2
                weights[name] = slow[name]
        optimizer.step()
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), weights[name], atol=1e-4)


def test_biases_of_batch_normalization_can_have_their_own_learning_rate() -> None:
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


def test_lookahead_returns_halfway_to_the_slow_weights() -> None:
    """The weights have a closed form for SGD, a constant gradient of 1 and rate 1."""
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
    # timm creates its slow weights at the first synchronisation, which changes nothing.
    assert seen == [-1, -2, -3, -4, -5, -4.5, -5.5]


@given(
    steps=st.integers(1, 24),
    interval=st.integers(1, 6),
    sizes=st.lists(st.floats(0, 1), min_size=24, max_size=24),
)
def test_lookahead_with_changing_step_sizes_equals_slow_weights_kept_apart(
    steps: int, interval: int, sizes: list[float]
) -> None:
    """The reference keeps the slow weights in a list, and its SGD is written out."""
    model = nn.Linear(3, 1, bias=False).double()
    nn.init.constant_(model.weight, 1.0)
    rate, momentum, decay = 0.1, 0.8, 0.05
    recipe = Recipe(momentum=momentum, weight_decay=decay, lookahead=interval)
    optimizer = make_optimizer(model, recipe.optimizer)
    weights, velocity = [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]
    slow: list[float] | None = None
    for step in range(steps):
        set_progress(optimizer, rate=rate, steps=step, lookahead=sizes[step])
        optimizer.zero_grad()
        inputs = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) * (1 + step % 3)
        (model(inputs) - 1).square().sum().backward()
        optimizer.step()
        error = sum(w * x for w, x in zip(weights, inputs.tolist(), strict=True)) - 1
        for i, x in enumerate(inputs.tolist()):
            gradient = 2 * error * x + decay * weights[i]
            velocity[i] = momentum * velocity[i] + gradient
            weights[i] -= rate * (gradient + momentum * velocity[i])
        if (step + 1) % interval == 0:
            slow = weights if slow is None else slow
            slow = [s + sizes[step] * (w - s) for s, w in zip(slow, weights, strict=True)]
            weights = [*slow]
        assert model.weight.flatten().tolist() == pytest.approx(weights, rel=1e-9, abs=1e-9)


def first_steps(optimizer: torch.optim.Optimizer, model: nn.Module, steps: range) -> None:
    """Take steps on data that the number of the step determines."""
    for step in steps:
        set_progress(optimizer, rate=1e-3 * (1 + step), steps=step)
        optimizer.zero_grad()
        images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        model(images).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("lookahead", [0, 2])
def test_every_optimizer_of_timm_is_resumed_bitwise(lookahead: int) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    names = timm_optimizers()
    assert len(names) > 70
    for name in names[:: 1 + 9 * bool(lookahead)]:
        recipe = Recipe(width=4, optimizer=f"timm:{name}", lookahead=lookahead)

        def start(recipe: Recipe = recipe) -> tuple[nn.Module, torch.optim.Optimizer]:
            torch.manual_seed(0)
            model = empty_model(recipe, classes=3, image_size=8)
            return model, make_optimizer(model, recipe.optimizer)

        whole, optimizer = start()
        before = {key: value.clone() for key, value in whole.state_dict().items()}
        first_steps(optimizer, whole, range(3))
        snapshot = take_snapshot(whole, whole, optimizer)
        first_steps(optimizer, whole, range(3, 6))
        resumed, optimizer = start()
        put_snapshot(snapshot, resumed, resumed, optimizer)
        first_steps(optimizer, resumed, range(3, 6))
        after, again = whole.state_dict(), resumed.state_dict()
        assert all(torch.equal(after[key], again[key]) for key in after), name
        assert not torch.equal(after["net.head.weight"], before["net.head.weight"]), name
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:lionn", "is not one of timm's; the nearest names are lion"),
        ("timm:bnbadam", "needs another package"),
        ("timm:kron", "random numbers that cannot be resumed"),
    ],
)
def test_an_optimizer_that_cannot_be_used_is_refused(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_optimizer(Recipe(optimizer=name).optimizer)


def test_other_names_of_optimizers_are_refused() -> None:
    with pytest.raises(SpecError, match=r"optimizer must be 'sgd', .* got 'lion'"):
        Recipe(optimizer="lion")


def test_muon_of_timm_gets_the_hidden_matrices_too() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    optimizer = make_optimizer(model, Recipe(optimizer="timm:adamuon").optimizer)
    fallback = {id(p): g["use_fallback"] for g in optimizer.param_groups for p in g["params"]}
    matrices = [fallback[id(p)] for p in model.parameters() if p.ndim == 2]
    assert matrices == [True, False, True]


FUSED: dict[str, Any] = {
    "sgd": {"momentum": 0.9},
    "momentum": {"optimizer": "sgd", "momentum": 0.0},
    "adamw": {"optimizer": "adamw", "bias_lr_scale": 4.0},
    "lookahead": {"optimizer": "adamw", "lookahead": 2},
    "adam": {"optimizer": "timm:adam"},
}


def stepped(recipe: Recipe, steps: int, *, fused: bool, split: int = 0) -> dict[str, torch.Tensor]:
    """Return the state after steps on fixed gradients, resumed from a snapshot after `split`."""
    model = empty_model_with(recipe)
    optimizer = make_optimizer(model, recipe.optimizer, fused=fused)
    for step in range(steps):
        if split and step == split:
            snapshot = take_snapshot(model, model, optimizer)
            model = empty_model_with(recipe)
            optimizer = make_optimizer(model, recipe.optimizer, fused=fused)
            put_snapshot(snapshot, model, model, optimizer)
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        set_progress(optimizer, rate=0.1, steps=step)
        optimizer.step()
    return take_snapshot(model, model, optimizer)


def empty_model_with(recipe: Recipe) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return empty_model(recipe, classes=3, image_size=8)


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_step_is_the_step_of_each_parameter_and_resumes(name: str) -> None:
    recipe = Recipe(**{"width": 4, "weight_decay": 0.01, **FUSED[name]})
    plain, fused = (stepped(recipe, 5, fused=fused) for fused in (False, True))
    assert plain.keys() == fused.keys()
    for key in plain:
        torch.testing.assert_close(fused[key], plain[key], rtol=1e-4, atol=1e-6)
    resumed = stepped(recipe, 5, fused=True, split=3)
    assert all(torch.equal(resumed[key], fused[key]) for key in fused)


@pytest.mark.parametrize("name", ["muon", "muon_sgd", "timm:lion", "timm:rmsprop"])
def test_optimizers_without_a_fused_step_do_without(name: str) -> None:
    recipe = Recipe(width=4, optimizer=name)
    plain, fused = (stepped(recipe, 2, fused=fused) for fused in (False, True))
    assert all(torch.equal(plain[key], fused[key]) for key in plain)


@pytest.mark.parametrize("name", FUSED)
def test_steps_on_the_cpu_are_fused_on_request_only(name: str) -> None:
    recipe = Recipe(**FUSED[name])
    for fused in (None, False, True):
        optimizer = make_optimizer(empty_model_with(recipe), recipe.optimizer, fused=fused)
        assert {bool(group["fused"]) for group in optimizer.param_groups} == {bool(fused)}
