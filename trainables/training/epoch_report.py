"""What a training tells after every epoch."""

import resource
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch came to: the payload of the journal's `epoch` event."""

    step: int
    """Epochs trained so far, cooldown branches included."""
    epoch: int
    """Epoch of the schedule that ended, from 1; equal to the rung at its end."""
    phase: Literal["trunk", "cooldown"]
    rung: int | None
    """The rung that this epoch ends."""
    train_loss: float
    """Mean of the loss that was minimized, in nats."""
    val_nll: float
    """After one temperature fitted on val, in nats."""
    val_accuracy: float
    temperature: float
    lr: float
    """Learning rate of the last optimizer step."""
    seconds: float
    """Wall time of the epoch, scoring included."""
    images_per_second: float
    """Training images per second of training, scoring left out."""
    peak_memory_bytes: int
    """Of the process since its start (CPU), or of torch's allocator in this training (CUDA)."""


def peak_memory_bytes(device: str) -> int:
    """The most memory that was held so far: of the process (CPU), of torch's allocator (CUDA)."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
