"""What the ledger needs of trained members: predictions of any images, and their cost.

Axes: M members, N examples, K classes.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.files import read_array
from common.statistics.metrics import apply_temperature, fit_temperature
from ensemble.deployment.export import export_onnx
from ensemble.deployment.onnx_model import OnnxClassifier, latency
from ensemble.ledger.rows import StageFacts
from ensemble.selection.voting import weighted_vote
from trainables.recipe import Numerics
from trainables.records import RunFolder, read_record, read_start
from trainables.training.loop import load_trained, predict_log_probs

LogProbs = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]

ARCHITECTURE = ("model", "width", "depth", "block", "activation", "attention", "whitening")
"""Recipe fields that decide a net's size and speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledRow:
    """One row of the ledger that is made of members: who, with what weight."""

    names: tuple[str, ...]
    weights: tuple[float, ...]

    def pool(self, log_probs: Mapping[str, LogProbs]) -> LogProbs:
        """Log of the members' weighted mean probabilities, float32 [N, K]."""
        stack = np.stack([log_probs[name] for name in self.names])
        return weighted_vote(stack, np.asarray(self.weights))


def pooled_rows(selection: Mapping[str, Any]) -> dict[str, PooledRow]:
    """The ledger's rows that selection.json describes, in the ledger's order."""
    single = {"members": [{"name": selection["best_single"]["name"], "weight": 1.0}]}
    rows = {
        "best_single": single,
        "uniform_top_k": selection["uniform_top_k"],
        "seeds_ensemble": selection["seeds_ensemble"],
        "ensemble": selection,
    }
    return {
        stage: PooledRow(
            names=tuple(member["name"] for member in row["members"]),
            weights=tuple(member["weight"] for member in row["members"]),
        )
        for stage, row in rows.items()
        if row is not None
    }


def names_of(rows: Iterable[PooledRow]) -> tuple[str, ...]:
    """Every member of any of the rows, once."""
    return tuple(sorted({name for row in rows for name in row.names}))


def holdout_log_probs(folder: RunFolder, names: Iterable[str]) -> dict[str, LogProbs]:
    """The members' predictions on holdout, as their trials left them."""
    return {name: read_array(folder.trial(name) / "holdout.npy") for name in names}


def predict_members(
    folder: RunFolder,
    names: Sequence[str],
    images: Images,
    indices: npt.NDArray[np.int64],
    numerics: Numerics,
    *,
    on_member: Callable[[int], None],
) -> dict[str, LogProbs]:
    """The members' log-probabilities for the images at `indices`, one member at a time."""
    predictions = {}
    for done, name in enumerate(names, start=1):
        model = load_trained(folder.trial(name))
        predictions[name] = predict_log_probs(model, images, numerics, indices=indices)
        on_member(done)
    return predictions


def calibrated(log_probs: LogProbs, holdout: LogProbs, labels: npt.NDArray[np.int64]) -> LogProbs:
    """`log_probs` at the temperature that suits the same row's predictions on holdout."""
    return apply_temperature(log_probs, fit_temperature(holdout, labels))


def pooled_facts(row: PooledRow, facts: Mapping[str, StageFacts]) -> StageFacts:
    """All members run one after the other: sizes and times add up."""
    members = [facts[name] for name in row.names]
    return StageFacts(
        params=sum(member.params or 0 for member in members),
        bytes=sum(member.bytes or 0 for member in members),
        latency_ms_batch1=sum(member.latency_ms_batch1 or 0.0 for member in members),
        images_per_second=1.0 / sum(1.0 / (member.images_per_second or 1.0) for member in members),
        train_seconds=sum(member.train_seconds or 0.0 for member in members),
    )


def member_facts(
    folder: RunFolder, names: Iterable[str], images: Images, *, classes: int
) -> dict[str, StageFacts]:
    """Size and speed of each member as an fp32 ONNX file, like the student's.

    Members of one architecture share one measurement: their weights do not change it.
    `images`, uint8 [n, S, S, 3], are what is timed; labels play no part.
    """
    measured: dict[tuple[Any, ...], StageFacts] = {}
    facts = {}
    for name in names:
        recipe = read_start(folder.trial(name) / "start.json").recipe
        key = tuple(getattr(recipe.architecture, field) for field in ARCHITECTURE)
        if key not in measured:
            measured[key] = _measure(folder, name, images, classes)
        seconds = read_record(folder.trial(name) / "record.json").seconds
        facts[name] = replace(measured[key], train_seconds=seconds)
    return facts


def _measure(folder: RunFolder, name: str, images: Images, classes: int) -> StageFacts:
    model = load_trained(folder.trial(name))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "member.onnx"
        export_onnx(model, path, image_size=images.shape[1], classes=classes)
        times = latency(OnnxClassifier(path), images)
        size = path.stat().st_size
    return StageFacts(
        params=sum(parameter.numel() for parameter in model.parameters()),
        bytes=size,
        latency_ms_batch1=times.ms_batch1,
        images_per_second=times.images_per_second,
    )
