"""Place a run's trials: on this machine or a cluster, with their storage and their number."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from journal.state import RunState
from search.tune.cluster import cluster_capacity
from search.tune.reach import require_reachable
from search.tune.served_folder import served
from search.tune.storage import Location, Storage
from trainables.records import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The place of a run's trials."""

    storage: Storage
    on_cluster: bool = False
    """True if nodes other than this machine may run trials."""
    workers: int | None = None
    """Largest number of concurrent trials; None for as many as fit."""
    images: Any = None
    """The images, if they have already been sent to the workers (see
    search/tune/data_travel.py)."""
    measured_on: str | None = None
    """The kind of machine that numerics suit; None if all machines are alike."""


@contextmanager
def placed(
    folder: RunFolder,
    state: RunState,
    *,
    root: str | None,
    on_cluster: bool,
    workers: int | None = None,
    measured_on: str | None = None,
    images: Any = None,
) -> Iterator[Placement]:
    """Yield the place of the trials of the run in `folder`, inside a `ray_session`.

    `root` is the folder or URI where the user wants the checkpoints. Without it, they are in the
    run's folder, which the other nodes of a cluster reach through Ray.

    Raises:
        SpecError: `root` cannot be used.
        RunError: a node cannot write to the storage or read from it.
    """
    place = partial(Placement, workers=workers, measured_on=measured_on, images=images)
    if root is None and not on_cluster:
        yield place(storage=Storage(folder.checkpoints))
        return
    if root is not None:
        storage = storage_of(folder, state, root=root)
        require_reachable(storage)
        yield place(storage=storage, on_cluster=on_cluster)
        return
    with served(folder.checkpoints.parent) as filesystem:
        remote = Location(filesystem, f"/{folder.checkpoints.name}")
        storage = Storage(folder.checkpoints, workers=remote)
        require_reachable(storage)
        yield place(storage=storage, on_cluster=True)


def is_cluster(address: str | None) -> bool:
    """Return whether Ray's nodes may be other machines than this one."""
    return address is not None or (ray.is_initialized() and len(cluster_capacity().nodes) > 1)


def storage_of(folder: RunFolder, state: RunState, *, root: str | None) -> Storage:
    """Return the storage of a run as this process reaches it.

    Many runs may share `root`: each has a folder there, named after it and its start.

    Raises:
        SpecError: `root` cannot be used.
    """
    if root is None:
        return Storage(folder.checkpoints)
    born = 0 if state.started is None else int(state.started.time)
    return Storage(Location.of(root) / f"{folder.name}-{born}")
