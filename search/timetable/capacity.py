"""The number of trials that a machine or cluster runs at a time, and their resources."""

from dataclasses import dataclass

from common.cpu_runtime import usable_cores
from trainables.recipe import Numerics


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The cores and GPUs that trials can use, on one machine or on a whole cluster."""

    cores: float
    gpus: float = 0.0

    def trials_at_a_time(self, numerics: Numerics) -> int:
        """Return the number of concurrent trials: one per GPU, or as many as the cores allow."""
        if numerics.device.startswith("cuda"):
            return max(1, int(self.gpus))
        return max(1, int(self.cores // numerics.threads))

    def share(self, numerics: Numerics, *, trials: int) -> "Capacity":
        """Return what each of `trials` concurrent trials occupies, as Ray counts it.

        A trial on the CPU never occupies more cores than it has threads, and a trial on a GPU
        never more than one GPU.
        """
        on_gpu = numerics.device.startswith("cuda")
        return Capacity(
            cores=_divided(self.cores, trials, at_most=numerics.threads),
            gpus=_divided(self.gpus, trials, at_most=1) if on_gpu else 0.0,
        )

    @property
    def resources(self) -> dict[str, float]:
        """The cores and GPUs under Ray's names; without GPUs, only the cores."""
        return {"CPU": self.cores, **({"GPU": self.gpus} if self.gpus else {})}


def machine_capacity(numerics: Numerics) -> Capacity:
    """Return the cores that this process may use, and this machine's GPUs if trials use them."""
    if not numerics.device.startswith("cuda"):
        return Capacity(cores=usable_cores())
    import torch  # takes seconds to import

    return Capacity(cores=usable_cores(), gpus=torch.cuda.device_count())


def threads_per_trial(cores: int, *, concurrent: int | None, trials: int) -> int:
    """Return the threads of each trial on the CPU: one, unless there are fewer trials than cores.

    `concurrent` is the number of trials at a time that the specification asks for, or None.
    """
    return max(1, cores // min(concurrent or cores, trials))


def _divided(amount: float, parts: int, *, at_most: int) -> float:
    """Divide a resource; Ray takes whole numbers, or fractions below one."""
    part = amount / parts
    return float(min(at_most, int(part))) if part >= 1 else int(part * 1000) / 1000
