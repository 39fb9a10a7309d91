"""The journal's file survives any cut and hole, has one writer, and syncs in time."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import RunError
from journal.events import Event, ResultReported, TestRead
from journal.journal import UNSYNCED_BYTES, Journal, JournalReader, read_events, read_state
from journal.lock import at_work
from journal.order import OutOfOrderError
from tests.docs import ROOT
from tests.events import epoch, run_started, trial_started
from tests.faults.disk import room_for
from tests.journal.test_order import EVENTS, snapshot

START: list[Event] = [run_started(), trial_started("t0000")]


def result(**params: Any) -> ResultReported:
    return ResultReported(kind="x", params=params)


def write(path: Path, count: int) -> list[Event]:
    """Journal a run with `count` results."""
    with Journal(path, clock=lambda: 1.5) as journal:
        started = journal.append(run_started())
        return [started, *(journal.append(result(n=n, note="Größe\n")) for n in range(count))]


def kinds(path: Path) -> list[str]:
    return [event.event for event in read_events(path)]


def test_an_appended_event_is_read_back_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, clock=lambda: 3.0) as journal:
        written = [journal.append(event) for event in [*START, TestRead(), epoch("t0000", 1, 4.0)]]
    assert read_events(path) == written
    assert [event.time for event in written] == [0.0, 0.0, 3.0, 4.0]


def test_event_times_never_decrease_when_the_clock_goes_back(tmp_path: Path) -> None:
    times = iter([5.0, 9.0, 7.0, 10.0])
    with Journal(tmp_path / "j", clock=lambda: next(times)) as journal:
        journal.append(run_started(1.0))
        stamps = [journal.append(TestRead()).time for _ in range(4)]
    assert stamps == [5.0, 9.0, 9.0, 10.0]


def test_a_refused_event_leaves_file_and_state_untouched(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        for event in START:
            journal.append(event)
        data, state = path.read_bytes(), snapshot(journal.state)
        refused: list[Event] = [run_started(), epoch("t0000", 2), trial_started("t0000")]
        for event in refused:
            with pytest.raises(OutOfOrderError, match=event.event):
                journal.append(event)
            assert path.read_bytes() == data
            assert snapshot(journal.state) == state
        journal.append(epoch("t0000", 1))


@settings(max_examples=15)
@given(indices=st.lists(st.integers(0, len(EVENTS) - 1), max_size=30))
def test_the_file_folds_to_the_writers_state(indices: list[int], tmp_path: Path) -> None:
    """For any sequence, the accepted events read back, and every prefix of them folds."""
    path = tmp_path / f"{time.monotonic_ns()}.jsonl"
    accepted = []
    with Journal(path) as journal:
        for event in [EVENTS[0], *(EVENTS[index] for index in sorted(indices[:25]) + indices[25:])]:
            try:
                accepted.append(journal.append(event))
            except OutOfOrderError:
                continue
        assert read_events(path) == accepted
        assert snapshot(read_state(path)) == snapshot(journal.state)
    lines = path.read_bytes().splitlines(keepends=True)
    for count in range(len(lines) + 1):
        path.write_bytes(b"".join(lines[:count]))
        assert read_events(path) == accepted[:count]


def test_a_cut_at_any_byte_loses_the_torn_line_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = write(path, 2)
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for size in range(len(data) + 1):
        whole = events[: sum(end <= size for end in ends)]
        path.write_bytes(data[:size])
        assert read_events(path) == whole
        with Journal(path) as journal:
            assert journal.state.count == len(whole)
            written = journal.append(TestRead() if whole else run_started())
        assert read_events(path) == [*whole, written]


@pytest.mark.parametrize("tail", [b"\0" * 100, b"{\n", b"[1]\n", b'{"a": 1}\n', b"\xff\n", b"{}"])
def test_a_damaged_last_line_is_cut_off(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = write(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert read_events(path) == events
    Journal(path).close()
    assert path.read_bytes() == whole


def test_a_hole_of_a_power_loss_ends_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = write(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + bytes(len(lines[2])) + lines[3])
    assert read_events(path) == events[:2]
    Journal(path).close()
    assert path.read_bytes() == lines[0] + lines[1]


def test_zeros_before_what_was_synced_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 3)
    first, rest = path.read_bytes().split(b"\n", 1)
    more = json.dumps({"event": "result", "time": 2, "kind": "x", "params": {"x": "y" * 1000}})
    path.write_bytes(
        first + b"\n" + b"\0" * 9 + rest + (more.encode() + b"\n") * (UNSYNCED_BYTES // 1000)
    )
    with pytest.raises(RunError, match="damaged in line 2"):
        read_events(path)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the journal at its syncs."""
    sizes: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: sizes.append(os.fstat(file).st_size))
    return sizes


def test_events_of_trials_are_synced_with_later_ones(tmp_path: Path, synced: list[int]) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, sync_seconds=threading.TIMEOUT_MAX) as journal:
        journal.append(run_started())
        assert synced == [path.stat().st_size]
        journal.append(trial_started("t0000"))
        for step in (1, 2):
            journal.append(epoch("t0000", step))
        assert len(synced) == 1
        journal.append(TestRead())
        assert synced[1:] == [path.stat().st_size]
        journal.sync()
        assert len(synced) == 2
        for step in range(3, 2000):
            journal.append(epoch("t0000", step))
            assert path.stat().st_size - synced[-1] <= UNSYNCED_BYTES
        assert 2 < len(synced) < 50
    assert synced[-1] == path.stat().st_size


def test_the_last_events_are_synced_without_another(tmp_path: Path, synced: list[int]) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, sync_seconds=0.001) as journal:
        for event in START:
            journal.append(event)
        while synced[-1] < path.stat().st_size:  # else the test's time limit ends it
            time.sleep(0.001)


def test_closing_does_not_wait_for_a_thread_that_is_about_to_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread takes note of unsynced events at the moment at which the journal is closed."""
    entered = threading.Event()

    class SlowlyCleared(threading.Event):
        def clear(self) -> None:
            entered.set()
            time.sleep(0.3)
            super().clear()

    monkeypatch.setattr("journal.journal.threading.Event", SlowlyCleared)
    journal = Journal(tmp_path / "journal.jsonl", sync_seconds=0.0)
    monkeypatch.undo()
    journal.append(run_started())
    journal.append(trial_started("t0000"))
    assert entered.wait(10)
    closing = threading.Thread(target=journal.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_nothing_is_written_after_a_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "journal.jsonl"
    journal = Journal(path, sync_seconds=threading.TIMEOUT_MAX)
    for event in START:
        journal.append(event)
    monkeypatch.setattr(os, "fdatasync", fail)
    for action in (journal.sync, lambda: journal.append(epoch("t0000", 1)), journal.close):
        with pytest.raises(RunError, match=os.strerror(errno.EIO)):
            action()
    monkeypatch.undo()
    assert kinds(path) == ["run_started", "trial_started"]
    Journal(path).close()


def test_damage_before_the_last_line_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"event": "ep\n' + lines[2])
    for opened in (read_events, Journal):
        with pytest.raises(RunError, match=r"journal.jsonl is damaged in line 2: b'\{\"event"):
            opened(path)
    # The lock was released: a second attempt fails for the same reason.
    with pytest.raises(RunError, match="line 2"):
        Journal(path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"event": "comet", "time": 1}', "unknown kind of event 'comet'"),
        ('{"event": "epoch", "time": 1}', "'epoch' lacks the field"),
        ('{"event": "run_started", "time": 1, "run": "r", "spec": {}}', "has started already"),
    ],
)
def test_a_journal_that_this_version_cannot_read_is_refused_in_one_line(
    line: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1)
    with path.open("a") as file:
        file.write(line + "\n")
    for opened in (read_events, Journal):
        with pytest.raises(RunError, match=f"line 3: .*{problem}") as caught:
            opened(path)
        assert len(str(caught.value).splitlines()) == 1


def test_a_reader_returns_only_new_events(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        reader = JournalReader(path)
        assert reader.read() == []
        written = [journal.append(event) for event in START]
        assert reader.read() == written
        assert reader.read() == []
        with path.open("ab") as file:
            file.write(b'{"event": "test_re')  # a line that is being written
        assert reader.read() == []
        with path.open("ab") as file:
            file.write(b'ad", "time": 9}\n')
        assert reader.read() == [TestRead(time=9)]
    assert snapshot(reader.state) == snapshot(read_state(path))


def test_a_second_writer_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert at_work(path) is None
    with Journal(path) as journal:
        assert read_events(path) == []
        for _ in range(2):  # a reader that closes the file must not release the writer's lock
            with pytest.raises(RunError, match=rf"in use by process {os.getpid()} on \S+; wait"):
                Journal(path)
        assert (at_work(path) or "").startswith(f"process {os.getpid()} on ")
        journal.append(run_started())
    assert at_work(path) is None
    with pytest.raises(RunError, match="is closed"):
        journal.append(TestRead())
    Journal(path).close()
    assert kinds(path) == ["run_started"]


def test_checking_the_lock_does_not_disturb_a_writer_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).close()
    code = f"""
from journal.lock import at_work
print(flush=True)
while True:
    at_work({str(path)!r})
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        for _ in range(20):
            Journal(path).close()
        asking.kill()


def test_a_file_system_without_flock_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", missing)
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(run_started())
        assert (at_work(path) or "").startswith(f"process {os.getpid()} on ")
        with pytest.raises(RunError, match=f"in use by process {os.getpid()}"):
            Journal(path)
    assert at_work(path) is None


def test_a_missing_journal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no\.jsonl cannot be read: No such file"):
        read_events(tmp_path / "no.jsonl")


def test_a_full_disk_is_one_clear_error_and_damages_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = write(path, 2)
    with Journal(path) as journal:
        with (
            room_for(path.stat().st_size + 20),
            pytest.raises(RunError, match=r"cannot be written: .*make room.*--resume"),
        ):
            journal.append(result(text="too long for the room that is left"))
        assert read_events(path) == events
        assert journal.state.count == len(events)
        journal.append(TestRead())
    assert kinds(path) == ["run_started", "result", "result", "test_read"]


def test_an_interrupted_write_leaves_no_partial_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt("by Ctrl-C")

    with Journal(path) as journal:
        monkeypatch.setattr(os, "pwrite", interrupted)
        with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
            journal.append(trial_started("t0000"))
        monkeypatch.undo()
        journal.append(trial_started("t0000"))
    assert kinds(path) == ["run_started", "result", "trial_started"]


def test_a_killed_writer_loses_nothing_that_was_reported_as_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = f"""
from journal.events import ResultReported, RunStarted
from journal.journal import Journal
journal = Journal({str(path)!r})
journal.append(RunStarted(run="r", spec={{}}))
step = 0
while True:
    step += 1
    journal.append(ResultReported(kind="x", params={{"step": step, "x": "y" * 500}}))
    print(step, flush=True)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(50):
            writer.stdout.readline()
        writer.kill()
        reported = 50 + len(writer.stdout.read().split())
    steps = [json.loads(line)["params"]["step"] for line in path.read_text().splitlines()[1:]
             if line.endswith("}")]  # fmt: skip
    assert reported <= len(steps) <= reported + 1
    assert steps == list(range(1, len(steps) + 1))
    with Journal(path) as journal:
        assert journal.state.count == len(steps) + 1
