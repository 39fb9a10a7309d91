"""The ledger's values on images unlike those of training: corrupted ones, other data, and sets.

All figures are on test, at a stage's own temperature.
"""

from dataclasses import dataclass

from ensemble.selection.comparison import Comparison

CLEAN, ALL = "clean", "all"
"""Values of `family` for the same images without a corruption, and for all families together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptedRow:
    """One stage on the images of one family of corruptions."""

    stage: str
    family: str
    """`noise`, `blur`, `weather`, `digital`, `all`, or `clean`."""
    images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    """Wilson's 95% interval."""
    nll: float
    """Nats per image."""
    ece: float
    ece_null: float
    """Mean ECE of a perfectly calibrated model with these confidences, at this number of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherDataRow:
    """One stage's confidence on test images, against that on images of another data set."""

    stage: str
    data: str
    """Name of the other data set."""
    images: int
    """Its images; test is compared whole."""
    score: str = "max_softmax"
    """The score: the largest probability (Hendrycks & Gimpel, 2017)."""
    auroc: float
    """Probability that a test image has the higher score, ties counting half."""
    interval: tuple[float, float]
    """DeLong's 95% interval, on the scale of log-odds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """The stages on corrupted test images, and on images of other data sets."""

    left_out: str = ""
    """The reason why nothing was measured; empty if it was."""
    images: int = 0
    """Test images that were corrupted, each once."""
    holdout_images: int = 0
    """Holdout images that were corrupted for the gate; 0 if it was left out."""
    rows: tuple[CorruptedRow, ...] = ()
    differences: tuple[Comparison, ...] = ()
    """Pairs of stages compared on all corrupted test images."""
    other_data: tuple[OtherDataRow, ...] = ()

    def row(self, stage: str, family: str = ALL) -> CorruptedRow | None:
        """Return the row of a stage and family, or None if there is none."""
        found = (row for row in self.rows if (row.stage, row.family) == (stage, family))
        return next(found, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCoverage:
    """The prediction sets of the test images of one class."""

    images: int
    coverage: float
    """Share of sets that hold the true class."""
    interval: tuple[float, float]
    """Wilson's 95% interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageRow:
    """One stage's conformal prediction sets on test."""

    stage: str
    level: float
    """The coverage that was asked for."""
    threshold: float
    """Classes of at least this probability are in a set, and the most probable one."""
    calibration_images: int
    """Holdout images that the threshold was fitted to."""
    images: int
    coverage: float
    """Share of test images whose set holds the true class."""
    interval: tuple[float, float]
    """Wilson's 95% interval."""
    mean_size: float
    """Mean number of classes in a set."""
    single: float
    """Share of sets with one class."""
    by_class: tuple[ClassCoverage, ...]
    """In the order of the classes; a class without test images has 0 images and coverage 0."""
