"""Tune's hooks: suggestions, decisions, and failures as Tune and as the journal count them."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.samplers.fixed import FixedTrials
from search.samplers.suggestions import Fits, Suggestion, always
from search.tune.adapters import RETRIES, TuneCallback, TuneScheduler, TuneSearcher
from search.tune.occupancy import ANYWHERE
from tests.simulated_tune import Sweep
from trainables.recipe import Recipe
from trainables.records import RunFolder
from trainables.trial import QuorumTrial


def failing(callback: TuneCallback, trial: Any) -> bool:
    """Fail a trial as Tune does; return whether it is queued again."""
    trial.num_failures += 1
    if trial.num_failures > trial.max_failures:
        return False
    callback.on_trial_recover(trial=trial)
    return True


def test_the_echo_of_a_failure_does_not_count_as_a_second_one(tmp_path: Path) -> None:
    """A lost node may fail a waiting trial twice; it still has its retry, and no more."""
    sweep = Sweep(RunFolder(tmp_path))
    callback = TuneCallback(sweep.recorder)
    config = sweep.searcher.suggest("any")
    trial: Any = SimpleNamespace(config=config, num_failures=0, max_failures=0, error_file=None)
    name = config["trial"]

    def retries() -> int:
        return len(sweep.emitter.state.trials[name].retries)

    callback.on_trial_start(trial=trial)
    assert trial.max_failures == RETRIES == 1
    assert failing(callback, trial)
    assert failing(callback, trial)
    assert retries() == 1
    callback.on_trial_start(trial=trial)
    assert not failing(callback, trial)


def test_a_trial_that_makes_progress_survives_any_number_of_lost_nodes(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    callback = TuneCallback(sweep.recorder)
    config = sweep.searcher.suggest("any")
    trial: Any = SimpleNamespace(config=config, num_failures=0, max_failures=0, error_file=None)
    trainable = QuorumTrial(config)
    for _ in range(3):
        callback.on_trial_start(trial=trial)
        callback.on_trial_result(trial=trial, result=trainable.step())
        assert failing(callback, trial)
    callback.on_trial_start(trial=trial)
    assert not failing(callback, trial)  # no epoch since the last loss


def test_a_trial_that_cannot_start_fails(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    callback = TuneCallback(sweep.recorder)
    trial: Any = SimpleNamespace(
        config=sweep.searcher.suggest("any"), num_failures=0, max_failures=1, error_file=None
    )
    assert [failing(callback, trial) for _ in range(3)] == [True, True, False]


def searcher(count: int, **options: Any) -> TuneSearcher:
    suggestions = [
        Suggestion(trial=f"s{i:02d}", number=i, kind="seed", recipe=Recipe(), seed=i)
        for i in range(count)
    ]
    options = {"launch": lambda suggestion, _: {"trial": suggestion.trial}, **options}
    return TuneSearcher(FixedTrials(suggestions), **options)


def test_a_searcher_launches_each_trial_once_and_then_finishes() -> None:
    source = searcher(3)
    assert [source.suggest(str(i))["trial"] for i in range(3)] == ["s00", "s01", "s02"]
    assert [source.suggest("x"), source.suggest("y")] == [Searcher.FINISHED] * 2


def test_no_other_trial_starts_while_there_is_no_place_for_it() -> None:
    waiting = {"now": False}
    source = searcher(3, place=lambda _: None if waiting["now"] else ANYWHERE)
    assert source.suggest("a")["trial"] == "s00"
    waiting["now"] = True
    assert source.suggest("b") is None
    waiting["now"] = False
    assert source.suggest("b")["trial"] == "s01"


def test_a_trial_that_waited_too_long_leaves_its_place_to_one_that_fits() -> None:
    class Two(FixedTrials):
        """Hands out the first trial that fits, whatever the order."""

        def next(self, fits: Fits = always) -> Suggestion | None:
            index = next((i for i, trial in enumerate(self._waiting) if fits(trial)), None)
            return None if index is None else self._waiting.pop(index)

    now = {"place": True, "late": False}
    source = TuneSearcher(
        Two(Suggestion(trial=f"t{i}", number=i, kind="search", recipe=Recipe(), seed=i)
            for i in range(3)),
        launch=lambda suggestion, _: {"trial": suggestion.trial},
        fits=lambda trial: not (now["late"] and trial.trial == "t1"),
        place=lambda _: ANYWHERE if now["place"] else None,
    )  # fmt: skip
    assert source.suggest("a")["trial"] == "t0"
    now["place"] = False
    assert source.suggest("b") is None
    now.update(place=True, late=True)
    assert source.suggest("b")["trial"] == "t2"
    assert source.suggest("c") == Searcher.FINISHED


def test_nothing_starts_late() -> None:
    clock = itertools.count()
    source = searcher(3, fits=lambda _: next(clock) < 2)
    answers = [source.suggest(str(i)) for i in range(4)]
    assert [answer == Searcher.FINISHED for answer in answers] == [False, False, True, True]


def test_a_launch_that_fails_finishes_the_search() -> None:
    assert searcher(1, launch=lambda *_: None).suggest("a") == Searcher.FINISHED


def test_a_searcher_ignores_what_tune_reports(tmp_path: Path) -> None:
    source = searcher(2)
    source.suggest("a")
    source.on_trial_result("a", {"val_nll": math.nan})
    source.on_trial_complete("a", result=None, error=True)
    source.on_trial_complete("unknown", result={"val_nll": math.inf})
    source.save(str(tmp_path / "state"))
    source.restore(str(tmp_path / "state"))
    assert source.suggest("b")["trial"] == "s01"


@pytest.mark.parametrize("continues", [True, False])
def test_tune_follows_the_decision(continues: bool) -> None:
    trial: Any = SimpleNamespace(config={"trial": "t0007"})
    results: list[tuple[str, Any]] = []

    def decide(trial: str, result: Any) -> bool:
        results.append((trial, result))
        return continues

    action = TuneScheduler(decide).on_trial_result(None, trial, {"rung": 3})
    assert action == (TrialScheduler.CONTINUE if continues else TrialScheduler.STOP)
    assert results == [("t0007", {"rung": 3})]


def test_a_searcher_hands_out_as_many_trials_as_may_run_at_a_time() -> None:
    limits = {"now": 2}
    source = searcher(5, limit=lambda _: limits["now"])
    first = [source.suggest(name) for name in "abc"]
    assert [config is None for config in first] == [False, False, True]
    source.on_trial_complete("a", error=True)
    assert source.suggest("d")["trial"] == "s02"
    limits["now"] = 4  # nodes have joined
    assert [source.suggest(name)["trial"] for name in "ef"] == ["s03", "s04"]
    assert source.suggest("g") is None
    limits["now"] = 0
    assert source.suggest("g") == Searcher.FINISHED
