"""The report's section on the ensemble.

Axes: M members, N examples, K classes.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from analysis.facts.run_facts import RunFacts
from analysis.report.blocks import Block, Cell, figure, section, table, text, toned
from analysis.text.wording import (
    difference_value,
    digits_of,
    label,
    metric_label,
    verdict,
)
from common.formats import (
    DASH,
    compact,
    count,
    duration,
    fixed,
    percent,
    plural,
    two_digits,
    with_minus_signs,
)
from common.seeds import numpy_generator
from common.statistics.intervals import bootstrap_means
from common.statistics.metrics import accuracy, nll, nll_per_example

Drawn = Collection[str]
Selection = Mapping[str, Any]

BASELINES = ("ensemble", "best_single", "uniform_top_k", "seeds_ensemble")


def ensemble_section(facts: RunFacts, drawn: Drawn) -> Block | None:
    """Who is in it, with which weight, what is certified, how they differ.

    None for a run that delivers a single net.
    """
    selection = facts.selection
    if facts.spec.deliver == "single":
        return None
    if selection is None:
        return section("The ensemble", text("No ensemble has been chosen yet."))
    return section(
        "The ensemble",
        text(
            f"The ensemble has {plural(len(selection['members']), 'member')} with "
            f"{selection.get('weighting', '')} weights, chosen on holdout from a pool of "
            f"{plural(int(selection.get('pool_size') or 0), 'finished trial')}. Its pooled "
            f"probabilities have the temperature {fixed(selection['temperature'], 3)}.",
            _reason("Weights", selection.get("weighting_reason")),
            _reason("Members", selection.get("source_reason")),
        ),
        _members(facts, selection),
        text(
            "Certificate: no reweighting of these members lowers the NLL on holdout by more than "
            f"{two_digits(selection.get('gap_support'))} nats, and no reweighting of the whole "
            f"pool by more than {two_digits(selection.get('gap_pool'))}. This certifies the "
            "optimization on holdout, not the generalization to new images.",
            "The weights are uniform on purpose, so the gap is what learned weights would gain "
            "where they are fitted, not elsewhere."
            if selection.get("weighting") == "uniform"
            else "",
        ),
        _held_out(selection),
        _comparisons(facts, selection),
        text(_diversity(facts, selection), _compute(selection)),
        figure("disagreement", _diversity_caption(facts), drawn=drawn),
    )


def _reason(what: str, reason: object) -> str:
    return f"{what}: {with_minus_signs(str(reason))}." if reason else ""


def _members(facts: RunFacts, selection: Selection) -> Block | None:
    trials = {trial.trial: trial for trial in facts.trials}
    lines = []
    for member in selection["members"]:
        trial = trials.get(str(member["name"]))
        alone = _alone(facts, str(member["name"]))
        lines.append([
            str(member["name"]),
            (trial.kind if trial else DASH).replace("seed", "seed of the best"),
            percent(float(member["weight"])),
            percent(alone[0]), fixed(alone[1], 4),
            compact(trial.params if trial else None),
            duration(trial.seconds if trial else None),
        ])  # fmt: skip
    return table(
        ("member", "from", "weight", "accuracy", "NLL", "params", "training"), lines, "llrrrrr",
        caption="Members; accuracy and NLL of each alone on holdout, before any temperature.",
    )  # fmt: skip


def _alone(facts: RunFacts, name: str) -> tuple[float | None, float | None]:
    """A member's accuracy and NLL on holdout."""
    log_probs, labels = facts.member_log_probs.get(name), facts.holdout_labels
    if log_probs is None or labels is None:
        return None, None
    return accuracy(log_probs, labels), nll(log_probs, labels)


def _held_out(selection: Selection) -> Block | None:
    scores = {"ensemble": (selection.get("metrics") or {}).get("holdout")}
    scores |= {name: selection.get(name) for name in BASELINES[1:]}
    lines = [
        [label(name), percent(score.get("accuracy")), fixed(score.get("nll"), 4),
         fixed(score.get("brier"), 4), fixed(score.get("ece"), 4)]
        for name, score in scores.items()
        if score
    ]  # fmt: skip
    return table(
        ("on holdout, cross-fitted", "accuracy", "NLL", "Brier", "ECE"), lines, "lrrrr",
        caption="Each fifth of holdout is scored by a selection made without it.",
    )  # fmt: skip


def _comparisons(facts: RunFacts, selection: Selection) -> Block | None:
    digits = digits_of(facts.sizes.get("holdout", 0))
    lines: list[list[Cell]] = [
        [f"{label(item['a'])} − {label(item['b'])}", metric_label(item["metric"]),
         *difference_value(item, digits), toned(verdict(item))]
        for item in selection.get("comparisons") or []
    ]  # fmt: skip
    return table(
        ("a − b", "metric", "difference", "95% interval", "a is"),
        lines,
        "llrrl",
        caption="Paired differences on holdout, cross-fitted.",
    )


def _diversity(facts: RunFacts, selection: Selection) -> str:
    found: Mapping[str, Any] = selection.get("diversity") or {}
    if found.get("disagreement") is None:
        return ""
    twins = [" and ".join(pair) for pair in found.get("near_duplicates") or []]
    near = f"; nearly the same: {', '.join(twins)}" if twins else ""
    return (
        f"Two members answer differently on {percent(found['disagreement'])} of the images on "
        f"average, and are both wrong on {percent(found.get('double_fault'))}; pooling lowers the "
        f"NLL by {fixed(found.get('pooling_gain'), 4)} nats against the members' weighted "
        f"mean{_gain_interval(facts)}{near}."
    )


def _gain_interval(facts: RunFacts) -> str:
    """The bootstrap interval over images of what pooling buys."""
    labels, weights = facts.holdout_labels, facts.weights
    if labels is None or set(weights) - set(facts.member_log_probs) or len(weights) < 2:
        return ""
    shares = np.array(list(weights.values()))[:, None]
    losses = np.stack([nll_per_example(facts.member_log_probs[name], labels) for name in weights])
    pooled = -np.log((shares * np.exp(-losses)).sum(axis=0))
    gains = (shares * losses).sum(axis=0) - pooled
    means = bootstrap_means(gains, rng=numpy_generator(facts.spec.seed, "report", "pooling"))
    low, high = np.quantile(means, [0.025, 0.975])
    return f" (95% interval {fixed(low, 4)} to {fixed(high, 4)}, bootstrap over images)"


def _diversity_caption(facts: RunFacts) -> str:
    images = 0 if facts.holdout_labels is None else len(facts.holdout_labels)
    return (
        "How the members differ on holdout, as shares of its images"
        + (f" (n = {count(images)})" if images else "")
        + ": how often two answer differently, how often both are wrong (on the diagonal: how "
        "often one is), and each one's weight with its accuracy alone. A share of 5% has a 95% "
        f"interval of ±{fixed(100 * _half_width(images), 1)} points. That members differ is no "
        "gain in itself: the gain is the NLL that pooling saves, in the text."
        if images
        else "How often two members answer differently, and each one's weight."
    )


def _half_width(images: int) -> float:
    """Half of the normal interval of a share of 5%."""
    return float(1.96 * np.sqrt(0.05 * 0.95 / max(images, 1)))


def _compute(selection: Selection) -> str:
    seconds: Mapping[str, Any] = selection.get("compute") or {}
    parts = [
        f"{label(name)} {duration(seconds[f'{name}_seconds'])}"
        for name in BASELINES
        if seconds.get(f"{name}_seconds") is not None
    ]
    if not parts:
        return ""
    whole = duration(seconds.get("pool_seconds"))
    return f"Training behind each choice: {', '.join(parts)}; the whole pool {whole}."
