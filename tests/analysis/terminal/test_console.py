import io
import logging
import os
import pty
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import analysis.terminal.console
from analysis.terminal.console import LiveDisplay, plain_line, render
from analysis.terminal.glyphs import hyperparameters
from common.formats import stopwatch
from journal.events import EpochEnded, Event, PlanMade, StageReported, SweepEnded, TrialEnded
from journal.journal import Journal
from journal.state import RunState
from search.space.spec import load_spec
from search.timetable.forecast import stages_left
from tests.events import epoch, of_type
from tests.synthetic_sweep import SPEC, resumed, synthetic_chain, synthetic_sweep


def whole_run(**options: Any) -> list[Event]:
    events = list(synthetic_sweep(fail=(5,), retry=(1,), **options))
    return events + list(synthetic_chain(start=events[-1].time))


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
    assert " ".join(lines[1].split()) == ("● sweep · seeds · select · distill · ledger · report")
    assert lines[2].startswith("  0:5")
    assert "1 failed · done in about" in lines[3]
    assert re.fullmatch(
        r"2 at work · [\d,]+ images/s · at most 300 MB of memory a worker", lines[4]
    )
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
    length = stopwatch(EVENTS[-1].time - EVENTS[0].time)
    assert text.splitlines()[0] == f"quorum digits-1 · {length} · finished"  # the clock stops


def test_before_anything_and_after_an_interruption() -> None:
    state = RunState()
    assert "starting" in drawn(state, 5.0)
    state = half_way()
    state.apply(SweepEnded(kind="search", reason="interrupted", time=state.last_time + 1))
    assert "interrupted; --resume goes on with it" in drawn(state, state.last_time)
    assert "interrupted" in plain_line(state, state.last_time)


@settings(max_examples=60)
@given(
    st.integers(0, len(EVENTS)), st.integers(40, 220), st.integers(10, 60), st.booleans(),
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


def test_without_a_terminal_a_line_comes_at_every_end() -> None:
    stream = io.StringIO()
    with LiveDisplay(stream, load_spec("digits"), clock=lambda: EVENTS[0].time) as display:
        for event in EVENTS:
            display.apply(event)
    lines = stream.getvalue().splitlines()
    ends = of_type(EVENTS, TrialEnded)
    told = [line for line in lines if line.split()[1] in ("completed", "pruned", "failed:")]
    assert [line.replace(":", "").split()[:2] for line in told] == [
        [e.trial, e.status] for e in ends
    ]
    assert any("DivergedError: the loss is not finite" in line for line in told)
    assert any(line.startswith("t0001 starts again: the worker died") for line in lines)
    assert any(line.startswith("distill finished | digits-1 ") for line in lines)
    assert stream.getvalue().isascii()


def test_without_a_terminal_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis.terminal.console, "QUIET_SECONDS", 0.05)
    stream = io.StringIO()
    with LiveDisplay(stream, interactive=False) as display:
        for event in EVENTS[:20]:
            display.apply(event)
        before = len(stream.getvalue().splitlines())
        deadline = time.monotonic() + 10
        while len(stream.getvalue().splitlines()) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(stream.getvalue().splitlines()) >= before + 2
    assert stream.getvalue().splitlines()[-1].startswith("digits-1 sweep 5% | 1/20 trials | ")


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
def test_a_broken_terminal_never_stops_the_work(
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


def prepared(*, deadline: float | None = None) -> list[Event]:
    """The run of EVENTS with its preparation, and with a plan of 4 minutes and 21 seconds."""
    begin = EVENTS[0].time
    plan = PlanMade(
        at="sweep", trials=20, time=begin, deadline=deadline,
        seconds={"sweep": 130.0, "seeds": 25.0, "select": 2.0, "distill": 70.0, "ledger": 9.0,
                 "report": 25.0},
    )  # fmt: skip
    return [
        StageReported(stage="data", status="started", fraction=0.0, time=begin - 20),
        StageReported(stage="data", status="progress", fraction=0.4, time=begin - 12,
                      detail="1,200 of 3,000 images"),
        StageReported(stage="data", status="finished", fraction=1.0, time=begin),
        EVENTS[0], plan, *EVENTS[1:],
    ]  # fmt: skip


def test_the_preparation_says_how_far_it_is() -> None:
    state = RunState.from_events(prepared()[:2])
    lines = drawn(state, state.last_time, width=100).splitlines()
    assert lines[0] == "quorum starting · 0:08"
    assert lines[1].startswith("● data           · sweep  · seeds")
    assert lines[2] == "  0:08 of ~0:20"
    assert lines[3].endswith(" 40%  1,200 of 3,000 images · done in about 10 s")
    assert plain_line(state, state.last_time) == (
        "run data 40% | 1,200 of 3,000 images | 0:08 elapsed | data done in about 10 s"
    )


def test_a_log_tells_of_epochs_before_any_trial_is_scored() -> None:
    first = next(i for i, event in enumerate(EVENTS) if isinstance(event, EpochEnded))
    started = RunState.from_events(EVENTS[:first])
    assert " at epoch " not in plain_line(started, started.last_time)
    state = RunState.from_events(EVENTS[: first + 1])
    assert re.search(r" \| t00\d\d at epoch 1 of 27, [\d.]+% on val \| ", plain_line(state, 1e9))
    scored = half_way()
    assert " at epoch " not in plain_line(scored, scored.last_time)


def test_a_plan_gives_every_stage_its_time_and_the_run_its_deadline() -> None:
    begin = EVENTS[0].time
    state = RunState.from_events(prepared(deadline=begin + 400)[:5])
    lines = drawn(state, begin, width=80).splitlines()
    assert lines[0] == "quorum digits-1 · 0:20 · all done in about 4 min · deadline in 7 min"
    assert lines[2].split() == ["0:20", "~2:10", "~0:25", "~0:02", "~1:10", "~0:09", "~0:25"]
    # No forecast goes beyond the deadline: stages shorten instead.
    assert "all done in about 60 s · deadline in 60 s" in drawn(state, begin + 340)
    assert "5 s past the deadline" in drawn(state, begin + 405)


def test_a_sweep_whose_trials_have_all_ended_takes_no_longer() -> None:
    events = prepared(deadline=EVENTS[0].time + 4000)
    last = max(i for i, e in enumerate(events)
               if isinstance(e, TrialEnded) and e.kind == "search")  # fmt: skip
    state = RunState.from_events(events[: last + 1])
    assert stages_left(state, state.last_time)["sweep"] == 0.0


def test_what_a_stage_says_of_itself_is_shown() -> None:
    index = next(
        i for i, e in enumerate(EVENTS) if isinstance(e, StageReported) and e.stage == "distill"
    )
    state = RunState.from_events(EVENTS[: index + 2])
    assert "25%  part 1 of 4 · done in about 5 s" in drawn(state, state.last_time)
    assert " distill 25% | part 1 of 4 | " in plain_line(state, state.last_time)


def test_a_killed_run_is_not_at_work_and_its_clock_stands_still() -> None:
    state = half_way()
    then = drawn(state, state.last_time).splitlines()
    state.abandon()
    lines = drawn(state, state.last_time + 5000).splitlines()
    assert lines[0] == f"{then[0]} · not at work"
    assert lines[1].startswith("○ sweep")
    assert not any(line.startswith("●  t") for line in lines)
    assert "done in about" not in "".join(lines)


def test_a_resumed_run_shows_its_earlier_trials(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        for event in EVENTS[:150]:
            journal.append(event)
    stream = io.StringIO()
    display = LiveDisplay(stream, interactive=False, journal=tmp_path / "journal.jsonl")
    later = EVENTS[149].time + 1000
    for event in resumed(EVENTS[:150], [], time=later):
        display.apply(event)
    assert f"{len(half_way().with_status('completed', 'pruned', 'failed'))}/20" in stream.getvalue()
    absent = LiveDisplay(stream, interactive=False, journal=tmp_path / "absent")
    absent.apply(EVENTS[0])
    absent.apply(StageReported(stage="sweep", status="started", time=later))
    assert "sweep started | digits-1 sweep" in stream.getvalue()
