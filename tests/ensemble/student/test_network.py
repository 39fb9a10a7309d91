"""Workers talk over the interface that has the address of Ray's node."""

import contextlib

import psutil

from ensemble.student.network import RaysNetwork, interface_of


def test_the_interface_of_an_address_is_found() -> None:
    name = interface_of("127.0.0.1")
    assert name is not None
    assert "127.0.0.1" in [each.address for each in psutil.net_if_addrs()[name]]
    assert interface_of("192.0.2.255") is None


def test_every_worker_chooses_its_interface_before_the_process_group_starts() -> None:
    """Ray calls these hooks: a change there must be noticed."""
    calls: list[str] = []

    class Workers:
        def execute(self, function: object, **_: object) -> list[None]:
            calls.append(getattr(function, "__name__", "?"))
            return [None]

        def execute_single(self, rank: int, function: object) -> tuple[str, int]:
            calls.append("address")
            raise TimeoutError  # the rest starts processes

    config = RaysNetwork(backend="gloo")
    with contextlib.suppress(TimeoutError):
        config.backend_cls().on_start(Workers(), config)
    assert calls[:2] == ["use_rays_interface", "address"]
