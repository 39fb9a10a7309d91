"""Trials that had no time to go on can be members of the ensemble."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import quorum
from common.errors import PoolError
from common.files import write_arrays
from journal.journal import read_state
from search.timetable.deadlines import Deadlines
from tests.simulated_tune import IMAGES, SPEC, SPLITS, Sweep
from trainables.records import RunFolder

TWO_RUNGS = replace(SPEC, rungs=(1, 4))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run whose time was up when the first trial had finished its schedule."""
    folder = RunFolder(tmp_path / "run")
    sweep = Sweep(folder, TWO_RUNGS)
    trials = sweep.emitter.state.trials

    def now() -> float:
        return 2e9 if any(trial.status == "completed" for trial in trials.values()) else 0.0

    sweep.recorder.deadlines = Deadlines(stop=1e9, clock=now)
    sweep.run()
    sweep.journal.close()
    folder.sweep.write_text(TWO_RUNGS.to_yaml())
    write_arrays(folder.labels, {"holdout": IMAGES.labels[SPLITS.holdout].astype(np.int64)})
    return folder


def paused(folder: RunFolder) -> set[str]:
    return {trial.name for trial in read_state(folder.journal).trials.unfinished("search")}


def test_a_selection_has_the_trials_that_were_paused_at_the_rung_before_the_last(
    folder: RunFolder,
) -> None:
    late = paused(folder)
    assert late
    selection = quorum.select(folder, progress=False)
    completed = sum(record.whole_schedule for record in folder.records())
    assert selection.pool_size > completed
    assert not paused(folder)
    assert quorum.select(folder, progress=False) == selection, "the frozen one"


def test_a_request_that_cannot_be_met_leaves_paused_trials_to_a_resume(folder: RunFolder) -> None:
    before = paused(folder)
    with pytest.raises(PoolError, match="seeds"):
        quorum.select(folder, source="seeds", progress=False)
    quorum.select(folder, out=folder.root.parent / "elsewhere", progress=False)
    assert paused(folder) == before
