"""The window holds every trial that TPE models as a good one; the file holds the whole study."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.trial import FrozenTrial, TrialState

from search.samplers.study_storage import BEST, WINDOW, StudyStorage

DROPOUT: dict[str, BaseDistribution] = {"dropout": FloatDistribution(0.0, 1.0)}
STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)

Fate = tuple[TrialState, int, int]
"""State, rungs reached and score of a trial; few different scores, so that there are ties."""

fates = st.tuples(st.sampled_from(STATES), st.integers(0, 3), st.integers(0, 9))


def study_of(storage: StudyStorage, trials: list[Fate]) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name="s", direction="minimize")
    for number, (state, rungs, score) in enumerate(trials):
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=float(score) if state is TrialState.COMPLETE else None,
                params={"dropout": number / len(trials)},
                distributions=DROPOUT,
                intermediate_values={3**rung: float(score) for rung in range(rungs)},
            )
        )
    return study


def good_ones(study: optuna.Study) -> list[int]:
    """Return the trials that TPE models as good ones."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=states)
    below, _ = _split_trials(study, trials, default_gamma(10**6))
    return [trial.number for trial in below]


def numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def test_as_many_trials_are_kept_as_tpe_ever_models_as_good_ones() -> None:
    assert default_gamma(WINDOW) == default_gamma(10**9) == BEST


@settings(max_examples=50)
@given(st.lists(fates, min_size=40, max_size=120), st.integers(1, 30))
def test_the_window_holds_the_good_the_last_and_the_running_trials(
    trials: list[Fate], window: int
) -> None:
    storage = StudyStorage(None, window=window)
    study = study_of(storage, trials)
    everything = study.get_trials(deepcopy=False)
    ended = [t.number for t in everything if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    running = [t.number for t in everything if t.state is TrialState.RUNNING]
    good = good_ones(study)
    with storage.asking():
        shown = numbers(study.get_trials(deepcopy=False))
        assert good_ones(study) == good
    if len(ended) > window:
        assert shown == sorted({*good, *ended[-window:], *running})
    else:
        assert shown == numbers(everything)
    assert numbers(study.get_trials(deepcopy=False)) == numbers(everything)


def test_a_study_within_the_window_is_drawn_from_as_in_optunas_own_storage() -> None:
    def draws(storage: optuna.storages.BaseStorage | None) -> list[float]:
        study = optuna.create_study(
            storage=storage, direction="minimize", sampler=optuna.samplers.TPESampler(seed=0)
        )
        drawn = []
        for _ in range(30):
            if isinstance(storage, StudyStorage):
                with storage.asking():
                    trial = study.ask()
                    drawn.append(trial.suggest_float("dropout", 0.0, 1.0))
            else:
                trial = study.ask()
                drawn.append(trial.suggest_float("dropout", 0.0, 1.0))
            study.tell(trial, abs(drawn[-1] - 0.3))
        return drawn

    assert draws(StudyStorage(None)) == draws(None)


@pytest.mark.parametrize("window", [30, 1000])
def test_a_suggestion_reads_no_more_trials_than_the_window_holds(window: int) -> None:
    """The cost of a suggestion is counted in trials that are read, not in time."""
    read = []

    class Counting(StudyStorage):
        def get_all_trials(self, *args: object, **options: object) -> list[FrozenTrial]:
            trials = super().get_all_trials(*args, **options)  # type: ignore[arg-type]
            read.append(len(trials))
            return trials

    rng = np.random.default_rng(0)
    trials = [(TrialState.COMPLETE, 1, int(score)) for score in rng.integers(0, 99, 200)]
    storage = Counting(None, window=window)
    study = study_of(storage, trials)
    study.sampler = optuna.samplers.TPESampler(seed=0)
    read.clear()
    with storage.asking():
        study.ask().suggest_float("dropout", 0.0, 1.0)
    assert max(read) <= min(200, window + BEST) + 1


def test_another_process_reads_the_same_study_from_the_file(tmp_path: Path) -> None:
    storage = StudyStorage(tmp_path / "new")
    study = study_of(storage, [(TrialState.PRUNED, 2, 4), (TrialState.RUNNING, 1, 3)])
    storage.move(tmp_path / "journal")
    study.tell(1, 0.5)
    assert list(tmp_path.iterdir()) == [tmp_path / "journal"]
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
    seen = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    assert seen.trials == study.trials
