"""Nodes of the joined Ray cluster: their resources, and calls that run a function on a node."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from common.errors import QuorumError, RunError
from search.timetable.capacity import Capacity, Node, Share

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SLOWEST = 8.0
"""Longest wait for a node's result, as a multiple of the time that the fastest node took: a node
that takes longer is busy with other work, or far slower than the others."""

START_SECONDS = 60.0
"""Shortest wait: on the other nodes, workers may have to start and import torch."""

READ_SECONDS = 1.0
"""Interval at which the nodes are read again."""

NodeTable = Callable[[], Sequence[Mapping[str, Any]]]
"""Returns Ray's table of nodes; `ray.nodes` is the usual one."""


def cluster_capacity(nodes: NodeTable = ray.nodes) -> Capacity:
    """Return the nodes that are alive now, with their cores and GPUs, used or not."""
    return Capacity(
        nodes=tuple(
            Node(
                cores=node["Resources"].get("CPU", 0.0),
                gpus=node["Resources"].get("GPU", 0.0),
                name=f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})",
                id=node["NodeID"],
                memory_bytes=node["Resources"].get("memory", 0.0),
                store_bytes=node["Resources"].get("object_store_memory", 0.0),
            )
            for node in nodes()
            if node["Alive"]
        )
    )


class Recent:
    """Reads the nodes at most once a second: Tune asks for the next trial more often."""

    def __init__(
        self, capacity: Callable[[], Capacity], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is read yet."""
        self._read, self._clock = capacity, clock
        self._read_at = -math.inf

    def __call__(self) -> Capacity:
        """Return the nodes as they were at the last reading."""
        if self._clock() - self._read_at >= READ_SECONDS:
            self._capacity, self._read_at = self._read(), self._clock()
        return self._capacity


def autoscales() -> bool:
    """Return whether the cluster has an autoscaler, which starts nodes for requests that wait."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    if status.stats.autoscaler_version not in (None, "", "0"):
        return True
    # Autoscaler v1 reports here. Without an autoscaler, every node is its own `node_…` type.
    report = json.loads(_internal_kv_get("__autoscaling_status") or b"{}")
    types = (report.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return any(not kind.startswith("node_") for kind in types.values())


def call_on_node(function: Callable[..., Result], *args: Any, node: Node, **options: Any) -> Any:
    """Start `function` on one node without reserving resources; return an object reference."""
    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    task = ray.remote(function).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
    return task.remote(*args, **options)


def call_with_share(function: Callable[..., Result], *args: Any, share: Share) -> Result:
    """Run `function` on any node that has a trial's resources; wait for its result.

    Raises:
        QuorumError: as `function` raises it.
        RunError: the node was lost, twice.
    """
    task = ray.remote(function).options(
        num_cpus=share.cores, num_gpus=share.gpus or None, max_retries=1
    )
    result: Result = result_of(task.remote(*args))
    return result


def call_everywhere(
    function: Callable[..., Result],
    *args: Any,
    shares: Mapping[Node, Share],
    patience: float = START_SECONDS,
) -> dict[Node, Result]:
    """Run `function` on each of these nodes, with its share; return results that arrive in time.

    There is at least one result. Nodes are left out if they are lost, or need longer than
    `patience` seconds and longer than SLOWEST times what the first node needed.

    Raises:
        QuorumError: as `function` raises it.
        RunError: all nodes were lost.
    """
    began = time.monotonic()
    nodes = {
        ray.remote(function)
        .options(
            num_cpus=share.cores,
            num_gpus=share.gpus or None,
            max_retries=1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        )
        .remote(*args): node
        for node, share in shares.items()
    }
    results: dict[Node, Result] = {}
    waiting, lost, until = list(nodes), "", math.inf
    while waiting:
        left = None if until == math.inf else max(0.0, until - time.monotonic())
        ready, waiting = ray.wait(waiting, timeout=left)
        if not ready:
            break
        node = nodes[ready[0]]
        try:
            results[node] = result_of(ready[0])
        except RunError as error:
            lost = f"{node.name}: {error}"
            continue
        until = min(until, began + max(patience, SLOWEST * (time.monotonic() - began)))
    for reference in waiting:
        ray.cancel(reference)
        log.warning("%s did not answer in time; the plan leaves it out", nodes[reference].name)
    if not results:
        raise RunError(lost)
    return results


def result_of(reference: Any, *, timeout: float | None = None) -> Any:
    """Return the result of a remote call, and raise its errors as ours.

    Raises:
        QuorumError: as the function raised it.
        RunError: the node was lost or did not answer.
    """
    try:
        return ray.get(reference, timeout=timeout)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, QuorumError | OSError):
            raise error.cause from None
        raise
    except ray.exceptions.GetTimeoutError:
        raise RunError(f"no answer within {timeout:.0f} s") from None
    except ray.exceptions.RayError as error:
        raise RunError(str(error).strip().splitlines()[0]) from None
