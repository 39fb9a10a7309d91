"""Sections of a sweep's specification: families, selection, student, gates and target."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from common.errors import SpecError

BUDGETS = ("max_latency_ms", "max_bytes", "max_params", "max_gflops")
"""Limits of the released file's cost, among the gates' margins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilySpec:
    """A way to train: a model with its stages, and what is searched for it."""

    recipe: dict[str, Any] = field(default_factory=dict)
    """Recipe values that all its trials share, besides the sweep's `recipe`."""
    space: dict[str, Any] = field(default_factory=dict)
    """Recipe values that are searched for this family only."""
    optional: bool = False
    """Leave the family out where its initial weights are unavailable: the hub cannot be reached, a
    package is not installed, or a file is missing."""

    def with_recipe(self, **values: Any) -> "FamilySpec":
        """Return a copy with some recipe values replaced."""
        return replace(self, recipe={**self.recipe, **values})


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSpec:
    """Ensembles that may be chosen; the defaults leave every choice to the data."""

    source: Literal["auto", "search", "seeds", "all"] = "auto"
    """Members to choose from. `search`: the trials of the search; `seeds`: the seeds of the best
    recipe; `all`: both, by their scores; `auto`: the better of `all` and seeds alone."""
    weighting: Literal["auto", "uniform", "learned"] = "auto"
    """Weights of the members; `auto`: learned ones where they win out of fold."""
    diversity: float | None = None
    """Members within this many standard errors of each other tie, and the one that disagrees most
    with those chosen so far is taken. 0 switches this off; null takes 1 if it wins out of fold."""

    def __post_init__(self) -> None:
        """Refuse a diversity that is no number of standard errors."""
        if self.diversity is not None and not 0 <= self.diversity < math.inf:
            raise SpecError(
                f"diversity is a number of standard errors, 0 or more; got {self.diversity}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentSpec:
    """The net that ships, and how the ensemble teaches it."""

    start: Literal["random", "best_single"] = "random"
    """Initial weights. `best_single`: the student is the best single trial, trained further;
    `random`: it is the net of `recipe` with random weights."""
    tuning: dict[str, Any] = field(default_factory=dict)
    """Recipe values that override the best single trial's in a student that starts from it. If the
    sweep's first recipe is pretrained and that trial is not, the trial's optimizer is kept."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Recipe values of a student with random weights; the others come from the sweep's `recipe`,
    except those in NOT_INHERITED."""
    candidates: int | None = None
    """Most networks that compete for the student's place in a short sweep. Null: 4 if `gates` limit
    the cost of the released file, else 1, which is the first: the best single trial, or the net of
    `recipe`. See ensemble/student/design.py."""
    alpha: float = 0.9
    """Weight of the teacher's loss, in [0, 1]; the labels' loss has the rest."""
    tau: float = 4.0
    """Temperature of the teacher's loss."""
    license: str = ""
    """The exported model's licence as an SPDX expression, e.g. `CC-BY-4.0`; empty if not stated."""

    def __post_init__(self) -> None:
        """Refuse a sweep without a network."""
        if self.candidates is not None and self.candidates < 1:
            raise SpecError(f"candidates must be at least 1, got {self.candidates}")

    def with_epochs(self, epochs: int) -> "StudentSpec":
        """Return a copy with schedules of `epochs` epochs, at least one."""
        values = {"epochs": max(1, epochs)}
        return replace(self, recipe={**self.recipe, **values}, tuning={**self.tuning, **values})


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """Margins of the release gates, which are decided on holdout.

    A margin that is null comes from the run.
    """

    max_accuracy_loss: float | None = None
    """Accuracy that the released file may lose against the ensemble; a share in [0, 1]. Null: the
    larger of half the ensemble's error rate and the smallest loss that holdout can show (the upper
    half of Wilson's 95% interval of that rate), at most 0.02."""
    max_corruption_loss: float | None = None
    """The same on corrupted images. Null: by the same rule, but at most 0.05."""
    max_nll_gain: float | None = None
    """Largest increase in NLL of an int8 file over its network's fp32 file, in nats per image.
    Null: one standard error of the fp32 file's NLL on holdout."""
    min_speedup: float = 1.0
    """Least ratio of the fp32 file's latency to the int8 file's, at batch 1; 0 for any."""
    min_shrink: float = 1.5
    """Least ratio of the fp32 file's size to the int8 file's; 0 for any."""
    max_latency_ms: float | None = None
    """Most milliseconds of a call with one image, for the released file; null for no limit."""
    max_bytes: int | None = None
    """Largest size of the released file; null for no limit."""
    max_params: int | None = None
    """Most parameters of the released network; null for no limit."""
    max_gflops: float | None = None
    """Most arithmetic of a call with one image, in billions of floating-point operations (two for
    each multiplication with addition); null for no limit."""

    def __post_init__(self) -> None:
        """Refuse budgets that no file can keep, shares outside [0, 1] and negative margins."""
        for name in BUDGETS:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SpecError(f"{name} must be more than 0, got {value!r}")
        for name in ("max_accuracy_loss", "max_corruption_loss"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise SpecError(
                    f"{name} must be a share in [0, 1], got {share!r}; two points are 0.02"
                )
        for name in ("max_nll_gain", "min_speedup", "min_shrink"):
            margin = getattr(self, name)
            if margin is not None and not margin >= 0:
                raise SpecError(f"{name} must be at least 0, got {margin!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustnessSpec:
    """Corrupted and out-of-distribution images on which the ledger evaluates the stages."""

    enabled: bool = True
    """Measure at all. Without it, no gate is decided on corrupted images either."""
    images: int = 500
    """Most images of holdout, and of test, that are corrupted; with a time budget there may be
    fewer. Each has one of 12 corruptions at one of 5 severities."""
    ood: str | None = None
    """Folder of out-of-distribution images; the ledger measures how well confidence separates them
    from test images. Null: only the built-in set."""
    coverage: float = 0.95
    """Share of images whose prediction set should hold the true class."""

    def __post_init__(self) -> None:
        """Refuse too few images to hold every corruption at every severity, and odd shares."""
        if self.images < 60:
            raise SpecError(
                f"images must be at least 60, one for each corruption at each severity, got "
                f"{self.images}; to measure nothing, set enabled: false"
            )
        if not 0.5 <= self.coverage < 1:
            raise SpecError(f"coverage must lie in [0.5, 1), got {self.coverage!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """The result that a run should reach on test: its row of `quorum ladder`."""

    row: Literal["best_single", "ensemble", "student"] = "best_single"
    """Row of the ledger that is judged; `student` is the student that ships."""
    accuracy: float | None = None
    """Least share of test images classified correctly; null for no threshold."""
    over: str = ""
    """Name of a sweep whose judged row must be significantly less accurate; empty for none."""
    max_loss: float | None = None
    """Accuracy that the row may lose against the ensemble, a share; null for no threshold."""

    def __post_init__(self) -> None:
        """Refuse shares outside [0, 1]."""
        for name in ("accuracy", "max_loss"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SpecError(f"{name} must lie in [0, 1], got {value!r}")
