"""The student's card: the contents of `student/card.json` beside the model.

A card documents how to call the model (class names, input size, resize rule), its origin
(data, split, teacher, recipe), the measurements and their machine, and which of the two files
ships. Lengths are in pixels, sizes in bytes, times in the unit that ends the field's name.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.errors import SpecError
from common.files import dump_json, read_versioned, write_bytes_atomically
from common.parsing import to_mapping
from common.statistics.conformal import ConformalSet
from ensemble.deployment.metadata import NO_LICENSE, ModelMetadata
from trainables.data.grey_levels import DEFAULT_LEVELS, GreyLevels
from trainables.data.resizing import ResizeRule, describe_resizing

SCHEMA = 1

Precision = Literal["fp32", "int8"]

UNRELEASED: Literal["none"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Timings of calls on the card's machine."""

    ms_batch1: float
    """Median milliseconds of a call with one image."""
    interval: tuple[float, float]
    """95% interval of that median, from order statistics of the repeats."""
    images_per_second: float
    """Median throughput of calls with `batch` images."""
    batch: int
    repeats: int
    """Number of timed blocks of calls behind the median."""
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """The speed of one model relative to another, from interleaved calls."""

    value: float
    """Median over repeats of the ratio of their times, at batch size 1; above 1 is faster."""
    bound: float
    """One-sided lower confidence bound of that median."""
    high: float | None = None
    """One-sided upper confidence bound; None in cards of early versions."""
    level: float
    """The confidence of each bound, e.g. 0.95."""
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The difference between two models' log-probabilities on the same images."""

    max_abs: float
    """Largest absolute difference over all images and classes, in nats."""
    mean_abs: float
    """Mean absolute difference over all images and classes, in nats."""
    agreement: float
    """Share of images for which both predict the same class."""
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """The settings and scores behind the int8 file."""

    method: str
    """The chosen calibration method, which has the lowest NLL on holdout."""
    holdout_nll: dict[str, float]
    """NLL of every method, each at its own best temperature."""
    qdq_nodes: int
    """Number of QuantizeLinear and DequantizeLinear nodes in the file; never 0."""
    reduce_range: bool
    """Weights use 7 bits, for processors on which 16-bit sums would saturate."""
    val_loss: float | None = None
    """NLL on val minus that of fp32, in nats, when the file was quantized after training; None if
    they were not compared."""
    val_loss_standard_error: float | None = None
    """Standard error of the mean paired difference."""
    aware_epochs: int = 0
    """Epochs of quantization-aware training behind this file; 0 if it was quantized only after
    training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An ONNX file of the student."""

    file: str
    """Name in the card's folder."""
    bytes: int
    sha256: str
    temperature: float
    """Fitted on holdout for this file; already inside the graph."""
    latency: Latency | None = None
    conformal: ConformalSet | None = None
    """Threshold of the prediction sets, fitted on holdout; None in the cards of early versions."""

    def __post_init__(self) -> None:
        """Refuse a name that would leave the card's folder."""
        if self.file in ("", "..") or self.file != Path(self.file).name:
            raise SpecError(f"file must be a name in the card's folder, got {self.file!r}")


DIVERGED = "its training diverged"
"""A reason in `untaught_because`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherMember:
    """A member of the ensemble that taught the student."""

    name: str
    weight: float
    temperature: float | None = None
    """Applied to the member before pooling; None if it is pooled as it is, and in early cards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Everything known about a student."""

    schema: int = SCHEMA
    class_names: tuple[str, ...]
    """In the order of the model's outputs."""
    image_size: int
    """Side of the square input."""
    input: str = "images: uint8 [batch, size, size, 3], RGB; normalized inside the model"
    output: str = "log_probs: float32 [batch, classes], after the temperature"
    resize: str = ""
    """The resize rule in words; if empty, it is taken from `resize_rule`."""
    resize_rule: ResizeRule = "crop"
    """The rule of trainables/data/resizing.py that made the training images square."""
    grey_levels: GreyLevels = DEFAULT_LEVELS
    """Ranges of the training data, which map grey images of more than 8 bits to 0 … 255."""
    dataset: dict[str, Any] = field(default_factory=dict)
    """The data set's name and fingerprint."""
    license: str = NO_LICENSE
    """The model's licence, as an SPDX expression."""
    split_id: str
    code_version: str
    recipe: dict[str, Any]
    """The student's recipe."""
    weights: dict[str, str | None] = field(default_factory=dict)
    """SHA-256 of the initial weights by name; empty for random weights and weights from the hub."""
    seed: int
    params: int
    gflops: float | None = None
    """Billions of floating-point operations for one image; None in cards of earlier versions."""
    steps: int | None
    """Optimizer steps; None for a trial, whose record counts epochs."""
    train_seconds: float
    alpha: float | None = None
    """Weight of the teacher's loss; None for a student without a teacher."""
    tau: float | None = None
    """Temperature of the teacher's loss."""
    teacher: tuple[TeacherMember, ...] = ()
    teacher_temperature: float | None = None
    untaught_because: str = ""
    """The reason why the student is a trial without further training; empty if it was trained, and
    in cards of early versions."""
    fp32: Artifact
    int8: Artifact | None = None
    quantization: Quantization | None = None
    parity: Parity | None = None
    """Int8 against fp32 on holdout."""
    speedup: Speedup | None = None
    """Int8 against fp32."""
    released: Precision | Literal["none"] = "fp32"
    """The file of this folder that ships, or `none`."""
    released_because: str = ""
    """The reason in one line; empty before the decision."""
    machine: dict[str, Any]
    """The machine on which latencies and int8 figures were measured; the same int8 file can
    give other predictions on another processor."""

    def __post_init__(self) -> None:
        """Refuse a card that contradicts itself; put the resize rule into words."""
        if not self.resize:
            object.__setattr__(self, "resize", describe_resizing(self.resize_rule, self.image_size))
        if self.released == "int8" and self.int8 is None:
            raise SpecError("released is 'int8' but the card has no int8 file")
        if len(self.class_names) < 2:
            raise SpecError(f"class_names needs two names or more, got {list(self.class_names)}")

    @property
    def metadata(self) -> ModelMetadata:
        """The part of the card that every ONNX file of the student holds."""
        return ModelMetadata(
            class_names=self.class_names,
            image_size=self.image_size,
            resize_rule=self.resize_rule,
            grey_levels=self.grey_levels,
            license=self.license,
            dataset=str(self.dataset.get("name", "")),
            dataset_fingerprint=str(self.dataset.get("fingerprint", "")),
            split_id=self.split_id,
            recipe_sha256=recipe_digest(self.recipe),
            code_version=self.code_version,
        )

    @property
    def shipped(self) -> Artifact | None:
        """The file of this folder that ships; None if none does."""
        if self.released == UNRELEASED:
            return None
        return self.int8 if self.released == "int8" else self.fp32

    @property
    def conformal(self) -> ConformalSet | None:
        """The threshold of the prediction sets of the file that ships, if it has one."""
        return None if self.shipped is None else self.shipped.conformal


def recipe_digest(recipe: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a recipe's JSON, with sorted keys and without spaces."""
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_card(folder: Path, card: Card) -> Path:
    """Write `folder/card.json` atomically, replacing an earlier one, and return its path."""
    path = folder / "card.json"
    write_bytes_atomically(path, dump_json(to_mapping(card)).encode())
    return path


def read_card(folder: Path) -> Card:
    """Read `folder/card.json`.

    Raises:
        RunError: the file is missing, damaged or of another schema.
    """
    return read_versioned(Card, folder / "card.json", schema=SCHEMA)
