"""The combinations of data type and memory format that the probe compares on a device."""

from collections.abc import Callable
from typing import Literal

import torch

from trainables.recipe import Dtype

Candidate = tuple[Dtype, Literal["contiguous", "channels_last"]]

REFERENCE: Candidate = ("float32", "contiguous")


def candidates_with(half: Dtype) -> tuple[Candidate, ...]:
    """Return the candidates, the reference first, with one data type of 16 bits."""
    return (REFERENCE, ("float32", "channels_last"), (half, "channels_last"), (half, "contiguous"))


def half_precision(device: str, *, has_bfloat16: Callable[[str], bool] | None = None) -> Dtype:
    """Return the data type of 16 bits that suits a device: float16 on GPUs without bfloat16.

    GPUs before Ampere (T4, and V100 with a torch build for it) only emulate bfloat16, far slower
    than they compute in float16.
    """
    if not device.startswith("cuda"):
        return "bfloat16"
    return "bfloat16" if (has_bfloat16 or _has_bfloat16)(device) else "float16"


def _has_bfloat16(device: str) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
