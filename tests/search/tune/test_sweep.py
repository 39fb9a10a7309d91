"""A sweep under Ray, with a trainer that trains nothing."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import optuna
import pytest
from ray.util import placement_group_table

from common.errors import RunError
from common.seeds import derive_seed
from journal.emitter import Emitter, Observer
from journal.events import (
    EpochEnded,
    Event,
    ObserverFailed,
    RungDecided,
    SweepEnded,
    TrialEnded,
    TrialRetried,
    TrialStarted,
)
from journal.journal import Journal, read_events
from search.samplers.fixed import Seeds
from search.tune.cluster import cluster_capacity
from search.tune.placement import Placement
from search.tune.session import ray_session
from search.tune.storage import Storage
from search.tune.sweep import run_fixed
from tests.drive_sweep import spec_of, sweep
from tests.events import of_type
from tests.fake_training import (
    DIES_ONCE,
    DIVERGES,
    NOT_A_NUMBER,
    OUT_OF_MEMORY,
    OUT_OF_MEMORY_ONCE,
    RAISES,
    RAISES_ONCE,
    resources_of,
)
from tests.faults.disk import room_for
from tests.simulated_tune import IMAGES, TRAINER, start_or_resume
from trainables.data.splits import make_splits
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder, read_record, read_start

pytestmark = pytest.mark.slow

E = TypeVar("E")


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUORUM_FAKE_MARKS", str(tmp_path_factory.mktemp("marks")))
        with ray_session(cpus=2, folder=tmp_path_factory.mktemp("cwd")):
            yield


@pytest.fixture(scope="module")
def swept(ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Any, Any]:
    """A sweep of 20 trials, two at a time, then two seeds of a recipe."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "swept")
    spec = spec_of(trials=20, concurrent=2)
    seen: list[Event] = []
    outcome = sweep(folder.root, spec, observers=[seen.append])
    seeds = seeds_of(folder, count=2, observers=[seen.append])
    assert seen == read_events(folder.journal)
    return folder, outcome, seeds


def seeds_of(
    folder: RunFolder, *, count: int, observers: Sequence[Observer] = (), **options: Any
) -> Any:
    spec = spec_of(trials=20, concurrent=2)
    with Journal(folder.journal) as journal:
        emitter = Emitter(journal, observers)
        start_or_resume(emitter, spec)
        return run_fixed(
            spec,
            folder,
            emitter,
            fixed=Seeds(recipe=Recipe(epochs=9), count=count, deadline=None),
            images=IMAGES,
            splits=make_splits(IMAGES, spec.splits),
            numerics=Numerics(),
            trainer=TRAINER,
            **options,
        )


def events_of(folder: RunFolder, kind: type[E], *, prefix: str = "t") -> list[E]:
    events = of_type(read_events(folder.journal), kind)
    return [event for event in events if getattr(event, "trial", "").startswith(prefix)]


def test_every_trial_ends_in_a_record_with_its_predictions(swept: Any) -> None:
    folder, outcome, _ = swept
    records = [record for record in folder.records() if record.kind == "search"]
    assert [record.trial for record in records] == [f"t{i:04d}" for i in range(20)]
    assert outcome.completed == sum(record.whole_schedule for record in records) > 0
    assert outcome.pruned == sum(record.status == "pruned" for record in records) > 0
    assert (outcome.reason, outcome.failed, outcome.unfinished) == ("finished", 0, 0)
    for record in records:
        assert record.rung == record.steps in (1, 3, 9)
        assert record.seconds == pytest.approx(0.25 * record.steps)
        assert record.peak_memory_bytes == 1_000_000 + record.steps
        assert record.params == 1032
        assert set(record.metrics) == {"val_nll", "val_accuracy", "temperature"}
        trial = folder.trial(record.trial)
        for split in ("val", "holdout"):
            logp = np.load(trial / f"{split}.npy")
            assert (logp.dtype, logp.shape) == (np.float32, (20, 2))
            assert np.exp(logp).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        assert set(record.sha256) == {"val.npy", "holdout.npy", "weights.safetensors"}
        start = read_start(trial / "start.json")
        assert start.seed == derive_seed(0, "trial", int(record.trial[1:]))
        assert start.data["fingerprint"] == IMAGES.fingerprint


def test_events_come_in_order(swept: Any) -> None:
    folder, _, _ = swept
    for record in folder.records():
        names = [
            (event.event, getattr(event, "step", getattr(event, "rung", None)))
            for event in read_events(folder.journal)
            if getattr(event, "trial", None) == record.trial
        ]
        expected: list[tuple[str, int | None]] = [("trial_started", None)]
        for step in range(1, record.steps + 1):
            expected.append(("epoch", step))
            if record.kind == "search" and step in (1, 3):
                expected.append(("decision", step))
            if step in ((1, 3, 9) if record.kind == "search" else (9,)):
                expected.append(("checkpoint", step))
        assert names == [*expected, ("trial_ended", record.rung)]
    ends = [(e.kind, e.trials) for e in of_type(read_events(folder.journal), SweepEnded)]
    assert ends == [("search", 20), ("seed", 2)]


def test_decisions_follow_from_earlier_arrivals(swept: Any) -> None:
    folder, _, _ = swept
    for rung, group in itertools.groupby(
        sorted(events_of(folder, RungDecided), key=lambda e: e.rung), key=lambda e: e.rung
    ):
        values: list[float] = []
        for event in group:
            assert event.value is not None
            values.append(event.value)
            cutoff = sorted(values)[max(1, len(values) // 3) - 1]
            assert event.cutoff == cutoff, rung
            assert (event.decision == "continue") == (event.value <= cutoff)


def test_seeds_train_the_whole_schedule_without_decisions(swept: Any) -> None:
    folder, _, seeds = swept
    records = [record for record in folder.records() if record.kind == "seed"]
    assert [(record.trial, record.steps) for record in records] == [("s00", 9), ("s01", 9)]
    assert (seeds.completed, seeds.reason) == (2, "finished")
    starts = [read_start(folder.trial(record.trial) / "start.json") for record in records]
    assert [start.rungs for start in starts] == [(9,), (9,)]
    assert [start.seed for start in starts] == [derive_seed(0, "seed", i) for i in range(2)]
    assert events_of(folder, RungDecided, prefix="s") == []


def test_tune_leaves_no_files(swept: Any) -> None:
    folder, _, _ = swept
    assert list(folder.checkpoints.iterdir()) == []
    stray = [path for path in folder.root.rglob("*") if path.suffix in (".pkl", ".lock")]
    assert stray == [folder.journal.with_suffix(".lock")]


def study_of(folder: RunFolder) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder.optuna))
    return optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))


def test_optuna_holds_the_same_study(swept: Any) -> None:
    folder, outcome, _ = swept
    study = study_of(folder)
    assert study.study_name == f"swept-{make_splits(IMAGES, spec_of().splits).split_id}"
    states = [trial.state.name for trial in study.trials]
    assert states.count("COMPLETE") == outcome.completed
    assert states.count("PRUNED") == outcome.pruned
    records = {record.trial: record for record in folder.records()}
    for trial in study.trials:
        assert trial.value == records[trial.user_attrs["trial"]].metrics["val_nll"]


def test_a_finished_sweep_starts_nothing_and_can_be_extended(swept: Any) -> None:
    folder, outcome, _ = swept
    before = read_events(folder.journal)
    again = sweep(folder.root, spec_of(trials=20, concurrent=2))
    resumed = read_events(folder.journal)
    assert [event.event for event in resumed[len(before) :]] == ["run_resumed"]
    assert (again.completed, again.pruned) == (outcome.completed, outcome.pruned)
    longer = sweep(folder.root, spec_of(trials=20, concurrent=2), trials=22)
    assert longer.completed + longer.pruned == 22
    new = read_events(folder.journal)[len(before) :]
    assert {event.trial for event in of_type(new, TrialStarted)} == {"t0020", "t0021"}


def broken(event: Event) -> None:
    """Fail as an observer."""
    raise OSError(f"no server for {event.event}")


def test_no_failure_of_a_trial_or_an_observer_stops_the_sweep(ray: None, tmp_path: Path) -> None:
    faults = [DIVERGES, RAISES_ONCE, RAISES, DIES_ONCE, NOT_A_NUMBER, 16]
    spec = spec_of(
        trials=8,
        seed=3,  # draws every fault
        concurrent=2,
        startup_trials=8,
        rungs=[3, 9],
        space={"width": {"type": "categorical", "choices": faults}},
    )
    folder = RunFolder(tmp_path / "faulty")
    outcome = sweep(folder.root, spec, observers=[broken])
    failures = of_type(read_events(folder.journal), ObserverFailed)
    assert [event.reason for event in failures] == ["OSError: no server for run_started"]
    records = {r.trial: r for r in folder.records()}
    widths = {s.trial: s.recipe.architecture.width for s in folder.starts()}
    assert set(widths.values()) == set(faults)
    assert outcome.unfinished == 0
    retries = {event.trial: event for event in events_of(folder, TrialRetried)}
    ends = {event.trial: event for event in events_of(folder, TrialEnded)}
    for name, width in widths.items():
        record, end = records[name], ends[name]
        attempts = [e.attempt for e in events_of(folder, TrialStarted) if e.trial == name]
        if width == DIVERGES:
            assert (record.status, record.reason) == ("failed", "the loss is not finite at step 2")
            assert (record.steps, end.traceback, attempts) == (1, None, [1])
        elif width == RAISES:
            assert (record.status, record.reason) == ("failed", "ValueError: a fault on demand")
            assert "fake_training.py" in (end.traceback or "")
            assert attempts == [1, 2]
        elif width == NOT_A_NUMBER:
            reason = "val_nll is not finite at rung 3"
            assert (record.status, record.reason, record.rung) == ("failed", reason, 3)
        else:
            assert record.status in ("completed", "pruned")
            assert attempts == ([1] if width == 16 else [1, 2])
    for name, retry in retries.items():
        assert retry.attempt == 2
        died = widths[name] == DIES_ONCE
        assert ("died" in retry.reason) == died
        assert ("a fault on demand" in retry.reason) == (not died)
    assert {widths[name] for name in retries} == {RAISES_ONCE, RAISES, DIES_ONCE}


def test_a_trial_that_runs_out_of_memory_is_retried_alone_and_then_counts_as_a_poor_one(
    ray: None, tmp_path: Path
) -> None:
    spec = spec_of(
        trials=4,
        startup_trials=8,
        rungs=[3, 9],
        space={"width": {"type": "categorical", "choices": [OUT_OF_MEMORY, 16]}},
    )
    folder = RunFolder(tmp_path / "greedy")
    outcome = sweep(folder.root, spec)
    assert (outcome.unfinished, outcome.completed + outcome.pruned + outcome.failed) == (0, 4)
    greedy = [s for s in folder.starts() if s.recipe.architecture.width == OUT_OF_MEMORY]
    assert 0 < len(greedy) < 4
    (node,) = cluster_capacity().nodes
    for start in greedy:
        first, second = resources_of(start.seed)
        assert first.get("memory", 0) < second["memory"] == pytest.approx(0.9 * node.memory_bytes)
        assert first["CPU"] < second["CPU"] == node.cores
        record = read_record(folder.trial(start.trial) / "record.json")
        assert (record.status, record.cause) == ("failed", "recipe")
        (retry,) = (e for e in events_of(folder, TrialRetried) if e.trial == start.trial)
        (end,) = (e for e in events_of(folder, TrialEnded) if e.trial == start.trial)
        peaks = [retry.peak_memory_bytes or 0, end.peak_memory_bytes or 0]
        assert min(peaks) > 2**21  # the fake trainer's epochs report a megabyte
        assert record.peak_memory_bytes == max(peaks)
    poor = [trial for trial in study_of(folder).trials if trial.state.name == "PRUNED"]
    assert {trial.user_attrs["trial"] for trial in poor} >= {start.trial for start in greedy}


def test_trials_that_wait_to_run_alone_run_one_after_the_other(ray: None, tmp_path: Path) -> None:
    """The idle worker of one that has ended does not keep the node from the next."""
    widths = {"type": "categorical", "choices": [OUT_OF_MEMORY_ONCE, OUT_OF_MEMORY_ONCE + 1]}
    spec = spec_of(trials=6, startup_trials=8, concurrent=2, rungs=[3], space={"width": widths})
    folder = RunFolder(tmp_path / "lone")
    outcome = sweep(folder.root, spec)
    assert (outcome.unfinished, outcome.completed) == (0, 6)
    assert len(events_of(folder, TrialRetried)) >= 2


def test_a_trial_does_not_take_the_place_of_a_worker_that_starts(ray: None, tmp_path: Path) -> None:
    """Otherwise a worker would be started, and ended before it is ready, for every short trial."""
    before = len(placement_group_table())
    outcome = sweep(tmp_path / "short", spec_of(trials=20, concurrent=2, rungs=[1]))
    assert (outcome.completed, outcome.failed) == (20, 0)
    # Two workers, and two with a request for memory, which the first reports make known.
    assert len(placement_group_table()) - before <= 6


class Clock:
    """Returns 0 until two trials have reported, then 2."""

    def __init__(self) -> None:
        self.trials: set[str] = set()

    def observe(self, event: Event) -> None:
        if isinstance(event, EpochEnded):
            self.trials.add(event.trial)

    def __call__(self) -> float:
        return 0.0 if len(self.trials) < 2 else 2.0


def test_at_the_deadline_trials_stop_and_can_be_resumed(ray: None, tmp_path: Path) -> None:
    """The checkpoints are in another folder, as on a cluster."""
    folder, elsewhere = RunFolder(tmp_path / "late"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "of another run").touch()
    spec = spec_of(trials=1000, concurrent=2, milliseconds=100)
    run = partial(
        sweep, folder.root, spec, placement=Placement(storage=Storage(f"file://{elsewhere}/late"))
    )
    clock = Clock()
    outcome = run(deadline=1.0, clock=clock, observers=[clock.observe])
    assert outcome.reason == "time_budget"
    assert of_type(read_events(folder.journal), SweepEnded)[-1].reason == "time_budget"
    assert [record.trial for record in folder.records()] == sorted(
        event.trial for event in events_of(folder, TrialEnded)
    )
    started = {event.trial for event in events_of(folder, TrialStarted)}
    assert outcome.unfinished == len(started) - len(list(folder.records())) > 0
    late = run(deadline=1.0, clock=clock)
    assert (late.reason, late.unfinished) == ("time_budget", outcome.unfinished)
    assert {event.trial for event in events_of(folder, TrialStarted)} == started
    finished = run(trials=len(started))
    assert (finished.reason, finished.failed, finished.unfinished) == ("finished", 0, 0)
    epochs = [(event.trial, event.step) for event in events_of(folder, EpochEnded)]
    assert len(set(epochs)) == len(epochs)
    assert len(list(folder.root.glob("trials/*/val.npy"))) == len(started)
    assert not folder.checkpoints.exists()
    assert (elsewhere / "of another run").exists()
    assert [path for path in elsewhere.rglob("*") if path.name.startswith("checkpoint_")] == []


class Full(Journal):
    """A journal whose disk has no room for a decision."""

    def append(self, event: Event) -> Event:
        """Write any other event."""
        if not isinstance(event, RungDecided):
            return super().append(event)
        with room_for(self.path.stat().st_size):
            return super().append(event)


def test_an_unwritable_journal_ends_the_sweep_with_one_error(ray: None, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "full")
    with pytest.raises(RunError, match=f"cannot be written: .*{os.strerror(errno.EFBIG)}"):
        sweep(folder.root, spec_of(trials=3), journal=Full)
    assert sweep(folder.root, spec_of(trials=3)).unfinished == 0
    assert len(events_of(folder, TrialEnded)) == 3


def test_a_run_of_another_split_is_refused(swept: Any, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(swept[0].root, tmp_path / "split"))
    start = folder.trial("t0000") / "start.json"
    (folder.trial("t0000") / "record.json").unlink()
    lines = folder.journal.read_text().splitlines()
    kept = [line for line in lines if not ("trial_ended" in line and "t0000" in line)]
    folder.journal.write_text("\n".join(kept) + "\n")
    start.write_text(json.dumps({**json.loads(start.read_text()), "split_id": "another"}))
    with pytest.raises(RunError, match="t0000 was started with split another, the data now give"):
        sweep(folder.root, spec_of(trials=20, concurrent=2))


def test_records_can_be_read_back(swept: Any) -> None:
    folder, _, _ = swept
    record = read_record(folder.trial("t0000") / "record.json")
    assert record.split_id == make_splits(IMAGES, spec_of().splits).split_id
