"""Check that this machine has a GPU that torch can use."""

import os

import torch

from common.errors import SpecError


def require_gpu() -> None:
    """Refuse to train on a GPU where there is none.

    Raises:
        SpecError: torch sees no GPU; the message says what it was built for.
    """
    if torch.cuda.is_available():
        return
    if torch.version.cuda is None and torch.version.hip is None:
        reason = f"torch {torch.__version__} was built without GPU support"
    elif os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        reason = "CUDA_VISIBLE_DEVICES is empty"
    else:
        reason = f"torch {torch.__version__} finds no GPU on this machine"
    raise SpecError(
        f"--profile gpu: {reason}; leave out --profile to train on the CPU, or join a cluster that "
        "has GPUs with --address"
    )
