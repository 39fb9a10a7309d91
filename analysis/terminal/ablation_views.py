"""What `quorum ablate` prints: what it would train, and what each factor was worth."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.facts.ablation import Result, by_factor, effect, factor_label
from analysis.terminal.tables import COLORS, plain_table
from analysis.text.wording import digits_of
from common.formats import (
    fixed,
    percent,
    plural,
    rounded_duration,
    signed,
    signed_range,
    value_text,
)
from search.ablation.ablation import ALL, Ablation
from search.ablation.factors import FACTORS
from search.timetable.preview import Preview
from trainables.records import RunFolder

METRICS = {"accuracy": "acc.", "nll": "NLL"}

STYLES = {**COLORS, "helps": "green", "harms": "red"}


def ablation_table(result: Result) -> Table:
    """One factor a row, by accuracy and by NLL: worth, interval, corrected p, verdict."""
    full = result["variants"][0]
    failed = {variant["variant"]: variant["failed"] for variant in result["variants"]}
    digits = digits_of(result["examples"])
    table = plain_table(
        f"Ablation: {plural(result['seeds'], 'seed')} of {plural(result['epochs'], 'epoch')} each, "
        f"{plural(result['examples'], 'image')} of holdout"
    )
    table.add_column("factor")
    table.add_column("", no_wrap=True)
    for header in ("worth", "95% interval", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("it", no_wrap=True)
    for factor, metrics in by_factor(result).items():
        items = metrics.values()
        cells = [_numbers(item, digits) for item in items]
        lost = failed[next(iter(items))["b"]]
        table.add_row(
            Text(factor_label(factor) + (f"\n{lost} failed" if lost else "")),
            "\n".join(METRICS[item["metric"]] for item in items),
            *("\n".join(column) for column in zip(*cells, strict=True)),
            Text("\n").join(
                Text(effect(item), style=STYLES.get(effect(item), "")) for item in items
            ),
        )
    table.caption = (
        f"full recipe: accuracy {percent(full['accuracy'], digits)}, NLL {fixed(full['nll'])}; "
        "worth: full less without, from the same seed, accuracy in points; p: paired t over "
        f"seeds, corrected for {plural(len(failed) - 1, 'comparison')} (Holm); intervals are not"
        + _left_out(result)
    )
    return table


def ablation_view(preview: Preview, ablation: Ablation) -> RenderableType:
    """What an ablation would train, in how long."""
    table = plain_table("Removed in turn")
    table.add_column("factor")
    table.add_column("", overflow="fold")
    for factor in ablation.factors:
        by = "all of the above" if factor == ALL else _set(FACTORS[factor].off)
        table.add_row(factor_label(factor), Text(by))
    images = " · ".join(f"{name} {size:,}" for name, size in preview.sizes.items())
    lines = [
        f"{preview.name}, {preview.image_size}×{preview.image_size} pixels: {images}",
        forecast(preview.rungs[-1], ablation, sum(preview.seconds.values())),
    ]
    return Group(table, Text(""), *map(Text, lines))


def forecast(epochs: int, ablation: Ablation, seconds: float) -> str:
    """An ablation in one line."""
    return (
        f"{plural(ablation.trials, 'training')} of {plural(epochs, 'epoch')}, "
        f"{plural(len(ablation.factors) + 1, 'variant')} from {plural(ablation.seeds, 'seed')}: "
        f"about {rounded_duration(seconds)}"
    )


def _numbers(item: Result, digits: int) -> tuple[str, str, str]:
    """Worth, interval and p-value; dashes where they cannot be told."""
    points = item["metric"] == "accuracy"
    scale, digits = (100, digits) if points else (1, 3)
    value, limits, p_value = item["value"], item["interval"], item["p_holm"]
    return (
        signed(None if value is None else scale * value, digits),
        signed_range(limits and [scale * limit for limit in limits], digits),
        "<0.001" if p_value is not None and p_value < 0.001 else fixed(p_value, 3),
    )


def _left_out(result: Result) -> str:
    missing = result["seeds_planned"] - result["seeds"]
    return (
        f"\n{plural(missing, 'seed')} of {result['seeds_planned']} not complete" if missing else ""
    )


def _set(changes: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}: {'none' if value in ('', ()) else value_text(value)}"
        for name, value in changes.items()
    )


def result_lines(folder: RunFolder) -> list[Text]:
    """Where the figure and the numbers lie."""
    files = {"figure": folder.figures / "ablation.png", "numbers": folder.root / "ablation.csv"}
    return [
        Text.assemble((f"{name:<9}", "dim"), str(path), no_wrap=True, overflow="ignore")
        for name, path in files.items()
    ]
