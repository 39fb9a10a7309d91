"""The trials that fit on a machine or cluster at the same time, and the resources of each."""

import math
import os
from dataclasses import dataclass

from common.cpu_runtime import usable_cores
from trainables.recipe import Numerics

PARTS = 10_000
"""Ray counts resources in units of 1 / PARTS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The resources that one trial occupies on one node for as long as it runs."""

    cores: float
    gpus: float = 0.0
    """1, or a fraction of one GPU."""
    memory_bytes: float = 0.0
    """0 if it is not known."""

    @property
    def resources(self) -> dict[str, float]:
        """The amounts under Ray's names; only those that are requested."""
        amounts = {"CPU": self.cores, "GPU": self.gpus, "memory": self.memory_bytes}
        return {name: amount for name, amount in amounts.items() if amount}

    def __str__(self) -> str:
        parts = [f"{self.cores:g} CPU core{'' if self.cores == 1 else 's'}"]
        if self.gpus:
            parts.insert(0, f"{self.gpus:g} GPU")
        if self.memory_bytes:
            parts.append(f"{self.memory_bytes / 1e9:.1f} GB")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine: its cores and GPUs, as Ray counts them."""

    cores: float
    gpus: float = 0.0
    name: str = ""
    id: str = ""
    """Ray's name of the node; empty for this machine without Ray."""
    store_bytes: float = 0.0
    """Size of its part of Ray's object store."""
    memory_bytes: float = math.inf
    """Memory for processes, excluding the object store."""

    def holds(self, share: Share) -> int:
        """Return how many trials fit on this node."""
        places = int(self.cores * PARTS) // int(share.cores * PARTS)
        if share.memory_bytes and self.memory_bytes < math.inf:
            places = min(places, int(self.memory_bytes // share.memory_bytes))
        if share.gpus:
            # No trial is spread over two GPUs.
            places = min(places, int(self.gpus) * (PARTS // round(share.gpus * PARTS)))
        return places


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The nodes that trials can use: one machine, or a cluster as it is now."""

    nodes: tuple[Node, ...]

    @property
    def has_gpus(self) -> bool:
        """True if any node has a GPU."""
        return any(node.gpus for node in self.nodes)

    def trials_at_a_time(self, share: Share) -> int:
        """Return how many trials fit now; 0 if none does."""
        return sum(node.holds(share) for node in self.nodes)

    def largest(self) -> Node:
        """Return the node with the most GPUs, then the most cores; if none, one without cores."""
        return max(self.nodes, key=lambda node: (node.gpus, node.cores), default=Node(cores=0.0))

    def largest_for(self, share: Share) -> Node:
        """Return the node that holds the most trials; one without cores if there is none."""
        return max(self.nodes, key=lambda node: node.holds(share), default=Node(cores=0.0))

    def most_on_a_node(self, share: Share) -> int:
        """Return the largest number of trials that fit on any one node."""
        return max((node.holds(share) for node in self.nodes), default=0)


def share_of(numerics: Numerics, *, per_gpu: int = 1) -> Share:
    """Return what a trial occupies: a core per thread, or a core and its part of a GPU.

    `per_gpu` is the number of trials on one GPU.
    """
    if not numerics.device.startswith("cuda"):
        return Share(cores=float(numerics.threads))
    return Share(cores=1.0, gpus=1.0 if per_gpu == 1 else PARTS // per_gpu / PARTS)


def machine_capacity(numerics: Numerics) -> Capacity:
    """Return the cores that this process may use, and this machine's GPUs if trials use them."""
    gpus = 0
    if numerics.device.startswith("cuda"):
        import torch  # takes seconds to import

        gpus = torch.cuda.device_count()
    return Capacity(nodes=(Node(cores=usable_cores(), gpus=gpus, name=os.uname().nodename),))


def threads_per_trial(cores: int, *, concurrent: int | None, trials: int) -> int:
    """Return the threads of each trial on the CPU: one, unless there are fewer trials than cores.

    `concurrent` is the number of concurrent trials that the specification asks for, or None.
    """
    return max(1, cores // min(concurrent or cores, trials))
