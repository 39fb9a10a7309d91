"""The journal: whole after any cut, one writer, quick enough to sync every event."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RunError
from journal.journal import Journal, read_events
from tests.docs import ROOT

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def epoch(trial: str, step: int, **more: Any) -> dict[str, Any]:
    return {"event": "epoch", "trial": trial, "step": step, **more}


def write(path: Path, count: int) -> list[dict[str, Any]]:
    with Journal(path, clock=lambda: 1.5) as journal:
        for step in range(1, count + 1):
            journal.append(epoch("t0000", step, note="Größe\n"))
        return list(journal.events)


@given(extra=st.dictionaries(st.text(min_size=1), plain))
def test_what_is_appended_is_read_back(extra: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / f"{time.monotonic_ns()}.jsonl"
    event = {**extra, "event": "stage", "time": 2.0}
    with Journal(path) as journal:
        written = journal.append(event)
    assert read_events(path) == [written]
    assert json.loads(json.dumps(event), parse_constant=lambda _: None) == written


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", clock=lambda: 3.0) as journal:
        journal.append({"event": "x", "a": [math.nan, {"b": -math.inf}], "c": np.float32("nan")})
        journal.append({"event": "x", "n": np.int64(3), "x": np.float64(0.5), "b": np.True_})
    first, second = read_events(tmp_path / "j")
    assert first == {"event": "x", "a": [None, {"b": None}], "c": None, "time": 3.0}
    assert second == {"event": "x", "n": 3, "x": 0.5, "b": True, "time": 3.0}


def test_a_cut_at_any_byte_loses_the_torn_line_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = write(path, 3)
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for size in range(len(data) + 1):
        whole = events[: sum(end <= size for end in ends)]
        path.write_bytes(data[:size])
        assert read_events(path) == whole
        with Journal(path) as journal:
            assert list(journal.events) == whole
            journal.append({"event": "next"})
        assert [event["event"] for event in read_events(path)] == ["epoch"] * len(whole) + ["next"]


@pytest.mark.parametrize("tail", [b"\0" * 100, b"{\n", b"[1]\n", b'{"a": 1}\n', b"\xff\n", b"{}"])
def test_a_spoilt_tail_is_cut_off(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = write(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert read_events(path) == events
    Journal(path).close()
    assert path.read_bytes() == whole


def test_damage_before_the_last_line_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"event": "ep\n' + lines[2])
    for opened in (read_events, Journal):
        with pytest.raises(RunError, match=r"journal.jsonl is damaged in line 2: b'\{\"event"):
            opened(path)
    # The lock was let go of: a second attempt fails for the same reason.
    with pytest.raises(RunError, match="line 2"):
        Journal(path)


def test_there_is_one_writer_and_its_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        assert read_events(path) == []
        with pytest.raises(RunError, match=rf"in use by process {os.getpid()} on \S+; wait"):
            Journal(path)
        # Readers close the file, which must not cost the writer its lock.
        with pytest.raises(RunError, match="in use by process"):
            Journal(path)
        journal.append({"event": "x"})
    with pytest.raises(RunError, match="is closed"):
        journal.append({"event": "y"})
    with Journal(path) as journal:
        assert [event["event"] for event in journal.events] == ["x"]


def test_a_missing_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no\.jsonl cannot be read: No such file"):
        read_events(tmp_path / "no.jsonl")


def test_repeated_epochs_count_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        for trial, step, loss in (("a", 1, 0.5), ("b", 1, 0.6), ("a", 1, 0.7), ("a", 2, 0.4)):
            journal.append(epoch(trial, step, train_loss=loss))
    kept = [
        (event["trial"], event["step"], event["train_loss"])
        for event in read_events(tmp_path / "j")
    ]
    assert kept == [("a", 1, 0.5), ("b", 1, 0.6), ("a", 2, 0.4)]


def test_a_full_disk_is_one_clear_error_and_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = write(path, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Journal(path) as journal:
        # The kernel writes what fits and refuses the rest, as a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
        try:
            with pytest.raises(RunError, match=r"cannot be written: .*make room.*--resume"):
                journal.append({"event": "too long for the room that is left"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, old)
        assert read_events(path) == events == list(journal.events)
        journal.append({"event": "after"})
    assert [event["event"] for event in read_events(path)] == ["epoch", "epoch", "after"]


def test_an_interrupted_write_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt("by Ctrl-C")

    with Journal(path) as journal:
        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            journal.append({"event": "lost"})
        monkeypatch.undo()
        journal.append({"event": "kept"})
    assert [event["event"] for event in read_events(path)] == ["epoch", "kept"]


def test_a_killed_writer_loses_nothing_that_it_was_told_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = f"""
from journal.journal import Journal
journal = Journal({str(path)!r})
step = 0
while True:
    step += 1
    journal.append({{"event": "epoch", "trial": "t", "step": step, "x": "y" * 500}})
    print(step, flush=True)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            writer.stdout.readline()
        writer.kill()
        told = 50 + len(writer.stdout.read().split())
    steps = [event["step"] for event in read_events(path)]
    assert told <= len(steps) <= told + 1
    assert steps == list(range(1, len(steps) + 1))
    with Journal(path) as journal:
        assert len(journal.events) == len(steps)


def test_syncing_every_event_is_quick(tmp_path: Path) -> None:
    event = epoch("t0000", 1, **{f"metric_{i}": 0.123456789 for i in range(12)})
    times = []
    with Journal(tmp_path / "j") as journal:
        for _ in range(200):
            began = time.perf_counter()
            journal.append(event)
            times.append(time.perf_counter() - began)
    # Far above what any disk needs; a slow median would hold up every epoch.
    assert np.median(times) < 0.1
