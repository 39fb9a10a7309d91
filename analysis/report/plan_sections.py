"""The report's section on the forecast, and what a short budget did to the baseline."""

from collections.abc import Mapping
from typing import Any

from analysis.facts.run_facts import RunFacts
from analysis.report.blocks import Block, section, table, text
from common.formats import DASH, count, duration, fixed, plural

STAGES = ("sweep", "seeds", "select", "distill", "ledger")
"""What is forecast and over before the report is made."""


def forecast_section(facts: RunFacts) -> Block | None:
    """What was promised before the first trial, and what happened; None without a forecast."""
    plan = next((plan for plan in facts.plans if plan.get("at") == "sweep"), None)
    if plan is None:
        return None
    forecast: Mapping[str, float] = plan.get("seconds") or {}
    lines = [
        [stage, duration(forecast.get(stage)), duration(facts.stage_seconds.get(stage)),
         _ratio(facts.stage_seconds.get(stage), forecast.get(stage))]
        for stage in STAGES
        if stage in forecast and stage in facts.spec.stages
    ]  # fmt: skip
    both = [stage for stage in STAGES if stage in forecast and stage in facts.stage_seconds]
    if len(both) > 1:
        promised = sum(forecast[stage] for stage in both)
        took = sum(facts.stage_seconds[stage] for stage in both)
        lines.append(["together", duration(promised), duration(took), _ratio(took, promised)])
    return section(
        "Forecast and actual",
        text(
            "The forecast was made before the first trial, from an epoch of the base recipe "
            f"measured on this machine: {duration(plan.get('epoch_seconds'))} in each of "
            f"{plural(int(plan.get('workers') or 1), 'worker')}.",
            _trials(facts, plan),
            _deadline(facts, plan),
            _revised(facts),
        ),
        table(
            ("stage", "forecast", "actual", "actual / forecast"), lines, "lrrr",
            caption="Wall time of each stage, from its start to its end as the journal has them. "
            "The forecast has no interval: it is one measurement, scaled. Without a stage's end "
            "in the journal there is a dash.",
        ),
    )  # fmt: skip


def seeds_note(facts: RunFacts) -> str:
    """A sentence where the baseline at equal compute is less than that."""
    selection = facts.selection
    if selection is None or not selection.get("seeds_ensemble"):
        return ""
    members = len(selection["members"])
    seeds = len(selection["seeds_ensemble"].get("members") or [])
    plan: Mapping[str, Any] = next((p for p in facts.plans if p.get("at") == "seeds"), {})
    top = facts.spec.rungs[-1]
    epochs = int((plan.get("rungs") or [top])[-1])
    if seeds >= members and epochs >= top:
        return ""
    fewer = f"{plural(seeds, 'seed')} for {plural(members, 'member')}" if seeds < members else ""
    shorter = f"schedules of {count(epochs)} instead of {plural(top, 'epoch')}"
    parts = " and ".join(part for part in (fewer, shorter if epochs < top else "") if part)
    return (
        f"The seeds ensemble is less than a rival at equal compute: there was time for {parts} "
        "only. A gain over it may be a gain of compute."
    )


def _ratio(actual: float | None, forecast: float | None) -> str:
    if actual is None or not forecast:
        return DASH
    return fixed(actual / forecast, 2)


def _trials(facts: RunFacts, plan: Mapping[str, Any]) -> str:
    trained = sum(len(trial.epochs) for trial in facts.search_trials)
    happened = (
        f"{plural(len(facts.search_trials), 'trial was', 'trials were')} started and trained for "
        f"{plural(trained, 'epoch')}."
    )
    planned = plan.get("trials")
    if planned is None:
        return f"It promised no number of trials, but as many as fit: {happened}"
    return f"It promised {plural(int(planned), 'trial')}; {happened}"


def _deadline(facts: RunFacts, plan: Mapping[str, Any]) -> str:
    deadline = plan.get("deadline")
    if deadline is None or not facts.started_at:
        return ""
    left = float(deadline) - (facts.started_at + facts.wall_seconds)
    reached = "ledger" in facts.stage_seconds
    if not reached:
        return ""
    if left >= 0:
        return f"The ledger was written {duration(left)} before the deadline."
    return f"The ledger was written {duration(-left)} after the deadline."


def _revised(facts: RunFacts) -> str:
    later = [str(plan.get("at")) for plan in facts.plans[1:]]
    if not later:
        return ""
    return f"It was revised before: {', '.join(later)}; the table shows the first."
