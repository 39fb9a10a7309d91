"""Check that this machine has a GPU that torch can use."""

import os
import re
import warnings

import torch

from common.errors import SpecError


def require_gpu() -> None:
    """Raise an error if this machine has no GPU, or has one that torch has no kernels for.

    Raises:
        SpecError: torch sees no GPU, or one that it was not built for; the message says what it
            was built for.
    """
    if torch.cuda.is_available():
        _require_kernels()
        return
    if torch.version.cuda is None and torch.version.hip is None:
        reason = f"torch {torch.__version__} was built without GPU support"
    elif os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        reason = "CUDA_VISIBLE_DEVICES is empty"
    else:
        reason = f"torch {torch.__version__} finds no GPU on this machine"
    raise SpecError(
        f"--profile gpu: {reason}; leave out --profile to train on the CPU, or join a cluster "
        "that has GPUs with --address"
    )


def _require_kernels() -> None:
    """Refuse GPUs that torch has no kernels for: torch only warns, and its first kernel then fails.

    Builds that list no architecture of NVIDIA's, e.g. those for AMD's GPUs, are not checked.
    """
    binaries, sources = _architectures("sm"), _architectures("compute")
    for index in range(torch.cuda.device_count() if binaries or sources else 0):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torch.cuda")  # says the same on many lines
            capability = torch.cuda.get_device_capability(index)
        if not _has_kernels(capability, binaries, sources):
            supported = ", ".join(map(_version, sorted({*binaries, *sources})))
            raise SpecError(
                f"--profile gpu: {torch.cuda.get_device_name(index)} has compute capability "
                f"{_version(capability)}, and torch {torch.__version__} supports {supported}; "
                "install a torch build for this GPU (see docs/platforms.md), hide it with "
                "CUDA_VISIBLE_DEVICES if there is another, or leave out --profile to use the CPU"
            )


def _has_kernels(
    capability: tuple[int, int], binaries: list[tuple[int, int]], sources: list[tuple[int, int]]
) -> bool:
    """Return whether a GPU can run kernels that were compiled for these capabilities.

    Machine code runs on later minor versions of its major version, PTX on all later versions
    (NVIDIA, CUDA C++ Programming Guide, "Application Compatibility").
    """
    same_major = [each for each in binaries if each[0] == capability[0]]
    return any(each <= capability for each in (*same_major, *sources))


def _architectures(kind: str) -> list[tuple[int, int]]:
    """Return the capabilities torch has machine code ("sm") or PTX ("compute") for."""
    names = (re.fullmatch(rf"{kind}_(\d+)(\d)[af]?", each) for each in torch.cuda.get_arch_list())
    return [(int(name[1]), int(name[2])) for name in names if name]


def _version(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
