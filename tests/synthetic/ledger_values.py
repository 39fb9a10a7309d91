"""Rows, comparisons and gates with invented numbers."""

from typing import Any

from ensemble.ledger.ledger import SCHEMA, Gate, Ledger, LedgerDataset, Row
from ensemble.selection.comparison import Comparison


def made_row(stage: str = "ensemble", **values: Any) -> Row:
    return Row(**{
        "stage": stage, "split": "test", "accuracy": 0.95, "accuracy_interval": (0.93, 0.96),
        "balanced_accuracy": 0.94, "macro_f1": 0.94, "nll": 0.2, "brier": 0.1, "ece": 0.01,
        "ece_null": 0.01, "params": None, "bytes": None, "latency_ms_batch1": None,
        "images_per_second": None, "train_seconds": None, "agreement_with_ensemble": None,
        **values,
    })  # fmt: skip


def made_comparison(
    a: str,
    b: str,
    metric: str,
    value: float,
    interval: tuple[float, float],
    *,
    verdict: str = "distinguishable",
) -> Comparison:
    return Comparison(a=a, b=b, metric=metric, value=value, interval=interval,
                      method="paired-bootstrap", p_value=0.5, verdict=verdict)  # type: ignore[arg-type]  # fmt: skip


def made_gate(verdict: str = "pass", *, name: str = "speedup", **values: Any) -> Gate:
    return Gate(**{"name": name, "value": 1.0, "bound": 1.0, "optimistic": None, "limit": 1.0,
                   "verdict": verdict, **values})  # fmt: skip


def made_ledger(*rows: Row, images: int = 597, **values: Any) -> Ledger:
    dataset = LedgerDataset(name="digits", fingerprint="f", split_id="s", sizes={"test": images})
    return Ledger(**{
        "schema": SCHEMA, "run": "made", "dataset": dataset, "rows": rows, "differences": (),
        "gates": (), "released": "student_fp32", "test_reads": 1, "compute": {}, "machine": {},
        **values,
    })  # fmt: skip
