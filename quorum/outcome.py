"""Results of a run and of an ablation, read from the run's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.ledger.ledger import NOTHING, Ledger, read_ledger
from ensemble.selection.selection import Selection, read_selection
from trainables.records import RunFolder

if TYPE_CHECKING:
    from analysis.facts.ablation import AblationResult


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Outcome:
    """A finished run. Every property is read from the run's folder."""

    folder: RunFolder
    """The run's folder and the paths in it; `folder.root` is the path itself."""
    tracking_uri: str
    """Address of the MLflow store that mirrors the run."""

    @property
    def ledger(self) -> Ledger:
        """The ledger; `pandas.DataFrame(outcome.ledger.rows)` makes a table."""
        return read_ledger(self.folder.ledger / "ledger.json")

    @property
    def selection(self) -> Selection:
        """The selected ensemble: members, weights and metrics on holdout."""
        return read_selection(self.folder.selection)

    @property
    def report(self) -> Path:
        """The path of report.pdf."""
        return self.folder.report

    @property
    def released(self) -> str:
        """The ledger row of the released file, such as `student_int8`, or `none`."""
        return self.ledger.released

    @property
    def model(self) -> Path | None:
        """The path of the released ONNX file; None if nothing was released."""
        from ensemble.deployment.released import released_model
        from ensemble.deployment.student_folder import has_student

        if not has_student(self.folder.student) or self.released == NOTHING:
            return None
        return released_model(self.folder.student)[0]

    def __repr__(self) -> str:
        """Return the run, what it released, its accuracy on test and its report, in one line."""
        if not (self.folder.ledger / "ledger.json").is_file():
            return f"Outcome({self.folder.root}: no ledger yet)"
        parts = [f"released {self.released}"]
        row = self.ledger.row(self.released)
        if row is not None:
            low, high = row.accuracy_interval
            parts.append(f"test accuracy {row.accuracy:.1%} (95% interval {low:.1%}–{high:.1%})")
        if self.report.is_file():
            parts.append(f"report {self.report}")
        return f"Outcome({self.folder.root}: {', '.join(parts)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationOutcome:
    """A finished ablation."""

    folder: RunFolder
    """The run's folder, with ablation.json, ablation.csv and figures/ablation.png."""
    result: "AblationResult"
    """The effects of all factors, as in ablation.json."""


AnyRun = str | Path | RunFolder | Outcome
"""A run, given by its name, its path, its folder or its outcome."""
