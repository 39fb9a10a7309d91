# mypy: disable-error-code="override"
"""Tune's callbacks, which it calls by keyword, handed to the recorder."""

from pathlib import Path
from typing import Any

from ray.tune import Callback, Checkpoint
from ray.tune.experiment import Trial
from ray.tune.stopper import Stopper

from search.tune.recorder import Recorder

RETRIES = 1
"""How often a trial that failed is started again."""


class Hooks(Callback):
    """What happens to Tune's trials, told to the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        """The recorder never raises, which would end the whole sweep."""
        self._recorder = recorder
        self._waiting: set[str] = set()
        """Trials that failed and have not been taken up again."""

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        """A worker takes the trial up. Tune counts failures of this process only."""
        name = trial_name(trial)
        self._waiting.discard(name)
        left = RETRIES - self._recorder.history.trials[name].retries
        trial.max_failures = trial.num_failures + max(0, left)

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        """An epoch, or the failure of a training that diverged."""
        self._recorder.reported(trial_name(trial), result)

    def on_checkpoint(self, *, trial: Trial, checkpoint: Checkpoint, **_: Any) -> None:
        """A checkpoint stands in the storage."""
        path = self._recorder.storage.relative(checkpoint)
        self._recorder.saved(trial_name(trial), trial.last_result["step"], path)

    def on_trial_recover(self, *, trial: Trial, **_: Any) -> None:
        """A trial failed and is queued again.

        A node that is lost between two trials of a worker fails the next one twice, by its
        start and by its actor: one more failure before it is taken up again is the echo of
        the first, and must not end it.
        """
        name = trial_name(trial)
        if name in self._waiting:
            return
        self._waiting.add(name)
        self._recorder.retried(name, _error_of(trial))
        trial.max_failures = trial.num_failures + 1

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        """A trial failed for good."""
        self._recorder.failed(trial_name(trial), _error_of(trial))

    def on_trial_complete(self, *, trial: Trial, **_: Any) -> None:
        """A trial was stopped or is done; its last checkpoint stands."""
        self._recorder.completed(trial_name(trial), trial.last_result)


class Deadline(Stopper):
    """Stops everything when the time is over, or once the bookkeeping has failed."""

    def __init__(self, recorder: Recorder) -> None:
        """The recorder knows the time and its own errors."""
        self._recorder = recorder

    def __call__(self, *_: Any) -> bool:
        """No single trial is stopped here."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it for a restore that we never ask for."""
        return {}

    def stop_all(self) -> bool:
        """Whether the time is over."""
        return self._recorder.deadlines.passed or self._recorder.error is not None


def trial_name(trial: Trial) -> str:
    """The name of one of our trials, which is not Tune's."""
    name: str = trial.config["start"]["trial"]
    return name


def _error_of(trial: Trial) -> str:
    """The text of a trial's last failure, as Tune noted it."""
    try:
        text = Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return ""
    return text.rpartition("Failure # ")[2].partition("\n")[2]
