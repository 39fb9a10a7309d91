"""Train a trial again from its record, and compare what comes out.

On the CPU the same recipe, seed, data and threads give the same weights bitwise, on the
same kind of machine and version of torch; elsewhere the drift is measured.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from common.errors import RunError
from common.files import file_sha256, read_array
from common.provenance import code_version, machine_description
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.nets.tensor_file import bytes_to_tensors
from trainables.records import RunFolder, TrialRecord, TrialStart, read_record, read_start
from trainables.trainer import EpochReport
from trainables.training.loop import Training

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A trial as it was and as it came out again."""

    trial: str
    rung: int
    """The rung up to which it was trained, in epochs."""
    identical: bool
    """All weights are the same, bitwise."""
    largest_difference: float
    """Between any two weights of the scored nets; in weights, or relative where above 1."""
    recorded_nll: float
    """On val, in nats."""
    replayed_nll: float
    log_prob_difference: float
    """Largest difference of a log-probability on holdout, in nats."""
    seconds: float
    """Of training it again."""
    changes: dict[str, tuple[str, str]]
    """What is otherwise than it was: version of the code, parts of the machine; then and now."""


def replay(
    folder: RunFolder,
    trial: str,
    *,
    images: ImageSet,
    splits: Splits,
    on_report: Callable[[EpochReport], None] = lambda _: None,
) -> Replay:
    """Train `trial` again up to the rung of its record.

    Raises:
        RunError: the trial was never scored, its weights are gone, or the images are others.
    """
    here = folder.trial(trial)
    if not (here / "record.json").exists():
        raise RunError(f"{folder.name} has no finished trial {trial!r}; see `quorum status`")
    start, record = read_start(here / "start.json"), read_record(here / "record.json")
    _require_comparable(start, record, here, splits)
    training = Training(
        start.recipe,
        rungs=start.rungs,
        seed=start.seed,
        numerics=start.numerics,
        images=images,
        splits=splits,
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
        identical = file_sha256(again) == file_sha256(here / WEIGHTS)
        difference = _largest_difference(_tensors(here / WEIGHTS), _tensors(again))
    return Replay(
        trial=trial,
        rung=training.plans[training.step - 1].epoch,
        identical=identical,
        largest_difference=difference,
        recorded_nll=record.metrics["val_nll"],
        replayed_nll=nll,
        log_prob_difference=float(np.abs(read_array(here / "holdout.npy") - holdout).max()),
        seconds=seconds,
        changes=_changes({**start.machine, "code": start.code_version}),
    )


def _require_comparable(start: TrialStart, record: TrialRecord, here: Path, splits: Splits) -> None:
    trial = start.trial
    if record.rung is None:
        raise RunError(f"{trial} {record.status} before its first rung: nothing to compare")
    if not (here / WEIGHTS).exists():
        raise RunError(
            f"the weights of {trial} are gone (`quorum clean` removes those of trials that were "
            "stopped early); choose one that was completed"
        )
    if splits.split_id != start.split_id:
        raise RunError(
            f"{trial} was trained on split {start.split_id}, the data now give {splits.split_id}; "
            "bring back the images that it was trained on"
        )


def _tensors(path: Path) -> dict[str, Tensor]:
    return bytes_to_tensors(path.read_bytes(), where=str(path))[0]


def _largest_difference(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Relative for values above 1, such as counters and variances."""
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
