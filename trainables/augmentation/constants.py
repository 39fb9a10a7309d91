"""Constant tensors, copied to each device once: a copy at every step would wait for the device."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

MOST = 256
"""Constants kept; there are about twenty for each device and dtype."""


@lru_cache(maxsize=MOST)
def constant(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return numbers, in a tuple of any depth, as a tensor that callers must not change."""
    # A tensor made in inference mode could not take part in a training later.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def constant_like(values: Any, tensor: Tensor) -> Tensor:
    """Return `constant` on the device and with the dtype of a tensor."""
    return constant(values, tensor.dtype, tensor.device)
