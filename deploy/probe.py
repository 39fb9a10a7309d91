"""Knock on every port of a node without a token, as a stranger on its network would.

    python deploy/probe.py HOST [PORT ...]         all ports, if none is named
    python deploy/probe.py HOST --token-file ~/.ray/auth_token        the same with the token

Prints one line per open port: what refused, and what answered. Without the token, the exit code is
1 if anything but SSH answered a request; with it, if nothing did.
"""

import argparse
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PATHS = ("/", "/metrics", "/api/jobs/", "/api/job_agent/jobs/", "/nodes?view=summary")
METHODS = (
    "ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "ray.rpc.InternalKVGcsService/InternalKVKeys",
    "ray.rpc.NodeManagerService/GetNodeStats",
    "ray.rpc.NodeManagerService/RequestWorkerLease",
    "ray.rpc.ObjectManagerService/Push",
    "ray.rpc.ObjectManagerService/Pull",
    "ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "ray.rpc.CoreWorkerService/PushTask",
    "ray.rpc.ReporterService/GetTraceback",
    "ray.rpc.RayletDriver/ClusterInfo",
    "opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
)
"""Calls that every server of Ray 2.60 knows at least one of, each with an empty request."""


def open_ports(host: str, ports: Iterable[int] = range(1, 65536)) -> list[int]:
    """Return the ports of `host` that accept a TCP connection within a second."""

    def accepts(port: int) -> bool:
        with socket.socket() as connection:
            connection.settimeout(1)
            return connection.connect_ex((host, port)) == 0

    ports = list(ports)
    with ThreadPoolExecutor(200) as pool:
        return [port for port, yes in zip(ports, pool.map(accepts, ports), strict=True) if yes]


def answers_http(host: str, port: int, token: str = "") -> dict[str, bool] | None:
    """Return for each path whether it is answered (not refused); None if this is no web server."""
    found = {}
    for path in PATHS:
        request = urllib.request.Request(f"http://{host}:{port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=5):
                found[path] = True
        except urllib.error.HTTPError as error:
            found[path] = error.code not in (401, 403)
        except Exception:  # it speaks something else, in one of many ways
            return None
    return found


def answers_grpc(host: str, port: int, token: str = "") -> dict[str, bool] | None:
    """Return for each known method whether it is answered; None if the server knows none."""
    import grpc

    metadata = [("client_id", "probe"), *([("authorization", f"Bearer {token}")] if token else [])]
    found = {}
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in METHODS:
            try:
                channel.unary_unary(f"/{method}")(b"", timeout=5, metadata=metadata)
                found[method] = True
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAVAILABLE:
                    return None
                if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                    found[method] = error.code() != grpc.StatusCode.UNAUTHENTICATED
    return found or None


def greets_as_ssh(host: str, port: int) -> bool:
    """Return whether the server introduces itself as SSH."""
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.settimeout(2)
        try:
            return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int, nargs="*", default=[])
    parser.add_argument("--token-file", type=Path, help="knock as one who has the token")
    options = parser.parse_args(arguments)
    token = options.token_file.read_text().strip() if options.token_file else ""
    let_in = False
    for port in open_ports(options.host, options.port or range(1, 65536)):
        if greets_as_ssh(options.host, port):
            print(f"{port}: SSH")
            continue
        found = answers_http(options.host, port, token) or answers_grpc(options.host, port, token)
        answered = [name for name, yes in (found or {}).items() if yes]
        if found is None:
            print(f"{port}: speaks nothing that Ray speaks")
        elif answered:
            print(f"{port}: ANSWERS {', '.join(answered)}")
        else:
            print(f"{port}: refuses {len(found)} calls")
        let_in |= bool(answered)
    return int(let_in != bool(token))


if __name__ == "__main__":
    sys.exit(main())
