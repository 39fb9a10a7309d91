"""The recorder: its files and their order, and the cost of a failure."""

import errno
import itertools
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune import Checkpoint

from common.errors import RunError
from common.failures import one_line, reason_of
from journal.events import EPOCH_FIELDS, RungDecided, TrialEnded
from journal.journal import read_events
from search.samplers import optuna_sampler
from search.samplers.suggestions import Suggestion
from search.timetable.capacity import Share
from search.timetable.deadlines import Deadlines
from search.tune.adapters import TuneCallback
from search.tune.recorder import GIVE_UP
from search.tune.session import ray_session
from search.tune.storage import Storage
from tests.events import epoch, of_type, trial_started
from tests.faults.disk import path_of
from tests.faults.test_resume import outcome
from tests.simulated_tune import SPEC, Sweep
from trainables.recipe import Recipe
from trainables.records import RunFolder
from trainables.trial import CHECKPOINT_SECONDS, QuorumTrial


def run(root: Path) -> dict[str, Any]:
    Sweep(RunFolder(root)).run()
    return outcome(root)


def test_a_full_disk_is_one_error_and_a_resumed_sweep_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    sync, count, last = os.fsync, 0, 0

    def full(descriptor: int) -> None:
        nonlocal count
        path = path_of(descriptor)
        # A temporary file that becomes one of the run's. The worker writes its own elsewhere,
        # perhaps on another machine, and the sampler writes Optuna's before the first trial.
        ours = (
            path.name.startswith(".") and "worker" not in path.parts and "optuna" not in path.name
        )
        count += ours
        if ours and count == last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync(descriptor)

    for last in range(1, 25, 4):
        monkeypatch.setattr(os, "fsync", full)
        root, count = tmp_path / str(last), 0
        sweep = Sweep(RunFolder(root))
        with pytest.raises(RunError, match=r"No space left .* --resume"):
            sweep.run()
        sweep.journal.close()
        monkeypatch.undo()
        assert run(root) == whole, f"full at write {last}"


def test_after_an_error_later_actions_are_skipped(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    recorder = sweep.recorder

    def fail() -> None:
        raise ValueError("first")

    assert recorder.safely(lambda: 1, 0) == 1
    recorder.safely(fail, None)
    assert recorder.safely(lambda: 1, 0) == 0
    recorder.failed("t0000", "")
    assert sweep.searcher.suggest("any") == "FINISHED"
    assert str(recorder.error) == "first"
    assert [e.event for e in read_events(sweep.folder.journal)] == ["run_started"]


@pytest.mark.parametrize(("alone", "cause"), [(True, "recipe"), (False, "machine")])
@pytest.mark.parametrize("error", ["MemoryError", "ray.exceptions.OutOfMemoryError: killed"])
def test_only_a_trial_that_ran_alone_is_to_blame_for_a_lack_of_memory(
    alone: bool, cause: str, error: str, tmp_path: Path
) -> None:
    """One that used up its retry for another fault has shared the device."""
    sweep = Sweep(RunFolder(tmp_path))
    name = sweep.searcher.suggest("any")["trial"]
    if alone:
        sweep.recorder.wait_alone(name, Share(cores=1.0))
    sweep.recorder.failed(name, error)
    (ended,) = of_type(read_events(sweep.folder.journal), TrialEnded)
    assert (ended.status, ended.cause) == ("failed", cause)


def test_a_sweep_gives_up_if_all_trials_fail_before_their_first_epoch(tmp_path: Path) -> None:
    """Otherwise a sweep limited only by time would continue until its deadline."""
    sweep = Sweep(RunFolder(tmp_path), replace(SPEC, trials=30))
    recorder = sweep.recorder

    def start() -> str:
        name: str = sweep.searcher.suggest("any")["trial"]
        return name

    reason = "OSError: no such file: 'images'"

    def fail(times: int) -> None:
        for _ in range(times):
            recorder.failed(start(), reason)

    fail(GIVE_UP - 1)
    recorder.reported(start(), epoch_result())  # this one trains: the count starts again
    fail(GIVE_UP - 1)
    assert recorder.error is None
    fail(1)
    error = str(recorder.error)
    assert error.split()[0] == str(GIVE_UP)
    assert reason in error
    assert "--resume" in error
    assert sweep.searcher.suggest("any") == "FINISHED"
    sweep.journal.close()
    resumed = Sweep(RunFolder(tmp_path), replace(SPEC, trials=30))
    assert isinstance(resumed.searcher.suggest("any"), dict)


@pytest.mark.parametrize("gone", ["val.npy", "trial.json", "everything"])
def test_a_decided_trial_with_a_bad_checkpoint_is_trained_again(gone: str, tmp_path: Path) -> None:
    """The process dies after a trial's last checkpoint, which is then damaged."""
    whole = run(tmp_path / "whole")
    root = tmp_path / "killed"
    folder = RunFolder(root)
    killed = Sweep(folder, storage=Killing(folder.checkpoints))
    with pytest.raises(KeyboardInterrupt, match="killed"):
        killed.run()
    killed.journal.close()
    last = sorted(root.glob("checkpoints/*/*/checkpoint_*"))[-1]
    if gone == "everything":
        shutil.rmtree(last)
    else:
        (last / gone).write_bytes(b"torn")
    assert run(root) == whole


class Killing(Storage):
    """A storage during whose first copy the process is killed."""

    def results(self, path: str) -> tuple[dict[str, Any], dict[str, bytes]] | None:
        """Die."""
        raise KeyboardInterrupt("killed")


class Slow(QuorumTrial):
    """A trial whose every epoch lasts as long as the time between two checkpoints."""

    clock = staticmethod(partial(next, itertools.count(0.0, CHECKPOINT_SECONDS)))


def test_a_running_trial_keeps_its_last_two_checkpoints(tmp_path: Path) -> None:
    seen = []
    sweep = Sweep(RunFolder(tmp_path), trial=Slow)
    count = lambda _: seen.append(len(list(tmp_path.glob("checkpoints/*/*/*"))))  # noqa: E731
    with sweep.emitter.observed_by(count):
        sweep.run()
    assert max(seen) == 3  # while the third exists and the first has not gone
    assert not list(tmp_path.glob("checkpoints/*"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "\x1b[36mray::QuorumTrial.train()\x1b[39m (pid=1)\n  File x.py\nValueError: no\n",
            "ValueError: no",
        ),
        ("The actor died unexpectedly before finishing.\n\tclass_name: Q", "The actor died unexp"),
        ("", "no reason given"),
        ("x" * 999, "x" * 300),
    ],
)
def test_a_reason_is_one_line(text: str, reason: str) -> None:
    assert reason_of(text).startswith(reason)
    assert len(reason_of(text)) <= 300
    assert one_line(ValueError("a\nb")) == "ValueError: a"


def epoch_result() -> dict[str, Any]:
    """Return a worker's report of an epoch, without a score."""
    return dict.fromkeys(EPOCH_FIELDS) | {"step": 1, "epoch": 1, "seconds": 1.0}


def test_no_trial_starts_that_could_not_finish_in_time(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    suggestion = Suggestion(trial="t0001", number=1, kind="search", recipe=Recipe(), seed=0)
    assert sweep.launcher.fits(suggestion)
    sweep.recorder.deadlines = Deadlines(finish=100.0, stop=100.0, clock=lambda: 0.0)
    launcher = replace(sweep.launcher, rungs=(3, 9))
    assert launcher.fits(suggestion)
    sweep.emitter.emit(trial_started("t0000"))
    sweep.emitter.emit(epoch("t0000", 1, seconds=9.0))  # 10 steps: 9 and a second cooldown
    assert launcher.fits(suggestion)
    sweep.emitter.emit(epoch("t0000", 2, seconds=13.0))
    assert not launcher.fits(suggestion)


NO_TIME = Deadlines(stop=-1.0, clock=lambda: 0.0)


def test_a_trial_without_time_for_its_next_rung_is_paused(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    sweep.recorder.deadlines = NO_TIME
    sweep.run()
    rung = sweep.spec.rungs[0]
    decisions = of_type(sweep.seen, RungDecided)
    assert {(e.rung, e.decision, e.reason) for e in decisions} == {(rung, "pause", "no_time")}
    assert not of_type(sweep.seen, TrialEnded)
    trials = sweep.emitter.state.trials
    assert {trials.status(trial) for trial in trials.values()} == {"pending"}
    assert len(trials) == sweep.spec.trials
    assert len(list(tmp_path.glob("checkpoints/*/*"))) == sweep.spec.trials


def test_a_resumed_sweep_goes_on_with_paused_trials_by_the_scores_of_all(tmp_path: Path) -> None:
    """The promoted ones are those of a sweep without a pause."""
    paused = Sweep(RunFolder(tmp_path))
    paused.recorder.deadlines = NO_TIME
    paused.run()
    resumed = Sweep(RunFolder(tmp_path))
    first = resumed.spec.rungs[0]
    scores = {t.name: t.scores[first].val_nll for t in resumed.emitter.state.trials.values()}
    best = sorted(scores, key=lambda name: scores[name] or 0.0)
    promoted = {e.trial for e in of_type(resumed.seen, RungDecided) if e.decision == "continue"}
    assert promoted == set(best[: len(best) // resumed.spec.reduction_factor])
    resumed.run()
    trials = resumed.emitter.state.trials
    assert {trial.status for trial in trials.values()} == {"completed", "pruned"}
    for name in promoted:
        steps = [e.step for e in trials[name].epochs]
        assert steps == sorted(set(steps)), "no epoch is trained twice"
    assert len(trials) == resumed.spec.trials


def test_a_resumed_sweep_without_time_leaves_its_paused_trials(tmp_path: Path) -> None:
    paused = Sweep(RunFolder(tmp_path))
    paused.recorder.deadlines = NO_TIME
    paused.run()
    again = Sweep(RunFolder(tmp_path), deadlines=NO_TIME)
    again.run()
    assert not of_type(again.seen, RungDecided)
    assert not of_type(again.seen, TrialEnded)
    assert len(list(tmp_path.glob("checkpoints/*/*"))) == again.spec.trials


def test_when_the_search_is_over_paused_trials_end_with_their_results(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    sweep.recorder.deadlines = NO_TIME
    sweep.run()
    last = Sweep(RunFolder(tmp_path), deadlines=NO_TIME)
    last.recorder.retire()
    ends = of_type(last.seen, TrialEnded)
    rung = last.spec.rungs[0]
    assert all(f"no time was left to continue from rung {rung}" in end.reason for end in ends)
    assert {end.status for end in ends} == {"pruned"}
    records = list(last.folder.records())
    assert len(records) == last.spec.trials
    assert all((last.folder.trial(r.trial) / "holdout.npy").exists() for r in records)
    assert not list(tmp_path.glob("checkpoints/*/*"))


def test_a_missing_cluster_is_one_clear_error() -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nPlease …")

    with (
        pytest.raises(RunError, match=r"no Ray cluster at 'auto' \(Could not find .*; start one"),
        ray_session(address="auto", init=init),
    ):
        pass


class Late(QuorumTrial):
    """Its worker's clock advances ten seconds with every epoch."""

    now = staticmethod(lambda: Late.time)
    time = 0.0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        Late.time = 0.0
        return super().reset_config(new_config)

    def step(self) -> dict[str, Any]:
        Late.time += 10.0
        return super().step()


def test_a_late_trial_is_shortened_and_joins_the_pool(tmp_path: Path) -> None:
    """Its trunk ends after 6 of 9 epochs; of the time for 8.4, half an epoch is kept."""
    spec = SPEC.with_values(rungs=(9,), trials=2)
    deadlines = Deadlines(stop=85.0, clock=lambda: 0.0)
    sweep = Sweep(RunFolder(tmp_path), spec, trial=Late, deadlines=deadlines)
    sweep.run()
    trials = sweep.emitter.state.trials
    assert [(t.rung, t.status, t.reason) for t in trials.values()] == [
        (8, "completed", "time for 8 of 9 epochs")
    ] * 2
    records = sweep.folder.records()
    assert [(r.rungs, r.whole_schedule, r.steps) for r in records] == [((8,), True, 8)] * 2
    assert {optuna_sampler.outcome(trial)[0].name for trial in trials.values()} == {"COMPLETE"}
    assert {e.reason for e in of_type(sweep.seen, RungDecided)} <= {"last_rung"}


def test_a_shortened_trial_resumes_as_it_was_shortened(tmp_path: Path) -> None:
    """From a checkpoint after it, and from one before it, in less time than there was."""
    spec = SPEC.with_values(rungs=(9,), trials=1)
    sweep = Sweep(
        RunFolder(tmp_path), spec, trial=Late, deadlines=Deadlines(stop=85.0, clock=lambda: 0.0)
    )
    config = sweep.searcher.suggest("any")
    trial = Late(config)
    saved = []
    for step in range(1, 7):
        result = trial.step()
        assert sweep.recorder.decide("t0000", result)
        assert result["should_checkpoint"] == (step == 5), "when it is shortened"
        saved.append(tmp_path / f"checkpoint{step}")
        saved[-1].mkdir()
        trial.save_checkpoint(str(saved[-1]))
    assert sweep.emitter.state.trials["t0000"].shortened_to == 8
    for place, shortened_to in ((saved[5], None), (saved[5], 8), (saved[3], 8)):
        changes = {"resume_from": [Checkpoint(str(place))], "shortened_to": shortened_to}
        again = Late({**config, **changes, "stop_by": 75.0})
        results = [again.step()]
        while not results[-1]["done"]:
            results.append(again.step())
        assert {r["shortened_to"] for r in results} == {8}
        assert results[-1]["epoch"] == 8


def test_a_failed_trial_is_told_that_its_schedule_was_shortened(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path), SPEC.with_values(rungs=(9,)))
    config = sweep.searcher.suggest("any")
    trial: Any = SimpleNamespace(config=config, num_failures=1, max_failures=0, error_file=None)
    assert config["shortened_to"] is None
    sweep.emitter.emit(epoch(config["trial"], 1, shortened_to=5))
    callback = TuneCallback(sweep.recorder)
    callback.on_trial_start(trial=trial)
    callback.on_trial_recover(trial=trial)
    assert trial.config["shortened_to"] == 5
