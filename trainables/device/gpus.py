"""Check that this machine has a GPU that torch can use."""

import os

import torch

from common.errors import SpecError


def require_gpu(*, address: str | None = None) -> None:
    """Refuse to train on a GPU where there is none.

    A plan for the Ray cluster at `address` needs one as well: it measures on this machine.

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
    if address is None:
        raise SpecError(
            f"--profile gpu: {reason}; leave out --profile to train on the CPU, or join a cluster "
            "that has GPUs with --address"
        )
    raise SpecError(
        f"--profile gpu: a dry run measures on this machine, not on the cluster at {address}, and "
        f"here {reason}; start it on a machine of the cluster that has a GPU, or leave out "
        "--profile to plan for CPUs"
    )
