"""The output of `quorum ablate`: the planned trainings, and the effect of each factor."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.facts.ablation import AblationResult, FactorEffect, factor_label
from analysis.terminal.layout import labelled_line, name_text, titled_table, verdict_text
from analysis.text.ledger import decimals_for
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


def ablation_table(result: AblationResult) -> Table:
    """Return one row per factor: its effect on accuracy and NLL, with interval and corrected p."""
    full = result.variants[0]
    failed = {variant.variant: variant.failed for variant in result.variants}
    decimals = decimals_for(result.examples)
    table = titled_table(
        f"Ablation: {plural(result.seeds, 'seed')} of {plural(result.epochs, 'epoch')} each, "
        f"{plural(result.examples, 'image')} of holdout"
    )
    table.add_column("factor")
    table.add_column("", no_wrap=True)
    for header in ("effect", "95% interval", "p"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for factor, metrics in result.by_factor.items():
        items = list(metrics.values())
        cells = [_numbers(item, decimals) for item in items]
        failures = failed[items[0].b]
        table.add_row(
            Text(factor_label(factor) + (f"\n{failures} failed" if failures else "")),
            "\n".join(METRICS[item.metric] for item in items),
            *("\n".join(column) for column in zip(*cells, strict=True)),
            Text("\n").join(verdict_text(item.direction) for item in items),
        )
    table.caption = (
        f"full recipe: accuracy {percent(full.accuracy, decimals)}, NLL {fixed(full.nll)}; "
        "effect: full recipe minus recipe without the factor, from the same seeds, accuracy in "
        "points; p: paired t-test over seeds, Holm-corrected for "
        f"{plural(len(failed) - 1, 'comparison')}; intervals are not corrected"
        + _missing_seeds(result)
    )
    return table


def ablation_plan(preview: Preview, ablation: Ablation) -> RenderableType:
    """Return the factors that an ablation would remove, and its forecast."""
    table = titled_table("Removed one at a time")
    table.add_column("factor")
    table.add_column("", overflow="fold")
    for factor in ablation.factors:
        changes = "all of the above" if factor == ALL else _changes(FACTORS[factor].off)
        table.add_row(factor_label(factor), Text(changes))
    images = " · ".join(f"{name} {size:,}" for name, size in preview.sizes.items())
    lines = [
        f"{preview.name}, {preview.image_size}×{preview.image_size} pixels: {images}",
        ablation_forecast(preview.rungs[-1], ablation, sum(preview.seconds.values())),
    ]
    return Group(table, Text(""), *map(name_text, lines))


def ablation_forecast(epochs: int, ablation: Ablation, seconds: float) -> str:
    """Return the trainings of an ablation and their time in one line."""
    return (
        f"{plural(ablation.trials, 'training')} of {plural(epochs, 'epoch')}, "
        f"{plural(len(ablation.factors) + 1, 'variant')} × {plural(ablation.seeds, 'seed')}: "
        f"about {rounded_duration(seconds)}"
    )


def result_lines(folder: RunFolder) -> list[Text]:
    """Return the paths of the figure and the numbers."""
    files = {"figure": folder.figures / "ablation.png", "numbers": folder.root / "ablation.csv"}
    return [labelled_line(name, str(path)) for name, path in files.items()]


def _numbers(item: FactorEffect, decimals: int) -> tuple[str, str, str]:
    """Format effect, interval and p-value; dashes where they are undefined."""
    scale, decimals = (100, decimals) if item.metric == "accuracy" else (1, 3)
    value, limits, p_value = item.value, item.interval, item.p_holm
    return (
        signed(None if value is None else scale * value, decimals),
        signed_range(limits and [scale * limit for limit in limits], decimals),
        "<0.001" if p_value is not None and p_value < 0.001 else fixed(p_value, 3),
    )


def _missing_seeds(result: AblationResult) -> str:
    missing = result.seeds_planned - result.seeds
    if not missing:
        return ""
    return f"\n{missing} of {plural(result.seeds_planned, 'seed')} incomplete"


def _changes(changes: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}: {'none' if value in ('', ()) else value_text(value)}"
        for name, value in changes.items()
    )
