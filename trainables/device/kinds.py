"""The kind of a machine, and the numerics that suit a trial on it.

The nodes of a cluster need not be alike: bfloat16 is fast on one processor and slow on another.
The probe before a sweep measures one kind of machine; workers of other kinds run their own probe.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.provenance import machine_description
from trainables.hyperparameters import Architecture
from trainables.recipe import Numerics, Recipe

Probe = Callable[..., Numerics]
"""Chooses numerics; `trainables.device.probe.probe` is the usual one."""


def machine_here(device: str) -> dict[str, Any]:
    """Describe the machine of this process, with the name of its GPU if `device` is one."""
    return {**machine_description(), **({"gpu": _gpu_name(device)} if _on_gpu(device) else {})}


def machine_kind(device: str) -> str:
    """Return the GPU's name, or the processor's with those of its relevant instruction sets."""
    return kind_of(machine_here(device))


def kind_of(machine: Mapping[str, Any]) -> str:
    """Return the kind of a machine that `machine_here` has described."""
    return machine.get("gpu") or " ".join([machine["processor"], *machine["cpu_flags"]])


@dataclass(slots=True)
class NumericsHere:
    """Chooses the numerics of trials on this machine; each network is measured once."""

    probe: Probe | None = None
    """None for the usual one, which imports torch."""
    kind: str | None = None
    """The kind of this machine; None to detect it."""
    _chosen: dict[tuple[Architecture, int], Numerics] = field(default_factory=dict)

    def choose(
        self, recipe: Recipe, given: Numerics, *, measured_on: str, classes: int, image_size: int
    ) -> Numerics:
        """Return `given` if it was measured on this kind of machine; else what a probe chooses.

        The device and the number of threads are always those of `given`.
        """
        if measured_on == (self.kind or machine_kind(given.device)):
            return given
        network = recipe.architecture.training_work
        key = (network, image_size)
        if key not in self._chosen:
            self._chosen[key] = (self.probe or _usual_probe)(
                recipe,
                classes=classes,
                image_size=image_size,
                device=given.device,
                threads=given.threads,
            )
        return self._chosen[key]


def device_memory(device: str) -> int:
    """Return the memory of a GPU in bytes; 0 for the CPU, whose memory Ray knows."""
    if not _on_gpu(device):
        return 0
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def _usual_probe(recipe: Recipe, **options: Any) -> Numerics:
    from trainables.device.probe import probe

    return probe(recipe, **options)


def _on_gpu(device: str) -> bool:
    return device.startswith("cuda")


def _gpu_name(device: str) -> str:
    import torch

    return str(torch.cuda.get_device_name(device))
