"""The moving average: bitwise that of all tensors, whichever of them learn."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn

from trainables.nets.build import empty_model
from trainables.nets.classifier import Classifier
from trainables.recipe import Recipe
from trainables.training.averaging import WeightAverage, decay_after

DECAY = 0.9


def some_model(seed: int) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return empty_model(Recipe(width=4), classes=3, image_size=8)


def train(model: Classifier, *, head_only: bool) -> None:
    """Change all weights that learn, and in other layers the statistics of batches."""
    model.train()
    head = {id(value) for value in model.net.head.parameters()}  # type: ignore[union-attr]
    for value in model.parameters():
        value.requires_grad_(not head_only or id(value) in head)
        if value.requires_grad:
            with torch.no_grad():
                value.add_(0.1 * torch.randn_like(value))
    if not head_only:
        model(torch.rand(8, 3, 8, 8))


def assert_equal(average: WeightAverage, expected: ModelEmaV3) -> None:
    for name, value in expected.module.state_dict().items():
        assert torch.equal(average.model.state_dict()[name], value), name


@pytest.mark.parametrize(
    "stages",
    [[True], [False, True], [True, False, True], [False, True, True, False]],
    ids=lambda stages: "-".join("head" if head else "all" for head in stages),
)
@pytest.mark.parametrize("seed", range(3))
def test_averaging_what_can_change_equals_averaging_everything(
    seed: int, stages: list[bool]
) -> None:
    """Stages of two epochs of five steps; the head alone learns, or everything."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = some_model(seed)
        average = WeightAverage(model, DECAY)
        everything = ModelEmaV3(model, decay=DECAY, use_warmup=True)
        step = 0
        all_frozen = True
        for head_only in stages:
            all_frozen = all_frozen and head_only
            train(model, head_only=head_only)
            for _ in range(2):
                fixed = average.start_epoch(frozen=head_only)
                assert fixed == (head_only and all_frozen), "nothing else has ever learned"
                for _ in range(5):
                    step += 1
                    train(model, head_only=head_only)
                    average.update(step)
                    everything.update(model, step=step)
                average.finish_epoch()
                assert_equal(average, everything)


def head_of(model: Classifier) -> Tensor:
    weight: Tensor = model.state_dict()["net.head.weight"]
    return weight.clone()


def averaged_slowly(
    weights: list[Tensor], start: Tensor, decay: float, every: int, epochs: int
) -> Tensor:
    """Sum the weights of the steps that are included, each times the decays of all later steps."""
    steps = range(1, len(weights) + 1)
    ends = {len(weights) * epoch // epochs for epoch in range(1, epochs + 1)}
    included = [step for step in steps if step % every == 0 or step in ends]
    kept = math.prod(decay_after(step, decay) for step in steps)
    total = kept * start.double()
    for previous, step in pairwise([0, *included]):
        since = math.prod(decay_after(s, decay) for s in range(previous + 1, step + 1))
        later = math.prod(decay_after(s, decay) for s in range(step + 1, len(weights) + 1))
        total += (1 - since) * later * weights[step - 1].double()
    return total


@pytest.mark.parametrize("every", [1, 2, 5, 100])
@pytest.mark.parametrize("decay", [0.9, 0.5])
def test_an_update_every_few_steps_has_the_decays_of_all_of_them(every: int, decay: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(every)
        model = some_model(0)
        average = WeightAverage(model, decay, every=every)
        start, weights = head_of(model), []
        for step in range(1, 25):
            if step % 12 == 1:
                average.start_epoch(frozen=False)
            train(model, head_only=False)
            weights.append(head_of(model))
            average.update(step)
            if step % 12 == 0:
                average.finish_epoch()
                assert_counters_equal(average, model)
    expected = averaged_slowly(weights, start, decay, every, epochs=2)
    torch.testing.assert_close(head_of(average.model).double(), expected, rtol=1e-5, atol=1e-6)


def assert_counters_equal(average: WeightAverage, model: Classifier) -> None:
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            assert torch.equal(average.model.state_dict()[name], value), name


@given(steps=st.integers(0, 100_000), decay=st.floats(0.001, 0.99999))
def test_the_decay_is_that_of_timm(steps: int, decay: float) -> None:
    expected = ModelEmaV3(nn.Linear(1, 1), decay=decay, use_warmup=True).get_decay(steps)
    assert decay_after(steps, decay) == expected


def test_layers_that_have_learned_are_fixed_once_their_average_has_arrived() -> None:
    model = some_model(0)
    average = WeightAverage(model, 0.0)
    train(model, head_only=False)
    train(model, head_only=True)
    assert not average.start_epoch(frozen=True)
    average.finish_epoch()  # without averaging: a copy
    assert average.start_epoch(frozen=True)
    assert not average.start_epoch(frozen=False)


def test_few_tensors_are_averaged_while_only_the_head_learns() -> None:
    """The weights below the head are not even read: their averages are the caller's to change."""
    model = some_model(0)
    average = WeightAverage(model, DECAY)
    train(model, head_only=True)
    assert average.start_epoch(frozen=True)
    below = average.model.net.blocks[0].convs[0].weight  # type: ignore[union-attr, index]
    with torch.no_grad():
        below.fill_(7.0)
    average.update(100)
    assert bool((below == 7.0).all())
