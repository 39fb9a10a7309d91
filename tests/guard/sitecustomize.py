"""Keep Python on this machine: imported at start-up if this folder is on PYTHONPATH.

Every Python process and its children write a file with their command line to the folder
$QUORUM_SOCKET_NOTES. Connections to other hosts, and lookups of their names, are refused and
noted in the file `refused` there; see tests/sockets.py. Ray's servers are not Python:
tests/search/tune/test_session.py checks them.
"""

import os
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

NAMES = {"", "localhost", os.uname().nodename}


def _is_here(host: Any) -> bool:
    text = host.decode() if isinstance(host, bytes) else str(host or "")
    if text in NAMES:
        return True
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse audit events of sockets that would reach another machine."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""  # a path is a Unix socket
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _is_here(host):
        with (NOTES / "refused").open("a") as file:
            file.write(f"{event} {host!r} by {' '.join(sys.orig_argv)}\n")
        raise PermissionError(f"{event}: {host!r} is not this machine")


if "QUORUM_SOCKET_NOTES" in os.environ:
    NOTES = Path(os.environ["QUORUM_SOCKET_NOTES"])
    (NOTES / str(os.getpid())).write_text(" ".join(sys.orig_argv))
    sys.addaudithook(_watch)
