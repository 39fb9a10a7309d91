"""Convert tensors to and from the bytes of a safetensors file; pickle is never used."""

import json
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from common.errors import RunError


def tensors_to_bytes(
    tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> bytes:
    """Return the safetensors file of `tensors`, ordered by name, with text metadata.

    Equal tensors and metadata give equal bytes.
    """
    # The format stores contiguous tensors; the network that loads them restores channels_last.
    rows = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    data: bytes = serialize_tensors(rows, metadata)
    return _with_sorted_metadata(data) if metadata and len(metadata) > 1 else data


def bytes_to_tensors(data: bytes, *, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file; `where` names it in errors.

    Raises:
        RunError: the file is truncated or in another format.
    """
    try:
        tensors: dict[str, Tensor] = parse_tensors(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
    except (SafetensorError, ValueError) as error:
        raise RunError(f"{where} is not a whole safetensors file: {error}") from None
    return tensors, header.get("__metadata__", {})


def _with_sorted_metadata(data: bytes) -> bytes:
    """Return the file with its metadata in order: safetensors writes it in a random one."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the tensors to 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
