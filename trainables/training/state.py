"""The state of a training: kept and restored in memory, saved to and loaded from checkpoints.

Tensors are named `model.…`, `average.…` and `optimizer.INDEX.KEY`, where INDEX counts the
parameters in the optimizer's order. In a checkpoint, names of the current state have the prefix
`now.`, names of the trunk that a cooldown branched off have the prefix `trunk.`.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainables.training.active_stage import ActiveStage
from trainables.training.averaging import WeightAverage
from trainables.training.checkpoint import load_checkpoint, save_checkpoint
from trainables.training.identity import TrainingIdentity, require_same_training
from trainables.training.schedule import EpochPlan


class TrainingState:
    """The weights, their average, the optimizer's state, and the trunk to return to."""

    def __init__(
        self, stage: ActiveStage, average: WeightAverage, identity: TrainingIdentity
    ) -> None:
        """`identity` determines which checkpoints belong to this training."""
        self._stage, self._average, self._identity = stage, average, identity
        self.trunk: dict[str, Tensor] | None = None

    def keep_trunk(self) -> None:
        """Keep the current state as the trunk."""
        self.trunk = take_snapshot(*self._parts())

    def restore_trunk(self, stage: int, *, keep: bool) -> None:
        """Restore the trunk, which was kept in `stage`; forget it unless `keep`."""
        assert self.trunk is not None
        self._stage.enter(stage)
        put_snapshot(self.trunk, *self._parts())
        self.trunk = self.trunk if keep else None

    def save(self, folder: str | Path, *, step: int) -> None:
        """Write a checkpoint after `step` epochs."""
        tensors = {f"now.{name}": value for name, value in take_snapshot(*self._parts()).items()}
        tensors |= {f"trunk.{name}": value for name, value in (self.trunk or {}).items()}
        state = {"training": self._identity, "step": step, "trunk": self.trunk is not None}
        save_checkpoint(folder, tensors, state)

    def load(self, folder: str | Path, plans: tuple[EpochPlan, ...]) -> int:
        """Load a checkpoint of the schedule `plans`; return the number of epochs trained.

        Raises:
            RunError: the checkpoint is damaged or belongs to another training.
        """
        tensors, state = load_checkpoint(folder)
        step = int(state["step"])
        require_same_training(state["training"], self._identity, step=step, where=folder)
        self._stage.enter(plans[step - 1].stage if step else 0)
        put_snapshot(part_of(tensors, "now."), *self._parts())
        self.trunk = part_of(tensors, "trunk.") if state["trunk"] else None
        return step

    def _parts(self) -> tuple[nn.Module, nn.Module, Optimizer]:
        return self._stage.model, self._average.model, self._stage.optimizer


def take_snapshot(model: nn.Module, average: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return copies of the weights, their average and the optimizer's state."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, value in average.state_dict().items():
        tensors[f"average.{name}"] = value
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if value is not None:  # SGD's momentum buffer before the first step
                # Muon stores a bool: which of its two rules it applies to the parameter.
                tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    return {name: value.clone() for name, value in tensors.items()}


def put_snapshot(
    tensors: Mapping[str, Tensor], model: nn.Module, average: nn.Module, optimizer: Optimizer
) -> None:
    """Restore a snapshot in place; its tensors may be on another device."""
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
    """Return the tensors whose names start with `prefix`, with the prefix removed."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _copy_like(value: Tensor, parameter: Tensor) -> Tensor | bool:
    """Return a copy; if it has the shape of the parameter, also in the parameter's memory format.

    Kernels round differently in another memory format, and a resumed training must give bitwise
    the same result as an uninterrupted one.
    """
    if value.dtype == torch.bool and not value.ndim:
        return bool(value)
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter).copy_(value)
