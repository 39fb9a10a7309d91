"""Turn suggestions into configurations that workers can run."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.parsing import to_mapping
from common.provenance import code_version, machine_description
from search.samplers.suggestions import Suggestion
from search.space.spec import SweepSpec
from search.tune.occupancy import ANYWHERE, Occupancy, Place
from search.tune.packing import Packing
from search.tune.recorder import Recorder
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.initial_weights import weights_identity
from trainables.recipe import Numerics
from trainables.records import TrialStart, start_to_text
from trainables.trial_data import features_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Launches the trials of one sweep; holds the values that they share."""

    spec: SweepSpec
    images: ImageSet
    splits: Splits
    numerics: Numerics
    rungs: tuple[int, ...]
    recorder: Recorder
    shared: Mapping[str, Any]
    """In every configuration: `images` (see search/tune/data_travel.py), `splits`, `cache`,
    `features`, `trainer` and `measured_on`."""
    packing: Packing
    occupancy: Occupancy
    family_numerics: Mapping[str, Numerics] = field(default_factory=dict)
    """Numerics of the families that have their own."""
    about: Mapping[str, Any] = field(
        default_factory=lambda: {
            "machine": machine_description(),
            "code_version": code_version(),
        }
    )

    def launch(self, suggestion: Suggestion, place: Place = ANYWHERE) -> dict[str, Any] | None:
        """Journal a trial's start and return its configuration; None if that fails."""
        return self.recorder.safely(lambda: self._launch(suggestion, place), None)

    def fits(self, suggestion: Suggestion) -> bool:
        """Return whether there is time and space for a trial.

        A new trial must finish its schedule in time; an interrupted one must reach its next rung.
        """
        if self.recorder.disk_full:
            return False
        state, deadlines = self.recorder.state, self.recorder.deadlines
        known = state.trials.get(suggestion.trial)
        if known is not None and suggestion.checkpoints:
            usable = [c.step for c in known.checkpoints if c.path in suggestion.checkpoints]
            return deadlines.allow_rest(self.rungs, state, known, done=max(usable))
        return deadlines.allow_trial(self.rungs, state, suggestion.recipe, kind=self.recorder.kind)

    def delete_features(self) -> None:
        """Delete the features that workers on this machine kept; other machines do so later."""
        cache = self.shared["cache"]
        folder = features_folder(None if cache is None else Path(cache), self.shared["features"])
        shutil.rmtree(folder, ignore_errors=True)

    def _launch(self, suggestion: Suggestion, place: Place) -> dict[str, Any]:
        known = self.recorder.state.trials.get(suggestion.trial)
        start = self.recorder.started(suggestion, self._start(suggestion))
        storage = self.recorder.storage
        checkpoints = [
            storage.checkpoint(path) for path in suggestion.checkpoints if storage.holds(path)
        ]
        self.occupancy.launched(start.trial, start.recipe, place)
        return {
            **self.shared,
            "resources": self.packing.share_of(start.recipe).resources,
            "avoid": place.avoid,
            "trial": start.trial,
            "start": start_to_text(start),
            "resume_from": checkpoints,
            "stop_by": self.recorder.deadlines.stop,
            "shortened_to": None if known is None else known.shortened_to,
            "dataset": to_mapping(self.spec.dataset),
            "folder": str(Path.cwd()),
        }

    def _start(self, suggestion: Suggestion) -> TrialStart:
        return TrialStart(
            trial=suggestion.trial,
            kind=suggestion.kind,
            recipe=suggestion.recipe,
            seed=suggestion.seed,
            rungs=self.rungs
            if suggestion.kind == "search"
            else (suggestion.recipe.schedule.epochs,),
            data={
                **to_mapping(self.spec.dataset),
                "splits": to_mapping(self.spec.splits),
                "fingerprint": self.images.fingerprint,
                "image_size": self.images.image_size,
            },
            split_id=self.splits.split_id,
            numerics=self.family_numerics.get(suggestion.recipe.architecture.family, self.numerics),
            weights=weights_identity(suggestion.recipe.architecture),
            **self.about,
        )
