"""Facts about each trial of a run: its learning curve, scores and end."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from journal.events import EpochEnded
from journal.state import RunState
from journal.trial import Trial

ENDINGS: Mapping[str, str] = {
    "finished": "finished the schedule",
    "pruned": "stopped at a rung",
    "failed": "failed",
    "unfinished": "not ended",
}
"""The possible ends of a trial, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFacts:
    """One trained epoch."""

    step: int
    """Epochs trained so far, cooldown branches included."""
    epoch: int
    """Epoch of the schedule."""
    phase: str
    """`trunk` or `cooldown`."""
    rung: int | None
    """The epoch budget that this epoch completes, if any."""
    train_loss: float | None
    """Training loss, on augmented images with smoothed or mixed labels."""
    val_nll: float | None
    val_accuracy: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts:
    """One trial."""

    trial: str
    number: int
    kind: str
    """`search`, or `seed` for another seed of the best configuration."""
    recipe: Mapping[str, Any]
    epochs: tuple[EpochFacts, ...]
    status: str
    """`completed`, `pruned`, `failed` or `unfinished`."""
    reason: str
    seconds: float
    whole_schedule: bool
    retries: int
    """Restarts after a failure."""
    params: int | None

    @property
    def family(self) -> str:
        """Family of the sweep that its recipe comes from; empty without families."""
        return str(self.recipe.get("family", ""))

    @property
    def scores(self) -> dict[int, float]:
        """NLL on val by rung, in epochs."""
        return {
            epoch.rung: epoch.val_nll
            for epoch in self.epochs
            if epoch.rung is not None and epoch.val_nll is not None
        }

    @property
    def accuracies(self) -> dict[int, float]:
        """Accuracy on val by rung, in epochs."""
        return {
            epoch.rung: epoch.val_accuracy
            for epoch in self.epochs
            if epoch.rung is not None and epoch.val_accuracy is not None
        }

    @property
    def ending(self) -> str:
        """The end of the trial, a key of ENDINGS."""
        if self.whole_schedule:
            return "finished"
        return self.status if self.status in ENDINGS else "pruned"

    @property
    def rung(self) -> int | None:
        """The highest rung it was scored at."""
        return max(self.scores, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTotals:
    """Several trials together."""

    trials: int
    by_ending: Mapping[str, int]
    """Trials by their end, for every key of ENDINGS."""
    epochs: int
    seconds: float
    """Training time."""
    restarted: int
    """Trials that were restarted after a failure."""


def totals_of(trials: Collection[TrialFacts]) -> TrialTotals:
    """Add up the trials, their epochs and their training time."""
    endings = [trial.ending for trial in trials]
    return TrialTotals(
        trials=len(trials),
        by_ending={ending: endings.count(ending) for ending in ENDINGS},
        epochs=sum(len(trial.epochs) for trial in trials),
        seconds=sum(trial.seconds for trial in trials),
        restarted=sum(trial.retries > 0 for trial in trials),
    )


def trials_of(state: RunState, params: Callable[[str], int | None]) -> tuple[TrialFacts, ...]:
    """Return a run's trials: those of the search, then the seeds, each by number.

    `params` gives the number of parameters of an ended trial, if recorded.
    """
    trials = [_trial(trial, params) for trial in state.trials.values()]
    return tuple(sorted(trials, key=lambda trial: (trial.kind != "search", trial.number)))


def best_trial(trials: Iterable[TrialFacts]) -> TrialFacts | None:
    """Return the trial with the lowest val NLL at the highest rung that any of them reached."""
    scored = [trial for trial in trials if trial.rung is not None]
    return min(scored, key=lambda t: (-(t.rung or 0), t.scores[t.rung or 0]), default=None)


def best_by_family(trials: Iterable[TrialFacts]) -> dict[str, TrialFacts]:
    """Return, by family, the trial with the lowest val NLL of those that finished the schedule."""
    finished = [trial for trial in trials if trial.whole_schedule and trial.family]
    families = dict.fromkeys(trial.family for trial in finished)
    best = {name: best_trial(t for t in finished if t.family == name) for name in families}
    return {name: trial for name, trial in best.items() if trial is not None}


def _trial(trial: Trial, params: Callable[[str], int | None]) -> TrialFacts:
    end = trial.end
    return TrialFacts(
        trial=trial.name,
        number=trial.number,
        kind=trial.kind,
        recipe=dict(trial.recipe),
        epochs=tuple(_epoch(epoch) for epoch in trial.epochs),
        status=trial.status or "unfinished",
        reason=trial.reason,
        seconds=trial.seconds if end is None or not end.seconds else end.seconds,
        whole_schedule=end is not None and end.whole_schedule,
        retries=len(trial.retries),
        params=None if end is None else params(trial.name),
    )


def _epoch(event: EpochEnded) -> EpochFacts:
    return EpochFacts(
        step=event.step,
        epoch=event.epoch,
        phase=event.phase,
        rung=event.rung,
        train_loss=event.train_loss,
        val_nll=event.val_nll,
        val_accuracy=event.val_accuracy,
        seconds=event.seconds or 0.0,
    )
