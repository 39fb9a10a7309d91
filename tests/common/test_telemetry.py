"""Telemetry is off for every library, and the socket guard sees connections to other machines."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.telemetry import TELEMETRY_OFF, disable_telemetry
from tests.docs import ROOT
from tests.sockets import commands, guarded, refused


def test_telemetry_is_off_for_this_process_and_its_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in TELEMETRY_OFF:
        monkeypatch.setenv(name, "")
    disable_telemetry()
    code = "import os; print(dict(os.environ))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"'{name}': '{value}'" in child.stdout for name, value in TELEMETRY_OFF.items())


def test_the_hugging_face_hub_reads_the_setting() -> None:
    code = (
        "from common.telemetry import disable_telemetry; disable_telemetry();"
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        ("create_connection(('192.0.2.1', 9), 1)", False),
        ("getaddrinfo('telemetry.example', 443)", False),
        ("create_connection(('127.0.0.1', 9), 1)", True),
        ("getaddrinfo('localhost', 443)", True),
    ],
)
def test_the_socket_guard_refuses_other_machines(call: str, allowed: bool, tmp_path: Path) -> None:
    """The guard watches the whole chain in faults/test_chain.py."""
    code = f"import socket; socket.{call}"
    environment = guarded(tmp_path / "notes")
    assert not environment.keys() & TELEMETRY_OFF.keys()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert ("PermissionError" in done.stderr) != allowed
    assert len(refused(tmp_path / "notes")) == (not allowed)
    assert [code in command for command in commands(tmp_path / "notes")] == [True]
