"""What the journal tells of every trial: its whole learning curve, its scores, its end."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Event = Mapping[str, Any]

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
    """How many epochs the trial had trained, cooldown branches included."""
    epoch: int
    """Where it stands in the schedule."""
    phase: str
    """`trunk` or `cooldown`."""
    rung: int | None
    """The budget in epochs that this epoch ends, if any."""
    train_loss: float | None
    """What the training minimized: on augmented images, with smoothed or mixed labels."""
    val_nll: float | None
    val_accuracy: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFacts:
    """One trial: what it was, how it went, how it ended."""

    trial: str
    number: int
    kind: str
    """`search`, or `seed` for another seed of the best configuration."""
    recipe: Mapping[str, Any]
    epochs: tuple[EpochFacts, ...]
    status: str
    """`completed`, `pruned`, `failed`, or `unfinished` where the journal has no end."""
    reason: str
    seconds: float
    whole_schedule: bool
    retries: int
    """Starts because of a failure."""
    params: int | None

    @property
    def scores(self) -> dict[int, float]:
        """NLL on val by rung, in epochs."""
        return {
            epoch.rung: epoch.val_nll
            for epoch in self.epochs
            if epoch.rung is not None and epoch.val_nll is not None
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


def trials_of(
    events: Iterable[Event], params: Callable[[str], int | None]
) -> tuple[TrialFacts, ...]:
    """The trials of a journal, the search's first, by number.

    A trial that was started again repeats epochs; as everywhere, the first report of a step
    counts. `params` gives the parameters of a trial that has ended, where they are known.
    """
    starts: dict[str, Event] = {}
    epochs: dict[str, dict[int, EpochFacts]] = {}
    ends: dict[str, Event] = {}
    retries: dict[str, int] = {}
    for event in events:
        trial = str(event.get("trial"))
        if event["event"] == "trial_started":
            starts.setdefault(trial, event)
        elif event["event"] == "epoch":
            epochs.setdefault(trial, {}).setdefault(int(event["step"]), _epoch(event))
        elif event["event"] == "trial_retried":
            retries[trial] = retries.get(trial, 0) + 1
        elif event["event"] == "trial_ended":
            ends.setdefault(trial, event)
    trials = [
        _trial(
            start,
            epochs.get(name, {}),
            ends.get(name, {}),
            retries=retries.get(name, 0),
            params=params(name) if name in ends else None,
        )
        for name, start in starts.items()
    ]
    return tuple(sorted(trials, key=lambda trial: (trial.kind != "search", trial.number)))


def best_trial(trials: Iterable[TrialFacts]) -> TrialFacts | None:
    """The trial with the lowest val NLL at the highest rung that any of them reached."""
    scored = [trial for trial in trials if trial.rung is not None]
    return min(scored, key=lambda t: (-(t.rung or 0), t.scores[t.rung or 0]), default=None)


def _trial(
    start: Event,
    epochs: Mapping[int, EpochFacts],
    ended: Event,
    *,
    retries: int,
    params: int | None,
) -> TrialFacts:
    return TrialFacts(
        trial=str(start["trial"]),
        number=int(start.get("number", 0)),
        kind=str(start.get("kind", "search")),
        recipe=dict(start.get("recipe") or {}),
        epochs=tuple(epochs[step] for step in sorted(epochs)),
        status=str(ended.get("status", "unfinished")),
        reason=str(ended.get("reason") or ""),
        seconds=float(ended.get("seconds") or sum(epoch.seconds for epoch in epochs.values())),
        whole_schedule=bool(ended.get("whole_schedule", False)),
        retries=retries,
        params=params,
    )


def _epoch(event: Event) -> EpochFacts:
    return EpochFacts(
        step=int(event["step"]),
        epoch=int(event.get("epoch", event["step"])),
        phase=str(event.get("phase", "trunk")),
        rung=event.get("rung"),
        train_loss=_finite(event.get("train_loss")),
        val_nll=_finite(event.get("val_nll")),
        val_accuracy=_finite(event.get("val_accuracy")),
        seconds=float(event.get("seconds") or 0.0),
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
