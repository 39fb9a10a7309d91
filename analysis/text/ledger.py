"""Query a ledger: rows, differences, verdicts and the stage that ships.

A difference is better or worse only if its interval excludes zero; otherwise it is "not
distinguishable". A run without a ledger (None) has no rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from analysis.text.labels import NOT_DISTINGUISHABLE
from ensemble.ledger.ledger import Ledger, Row
from ensemble.selection.comparison import Comparison

LOWER_IS_BETTER = frozenset({"nll", "brier", "ece"})


def rows(ledger: Ledger | None, split: str = "test") -> list[Row]:
    """Return the rows of one split, in the ledger's order."""
    return [row for row in ledger.rows if row.split == split] if ledger else []


def row_of(ledger: Ledger | None, stage: str) -> Row | None:
    """Return the row of one stage on test."""
    return next((row for row in rows(ledger) if row.stage == stage), None)


def sizes(ledger: Ledger | None) -> Mapping[str, int]:
    """Return the number of examples in each split."""
    return ledger.dataset.sizes if ledger else {}


def decimals_on_test(ledger: Ledger | None) -> int:
    """Return the number of decimals for percentages of the test images."""
    return decimals_for(sizes(ledger).get("test", 0))


def decimals_for(images: int) -> int:
    """Return the number of decimals for percentages of `images`: 2 from 2,000 images on, else 1."""
    return 2 if images >= 2000 else 1


def difference_of(
    ledger: Ledger | None, a: str, b: str, metric: str = "accuracy"
) -> Comparison | None:
    """Return the difference a − b, with its sign reversed where the ledger has b − a."""
    if ledger is None:
        return None
    reverse = ledger.difference(b, a, metric)
    if reverse is None:
        return ledger.difference(a, b, metric)
    low, high = reverse.interval
    return replace(reverse, a=a, b=b, value=-reverse.value, interval=(-high, -low))


def differences_of(ledger: Ledger | None, a: str, b: str) -> list[Comparison]:
    """Return the differences a − b in accuracy and NLL that the ledger has."""
    items = (difference_of(ledger, a, b, metric) for metric in ("accuracy", "nll"))
    return [item for item in items if item is not None]


def verdict(difference: Comparison) -> str:
    """Judge `a` against `b`: better, worse, or not distinguishable.

    A comparison whose own verdict (from an exact test, say) is "not distinguishable" stays so,
    whatever its interval.
    """
    low, high = difference.interval
    if low <= 0 <= high or difference.verdict == NOT_DISTINGUISHABLE:
        return NOT_DISTINGUISHABLE
    return "better" if (low > 0) != (difference.metric in LOWER_IS_BETTER) else "worse"


def metrics_by_verdict(differences: Iterable[Comparison]) -> dict[str, tuple[str, ...]]:
    """Group the metrics of some comparisons by verdict."""
    metrics: dict[str, tuple[str, ...]] = {}
    for item in differences:
        judged_as = verdict(item)
        metrics[judged_as] = (*metrics.get(judged_as, ()), item.metric)
    return metrics


def gates_verdict(ledger: Ledger) -> str:
    """Return `pass` if every gate passes, `fail` if one fails, else `undecided`.

    A ledger without gates gives `none`.
    """
    verdicts = {gate.verdict for gate in ledger.gates}
    if not verdicts:
        return "none"
    if verdicts == {"pass"}:
        return "pass"
    return "fail" if "fail" in verdicts else "undecided"


def shipped_stage(ledger: Ledger) -> str | None:
    """Return the stage of the released file; None if nothing was released."""
    return ledger.released if row_of(ledger, ledger.released) else None


def outcome_of(ledger: Ledger, stage: str) -> str:
    """Return what became of a file that could have been released; empty for other stages."""
    found = (item.outcome for item in ledger.candidates if item.stage == stage)
    return next(found, "")
