"""The section on the search: trials, rungs, failures, the best recipe, importance and cost."""

from collections.abc import Collection

from analysis.facts.importance import DRAWS, FEWEST
from analysis.facts.run_facts import RunFacts
from analysis.facts.trials import (
    ENDINGS,
    TrialFacts,
    TrialTotals,
    best_by_family,
    best_trial,
    totals_of,
)
from analysis.report.blocks import Block, Bullets, Figure, Section, section, table, text
from common.formats import (
    DASH,
    count,
    duration,
    fixed,
    percent,
    plural,
    signed,
    signed_range,
    value_text,
)
from common.statistics.metrics import correct
from ensemble.selection.comparison import compare
from search.space.parameters import Parameter

EQUAL_COST = 1.05
"""Largest ratio of a family's epoch time to the first family's that counts as equal."""

MOST_FAILURES = 6
"""Maximum number of failed trials listed."""


def search_section(facts: RunFacts) -> Section:
    """Report the trials of the search: how they ended, and which values mattered."""
    trials = facts.search_trials
    if not trials:
        return section("The search", text("No trial has started yet."))
    totals = totals_of(trials)
    return section(
        "The search",
        text(
            _several_trials(facts, totals) if len(trials) > 1 else _one_trial(facts, trials[0]),
            f"{plural(totals.restarted, 'trial was', 'trials were')} restarted after a fault."
            if totals.restarted
            else "",
            _interruptions(facts),
        ),
        _rungs(facts) if len(trials) > 1 else None,
        _families(facts),
        _failures(trials),
        Figure(
            name="sweep",
            caption=f"All trials (n = {len(trials)}). Above: NLL on val at each rung that a trial "
            "reached; a trial stopped at a rung has no later mark. Below: the epochs of each "
            "trial. No intervals: each trial was trained once.",
        ),
        Figure(
            name="learning_curves",
            caption="NLL on val after every epoch of every trial. At each rung the learning rate "
            "falls to zero in a separate branch (dashed), and the trial is scored at its end; a "
            "promoted trial resumes from where the branch began.",
        ),
        Figure(name="training_curves", caption=_training_caption(facts)),
        _best_recipe(facts),
        text(_importance(facts)),
        Figure(name="importance", caption=_importance_caption(facts)),
        Figure(name="trial_costs", caption=_cost_caption(facts)),
        Figure(name="hyperparameters", caption=_values_caption(facts)),
    )


def _one_trial(facts: RunFacts, trial: TrialFacts) -> str:
    """Describe how the only trial ended."""
    epochs = plural(len(trial.epochs), "epoch")
    end = {
        "finished": f"It finished {_schedule(facts)}",
        "pruned": f"It was {ENDINGS['pruned']} after {epochs}",
        "failed": f"It failed after {epochs}",
        "unfinished": f"It had not ended after {epochs}",
    }[trial.ending]
    score = (
        f", and reached an NLL of {fixed(trial.scores[trial.rung], 4)} on val" if trial.rung else ""
    )
    return f"1 trial{_planned(facts)}. {end}, in {duration(trial.seconds)}{score}."


def _several_trials(facts: RunFacts, totals: TrialTotals) -> str:
    """Describe how the trials ended."""
    ended = totals.by_ending
    unfinished = ended["unfinished"]
    sentences = (
        f"{plural(totals.trials, 'trial')}{_planned(facts)}: {count(ended['finished'])} finished "
        f"{_schedule(facts)}; {count(ended['pruned'])} were {ENDINGS['pruned']}; "
        f"{count(ended['failed'])} failed.",
        f"{plural(unfinished, 'trial has', 'trials have')} not ended." if unfinished else "",
        *_warnings(facts),
        f"Together they trained for {count(totals.epochs)} epochs, in "
        f"{duration(totals.seconds)} of training time.",
    )
    return " ".join(sentence for sentence in sentences if sentence)


def _warnings(facts: RunFacts) -> list[str]:
    """Return what the plan warned of, unless a time budget decided on the number of trials."""
    if not facts.plans or facts.plans[0].trials is None:
        return []
    return [f"{warning}." for warning in facts.spec.warnings]


def _schedule(facts: RunFacts) -> str:
    """Name the schedule of the finished trials, and those for which it was shortened."""
    whole = f"the whole schedule of {plural(facts.spec.rungs[-1], 'epoch')}"
    late = [
        f"{trial.trial} ({count(trial.rung)})"
        for trial in facts.search_trials
        if trial.ending == "finished" and trial.rung and trial.rung < facts.spec.rungs[-1]
    ]
    if not late:
        return whole
    return f"{whole}; for {', '.join(late)} it was shortened to meet the deadline"


def _planned(facts: RunFacts) -> str:
    if facts.plans and facts.plans[0].trials is None:
        return ", as many as the time allowed"
    return f" of {count(facts.spec.trial_count)} planned"


def _interruptions(facts: RunFacts) -> str:
    reasons = {
        "time_budget": "The time budget ended the search.",
        "disk": "The run's disk space was used up, which ended the search.",
        "interrupted": "The search was interrupted.",
    }
    resumed = f"The run was resumed {plural(facts.resumed, 'time')}." if facts.resumed else ""
    return f"{reasons.get(facts.stops.get('search', ''), '')} {resumed}".strip()


def _rungs(facts: RunFacts) -> Block | None:
    of_family = "of a family " if facts.spec.families else ""
    rows = []
    for rung in facts.spec.rungs:
        scored = [trial for trial in facts.search_trials if rung in trial.scores]
        last = [trial for trial in scored if trial.rung == rung]
        stopped = sum(trial.ending == "pruned" for trial in last)
        best = min((trial.scores[rung] for trial in scored), default=None)
        promoted = len(scored) - len(last)
        rows.append(
            (str(rung), count(len(scored)), count(stopped), count(promoted), fixed(best, 4))
        )
    return table(
        ("rung (epochs)", "scored", "stopped", "promoted", "best NLL on val"),
        rows,
        "rrrrr",
        caption=f"About one in {facts.spec.reduction_factor} trials {of_family}is promoted at each "
        "rung."
        if len(facts.spec.rungs) > 1
        else "One rung: every trial trains for the whole schedule.",
    )


def _families(facts: RunFacts) -> Block | None:
    """Compare the families of the sweep by their best trials that finished the schedule."""
    if not facts.spec.families:
        return None
    last, best = facts.spec.rungs[-1], best_by_family(facts.search_trials)
    winning = best_trial(best.values())
    winner = "" if winning is None else winning.family
    rows = []
    for family in facts.spec.families:
        trials = [trial for trial in facts.search_trials if trial.family == family]
        rows.append(
            (
                family,
                count(len(trials)),
                count(sum(trial.whole_schedule for trial in trials)),
                duration(sum(trial.seconds for trial in trials)),
                fixed(_score(best[family]) if family in best else None, 4),
                *_on_holdout(facts, family, winner),
            )
        )
    images, compared = facts.holdout_labels, ""
    if images is not None and facts.family_log_probs:
        compared = (
            f" Accuracies of these trials are on holdout (n = {plural(len(images), 'image')}), "
            "which did not choose them."
        )
    if images is not None and winner in facts.family_log_probs:
        compared += (
            f" Differences from {winner} on the same images, each after a temperature fitted "
            "on val, with paired 95% intervals; with another seed, the winner may differ."
        )
    whole = f"Families after the whole schedule of {plural(last, 'epoch')}."
    return table(
        (
            "family",
            "trials",
            "finished",
            "training time",
            "best NLL on val",
            "accuracy",
            "− winner",
            "NLL − winner",
        ),
        rows,
        "lrrrrrrr",
        caption=f"{whole}{_computation(facts)}{compared}",
    )


def _computation(facts: RunFacts) -> str:
    """Say whether an epoch takes equally long in all families, where it should."""
    if facts.spec.resource != "compute":
        return ""
    costs = facts.plans[0].family_costs if facts.plans else {}
    if not costs:
        return ""
    costly = [
        f"{name} ({fixed(each.epochs[-1], 1)} times as long: an epoch has at least one batch)"
        for name, each in costs.items()
        if each.epochs[-1] > EQUAL_COST
    ]
    exceptions = f", except {' and '.join(costly)}" if costly else ""
    return f" No family's epoch takes longer than one of the first{exceptions}."


def _score(trial: TrialFacts) -> float:
    return trial.scores[trial.rung or 0]


def _on_holdout(facts: RunFacts, family: str, winner: str) -> tuple[str, str, str]:
    """Return a family's accuracy on holdout, and its differences from the winner's."""
    log_probs, labels = facts.family_log_probs, facts.holdout_labels
    if family not in log_probs or labels is None:
        return DASH, DASH, DASH
    accuracy = percent(float(correct(log_probs[family], labels).mean()), 1)
    if family == winner or winner not in log_probs:
        return accuracy, DASH, DASH
    seed = facts.spec.seed
    points, nll = (
        compare(family, winner, metric, log_probs, labels, seed=seed)
        for metric in ("accuracy", "nll")
    )
    return (
        accuracy,
        f"{signed(100 * points.value, 1)} ({signed_range([100 * e for e in points.interval], 1)})",
        f"{signed(nll.value, 3)} ({signed_range(nll.interval, 3)})",
    )


def _failures(trials: Collection[TrialFacts]) -> Block | None:
    failed = [trial for trial in trials if trial.status == "failed"]
    if not failed:
        return None
    items = [
        f"{trial.trial} failed: {trial.reason or 'no reason recorded'}"
        for trial in failed[:MOST_FAILURES]
    ]
    more = len(failed) - len(items)
    return Bullets(items=(*items, *([f"and {count(more)} more"] if more else [])))


def _best_recipe(facts: RunFacts) -> Block | None:
    best = facts.best
    if best is None:
        return None
    active = facts.space.active(best.recipe)
    rung = best.rung or 0
    return table(
        ("searched value", "best", "search range"),
        [
            (parameter.label, value_text(active[parameter.label]), _domain(parameter))
            for parameter in facts.space.parameters
            if parameter.label in active
        ],
        "lrl",
        caption=f"The best configuration: trial {best.trial}, NLL {fixed(best.scores[rung], 4)} on "
        f"val after {plural(rung, 'epoch')}.",
    )


def _domain(parameter: Parameter) -> str:
    if parameter.type == "categorical":
        return ", ".join(value_text(choice) for choice in parameter.choices) or DASH
    ends = f"{value_text(parameter.low)} … {value_text(parameter.high)}"
    return f"{ends}, log scale" if parameter.log else ends


def _importance(facts: RunFacts) -> str:
    importances = facts.importances
    if importances is None:
        return (
            f"The importance of the searched values is not estimated: it needs at least {FEWEST} "
            "scored trials with different values."
            if facts.space.parameters
            else ""
        )
    important = [item.name for item in importances.values if item.distinguishable]
    share, low, high = importances.explained
    conclusion = (
        f"Distinguishable from no effect: {', '.join(important)}."
        if important
        else "None of the searched values is distinguishable from no effect."
    )
    return (
        f"Importance of the searched values: over {plural(importances.trials, 'trial')}, an "
        f"extra-trees forest given these values explains {percent(share, 0)} of the variance of "
        f"the trials' ranks (95% interval {percent(low, 0)} to {percent(high, 0)}, on held-out "
        f"trials; below zero it predicts worse than the mean rank). {conclusion}"
    )


def _importance_caption(facts: RunFacts) -> str:
    importances = facts.importances
    if importances is None:
        return ""
    return (
        "Importance of the searched values: how much worse an extra-trees forest predicts a "
        "trial's rank when the value is shuffled. Trials are compared at rung "
        f"{importances.rung}, the only budget that all of them reached (n = "
        f"{importances.trials}), so benefits that need longer training do not show. Bars: 95% of "
        f"{DRAWS} bootstrap samples of the trials, each evaluated on the trials left out. "
        "Hollow: not distinguishable from 0."
    )


def _training_caption(facts: RunFacts) -> str:
    images = "" if facts.val_labels is None else f" (n = {plural(len(facts.val_labels), 'image')})"
    seeds = len(facts.seed_trials)
    others = f"; grey: {plural(seeds, 'other seed')}, showing run-to-run variation" if seeds else ""
    return (
        "Learning curves of the best trial up to the last rung. The training loss is computed on "
        "augmented images with smoothed or mixed labels, so its gap to the NLL on val is not only "
        f"overfitting. The bar at the end is Wilson's 95% interval on val{images}{others}."
    )


def _cost_caption(facts: RunFacts) -> str:
    images = 0 if facts.holdout_labels is None else len(facts.holdout_labels)
    bias = (
        "Members were chosen on these images, so their own accuracies are optimistic; the "
        "ensemble's is cross-fitted."
        if len(facts.weights) > 1
        else "One network was chosen on these images, so its own accuracy is optimistic."
    )
    return (
        "Accuracy on holdout against cost for every trial that finished the schedule, with "
        f"Wilson's 95% intervals (n = {plural(images, 'image')}). {bias}"
    )


def _values_caption(facts: RunFacts) -> str:
    rungs = (
        "The first rung compares all trials at the same budget; the last shows only those that "
        "were promoted. "
        if len(facts.spec.rungs) > 1
        else ""
    )
    return (
        f"Searched values against the score, one mark per trial. {rungs}No intervals: each trial "
        "was trained once."
    )
