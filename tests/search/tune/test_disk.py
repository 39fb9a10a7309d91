"""A run's folder keeps to its disk budget, and loses nothing that the ensemble needs."""

import logging
from pathlib import Path

import pytest

from common.errors import RunError
from common.files import write_arrays
from ensemble.selection.run_pool import pool_from_run
from journal.trial import Trial
from search.tune.disk import CANDIDATES_PER_MEMBER, DiskBudget, folder_bytes
from tests.events import epoch, state_of, trial_ended, trial_started
from tests.simulated_tune import IMAGES, SPEC, SPLITS, Sweep
from trainables.records import WEIGHTS, RunFolder

SIZE = 1000


def completed(folder: RunFolder, count: int) -> list[Trial]:
    """Return trials that completed, best first, each with weights of SIZE bytes."""
    names = [f"t{number:04d}" for number in range(count)]
    events = [
        event
        for number, name in enumerate(names)
        for event in (
            trial_started(name),
            epoch(name, 1, rung=9, val_nll=0.1 + number),
            trial_ended(name),
        )
    ]
    for name in names:
        folder.trial(name).mkdir(parents=True)
        (folder.trial(name) / WEIGHTS).write_bytes(b"x" * SIZE)
    return state_of(*events).trials.ranked()


def with_weights(folder: RunFolder) -> list[str]:
    return sorted(path.parent.name for path in folder.root.glob(f"trials/*/{WEIGHTS}"))


@pytest.mark.parametrize(("limit", "left"), [(10.0, 10), (7.5, 7), (4.0, 4), (0.5, 4)])
def test_the_weights_of_the_worst_go_first_and_candidates_stay(
    limit: float, left: int, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    ranked = completed(folder, 10)
    disk = DiskBudget(folder, limit=limit * SIZE, members=1)
    disk.resume(ranked)
    disk.make_room()
    assert CANDIDATES_PER_MEMBER == 4
    assert with_weights(folder) == [f"t{number:04d}" for number in range(left)]
    assert disk.full is (left * SIZE > limit * SIZE)
    assert disk.used == folder_bytes(folder.root) == left * SIZE
    disk.make_room()
    assert len(with_weights(folder)) == left


def test_a_full_budget_ends_the_sweep_cleanly_and_more_space_continues_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Sweep(RunFolder(tmp_path / "whole"))
    whole.run()
    folder = RunFolder(tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        limited = Sweep(folder, disk=folder_bytes(whole.folder.root) / 3)
        limited.run()
        started = len(limited.emitter.state.trials)
    assert 0 < started < SPEC.trial_count
    assert limited.recorder.disk_full
    assert limited.sampler.more
    assert caplog.text.count("(--disk): no more trials start") == 1
    again = Sweep(folder)
    again.run()
    statuses = {t.name: t.status for t in again.emitter.state.trials.values()}
    assert statuses == {t.name: t.status for t in whole.emitter.state.trials.values()}


def test_trials_that_may_be_selected_keep_their_weights(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    sweep.run()
    records = {record.trial: record for record in sweep.folder.records()}
    assert {"completed", "pruned"} <= {record.status for record in records.values()}
    before_last = sweep.recorder.rungs[-2]
    late = [
        name
        for name, record in records.items()
        if record.status in ("completed", "pruned") and (record.rung or 0) >= before_last
    ]
    assert 0 < len(late) < len(records)
    assert with_weights(sweep.folder) == late
    assert all(len(record.sha256[WEIGHTS]) == 64 for record in records.values())


def test_a_trial_without_weights_is_not_selected(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    sweep.run()
    labels = {split: IMAGES.labels[getattr(SPLITS, split)] for split in ("val", "holdout")}
    write_arrays(sweep.folder.labels, labels)
    names = pool_from_run(sweep.folder).names
    (sweep.folder.trial(names[0]) / WEIGHTS).unlink()
    pool = pool_from_run(sweep.folder)
    assert pool.names == names[1:]
    assert [(s.name, s.reason) for s in pool.skipped] == [
        (names[0], "its weights have been removed")
    ]


def test_a_workers_full_disk_stops_the_sweep_and_ends_no_trial(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    sweep.emitter.emit(trial_started("t0000"))
    sweep.recorder.retried("t0000", "OSError: [Errno 28] No space left on device: '/tmp/x'")
    assert isinstance(sweep.recorder.error, RunError)
    assert "free space on its disk, then continue with --resume" in str(sweep.recorder.error)
    assert sweep.emitter.state.trials["t0000"].end is None
