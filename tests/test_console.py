import io
import logging
import os
import pty
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import analysis.console
from analysis.console import LiveDisplay, plain_line, render
from analysis.screen import about, clock, hyperparameters
from search.progress import RunState
from search.spec import load_spec
from tests.synthetic_sweep import SPEC, Event, synthetic_chain, synthetic_sweep


def whole_run(**options: Any) -> list[Event]:
    events = list(synthetic_sweep(fail=(5,), retry=(1,), **options))
    return events + list(synthetic_chain(start=events[-1]["time"]))


def drawn(
    state: RunState, now: float, *, width: int = 80, height: int = 24, ascii_only: bool = False
) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(render(state, now, width, height=height, ascii_only=ascii_only))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


EVENTS = whole_run()


def half_way() -> RunState:
    return RunState.from_events(EVENTS[:150])


def test_half_way_through_a_sweep() -> None:
    state = half_way()
    lines = drawn(state, state.last_time + 1, width=100).splitlines()
    best = state.best
    assert best is not None
    assert best.score is not None
    assert lines[0].startswith("quorum digits-1 · 0:")
    assert "search done in about" in lines[0]
    assert lines[1].startswith("● sweep 0:")
    assert lines[1].endswith("· seeds  · select  · distill  · ledger  · report")
    assert "1 failed" in lines[2]
    table = [line.split() for line in lines if line.startswith(("★", "●  t"))]
    assert table[0][:5] == [
        "★", best.name, str(best.rung), f"{best.score.val_nll:.3f}",
        f"{100 * (best.score.val_accuracy or 0):.1f}%",
    ]  # fmt: skip
    assert [row[1] for row in table[1:]] == sorted(state.running)
    for rung, count in state.rung_counts().items():
        row = next(line.split() for line in lines if line.split()[:1] == [str(rung)])
        assert int(row[2]) == count.arrived
    assert "✗ t0005 DivergedError: the loss is not finite" in lines


def test_the_end_shows_all_stages_and_results() -> None:
    state = RunState.from_events(EVENTS)
    text = drawn(state, state.last_time + 1000)
    assert "finished" in text
    assert "✓ sweep  ✓ seeds  ✓ select  ✓ distill  ✓ ledger  ✓ report" in text
    assert "ensemble        holdout accuracy 95.7% · holdout nll 0.151" in text
    assert "registered      quorum-digits version 1, champion: the first that its gates" in text
    length = clock(EVENTS[-1]["time"] - EVENTS[0]["time"])
    assert text.splitlines()[0] == f"quorum digits-1 · {length} · finished"  # the clock stops


def test_before_anything_and_after_an_interruption() -> None:
    state = RunState()
    assert "starting" in drawn(state, 5.0)
    state = half_way()
    state.apply({"event": "sweep_ended", "time": state.last_time + 1, "kind": "search",
                 "reason": "interrupted"})  # fmt: skip
    assert "interrupted; --resume goes on with it" in drawn(state, state.last_time)
    assert "interrupted" in plain_line(state, state.last_time)


@settings(max_examples=60)
@given(
    st.integers(0, len(EVENTS)), st.integers(40, 160), st.integers(10, 60), st.booleans(),
    st.floats(-10, 1e6),
)  # fmt: skip
def test_any_state_fits_any_terminal(
    count: int, width: int, height: int, ascii_only: bool, later: float
) -> None:
    state = RunState.from_events(EVENTS[:count])
    text = drawn(state, max(state.last_time, 0) + later, width=width, ascii_only=ascii_only)
    assert max(len(line) for line in text.splitlines()) <= width
    if ascii_only:
        assert text.isascii()
    assert plain_line(state, 1e9).isascii()


def test_a_screen_of_24_lines_holds_many_trials_at_once() -> None:
    events = list(synthetic_sweep(spec={**SPEC, "trials": 60}, concurrent=32))
    state = RunState.from_events(events[:120])
    assert len(state.running) == 32
    assert len(drawn(state, state.last_time).splitlines()) <= 24
    assert drawn(state, state.last_time, height=60).count("●  t") == 32


def test_names_of_hyperparameters_are_left_out_where_the_value_tells() -> None:
    space = {
        "width": {}, "activation": {}, "attention": {}, "lr": {"when": {"optimizer": "sgd"}},
        "depth": {"when": {"activation": ["relu", "silu"]}},
    }  # fmt: skip
    recipe = {"width": 32, "activation": "gelu", "attention": "none", "lr": 0.1, "depth": 2}
    assert hyperparameters(recipe, space) == "width 32, gelu, attention none"
    assert hyperparameters({**recipe, "optimizer": "sgd"}, space).endswith(", lr 0.1")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0:00"), (61.4, "1:01"), (3599.6, "1:00:00"), (-3, "0:00"), (90061, "25:01:01")],
)
def test_clock(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1, "5 s"), (48, "50 s"), (100, "2 min"), (3570, "1 h 00 min"), (7900, "2 h 10 min")],
)
def test_about(seconds: float, expected: str) -> None:
    assert about(seconds) == expected


def test_without_a_terminal_a_line_comes_at_every_end() -> None:
    stream = io.StringIO()
    with LiveDisplay(stream, load_spec("digits"), clock=lambda: EVENTS[0]["time"]) as display:
        for event in EVENTS:
            display.apply(event)
    lines = stream.getvalue().splitlines()
    ends = [event for event in EVENTS if event["event"] == "trial_ended"]
    told = [line for line in lines if line.split()[1] in ("completed", "pruned", "failed:")]
    assert [line.replace(":", "").split()[:2] for line in told] == [
        [e["trial"], e["status"]] for e in ends
    ]
    assert any("DivergedError: the loss is not finite" in line for line in told)
    assert any(line.startswith("t0001 is taken up again: the worker died") for line in lines)
    assert any(line.startswith("distill finished | digits-1 ") for line in lines)
    assert stream.getvalue().isascii()


def test_without_a_terminal_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis.console, "QUIET_SECONDS", 0.05)
    stream = io.StringIO()
    with LiveDisplay(stream, interactive=False) as display:
        for event in EVENTS[:20]:
            display.apply(event)
        before = len(stream.getvalue().splitlines())
        deadline = time.monotonic() + 10
        while len(stream.getvalue().splitlines()) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(stream.getvalue().splitlines()) >= before + 2
    assert stream.getvalue().splitlines()[-1].startswith("digits-1 sweep | ")


def test_on_a_terminal_the_last_state_stays_and_the_cursor_returns() -> None:
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
        display = LiveDisplay(stream, interactive=True, clock=lambda: EVENTS[-1]["time"])
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
def test_a_broken_terminal_never_stops_the_work(
    interactive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        LiveDisplay(Broken(), interactive=interactive) as display,
    ):
        for event in EVENTS:
            display.apply(event)
        display.apply({"event": "epoch", "step": "not a number"})
    assert caplog.text.count("the display failed and is off") == 1
