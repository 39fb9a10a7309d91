"""Predict with a run's trained members, pool them, and measure what they cost.

Axes: M members, N examples, K classes.
"""

import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from common.errors import QuorumError
from common.files import read_array
from ensemble.deployment.export import export_onnx
from ensemble.deployment.latency import latency
from ensemble.deployment.onnx_model import Images, LogProbs, OnnxClassifier
from ensemble.ledger.predictions import StageCost
from ensemble.selection.selection import Member
from ensemble.selection.voting import weighted_vote
from trainables.hyperparameters import Architecture
from trainables.prediction import predict_log_probs
from trainables.recipe import Numerics
from trainables.records import RunFolder, read_record, read_start
from trainables.weights import load_trained

Number = TypeVar("Number", int, float)

log = logging.getLogger(__name__)


def pool_members(members: Sequence[Member], log_probs: Mapping[str, LogProbs]) -> LogProbs:
    """Return the log of the members' weighted mean probabilities, float32 [N, K].

    `log_probs` are the members' predictions by name, before any temperature. Members with their own
    temperature are pooled at that temperature.
    """
    stack = np.stack([member.as_pooled(log_probs[member.name]) for member in members])
    return weighted_vote(stack, np.asarray([member.weight for member in members]))


def holdout_log_probs(folder: RunFolder, names: Iterable[str]) -> dict[str, LogProbs]:
    """Read the members' predictions on holdout, as their trials wrote them."""
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
    """Return the members' log-probabilities [N, K] for the images at `indices`, by name.

    Members run one at a time; `on_member` receives the number of members done.
    """
    predictions = {}
    for done, name in enumerate(names, start=1):
        model = load_trained(folder.trial(name))
        predictions[name] = predict_log_probs(model, images, numerics, indices=indices)
        on_member(done)
    return predictions


def member_costs(
    folder: RunFolder,
    names: Iterable[str],
    images: Images,
    *,
    classes: int,
    measure: Callable[[RunFolder, str, Images, int], StageCost] | None = None,
) -> dict[str, StageCost]:
    """Measure each member's size and speed as an fp32 ONNX file, like the student's.

    Members whose networks do the same work share one measurement: weights do not change it. The
    size and speed of a network that has no ONNX form are unknown; it is a member all the same.
    `images`, uint8 [n, S, S, 3], are used for timing only. `measure` replaces the measurement.
    """
    measure = measure or _measure
    measured: dict[Architecture, StageCost | None] = {}
    costs = {}
    for name in names:
        recipe = read_start(folder.trial(name) / "start.json").recipe
        network = recipe.architecture.prediction_work
        if network not in measured:
            measured[network] = _unless_no_onnx(
                partial(measure, folder, name, images, classes), name
            )
        record = read_record(folder.trial(name) / "record.json")
        cost = measured[network] or StageCost(params=record.params)
        costs[name] = replace(cost, train_seconds=record.seconds)
    return costs


def pooled_cost(members: Sequence[Member], costs: Mapping[str, StageCost]) -> StageCost:
    """Return the cost of running all members one after the other: sizes and times add up.

    Where a member's figure is unknown, the sum is.
    """
    each = [costs[member.name] for member in members]
    slowness = _sum([1.0 / cost.images_per_second if cost.images_per_second else None
                     for cost in each])  # fmt: skip
    return StageCost(
        params=_sum([cost.params for cost in each]),
        bytes=_sum([cost.bytes for cost in each]),
        latency_ms_batch1=_sum([cost.latency_ms_batch1 for cost in each]),
        images_per_second=None if slowness is None else 1.0 / slowness,
        train_seconds=_sum([cost.train_seconds for cost in each]),
    )


def _sum(values: Sequence[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if len(known) == len(values) else None


def _unless_no_onnx(measure: Callable[[], StageCost], name: str) -> StageCost | None:
    """Measure a network; log why it cannot be exported, and return None then.

    Raises:
        QuorumError: a file is missing or damaged.
    """
    try:
        return measure()
    except QuorumError:
        raise
    except Exception as error:  # torch's exporter raises errors of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("size and speed of %s are unknown: %s", name, reason)
        return None


def _measure(folder: RunFolder, name: str, images: Images, classes: int) -> StageCost:
    model = load_trained(folder.trial(name))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "member.onnx"
        export_onnx(model, path, image_size=images.shape[1], classes=classes)
        times = latency(OnnxClassifier(path), images)
        size = path.stat().st_size
    return StageCost(
        params=sum(parameter.numel() for parameter in model.parameters()),
        bytes=size,
        latency_ms_batch1=times.ms_batch1,
        images_per_second=times.images_per_second,
    )
