"""The section on the ensemble: members, weights, certificate, comparisons and diversity.

Axes: M members, N examples, K classes.
"""

import numpy as np

from analysis.facts.run_facts import RunFacts
from analysis.report.blocks import Block, Figure, Section, section, table, text, verdict_cell
from analysis.text.cells import difference_cells
from analysis.text.certificate import certificate_sentences
from analysis.text.labels import stage_label
from analysis.text.ledger import decimals_for
from common.formats import (
    DASH,
    compact,
    count,
    duration,
    file_size,
    fixed,
    milliseconds,
    percent,
    plural,
    with_minus_signs,
)
from common.seeds import numpy_generator
from common.statistics.intervals import bootstrap_means
from common.statistics.metrics import accuracy, nll, nll_per_example
from ensemble.selection.selection import Baseline, BestSingle, Scores, Selection

CANDIDATES_SHOWN = 6
"""Candidate ensembles in the table, besides the chosen one."""

CANDIDATES = ("ensemble", "best_single", "uniform_top_k", "seeds_ensemble")
"""The stages that the selection compares on holdout."""


def ensemble_section(facts: RunFacts) -> Section | None:
    """Report how the ensemble was chosen; None for a run that delivers a single network."""
    selection = facts.selection
    if facts.spec.deliver == "single":
        return None
    if selection is None:
        return section("The ensemble", text("No ensemble has been chosen yet."))
    return section(
        "The ensemble",
        text(
            f"The ensemble has {plural(len(selection.members), 'member')} with "
            f"{selection.weighting} weights, chosen on holdout from a pool of "
            f"{count(selection.pool_size)}. {_pool(facts, selection)} "
            f"{_pooling(selection)} The temperature of its pooled probabilities is "
            f"{fixed(selection.temperature, 3)}.",
            _reason("Choice", selection.candidate_reason),
            _reason("Members", selection.source_reason),
            _reason("Weights", selection.weighting_reason),
            _reason("Pooling", selection.pooling_reason),
        ),
        _members(facts, selection),
        _candidates(selection),
        text(*certificate_sentences(selection)),
        _holdout_scores(selection),
        _comparisons(facts, selection),
        text(_diversity(facts, selection), _compute(selection)),
        text(_front(selection)),
        Figure(name="front", caption=_front_caption()),
        Figure(name="disagreement", caption=_diversity_caption(facts)),
    )


def _pool(facts: RunFacts, selection: Selection) -> str:
    """Say how the pool came to its size."""
    search = facts.search_trials
    finished = sum(trial.whole_schedule for trial in search)
    seeds = sum(trial.whole_schedule for trial in facts.seed_trials)
    stopped = selection.pool_size + len(selection.skipped) - finished - seeds
    parts = [f"{count(finished)} finished the schedule"]
    if stopped > 0:
        rung = plural(facts.spec.rungs[-2], "epoch") if len(facts.spec.rungs) > 1 else ""
        parts.append(
            f"{count(stopped)} were stopped at the rung before the last ({rung}) after a cooldown "
            "of their own"
        )
    others = len(search) - finished - max(0, stopped)
    if others > 0:
        parts.append(f"{count(others)} ended earlier and are not in the pool")
    text = f"Of {plural(len(search), 'searched trial')}, {'; '.join(parts)}."
    if seeds:
        text += f" {plural(seeds, 'seed')} of the best configuration joined them."
    if selection.skipped:
        text += f" {plural(len(selection.skipped), 'trial')} could not be used."
    return text


def _reason(choice: str, reason: str) -> str:
    return f"{choice}: {with_minus_signs(reason)}." if reason else ""


def _pooling(selection: Selection) -> str:
    if selection.pooling == "raw":
        return "Members are pooled without temperatures of their own."
    return "Each member is pooled at its own temperature."


def _candidates(selection: Selection) -> Block | None:
    """Show the best candidates by NLL, and the chosen one."""
    ranked = sorted(selection.candidates, key=lambda candidate: candidate.nll)
    shown = ranked[:CANDIDATES_SHOWN]
    shown += [c for c in ranked[CANDIDATES_SHOWN:] if c.name == selection.candidate]
    rows = [
        (
            f"{c.name} (chosen)" if c.name == selection.candidate else c.name,
            count(c.members), fixed(c.nll, 4), fixed(c.excess, 4), fixed(c.standard_error, 4),
            "yes" if c.tied else "no",
        )
        for c in shown
    ]  # fmt: skip
    return table(
        ("candidate", "members", "NLL", "above the lowest", "standard error", "tied"), rows,
        "lrrrrr",
        caption=f"The best of {count(len(ranked))} candidate ensembles, by out-of-fold NLL on "
        "holdout. Those within one standard error of the lowest are tied; of these, the first in "
        "this order is chosen: uniform weights before learned ones, raw probabilities before "
        "calibrated ones, members chosen with less fitting to holdout, larger ensembles.",
    )  # fmt: skip


def _members(facts: RunFacts, selection: Selection) -> Block | None:
    trials = {trial.trial: trial for trial in facts.trials}
    rows = []
    for member in selection.members:
        name = member.name
        trial = trials.get(name)
        member_accuracy, member_nll = _member_scores(facts, name)
        source = trial.kind if trial else DASH
        rows.append((
            name, "seed of the best" if source == "seed" else source,
            percent(member.weight), percent(member_accuracy), fixed(member_nll, 4),
            compact(trial.params if trial else None), duration(trial.seconds if trial else None),
        ))  # fmt: skip
    return table(
        ("member", "from", "weight", "accuracy", "NLL", "params", "training"), rows, "llrrrrr",
        caption="Members. Accuracy and NLL are those of each member alone on holdout, without a "
        "temperature.",
    )  # fmt: skip


def _member_scores(facts: RunFacts, name: str) -> tuple[float | None, float | None]:
    """Return a member's accuracy and NLL on holdout."""
    log_probs, labels = facts.member_log_probs.get(name), facts.holdout_labels
    if log_probs is None or labels is None:
        return None, None
    return accuracy(log_probs, labels), nll(log_probs, labels)


def _holdout_scores(selection: Selection) -> Block | None:
    scores: dict[str, Scores | BestSingle | Baseline | None] = {
        "ensemble": selection.metrics.holdout,
        "best_single": selection.best_single,
        "uniform_top_k": selection.uniform_top_k,
        "seeds_ensemble": selection.seeds_ensemble,
    }
    rows = [
        (stage_label(name), percent(score.accuracy), fixed(score.nll, 4),
         fixed(score.brier, 4), fixed(score.ece, 4))
        for name, score in scores.items()
        if score
    ]  # fmt: skip
    return table(
        ("stage", "accuracy", "NLL", "Brier", "ECE"), rows, "lrrrr",
        caption="Cross-fitted scores on holdout: each fifth is scored by a selection made "
        "without it.",
    )  # fmt: skip


def _comparisons(facts: RunFacts, selection: Selection) -> Block | None:
    decimals = decimals_for(facts.sizes.get("holdout", 0))
    return table(
        ("a − b", "metric", "difference", "95% interval", "a is"),
        [
            (f"{item.a} − {item.b}", item.metric, item.value, item.interval,
             verdict_cell(item.verdict))
            for item in difference_cells(selection.comparisons, decimals)
        ],
        "llrrl",
        caption="Paired differences on holdout, cross-fitted.",
    )  # fmt: skip


def _front(selection: Selection) -> str:
    """Name the networks that no other one beats in NLL, size and latency at once."""
    trials = [point for point in selection.front if point.kind == "trial"]
    front = [point for point in trials if point.efficient]
    if not front:
        return ""
    named = ", ".join(
        f"{point.name} ({fixed(point.nll, 4)} nats, {file_size(point.bytes)}, "
        f"{milliseconds(point.latency_ms)})"
        for point in front
    )
    over = sum(bool(point.over) for point in trials)
    return f"On the Pareto front of NLL, size and latency: {named}." + (
        f" {plural(over, 'trial is', 'trials are')} over the run's budgets." if over else ""
    )


def _front_caption() -> str:
    return (
        "NLL on holdout against the cost of the file that would ship: int8, or fp32 where that is "
        "faster. An ensemble costs the sum of its members. Filled: on the Pareto front of the "
        "three. NLL is measured before quantization: trials at their own temperature, ensembles "
        "cross-fitted. No intervals: the comparisons above have them."
    )


def _diversity(facts: RunFacts, selection: Selection) -> str:
    measured = selection.diversity
    if measured.disagreement is None:
        return ""
    duplicates = [" and ".join(pair) for pair in measured.near_duplicates]
    nearly_equal = f"; nearly identical: {', '.join(duplicates)}" if duplicates else ""
    return (
        f"On average, two members predict different classes on {percent(measured.disagreement)} "
        f"of the images and are both wrong on {percent(measured.double_fault)}. Pooling "
        f"lowers the NLL by {fixed(measured.pooling_gain, 4)} nats from the members' "
        f"weighted mean{_pooling_interval(facts)}{nearly_equal}."
    )


def _pooling_interval(facts: RunFacts) -> str:
    """Return the bootstrap interval, over images, of the NLL that pooling saves."""
    labels, known = facts.holdout_labels, facts.member_log_probs
    members = facts.selection.members if facts.selection else ()
    if labels is None or len(members) < 2 or any(m.name not in known for m in members):
        return ""
    shares = np.array([member.weight for member in members])[:, None]
    losses = np.stack([nll_per_example(m.as_pooled(known[m.name]), labels) for m in members])
    pooled = -np.log((shares * np.exp(-losses)).sum(axis=0))
    gains = (shares * losses).sum(axis=0) - pooled
    means = bootstrap_means(gains, rng=numpy_generator(facts.spec.seed, "report", "pooling"))
    low, high = np.quantile(means, [0.025, 0.975])
    return f" (95% interval {fixed(low, 4)} to {fixed(high, 4)}, bootstrap over images)"


def _diversity_caption(facts: RunFacts) -> str:
    if facts.holdout_labels is None or not len(facts.holdout_labels):
        return "How often two members predict different classes, and each member's weight."
    images = len(facts.holdout_labels)
    return (
        f"Diversity of the members on holdout, as shares of its images (n = {count(images)}): how "
        "often two members predict different classes; how often both are wrong (on the diagonal: "
        "how often one is); and each member's weight against its own accuracy. A share of 5% has "
        f"a 95% interval of ±{fixed(100 * _half_width(images), 1)} points. Disagreement alone "
        "is no gain: the gain is the NLL that pooling saves, given in the text."
    )


def _half_width(images: int) -> float:
    """Return half the width of the normal 95% interval of a share of 5%."""
    return float(1.96 * np.sqrt(0.05 * 0.95 / images))


def _compute(selection: Selection) -> str:
    seconds = selection.compute
    parts = [
        f"{stage_label(name)} {duration(seconds[f'{name}_seconds'])}"
        for name in CANDIDATES
        if seconds.get(f"{name}_seconds") is not None
    ]
    if not parts:
        return ""
    return f"Training time: {', '.join(parts)}; whole pool {duration(seconds.get('pool_seconds'))}."
