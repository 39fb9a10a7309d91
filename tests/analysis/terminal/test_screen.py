import re

from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.terminal.glyphs import Glyphs, hyperparameters
from analysis.terminal.panels import result_lines
from analysis.terminal.screen import plain_line, render
from common.formats import rounded_duration, stopwatch
from journal.events import (
    STAGES,
    EpochEnded,
    Event,
    PlanMade,
    StageReported,
    SweepEnded,
    TrialEnded,
)
from journal.state import RunState
from search.timetable.forecast import stage_seconds_left
from tests.analysis.terminal.whole_run import EVENTS, half_way
from tests.rendering import shown
from tests.synthetic_sweep import SPEC, synthetic_sweep


def drawn(
    state: RunState, now: float, *, width: int = 80, height: int = 24, ascii_only: bool = False
) -> str:
    view = render(state, now, width, height=height, ascii_only=ascii_only)
    return "\n".join(shown(view, width, height=height))


def test_a_sweep_in_progress_shows_rungs_and_trials() -> None:
    state = half_way()
    lines = drawn(state, state.last_time + 1, width=100).splitlines()
    best = state.trials.best
    assert best is not None
    assert best.score is not None
    assert lines[0].startswith("quorum digits-1 · 0:")
    assert " ".join(lines[1].split()) == ("● sweep · seeds · select · distill · ledger · report")
    assert lines[2].startswith("  0:5")
    assert "1 failed · done in about" in lines[3]
    running = len(state.trials.running)
    assert running >= 1
    assert re.fullmatch(
        rf"{running} running · [\d,]+ images/s · peak memory 300 MB per worker", lines[4]
    )
    table = [line.split() for line in lines if line.startswith(("★", "●  t"))]
    assert table[0][:5] == [
        "★", best.name, str(best.rung), f"{best.score.val_nll:.3f}",
        f"{100 * (best.score.val_accuracy or 0):.1f}%",
    ]  # fmt: skip
    assert [row[1] for row in table[1:]] == sorted(state.trials.running)
    for rung, count in state.rung_counts().items():
        row = next(line.split() for line in lines if line.split()[:1] == [str(rung)])
        assert int(row[2]) == count.arrived
    (failed,) = state.trials.with_status("failed")
    assert failed.reason
    assert f"{Glyphs().failed} {failed.name} {failed.reason}" in lines


def test_a_finished_run_shows_all_stages_and_results() -> None:
    state = RunState.from_events(EVENTS)
    text = drawn(state, state.last_time + 1000)
    assert "finished" in text
    done = [f"{Glyphs().done} {stage}" for stage in STAGES]
    assert text.splitlines()[1].split("  ")[: len(STAGES)] == done
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    metrics = state.results["ensemble"][-1].metrics
    assert (metrics["holdout_accuracy"], metrics["holdout_nll"]) == (0.957, 0.151)
    assert re.findall(r"[\d.]+%?", rows["ensemble"]) == ["95.7%", "0.151"]
    entry = state.registered
    assert entry is not None
    assert {entry.name, str(entry.version)} <= set(re.split(r"[ ,]+", rows["registered"]))
    assert f"{entry.alias}: " in rows["registered"]
    assert entry.reason[:20] in rows["registered"]
    length = stopwatch(EVENTS[-1].time - EVENTS[0].time)
    assert text.splitlines()[0] == f"quorum digits-1 · {length} · finished"  # the clock stops


def test_a_run_before_its_start_and_after_an_interruption() -> None:
    state = RunState()
    assert "starting" in drawn(state, 5.0)
    state = half_way()
    state.apply(SweepEnded(kind="search", reason="interrupted", time=state.last_time + 1))
    for view in (drawn, plain_line):
        text = view(state, state.last_time)
        assert "interrupted" in text
        assert "--resume" in text


def test_scores_of_one_subject_share_a_line() -> None:
    metrics = {
        "best_single_test_accuracy": 0.98, "best_single_test_nll": 0.05, "gap_pool": 0.04,
        "worth_weight-decay_accuracy": -0.021, "bytes": 181_287.0,
    }  # fmt: skip
    assert result_lines(metrics, Glyphs()) == [
        "best single, test: accuracy 98.0% · NLL 0.050",
        "effect of weight-decay: accuracy −2.1 points",
        "gap pool 0.04 · size 181 kB",
    ]


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


def test_a_short_terminal_shows_fewer_of_many_trials() -> None:
    events = list(synthetic_sweep(spec={**SPEC, "trials": 60}, concurrent=32))
    state = RunState.from_events(events[:120])
    assert len(state.trials.running) == 32
    assert len(drawn(state, state.last_time).splitlines()) <= 24
    assert drawn(state, state.last_time, height=60).count("●  t") == 32


def test_values_that_explain_themselves_have_no_name() -> None:
    space = {
        "width": {}, "activation": {}, "attention": {}, "lr": {"when": {"optimizer": "sgd"}},
        "depth": {"when": {"activation": ["relu", "silu"]}},
    }  # fmt: skip
    recipe = {"width": 32, "activation": "gelu", "attention": "none", "lr": 0.1, "depth": 2}
    assert hyperparameters(recipe, space) == "width 32, gelu, attention none"
    assert hyperparameters({**recipe, "optimizer": "sgd"}, space).endswith(", lr 0.1")


def prepared(*, deadline: float | None = None) -> list[Event]:
    """Return the run of EVENTS with its preparation and a plan of 4 minutes and 21 seconds."""
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


def test_the_preparation_shows_its_progress() -> None:
    state = RunState.from_events(prepared()[:2])
    lines = drawn(state, state.last_time, width=100).splitlines()
    assert lines[0] == "quorum starting · 0:08"
    assert lines[1].startswith("● data           · sweep  · seeds")
    assert lines[2] == "  0:08 of ~0:20"
    assert lines[3].endswith(" 40%  1,200 of 3,000 images · done in about 10 s")
    assert plain_line(state, state.last_time) == (
        "run data 40% | 1,200 of 3,000 images | 0:08 elapsed | data done in about 10 s"
    )


def test_a_log_shows_epochs_until_a_trial_is_scored() -> None:
    first = next(i for i, event in enumerate(EVENTS) if isinstance(event, EpochEnded))
    started = RunState.from_events(EVENTS[:first])
    assert " at epoch " not in plain_line(started, started.last_time)
    state = RunState.from_events(EVENTS[: first + 1])
    assert re.search(r" \| t00\d\d at epoch 1 of 27, [\d.]+% on val \| ", plain_line(state, 1e9))
    scored = half_way()
    assert " at epoch " not in plain_line(scored, scored.last_time)


def test_a_plan_shows_the_time_of_every_stage_and_the_deadline() -> None:
    begin = EVENTS[0].time
    state = RunState.from_events(prepared(deadline=begin + 400)[:5])
    lines = drawn(state, begin, width=80).splitlines()
    assert lines[0] == "quorum digits-1 · 0:20 · about 4 min left · deadline in 7 min"
    assert lines[2].split() == ["0:20", "~2:10", "~0:25", "~0:02", "~1:10", "~0:09", "~0:25"]
    # No forecast goes beyond the deadline: stages shorten instead.
    header = drawn(state, begin + 340).splitlines()[0].split(" · ")
    assert [re.findall(r"\d+ s", note) for note in header[-2:]] == [["60 s"], ["60 s"]]
    assert re.findall(r"\d+ s", drawn(state, begin + 405).splitlines()[0]) == ["5 s"]


def test_a_sweep_without_running_trials_has_no_time_left() -> None:
    events = prepared(deadline=EVENTS[0].time + 4000)
    last = max(i for i, e in enumerate(events)
               if isinstance(e, TrialEnded) and e.kind == "search")  # fmt: skip
    state = RunState.from_events(events[: last + 1])
    assert stage_seconds_left(state, state.last_time)["sweep"] == 0.0


def test_the_detail_of_a_stage_is_shown() -> None:
    index = next(
        i for i, e in enumerate(EVENTS) if isinstance(e, StageReported) and e.stage == "distill"
    )
    state = RunState.from_events(EVENTS[: index + 2])
    detail, left = "part 1 of 4", stage_seconds_left(state, state.last_time)["distill"]
    assert state.stages["distill"].detail == detail
    (line,) = [text for text in drawn(state, state.last_time).splitlines() if detail in text]
    assert "25%" in line.split()
    assert line.endswith(rounded_duration(left))
    head, shown_detail, *_ = plain_line(state, state.last_time).split(" | ")
    assert (head.split()[-2:], shown_detail) == (["distill", "25%"], detail)


def test_a_killed_run_is_not_running_and_its_clock_stops() -> None:
    state = half_way()
    then = drawn(state, state.last_time).splitlines()
    state.abandon()
    lines = drawn(state, state.last_time + 5000).splitlines()
    assert lines[0] == f"{then[0]} · not running"
    assert lines[1].startswith("○ sweep")
    assert not any(line.startswith("●  t") for line in lines)
    assert "done in about" not in "".join(lines)
