"""The whole chain resumes after Ctrl-C and kill -9, and contacts no other machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from journal.events import EpochEnded, Event, RunResumed, StageReported, TrialEnded
from journal.journal import read_events
from tests.events import of_type
from tests.sockets import commands, guarded, refused
from tests.tiny import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Events = list[Event]


def start(*arguments: object, notes: Path) -> subprocess.Popen[str]:
    """Start the command line in its own process group, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-m", "quorum", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        # A shell starts its background jobs, these tests perhaps, with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**guarded(notes), "COLUMNS": "100"},
    )


def wait_for(
    journal: Path, seen: Callable[[Events], bool], process: "subprocess.Popen[str]"
) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if journal.exists() and seen(list(read_events(journal))):
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    pytest.fail("the run did not get that far")


def reached(stage: str, status: str) -> Callable[[Events], bool]:
    def seen(events: Events) -> bool:
        return any(e.stage == stage and e.status == status for e in of_type(events, StageReported))

    return seen


def test_a_chain_that_is_stopped_twice_still_completes(tmp_path: Path) -> None:
    """None of its processes contacts another machine."""
    sweep = tmp_path / "tiny.yaml"
    student = {"recipe": {"block": "plain", "activation": "relu", "epochs": 12}}
    sweep.write_text(yaml.safe_dump({**TINY, "student": student}))
    run, notes = tmp_path / "runs" / "tiny", tmp_path / "sockets"
    journal = run / "journal.jsonl"
    where = ("--runs", tmp_path / "runs", "--name", "tiny")

    process = start("run", sweep, *where, notes=notes)
    wait_for(journal, lambda events: bool(of_type(events, EpochEnded)), process)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 130, error
    assert "--resume" in error.splitlines()[-1]
    before = list(read_events(journal))

    process = start("run", sweep, *where, "--resume", notes=notes)
    wait_for(journal, reached("distill", "progress"), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    frozen = (run / "selection.json").read_bytes()

    process = start("run", sweep, *where, "--resume", notes=notes)
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 0, error
    after = list(read_events(journal))
    assert after[: len(before)] == before
    assert (run / "selection.json").read_bytes() == frozen
    ledger = json.loads((run / "ledger" / "ledger.json").read_text())
    assert ledger["test_reads"] == 1
    ends = [event.trial for event in of_type(after, TrialEnded)]
    assert len(ends) == len(set(ends)) == 6
    assert len(of_type(after, RunResumed)) == 2
    assert refused(notes) == []
    found = commands(notes)
    assert sum("-m quorum run" in command for command in found) == 3
    assert sum("default_worker.py" in command for command in found) >= 2, "Ray's workers too"
