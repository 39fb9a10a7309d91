"""The kind of a machine, and the numerics that suit a trial on it.

The nodes of a cluster need not be alike: bfloat16 is fast on one processor and slow on another.
A trial uses what a probe has chosen for the kind of machine that it runs on.
"""

import logging
from collections.abc import Mapping
from functools import lru_cache

from common.provenance import machine_description
from trainables.device.probe import probe
from trainables.recipe import Numerics, Recipe

log = logging.getLogger(__name__)

Chosen = Mapping[str, Mapping[str, Numerics]]
"""Numerics by kind of machine and family."""


def machine_kind(device: str) -> str:
    """Return the name of the processor with the instruction sets that matter, or of the GPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    about = machine_description()
    return " ".join([about["processor"], *about["cpu_flags"]])


def numerics_here(
    recipe: Recipe, start: Numerics, chosen: Chosen, *, classes: int, image_size: int
) -> Numerics:
    """Return the numerics of a trial on this machine: those chosen for its kind, else probe them.

    `start` gives the device and the threads; `chosen` are the choices made before the sweep.
    """
    family = recipe.architecture.family
    known = chosen.get(machine_kind(start.device), {})
    if family in known:
        return known[family]
    return _probed(recipe, classes, image_size, start.device, start.threads)


@lru_cache(maxsize=16)
def _probed(recipe: Recipe, classes: int, image_size: int, device: str, threads: int) -> Numerics:
    return probe(recipe, classes=classes, image_size=image_size, device=device, threads=threads)
