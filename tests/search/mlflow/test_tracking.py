import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import RunError
from journal.events import (
    EpochEnded,
    Event,
    ResultReported,
    RunResumed,
    TrialEnded,
    TrialStarted,
)
from journal.journal import Journal, read_events
from search.mlflow import tracking
from search.mlflow.changes import DIGEST, SWEEP, RunChange
from search.mlflow.client import without_password
from search.mlflow.projection import Projection
from search.mlflow.store import Store
from search.mlflow.tracking import MlflowMirror, sync, tracking_uri
from search.mlflow.values import Point
from tests.docs import ROOT
from tests.events import epoch, of_type, trial_ended, trial_started
from tests.synthetic_sweep import SPEC, resumed, synthetic_chain, synthetic_sweep
from trainables.records import RunFolder

SMALL = {**SPEC, "trials": 6}
LEDGER = ROOT / "results/digits-demo/ledger.json"


def whole_run() -> list[Event]:
    events = list(synthetic_sweep(spec=SMALL, fail=(5,), retry=(1,)))
    return events + list(synthetic_chain(start=events[-1].time))


EVENTS = whole_run()


def projected(events: list[Event]) -> dict[str, RunChange]:
    projection = Projection()
    for event in events:
        projection.apply(event)
    projection.close()
    return {change.key: change for change in projection.take()}


# What a journal says, without MLflow.


def test_every_report_becomes_a_point_and_every_end_a_status() -> None:
    runs = projected(EVENTS)
    epochs: dict[str, list[EpochEnded]] = defaultdict(list)
    for event in of_type(EVENTS, EpochEnded):
        epochs[event.trial].append(event)
    for trial, reports in epochs.items():
        points = [point for point in runs[trial].points if point.name == "val_nll"]
        assert points == [
            Point("val_nll", e.val_nll or 0.0, round(1000 * e.time), e.step) for e in reports
        ]
        rungs = {f"val_nll_at_{e.rung:02d}": e.val_nll for e in reports if e.rung}
        told = {point.name: point.value for point in runs[trial].points}
        assert {name: told[name] for name in told if name.startswith("val_nll_at")} == rungs
        assert told["system/epoch_seconds"] == reports[-1].seconds
    ends = {e.trial: e.status for e in of_type(EVENTS, TrialEnded)}
    names: dict[str, str] = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
    assert {key: runs[key].status for key in ends} == {k: names[v] for k, v in ends.items()}
    assert {key: runs[key].tags["quorum.status"] for key in ends} == ends


def test_what_a_condition_switched_off_is_no_parameter() -> None:
    runs = projected(EVENTS)
    for event in of_type(EVENTS, TrialStarted):
        drawn, run = event.recipe, runs[event.trial]
        rates = {"sgd": "lr_per_1024", "adamw": "adamw_lr"}
        own = rates[drawn["optimizer"]]
        assert float(run.params[own]) == pytest.approx(drawn[own], rel=1e-5)
        assert len(run.params[own]) < 12
        assert not {*rates.values()} - {own} & set(run.params)
        assert run.recipe == drawn


def test_the_sweep_tells_its_specification_its_best_and_the_ledger() -> None:
    parent = projected(EVENTS)[SWEEP]
    assert parent.name == "digits-1"
    assert parent.params["trials"] == "6"
    assert parent.params["recipe.batch_size"] == "64"
    assert parent.params["space.width"] == "type int, low 16, high 48, step 16"
    assert parent.params["rungs"] == "3, 9, 27"
    assert parent.tags["quorum.split_id"] == "5f3b6c9d"
    assert parent.tags["quorum.registered"] == "quorum-digits version 1, champion"
    assert parent.tags["quorum.sizes"] == "train 400, val 400, holdout 400, test 597"
    points = {(point.name, point.step): point.value for point in parent.points}
    assert points["ledger_ensemble_accuracy", 0] == 0.955
    assert points["trials_failed", 6] == 1
    assert points["seconds_distill", 0] == pytest.approx(4.0)
    scores = [e for e in of_type(EVENTS, EpochEnded) if e.rung]
    best = min(scores, key=lambda e: (-(e.rung or 0), e.val_nll or 0.0))
    assert points["best_val_nll", 6] == best.val_nll
    assert (parent.status, parent.end_ms) == ("FINISHED", round(1000 * EVENTS[-1].time))


def test_a_failure_keeps_its_traceback_where_it_is_seen() -> None:
    failed = projected(EVENTS)["t0005"]
    assert failed.tags["quorum.reason"] == "DivergedError: the loss is not finite"
    assert "Traceback (most recent call last)" in failed.tags["mlflow.note.content"]
    long = trial_ended("t0009", "failed", reason="x", traceback="frame\n" * 5000 + "KeyError: 'y'")
    note = projected([EVENTS[0], trial_started("t0009"), long])["t0009"].tags["mlflow.note.content"]
    assert len(note) < 8000
    assert "KeyError: 'y'" in note


def test_a_second_student_is_another_run() -> None:
    again = [replace(e, time=e.time + 1000, params={"width": 32})
             for e in of_type(EVENTS, ResultReported)]  # fmt: skip
    runs = projected([*EVENTS, *again])
    assert runs["student_int8"].params["width"] == "16"
    assert runs["student_int8 (2)"].params["width"] == "32"
    ledger = [p.step for p in runs[SWEEP].points if p.name == "ledger_ensemble_accuracy"]
    assert ledger == [0, 1]


@given(st.lists(st.integers(0, len(EVENTS)), max_size=5).map(sorted))
def test_changes_taken_in_parts_add_up_to_those_taken_at_once(cuts: list[int]) -> None:
    projection, world = Projection(), World()
    for begin, end in zip([0, *cuts], [*cuts, len(EVENTS)], strict=True):
        for event in EVENTS[begin:end]:
            projection.apply(event)
        world.write(projection.take())
    projection.close()
    world.write(projection.take())
    whole = World()
    whole.write(projected(EVENTS).values())
    assert world == whole


def test_what_is_broken_off_is_closed_and_opened_again_by_a_resume() -> None:
    fifth = next(e for e in of_type(EVENTS, EpochEnded) if e.step == 5)
    events, trial, time = EVENTS[: EVENTS.index(fifth)], fifth.trial, fifth.time
    runs = projected(events)
    assert runs[SWEEP].status == "KILLED"
    assert runs[trial].status == "KILLED"
    assert runs[trial].end_ms == runs[trial].points[-1].timestamp_ms
    events.append(RunResumed(time=time + 60, run="digits-1"))
    projection = Projection()
    for event in events:
        projection.apply(event)
    changes = {change.key: change for change in projection.take()}
    assert (changes[trial].status, changes[SWEEP].status) == ("KILLED", "RUNNING")
    attempt = projection.state.trials[trial].attempts + 1
    projection.apply(trial_started(trial, time + 61, recipe={}, attempt=attempt))
    assert {c.key: c.status for c in projection.take()} == {trial: "RUNNING"}


def test_what_no_chart_can_show_is_left_out() -> None:
    event = epoch("t0000", 1, 1.0, val_nll=None, train_loss=float("nan"), lr=float("inf"),
                  val_accuracy=0, seconds=None)  # fmt: skip
    points = projected([EVENTS[0], trial_started("t0000"), event])["t0000"].points
    assert points == [Point("val_accuracy", 0.0, 1000, 1)]


def test_the_digest_says_whether_everything_arrived() -> None:
    digests = {key: change.tags[DIGEST] for key, change in projected(EVENTS).items()}
    changed = [replace(e, lr=0.5) if isinstance(e, EpochEnded) and e.step == 2 else e
               for e in EVENTS]  # fmt: skip
    other = projected(changed)
    assert {key for key in digests if other[key].tags[DIGEST] != digests[key]} == {
        e.trial for e in of_type(EVENTS, EpochEnded) if e.step == 2
    }


# The mirror, on a store that is a dictionary and can be made to fail.


class World(dict[str, dict[str, Any]]):
    """What MLflow would hold."""

    def write(self, changes: Any) -> None:
        for change in changes:
            run = self.setdefault(change.key, {"params": {}, "tags": {}, "points": set()})
            run["params"] = {**change.params, **run["params"]}
            run["tags"].update(change.tags)
            run["points"].update(change.points)
            run |= {"curve": change.curve} if change.curve else {}
            run |= {"status": change.status, "end": change.end_ms, "name": change.name}


class FakeStore:
    world = World()
    fails = False
    delay = 0.0
    connects = 0

    def __init__(self, uri: str, folder: RunFolder, projection: Projection) -> None:
        type(self).connects += 1
        self._check()

    def write(self, change: RunChange) -> str:
        self._check()
        time.sleep(self.delay)
        self.world.write([change])
        return "updated"

    def _check(self) -> None:
        if self.fails:
            raise ConnectionError("nobody answers")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> type[FakeStore]:
    class Fresh(FakeStore):
        world = World()

    monkeypatch.setattr(tracking, "Store", Fresh)
    monkeypatch.setattr(tracking, "RETRY_SECONDS", (0.02, 0.05))
    return Fresh


def journalled(folder: RunFolder, events: list[Event], mirror: MlflowMirror | None = None) -> None:
    with Journal(folder.journal) as journal:
        for event in events:
            written = journal.append(event)
            if mirror is not None:
                mirror.handle(written)


def expected_world() -> World:
    world = World()
    world.write(projected(EVENTS).values())
    return world


def until(condition: Any, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "runs" / "digits-1"
    root.mkdir(parents=True)
    return RunFolder(root)


def test_everything_arrives(folder: RunFolder, store: type[FakeStore]) -> None:
    mirror = MlflowMirror(folder, flush_seconds=0.01)
    journalled(folder, EVENTS, mirror)
    assert mirror.close(10)
    assert not mirror.lagging
    assert store.world == expected_world()


def test_an_outage_is_told_once_and_made_good(
    folder: RunFolder, store: type[FakeStore], caplog: pytest.LogCaptureFixture
) -> None:
    mirror = MlflowMirror(folder, flush_seconds=0.01)
    with caplog.at_level(logging.WARNING):
        journalled(folder, EVENTS[:60], mirror)
        assert until(lambda: len(store.world) > 1)
        store.fails = True
        journalled(folder, EVENTS[60:], mirror)
        assert until(lambda: mirror._failures > 2)
        assert mirror.lagging
        store.fails = False
        assert mirror.close(10)
    assert store.world == expected_world()
    assert [r.getMessage() for r in caplog.records if r.name == "search.mlflow.tracking"] == [
        f"MLflow at {mirror.uri} cannot be written (ConnectionError: nobody answers); the run goes "
        f"on, and its view is mended later or by `quorum sync {folder.root}`"
    ]


def test_a_dead_store_costs_the_sweep_nothing(
    folder: RunFolder, store: type[FakeStore], caplog: pytest.LogCaptureFixture
) -> None:
    store.fails = True
    mirror = MlflowMirror(folder, flush_seconds=0.01)
    journalled(folder, EVENTS, mirror)
    assert until(lambda: mirror._failures > 0)
    begun = time.monotonic()
    assert not mirror.close(30)
    assert time.monotonic() - begun < 5
    assert "quorum sync" in caplog.text
    store.fails = False
    assert sync(folder).runs == len(expected_world())
    assert store.world == expected_world()


def test_a_slow_store_never_blocks(folder: RunFolder, store: type[FakeStore]) -> None:
    store.delay = 0.03
    mirror = MlflowMirror(folder, flush_seconds=0.001)
    journalled(folder, EVENTS)
    begun = time.monotonic()
    for event in EVENTS:
        mirror.handle(event)
    assert time.monotonic() - begun < 2.0
    assert mirror.close(20)
    assert store.world == expected_world()


@settings(max_examples=10)
@given(cut=st.integers(1, len(EVENTS) - 1))
def test_a_resumed_run_ends_as_an_uninterrupted_one(cut: int) -> None:
    """A process that dies is a mirror that is never closed; the next one starts afresh."""
    before, after = EVENTS[:cut], EVENTS[cut:]
    again = list(resumed(before, after, time=before[-1].time + 0.001))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as place:
        world = World()
        patch.setattr(tracking, "Store", type("Fresh", (FakeStore,), {"world": world}))
        folder = RunFolder(Path(place) / "runs" / "digits-1")
        journalled(folder, before)
        half = Projection()
        for event in EVENTS[: cut * 2 // 3]:
            half.apply(event)
        world.write(half.take())
        mirror = MlflowMirror(folder, flush_seconds=0.001)
        journalled(folder, again, mirror)
        assert mirror.close(10)
        expected = World()
        expected.write(projected(read_events(folder.journal)).values())
    assert world == expected


def test_two_writers_would_double_every_run(folder: RunFolder, store: type[FakeStore]) -> None:
    mirror = MlflowMirror(folder, flush_seconds=0.01)
    journalled(folder, EVENTS[:50], mirror)
    assert until(lambda: bool(store.world))
    with pytest.raises(RunError, match="is at work and mirrors itself; sync it when that has end"):
        sync(folder)
    assert mirror.close(10)
    assert sync(folder).runs > 1


def test_an_unused_mirror_does_nothing(folder: RunFolder, store: type[FakeStore]) -> None:
    threads = threading.active_count()
    with MlflowMirror(folder) as mirror:
        assert threading.active_count() == threads
    assert mirror.close()
    assert store.connects == 0


def test_where_a_run_is_mirrored(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = folder.root.resolve().parent / "mlflow.db"
    assert tracking_uri(folder) == f"sqlite:///{beside}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@host:5000/a")
    assert tracking_uri(folder) == "http://user:secret@host:5000/a"
    assert tracking_uri(folder, "sqlite:///x") == "sqlite:///x"
    assert without_password(tracking_uri(folder)) == "http://host:5000/a"


def test_a_run_without_a_journal_cannot_be_synced(folder: RunFolder) -> None:
    with pytest.raises(RunError, match=r"journal.jsonl cannot be read"):
        sync(folder)


def test_importing_the_mirror_does_not_import_mlflow() -> None:
    code = (
        "import sys, search.mlflow.tracking\n"
        "print([m for m in ('mlflow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# MLflow itself.


@pytest.fixture
def database(folder: RunFolder, empty_store: Path) -> Path:
    return Path(shutil.copy(empty_store, folder.root.parent / "mlflow.db"))


def rows(database: Path) -> dict[str, int]:
    tables = ("experiments", "runs", "metrics", "latest_metrics", "params", "tags", "inputs")
    with sqlite3.connect(database) as connection:
        return {
            table: connection.execute(f"select count(*) from {table}").fetchone()[0]
            for table in tables
        }


def stored(database: Path, *, ids: bool = False) -> World:
    """The store's runs, in the terms of the fake one; with their ids, if asked."""
    world = World()
    with sqlite3.connect(database) as connection:
        runs = connection.execute("select run_uuid, name, status, end_time from runs").fetchall()
        for run_id, name, status, end in runs:
            tags = dict(connection.execute("select key, value from tags where run_uuid = ?",
                                           [run_id]))  # fmt: skip
            points = connection.execute(
                "select key, value, timestamp, step from metrics where run_uuid = ?", [run_id]
            )
            params = connection.execute(
                "select key, value from params where run_uuid = ?", [run_id]
            )
            world[tags.get("quorum.trial", SWEEP)] = {
                "name": name, "status": status, "end": end, "params": dict(params),
                "points": {Point(*row) for row in points}, "tags": tags,
            }  # fmt: skip
            world[tags.get("quorum.trial", SWEEP)] |= {"id": run_id} if ids else {}
    return world


def ours(world: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without the tags that only a store gives."""
    given = {"quorum.id", "quorum.run", "quorum.trial", "mlflow.runName", "mlflow.parentRunId",
             "mlflow.source.name", "mlflow.source.type"}  # fmt: skip
    return {
        key: {
            **{k: v for k, v in run.items() if k != "curve"},
            "tags": {k: v for k, v in run["tags"].items() if k not in given},
        }
        for key, run in world.items()
    }


@pytest.mark.slow
def test_mlflow_holds_what_the_journal_says_and_a_sync_adds_nothing(
    folder: RunFolder, database: Path
) -> None:
    mirror = MlflowMirror(folder, flush_seconds=0.05)
    journalled(folder, EVENTS, mirror)
    assert mirror.close(60)
    assert ours(stored(database)) == ours(expected_world())
    world = stored(database)
    parent = world[SWEEP]["tags"]["quorum.id"]
    assert {run["tags"]["quorum.id"] for run in world.values()} == {parent}
    before = rows(database)
    for _ in range(2):
        summary = sync(folder)
        assert (summary.created, summary.updated) == (0, 0)
        assert rows(database) == before
    assert str(summary) == (
        f"{len(world)} runs in sqlite:///{database}: 0 created, 0 brought up to date, "
        f"{len(world)} as they were"
    )


@pytest.mark.slow
def test_a_sync_builds_the_view_anew_and_mends_a_torn_one(
    folder: RunFolder, database: Path
) -> None:
    journalled(folder, EVENTS)
    folder.ledger.mkdir()
    shutil.copy(LEDGER, folder.ledger)
    summary = sync(folder)
    ids = {key: run["id"] for key, run in stored(database, ids=True).items()}
    artifacts = folder.root.parent / "mlartifacts" / "quorum-digits"
    files = {path.name for path in (artifacts / ids["t0000"] / "artifacts").iterdir()}
    assert files == {"curve.csv", "recipe.yaml"}
    assert (artifacts / ids[SWEEP] / "artifacts/ledger.json").read_bytes() == LEDGER.read_bytes()
    note = stored(database)[SWEEP]["tags"]["mlflow.note.content"]
    assert note.startswith("**`student_int8` ships**")
    assert "mlflow models serve -m models:/quorum-digits@champion" in note
    assert (summary.created, summary.updated) == (summary.runs, 0)
    whole, counts = stored(database), rows(database)
    with sqlite3.connect(database) as connection:
        connection.execute("delete from metrics where step > 2")
        connection.execute("update runs set status = 'RUNNING', end_time = null")
    assert sync(folder).updated == summary.runs
    assert ours(stored(database)) == ours(whole)
    assert rows(database) == counts


@pytest.mark.slow
def test_a_store_that_takes_no_files_has_the_rest(
    folder: RunFolder, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journalled(folder, EVENTS)
    (folder.root.parent / "mlartifacts").write_text("in the way")
    assert sync(folder).created == len(expected_world())
    assert [r.getMessage() for r in caplog.records if "rejects files" in r.getMessage()] == [
        next(r.getMessage() for r in caplog.records if r.name == "search.mlflow.store")
    ]
    assert {run["status"] for run in stored(database).values()} == {"FINISHED", "FAILED"}
    (folder.root.parent / "mlartifacts").unlink()
    trials = {event.trial for event in of_type(EVENTS, TrialStarted)}
    assert sync(folder).updated == len(trials)
    assert ours(stored(database)) == ours(expected_world())
    assert sync(folder).updated == 0


def test_mlflow_is_kept_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process and in those that it starts."""
    from mlflow.telemetry.utils import is_telemetry_disabled

    from search.mlflow.client import load_mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
    load_mlflow()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert is_telemetry_disabled()


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_into_the_same_runs(folder: RunFolder, database: Path) -> None:
    cut = len(EVENTS) // 2
    journalled(folder, EVENTS[:cut])
    torn = Projection()
    for event in EVENTS[: cut - 20]:
        torn.apply(event)
    store = Store(f"sqlite:///{database}", folder, torn)
    for change in torn.take():
        store.write(change)
    assert stored(database)[SWEEP]["status"] == "RUNNING"
    ids = {key: store.run_id(key) for key in stored(database)}
    mirror = MlflowMirror(folder, flush_seconds=0.05)
    news = list(resumed(EVENTS[:cut], EVENTS[cut:], time=EVENTS[cut].time))
    journalled(folder, news, mirror)
    assert mirror.close(60)
    expected = World()
    expected.write(projected(read_events(folder.journal)).values())
    assert ours(stored(database)) == ours(expected)
    projection = Projection()
    projection.apply(EVENTS[0])
    again = Store(f"sqlite:///{database}", folder, projection)
    assert {key: again.run_id(key) for key in ids} == ids


@pytest.mark.slow
def test_a_locked_database_holds_up_the_mirror_alone(folder: RunFolder, database: Path) -> None:
    mirror = MlflowMirror(folder, flush_seconds=0.05)
    journalled(folder, EVENTS[:40], mirror)
    assert until(lambda: rows(database)["runs"] > 1, 60)
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("begin exclusive")
    begun = time.monotonic()
    journalled(folder, EVENTS[40:], mirror)
    assert time.monotonic() - begun < 5.0
    assert not mirror.close(1.0)
    connection.execute("rollback")
    connection.close()
    assert mirror.close(60)
    assert ours(stored(database)) == ours(expected_world())


@pytest.mark.slow
def test_a_server_that_is_not_there(folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://someone:secret@127.0.0.1:{port}"
    mirror = MlflowMirror(folder, uri, flush_seconds=0.05)
    journalled(folder, EVENTS, mirror)
    assert until(lambda: mirror._failures > 0, 60)
    assert not mirror.close(60)
    assert "secret" not in caplog.text
    assert {record.name for record in caplog.records} == {"search.mlflow.tracking"}
    with pytest.raises(RunError, match="journal has everything, so sync again when it can be"):
        sync(folder, uri)


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "mlflow":
            thread.join(30)
            assert not thread.is_alive()
