"""The ledger's figures as texts: the same in terminal, README and report."""

from collections.abc import Mapping

from analysis.text.wording import Row, label
from common.formats import (
    compact,
    duration,
    file_size,
    fixed,
    percent,
    percent_range,
    significant,
)


def ledger_cells(row: Row, digits: int, *, decimals: int = 3) -> Mapping[str, str]:
    """A row's figures by column, without signs of percent.

    `digits` are those of accuracies in percent, `decimals` those of NLL and Brier score.
    """
    return {
        "stage": label(row["stage"]),
        "accuracy": percent(row["accuracy"], digits, sign=False),
        "interval": percent_range(row.get("accuracy_interval"), digits),
        "balanced": percent(row.get("balanced_accuracy"), digits, sign=False),
        "nll": fixed(row.get("nll"), decimals),
        "brier": fixed(row.get("brier"), decimals),
        "ece": fixed(row.get("ece"), 3),
        "ece_null": fixed(row.get("ece_null"), 3),
        "params": compact(row.get("params")),
        "size": file_size(row.get("bytes")),
        "ms": significant(row.get("latency_ms_batch1")),
        "rate": compact(row.get("images_per_second")),
        "train": duration(row.get("train_seconds")),
        "agree": percent(row.get("agreement_with_ensemble"), 1, sign=False),
    }
