"""Format the ledger's rows, differences and gates as cells of text.

The terminal and the report lay out the same cells.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from analysis.text.labels import gate_requirement, method_label, metric_label, stage_label
from analysis.text.ledger import LOWER_IS_BETTER, decimals_on_test, rows, verdict
from common.formats import (
    compact,
    duration,
    file_size,
    fixed,
    gate_number,
    percent,
    percent_range,
    signed,
    signed_range,
    significant,
)
from ensemble.ledger.ledger import Ledger
from ensemble.selection.comparison import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCells:
    """One stage's results on test; accuracies are in percent, without the % sign."""

    stage: str
    accuracy: str
    interval: str
    balanced_accuracy: str
    nll: str
    brier: str
    ece: str
    ece_null: str
    """The ECE of a perfectly calibrated model on the same number of images."""
    params: str
    size: str
    latency_ms: str
    """Latency of one image."""
    images_per_second: str
    training: str
    """Training time."""
    agreement: str
    """Agreement with the ensemble, in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceCells:
    """One paired difference a − b."""

    a: str
    b: str
    metric: str
    value: str
    """The difference with its unit."""
    interval: str
    method: str
    verdict: str
    """The judgement on a: better, worse or not distinguishable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCells:
    """One release gate."""

    file: str
    """The file that is judged."""
    requirement: str
    """The measured quantity, and the side of the limit that passes."""
    value: str
    bound: str
    limit: str
    verdict: str


def stage_cells(
    ledger: Ledger, *, time_format: Callable[[float | None], str] = duration
) -> tuple[StageCells, ...]:
    """Format the ledger's rows on test."""
    decimals = decimals_on_test(ledger)
    return tuple(
        StageCells(
            stage=stage_label(row.stage),
            accuracy=percent(row.accuracy, decimals, sign=False),
            interval=percent_range(row.accuracy_interval, decimals),
            balanced_accuracy=percent(row.balanced_accuracy, decimals, sign=False),
            nll=fixed(row.nll, 3),
            brier=fixed(row.brier, 3),
            ece=fixed(row.ece, 3),
            ece_null=fixed(row.ece_null, 3),
            params=compact(row.params),
            size=file_size(row.bytes),
            latency_ms=significant(row.latency_ms_batch1),
            images_per_second=compact(row.images_per_second),
            training=time_format(row.train_seconds),
            agreement=percent(row.agreement_with_ensemble, 1, sign=False),
        )
        for row in rows(ledger)
    )


def difference_cells(
    differences: Iterable[Comparison], decimals: int, *, unit: str = "points"
) -> tuple[DifferenceCells, ...]:
    """Format paired differences; `decimals` applies to accuracies, in points."""
    cells = []
    for item in differences:
        value, interval = difference_value(item, decimals, unit=unit)
        cells.append(
            DifferenceCells(
                a=stage_label(item.a),
                b=stage_label(item.b),
                metric=metric_label(item.metric),
                value=value,
                interval=interval,
                method=method_label(item.method),
                verdict=verdict(item),
            )
        )
    return tuple(cells)


def difference_value(
    difference: Comparison, decimals: int = 1, *, unit: str = "points"
) -> tuple[str, str]:
    """Format a difference and its interval: accuracies in points, losses unscaled."""
    low, high = difference.interval
    if difference.metric in LOWER_IS_BETTER:
        return signed(difference.value, 4), signed_range((low, high), 4)
    value = signed(100 * difference.value, decimals)
    return f"{value} {unit}", signed_range((100 * low, 100 * high), decimals)


def gate_cells(ledger: Ledger) -> tuple[GateCells, ...]:
    """Format the ledger's release gates."""
    return tuple(
        GateCells(
            file=stage_label(gate.stage),
            requirement=gate_requirement(gate.name),
            value=gate_number(gate.value),
            bound=gate_number(gate.bound),
            limit=gate_number(gate.limit),
            verdict=gate.verdict,
        )
        for gate in ledger.gates
    )
