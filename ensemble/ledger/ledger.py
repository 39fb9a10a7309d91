"""The ledger as typed values: rows, paired differences, release gates; reading and writing.

`ledger.json` holds the fields of `Ledger` in their order; `ledger.csv` holds the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.files import dump_csv, dump_json, read_versioned, write_bytes_atomically
from common.parsing import to_mapping
from ensemble.ledger.robustness import CoverageRow, Robustness
from ensemble.selection.comparison import Comparison

SCHEMA = 1

NOTHING = "none"
"""The value of `released` if no file ships."""

Verdict = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stage on one split: scores after the stage's own temperature, and costs."""

    stage: str
    split: str
    accuracy: float
    accuracy_interval: tuple[float, float]
    """Wilson's 95% interval."""
    balanced_accuracy: float
    macro_f1: float | None = None
    """Missing in the ledgers of early versions."""
    nll: float
    """Nats per example."""
    brier: float
    ece: float
    ece_null: float
    """Mean ECE of a perfectly calibrated model with these confidences, at this N."""
    params: int | None
    bytes: int | None
    latency_ms_batch1: float | None
    images_per_second: float | None
    train_seconds: float | None
    gflops: float | None = None
    """Billions of floating-point operations for one image; missing in earlier ledgers."""
    agreement_with_ensemble: float | None
    """Share of examples on which the stage and the ensemble name the same class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One condition that a file must meet; figures that were not measured are None."""

    name: str
    stage: str = "student_int8"
    """The file that is judged, by its row."""
    value: float | None
    bound: float | None
    """Unfavourable one-sided bound; the gate passes if it is within the limit. At a level of 95% in
    a run's first decision, and higher in later ones (`level_of` in
    ensemble/deployment/gates.py)."""
    optimistic: float | None
    """Favourable one-sided bound at the same level; the gate fails if it is beyond the limit."""
    limit: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that could be released, and what became of it."""

    stage: str
    """The file, by its row of the ledger."""
    gates: tuple[Gate, ...]
    outcome: str
    """`released`, or the reason why it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerDataset:
    """The data set that the rows were measured on."""

    name: str
    fingerprint: str
    split_id: str
    sizes: dict[str, int]
    """Number of examples by split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The scores, costs and comparisons of every stage, and the decision on release."""

    schema: int = SCHEMA
    run: str
    dataset: LedgerDataset
    rows: tuple[Row, ...]
    """In the order of STAGES; a stage that does not exist has no row."""
    differences: tuple[Comparison, ...]
    """Pairs of stages compared on test."""
    gates: tuple[Gate, ...]
    """The gates of the released file, decided on holdout. If nothing is released, those of every
    candidate."""
    released: str
    """The row of the file that ships, or `none`."""
    released_because: str = ""
    """The reason in one line."""
    candidates: tuple[Candidate, ...] = ()
    """All files that could have been released; empty in the ledgers of early versions."""
    decisions: int = 1
    """Number of releases that this run has decided on the same holdout. The k-th uses bounds at the
    level 1 − 0.1/(k(k + 1)), so that their errors add up to at most 10%."""
    test_reads: int
    """Number of times that test has been read."""
    compute: dict[str, int | float]
    """Number of trials, and seconds of training and wall-clock so far."""
    machine: dict[str, Any]
    """See `common.provenance.machine_description`."""
    robustness: Robustness | None = None
    """Corrupted images and other data sets; None in the ledgers of early versions."""
    conformal: tuple[CoverageRow, ...] = ()
    """Prediction sets on test; empty in the ledgers of early versions."""

    def __post_init__(self) -> None:
        """Translate the ledgers of early versions, which name the student's precision only."""
        if self.released in ("int8", "fp32"):
            stage = f"student_{self.released}"
            found = any(row.stage == stage for row in self.rows)
            object.__setattr__(self, "released", stage if found else NOTHING)

    def row(self, stage: str) -> Row | None:
        """Return the row of a stage, or None if there is none."""
        return next((row for row in self.rows if row.stage == stage), None)

    def difference(self, a: str, b: str, metric: str) -> Comparison | None:
        """Return the comparison of two stages in a metric, or None if they were not compared."""
        return next(
            (item for item in self.differences if (item.a, item.b, item.metric) == (a, b, metric)),
            None,
        )


def read_ledger(path: Path) -> Ledger:
    """Read ledger.json.

    Raises:
        RunError: the file is missing, damaged or of another schema.
    """
    return read_versioned(Ledger, path, schema=SCHEMA)


def write_ledger_files(folder: Path, ledger: Ledger) -> None:
    """Write ledger.csv and then ledger.json, each whole or not at all."""
    rows: list[Mapping[str, Any]] = to_mapping(ledger.rows)
    write_bytes_atomically(folder / "ledger.csv", dump_csv(rows).encode())
    write_bytes_atomically(folder / "ledger.json", dump_json(to_mapping(ledger)).encode())
