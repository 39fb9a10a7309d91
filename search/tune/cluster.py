"""Nodes of the joined Ray cluster: their resources, and calls that run a function on a node."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from common.errors import QuorumError, RunError
from search.timetable.capacity import Capacity, Node, Share

Result = TypeVar("Result")

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
