"""Fail where a program would wait for a GPU: run it on torch's meta device, which has no values.

On the meta device, torch refuses whatever reads a value or the number of true values: `item`,
`tolist`, `float`, `bool`, `nonzero`, masks as indices, `unique`. A GPU also waits while values are
copied to it from memory that is not pinned, which the meta device allows; `no_waits` refuses that
and `counted_copies` counts it. Only public parts of torch are used.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

META = "meta"


class WaitError(AssertionError):
    """A copy between the host and the device."""


@dataclass
class Copies:
    """The copies between the host and the meta device."""

    count: int = 0
    bytes: int = 0


@contextmanager
def no_waits() -> Iterator[None]:
    """Refuse copies from the host to the meta device inside the block."""
    with _Watch(Copies(), refuse=True):
        yield


@contextmanager
def counted_copies() -> Iterator[Copies]:
    """Count copies between the host and the meta device inside the block.

    `cpu` returns zeros, and `equal` that all is equal.
    """
    copies = Copies()
    with _Watch(copies, refuse=False):
        yield copies


class _Watch(TorchFunctionMode):
    def __init__(self, copies: Copies, *, refuse: bool) -> None:
        super().__init__()
        self._copies, self._refuse = copies, refuse

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch's and look at its inputs and outputs."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        inputs = list(_tensors([args, kwargs]))
        if name == "_sample_dirichlet" and inputs[0].device.type == META:
            return torch.empty_like(inputs[0])  # a plain kernel on a GPU; missing here
        reads = not self._refuse and name in ("equal", "cpu") and inputs[0].device.type == META
        if reads:  # of a device with values
            self._copies.count += 1
            return True if name == "equal" else torch.zeros(inputs[0].shape)
        result = func(*args, **kwargs)
        on_meta = [x for x in (*_tensors(result), *inputs) if x.device.type == META]
        copied = [x for x in inputs if x.device.type != META]
        if name in ("tensor", "as_tensor", "from_numpy"):
            copied = list(_tensors(result))
        if on_meta and copied:
            if self._refuse:
                raise WaitError(f"{name} copies values from the host")
            self._copies.count += 1
            self._copies.bytes += sum(x.nbytes for x in copied)
        return result


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
