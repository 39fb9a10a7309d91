"""Everything that the report shows about a run, loaded from its folder.

Axes: M members, N examples, K classes. Log-probabilities are float32 [N, K]. A part that the
run has not reached yet (seeds, selection, student, ledger) is None or empty; a damaged part
is an error.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.facts.data import DataFacts, RunImages, describe_data, find_images
from analysis.facts.importance import Importances
from analysis.facts.trials import TrialFacts, best_by_family, best_trial, trials_of
from analysis.text.ledger import sizes
from common.errors import RunError
from common.files import read_array
from common.formats import count
from common.statistics.metrics import apply_temperature, fit_temperature
from ensemble.deployment.card import Card, read_card
from ensemble.deployment.release import Release, read_release
from ensemble.ledger.ledger import Ledger, read_ledger
from ensemble.selection.selection import Selection, read_selection
from journal.events import Event, PlanMade, RunStarted, StageReported
from journal.journal import read_events
from journal.state import RunState
from search.space.space import Space
from search.space.spec import SweepSpec
from search.space.start_command import portable, start_command
from search.space.sweep_files import spec_of_run
from trainables.data.image_set import ImageSet
from trainables.records import RunFolder, read_record

Array = np.ndarray[Any, Any]

RUNS = "runs"
"""Name of the default folder of all runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """A run, finished or not."""

    name: str
    runs: str = RUNS
    """Folder of all runs, as commands for another machine name it."""
    spec: SweepSpec
    started: RunStarted | None
    """None for a run without a journal."""
    started_at: float
    """Unix seconds."""
    ended_at: float = 0.0
    """Unix seconds of the end of the ledger stage, or of the last event if there is no ledger."""
    command: str = ""
    """The command that started the run; empty if unknown."""
    wall_seconds: float
    """Time from the start to the ledger, or to the last event if there is none, without the pauses
    between processes."""
    resumed: int
    """Number of resumes."""
    trials: tuple[TrialFacts, ...]
    stops: Mapping[str, str]
    """Reason that the search or the seeds ended, by kind of trial."""
    stage_seconds: Mapping[str, float]
    """Wall seconds of each finished stage's last run, without the pauses between processes."""
    plans: tuple[PlanMade, ...] = ()
    """Forecasts in order of time: one for the whole run, then its revisions."""
    selection: Selection | None
    ledger: Ledger | None
    card: Card | None
    """The student's card."""
    plain_card: Card | None
    """The card of the same network trained without a teacher."""
    single_card: Card | None = None
    """The card of the best single trial's files; None in runs of early versions."""
    release: Release | None = None
    """The decision on which file ships; None before it, and in runs of early versions."""
    class_names: tuple[str, ...]
    test_labels: Array | None = None
    """int [N]."""
    test_log_probs: Mapping[str, Array] = field(default_factory=dict)
    """float32 [N, K] by stage, each after its temperature."""
    holdout_labels: Array | None = None
    """int [N]."""
    val_labels: Array | None = None
    """int [N]."""
    member_log_probs: Mapping[str, Array] = field(default_factory=dict)
    """float32 [N, K] on holdout by member, before any temperature."""
    holdout_hits: Mapping[str, int] = field(default_factory=dict)
    """Correct predictions on holdout of each trial that finished the schedule."""
    family_log_probs: Mapping[str, Array] = field(default_factory=dict)
    """float32 [N, K] on holdout of the best finished trial of each family, after a
    temperature fitted on val."""
    data: DataFacts = field(default_factory=DataFacts)
    """Facts about the images."""
    importances: Importances | None = None
    """Importance of the searched values; None with too few trials."""

    @property
    def search_trials(self) -> tuple[TrialFacts, ...]:
        """The trials of the search, in order of their start."""
        return tuple(trial for trial in self.trials if trial.kind == "search")

    @property
    def seed_trials(self) -> tuple[TrialFacts, ...]:
        """Further seeds of the best configuration."""
        return tuple(trial for trial in self.trials if trial.kind == "seed")

    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of each member of the ensemble, by name, heaviest first."""
        members = self.selection.members if self.selection else ()
        return {member.name: member.weight for member in members}

    @property
    def labels(self) -> Mapping[str, Array]:
        """The labels saved in the run's folder, int [N] by split."""
        saved = {"val": self.val_labels, "holdout": self.holdout_labels, "test": self.test_labels}
        return {split: labels for split, labels in saved.items() if labels is not None}

    @property
    def best(self) -> TrialFacts | None:
        """The search trial with the lowest val NLL at the highest rung that any trial reached."""
        return best_trial(self.search_trials)

    @property
    def space(self) -> Space:
        """The search space."""
        return self.spec.search_space()

    @property
    def sizes(self) -> Mapping[str, int]:
        """The number of examples in each split."""
        started = self.started.sizes if self.started else {}
        return dict(started or sizes(self.ledger))


def load_facts(folder: RunFolder) -> RunFacts:
    """Load a run from its folder, whatever stage it has reached.

    Raises:
        RunError: no run is there, or one of its files is damaged.
    """
    spec, runs = spec_of_run(folder), folder.root.resolve().parent
    events = read_events(folder.journal) if folder.journal.is_file() else []
    state = RunState.from_events(events)
    measured = RunState.from_events(_until_ledger(events))
    selection = read_selection(folder.selection) if folder.selection.is_file() else None
    ledger_file = folder.ledger / "ledger.json"
    card = _card(folder.student)
    test_labels, log_probs = read_test_predictions(folder.ledger / "test_logprobs.npz")
    labels = _read_npz(folder.labels)
    trials = trials_of(state, lambda trial: _params(folder, trial))
    return RunFacts(
        name=folder.name,
        runs=RUNS if runs.name == RUNS else portable(str(runs)) or RUNS,
        spec=spec,
        started=state.started,
        started_at=events[0].time if events else 0.0,
        ended_at=measured.last_time if events else 0.0,
        command=start_command(state),
        wall_seconds=measured.elapsed(measured.last_time) if events else 0.0,
        resumed=len(state.resumes),
        trials=trials,
        stops={kind: end.reason for kind, end in state.ends.items()},
        stage_seconds={
            name: stage.last_seconds
            for name, stage in state.stages.items()
            if stage.last_seconds is not None and name != "report"
        },
        plans=tuple(state.plans),
        selection=selection,
        ledger=read_ledger(ledger_file) if ledger_file.is_file() else None,
        card=card,
        plain_card=_card(folder.student / "plain"),
        single_card=_card(folder.student / "single"),
        release=read_release(folder.student),
        class_names=_class_names(card, state.started, log_probs),
        test_labels=test_labels,
        test_log_probs=log_probs,
        holdout_labels=labels.get("holdout"),
        val_labels=labels.get("val"),
        member_log_probs=_member_predictions(folder, selection),
        family_log_probs=_family_predictions(folder, trials, labels.get("val")),
        holdout_hits=_holdout_hits(folder, trials, labels.get("holdout")),
    )


def with_data(facts: RunFacts, images: ImageSet | None) -> tuple[RunFacts, RunImages | None]:
    """Add the facts about the run's images; return both, the images only if available.

    `images`, if given, are used instead of loading the data set of the run's specification.
    """
    run_images, missing = find_images(images, facts.spec, facts.started)
    classes, sheet = len(facts.class_names), facts.spec.pictures
    data = describe_data(run_images, missing, facts.labels, classes, sheet=sheet)
    return replace(facts, data=data), run_images


def read_test_predictions(path: Path) -> tuple[Array | None, dict[str, Array]]:
    """Read labels int [N] and log-probabilities float32 [N, K] by stage; None without a file.

    Raises:
        RunError: the file is damaged, or its arrays do not fit each other.
    """
    arrays = _read_npz(path)
    labels = arrays.pop("labels", None)
    for stage, log_probs in arrays.items():
        if labels is None or log_probs.ndim != 2 or len(log_probs) != len(labels):
            known = count(len(labels)) if labels is not None else "missing"
            raise RunError(
                f"{path}: {stage!r} has shape {log_probs.shape}, which does not fit the {known} "
                "labels; write the ledger again"
            )
    return labels, arrays


def _params(folder: RunFolder, trial: str) -> int | None:
    path = folder.trial(trial) / "record.json"
    return read_record(path).params if path.is_file() else None


def _until_ledger(events: Sequence[Event]) -> list[Event]:
    """Return the events up to the ledger, without the report's: a second report is the same."""
    ends = [i for i, event in enumerate(events) if _is_stage(event, "ledger", "finished")]
    last = ends[-1] + 1 if ends else len(events)
    return [event for event in events[:last] if not _is_stage(event, "report")]


def _is_stage(event: Event, stage: str, status: str | None = None) -> bool:
    if not isinstance(event, StageReported) or event.stage != stage:
        return False
    return status in (None, event.status)


def _card(folder: Path) -> Card | None:
    return read_card(folder) if (folder / "card.json").is_file() else None


def _read_npz(path: Path) -> dict[str, Array]:
    if not path.is_file():
        return {}
    try:
        # NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read as arrays: {error}") from None


def _member_predictions(folder: RunFolder, selection: Selection | None) -> dict[str, Array]:
    """Read the members' predictions on holdout; members without a file are left out."""
    names = [member.name for member in selection.members] if selection else []
    return _predictions(folder, {name: name for name in names})


def _family_predictions(
    folder: RunFolder, trials: Sequence[TrialFacts], val_labels: Array | None
) -> dict[str, Array]:
    """Read and calibrate the predictions on holdout of each family's best trial of the search."""
    if val_labels is None:
        return {}
    best = best_by_family(trial for trial in trials if trial.kind == "search")
    names = {family: trial.trial for family, trial in best.items()}
    holdout, val = (_predictions(folder, names, split=split) for split in ("holdout", "val"))
    return {
        family: apply_temperature(holdout[family], fit_temperature(val[family], val_labels))
        for family in holdout
        if family in val
    }


def _predictions(
    folder: RunFolder, trials: Mapping[str, str], *, split: str = "holdout"
) -> dict[str, Array]:
    """Read the predictions of the trials under the same keys; skip missing files."""
    paths = {name: folder.trial(trial) / f"{split}.npy" for name, trial in trials.items()}
    return {name: read_array(path) for name, path in paths.items() if path.is_file()}


def _holdout_hits(
    folder: RunFolder, trials: Sequence[TrialFacts], labels: Array | None
) -> dict[str, int]:
    """Count the correct predictions on holdout of each finished trial; skip missing files."""
    if labels is None:
        return {}
    names = {trial.trial: trial.trial for trial in trials if trial.whole_schedule}
    return {
        name: int((log_probs.argmax(axis=1) == labels).sum())
        for name, log_probs in _predictions(folder, names).items()
    }


def _class_names(
    card: Card | None, started: RunStarted | None, log_probs: Mapping[str, Array]
) -> tuple[str, ...]:
    """Return the names from the card or the journal, else the class numbers."""
    if card is not None:
        return card.class_names
    if started is not None and started.class_names:
        return started.class_names
    classes = next(iter(log_probs.values())).shape[1] if log_probs else 0
    return tuple(str(i) for i in range(classes))
