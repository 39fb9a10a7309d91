"""Fail where a program would wait for a GPU: run it on torch's meta device, which has no values.

On the meta device, torch refuses whatever reads a value or the number of true values: `item`,
`tolist`, `float`, `bool`, `nonzero`, masks as indices, `unique`. A GPU also waits while values are
copied to it from memory that is not pinned, which the meta device allows; `no_waits` refuses that
too. Only public parts of torch are used.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

META = "meta"


class WaitError(AssertionError):
    """A copy between the host and the device."""


@contextmanager
def no_waits(*, copies: bool = False) -> Iterator[None]:
    """Refuse copies from the host to the meta device inside the block, unless `copies`."""
    with _Copies(copies):
        yield


class _Copies(TorchFunctionMode):
    def __init__(self, allowed: bool) -> None:
        super().__init__()
        self._allowed = allowed

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch's and look at its inputs and outputs."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        inputs = list(_tensors([args, kwargs]))
        if name == "_sample_dirichlet":  # a plain kernel on a GPU, and missing on this device
            return torch.empty_like(inputs[0])
        result = func(*args, **kwargs)
        if self._allowed:
            return result
        outputs = [x for x in (*_tensors(result), *inputs) if x.device.type == META]
        if outputs and any(x.device.type != META for x in inputs):
            raise WaitError(f"{name} copies values from the host")
        if name in ("tensor", "as_tensor", "from_numpy") and outputs:
            raise WaitError(f"{name} copies a constant from the host")
        return result


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
