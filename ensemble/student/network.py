"""Let the workers of a group communicate over the network that Ray uses.

Gloo and NCCL take the interface that the host's own name resolves to. That is often the wrong one:
Debian gives the name a loopback address, and a private network may have no names at all.
"""

import os
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""The variables that name the interface; a user's own values are kept."""


class RaysNetwork(TorchConfig):
    """Torch's process group on the interface that has the address of Ray's node."""

    @property
    def backend_cls(self) -> Any:
        """Return Ray's own backend, which first chooses the interface in every worker."""
        base = super().backend_cls

        class Backend(base):  # type: ignore[misc, valid-type]
            def on_start(self, worker_group: Any, backend_config: Any) -> None:
                worker_group.execute(use_rays_interface)
                super().on_start(worker_group, backend_config)

        return Backend


def use_rays_interface() -> None:
    """Set the variables in this process, unless they are set."""
    name = interface_of(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    if name is not None:
        for variable in VARIABLES:
            os.environ.setdefault(variable, name)


def interface_of(address: str) -> str | None:
    """Return the network interface that has an address; None if there is none."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return None
