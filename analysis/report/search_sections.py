"""The report's sections on the search: what was tried, what mattered, what it cost."""

from collections.abc import Collection, Sequence

from analysis.facts.importance import DRAWS, FEWEST
from analysis.facts.run_facts import RunFacts
from analysis.facts.trials import ENDINGS, TrialFacts
from analysis.report.blocks import Block, bullets, figure, section, table, text
from common.formats import (
    DASH,
    count,
    duration,
    fixed,
    percent,
    plural,
    value_text,
)
from search.space.space import Parameter

Drawn = Collection[str]

MOST_FAILURES = 6
"""How many failed trials are listed."""


def search_section(facts: RunFacts, drawn: Drawn) -> Block:
    """What was tried, stopped, finished and lost."""
    trials = facts.search_trials
    if not trials:
        return section("The search", text("No trial has been started yet."))
    retried = sum(trial.retries > 0 for trial in trials)
    return section(
        "The search",
        text(
            _ends(facts, trials) if len(trials) > 1 else _end(facts, trials[0]),
            f"{plural(retried, 'trial')} had to be started again after a fault." if retried else "",
            _stop_reason(facts),
        ),
        _rungs_table(facts) if len(trials) > 1 else None,
        _failures(trials),
        figure("sweep", f"Every trial (n = {len(trials)}). Above: its NLL on val at each rung that "
               "it reached; a trial stopped at a rung has no mark beyond it. Below: the epochs "
               "that it was given. No intervals: one training each.", drawn=drawn),
        figure("learning_curves", "NLL on val after every epoch of every trial. At each rung the "
               "rate falls to zero in a branch of its own (dashed), at whose end the trial is "
               "scored; a trial that goes on continues from where the branch began.", drawn=drawn),
        figure("training_curves", _training_caption(facts), drawn=drawn),
        _best_table(facts),
        text(_importance_text(facts)),
        figure("importance", _importance_caption(facts), drawn=drawn),
        figure("trial_costs", _cost_caption(facts), drawn=drawn),
        figure("hyperparameters", _values_caption(facts), drawn=drawn),
    )  # fmt: skip


def _end(facts: RunFacts, trial: TrialFacts) -> str:
    """How the only trial ended."""
    epochs = plural(len(trial.epochs), "epoch")
    end = {
        "finished": f"It finished the whole schedule of {plural(facts.spec.rungs[-1], 'epoch')}",
        "pruned": f"It was stopped at a rung after {epochs}",
        "failed": f"It failed after {epochs}",
        "unfinished": f"It has no end in the journal after {epochs}",
    }[trial.ending]
    best = (
        f", and reached an NLL of {fixed(trial.scores[trial.rung], 4)} on val" if trial.rung else ""
    )
    return f"1 trial{_planned(facts)}. {end}, in {duration(trial.seconds)}{best}."


def _ends(facts: RunFacts, trials: Sequence[TrialFacts]) -> str:
    """How several trials ended."""
    ends = [trial.ending for trial in trials]
    finished, pruned, failed, open_ = map(ends.count, ENDINGS)
    use = "be delivered" if facts.spec.deliver == "single" else "join the ensemble"
    seconds = sum(trial.seconds for trial in trials)
    parts = [
        f"{plural(len(trials), 'trial')}{_planned(facts)}; {count(finished)} finished the whole "
        f"schedule of {plural(facts.spec.rungs[-1], 'epoch')}, and only these may {use}; "
        f"{count(pruned)} were stopped at a rung; {count(failed)} failed.",
        f"{plural(open_, 'trial has', 'trials have')} no end in the journal." if open_ else "",
        f"Together they trained for {count(sum(len(trial.epochs) for trial in trials))} epochs, in "
        f"{duration(seconds)}.",
    ]
    return " ".join(part for part in parts if part)


def _values_caption(facts: RunFacts) -> str:
    rungs = (
        "The first rung compares all trials at the same budget; the last shows only those that "
        "the scheduler kept. "
        if len(facts.spec.rungs) > 1
        else ""
    )
    return (
        f"Searched values against the score, trial by trial. {rungs}No intervals: one training "
        "each."
    )


def _planned(facts: RunFacts) -> str:
    """How many were meant to be; nothing where the time decides."""
    if facts.plans and facts.plans[0].get("trials") is None:
        return ", as many as the time allowed"
    return f" of {count(facts.spec.trials)} planned"


def _training_caption(facts: RunFacts) -> str:
    images = "" if facts.val_labels is None else f" (n = {plural(len(facts.val_labels), 'image')})"
    seeds = len(facts.seed_trials)
    others = f"; pale: {plural(seeds, 'other seed')} of it, which show the luck" if seeds else ""
    return (
        "How the best trial learned: its way to the last rung. The training loss is that of "
        "augmented images with smoothed or mixed labels, so its distance from the NLL on val is "
        "not overfitting alone. The bar at the end is Wilson's 95% interval on "
        f"val{images}{others}."
    )


def _importance_text(facts: RunFacts) -> str:
    found = facts.importances
    if found is None:
        return (
            f"Which values mattered is not estimated: that takes {FEWEST} scored trials at least, "
            "and values that differ among them."
            if facts.space.parameters
            else ""
        )
    sure = [item.name for item in found.values if item.distinguishable]
    share, low, high = found.explained
    verdict = (
        f"Distinguishable from no effect: {', '.join(sure)}."
        if sure
        else "None of the searched values is distinguishable from no effect."
    )
    return (
        f"Which values mattered: over {plural(found.trials, 'trial')}, a forest that has seen the "
        f"searched values explains {percent(share, 0)} of the variance of the trials' ranks "
        f"(95% interval {percent(low, 0)} to {percent(high, 0)}, on trials it has not seen; below "
        f"zero it guesses worse than the mean does). {verdict}"
    )


def _importance_caption(facts: RunFacts) -> str:
    found = facts.importances
    if found is None:
        return ""
    return (
        "Importance of the searched values, with their uncertainty: how much worse a random "
        "forest predicts a trial's rank when the value is shuffled. Trials are compared at rung "
        f"{found.rung}, the only budget that all share (n = {found.trials}), so what pays in long "
        f"training alone does not show. Bars: 95% of {DRAWS} bootstrap samples of the trials, each "
        "judged on the trials left out. Hollow: not distinguishable from 0."
    )


def _cost_caption(facts: RunFacts) -> str:
    images = 0 if facts.holdout_labels is None else len(facts.holdout_labels)
    chosen = (
        "Members were chosen on these images, so their own marks flatter them; the ensemble's is "
        "cross-fitted."
        if len(facts.weights) > 1
        else "One net was chosen on these images, so its own mark flatters it."
    )
    return (
        "What trials cost: accuracy on holdout of every trial that finished the schedule, with "
        f"Wilson's 95% intervals (n = {plural(images, 'image')}). {chosen}"
    )


def _stop_reason(facts: RunFacts) -> str:
    reasons = {
        "time_budget": "The time budget ended the search.",
        "interrupted": "The search was interrupted.",
    }
    resumed = f"The run was resumed {plural(facts.resumed, 'time')}." if facts.resumed else ""
    return f"{reasons.get(facts.stops.get('search', ''), '')} {resumed}".strip()


def _rungs_table(facts: RunFacts) -> Block | None:
    lines = []
    for rung in facts.spec.rungs:
        here = [trial for trial in facts.search_trials if rung in trial.scores]
        last = [trial for trial in here if trial.rung == rung]
        stopped = sum(trial.ending == "pruned" for trial in last)
        best = min((trial.scores[rung] for trial in here), default=None)
        lines.append(
            [
                str(rung),
                count(len(here)),
                count(stopped),
                count(len(here) - len(last)),
                fixed(best, 4),
            ]
        )
    return table(
        ("rung (epochs)", "scored", "stopped there", "went on", "best NLL on val"), lines, "rrrrr",
        caption=f"About one in {facts.spec.reduction_factor} trials goes on from a rung."
        if len(facts.spec.rungs) > 1
        else "One rung: every trial has the whole schedule.",
    )  # fmt: skip


def _failures(trials: Collection[TrialFacts]) -> Block | None:
    failed = [trial for trial in trials if trial.status == "failed"]
    if not failed:
        return None
    items = [f"{trial.trial} failed: {trial.reason or 'no reason given'}" for trial in failed]
    more = len(items) - MOST_FAILURES
    return bullets(items[:MOST_FAILURES] + ([f"and {count(more)} more"] if more > 0 else []))


def _best_table(facts: RunFacts) -> Block | None:
    best = facts.best
    if best is None:
        return None
    active = facts.space.active(best.recipe)
    lines = [
        [parameter.name, value_text(active[parameter.name]), _domain(parameter)]
        for parameter in facts.space.parameters
        if parameter.name in active
    ]
    rung = best.rung or 0
    return table(
        ("searched value", "best", "searched over"), lines, "lrl",
        caption=f"The best configuration: trial {best.trial}, NLL {fixed(best.scores[rung], 4)} on "
        f"val after {plural(rung, 'epoch')}.",
    )  # fmt: skip


def _domain(parameter: Parameter) -> str:
    if parameter.type == "categorical":
        return ", ".join(value_text(choice) for choice in parameter.choices) or DASH
    ends = f"{value_text(parameter.low)} … {value_text(parameter.high)}"
    return f"{ends}, by its logarithm" if parameter.log else ends
