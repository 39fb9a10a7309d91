"""What the figures say, in words: the same words in terminal, README and report.

"Not distinguishable" is a result. A difference is called one only where its interval lies
on one side of zero.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from common.formats import DASH, count, fixed, percent, signed, signed_range
from trainables.data.source_sizes import SourceSizes

Ledger = Mapping[str, Any]
Row = Mapping[str, Any]

NOT_DISTINGUISHABLE = "not distinguishable"
LOWER_IS_BETTER = frozenset({"nll", "brier", "ece"})
METRICS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
}
STAGES: Mapping[str, str] = {
    "best_single": "best single",
    "uniform_top_k": "uniform top-k",
    "seeds_ensemble": "seeds ensemble",
    "ensemble": "ensemble",
    "student_plain": "student plain",
    "student_fp32": "student fp32",
    "student_int8": "student int8",
}
"""The rows of the ledger, in its order."""

GATES: Mapping[str, str] = {
    "accuracy_loss": "loss of accuracy against the ensemble, at most",
    "nll_gain": "more NLL than the fp32 student, at most",
    "speedup": "times as fast as fp32, at least",
    "shrink": "times as small as fp32, at least",
}

METHODS: Mapping[str, str] = {
    "paired-bootstrap": "paired bootstrap",
    "mcnemar-exact": "exact McNemar, Tango's interval",
}

MODES: Mapping[str, str] = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "I": "16-bit grey",
    "I;16": "16-bit grey",
    "P": "palette",
    "PA": "palette with transparency",
    "RGBA": "RGB with transparency",
}
"""Pillow's colour modes that do not name themselves."""


def label(stage: str) -> str:
    """A stage's name in words: `student_int8` → `student int8`."""
    return STAGES.get(stage, stage.replace("_", " "))


def metric_label(metric: str) -> str:
    """A metric's name in words."""
    return METRICS.get(metric, metric.replace("_", " "))


def decimals(ledger: Ledger) -> int:
    """Digits of a percentage that test can bear."""
    return digits_of(sizes(ledger).get("test", 0))


def digits_of(images: int) -> int:
    """Digits of a percentage of so many images: one image is 1/N."""
    return 2 if images >= 2000 else 1


def sizes(ledger: Ledger) -> Mapping[str, int]:
    """Examples in each split."""
    found: Mapping[str, int] = (ledger.get("dataset") or {}).get("sizes") or {}
    return found


def rows(ledger: Ledger, split: str = "test") -> list[Row]:
    """The ledger's rows of one split, in its order."""
    return [row for row in ledger.get("rows", []) if row.get("split", "test") == split]


def row_of(ledger: Ledger, stage: str) -> Row | None:
    """The row of one stage on test."""
    return next((row for row in rows(ledger) if row["stage"] == stage), None)


def difference_of(ledger: Ledger, a: str, b: str, metric: str = "accuracy") -> Row | None:
    """The difference a − b, turned round where the ledger has b − a."""
    for item in ledger.get("differences", []):
        if item["metric"] != metric:
            continue
        if (item["a"], item["b"]) == (a, b):
            return dict(item)
        if (item["a"], item["b"]) == (b, a):
            low, high = item["interval"]
            return {**item, "a": a, "b": b, "value": -item["value"], "interval": [-high, -low]}
    return None


def verdict(difference: Row) -> str:
    """What a paired difference says of `a`: better, worse, or not distinguishable.

    Where the ledger has a verdict of its own, from an exact test, say, that one counts.
    """
    low, high = difference["interval"]
    if low <= 0 <= high or difference.get("verdict") == NOT_DISTINGUISHABLE:
        return NOT_DISTINGUISHABLE
    return "better" if (low > 0) != (difference["metric"] in LOWER_IS_BETTER) else "worse"


def difference_value(difference: Row, digits: int = 1, *, unit: str = "points") -> tuple[str, str]:
    """A difference and its interval with their unit: points for accuracies, else as it is."""
    metric = difference["metric"]
    low, high = difference["interval"]
    if metric in LOWER_IS_BETTER:
        return signed(difference["value"], 4), signed_range((low, high), 4)
    value = signed(100 * difference["value"], digits)
    return f"{value} {unit}", signed_range((100 * low, 100 * high), digits)


def comparison(difference: Row, other: str, digits: int = 1) -> str:
    """Half a sentence: `better in accuracy than OTHER (+1.2 points, 95% interval …)`."""
    value, interval = difference_value(difference, digits)
    metric, found = metric_label(difference["metric"]), verdict(difference)
    if found == NOT_DISTINGUISHABLE:
        return f"{found} from {other} in {metric} ({value}, 95% interval {interval})"
    return f"{found} in {metric} than {other} ({value}, 95% interval {interval})"


def comparisons(found: Sequence[Row], other: str, digits: int = 1) -> str:
    """`comparison` of the same two in several metrics: each has its own verdict."""
    if not found:
        return ""
    parts = [comparison(found[0], other, digits)]
    for item in found[1:]:
        value, interval = difference_value(item, digits)
        metric = metric_label(item["metric"])
        parts.append(f"{verdict(item)} in {metric} ({value}, 95% interval {interval})")
    return ", and ".join(parts)


def differences_of(ledger: Ledger, a: str, b: str) -> list[Row]:
    """The differences a − b that the ledger has, in accuracy and NLL."""
    found = (difference_of(ledger, a, b, metric) for metric in ("accuracy", "nll"))
    return [item for item in found if item is not None]


def difference_method(difference: Row) -> str:
    """How a difference's interval was made, in words."""
    method = str(difference.get("method", ""))
    return METHODS.get(method, method.replace("-", " ")) or DASH


def gates_verdict(ledger: Ledger) -> str:
    """`pass` if every gate passes, `fail` if one fails, else `undecided`; `none` of none."""
    found = {str(gate["verdict"]) for gate in ledger.get("gates", [])}
    if not found:
        return "none"
    if found == {"pass"}:
        return "pass"
    return "fail" if "fail" in found else "undecided"


def shipped_stage(ledger: Ledger) -> str | None:
    """The stage that the gates release: the int8 student if all pass, else the fp32 one."""
    stage = "student_int8" if gates_verdict(ledger) == "pass" else "student_fp32"
    return stage if row_of(ledger, stage) else None


def accuracy_text(row: Row, digits: int = 1) -> str:
    """`95.4% (95% interval 93.9–96.6%)`."""
    interval = row.get("accuracy_interval")
    if not interval:
        return percent(row.get("accuracy"), digits)
    low, high = interval
    limits = f"{percent(low, digits, sign=False)}–{percent(high, digits)}"
    return f"{percent(row['accuracy'], digits)} (95% interval {limits})"


def gate_numbers(gate: Row) -> tuple[str, str, str]:
    """A gate's value, bound and limit, in four digits."""
    return tuple(_gate_number(gate.get(key)) for key in ("value", "bound", "limit"))  # type: ignore[return-value]


def _gate_number(value: float | None) -> str:
    return DASH if value is None else fixed(value, 4 if abs(value) < 1 else 2)


def gate_label(gate: Row) -> str:
    """What a gate asks, in words."""
    name = str(gate["name"])
    return GATES.get(name, name.replace("_", " "))


def source_sizes_text(source_sizes: SourceSizes) -> str:
    """Return `32×32 pixels, RGB`, or `from 96×64 to 640×480 pixels, …; 90 RGB, 10 grey`."""
    low, middle, high = (
        f"{width}×{height}"
        for width, height in (source_sizes.smallest, source_sizes.median, source_sizes.largest)
    )
    modes = [
        (MODES.get(mode, mode), f"{count(number)} " if len(source_sizes.modes) > 1 else "")
        for mode, number in source_sizes.modes.items()
    ]
    colours = ", ".join(f"{number}{mode}" for mode, number in modes)
    if source_sizes.sizes == 1:
        return f"{middle} pixels{'; ' if len(modes) > 1 else ', '}{colours}"
    sizes = f"median {middle}, {count(source_sizes.sizes)} different sizes"
    return f"from {low} to {high} pixels, {sizes}; {colours}"
