"""Telemetry is off before any library that has some is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from common.telemetry import OFF, report_nothing
from tests.docs import ROOT
from tests.sockets import commands, guarded, refused


def test_all_are_off_for_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OFF:
        monkeypatch.setenv(name, "")
    report_nothing()
    code = "import os; print(dict(os.environ))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"'{name}': '{value}'" in child.stdout for name, value in OFF.items())


def test_the_hub_understands() -> None:
    code = (
        "from common.telemetry import report_nothing; report_nothing();"
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
def test_the_guard_of_sockets_sees_who_leaves_this_machine(
    call: str, allowed: bool, tmp_path: Path
) -> None:
    """It watches the whole chain in faults/test_chain.py."""
    code = f"import socket; socket.{call}"
    environment = guarded(tmp_path / "notes")
    assert not environment.keys() & OFF.keys()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert ("PermissionError" in done.stderr) != allowed
    assert len(refused(tmp_path / "notes")) == (not allowed)
    assert [code in command for command in commands(tmp_path / "notes")] == [True]
