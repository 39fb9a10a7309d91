"""A sampler that asks Optuna for new trials and reports scores back to it.

Unfinished trials of an earlier process come first. Optuna learns the score at every rung as
an intermediate value (step = the rung's budget); `outcome` maps an ended trial to its state.
Optuna ranks complete trials before pruned ones, and those by step, then value, so unequal
budgets are never compared as equal.

The study is a view of the run's state. Its file is written anew on resume, so damage to it
costs nothing. Each suggestion is drawn by a sampler seeded with (root, number): it depends on
the study, the number and the families that fit, not on how often the process was restarted. In a
long study it depends on a window of the trials (`study_storage`).
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from common.garbage import collection_paused
from common.seeds import derive_seed
from journal.events import EpochEnded, Event, TrialEnded
from journal.state import RunState
from journal.trial import Trial
from search.samplers.fixed import FixedTrials
from search.samplers.study_storage import WINDOW, StudyStorage
from search.samplers.suggestions import Fits, Suggestion, always
from search.space.parameters import FAMILY, Parameter, Scalar
from search.space.space import Space
from trainables.recipe import Recipe


class OptunaSampler:
    """Hands out the unfinished trials, then new ones by TPE, up to `trials` in all."""

    def __init__(
        self,
        space: Space,
        state: RunState,
        *,
        trials: int,
        startup_trials: int,
        seed: int,
        study: str,
        path: Path | None,
        adjust: Callable[[Recipe], Recipe] = lambda recipe: recipe,
        window: int = WINDOW,
    ) -> None:
        """`path` is the file of Optuna's journal; None keeps the study in memory.

        `seed` is the root of the streams, and the sampler follows `state`, which must be up to
        date when `observe` is called. `adjust` changes values of a drawn recipe that are not
        searched. Suggestions take the last `window` ended trials into account, and the best.
        """
        known = state.trials.of_kind("search")
        self._unfinished = FixedTrials(map(Suggestion.again, state.trials.unfinished("search")))
        self._state = state
        self._space = space
        self._adjust = adjust
        self._trials = trials
        self._startup = startup_trials
        self._seed = seed
        self._count = len(known)
        self._numbers = {trial.name: number for number, trial in enumerate(known)}
        """Numbers of the trials in the study, by name."""
        self._drawn = Counter(str(trial.recipe.get(FAMILY, "")) for trial in known)
        """Trials drawn of each family."""
        self._storage = StudyStorage(None if path is None else _fresh(path), window=window)
        with collection_paused():
            self._study = _fill(self._storage, study, known, space)
        if path is not None:
            self._storage.move(path)

    @property
    def study(self) -> optuna.Study:
        """The present study, for reading only."""
        return self._study

    @property
    def left(self) -> int:
        """Trials that are left to start or resume."""
        return self._unfinished.left + max(0, self._trials - self._count)

    @property
    def more(self) -> bool:
        """True while a trial is left to start or resume."""
        return self.left > 0

    def next(self, fits: Fits = always) -> Suggestion | None:
        """Return an unfinished trial, else a new one; None if none `fits` or all are drawn.

        A new one is of a family that fits: near the end, only cheap families do.
        """
        unfinished = self._unfinished.next(fits)
        if unfinished is not None:
            return unfinished
        if self._count >= self._trials:
            return None
        fitting = [name for name in self._families if fits(self._prospect(name))]
        return self._ask(fitting) if fitting else None

    def take_back(self, suggestion: Suggestion) -> None:
        """Take back the trial that was handed out last and did not start.

        An unfinished one is kept for later. A new one is forgotten, so that the next has its number
        and may be of another family; Optuna does not learn from failed trials.
        """
        if suggestion.attempt > 1:
            self._unfinished.take_back(suggestion)
            return
        assert suggestion.number == self._count - 1
        self._study.tell(self._numbers.pop(suggestion.trial), state=TrialState.FAIL)
        self._drawn[suggestion.recipe.architecture.family] -= 1
        self._count -= 1

    def observe(self, event: Event) -> None:
        """Report a journalled event of a search trial to Optuna."""
        if isinstance(event, EpochEnded) and event.rung is not None:
            self._report(event.trial, event.rung, event.val_nll)
        elif isinstance(event, TrialEnded) and event.kind == "search":
            state, value = outcome(self._state.trials[event.trial])
            number = self._numbers[event.trial]
            if value == math.inf:
                scored = self._storage.get_trial(number).intermediate_values
                self._storage.set_trial_intermediate_value(number, max(scored), value)
            # Optuna takes the value of a pruned trial from its last intermediate value.
            values = value if state is TrialState.COMPLETE else None
            self._study.tell(number, values, state=state)

    @property
    def _families(self) -> list[str]:
        return list(self._space.families) or [""]

    def _prospect(self, family: str) -> Suggestion:
        """Return what is known of the next trial if it is one of this family."""
        return self._suggestion(self._space.families.get(family, self._space.base))

    def _ask(self, fitting: Sequence[str]) -> Suggestion:
        """Draw a trial of one of the families `fitting`, at first one of each, in their order."""
        number = self._count
        self._study.sampler = tpe_sampler(self._seed, number, startup_trials=self._startup)
        fixed = self._fixed_values(fitting)
        if fixed:
            self._study.enqueue_trial(fixed)
        with self._storage.asking():
            trial = self._study.ask()
            values = self._space.suggest(trial)
        suggestion = self._suggestion(self._adjust(self._space.recipe(values)))
        self._drawn[suggestion.recipe.architecture.family] += 1
        trial.set_user_attr("trial", suggestion.trial)
        self._numbers[suggestion.trial] = trial.number
        self._count += 1
        return suggestion

    def _fixed_values(self, fitting: Sequence[str]) -> dict[str, Scalar]:
        """Return the values that the next trial does not draw, by label.

        A family's first trial has the values that the sweep recommends. If some families no longer
        fit, the family is drawn evenly from the others.
        """
        new = next((name for name in fitting if not self._drawn[name]), None)
        if new is not None:
            return self._space.first_values(new)
        if len(fitting) == len(self._families):
            return {}
        chosen = fitting[derive_seed(self._seed, "family", self._count) % len(fitting)]
        return {p.label: chosen for p in self._space.parameters if p.name == FAMILY}

    def _suggestion(self, recipe: Recipe) -> Suggestion:
        return Suggestion(
            trial=f"t{self._count:04d}",
            number=self._count,
            kind="search",
            recipe=recipe,
            seed=derive_seed(self._seed, "trial", self._count),
        )

    def _report(self, name: str, rung: int, value: float | None) -> None:
        if value is not None and self._state.trials[name].kind == "search":
            # optuna.Trial would do it too, but its constructor draws the values again.
            self._storage.set_trial_intermediate_value(self._numbers[name], rung, value)


def outcome(trial: Trial) -> tuple[TrialState, float | None]:
    """Return a trial's state and value for Optuna, live and when the study is rebuilt.

    A trial that completed its schedule is COMPLETE with its last rung's val_nll. A trial stopped at
    a rung is PRUNED with the val_nll there. A trial that failed because of its recipe is PRUNED
    too, as the worst at its last rung, or the worst of all if it has no score: TPE ignores FAIL,
    and would draw such recipes again and again (benchmarks/diverging.py). FAIL is left for failures
    of machines.
    """
    scores = _values(trial)
    if trial.end is None:
        return TrialState.RUNNING, None
    if trial.status == "pruned":
        return TrialState.PRUNED, scores[max(scores)] if scores else None
    value = scores.get(trial.shortened_to or int(trial.recipe["epochs"]))
    if trial.status == "completed" and value is not None:
        return TrialState.COMPLETE, value
    if trial.status == "completed" or trial.end.cause == "recipe":
        return TrialState.PRUNED, math.inf if scores else None
    return TrialState.FAIL, None


def _values(trial: Trial) -> dict[int, float]:
    """Return the finite val_nll at each rung."""
    return {
        rung: score.val_nll for rung, score in trial.scores.items() if score.val_nll is not None
    }


def tpe_sampler(root: int, number: int, *, startup_trials: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that draws trial `number`: multivariate TPE, grouped by condition.

    Trials still running count as poor ones (constant liar), so that parallel trials differ.
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


def _fresh(path: Path) -> Path:
    """Return the new file that will replace `path`; delete a stale new file and stale locks.

    Optuna's lock file stays behind when a process is killed, and readers wait 30 s for it.
    """
    fresh = path.with_name(f".{path.name}.new")
    for stale in (fresh, _lock_of(fresh), _lock_of(path)):
        stale.unlink(missing_ok=True)
    return fresh


def _fill(
    storage: optuna.storages.BaseStorage, name: str, trials: Sequence[Trial], space: Space
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=storage, study_name=name, direction="minimize")
    for trial in trials:
        study.add_trial(_frozen(trial, space))
    return study


def _frozen(trial: Trial, space: Space) -> FrozenTrial:
    params, values = space.active(trial.recipe), _values(trial)
    state, value = outcome(trial)
    if value == math.inf:
        values[max(values)] = value
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=params,
        distributions={
            parameter.label: _distribution(parameter)
            for parameter in space.parameters
            if parameter.label in params
        },
        intermediate_values=values,
        user_attrs={"trial": trial.name},
    )


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.type == "categorical":
        return CategoricalDistribution(parameter.choices)
    if parameter.type == "int":
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), parameter.log, step)
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")
