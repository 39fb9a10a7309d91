"""The combinations of data type and memory format that the probe compares on a device."""

from collections.abc import Callable
from typing import Literal

import torch

from common.provenance import cpu_flags
from trainables.recipe import Dtype

Candidate = tuple[Dtype, Literal["contiguous", "channels_last"]]

REFERENCE: Candidate = ("float32", "contiguous")


FLAGS_WITH_BFLOAT16 = frozenset({"avx512f", "avx512_bf16", "amx_bf16", "bf16"})
"""Instruction sets, as Linux names them, with which oneDNN has fast code for bfloat16."""


def candidates_with(half: Dtype | None) -> tuple[Candidate, ...]:
    """Return the candidates, the reference first; `half` is the 16-bit data type, or None."""
    whole: tuple[Candidate, ...] = (REFERENCE, ("float32", "channels_last"))
    return whole if half is None else (*whole, (half, "channels_last"), (half, "contiguous"))


def half_precision(
    device: str,
    *,
    has_bfloat16: Callable[[str], bool] | None = None,
    flags: frozenset[str] | None = None,
) -> Dtype | None:
    """Return the 16-bit data type that suits a device; None on CPUs that only emulate bfloat16.

    There it takes about 14 times as long as float32. On a busy machine, where threads wait for each
    other, it was measured as faster all the same, so it is not even tried. `flags` are those of the
    processor, by default this machine's; with none known, bfloat16 is tried.

    GPUs before Ampere (T4, and V100 with a torch build for it) only emulate bfloat16, far slower
    than they compute in float16.
    """
    if device.startswith("cuda"):
        return "bfloat16" if (has_bfloat16 or _has_bfloat16)(device) else "float16"
    known = cpu_flags() if flags is None else flags
    return "bfloat16" if not known or known & FLAGS_WITH_BFLOAT16 else None


def _has_bfloat16(device: str) -> bool:
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
