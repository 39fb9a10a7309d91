"""The check for waits finds each of them: the same operations wait for a GPU."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.waits import META, WaitError, no_waits

READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool(x.sum() > 0),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: (x > 0).nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "masked_select": lambda x: torch.masked_select(x, x > 0),
    "unique": lambda x: torch.unique(x),
    "bincount": lambda x: torch.bincount(x.long()),
}
COPIES: dict[str, Callable[[Tensor], object]] = {
    "to": lambda x: torch.ones(4).to(x),
    "to with a device": lambda _: torch.ones(4).to(META),
    "tensor": lambda _: torch.tensor([1.0, 2.0], device=META),
    "as_tensor": lambda _: torch.as_tensor(np.ones(2), device=META),
    "index on the host": lambda x: x[torch.tensor([0, 1])],
    "copy_": lambda x: x.copy_(torch.ones(4)),
    "scalar": lambda x: x * torch.tensor(2.0),
}
FINE: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: torch.where(x > 0, x * 2, x.clamp(min=0)).sum(),
    "draws": lambda x: x + torch.rand(4, device=x.device, generator=torch.Generator()),
    "index": lambda x: x[torch.arange(2, device=x.device)],
    "slice": lambda x: x[1::2],
    "on the host": lambda _: torch.tensor([1.0, 2.0]).tolist(),
}


@pytest.mark.parametrize("name", READS)
def test_reading_a_value_is_refused(name: str) -> None:
    with no_waits(), pytest.raises((RuntimeError, NotImplementedError)):
        READS[name](torch.ones(4, device=META))


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_to_the_device_is_refused(name: str) -> None:
    x = torch.ones(4, device=META)
    COPIES[name](x)
    with no_waits(), pytest.raises(WaitError, match="copies"):
        COPIES[name](x)


@pytest.mark.parametrize("name", FINE)
def test_anything_else_is_allowed(name: str) -> None:
    with no_waits():
        FINE[name](torch.ones(4, device=META))
