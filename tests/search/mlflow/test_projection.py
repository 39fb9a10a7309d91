"""The MLflow runs that a run's events are projected to, without MLflow."""

import shlex
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.events import (
    EpochEnded,
    PlanMade,
    ResultReported,
    RunResumed,
    TrialEnded,
    TrialStarted,
)
from search.mlflow.projection import Projection
from search.mlflow.runs import DIGEST, SWEEP, Point
from search.space.sweep_files import load_spec
from tests.events import epoch, of_type, run_started, trial_ended, trial_started
from tests.search.mlflow.mirrored import EVENTS, Runs, expected_runs, projected, projection_of


def test_every_epoch_becomes_a_point_of_each_metric() -> None:
    runs = projected(EVENTS)
    epochs: dict[str, list[EpochEnded]] = defaultdict(list)
    for event in of_type(EVENTS, EpochEnded):
        epochs[event.trial].append(event)
    for trial, reports in epochs.items():
        points = [point for point in runs[trial].points if point.name == "val_nll"]
        assert points == [
            Point("val_nll", e.val_nll or 0.0, round(1000 * e.time), e.step) for e in reports
        ]
        latest = {point.name: point.value for point in runs[trial].points}
        assert latest["system/epoch_seconds"] == reports[-1].seconds
        at_rungs = {name: latest[name] for name in latest if name.startswith("val_nll_at")}
        assert at_rungs == {f"val_nll_at_{e.rung:02d}": e.val_nll for e in reports if e.rung}


def test_a_pruned_trial_is_finished_and_a_failed_one_is_not() -> None:
    runs = projected(EVENTS)
    ends = {e.trial: e.status for e in of_type(EVENTS, TrialEnded)}
    assert set(ends.values()) == {"completed", "pruned", "failed"}
    statuses = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
    for trial, status in ends.items():
        assert runs[trial].status == statuses[status]
        assert runs[trial].tags["quorum.status"] == status


def test_a_value_whose_condition_fails_is_not_a_parameter() -> None:
    runs = projected(EVENTS)
    rates = {"sgd": "lr_per_1024", "adamw": "adamw_lr"}
    for event in of_type(EVENTS, TrialStarted):
        recipe, run = event.recipe, runs[event.trial]
        rate = rates[recipe["optimizer"]]
        assert float(run.params[rate]) == pytest.approx(recipe[rate], rel=1e-5)
        assert len(run.params[rate]) < 12
        assert not {*rates.values()} - {rate} & set(run.params)
        assert run.recipe == recipe


def test_the_command_of_a_shipped_sweep_keeps_its_options_and_a_custom_one_has_none() -> None:
    spec = {"name": "digits", "dataset": {"name": "images", "path": "/data/my photos"}}
    asked = load_spec("digits", profile="cpu").with_values(trials=7).to_mapping()
    asked["dataset"]["path"] = "/data/my photos"
    plan = PlanMade(at="sweep", seconds={}, deadline=600.0, time=1.0)
    started = run_started(spec=spec, asked=asked)
    (change,) = projection_of([started, plan]).take()
    assert shlex.split(change.tags["quorum.command"]) == [
        "quorum", "run", "digits", "--data", "path/to/my photos", "--set", "trials=7",
        "--time-budget", "10m",
    ]  # fmt: skip
    custom = run_started(spec=spec, asked={**asked, "name": "my sweep"})
    (change,) = projection_of([custom, plan]).take()
    assert "quorum.command" not in change.tags


def test_the_sweeps_run_has_its_specification_and_its_results() -> None:
    sweep = projected(EVENTS)[SWEEP]
    assert sweep.name == "digits-1"
    assert sweep.params["trials"] == "6"
    assert sweep.params["recipe.batch_size"] == "64"
    assert sweep.params["space.width"] == "type int, low 16, high 48, step 16"
    assert sweep.params["rungs"] == "3, 9, 27"
    assert all(value for run in projected(EVENTS).values() for value in run.params.values())
    assert sweep.tags["quorum.split_id"] == "5f3b6c9d"
    assert sweep.tags["quorum.registered"] == "quorum-digits version 1, champion"
    assert sweep.tags["quorum.sizes"] == "train 400, val 400, holdout 400, test 597"
    points = {(point.name, point.step): point.value for point in sweep.points}
    assert points["ledger_ensemble_accuracy", 0] == 0.955
    assert points["trials_failed", 6] == 1
    assert points["seconds_distill", 0] == pytest.approx(4.0)
    scored = [e for e in of_type(EVENTS, EpochEnded) if e.rung]
    best = min(scored, key=lambda e: (-(e.rung or 0), e.val_nll or 0.0))
    assert points["best_val_nll", 6] == best.val_nll
    assert (sweep.status, sweep.end_ms) == ("FINISHED", round(1000 * EVENTS[-1].time))


def test_a_failed_trial_shows_the_end_of_its_traceback() -> None:
    failed = projected(EVENTS)["t0005"]
    assert failed.tags["quorum.reason"] == "DivergedError: the loss is not finite"
    (end,) = [event for event in of_type(EVENTS, TrialEnded) if event.trial == "t0005"]
    assert end.traceback
    assert end.traceback in failed.tags["mlflow.note.content"]
    traceback = "frame\n" * 5000 + "KeyError: 'y'"
    ended = trial_ended("t0009", "failed", reason="x", traceback=traceback)
    note = projected([EVENTS[0], trial_started("t0009"), ended])["t0009"].tags[
        "mlflow.note.content"
    ]
    assert len(note) < 8000
    assert "KeyError: 'y'" in note


def test_a_second_student_gets_its_own_run() -> None:
    again = [
        replace(e, time=e.time + 1000, params={"width": 32})
        for e in of_type(EVENTS, ResultReported)
    ]
    runs = projected([*EVENTS, *again])
    assert runs["student_int8"].params["width"] == "16"
    assert runs["student_int8 (2)"].params["width"] == "32"
    ledger = [p.step for p in runs[SWEEP].points if p.name == "ledger_ensemble_accuracy"]
    assert ledger == [0, 1]


@given(st.lists(st.integers(0, len(EVENTS)), max_size=5).map(sorted))
def test_changes_taken_in_parts_equal_those_taken_together(cuts: list[int]) -> None:
    projection, runs = Projection(), Runs()
    for begin, end in zip([0, *cuts], [*cuts, len(EVENTS)], strict=True):
        for event in EVENTS[begin:end]:
            projection.apply(event)
        runs.write(projection.take())
    projection.close()
    runs.write(projection.take())
    assert runs == expected_runs()


def test_an_interrupted_run_is_killed_and_a_resume_reopens_it() -> None:
    fifth = next(e for e in of_type(EVENTS, EpochEnded) if e.step == 5)
    events, trial = EVENTS[: EVENTS.index(fifth)], fifth.trial
    runs = projected(events)
    assert (runs[SWEEP].status, runs[trial].status) == ("KILLED", "KILLED")
    assert runs[trial].end_ms == runs[trial].points[-1].timestamp_ms
    projection = projection_of([*events, RunResumed(time=fifth.time + 60, run="digits-1")])
    changes = {change.key: change for change in projection.take()}
    assert (changes[SWEEP].status, changes[trial].status) == ("RUNNING", "KILLED")
    attempt = projection.state.trials[trial].attempts + 1
    projection.apply(trial_started(trial, fifth.time + 61, recipe={}, attempt=attempt))
    assert {c.key: c.status for c in projection.take()} == {trial: "RUNNING"}


def test_only_finite_numbers_become_points() -> None:
    event = epoch(
        "t0000", 1, 1.0, val_nll=None, train_loss=float("nan"), lr=float("inf"), val_accuracy=0,
        seconds=None,
    )  # fmt: skip
    points = projected([EVENTS[0], trial_started("t0000"), event])["t0000"].points
    assert points == [Point("val_accuracy", 0.0, 1000, 1)]


def test_the_digest_changes_with_any_event_of_the_run() -> None:
    digests = {key: change.tags[DIGEST] for key, change in projected(EVENTS).items()}
    changed = projected(
        replace(e, lr=0.5) if isinstance(e, EpochEnded) and e.step == 2 else e for e in EVENTS
    )
    assert {key for key in digests if changed[key].tags[DIGEST] != digests[key]} == {
        e.trial for e in of_type(EVENTS, EpochEnded) if e.step == 2
    }
