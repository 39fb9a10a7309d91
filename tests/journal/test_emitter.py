"""The emitter writes to the journal first, then calls observers; their failures are harmless."""

from pathlib import Path

import pytest

from journal.emitter import Emitter
from journal.events import Event, ObserverFailed
from journal.journal import Journal, read_events
from journal.order import OutOfOrderError
from tests.events import epoch, of_type, run_started, trial_started


def test_an_event_is_in_the_journal_before_any_observer_sees_it(tmp_path: Path) -> None:
    seen: list[bool] = []
    with Journal(tmp_path / "j", clock=lambda: 5.0) as journal:
        emitter = Emitter(
            journal, [lambda event: seen.append(read_events(journal.path)[-1] == event)]
        )
        emitter.emit(run_started())
        emitter.emit(trial_started("t0000"))
        assert emitter.state is journal.state
    assert seen == [True, True]


def test_a_failing_observer_is_journalled_once_and_the_run_continues(tmp_path: Path) -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise OSError(f"no server for {event.event}")

    with Journal(tmp_path / "j") as journal:
        emitter = Emitter(journal, [broken, seen.append])
        for event in (run_started(), trial_started("t0000"), epoch("t0000", 1)):
            emitter.emit(event)
    events = read_events(tmp_path / "j")
    failures = of_type(events, ObserverFailed)
    assert [failure.reason for failure in failures] == ["OSError: no server for run_started"]
    assert [event.event for event in seen] == ["run_started", "trial_started", "epoch"]
    assert [event for event in events if event not in failures] == seen


def test_no_observer_sees_an_event_that_the_journal_refuses(tmp_path: Path) -> None:
    seen: list[Event] = []
    with Journal(tmp_path / "j") as journal:
        emitter = Emitter(journal, [seen.append])
        with pytest.raises(OutOfOrderError, match="the run has not started"):
            emitter.emit(trial_started("t0000"))
    assert seen == []


def test_an_observer_can_be_added_for_a_block(tmp_path: Path) -> None:
    seen: list[Event] = []
    with Journal(tmp_path / "j") as journal:
        emitter = Emitter(journal)
        emitter.emit(run_started())
        with emitter.observed_by(seen.append):
            emitter.emit(trial_started("t0000"))
        emitter.emit(epoch("t0000", 1))
    assert [event.event for event in seen] == ["trial_started"]
