"""Telemetry is off before any library that has some is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainables.privacy import OFF, report_nothing

ROOT = Path(__file__).parent.parent


def test_all_are_off_for_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OFF:
        monkeypatch.setenv(name, "")
    report_nothing()
    code = "import os; print(dict(os.environ))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"'{name}': '{value}'" in child.stdout for name, value in OFF.items())


def test_the_hub_understands() -> None:
    code = (
        "from trainables.privacy import report_nothing; report_nothing();"
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "True"
