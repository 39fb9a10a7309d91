"""The state of a training: kept and restored in memory, saved to and loaded from checkpoints.

Tensors are named `model.…`, `average.…`, `optimizer.PARAMETER.KEY` for the optimizer's state of a
parameter, `group.INDEX.KEY` for counters that an optimizer keeps in a parameter group, and
`scaler.…` for the scale of a loss in float16. In a checkpoint, names of the current state have the
prefix `now.`, names of the trunk that a cooldown branched off have the prefix `trunk.`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from trainables.training.active_stage import ActiveStage
from trainables.training.averaging import WeightAverage
from trainables.training.checkpoint import load_checkpoint, save_checkpoint
from trainables.training.identity import TrainingIdentity, require_same_training
from trainables.training.optimizer_step import StepPosition
from trainables.training.schedule import EpochPlan

_SCALER = {"scale": "scale", "growth_tracker": "_growth_tracker"}
"""Our names, and those of the scaler's `state_dict`."""


class TrainingState:
    """The weights, their average, the optimizer's state, and the trunk to return to."""

    def __init__(
        self,
        stage: ActiveStage,
        average: WeightAverage,
        identity: TrainingIdentity,
        scaler: GradScaler | None = None,
    ) -> None:
        """`identity` determines which checkpoints belong to this training."""
        self._stage, self._average, self._identity = stage, average, identity
        self._scaler = scaler
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

    def save(self, folder: str | Path, *, step: int, halvings: Sequence[StepPosition]) -> None:
        """Write a checkpoint after `step` epochs; `halvings` are those so far."""
        tensors = {f"now.{name}": value for name, value in take_snapshot(*self._parts()).items()}
        tensors |= {f"trunk.{name}": value for name, value in (self.trunk or {}).items()}
        state = {
            "training": self._identity,
            "step": step,
            "trunk": self.trunk is not None,
            "halvings": [list(halving) for halving in halvings],
        }
        save_checkpoint(folder, tensors, state)

    def load(
        self, folder: str | Path, plans: tuple[EpochPlan, ...]
    ) -> tuple[int, list[StepPosition]]:
        """Load a checkpoint of the schedule `plans`; return the epochs trained and the halvings.

        Raises:
            RunError: the checkpoint is damaged or belongs to another training.
        """
        tensors, state = load_checkpoint(folder)
        step = int(state["step"])
        require_same_training(state["training"], self._identity, step=step, where=folder)
        self._stage.enter(plans[step - 1].stage if step else 0)
        put_snapshot(part_of(tensors, "now."), *self._parts())
        self.trunk = part_of(tensors, "trunk.") if state["trunk"] else None
        return step, [StepPosition(*halving) for halving in state["halvings"]]

    def _parts(self) -> tuple[nn.Module, nn.Module, Optimizer, GradScaler | None]:
        return self._stage.model, self._average.model, self._stage.optimizer, self._scaler


def take_snapshot(
    model: nn.Module, average: nn.Module, optimizer: Optimizer, scaler: GradScaler | None = None
) -> dict[str, Tensor]:
    """Return copies of the weights, their average, and the state of optimizer and scaler."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for name, value in average.state_dict().items():
        tensors[f"average.{name}"] = value
    state = optimizer.state_dict()["state"]
    for index, name in enumerate(_names(model, optimizer)):
        for key, value in state.get(index, {}).items():
            if value is not None:  # SGD's momentum buffer before the first step
                tensors[f"optimizer.{name}.{key}"] = _as_tensor(value)
    for index, group in enumerate(optimizer.param_groups):
        for key in _counters(group):
            tensors[f"group.{index}.{key}"] = _as_tensor(group[key])
    if scaler is not None:
        state = scaler.state_dict()
        tensors |= {f"scaler.{name}": _as_tensor(state[key]) for name, key in _SCALER.items()}
    return {name: value.clone() for name, value in tensors.items()}


def put_snapshot(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    average: nn.Module,
    optimizer: Optimizer,
    scaler: GradScaler | None = None,
) -> None:
    """Restore a snapshot in place; its tensors may be on another device."""
    model.load_state_dict(part_of(tensors, "model."))
    average.load_state_dict(part_of(tensors, "average."))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = {name: index for index, name in enumerate(_names(model, optimizer))}
    state: dict[int, dict[str, Any]] = {}
    for name, value in part_of(tensors, "optimizer.").items():
        parameter, key = name.rsplit(".", 1)
        index = indices[parameter]
        state.setdefault(index, {})[key] = _copy_like(value, parameters[index])
    groups = optimizer.state_dict()["param_groups"]
    for group in groups:
        for key in _counters(group):  # a counter that the snapshot lacks has not begun
            del group[key]
    for name, value in part_of(tensors, "group.").items():
        number, key = name.split(".", 1)
        groups[int(number)][key] = _plain(value)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    if scaler is not None:
        saved = part_of(tensors, "scaler.")
        values = {key: saved[name].item() for name, key in _SCALER.items()}
        scaler.load_state_dict({**scaler.state_dict(), **values})


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix`, with the prefix removed."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of the optimizer's parameters, in its order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _counters(group: Mapping[str, Any]) -> list[str]:
    """Return the keys of a parameter group that count steps, e.g. those of timm's LAMB and Adan."""
    return [key for key in ("step", "k") if key in group]


def _as_tensor(value: Any) -> Tensor:
    """Return the value as a tensor from which `_plain` restores it; floats become float64."""
    return torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None)


def _plain(value: Tensor) -> Any:
    """Return a bool, int64 or float64 scalar as a Python value; any other tensor unchanged."""
    scalar = not value.ndim and value.dtype in (torch.bool, torch.int64, torch.float64)
    return value.item() if scalar else value


def _copy_like(value: Tensor, parameter: Tensor) -> Any:
    """Return a copy; if it has the shape of the parameter, also in the parameter's memory format.

    Kernels round differently in another memory format, and a resumed training must give bitwise
    the same result as an uninterrupted one.
    """
    plain = _plain(value)
    if not isinstance(plain, Tensor):
        return plain
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter).copy_(value)
