"""All that changes in a training, as tensors by name: taken out, and put back in place.

Names are `model.…`, `average.…` and `optimizer.INDEX.KEY`, with INDEX counting the
parameters in the optimizer's own order.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def take_snapshot(model: nn.Module, average: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Copies of the weights, their average and the optimizer's state."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, value in average.state_dict().items():
        tensors[f"average.{name}"] = value
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if value is not None:  # SGD's momentum buffer before the first step
                # Muon notes by a bool which rule it applies to a parameter.
                tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    return {name: value.clone() for name, value in tensors.items()}


def put_snapshot(
    tensors: Mapping[str, Tensor], model: nn.Module, average: nn.Module, optimizer: Optimizer
) -> None:
    """The inverse of `take_snapshot`, in place; the tensors may be on another device."""
    model.load_state_dict(part_of(tensors, "model."))
    average.load_state_dict(part_of(tensors, "average."))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor | bool]] = {}
    for name, value in part_of(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = _copy_like(value, parameters[int(index)])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _copy_like(value: Tensor, parameter: Tensor) -> Tensor | bool:
    """A copy; where it belongs to each weight, in the weights' memory format.

    Kernels round differently along rows of another order, and a resumed training must end
    bitwise where an uninterrupted one ends.
    """
    if value.dtype == torch.bool and not value.ndim:
        return bool(value)
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter).copy_(value)
