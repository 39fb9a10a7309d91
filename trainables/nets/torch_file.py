"""Read the tensors in a file of torch.save, without running any code in it.

Such files are pickles, which can run any code when they are opened by Python's own loader.
torch's `weights_only` loader builds tensors and plain containers and refuses everything else.
"""

import argparse
import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from common.errors import RunError

_SIGNATURES = (b"PK\x03\x04", b"\x80")
"""First bytes of files written by torch.save, since version 1.6 and before."""

_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys of a training checkpoint that hold the weights; averages of the weights come first, as
timm prefers them."""

_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that torch's data parallelism and compilation put before every name."""


def is_torch_file(data: bytes) -> bool:
    """Return whether a file begins as those of torch.save do.

    A safetensors file begins with the length of its header, whose low byte may be that of a pickle;
    after these eight bytes comes the header, a JSON object.
    """
    return data.startswith(_SIGNATURES) and data[8:9] != b"{"


def torch_file_to_tensors(data: bytes, *, where: str) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or of a training checkpoint that holds one.

    `where` names the file in errors. Values that are not tensors are left out.

    Raises:
        RunError: the file is damaged, needs code to be opened, or holds no weights.
    """
    try:
        # timm's checkpoints hold their command line's arguments, a plain record.
        with (
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(action="ignore"),
        ):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise a dozen unrelated types
        raise RunError(f"{where} {_reason(error)}") from None
    tensors = {
        _unwrapped(name): value
        for name, value in _state_dict(content).items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise RunError(f"{where} holds no weights by name; name the file of a state_dict")
    return tensors


def _reason(error: Exception) -> str:
    needed = re.search(r"GLOBAL (\S+)", str(error))
    if needed is not None:
        return (
            f"also holds {needed[1]}, and opening it could run code; save the "
            "network's state_dict alone, with safetensors.torch.save_file"
        )
    first = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
    return f"is not a whole file of torch.save ({first or type(error).__name__}); fetch it again"


def _state_dict(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    for key in _NESTED:
        if isinstance(content.get(key), Mapping):
            return content[key]  # type: ignore[no-any-return]
    return content


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name[name.index(".") + 1 :]
    return name
