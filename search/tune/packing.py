"""Pack trials by the memory that earlier ones needed.

The first trials request cores only, or a whole GPU. Every epoch and every out-of-memory failure
reports a peak. Later trials request 1.25 times the largest peak of their kind, or a fraction of a
GPU, so that no more of them share a node or a GPU than fit. A kind is the values that determine the
memory (see `memory_kind`); trials of a kind that has not reported yet request as much as those of
the largest.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from journal.state import RunState
from search.timetable.capacity import Capacity, Share
from search.timetable.capacity import share_of as device_share
from search.tune.cluster import cluster_capacity
from trainables.hyperparameters import Architecture
from trainables.recipe import Numerics, Recipe

HEADROOM = 1.25
"""Requested memory as a multiple of the largest peak: a later recipe may need more."""

STEP_BYTES = 512 << 20
"""Requests are multiples of this: Ray starts a new worker process for every distinct request."""

CONTEXT_BYTES = 600 << 20
"""Memory of a process on a GPU besides torch's allocator."""

GPU_SHARE = 0.9
"""Share of a GPU's memory that trials may take."""

NEARLY = 0.9
"""Share of a node's memory that counts as all of it: nodes of one type differ a little."""

MOST_PER_GPU = 4
"""Largest number of trials on one GPU."""


class MemoryKind(NamedTuple):
    """The values of a recipe that determine the memory of its training."""

    network: Architecture
    batch_size: int
    accumulation: int
    optimizer: str
    trained: tuple[str, ...]
    """The layers that each stage trains."""


def memory_kind(recipe: Recipe) -> MemoryKind:
    """Return the kind of a recipe: trainings of one kind need the same memory."""
    return MemoryKind(
        recipe.architecture.training_work,
        recipe.optimizer.batch_size,
        recipe.optimizer.accumulation,
        recipe.optimizer.name,
        tuple(stage.train for stage in recipe.schedule.stages),
    )


class Packing:
    """The resources of the trials of a sweep, as far as is known now."""

    def __init__(
        self,
        numerics: Numerics,
        state: RunState,
        *,
        capacity: Callable[[], Capacity] = cluster_capacity,
        shared_bytes: int = 0,
    ) -> None:
        """`state` has the peaks of earlier trials and is kept up to date; `capacity` reads nodes.

        `shared_bytes` is the memory of the images, which a process shares with others.
        """
        self._numerics = numerics
        self._state = state
        self._capacity = capacity
        self._shared = shared_bytes
        self._gpu_bytes = 0
        """Memory of the smallest GPU that has reported."""
        self._kinds: dict[str, MemoryKind] = {}
        """Kind of each trial that has not ended, by its name."""
        self._ended: set[str] = set()
        self._ended_peaks: dict[MemoryKind, int] = {}
        self._known: tuple[int, dict[MemoryKind, int]] = (-1, {})
        """The number of events so far, and the peaks after them."""

    def observe(self, result: Mapping[str, Any]) -> None:
        """Learn the memory of a trial's device from its report."""
        found = result.get("device_memory_bytes", 0)
        if found:
            self._gpu_bytes = min(found, self._gpu_bytes or found)

    @property
    def share(self) -> Share:
        """The resources of a trial of an unknown kind."""
        return self.share_in(self._capacity())

    def share_of(self, recipe: Recipe) -> Share:
        """Return the resources of a trial with this recipe."""
        return self.share_in(self._capacity(), memory_kind(recipe))

    def share_in(self, capacity: Capacity, kind: MemoryKind | None = None) -> Share:
        """Return a trial's resources, with no more memory than a suitable node has.

        Without a `kind`, the trial may be of any kind.
        """
        peaks = self._peaks()
        known = 0 if kind is None else peaks.get(kind, 0)
        return self._share_for(known or max(peaks.values(), default=0), capacity)

    def least_share_in(self, capacity: Capacity) -> Share:
        """Return the resources of a trial of the kind that needs the least memory."""
        peaks = self._peaks().values()
        return self._share_for(min((peak for peak in peaks if peak), default=0), capacity)

    def _peaks(self) -> dict[MemoryKind, int]:
        """Return the largest peak of each kind; an ended trial is read once."""
        if self._known[0] == self._state.count:
            return self._known[1]
        peaks = dict(self._ended_peaks)
        for name, trial in self._state.trials.items():
            if name in self._ended:
                continue
            if name not in self._kinds:
                self._kinds[name] = memory_kind(Recipe.from_mapping(trial.recipe))
            kind = self._kinds[name]
            peaks[kind] = max(peaks.get(kind, 0), trial.peak_memory_bytes)
            if trial.end is not None:
                self._ended.add(name)
                del self._kinds[name]
                self._ended_peaks[kind] = max(self._ended_peaks.get(kind, 0), peaks[kind])
        self._known = (self._state.count, peaks)
        return peaks

    def _share_for(self, peak: float, capacity: Capacity) -> Share:
        if self._numerics.device.startswith("cuda"):
            return device_share(self._numerics, per_gpu=trials_per_gpu(self._gpu_bytes, peak))
        share = device_share(self._numerics)
        memory = [node.memory_bytes for node in capacity.nodes if node.holds(share)]
        # A little more or less memory must not decide between nodes of one type.
        enough = [each for each in memory if each >= own_bytes(peak, shared=self._shared)]
        most = min(enough) if enough else NEARLY * max(memory, default=0.0)
        requested = requested_bytes(peak, shared=self._shared)
        return replace(share, memory_bytes=min(requested, most))

    @property
    def alone(self) -> Share:
        """The resources of a trial that must not share a node, or a GPU.

        All cores of a node with about the most memory, which no other trial can then use.
        """
        share, nodes = device_share(self._numerics), self._capacity().nodes
        if share.gpus:
            return share
        most = max((node.memory_bytes for node in nodes if node.holds(share)), default=0.0)
        large = [node for node in nodes if node.holds(share) and node.memory_bytes >= NEARLY * most]
        cores = min((node.cores for node in large), default=share.cores)
        return replace(share, cores=float(int(cores)), memory_bytes=NEARLY * most)


def requested_bytes(peak: float, *, shared: float) -> float:
    """Return the memory to request for a trial, given the largest peak of a process so far.

    0 if nothing was measured.
    """
    return math.ceil(HEADROOM * own_bytes(peak, shared=shared) / STEP_BYTES) * STEP_BYTES


def own_bytes(peak: float, *, shared: float) -> float:
    """Return the memory that a process does not share with others."""
    return max(peak - shared, min(peak, STEP_BYTES))


def trials_per_gpu(gpu_bytes: float, peak: float) -> int:
    """Return how many trials share a GPU, given the largest peak of torch's allocator so far."""
    if not gpu_bytes or not peak:
        return 1
    return max(1, min(MOST_PER_GPU, int(GPU_SHARE * gpu_bytes / (HEADROOM * peak + CONTEXT_BYTES))))
