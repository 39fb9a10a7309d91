"""The mirror on a store in memory: nothing is lost, and the run never waits or fails."""

import logging
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from common.errors import RunError
from journal.journal import read_events
from search.mlflow.mirror import MlflowMirror, sync, tracking_uri
from tests.search.mlflow.mirrored import (
    EVENTS,
    FakeStore,
    expected_runs,
    projection_of,
    wait_until,
    write_journal,
)
from tests.synthetic_sweep import resumed
from trainables.records import RunFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "runs" / "digits-1"
    root.mkdir(parents=True)
    return RunFolder(root)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "mlflow":
            thread.join(30)
            assert not thread.is_alive()


def mirror_to(store: FakeStore, folder: RunFolder, **options: Any) -> MlflowMirror:
    options = {"flush_seconds": 0.01, "retry_seconds": (0.02, 0.05), **options}
    return MlflowMirror(folder, connect=store.connect, **options)


def test_the_store_gets_every_event(folder: RunFolder, store: FakeStore) -> None:
    mirror = mirror_to(store, folder)
    write_journal(folder, EVENTS, mirror)
    assert mirror.close(60)
    assert not mirror.lagging
    assert store.runs == expected_runs()


def test_an_outage_is_reported_once_and_repaired(
    folder: RunFolder, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = mirror_to(store, folder)
    with caplog.at_level(logging.WARNING):
        write_journal(folder, EVENTS[:60], mirror)
        assert wait_until(lambda: len(store.runs) > 1)
        store.fails = True
        write_journal(folder, EVENTS[60:], mirror)
        assert wait_until(lambda: mirror.failures > 2)
        assert mirror.lagging
        store.fails = False
        assert mirror.close(60)
    assert store.runs == expected_runs()
    (message,) = [r.getMessage() for r in caplog.records if r.name.startswith("search.mlflow")]
    assert "nobody answers" in message
    assert f"quorum sync {folder.root}" in message


def test_a_refused_run_does_not_stop_the_others(
    folder: RunFolder, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Even if five of eleven are refused; a later sync writes them."""
    names = [key for key in expected_runs() if key]
    for refused in (names[:1], names[:5]):
        store.sweeps.clear()
        folder.journal.unlink(missing_ok=True)
        caplog.clear()
        store.refuses = set(refused)
        mirror = mirror_to(store, folder)
        write_journal(folder, EVENTS, mirror)
        assert not mirror.close(60)
        others = {key: run for key, run in expected_runs().items() if key not in refused}
        assert store.runs == others
        messages = [r.getMessage() for r in caplog.records if "refuses" in r.getMessage()]
        assert len(messages) == len(refused)
        assert any(f"the run of {refused[0]} (ValueError: a value" in m for m in messages)
        with pytest.raises(RunError, match=rf"refuses {len(refused)} of .*the others are up"):
            sync(folder, connect=store.connect)
        store.refuses = set()
        sync(folder, connect=store.connect)
        assert store.runs == expected_runs()


def test_a_run_that_was_refused_once_is_written_while_the_sweep_goes_on(
    folder: RunFolder, store: FakeStore
) -> None:
    """A short error does not freeze it until the end."""
    mirror = mirror_to(store, folder)
    write_journal(folder, EVENTS[:60], mirror)
    store.refuses = {""}
    assert wait_until(lambda: store.runs)
    write_journal(folder, EVENTS[60:120], mirror)
    assert wait_until(lambda: mirror.lagging)
    store.refuses = set()
    write_journal(folder, EVENTS[120:], mirror)
    assert wait_until(lambda: not mirror.lagging)
    assert mirror.close(60)
    assert store.runs == expected_runs()


def test_waits_get_longer_until_something_is_written(folder: RunFolder) -> None:
    """A store that accepts connections and refuses everything is not asked more and more often."""
    store = FakeStore()
    store.refuses = set(expected_runs())
    mirror = mirror_to(store, folder, retry_seconds=(0.01, 100.0), flush_seconds=0.001)
    began = time.monotonic()
    write_journal(folder, EVENTS, mirror)
    assert wait_until(lambda: mirror.failures >= 5)
    assert time.monotonic() - began >= 0.01 * (1 + 2 + 4 + 8)
    assert store.connections <= 6
    store.refuses = set()
    assert mirror.close(60)
    assert mirror.failures == 0
    assert store.runs == expected_runs()


def test_a_dead_store_does_not_stop_the_run_and_a_sync_repairs_it(
    folder: RunFolder, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.fails = True
    mirror = mirror_to(store, folder)
    write_journal(folder, EVENTS, mirror)
    assert wait_until(lambda: mirror.failures > 0)
    assert not mirror.close(60)
    assert "quorum sync" in caplog.text
    store.fails = False
    assert sync(folder, connect=store.connect).runs == len(expected_runs())
    assert store.runs == expected_runs()


def test_a_store_that_is_back_gets_the_time_to_be_written(
    folder: RunFolder, store: FakeStore
) -> None:
    store.fails = True
    mirror = mirror_to(store, folder, patience=0.2, retry_seconds=(60.0, 60.0))
    write_journal(folder, EVENTS, mirror)
    assert wait_until(lambda: mirror.failures > 0)
    store.fails = False
    store.answers.clear()
    threading.Timer(0.6, store.answers.set).start()
    assert mirror.close(60)
    assert store.runs == expected_runs()


def test_a_store_that_hangs_never_blocks_the_run(folder: RunFolder, store: FakeStore) -> None:
    store.answers.clear()
    mirror = mirror_to(store, folder, flush_seconds=0.001)
    write_journal(folder, EVENTS, mirror)
    assert wait_until(lambda: store.connections)
    assert not mirror.close(0.01)
    assert (store.runs, mirror.lagging) == ({}, True)
    store.answers.set()
    assert mirror.close(60)
    assert store.runs == expected_runs()


@settings(max_examples=10)
@given(cut=st.integers(1, len(EVENTS) - 1))
def test_a_resumed_run_is_mirrored_from_its_whole_journal(cut: int) -> None:
    """A killed process never closes its mirror; the next process starts a new one."""
    store = FakeStore()
    before, after = EVENTS[:cut], EVENTS[cut:]
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "runs" / "digits-1")
        write_journal(folder, before)
        partial = projection_of(EVENTS[: cut * 2 // 3])
        if partial.identity:
            connection = store.connect("", folder, partial)
            for change in partial.take():
                connection.write(change)
        mirror = mirror_to(store, folder, flush_seconds=0.001)
        events = list(resumed(before, after, time=before[-1].time + 0.001))
        write_journal(folder, events, mirror)
        assert mirror.close(60)
        assert store.runs == expected_runs(read_events(folder.journal))


def test_a_sync_is_refused_while_a_process_mirrors_the_run(
    folder: RunFolder, store: FakeStore
) -> None:
    mirror = mirror_to(store, folder)
    write_journal(folder, EVENTS[:50], mirror)
    assert wait_until(lambda: bool(store.runs))
    with pytest.raises(RunError, match="mirrored by a running process"):
        sync(folder, connect=store.connect)
    assert mirror.close(60)
    assert sync(folder, connect=store.connect).runs > 1


def test_an_unused_mirror_starts_nothing(folder: RunFolder, store: FakeStore) -> None:
    threads = threading.active_count()
    with mirror_to(store, folder) as mirror:
        assert threading.active_count() == threads
    assert mirror.close()
    assert store.connections == 0


def test_the_tracking_uri_is_an_argument_or_a_variable_or_beside_the_run(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = folder.root.resolve().parent / "mlflow.db"
    assert tracking_uri(folder) == f"sqlite:///{beside}"
    strange = RunFolder(folder.root.parent / "100% of #1? done %41" / "run")
    where = tracking_uri(strange).removeprefix("sqlite:///")
    assert make_url(tracking_uri(strange)).database == str(strange.root.parent / "mlflow.db")
    assert where == str(folder.root.parent / "100% of #1%3F done %2541" / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000/a")
    assert tracking_uri(folder) == "http://host:5000/a"
    assert tracking_uri(folder, "sqlite:///x") == "sqlite:///x"


def test_a_run_without_a_journal_cannot_be_synced(folder: RunFolder) -> None:
    with pytest.raises(RunError, match=r"journal.jsonl cannot be read"):
        sync(folder)


def test_importing_the_mirror_does_not_import_mlflow() -> None:
    code = (
        "import sys, search.mlflow.mirror\n"
        "print([m for m in ('mlflow', 'pandas', 'torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
