"""The head of the report: key figures, what to ship, and the evidence for it."""

from collections.abc import Mapping, Sequence

from analysis.facts.run_facts import RunFacts
from analysis.report.blocks import KeyFigure
from analysis.report.evidence import Evidence, TargetVerdict, evidence_of
from analysis.text.labels import (
    NOT_DISTINGUISHABLE,
    gate_label,
    metric_label,
    reason_text,
    stage_label,
)
from analysis.text.ledger import (
    decimals_on_test,
    metrics_by_verdict,
    outcome_of,
    row_of,
    shipped_stage,
    sizes,
)
from analysis.text.sentences import accuracy_text, comparisons
from common.formats import (
    DASH,
    compact,
    count,
    file_size,
    fixed,
    milliseconds,
    percent,
    percent_range,
    plural,
)
from ensemble.ledger.ledger import Row
from ensemble.selection.comparison import Comparison

EFFECTS: Mapping[str, str] = {
    "better": "improved",
    "worse": "worsened",
    NOT_DISTINGUISHABLE: "made no measurable difference in",
}
"""The effect of distillation on a metric, in words, by its verdict."""


def summary(facts: RunFacts) -> list[str]:
    """Return the recommendation, then one sentence for each piece of evidence."""
    evidence = evidence_of(facts)
    if evidence is None:
        return [_unfinished(facts)]
    if evidence.stage is None:
        recommendation = _nothing_ships(facts) or _without_student(facts)
    else:
        recommendation = f"{_ship(facts, evidence.stage)} {_about_gates(evidence)}"
    return [
        recommendation,
        *_about_target(facts, evidence),
        *_about_student(facts, evidence),
        *_about_ensemble(facts, evidence),
        *_about_test(evidence),
    ]


def key_figures(facts: RunFacts) -> list[KeyFigure]:
    """Return what ships, its accuracy, its size and its latency."""
    if facts.ledger is None:
        return []
    stage = shipped_stage(facts.ledger) or (
        "ensemble" if row_of(facts.ledger, "ensemble") else "best_single"
    )
    row = row_of(facts.ledger, stage)
    if row is None:
        return []
    decimals = decimals_on_test(facts.ledger)
    file = shipped_file(facts, stage)
    absent = "no student yet" if facts.spec.deliver == "student" else "no student"
    if facts.ledger.candidates:
        absent = "nothing ships"
    return [
        KeyFigure(
            title="ships" if file else "best so far", value=stage_label(stage), note=file or absent
        ),
        KeyFigure(
            title="accuracy on test",
            value=percent(row.accuracy, decimals),
            note=f"95% interval {percent_range(row.accuracy_interval, decimals)}",
        ),
        KeyFigure(
            title="size",
            value=file_size(row.bytes),
            note=f"{compact(row.params)} parameters",
        ),
        KeyFigure(
            title="latency of one image",
            value=milliseconds(row.latency_ms_batch1),
            note=f"{compact(row.images_per_second)} images/s in batches",
        ),
    ]


def shipped_file(facts: RunFacts, stage: str) -> str:
    """Return the path of the released file in the run's folder; empty if `stage` does not ship."""
    if facts.ledger is None or stage != shipped_stage(facts.ledger):
        return ""
    if facts.release is not None:
        return f"student/{facts.release.file}"
    return "student/model.int8.onnx" if stage == "student_int8" else "student/model.onnx"


def _ship(facts: RunFacts, stage: str) -> str:
    assert facts.ledger is not None
    row = row_of(facts.ledger, stage)
    assert row is not None
    images = sizes(facts.ledger).get("test")
    on = f"of {count(images)} test images" if images else "of test"
    accuracy = accuracy_text(row.accuracy, row.accuracy_interval, decimals_on_test(facts.ledger))
    costs = {
        "a size of": file_size(row.bytes),
        "a latency of": milliseconds(row.latency_ms_batch1),
    }
    known = " and ".join(f"{name} {cost}" for name, cost in costs.items() if cost != DASH)
    return (
        f"Ship {shipped_file(facts, stage)}. The {stage_label(stage)} classifies "
        f"{accuracy} {on} correctly{f', at {known}' if known else ''}."
    )


def _about_gates(evidence: Evidence) -> str:
    if evidence.gates_verdict == "none":
        return "It was not judged by release gates."
    gates = plural(len(evidence.gates), "release gate")
    if evidence.gates_verdict == "pass":
        return f"It passes {'its only' if len(evidence.gates) == 1 else 'all'} {gates} on holdout."
    held = [f"{gate_label(gate.name)} ({gate.verdict})" for gate in evidence.held_by]
    return f"It does not pass {len(held)} of {gates} on holdout: {'; '.join(held)}."


def _nothing_ships(facts: RunFacts) -> str:
    """Say why no file ships; empty for a run without files."""
    ledger = facts.ledger
    if ledger is None or not ledger.candidates:
        return ""
    reasons = "; ".join(
        f"{stage_label(item.stage)}: {reason_text(item.outcome)}" for item in ledger.candidates
    )
    return f"Nothing ships: no file met the conditions for release on holdout ({reasons})."


def _about_student(facts: RunFacts, evidence: Evidence) -> list[str]:
    decimals = decimals_on_test(facts.ledger)
    sentences = []
    if evidence.stage is not None and evidence.against_teacher:
        taught = evidence.stage in ("student_int8", "student_fp32")
        ensemble = "its teacher, the ensemble," if taught else "the ensemble"
        against = comparisons(evidence.against_teacher, ensemble, decimals)
        sentences.append(f"The {stage_label(evidence.stage)} is {against}.")
    for stage in ("student_int8", "student_fp32"):
        outcome = outcome_of(facts.ledger, stage) if facts.ledger else ""
        if evidence.stage == "best_single_int8" and outcome:
            sentences.append(f"The {stage_label(stage)} does not ship: {reason_text(outcome)}.")
    if evidence.untaught:
        sentences.append(untaught_sentence(facts))
    if evidence.distillation:
        other = "the same network trained as long without a teacher"
        if evidence.twin_is_trial:
            other = "the trial it starts from, which training without a teacher made worse on val"
        sentences.append(
            f"{_effect_of_distillation(evidence.distillation)}: the fp32 student is "
            f"{comparisons(evidence.distillation, other, decimals)}."
        )
    return sentences


def untaught_sentence(facts: RunFacts) -> str:
    """Say why the student is a trial without further training."""
    card, single = facts.card, facts.single_card
    tried = card is not None and card.train_seconds > 0
    why = "distilling it further made it worse on val" if tried else "there was no time to distill"
    best = True
    if card is not None and card.untaught_because:  # cards of early versions do not say it
        why = card.untaught_because
        best = single is None or (card.recipe, card.seed) == (single.recipe, single.seed)
    which = "the best single" if best else "a"
    return f"The student is {which} trial without further training: {why}."


def _effect_of_distillation(differences: Sequence[Comparison]) -> str:
    """Summarize distillation metric by metric: `Distillation improved NLL, and …`."""
    metrics = metrics_by_verdict(differences)
    parts = [
        f"{effect} {' and '.join(map(metric_label, metrics[judged_as]))}"
        for judged_as, effect in EFFECTS.items()
        if judged_as in metrics
    ]
    return f"Distillation {', and '.join(parts)}"


def _about_ensemble(facts: RunFacts, evidence: Evidence) -> list[str]:
    decimals = decimals_on_test(facts.ledger)
    compute = "at equal compute" if evidence.equal_compute else "at less compute"
    others = {
        "the best single trial": evidence.against_single,
        f"the ensemble of seeds of the best configuration ({compute})": evidence.against_seeds,
    }
    compared = [
        f"The ensemble is {comparisons(items, other, decimals)}."
        for other, items in others.items()
        if items
    ]
    chosen_seeds = (
        "The ensemble consists of seeds of the best configuration: replacing them with "
        "searched trials gave no measurable gain on holdout."
    )
    return [*compared, *([chosen_seeds] if evidence.consists_of_seeds else [])]


def _about_test(evidence: Evidence) -> list[str]:
    if evidence.test_reads == 1:
        return []
    return [
        f"This run has read test {evidence.test_reads} times. Only the first reading used "
        "untouched data: later choices may have been influenced by its results."
    ]


def _without_student(facts: RunFacts) -> str:
    ledger = facts.ledger
    row: Row | None = row_of(ledger, "ensemble") or row_of(ledger, "best_single")
    if row is None:
        return "The ledger has no rows yet, so there is nothing to ship."
    accuracy = accuracy_text(row.accuracy, row.accuracy_interval, decimals_on_test(ledger))
    if facts.spec.deliver == "student":
        return (
            "There is no student yet, so there is nothing to ship. The best stage so far is the "
            f"{stage_label(row.stage)}, with {accuracy} on test."
        )
    weights = ", ".join(f"trials/{name}/weights.safetensors" for name in facts.weights)
    return f"The {stage_label(row.stage)} reaches {accuracy} on test. Its weights: {weights}."


def _about_target(facts: RunFacts, evidence: Evidence) -> list[str]:
    target = facts.spec.target
    if evidence.target is None or target is None:
        return []
    ends: Mapping[TargetVerdict, str] = {
        "reached": "reached",
        "reached, within error": "reached, but the interval includes lower values",
        "not reached": "not reached",
    }
    goal = percent(target.accuracy, 0)
    return [f"The sweep's target of {goal} on test was {ends[evidence.target]}."]


def _unfinished(facts: RunFacts) -> str:
    best = facts.best
    if best is None:
        return "No trial of this run has been scored yet, and test has not been read."
    rung = best.rung or 0
    members = facts.selection.members if facts.selection else ()
    return " ".join((
        "This run has no ledger yet.",
        f"An ensemble of {plural(len(members), 'member')} has been chosen." if members else "",
        f"The best trial so far is {best.trial}, with an NLL of {fixed(best.scores[rung], 4)} nats "
        f"on val after {plural(rung, 'epoch')}.",
        "Test has not been read, so accuracy on new images is not known yet.",
    ))  # fmt: skip
