"""Snapshots of a training: restored in place, in the memory format of the weights."""

import torch
from torch import Tensor, nn

from trainables.nets.build import empty_model
from trainables.prediction import place_model
from trainables.recipe import Numerics, Recipe
from trainables.training.optimizers import make_optimizer
from trainables.training.state import put_snapshot, take_snapshot


def row_order(tensor: Tensor) -> tuple[int, ...]:
    """Return the strides of the axes longer than 1."""
    pairs = zip(tensor.stride(), tensor.shape, strict=True)
    return tuple(stride for stride, length in pairs if length > 1)


def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    recipe = Recipe(width=4)
    model = place_model(empty_model(recipe, classes=3, image_size=8), Numerics())
    optimizer = make_optimizer(model, recipe.optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.rand(6, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_a_restored_optimizer_has_the_same_values_in_the_same_memory_format() -> None:
    """Kernels round differently in another memory format."""
    model, optimizer = trained(2)
    other, other_optimizer = trained(0)
    snapshot = {
        name: value.contiguous() for name, value in take_snapshot(model, model, optimizer).items()
    }
    put_snapshot(snapshot, other, other, other_optimizer)
    states = [each.state_dict()["state"] for each in (optimizer, other_optimizer)]
    buffers = [
        (before["momentum_buffer"], after["momentum_buffer"])
        for before, after in zip(states[0].values(), states[1].values(), strict=True)
    ]
    assert all(torch.equal(before, after) for before, after in buffers)
    assert all(row_order(before) == row_order(after) for before, after in buffers)
    assert any(row_order(before) != row_order(before.contiguous()) for before, _ in buffers)
