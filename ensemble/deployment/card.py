"""The student's card: all that stands in `student/card.json` beside the model.

A card says how to call the model (class names, input size, the one resize rule), where it
comes from (data, split, teacher, recipe), what was measured on which machine, and which of
the two files ships. Every field is documented at its dataclass; lengths are in pixels,
sizes in bytes, times as their names say.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.errors import SpecError
from common.files import dump_json, read_versioned, write_bytes_atomically
from common.parsing import to_mapping

SCHEMA = 1

Precision = Literal["fp32", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """What one call costs, on the machine that the card names."""

    ms_batch1: float
    """Median milliseconds of a call with one image."""
    interval: tuple[float, float]
    """95% interval of that median, from order statistics of the repeats."""
    images_per_second: float
    """Median throughput of calls with `batch` images."""
    batch: int
    repeats: int
    """Timed blocks of calls behind the median."""
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """How many times faster one model answers than another, from interleaved calls."""

    value: float
    """Median over repeats of the ratio of their times, batch 1."""
    bound: float
    """One-sided lower confidence bound of that median."""
    level: float
    """The bound's confidence, e.g. 0.95."""
    repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far two models' log-probabilities lie apart on the same N images."""

    max_abs: float
    """Largest absolute difference over all images and classes, in nats."""
    mean_abs: float
    """Mean absolute difference over all images and classes, in nats."""
    agreement: float
    """Share of images for which both name the same class."""
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How the int8 file was made."""

    method: str
    """The calibration method chosen: the lowest NLL on holdout."""
    holdout_nll: dict[str, float]
    """NLL of every method tried, each at its own best temperature."""
    qdq_nodes: int
    """QuantizeLinear and DequantizeLinear nodes in the file; never 0."""
    reduce_range: bool
    """Weights in 7 bits, for processors that would saturate 16-bit sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One ONNX file."""

    file: str
    """Its name in the card's folder."""
    bytes: int
    sha256: str
    temperature: float
    """Fitted on holdout, for this file; already inside the graph."""
    latency: Latency | None = None

    def __post_init__(self) -> None:
        """Refuse a name that would leave the card's folder."""
        if self.file in ("", "..") or self.file != Path(self.file).name:
            raise SpecError(f"file must be a name in the card's folder, got {self.file!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherMember:
    """One member of the ensemble that taught the student."""

    name: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """All that is known about a student."""

    schema: int = SCHEMA
    class_names: tuple[str, ...]
    """In the order of the model's outputs."""
    image_size: int
    """Side of the square input."""
    input: str = "images: uint8 [batch, size, size, 3], RGB; normalized inside the model"
    output: str = "log_probs: float32 [batch, classes], after the temperature"
    resize: str = "as in training: trainables.data.pixels.resize_image"
    dataset: dict[str, Any] = field(default_factory=dict)
    """The data set's name and fingerprint."""
    split_id: str
    code_version: str
    recipe: dict[str, Any]
    """The student's recipe."""
    seed: int
    params: int
    steps: int
    """Optimizer steps."""
    train_seconds: float
    alpha: float | None = None
    """Weight of the teacher's loss; null for a student without a teacher."""
    tau: float | None = None
    """Temperature of the teacher's loss."""
    teacher: tuple[TeacherMember, ...] = ()
    teacher_temperature: float | None = None
    fp32: Artifact
    int8: Artifact | None = None
    quantization: Quantization | None = None
    parity: Parity | None = None
    """Int8 against fp32 on holdout."""
    speedup: Speedup | None = None
    """Int8 against fp32."""
    released: Precision = "fp32"
    """Which file ships, by the gates."""
    released_because: str = ""
    """The gates' reason, in one line."""
    machine: dict[str, Any]
    """Where latencies and int8 figures were measured: the same int8 file can answer
    differently on another processor."""

    def __post_init__(self) -> None:
        """Refuse a card that contradicts itself."""
        if self.released == "int8" and self.int8 is None:
            raise SpecError("released is 'int8' but the card has no int8 file")
        if len(self.class_names) < 2:
            raise SpecError(f"class_names needs two names or more, got {list(self.class_names)}")

    @property
    def shipped(self) -> Artifact:
        """The file that ships."""
        return self.int8 if self.released == "int8" and self.int8 is not None else self.fp32


def write_card(folder: Path, card: Card) -> Path:
    """Write `folder/card.json` whole or not at all, in place of an earlier one."""
    path = folder / "card.json"
    write_bytes_atomically(path, dump_json(to_mapping(card)).encode())
    return path


def read_card(folder: Path) -> Card:
    """Read `folder/card.json`.

    Raises:
        RunError: there is none, or it is damaged or of another schema.
    """
    return read_versioned(Card, folder / "card.json", schema=SCHEMA)
