"""Prove, before the first trial, that every node can write to the storage and read from it."""

import secrets
import socket
import time

import pyarrow
from pyarrow.fs import FileType

from common.errors import RunError
from search.timetable.capacity import Node
from search.tune.cluster import call_on_node, cluster_capacity, result_of
from search.tune.storage import Location, Storage

ANSWER_SECONDS = 60.0
"""Time in which a node must have read and written."""


NOTICE_SECONDS = 5.0
"""Time after which a lost node, such as a reclaimed spot machine, is expected to be noticed."""


def require_reachable(storage: Storage) -> None:
    """Let every node read a file of the driver and write one that the driver reads.

    Raises:
        RunError: the driver or a node cannot write there, or they do not see each other's files;
            the message names the node.
    """
    folder = storage.here / f"proof-{secrets.token_hex(4)}"
    theirs = storage.workers / folder.path.rpartition("/")[2]
    token = secrets.token_hex(16)
    try:
        _write(folder / "token", token)
    except (OSError, pyarrow.ArrowException) as error:
        raise RunError(
            f"this machine ({socket.gethostname()}) cannot write to {storage}: {error}"
        ) from None
    try:
        answers = [
            (node, call_on_node(answer, theirs, node.id, node=node))
            for node in cluster_capacity().nodes
        ]
        for node, reference in answers:
            try:
                _check(storage, folder, node, reference, token)
            except RunError:
                if _is_alive(node):
                    raise
    finally:
        storage.remove(folder.path.rpartition("/")[2])


def answer(folder: Location, node_id: str) -> None:
    """Copy the driver's token to a file of this node; runs on the node."""
    _write(folder / node_id, _read(folder / "token"))


def _check(storage: Storage, folder: Location, node: Node, reference: object, token: str) -> None:
    try:
        result_of(reference, timeout=ANSWER_SECONDS)
        seen = _read(folder / node.id)
    except (OSError, RunError, pyarrow.ArrowException) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"node {node.name} does not reach {storage} ({reason}); {storage.advice}"
        ) from None
    if seen != token:
        raise RunError(
            f"node {node.name} does not see the files that this machine writes to {storage}; "
            f"{storage.advice}"
        )


def _is_alive(node: Node) -> bool:
    """Return whether a node is still there once its loss would have been noticed."""
    time.sleep(NOTICE_SECONDS)
    return node.id in {each.id for each in cluster_capacity().nodes}


def _write(place: Location, text: str) -> None:
    place.filesystem.create_dir(place.path.rpartition("/")[0], recursive=True)
    with place.filesystem.open_output_stream(place.path) as stream:
        stream.write(text.encode())


def _read(place: Location) -> str:
    if place.filesystem.get_file_info(place.path).type is not FileType.File:
        raise FileNotFoundError(f"{place.path} is not there")
    with place.filesystem.open_input_stream(place.path) as stream:
        text: str = stream.read().decode()
    return text
