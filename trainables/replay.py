"""Train a trial again from its record and compare the results.

On the CPU, the same recipe, seed, data and number of threads give bitwise the same weights on the
same kind of machine with the same version of torch. On other machines the difference is measured.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from common.commands import command
from common.errors import RunError
from common.files import file_sha256, read_array
from common.provenance import code_version, machine_description
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.initial_weights import require_recorded_weights
from trainables.nets.tensor_file import bytes_to_tensors
from trainables.records import (
    WEIGHTS,
    RunFolder,
    TrialRecord,
    TrialStart,
    read_record,
    read_start,
    trained_recipe,
)
from trainables.trainer import EpochReport
from trainables.training.loop import Training
from trainables.training.optimizer_step import StepPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A comparison of a recorded trial with its replay."""

    trial: str
    rung: int
    """The rung, in epochs, at which both are compared."""
    identical: bool
    """True if all weights are bitwise the same."""
    largest_difference: float | None
    """Largest difference between weights of the scored networks, relative for weights above 1; None
    if the recorded weights were not kept, as those of trials that were stopped early."""
    recorded_nll: float
    """Recorded NLL on val, in nats."""
    replayed_nll: float
    log_prob_difference: float
    """Largest difference of a log-probability on holdout, in nats."""
    seconds: float
    """Duration of the replayed training."""
    changes: dict[str, tuple[str, str]]
    """Changes of code version and machine by name: (recorded value, current value)."""


def replay(
    folder: RunFolder,
    trial: str,
    *,
    images: ImageSet,
    splits: Splits,
    on_report: Callable[[EpochReport], None] = lambda _: None,
) -> Replay:
    """Train `trial` again up to its highest recorded rung and compare the results.

    Raises:
        RunError: the trial was never scored, or the images or initial weights differ.
    """
    trial_folder = folder.trial(trial)
    if not (trial_folder / "record.json").exists():
        status = command("status", folder.root)
        raise RunError(f"{folder.name} has no finished trial {trial!r}; see `{status}`")
    start, record = (
        read_start(trial_folder / "start.json"),
        read_record(trial_folder / "record.json"),
    )
    _require_comparable(start, record, splits)
    rungs = record.rungs or start.rungs
    training = Training(
        trained_recipe(start, record),
        rungs=rungs,
        seed=start.seed,
        numerics=record.numerics or start.numerics,
        images=images,
        splits=splits,
        halvings=[StepPosition(*halving) for halving in record.halvings],
    )
    seconds, nll = 0.0, float("nan")
    for report in training.reports():
        on_report(report)
        seconds, nll = seconds + report.seconds, report.val_nll
        if report.rung == record.rung:
            break
    holdout = training.log_probs(splits.holdout)
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch) / WEIGHTS
        training.save_weights(again)
        identical = file_sha256(again) == record.sha256[WEIGHTS]
        kept = trial_folder / WEIGHTS
        difference = _largest_difference(_tensors(kept), _tensors(again)) if kept.exists() else None
    return Replay(
        trial=trial,
        rung=training.plans[training.step - 1].epoch,
        identical=identical,
        largest_difference=difference,
        recorded_nll=record.metrics["val_nll"],
        replayed_nll=nll,
        log_prob_difference=float(np.abs(read_array(trial_folder / "holdout.npy") - holdout).max()),
        seconds=seconds,
        changes=_changes({**_machine_of(start, record), "code": start.code_version}),
    )


def _machine_of(start: TrialStart, record: TrialRecord) -> dict[str, Any]:
    """Return the machine that trained a trial; on a cluster it is not the one that started it."""
    known = record.machine or start.machine
    return {name: value for name, value in known.items() if name != "gpu"}


def _require_comparable(start: TrialStart, record: TrialRecord, splits: Splits) -> None:
    trial = start.trial
    require_recorded_weights(start.recipe.architecture, start.weights, where=trial)
    if record.rung is None:
        raise RunError(
            f"{trial} {record.status} before its first rung, so there is nothing to compare; "
            "choose a trial that was scored"
        )
    if WEIGHTS not in record.sha256:
        raise RunError(
            f"the record of {trial} has no checksum of its weights, so there is nothing to "
            "compare; choose a trial that completed"
        )
    if splits.split_id != start.split_id:
        raise RunError(
            f"{trial} was trained on split {start.split_id}, but the data now give "
            f"{splits.split_id}: the images have changed, or an earlier version divided them by "
            "another rule; restore the images that it was trained on"
        )


def _tensors(path: Path) -> dict[str, Tensor]:
    return bytes_to_tensors(path.read_bytes(), where=str(path))[0]


def _largest_difference(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Return the largest difference, relative for values above 1, e.g. counters or variances."""
    return max(
        float(((a.double() - b.double()).abs() / a.double().abs().clamp(min=1)).max())
        for a, b in ((before[name], after[name]) for name in before)
        if a.numel()
    )


def _changes(before: dict[str, Any]) -> dict[str, tuple[str, str]]:
    now = {**machine_description(), "code": code_version()}
    return {
        name: (str(value), str(now.get(name)))
        for name, value in before.items()
        if str(now.get(name)) != str(value)
    }
