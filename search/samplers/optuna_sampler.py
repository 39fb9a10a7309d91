"""Where a sweep's trials come from: Optuna, by ask and tell.

First what an earlier process left unfinished is handed out. Tune feeds no searcher of ours
(see `search.samplers.suggestions`): `OptunaSampler.observe` takes the journal's events.

What Optuna is told: the score at every rung as an intermediate value (step = the rung's
budget); a trial through its whole schedule is COMPLETE with the top rung's val_nll, a
trial stopped at a rung is PRUNED, a failed one FAIL. Optuna then ranks complete trials
before pruned ones, and those by step, then value: unequal budgets are never compared as
equal.

The study is a projection of the journal. Its file is written anew on resume, so damage to
it costs nothing. Each suggestion is drawn by a sampler seeded with (root, number): it
depends on the study and the number alone, not on how often the process was restarted.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from common.seeds import derive_seed
from journal.history import History, TrialHistory
from search.samplers.suggestions import FixedTrials, Suggestion
from search.space.space import Parameter, Space
from trainables.recipe import Recipe

STATES = {
    "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    None: TrialState.RUNNING,
}


class OptunaSampler(FixedTrials):
    """Hands out the unfinished trials, then new ones by TPE, up to `trials` in all."""

    def __init__(
        self,
        space: Space,
        base: Recipe,
        history: History,
        *,
        trials: int,
        startup_trials: int,
        seed: int,
        study: str,
        path: Path | None,
        launch: Callable[[Suggestion], dict[str, Any] | None],
        late: Callable[[], bool] = lambda: False,
    ) -> None:
        """`path` is where Optuna's journal is kept; None keeps the study in memory.

        `base` holds the values that are not searched, `seed` is the root of the streams.
        """
        again = [Suggestion.again(trial) for trial in history.unfinished("search")]
        super().__init__(again, launch=launch, late=late)
        self._space = space
        self._base = base
        self._trials = trials
        self._startup = startup_trials
        self._seed = seed
        known = history.of("search")
        self._count = len(known)
        self._study = _project(known, space, name=study, path=path)

    @property
    def study(self) -> optuna.Study:
        """The study as it stands; not to be written to."""
        return self._study

    @property
    def more(self) -> bool:
        """Whether there is a trial left to hand out."""
        return super().more or self._count < self._trials

    def next(self) -> Suggestion | None:
        """An unfinished trial, else a new one; None when the run has its trials."""
        if self._waiting or not self.more:
            return super().next()
        return self._ask()

    def observe(self, event: Mapping[str, Any]) -> None:
        """Tell Optuna what an event says about a trial. Repeated events change nothing."""
        if event["event"] == "epoch" and event["rung"] is not None:
            self._report(event["trial"], event["rung"], event["val_nll"])
        elif event["event"] == "trial_ended" and event["kind"] == "search":
            self._tell(event["trial"], event["status"])

    def _ask(self) -> Suggestion:
        number = self._count
        self._count += 1
        self._study.sampler = tpe_sampler(self._seed, number, startup_trials=self._startup)
        trial = self._study.ask()
        values = self._space.suggest(trial)
        name = f"t{number:04d}"
        trial.set_user_attr("trial", name)
        return Suggestion(
            trial=name,
            number=number,
            kind="search",
            recipe=self._base.with_values(**values),
            seed=derive_seed(self._seed, "trial", number),
        )

    def _report(self, name: str, rung: int, value: float | None) -> None:
        trial = self._running(name)
        if trial is None or rung in trial.intermediate_values:
            return
        if value is not None and math.isfinite(value):
            # Not through optuna.Trial, whose constructor draws the trial's values again.
            self._study._storage.set_trial_intermediate_value(trial._trial_id, rung, value)

    def _tell(self, name: str, status: str) -> None:
        trial = self._running(name)
        if trial is None:
            return
        scores = trial.intermediate_values
        if status == "completed" and self._base.schedule.epochs in scores:
            self._study.tell(trial.number, scores[self._base.schedule.epochs])
        else:
            state = TrialState.FAIL if status == "completed" else STATES[status]
            self._study.tell(trial.number, state=state)

    def _running(self, name: str) -> FrozenTrial | None:
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return next((trial for trial in trials if trial.user_attrs.get("trial") == name), None)


def tpe_sampler(root: int, number: int, *, startup_trials: int) -> optuna.samplers.BaseSampler:
    """The sampler that draws trial `number`: multivariate TPE, one group a condition.

    Trials still running count as poor ones (constant liar), so that several processes do
    not try the same.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            n_startup_trials=startup_trials,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=derive_seed(root, "tpe", number) % 2**32,
        )


def _project(
    trials: Sequence[TrialHistory], space: Space, *, name: str, path: Path | None
) -> optuna.Study:
    """A study that holds these trials, written to a fresh file that then takes its place."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if path is None:
        return _fill(optuna.storages.InMemoryStorage(), name, trials, space)
    fresh = path.with_name(f".{path.name}.new")
    for stale in (fresh, _lock_of(fresh), _lock_of(path)):
        stale.unlink(missing_ok=True)
    _fill(_file_storage(fresh), name, trials, space)
    fresh.replace(path)
    return optuna.load_study(study_name=name, storage=_file_storage(path))


def _fill(
    storage: optuna.storages.BaseStorage, name: str, trials: Sequence[TrialHistory], space: Space
) -> optuna.Study:
    study = optuna.create_study(storage=storage, study_name=name, direction="minimize")
    for trial in trials:
        study.add_trial(_frozen(trial, space))
    return study


def _frozen(trial: TrialHistory, space: Space) -> FrozenTrial:
    params = space.active(trial.recipe)
    scores = {rung: score["val_nll"] for rung, score in trial.scores.items() if "val_nll" in score}
    state = STATES[trial.status]
    value = None
    if state in (TrialState.COMPLETE, TrialState.PRUNED) and scores:
        value = scores[max(scores)]
    elif state is TrialState.COMPLETE:
        state = TrialState.FAIL
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=params,
        distributions={
            parameter.name: _distribution(parameter)
            for parameter in space.parameters
            if parameter.name in params
        },
        intermediate_values=scores,
        user_attrs={"trial": trial.trial},
    )


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.type == "categorical":
        return CategoricalDistribution(parameter.choices)
    if parameter.type == "int":
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, step)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


def _file_storage(path: Path) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def _lock_of(path: Path) -> Path:
    """Optuna's lock, which a killed process leaves behind and others wait 30 s for."""
    return path.with_name(path.name + ".lock")
