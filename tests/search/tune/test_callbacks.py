"""Failures as Tune counts them, and as the journal does."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from search.tune.callbacks import RETRIES, Hooks
from tests.simulated_tune import Sweep
from trainables.records import RunFolder


def failing(hooks: Hooks, trial: Any) -> bool:
    """What Tune does when a trial fails: whether it is queued again."""
    trial.num_failures += 1
    if trial.num_failures > trial.max_failures:
        return False
    hooks.on_trial_recover(trial=trial)
    return True


def test_the_echo_of_a_failure_is_no_second_one(tmp_path: Path) -> None:
    """A lost node may fail a waiting trial twice; it still has its retry, and no more."""
    sweep = Sweep(RunFolder(tmp_path))
    hooks = Hooks(sweep.recorder)
    config = sweep.source.suggest("any")
    trial: Any = SimpleNamespace(config=config, num_failures=0, max_failures=0, error_file=None)
    name = config["start"]["trial"]

    def retries() -> int:
        return sweep.recorder.history.trials[name].retries

    hooks.on_trial_start(trial=trial)
    assert trial.max_failures == RETRIES == 1
    assert failing(hooks, trial)
    assert failing(hooks, trial)
    assert retries() == 1
    hooks.on_trial_start(trial=trial)
    assert not failing(hooks, trial)


def test_a_trial_that_cannot_start_is_given_up(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    hooks = Hooks(sweep.recorder)
    trial: Any = SimpleNamespace(
        config=sweep.source.suggest("any"), num_failures=0, max_failures=1, error_file=None
    )
    assert [failing(hooks, trial) for _ in range(3)] == [True, True, False]
