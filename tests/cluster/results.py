"""Results of scenarios, and the tables that show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "FAIL", "skipped"]

NOTE = 100
"""Longest note in the table, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The report of a scenario that passed."""

    note: str = ""
    lost: str | None = None
    """Work that a fault destroyed, in words; None if the scenario has no fault."""
    recovery_seconds: float | None = None
    """From the fault, or from the command that resumes, to the next epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The end of one scenario."""

    name: str
    verdict: Verdict
    seconds: float
    fault: str = ""
    finding: Finding = Finding()


def results_table(results: Sequence[Result]) -> str:
    """Return a line for each scenario: name, verdict, seconds, note."""
    rows = [(r.name, r.verdict, f"{r.seconds:.0f}", r.finding.note[:NOTE]) for r in results]
    return aligned([("scenario", "verdict", "seconds", "note"), *rows])


def faults_table(results: Sequence[Result]) -> str:
    """Return a line for each fault that a scenario survived; empty if there is none."""
    rows = []
    for result in results:
        finding = result.finding
        if result.fault and finding.lost is not None:
            seconds = finding.recovery_seconds
            rows.append((result.fault, finding.lost, "–" if seconds is None else f"{seconds:.0f}"))
    return aligned([("fault", "lost", "seconds to recover"), *rows]) if rows else ""


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
