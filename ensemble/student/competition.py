"""Candidates for the student compete: those within the budgets train, and one is chosen.

`ensemble.student.design` has the rules; here are the trainings, which save every epoch.
"""

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ensemble.deployment.gates import GateMargins, budgets
from ensemble.ledger.predictions import StageCost
from ensemble.selection.teacher_file import WORK
from ensemble.student.design import (
    Candidate,
    Design,
    Entrant,
    affordable,
    read_design,
    short_sweep,
    write_design,
)
from ensemble.student.distillation import StudentResult, StudentTrainer, read_reports
from ensemble.student.epoch_budget import EpochBudget, EpochSeconds
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.rehearsal import rehearse
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_record, read_start, trained_recipe
from trainables.trainer import EpochReport

log = logging.getLogger(__name__)

REHEARSAL_SECONDS = 3.0
"""Longest time for timing each of the two trainings before their epochs are planned."""

REHEARSAL_SHARE = 0.01
"""Largest share of the remaining time that such a measurement may take."""


class CandidateTraining:
    """The training of one candidate with a teacher, in a folder of its own."""

    def __init__(
        self,
        folder: RunFolder,
        candidate: Candidate,
        number: int,
        *,
        train: StudentTrainer,
        data: dict[str, Any],
        lesson: dict[str, Any],
        seed: int,
        deadline: float | None,
    ) -> None:
        """`number` counts the candidates from 0, which names the folder."""
        self.candidate = candidate
        suffix = str(number or "")
        work = folder.student / WORK
        self.folder = work / f"taught{suffix}"
        self.plain_folder = work / "plain"
        start = None if candidate.start is None else folder.trial(candidate.start)
        self._arguments: dict[str, Any] = {
            "folder": self.folder,
            "seed": seed,
            "start": start,
            **lesson,
            **data,
        }
        self._train = train
        left = math.inf if deadline is None else deadline - time.time()
        seconds = min(REHEARSAL_SECONDS, max(0.0, REHEARSAL_SHARE * left))
        timed = partial(rehearse, candidate.recipe, seconds=seconds, **data)
        self.budget = EpochBudget(
            candidate.recipe,
            work / f"plan{suffix}.json",
            deadline=deadline,
            fewest=1 if start is None else 0,
            trial_epochs=0 if start is None else _epochs_of(start),
            rehearse=lambda: EpochSeconds(
                taught=timed(**lesson).train_seconds, plain=timed().train_seconds
            ),
        )

    def train(self, recipe: Recipe, on_report: Callable[[EpochReport], None]) -> StudentResult:
        """Train to the end of the recipe's schedule, from the last epoch saved."""
        return self._train(recipe, on_report=on_report, **self._arguments)

    def until(self, epochs: int, on_report: Callable[[EpochReport], None]) -> float:
        """Train until `epochs` are saved; return the NLL on val then."""

        def watch(report: EpochReport) -> None:
            on_report(report)
            if report.step >= epochs:
                raise _PausedError

        if len(read_reports(self.folder)) < epochs:
            with suppress(_PausedError):
                self.train(self.budget.recipe, watch)
        return read_reports(self.folder)[epochs - 1].val_nll


def _epochs_of(trial: Path) -> int:
    start, record = read_start(trial / "start.json"), read_record(trial / "record.json")
    return trained_recipe(start, record).schedule.epochs


class _PausedError(Exception):
    """Interrupts a training that may be resumed later."""


def competing_candidates(
    place: Path,
    candidates: Sequence[Candidate],
    margins: GateMargins,
    most: int,
    images: ImageSet,
    splits: Splits,
) -> list[Candidate]:
    """Return the candidates within the budgets; they are judged once and kept in `place`."""
    design = read_design(place)
    limits = {name: limit for name, (_, limit) in budgets(StageCost(), margins).items()}
    if design is None or design.budgets != limits:
        affordable_ones, judged = affordable(
            candidates, margins, most=most, images=images, splits=splits
        )
        design = Design(chosen="", because="", budgets=limits, candidates=tuple(judged))
        if read_design(place) is not None:  # trainings of a student with other budgets
            shutil.rmtree(place / WORK)
            (place / WORK).mkdir()
        write_design(place, design)
        return affordable_ones
    kept = {each.name for each in design.candidates if not each.over}
    return [each for each in candidates if each.name in kept]


def choose(
    place: Path, trainings: Mapping[str, CandidateTraining], progress: Callable[[float, str], None]
) -> str:
    """Return the name of the candidate that becomes the student; `place` records the decision."""
    design = read_design(place)
    assert design is not None
    if design.chosen:
        return design.chosen

    def train_until(name: str, epochs: int) -> float:
        def on_report(report: EpochReport) -> None:
            progress(0.0, f"short sweep: {name}, epoch {report.step}/{epochs}")

        return trainings[name].until(epochs, on_report)

    entrants = [
        Entrant(name=name, recipe=each.budget.recipe, train_until=partial(train_until, name))
        for name, each in trainings.items()
    ]
    result = short_sweep(entrants, design.candidates)
    design = replace(result, budgets=design.budgets)
    write_design(place, design)
    log.info("the student is %s: %s", design.chosen, design.because)
    return design.chosen
