# mypy: disable-error-code="override"
"""Adapters that Ray Tune calls: searcher, scheduler, callback, stopper.

Tune never passes the result that stops a trial to the searcher, and it swallows a searcher's
errors. So our samplers learn from the journal, in the same way live and on resume, and Tune neither
feeds nor saves them.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune import Callback, Checkpoint
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from common.failures import lacked_memory
from search.samplers.suggestions import Fits, Sampler, Suggestion, always
from search.tune.occupancy import ANYWHERE, Occupancy, Place
from search.tune.packing import Packing
from search.tune.recorder import Recorder
from trainables.recipe import Recipe
from trainables.trial import requested

RETRIES = 1
"""Number of retries of a failed trial. Once it has trained a further epoch, the count starts again:
on spot machines a long trial loses many nodes, whereas a recipe that always fails makes no
progress."""


class TuneSearcher(Searcher):
    """Hands a sampler's trials to Tune."""

    def __init__(
        self,
        sampler: Sampler,
        *,
        launch: Callable[[Suggestion, Place], dict[str, Any] | None],
        fits: Fits = always,
        limit: Callable[[int], int] = lambda running: running + 1,
        place: Callable[[Recipe | None], Place | None] = lambda _: ANYWHERE,
    ) -> None:
        """`launch` returns a trial's configuration, or None if nothing more can start.

        Only trials that `fits` allows start. `limit` returns the largest number of concurrent
        trials, given how many have started and not ended; 0 ends the sweep. `place` returns where a
        recipe may start now, or None if nowhere; without a recipe, it answers for the one that
        needs the least.
        """
        super().__init__()
        self._sampler = sampler
        self._launch = launch
        self._fits = fits
        self._limit = limit
        self._place = place
        self._next: Suggestion | None = None
        """A trial that was drawn and waits for a place; others wait behind it, even smaller ones,
        which would otherwise take its place again and again."""
        self.finished = False
        """True once no trial is left, or none may start any more."""
        self._running: set[str] = set()
        """Tune's names of trials that have started and not ended."""

    @property
    def holds_one(self) -> bool:
        """True if a trial was drawn that has not started."""
        return self._next is not None

    @property
    def running(self) -> int:
        """Trials that have started and not ended."""
        return len(self._running)

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's configuration; None to be asked again; or FINISHED."""
        limit = self._limit(self.running)
        if limit > 0 and (self.running >= limit or self._place_for(None) is None):
            return None
        if self._next is not None and not self._fits(self._next):
            # The time that is left may suffice for another trial.
            self._sampler.take_back(self._next)
            self._next = None
        suggestion = (self._next or self._sampler.next(self._fits)) if limit else None
        if suggestion is None:
            return self._finish()
        place = self._place_for(suggestion.recipe)
        if place is None:
            self._next = suggestion
            return None
        self._next = None
        config = self._launch(suggestion, place)
        if config is None:
            return self._finish()
        self._running.add(trial_id)
        return config

    def _place_for(self, recipe: Recipe | None) -> Place | None:
        """Return where a trial may start; if none runs, it may wait for a node in Ray's queue."""
        return self._place(recipe) if self._running else ANYWHERE

    def _finish(self) -> str:
        self.finished = True
        return Searcher.FINISHED

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,  # noqa: ARG002 (Tune's hook)
        error: bool = False,  # noqa: ARG002
    ) -> None:
        """Make room for another trial; its result is in the journal."""
        self._running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a resume starts from the journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a resume starts from the journal."""


class TuneScheduler(FIFOScheduler):
    """Asks at every result whether the trial continues."""

    def __init__(self, decide: Callable[[str, Mapping[str, Any]], bool]) -> None:
        """`decide(trial, result)` returns whether the trial continues; it must not raise."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._decide = decide

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:  # noqa: ARG002
        """Choose none: Tune then starts the pending trials in their order.

        If a chosen trial waited for its own worker to start, Tune would give it the next free
        worker instead, end the starting one, and start another for the next trial. Short trials
        would then all run in one worker, while others are started and ended over and over.
        """
        return None

    def on_trial_result(
        self,
        tune_controller: Any,  # noqa: ARG002 (Tune's hook)
        trial: Trial,
        result: dict[str, Any],
    ) -> str:
        """Decide on every result but a trial's last."""
        continues = self._decide(trial_name(trial), result)
        action: str = TrialScheduler.CONTINUE if continues else TrialScheduler.STOP
        return action


class TuneCallback(Callback):
    """Reports what happens to Tune's trials to the recorder."""

    def __init__(
        self,
        recorder: Recorder,
        packing: Packing | None = None,
        occupancy: Occupancy | None = None,
    ) -> None:
        """The recorder never raises, because an exception would end the whole sweep.

        `packing` gives the resources of a trial that is to run alone; `occupancy` tracks all
        trials.
        """
        self._recorder = recorder
        self._packing = packing
        self._occupancy = occupancy
        self._waiting: set[str] = set()
        """Trials that failed and have not started again."""
        self._lone = 0
        """Number of trials that were told to run alone."""

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        """Allow the trial its remaining retries: Tune counts failures of this process only."""
        name = trial_name(trial)
        self._waiting.discard(name)
        if self._occupancy is not None:
            self._occupancy.started(name, self._recorder.waiting_alone.get(name))
        self._recorder.starts_alone(name)
        self._allow_retries(trial)

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        """Record an epoch, or the failure of a training that diverged."""
        if self._packing is not None:
            self._packing.observe(result)
        if self._occupancy is not None:
            self._occupancy.reported(trial_name(trial), result.get("node_id", ""))
        self._recorder.reported(trial_name(trial), result)
        self._allow_retries(trial)

    def on_checkpoint(self, *, trial: Trial, checkpoint: Checkpoint, **_: Any) -> None:
        """Record a checkpoint that reached the storage."""
        path = self._recorder.storage.name_of(checkpoint.path)
        self._recorder.saved(trial_name(trial), trial.last_result["step"], path)

    def on_trial_recover(self, *, trial: Trial, **_: Any) -> None:
        """Record that a trial failed and is queued again.

        If a node is lost between two trials of a worker, the next trial fails twice: once at its
        start and once with its actor. A second failure before the trial starts again is only an
        echo of the first, and must not end the trial.
        """
        name = trial_name(trial)
        if name in self._waiting:
            return
        self._waiting.add(name)
        # An older checkpoint would not say that the schedule was shortened since then.
        trial.config["shortened_to"] = self._recorder.state.trials[name].shortened_to
        error = _error_of(trial)
        self._recorder.retried(name, error)
        trial.max_failures = trial.num_failures + 1
        if self._packing is not None and lacked_memory(error):
            # Every request for memory is made unique, by a few bytes. With equal requests, Tune
            # keeps an ended trial's idle worker for the next such trial, which never uses that
            # worker but waits for the resources it holds: a deadlock.
            self._lone += 1
            share = self._packing.alone
            share = replace(share, memory_bytes=abs(share.memory_bytes - self._lone))
            self._recorder.wait_alone(name, share)
            trial.update_resources(share.resources)
        elif self._occupancy is not None:
            place = self._occupancy.retried(name)
            trial.update_resources(requested(trial.config["resources"], avoid=place.avoid))

    def _allow_retries(self, trial: Trial) -> None:
        known = self._recorder.state.trials[trial_name(trial)]
        progress = known.retry_step is None or known.step > known.retry_step
        trial.max_failures = trial.num_failures + (RETRIES if progress else 0)

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        """Record that a trial failed for good."""
        self._end(trial)
        self._recorder.failed(trial_name(trial), _error_of(trial))

    def on_trial_complete(self, *, trial: Trial, **_: Any) -> None:
        """Record a trial that was stopped or is done; its last checkpoint is saved."""
        self._end(trial)
        self._recorder.completed(trial_name(trial), trial.last_result)

    def _end(self, trial: Trial) -> None:
        if self._occupancy is not None:
            self._occupancy.ended(trial_name(trial))


class TuneStopper(Stopper):
    """Stops everything when the time is over, or once the recorder has failed."""

    def __init__(self, recorder: Recorder, watch: Callable[[], object] = lambda: None) -> None:
        """`recorder` knows the time and its own errors; `watch` is called at every step."""
        self._recorder = recorder
        self._watch = watch

    def __call__(self, *_: Any) -> bool:
        """Return False: no single trial is stopped here."""
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles it for a restore that we never use."""
        return {}

    def stop_all(self) -> bool:
        """Return whether the time is over or the recorder has failed."""
        self._watch()
        return self._recorder.deadlines.passed or self._recorder.error is not None


def trial_name(trial: Trial) -> str:
    """Return our name of one of Tune's trials."""
    name: str = trial.config["trial"]
    return name


def _error_of(trial: Trial) -> str:
    """Return the text of a trial's last failure, as Tune wrote it down."""
    try:
        text = Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return ""
    return text.rpartition("Failure # ")[2].partition("\n")[2]
