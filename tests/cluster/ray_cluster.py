"""The Ray cluster of the hosts: `ray up`, `ray down`, and the list of workers that have joined."""

import ast
import copy
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.errors import ScenarioError
from tests.cluster.hosts import USER, Host, wait_until

CONFIG = "cluster.test.yaml"
RAY = "~/quorum/.venv/bin/ray"
LAPTOP_RAY = "RAY_UP_enable_autoscaler_v2=0 ~/ray"
"""Under autoscaler v2, Ray 2.60 starts no worker on a provider of type `local` (ray#59905)."""
JOIN_SECONDS = 150.0

NODES = """\
import ray
ray.init(address="auto", log_to_driver=False, logging_level="CRITICAL")
print("NODES", [n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]])
"""


def local_config(
    config: Mapping[str, Any], *, key: str, head: str, workers: Sequence[str], cpus: int = 1
) -> dict[str, Any]:
    """Return cluster.yaml for hosts that exist already, each worker with `cpus` cores.

    Only the provider, what Ray refuses beside it, and the size of the nodes change.
    """
    local = copy.deepcopy(dict(config))
    for name in ("head_node_type", "available_node_types"):  # Ray makes these for `local` itself
        local.pop(name, None)
    local["cluster_name"] = "quorum-test"
    local["provider"] = {"type": "local", "head_ip": head, "worker_ips": [*workers]}
    local["auth"] = {"ssh_user": USER, "ssh_private_key": key}
    local["max_workers"] = len(workers)
    memory = " --object-store-memory=80000000"
    local["head_start_ray_commands"] = _extend(local["head_start_ray_commands"], memory)
    local["worker_start_ray_commands"] = _extend(
        local["worker_start_ray_commands"], f"{memory} --num-cpus={cpus}"
    )
    return local


def _extend(commands: Sequence[str], options: str) -> list[str]:
    """Add options to the command that starts Ray."""
    return [text + options if "ray start" in text else text for text in commands]


class RayCluster:
    """A head and its workers, started from a laptop by the project's cluster.yaml."""

    def __init__(self, laptop: Host, head: Host, workers: Sequence[Host], config: Path) -> None:
        """`config` is the project's cluster.yaml."""
        self.laptop, self.head, self.workers = laptop, head, tuple(workers)
        local = local_config(
            yaml.safe_load(config.read_text()),
            key="~/.ssh/id",
            head=head.address,
            workers=[worker.address for worker in workers],
        )
        path = laptop.home / CONFIG
        path.write_text(yaml.safe_dump(local, sort_keys=False))
        laptop.own(path.parent)

    @property
    def address(self) -> str:
        """The address of the head for a driver on another host."""
        return f"{self.head.address}:6379"

    def up(self) -> float:
        """Run `ray up` and wait until every worker has joined; return the seconds."""
        began = time.monotonic()
        self.laptop.run(f"cd checkout && {LAPTOP_RAY} up -y ../{CONFIG}", seconds=240)
        self.wait_for_workers()
        return time.monotonic() - began

    def down(self) -> None:
        """Run `ray down`."""
        self.laptop.run(f"cd checkout && {LAPTOP_RAY} down -y ../{CONFIG}", seconds=120)

    def running(self, host: Host) -> bool:
        """Return whether Ray runs on a host."""
        return host.pid is not None and host.start("pgrep -x raylet").wait(10) == 0

    def joined(self) -> set[str]:
        """Return the names of the workers that the head counts as alive."""
        python = "RAY_AUTH_MODE=token quorum/.venv/bin/python"
        output = self.head.run(f"{python} - <<'SCRIPT'\n{NODES}SCRIPT")
        addresses = ast.literal_eval(output.partition("NODES")[2].strip())
        return {worker.name for worker in self.workers if worker.address in addresses}

    def wait_for_workers(self, seconds: float = JOIN_SECONDS) -> None:
        """Wait until every worker has joined.

        Raises:
            ScenarioError: one has not joined in time.
        """
        everyone = {worker.name for worker in self.workers}

        def complete() -> bool:
            return all(map(self.running, self.workers)) and self.joined() == everyone

        if not wait_until(complete, seconds, every=2.0):
            raise ScenarioError(
                f"after {seconds:.0f} s, the workers are {sorted(self.joined())}, "
                f"not {sorted(everyone)}"
            )
