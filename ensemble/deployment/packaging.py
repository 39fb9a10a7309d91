"""Package a trained network: its ONNX files, in fp32 and int8, and its card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.files import file_sha256, write_bytes_atomically
from common.provenance import code_version, machine_description
from common.sampling import evenly_spaced
from ensemble.deployment.card import (
    UNRELEASED,
    Artifact,
    Card,
    Latency,
    Quantization,
    TeacherMember,
    read_card,
    recipe_digest,
    write_card,
)
from ensemble.deployment.describe import write_metadata
from ensemble.deployment.export import export_onnx
from ensemble.deployment.latency import latency, paired_latency
from ensemble.deployment.metadata import NO_LICENSE, ModelMetadata
from ensemble.deployment.network_cost import gflops
from ensemble.deployment.onnx_model import OnnxClassifier
from ensemble.deployment.quantize import METHODS, parity, quantize_int8, refit_temperature
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.initial_weights import weights_identity
from trainables.nets.classifier import Classifier
from trainables.recipe import Recipe
from trainables.training.losses import Distillation

CALIBRATION_IMAGES = (128, 512)
"""Smallest and largest numbers of training images whose activations set the int8 ranges."""

CALIBRATION_PIXELS = 512 * 32 * 32
"""Pixels of all calibration images together, at the network's input size. Each larger image yields
more activations: lite0 at 96 px had the same NLL after calibration with 128 as with 512."""

TIMED_IMAGES = 256

PARITY_IMAGES = 1000
"""Largest number of holdout images for comparing fp32 and int8; the gates use all of holdout."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedStudent:
    """A trained network that could ship, and how it was trained."""

    model: Classifier
    """In eval mode."""
    recipe: Recipe
    seed: int
    params: int
    steps: int | None
    """Optimizer steps; None for a trial, whose record counts epochs."""
    train_seconds: float
    distillation: Distillation | None = None
    """None for a student without a teacher."""
    teacher: tuple[TeacherMember, ...] = ()
    teacher_temperature: float | None = None
    untaught_because: str = ""
    """The reason why the student is a trial without further training; empty if it was trained."""


def export_student(
    student: TrainedStudent,
    folder: Path,
    *,
    images: ImageSet,
    splits: Splits,
    int8: bool,
    like: Card | None = None,
    license: str = NO_LICENSE,
) -> Card:
    """Write the network's ONNX files and its card; nothing is released yet.

    Each file gets its own temperature, fitted on holdout, and the card's metadata, so that it can
    be used alone. The int8 ranges come from training images. `license` is an SPDX expression.
    `like` is the card of a network packaged before. If both networks do the same work, its timings
    are reused, because weights do not change timings, and so is its calibration method.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holdout, labels = images.images[splits.holdout], images.labels[splits.holdout]
    twin = like if like is not None and _same_work(like.recipe, student.recipe) else None
    fp32 = folder / "model.onnx"
    export_onnx(student.model, fp32, image_size=images.image_size, classes=len(images.class_names))
    times = twin.fp32.latency if twin is not None else None
    if times is None and not int8:  # with an int8 file, the two are timed alternately
        times = latency(OnnxClassifier(fp32), holdout[:TIMED_IMAGES])
    distillation = student.distillation
    recipe = student.recipe.to_mapping()
    metadata = ModelMetadata(
        class_names=images.class_names,
        image_size=images.image_size,
        resize_rule=images.resize,
        grey_levels=images.grey_levels,
        license=license or NO_LICENSE,
        dataset=images.name,
        dataset_fingerprint=images.fingerprint,
        split_id=splits.split_id,
        recipe_sha256=recipe_digest(recipe),
        code_version=code_version(),
    )
    card = Card(
        class_names=metadata.class_names,
        image_size=metadata.image_size,
        resize_rule=metadata.resize_rule,
        grey_levels=metadata.grey_levels,
        dataset={"name": metadata.dataset, "fingerprint": metadata.dataset_fingerprint},
        license=metadata.license,
        split_id=metadata.split_id,
        code_version=metadata.code_version,
        recipe=recipe,
        weights=weights_identity(student.recipe.architecture),
        seed=student.seed,
        params=student.params,
        gflops=gflops(student.model),
        steps=student.steps,
        train_seconds=student.train_seconds,
        alpha=distillation.alpha if distillation else None,
        tau=distillation.tau if distillation else None,
        teacher=student.teacher,
        teacher_temperature=student.teacher_temperature,
        untaught_because=student.untaught_because,
        fp32=_finished(fp32, metadata, refit_temperature(fp32, holdout, labels), times),
        released=UNRELEASED,
        machine=machine_description(),
    )
    write_card(folder, card)
    return add_int8(folder, images=images, splits=splits, like=like) if int8 else card


def copy_student(source: Path, folder: Path, *, train_seconds: float) -> Card:
    """Copy the files of a student that is an unchanged trial; its card describes the trial.

    `train_seconds` is the trial's training time.
    """
    card = read_card(source)
    folder.mkdir(parents=True, exist_ok=True)
    for artifact in filter(None, (card.fp32, card.int8)):
        write_bytes_atomically(folder / artifact.file, (source / artifact.file).read_bytes())
    card = replace(card, steps=None, train_seconds=train_seconds, untaught_because="")
    write_card(folder, card)
    return card


def calibration_images(side: int) -> int:
    """Return how many images of `side` pixels the int8 ranges are measured with."""
    least, most = CALIBRATION_IMAGES
    return min(most, max(least, CALIBRATION_PIXELS // side**2))


def add_int8(folder: Path, *, images: ImageSet, splits: Splits, like: Card | None = None) -> Card:
    """Quantize the fp32 file of a packaged network, and add the int8 file to its card.

    `like` as for `export_student`.
    """
    card = read_card(folder)
    recipe = Recipe.from_mapping(card.recipe)
    fp32, int8 = folder / card.fp32.file, folder / "model.int8.onnx"
    holdout, labels = images.images[splits.holdout], images.labels[splits.holdout]
    twin = like if like is not None and _same_work(like.recipe, recipe) else None
    known = twin.quantization if twin is not None else None
    quantization = _quantize(
        fp32,
        int8,
        card,
        images=images,
        splits=splits,
        methods=METHODS if known is None else (known.method,),
    )
    temperature = refit_temperature(int8, holdout, labels)
    if twin is not None and twin.int8 is not None and twin.speedup is not None:
        latencies, speedup = (twin.fp32.latency, twin.int8.latency), twin.speedup
    else:
        timed = paired_latency(OnnxClassifier(fp32), OnnxClassifier(int8), holdout[:TIMED_IMAGES])
        latencies, speedup = (timed.first, timed.second), timed.speedup
    card = replace(
        card,
        fp32=replace(card.fp32, latency=latencies[0]),
        int8=_finished(int8, card.metadata, temperature, latencies[1]),
        quantization=quantization,
        parity=parity(fp32, int8, holdout[:PARITY_IMAGES]),
        speedup=speedup,
    )
    write_card(folder, card)
    return card


def replace_int8(folder: Path, source: Path, *, to: Path, images: ImageSet, splits: Splits) -> Card:
    """Quantize the fp32 file `source` into the folder `to`; return the card with that int8 file.

    `source` is the packaged network of `folder` with other weights, so the timings stay.
    """
    card = read_card(folder)
    assert card.int8 is not None
    to.mkdir(parents=True, exist_ok=True)
    int8 = to / card.int8.file
    holdout, labels = images.images[splits.holdout], images.labels[splits.holdout]
    quantization = _quantize(source, int8, card, images=images, splits=splits, methods=METHODS)
    return replace(
        card,
        int8=_finished(
            int8, card.metadata, refit_temperature(int8, holdout, labels), card.int8.latency
        ),
        quantization=quantization,
        parity=parity(folder / card.fp32.file, int8, holdout[:PARITY_IMAGES]),
    )


def _quantize(
    fp32: Path,
    int8: Path,
    card: Card,
    *,
    images: ImageSet,
    splits: Splits,
    methods: Sequence[str],
) -> Quantization:
    """Quantize a file of the card's network with ranges from evenly spaced training images."""
    # Indices ascend and image folders are sorted by class: the first ones share one class.
    side = Recipe.from_mapping(card.recipe).architecture.input_size or images.image_size
    chosen = evenly_spaced(len(splits.train), calibration_images(side))
    return quantize_int8(
        fp32,
        int8,
        calibration=images.images[splits.train[chosen]],
        holdout=images.images[splits.holdout],
        labels=images.labels[splits.holdout],
        methods=methods,
    )


def _same_work(packaged: Mapping[str, Any], recipe: Recipe) -> bool:
    """Return whether a packaged network does the same work per prediction as this recipe's."""
    other = Recipe.from_mapping(packaged)
    return other.architecture.prediction_work == recipe.architecture.prediction_work


def _finished(
    path: Path, metadata: ModelMetadata, temperature: float, times: Latency | None
) -> Artifact:
    """Write its description into a file; return the file's size, checksum and speed."""
    write_metadata(path, metadata)
    return Artifact(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
        temperature=temperature,
        latency=times,
    )
