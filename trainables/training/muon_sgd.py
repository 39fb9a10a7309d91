"""The optimizer of airbench94_muon: Muon for hidden matrices, SGD for everything else.

Facts from github.com/KellerJordan/cifar10-airbench: three Newton-Schulz steps, both parts with
Nesterov momentum, and before each step a hidden matrix is scaled to the norm √out. The learning
rate of Muon is thus a share of the matrix's size, and the matrix needs no weight decay.

Axes: a hidden parameter [out, …] is a matrix [out, n].
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

NEWTON_SCHULZ_STEPS = 3
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of s, s³ and s⁵ (Jordan, 2024): repeated, the polynomial brings every singular
value s in (0, 1] near 1, small ones fast."""
SGD_MOMENTUM = 0.85


class MuonSgd(Optimizer):
    """Orthogonalized steps for parameter groups without `use_fallback`, SGD for the others."""

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, momentum: float) -> None:
        """`groups` are as from `parameter_groups`; `momentum` is Muon's."""
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if group["use_fallback"]:
                    gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                    update = self._with_momentum(parameter, gradient, SGD_MOMENTUM)
                else:
                    gradient = self._with_momentum(parameter, parameter.grad, group["momentum"])
                    update = orthogonalized(gradient.flatten(1)).reshape(parameter.shape)
                    norm = parameter.norm().clamp(min=1e-12)
                    parameter.mul_(len(parameter) ** 0.5 / norm)
                parameter.add_(update, alpha=-group["lr"])

    def _with_momentum(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Add a gradient to the parameter's buffer; return Nesterov's combination of both."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"].mul_(momentum).add_(gradient)
        return gradient.add(buffer, alpha=momentum)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return the matrix [m, n] with the same singular vectors and singular values near 1."""
    a, b, c = COEFFICIENTS
    wide: Tensor = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Tensor = wide / (wide.norm() + 1e-7)
    if matrix.is_cuda and torch.cuda.get_device_capability(matrix.device) >= (8, 0):
        x = x.bfloat16()  # as published; the step's direction needs no more bits
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.to(matrix.dtype)
    return x if wide is matrix else x.T
