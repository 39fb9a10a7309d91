"""The bookkeeping: what is written, in which order, and what a failure of it costs."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import files
from common.cpu_runtime import usable_cores
from common.errors import RunError
from common.failures import one_line, reason_of
from journal.history import History
from journal.journal import read_events
from journal.states import EPOCH_FIELDS
from search.timetable.capacity import Capacity
from search.timetable.deadlines import Deadlines
from search.tune import session
from search.tune.recorder import GIVE_UP
from search.tune.session import capacity_at
from search.tune.storage import Storage
from tests.faults.test_resume import outcome
from tests.simulated_tune import SPEC, Sweep
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder


def run(root: Path) -> dict[str, Any]:
    Sweep(RunFolder(root)).run()
    return outcome(root)


def test_a_full_disk_is_one_error_and_a_resumed_sweep_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    real, count, last = files.write_bytes_atomically, 0, 0

    def full(path: Path, data: bytes) -> None:
        nonlocal count
        # The worker's own files are written elsewhere, on another machine perhaps.
        count += "worker" not in path.parts
        if count == last:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, data)

    for last in range(1, 30, 4):
        for module in ("common.files", "search.tune.storage"):
            monkeypatch.setattr(f"{module}.write_bytes_atomically", full)
        root, count = tmp_path / str(last), 0
        sweep = Sweep(RunFolder(root))
        with pytest.raises(RunError, match=r"No space left .* is whole: mend it, .* --resume"):
            sweep.run()
        sweep.journal.close()
        monkeypatch.undo()
        assert run(root) == whole, f"full at write {last}"


def test_after_an_error_nothing_more_is_done(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    recorder = sweep.recorder

    def fail() -> None:
        raise ValueError("first")

    assert recorder.safely(lambda: 1, 0) == 1
    recorder.safely(fail, None)
    assert recorder.safely(lambda: 1, 0) == 0
    recorder.failed("t0000", "")
    assert sweep.source.suggest("any") == "FINISHED"
    assert str(recorder.error) == "first"
    assert read_events(sweep.folder.journal) == []


def test_a_sweep_whose_trials_all_fail_at_once_gives_up(tmp_path: Path) -> None:
    """With a time budget and no number of trials it would go on until its deadline."""
    sweep = Sweep(RunFolder(tmp_path), replace(SPEC, trials=30))
    recorder = sweep.recorder

    def fail(times: int) -> str:
        for _ in range(times):
            name: str = sweep.source.suggest("any")["start"]["trial"]
            recorder.failed(name, "OSError: no such file: 'images'")
        return name

    recorder.reported(fail(GIVE_UP - 1), epoch_result())
    fail(GIVE_UP - 1)
    assert recorder.error is None
    fail(1)
    assert str(recorder.error) == (
        "5 trials in a row failed before their first epoch, the last by this: "
        "OSError: no such file: 'images'; mend its cause and go on with --resume"
    )
    assert sweep.source.suggest("any") == "FINISHED"
    sweep.journal.close()
    resumed = Sweep(RunFolder(tmp_path), replace(SPEC, trials=30))
    assert isinstance(resumed.source.suggest("any"), dict)


@pytest.mark.parametrize("gone", ["val.npy", "trial.json", "everything"])
def test_a_decided_trial_with_a_bad_checkpoint_is_trained_again(
    gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between a trial's last checkpoint and its end; then the checkpoint is spoilt."""
    whole = run(tmp_path / "whole")
    root = tmp_path / "killed"
    killed = Sweep(RunFolder(root))
    monkeypatch.setattr(Storage, "hand_over", _killed)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        killed.run()
    killed.journal.close()
    monkeypatch.undo()
    last = sorted(root.glob("checkpoints/*/*/checkpoint_*"))[-1]
    if gone == "everything":
        shutil.rmtree(last)
    else:
        (last / gone).write_bytes(b"torn")
    assert run(root) == whole


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt("killed")


def test_a_running_trial_keeps_its_last_two_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.trial.CHECKPOINT_SECONDS", -1.0)
    seen = []
    sweep = Sweep(RunFolder(tmp_path))
    sweep.recorder.observe(lambda _: seen.append(len(list(tmp_path.glob("checkpoints/*/*/*")))))
    sweep.run()
    assert max(seen) == 3  # at the moment when the third stands and the first is to go
    assert not list(tmp_path.glob("checkpoints/*"))


def test_pruning_spares_what_is_kept(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    for path in ("s-1/t0/c0", "s-1/t0/c1", "s-1/t1/c0", "s-2/t2/c0", "s-3/state.json"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "s-1" / "file").touch()
    storage.prune({"s-1/t0", "s-9/t9"})
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*/*")}
    assert left == {"s-1/t0/c0", "s-1/t0/c1"}
    assert [path.name for path in tmp_path.iterdir()] == ["s-1"]
    Storage(tmp_path / "nowhere").prune(set())
    assert not storage.holds("s-2")
    assert storage.holds("s-1/t0")


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


def epoch(trial: str, seconds: float) -> dict[str, Any]:
    return {
        "event": "epoch", "trial": trial, "step": 1, "rung": None, "seconds": seconds,
        "peak_memory_bytes": None,
    }  # fmt: skip


def epoch_result() -> dict[str, Any]:
    """A worker's report of an epoch, without a score."""
    return dict.fromkeys(EPOCH_FIELDS) | {"step": 1, "epoch": 1, "seconds": 1.0}


def start(trial: str, recipe: Recipe) -> dict[str, Any]:
    return {
        "event": "trial_started", "trial": trial, "number": int(trial[1:]), "kind": "search",
        "recipe": recipe.to_mapping(), "seed": 1, "attempt": 1,
    }  # fmt: skip


def test_the_pace_is_that_of_the_recipe_where_it_has_been_trained() -> None:
    small, large = Recipe(width=8), Recipe(width=64)
    assert History().pace() is None
    events = [start("t0", small), start("t1", small), start("t2", large)]
    events += [epoch("t0", 1.0), epoch("t1", 3.0), epoch("t1", 99.0), epoch("t2", 10.0)]
    history = History(events)
    assert history.pace() == 3.0
    assert history.pace(large.to_mapping()) == 10.0
    assert history.pace(small.to_mapping()) == 2.0
    assert history.pace(Recipe(width=9).to_mapping()) == 3.0


def test_a_trial_is_late_if_its_last_score_would_be(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    assert not sweep.launcher.late()
    sweep.recorder.deadlines = Deadlines(finish=100.0, stop=100.0, clock=lambda: 0.0)
    launcher = replace(sweep.launcher, rungs=(3, 9))
    assert not launcher.late()
    sweep.recorder.history.apply(start("t0", Recipe()))
    sweep.recorder.history.apply(epoch("t0", 9.0))  # 10 steps: 9 and a cooldown's second one
    assert not launcher.late()
    sweep.recorder.history.apply({**epoch("t0", 13.0), "step": 2})
    assert launcher.late()


def test_a_trial_without_time_for_its_next_rung_is_ended_at_this_one(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    sweep.recorder.deadlines = Deadlines(stop=-1.0, clock=lambda: 0.0)
    sweep.run()
    rung = sweep.spec.rungs[0]
    decisions = [event for event in sweep.seen if event["event"] == "decision"]
    assert {(event["rung"], event["decision"]) for event in decisions} == {(rung, "stop")}
    ends = [event for event in sweep.seen if event["event"] == "trial_ended"]
    assert {event["reason"] for event in ends} == {f"no time was left to go on from rung {rung}"}
    assert {event["status"] for event in ends} == {"pruned"}
    assert len(ends) == sweep.spec.trials


def test_a_plan_counts_the_clusters_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = []

    @contextmanager
    def joining(*, address: str | None) -> Iterator[None]:
        joined.append(address)
        yield

    monkeypatch.setattr(session, "ray_session", joining)
    monkeypatch.setattr("search.tune.session.ray.cluster_resources", lambda: {"CPU": 64.0})
    assert capacity_at(None, Numerics()) == Capacity(cores=usable_cores())
    assert not joined
    assert capacity_at("auto", Numerics()) == Capacity(cores=64)
    assert joined == ["auto"]


def test_a_missing_cluster_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nPlease …")

    monkeypatch.setattr("search.tune.session.ray.init", init)
    with (
        pytest.raises(RunError, match=r"no Ray cluster at 'auto' \(Could not find .*; start one"),
        session.ray_session(address="auto"),
    ):
        pass
