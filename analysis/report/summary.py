"""The head of the report: key figures, what to ship, and the evidence for it."""

from collections.abc import Sequence

from analysis.facts.ladder import judged
from analysis.facts.run_facts import RunFacts
from analysis.report.blocks import KeyFigure
from analysis.report.forecast_section import unequal_compute_note
from analysis.text.labels import NOT_DISTINGUISHABLE, gate_label, metric_label, stage_label
from analysis.text.ledger import (
    decimals_on_test,
    differences_of,
    gates_verdict,
    row_of,
    shipped_stage,
    sizes,
    verdict,
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
from ensemble.ledger.ledger import Ledger, Row
from ensemble.selection.comparison import Comparison, compare


def summary(facts: RunFacts) -> list[str]:
    """Return the recommendation, then one sentence for each piece of evidence."""
    if facts.ledger is None:
        return [_unfinished(facts)]
    stage = shipped_stage(facts.ledger)
    if stage is None:
        recommendation, about_student = _without_student(facts), []
    else:
        recommendation = f"{_ship(facts, stage)} {_about_gates(facts.ledger)}"
        about_student = _about_student(facts, stage)
    return [
        recommendation,
        *_about_target(facts),
        *about_student,
        *_about_ensemble(facts),
        *_about_test(facts.ledger),
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
    """Return the file name of a student's stage; empty for other stages."""
    if stage == "student_int8":
        return facts.card.int8.file if facts.card and facts.card.int8 else "model.int8.onnx"
    if stage == "student_fp32":
        return facts.card.fp32.file if facts.card else "model.onnx"
    return ""


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
        f"Ship student/{shipped_file(facts, stage)}. The {stage_label(stage)} classifies "
        f"{accuracy} {on} correctly{f', at {known}' if known else ''}."
    )


def _about_gates(ledger: Ledger) -> str:
    gates = ledger.gates
    judged_as = gates_verdict(ledger)
    if judged_as == "none":
        return "No int8 student was judged by the release gates, so the fp32 student ships."
    if judged_as == "pass":
        return f"All {plural(len(gates), 'release gate')} pass on holdout."
    held = [f"{gate_label(gate.name)} ({gate.verdict})" for gate in gates if gate.verdict != "pass"]
    return (
        f"The fp32 student ships because {len(held)} of {plural(len(gates), 'release gate')} "
        f"did not pass for the int8 student: {'; '.join(held)}."
    )


def _about_student(facts: RunFacts, stage: str) -> list[str]:
    ledger = facts.ledger
    decimals = decimals_on_test(ledger)
    sentences = []
    teacher = _against_teacher(facts, stage)
    if teacher:
        against = comparisons(teacher, "its teacher, the ensemble,", decimals)
        sentences.append(f"The {stage_label(stage)} is {against}.")
    plain = differences_of(ledger, "student_fp32", "student_plain")
    if plain:
        other = "the same network trained as long without a teacher"
        sentences.append(
            f"{_effect_of_distillation(plain)}: the fp32 student is "
            f"{comparisons(plain, other, decimals)}."
        )
    return sentences


def _effect_of_distillation(differences: Sequence[Comparison]) -> str:
    """Summarize distillation metric by metric: `Distillation improved NLL, and …`."""
    effects = {
        "better": "improved",
        "worse": "worsened",
        NOT_DISTINGUISHABLE: "made no measurable difference in",
    }
    parts = []
    for judged_as, effect in effects.items():
        metrics = [metric_label(d.metric) for d in differences if verdict(d) == judged_as]
        if metrics:
            parts.append(f"{effect} {' and '.join(metrics)}")
    return f"Distillation {', and '.join(parts)}"


def _against_teacher(facts: RunFacts, stage: str) -> list[Comparison]:
    """Return the student's differences from the ensemble.

    The ledger compares only the int8 student; for fp32, saved predictions are compared.
    """
    written = differences_of(facts.ledger, stage, "ensemble")
    if written or facts.test_labels is None or not {stage, "ensemble"} <= set(facts.test_log_probs):
        return written
    return [
        compare(
            stage, "ensemble", metric, facts.test_log_probs, facts.test_labels,
            seed=facts.spec.seed,
        )
        for metric in ("accuracy", "nll")
    ]  # fmt: skip


def _about_ensemble(facts: RunFacts) -> list[str]:
    ledger = facts.ledger
    decimals = decimals_on_test(ledger)
    compute = "at equal compute" if not unequal_compute_note(facts) else "at less compute"
    others = {
        "best_single": "the best single trial",
        "seeds_ensemble": f"the ensemble of seeds of the best configuration ({compute})",
    }
    chosen_seeds = []
    if facts.selection is not None and facts.selection.source == "seeds":
        del others["seeds_ensemble"]  # It would be compared with itself.
        chosen_seeds.append(
            "The ensemble consists of seeds of the best configuration: replacing them with "
            "searched trials gave no measurable gain on holdout."
        )
    compared = [
        f"The ensemble is {comparisons(items, other, decimals)}."
        for stage, other in others.items()
        if (items := differences_of(ledger, "ensemble", stage))
    ]
    return [*compared, *chosen_seeds]


def _about_test(ledger: Ledger) -> list[str]:
    reads = ledger.test_reads
    if reads == 1:
        return []
    return [
        f"This run has read test {reads} times. Only the first reading used untouched data: "
        "later choices may have been influenced by its results."
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


def _about_target(facts: RunFacts) -> list[str]:
    """Compare the judged row with the sweep's target accuracy."""
    target = facts.spec.target
    if target is None or target.accuracy is None or facts.ledger is None:
        return []
    row = judged(facts.ledger, target)
    if row is None:
        return []
    goal = f"The sweep's target of {percent(target.accuracy, 0)} on test was"
    if row.accuracy < target.accuracy:
        return [f"{goal} not reached."]
    if row.accuracy_interval[0] < target.accuracy:
        return [f"{goal} reached, but the interval includes lower values."]
    return [f"{goal} reached."]


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
