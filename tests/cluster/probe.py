"""Ask every given port for something harmless, in each protocol that Ray speaks.

    probe.py HOST:PORT...        with the environment variable TOKEN, or without one

Runs on its own on a host, with the Python of `tools.py`. Prints a JSON object: for each port,
each question that was answered and the answer. Questions of gRPC read state or name an object that
does not exist; a port that knows the service but wants a token answers UNAUTHENTICATED.
"""

import http.client
import importlib
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SECONDS = 4.0
GRPC = (
    "ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "ray.rpc.NodeManagerService/GetNodeStats",
    "ray.rpc.ObjectManagerService/Pull",
    "ray.rpc.CoreWorkerService/NumPendingTasks",
    "ray.rpc.ReporterService/HealthCheck",
    "ray.rpc.LogService/ListLogs",
    "ray.rpc.events.EventAggregatorService/AddEvents",
    "ray.rpc.RayletDriver/ClusterInfo",
)
HTTP = ("/", "/api/jobs/", "/api/version", "/metrics", "/nodes", "/logs")
NO_ANSWER = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "CANCELLED")


def answers(address: str, token: str | None) -> dict[str, str]:
    """Return the answers of one port by question; silent and unknown questions are left out."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    found = {path: _http(address, path, headers) for path in HTTP}
    found |= _grpc(address, headers)
    return {question: answer for question, answer in found.items() if answer}


def _http(address: str, path: str, headers: Mapping[str, str]) -> str:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=SECONDS)
    try:
        connection.request("GET", path, headers=dict(headers))
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def _grpc(address: str, headers: Mapping[str, str]) -> dict[str, str]:
    grpc: Any = importlib.import_module("grpc")
    found = {}
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        for method in GRPC:
            try:
                channel.unary_unary(f"/{method}")(
                    b"", timeout=SECONDS, metadata=tuple(headers.items())
                )
                found[method] = "OK"
            except grpc.RpcError as error:
                code = error.code().name
                found[method] = "" if code in NO_ANSWER else code
                if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    break  # the port does not speak gRPC
    return found


if __name__ == "__main__":
    with ThreadPoolExecutor(8) as pool:
        addresses = sys.argv[1:]
        replies = pool.map(lambda address: answers(address, os.environ.get("TOKEN")), addresses)
        print("ANSWERS", json.dumps(dict(zip(addresses, replies, strict=True))))  # noqa: T201
