"""MLflow's own store matches the journal after outages, kills and syncs."""

import shutil
import socket
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from analysis.text.labels import stage_label
from analysis.text.markdown import ledger_text
from common.errors import RunError
from ensemble.ledger.ledger import read_ledger
from journal.events import TrialStarted
from journal.journal import read_events
from quorum.workspace.mlflow_view import connect_described
from search.mlflow.mirror import MlflowMirror, sync
from search.mlflow.runs import SWEEP, Point
from search.mlflow.store import Store
from tests.docs import ROOT
from tests.events import of_type
from tests.search.mlflow.mirrored import (
    EVENTS,
    Runs,
    expected_runs,
    projection_of,
    wait_until,
    write_journal,
)
from tests.synthetic_sweep import resumed
from trainables.records import RunFolder

pytestmark = pytest.mark.slow

LEDGER = ROOT / "results/digits-demo/ledger.json"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "runs" / "digits-1"
    root.mkdir(parents=True)
    return RunFolder(root)


@pytest.fixture
def database(folder: RunFolder, empty_store: Path) -> Path:
    return Path(shutil.copy(empty_store, folder.root.parent / "mlflow.db"))


def count_rows(database: Path) -> dict[str, int]:
    tables = ("experiments", "runs", "metrics", "latest_metrics", "params", "tags", "inputs")
    with sqlite3.connect(database) as connection:
        return {
            table: connection.execute(f"select count(*) from {table}").fetchone()[0]
            for table in tables
        }


def stored_runs(database: Path) -> Runs:
    """Read the runs of an MLflow database, in the form of the fake store."""
    runs = Runs()
    with sqlite3.connect(database) as connection:

        def rows(columns: str, table: str, run_id: str) -> list[Any]:
            query = f"select {columns} from {table} where run_uuid = ?"
            return connection.execute(query, [run_id]).fetchall()

        for run_id, name, status, end in connection.execute(
            "select run_uuid, name, status, end_time from runs"
        ).fetchall():
            tags = dict(rows("key, value", "tags", run_id))
            runs[tags.get("quorum.trial", SWEEP)] = {
                "name": name,
                "status": status,
                "end": end,
                "params": dict(rows("key, value", "params", run_id)),
                "points": {
                    Point(*r) for r in rows("key, value, timestamp, step", "metrics", run_id)
                },
                "tags": tags,
            }
    return runs


def run_ids(database: Path) -> dict[str, str]:
    """Read MLflow's ids of the runs, by key."""
    with sqlite3.connect(database) as connection:
        ids = [row[0] for row in connection.execute("select run_uuid from runs").fetchall()]
        trials = dict(
            connection.execute(
                "select run_uuid, value from tags where key = 'quorum.trial'"
            ).fetchall()
        )
    return {trials.get(run_id, SWEEP): run_id for run_id in ids}


def comparable(runs: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Leave out the curve, which is a file, and the tags that only a store sets."""
    set_by_store = {
        *("quorum.id", "quorum.run", "quorum.trial", "mlflow.runName", "mlflow.parentRunId"),
        *("mlflow.source.name", "mlflow.source.type"),
    }
    return {
        key: {
            **{k: v for k, v in run.items() if k != "curve"},
            "tags": {k: v for k, v in run["tags"].items() if k not in set_by_store},
        }
        for key, run in runs.items()
    }


def test_mlflow_matches_the_journal_and_a_sync_adds_nothing(
    folder: RunFolder, database: Path
) -> None:
    mirror = MlflowMirror(folder, flush_seconds=0.05)
    write_journal(folder, EVENTS, mirror)
    assert mirror.close(60)
    runs = stored_runs(database)
    assert comparable(runs) == comparable(expected_runs())
    assert len({run["tags"]["quorum.id"] for run in runs.values()}) == 1
    before = count_rows(database)
    for _ in range(2):
        summary = sync(folder)
        assert (summary.runs, summary.created, summary.updated) == (len(runs), 0, 0)
        assert count_rows(database) == before


def test_a_sync_rebuilds_the_view_and_repairs_a_damaged_one(
    folder: RunFolder, database: Path
) -> None:
    write_journal(folder, EVENTS)
    folder.ledger.mkdir()
    shutil.copy(LEDGER, folder.ledger)
    summary = sync(folder)
    assert (summary.created, summary.updated) == (summary.runs, 0)
    whole, counts = stored_runs(database), count_rows(database)
    with sqlite3.connect(database) as connection:
        connection.execute("delete from metrics where step > 2")
        connection.execute("update runs set status = 'RUNNING', end_time = null")
    assert sync(folder).updated == summary.runs
    assert comparable(stored_runs(database)) == comparable(whole)
    assert count_rows(database) == counts


def test_files_and_the_description_of_the_ledger_are_stored(
    folder: RunFolder, database: Path
) -> None:
    write_journal(folder, EVENTS)
    folder.ledger.mkdir()
    shutil.copy(LEDGER, folder.ledger)
    sync(folder, connect=connect_described)
    ids = run_ids(database)
    artifacts = folder.root.parent / "mlartifacts" / "quorum-digits"
    files = {path.name for path in (artifacts / ids["t0000"] / "artifacts").iterdir()}
    assert files == {"curve.csv", "recipe.yaml"}
    assert (artifacts / ids[SWEEP] / "artifacts/ledger.json").read_bytes() == LEDGER.read_bytes()
    note = stored_runs(database)[SWEEP]["tags"]["mlflow.note.content"]
    result = ledger_text(read_ledger(LEDGER))
    assert note.startswith(result.headline)
    assert all(part in result.headline for part in (stage_label("student_int8"), "%", "gates"))
    assert result.tables in note
    assert {"mlflow", "serve", "models:/quorum-digits@champion"} <= set(note.split())


def test_a_store_that_rejects_files_gets_everything_else(
    folder: RunFolder, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_journal(folder, EVENTS)
    (folder.root.parent / "mlartifacts").write_text("in the way")
    assert sync(folder).created == len(expected_runs())
    assert len([r for r in caplog.records if r.name == "search.mlflow.store"]) == 1
    assert {run["status"] for run in stored_runs(database).values()} == {"FINISHED", "FAILED"}
    (folder.root.parent / "mlartifacts").unlink()
    trials = {event.trial for event in of_type(EVENTS, TrialStarted)}
    assert sync(folder).updated == len(trials)
    assert comparable(stored_runs(database)) == comparable(expected_runs())
    assert sync(folder).updated == 0


def test_a_killed_run_is_resumed_into_the_same_mlflow_runs(
    folder: RunFolder, database: Path
) -> None:
    cut = len(EVENTS) // 2
    write_journal(folder, EVENTS[:cut])
    partial = projection_of(EVENTS[: cut - 20])
    store = Store(f"sqlite:///{database}", folder, partial)
    for change in partial.take():
        store.write(change)
    assert stored_runs(database)[SWEEP]["status"] == "RUNNING"
    ids = run_ids(database)
    mirror = MlflowMirror(folder, flush_seconds=0.05)
    events = list(resumed(EVENTS[:cut], EVENTS[cut:], time=EVENTS[cut].time))
    write_journal(folder, events, mirror)
    assert mirror.close(60)
    expected = expected_runs(read_events(folder.journal))
    assert comparable(stored_runs(database)) == comparable(expected)
    assert run_ids(database).items() >= ids.items()


def test_a_locked_database_delays_only_the_mirror(folder: RunFolder, database: Path) -> None:
    mirror = MlflowMirror(folder, flush_seconds=0.05, retry_seconds=(0.05, 0.05))
    write_journal(folder, EVENTS[:40], mirror)
    assert wait_until(lambda: count_rows(database)["runs"] > 1)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("begin exclusive")
        write_journal(folder, EVENTS[40:], mirror)
        assert len(read_events(folder.journal)) == len(EVENTS)
        assert mirror.lagging
        connection.execute("rollback")
    assert wait_until(lambda: not mirror.lagging)
    assert mirror.close(60)
    assert comparable(stored_runs(database)) == comparable(expected_runs())


def test_an_unreachable_server_is_reported_without_its_password(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://someone:secret@127.0.0.1:{port}"
    mirror = MlflowMirror(folder, uri, flush_seconds=0.05)
    write_journal(folder, EVENTS, mirror)
    assert wait_until(lambda: mirror.failures > 0)
    assert not mirror.close(60)
    assert "secret" not in caplog.text
    assert {record.name for record in caplog.records} == {"search.mlflow.mirror"}
    with pytest.raises(RunError, match=r"cannot be written .* sync again"):
        sync(folder, uri)


@pytest.mark.parametrize("name", ["a?b#c%41 r", "p%41 r", "50% of #1", "plain"])
def test_a_folder_of_any_name_holds_the_database_and_leaves_none_beside_it(
    folder: RunFolder, empty_store: Path, name: str
) -> None:
    strange = RunFolder(folder.root.parent / name / "digits-1")
    strange.root.mkdir(parents=True)
    database = Path(shutil.copy(empty_store, strange.root.parent / "mlflow.db"))
    write_journal(strange, EVENTS[:10])
    sync(strange)
    assert len(run_ids(database)) > 1
    assert {path.name for path in folder.root.parent.iterdir()} == {name, folder.root.name}
