import io
import logging
import os
import pty
import threading
import time
from pathlib import Path

import pytest

from analysis.terminal.live_display import LiveDisplay
from journal.events import StageReported, TrialEnded
from journal.journal import Journal
from search.space.sweep_files import load_spec
from tests.analysis.terminal.whole_run import EVENTS, half_way
from tests.events import epoch, of_type
from tests.synthetic_sweep import resumed


def test_without_a_terminal_every_end_of_a_trial_is_a_line() -> None:
    stream = io.StringIO()
    with LiveDisplay(stream, load_spec("digits"), clock=lambda: EVENTS[0].time) as display:
        for event in EVENTS:
            display.apply(event)
    lines = stream.getvalue().splitlines()
    ends = of_type(EVENTS, TrialEnded)
    about_trials = [line for line in lines if line.split()[1] in ("completed", "pruned", "failed:")]
    assert [line.replace(":", "").split()[:2] for line in about_trials] == [
        [e.trial, e.status] for e in ends
    ]
    assert any("DivergedError: the loss is not finite" in line for line in about_trials)
    assert any(line.startswith("t0001 restarts: the worker died") for line in lines)
    assert any(line.startswith("distill finished | digits-1 ") for line in lines)
    assert stream.getvalue().isascii()


def test_without_a_terminal_a_quiet_run_still_writes_lines() -> None:
    stream = io.StringIO()
    with LiveDisplay(stream, interactive=False, quiet_seconds=0.05) as display:
        for event in EVENTS[:20]:
            display.apply(event)
        before = len(stream.getvalue().splitlines())
        deadline = time.monotonic() + 10
        while len(stream.getvalue().splitlines()) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(stream.getvalue().splitlines()) >= before + 2
    assert stream.getvalue().splitlines()[-1].startswith("digits-1 sweep 5% | 1/20 trials | ")


def test_a_terminal_keeps_the_last_state_and_its_cursor() -> None:
    master, slave = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(master, 65536):
                seen.append(data)
        except OSError:
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with os.fdopen(slave, "w") as stream:
        display = LiveDisplay(stream, interactive=True, clock=lambda: EVENTS[-1].time)
        display.start()
        for event in EVENTS:
            display.apply(event)
        display.stop()
    reader.join(5)
    os.close(master)
    text = b"".join(seen).decode()
    assert "digits-1" in text
    assert "finished" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


class Broken(io.StringIO):
    def write(self, text: str, /) -> int:
        raise OSError(32, "Broken pipe")


@pytest.mark.parametrize("interactive", [True, False])
def test_a_broken_terminal_never_stops_the_run(
    interactive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        LiveDisplay(Broken(), interactive=interactive) as display,
    ):
        for event in EVENTS:
            display.apply(event)
        display.apply(epoch("t9999", 1))
    assert caplog.text.count("the display failed and is off") == 1


def test_a_resumed_run_shows_its_earlier_trials(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        for event in EVENTS[:150]:
            journal.append(event)
    stream = io.StringIO()
    display = LiveDisplay(stream, interactive=False, journal=tmp_path / "journal.jsonl")
    later = EVENTS[149].time + 1000
    for event in resumed(EVENTS[:150], [], time=later):
        display.apply(event)
    assert (
        f"{len(half_way().trials.with_status('completed', 'pruned', 'failed'))}/20"
        in stream.getvalue()
    )
    absent = LiveDisplay(stream, interactive=False, journal=tmp_path / "absent")
    absent.apply(EVENTS[0])
    absent.apply(StageReported(stage="sweep", status="started", time=later))
    announced, line, *_ = stream.getvalue().splitlines()[-1].split(" | ")
    assert announced.split()[-2:] == ["sweep", "started"]
    assert line.split()[:2] == ["digits-1", "sweep"]
