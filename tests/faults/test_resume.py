"""A killed sweep, gone on with, ends where an uninterrupted one ends."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.journal import read_events
from tests.simulated_tune import SPEC, Sweep, without_ray
from trainables.records import RunFolder, file_sha256

__all__ = ["without_ray"]

KILLED = 137


def outcome(root: Path) -> dict[str, Any]:
    """Everything that must not depend on how often a sweep was killed."""
    folder = RunFolder(root)
    events = read_events(folder.journal)
    keys = {
        "epoch": ("trial", "step", "rung", "val_nll"),
        "decision": ("trial", "rung", "value", "decision", "cutoff"),
        "trial_ended": ("trial", "status", "reason", "steps", "rung", "whole_schedule", "seconds"),
    }
    told = {
        name: [tuple(event[key] for key in wanted) for event in events if event["event"] == name]
        for name, wanted in keys.items()
    }
    starts = [(s.trial, s.recipe, s.seed) for s in folder.starts()]
    files = {
        str(path.relative_to(root)): file_sha256(path)
        for path in sorted(root.glob("trials/*/*"))
        if not path.name.startswith(".")
    }
    return {**told, "starts": starts, "files": files}


def in_a_child(action: Callable[[], None]) -> int:
    """Run `action` in a process of its own; its exit status."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(sync: int, root: Path) -> int:
    """Run a sweep that dies at its n-th fsync."""
    count = 0

    def fsync(_: int) -> None:
        nonlocal count
        count += 1
        if count == sync:
            os._exit(KILLED)

    def action() -> None:
        os.fsync = fsync  # type: ignore[assignment]
        Sweep(RunFolder(root)).run()

    return in_a_child(action)


@pytest.mark.usefixtures("without_ray")
def test_killed_after_any_write_a_sweep_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A killed process loses nothing that it has written: syncing is for killed machines.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    Sweep(RunFolder(tmp_path / "whole")).run()
    whole = outcome(tmp_path / "whole")
    assert len(whole["starts"]) == SPEC.trials
    assert {status for _, status, *_ in whole["trial_ended"]} == {"completed", "pruned"}
    sync = 1
    while True:
        root = tmp_path / str(sync)
        status = killed_at(sync, root)
        if status == 0:
            break
        assert status == KILLED
        before = read_events(root / "journal.jsonl") if (root / "journal.jsonl").exists() else []
        Sweep(RunFolder(root)).run()
        assert outcome(root) == whole, f"killed at sync {sync}"
        after = read_events(root / "journal.jsonl")
        assert after[: len(before)] == before
        assert list(root.glob("checkpoints/*")) == []
        sync += 13
    assert sync > 200


@pytest.mark.usefixtures("without_ray")
def test_killed_again_and_again_a_sweep_still_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    Sweep(RunFolder(tmp_path / "whole")).run()
    root = tmp_path / "killed"
    lives = 1
    while killed_at(60, root) == KILLED:
        lives += 1
        assert lives < 50, "a life of 60 writes must bring the sweep on"
    assert lives > 3
    assert outcome(root) == outcome(tmp_path / "whole")
