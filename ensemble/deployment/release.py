"""Turn a trained student into files that can ship, and decide which of them does.

Axes: N examples, K classes. `student/` holds model.onnx, model.int8.onnx and card.json;
`student/plain/` the same net trained as long without a teacher, for comparison.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.files import file_sha256
from common.provenance import code_version, machine_description
from ensemble.deployment.card import Artifact, Card, Teacher, read_card, write_card
from ensemble.deployment.export import export_onnx
from ensemble.deployment.gates import GateMargins, gates, released
from ensemble.deployment.onnx_model import (
    Images,
    OnnxClassifier,
    latency,
    paired_latency,
    predict,
)
from ensemble.deployment.quantize import parity, quantize_int8, refit_temperature
from ensemble.ledger.evaluation import LogProbs
from ensemble.ledger.rows import Predictions, StageFacts
from ensemble.student.student import StudentResult
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.prediction import evenly_spaced
from trainables.recipe import Recipe
from trainables.training.losses import Distillation

CALIBRATION_IMAGES = 512
"""Training images whose activations set the int8 ranges."""

TIMED_IMAGES = 256

PARITY_IMAGES = 1000
"""Most images over which the two files are compared; what the loss costs is gated on all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a student was taught, for its card."""

    recipe: Recipe
    seed: int
    distillation: Distillation | None = None
    teacher: tuple[Teacher, ...] = ()
    teacher_temperature: float | None = None


def export_student(
    result: StudentResult,
    lesson: Lesson,
    folder: Path,
    *,
    images: ImageSet,
    splits: Splits,
    int8: bool,
) -> Card:
    """Write the student's ONNX files and its card; nothing is released yet.

    Each file carries a temperature of its own, fitted on holdout; int8 ranges come from
    training images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holdout, labels = images.images[splits.holdout], images.labels[splits.holdout]
    fp32 = folder / "model.onnx"
    export_onnx(result.model, fp32, image_size=images.image_size, classes=len(images.class_names))
    taught = lesson.distillation
    card = Card(
        class_names=images.class_names,
        image_size=images.image_size,
        dataset={"name": images.name, "fingerprint": images.fingerprint},
        split_id=splits.split_id,
        code_version=code_version(),
        recipe=lesson.recipe.to_mapping(),
        seed=lesson.seed,
        params=result.params,
        steps=result.steps,
        train_seconds=result.seconds,
        alpha=taught.alpha if taught else None,
        tau=taught.tau if taught else None,
        teacher=lesson.teacher,
        teacher_temperature=lesson.teacher_temperature,
        fp32=_artifact(fp32, refit_temperature(fp32, holdout, labels), holdout),
        machine=machine_description(),
    )
    if int8:
        card = _with_int8(card, folder, images=images, splits=splits)
    write_card(folder, card)
    return card


def decide_release(folder: Path, holdout: Predictions, margins: GateMargins, *, seed: int) -> Card:
    """Judge the int8 file on holdout by the gates and write the verdict into the card.

    `holdout` must hold `ensemble`, `student_fp32` and `student_int8`.
    """
    card = read_card(folder)
    decided = gates(holdout, student_facts(folder), margins, speedup=card.speedup, seed=seed)
    reasons = [f"{gate.name} {gate.verdict}" for gate in decided if gate.verdict != "pass"]
    card = replace(
        card,
        released=released(decided),
        released_because=", ".join(reasons) or "every gate passed",
    )
    write_card(folder, card)
    return card


def student_log_probs(
    folder: Path, images: Images, indices: npt.NDArray[np.int64]
) -> dict[str, LogProbs]:
    """Log-probabilities [N, K] of every student in the folder, by the ledger's stage."""
    chosen = images[indices]
    return {stage: predict(path, chosen) for stage, path in _files(folder).items()}


def student_facts(folder: Path) -> dict[str, StageFacts]:
    """Size, speed and cost of every student in the folder, by the ledger's stage."""
    card, plain = read_card(folder), read_card(folder / "plain")
    artifacts = {
        "student_plain": (plain, plain.fp32),
        "student_fp32": (card, card.fp32),
        "student_int8": (card, card.int8),
    }
    return {
        stage: _facts(source, artifact)
        for stage, (source, artifact) in artifacts.items()
        if artifact is not None
    }


def _with_int8(card: Card, folder: Path, *, images: ImageSet, splits: Splits) -> Card:
    fp32, int8 = folder / "model.onnx", folder / "model.int8.onnx"
    holdout, labels = images.images[splits.holdout], images.labels[splits.holdout]
    # Indices ascend, and folders are sorted by class: the first ones would be of one class.
    chosen = evenly_spaced(len(splits.train), CALIBRATION_IMAGES).numpy()
    quantization = quantize_int8(
        fp32,
        int8,
        calibration=images.images[splits.train[chosen]],
        holdout=holdout,
        labels=labels,
    )
    return replace(
        card,
        int8=_artifact(int8, refit_temperature(int8, holdout, labels), holdout),
        quantization=quantization,
        parity=parity(fp32, int8, holdout[:PARITY_IMAGES]),
        speedup=paired_latency(OnnxClassifier(fp32), OnnxClassifier(int8), holdout[:1]),
    )


def _artifact(path: Path, temperature: float, images: Images) -> Artifact:
    return Artifact(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        temperature=temperature,
        latency=latency(OnnxClassifier(path), images[:TIMED_IMAGES]),
    )


def _files(folder: Path) -> Mapping[str, Path]:
    card, plain = read_card(folder), read_card(folder / "plain")
    files = {
        "student_plain": folder / "plain" / plain.fp32.file,
        "student_fp32": folder / card.fp32.file,
    }
    if card.int8 is not None:
        files["student_int8"] = folder / card.int8.file
    return files


def _facts(card: Card, artifact: Artifact) -> StageFacts:
    times: Any = artifact.latency
    return StageFacts(
        params=card.params,
        bytes=artifact.bytes,
        latency_ms_batch1=times.ms_batch1 if times else None,
        images_per_second=times.images_per_second if times else None,
        train_seconds=card.train_seconds,
    )
