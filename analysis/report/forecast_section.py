"""The section on the forecast: planned against actual times, and what a short budget cost."""

from collections.abc import Mapping

from analysis.facts.run_facts import RunFacts
from analysis.report.blocks import Section, section, table, text
from common.formats import DASH, count, duration, fixed, plural
from journal.events import PlanMade

FORECAST_STAGES = ("sweep", "seeds", "select", "distill", "ledger")
"""Stages that end before the report."""


def forecast_section(facts: RunFacts) -> Section | None:
    """Compare the first forecast with what happened; None without a forecast."""
    plan = next((plan for plan in facts.plans if plan.at == "sweep"), None)
    if plan is None:
        return None
    return section(
        "Forecast and actual",
        text(
            "The forecast was made before the first trial, from one epoch of the base recipe "
            f"measured on this machine: {duration(plan.epoch_seconds)} with "
            f"{plural(plan.workers, 'worker')} running.",
            _trials(facts, plan),
            _deadline(facts, plan),
            _revisions(facts),
        ),
        table(
            ("stage", "forecast", "actual", "actual / forecast"),
            _rows(facts, plan.seconds),
            "lrrr",
            caption="Wall-clock time of each stage's last run, without pauses between processes; a "
            "dash: it has not finished. The forecast scales a single measurement, so it has no "
            "interval.",
        ),
    )


def unequal_compute_note(facts: RunFacts) -> str:
    """Explain why the seed ensemble had less compute than the ensemble; empty if it had not."""
    selection = facts.selection
    if selection is None or selection.seeds_ensemble is None:
        return ""
    members = len(selection.members)
    seeds = len(selection.seeds_ensemble.members)
    plan = next((plan for plan in facts.plans if plan.at == "seeds"), None)
    whole_schedule = facts.spec.rungs[-1]
    epochs = whole_schedule if plan is None else plan.rungs[-1]
    shortages = []
    if seeds < members:
        shortages.append(f"{plural(seeds, 'seed')} for {plural(members, 'member')}")
    if epochs < whole_schedule:
        shortages.append(
            f"schedules of {count(epochs)} instead of {plural(whole_schedule, 'epoch')}"
        )
    if not shortages:
        return ""
    return (
        "The seed ensemble is not an equal-compute baseline: there was only time for "
        f"{' and '.join(shortages)}. A gain over it may come from compute alone."
    )


def _rows(facts: RunFacts, forecast: Mapping[str, float]) -> list[tuple[str, str, str, str]]:
    """Return one row per stage, and the total of the stages that have both times."""
    actual = facts.stage_seconds
    planned = [name for name in FORECAST_STAGES if name in forecast]
    rows = [
        _row(name, forecast[name], actual.get(name))
        for name in planned
        if name in facts.spec.stages
    ]
    both = [name for name in planned if name in actual]
    if len(both) > 1:
        totals = (sum(seconds[name] for name in both) for seconds in (forecast, actual))
        rows.append(_row("total", *totals))
    return rows


def _row(name: str, forecast: float, actual: float | None) -> tuple[str, str, str, str]:
    ratio = DASH if actual is None or not forecast else fixed(actual / forecast, 2)
    return name, duration(forecast), duration(actual), ratio


def _trials(facts: RunFacts, plan: PlanMade) -> str:
    epochs = sum(len(trial.epochs) for trial in facts.search_trials)
    trained = (
        f"{plural(len(facts.search_trials), 'trial was', 'trials were')} started and trained for "
        f"{plural(epochs, 'epoch')}."
    )
    if plan.trials is None:
        return f"It planned as many trials as fit into the time: {trained}"
    return f"It planned {plural(plan.trials, 'trial')}; {trained}"


def _deadline(facts: RunFacts, plan: PlanMade) -> str:
    if plan.deadline is None or not facts.ended_at or "ledger" not in facts.stage_seconds:
        return ""
    margin = plan.deadline - facts.ended_at
    side = "before" if margin >= 0 else "after"
    return f"The ledger was written {duration(abs(margin))} {side} the deadline."


def _revisions(facts: RunFacts) -> str:
    later = [plan.at for plan in facts.plans[1:]]
    if not later:
        return ""
    return f"The forecast was revised before {', '.join(later)}; the table shows the first one."
