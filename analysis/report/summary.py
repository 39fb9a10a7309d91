"""What to ship and how sure it is: the report's first paragraph, from ledger and gates."""

from collections.abc import Sequence

from analysis.facts.ladder import judged
from analysis.facts.run_facts import RunFacts
from analysis.report.plan_sections import seeds_note
from analysis.text.wording import (
    NOT_DISTINGUISHABLE,
    Ledger,
    Row,
    accuracy_text,
    comparisons,
    decimals,
    differences_of,
    gate_label,
    gates_verdict,
    label,
    metric_label,
    row_of,
    shipped_stage,
    sizes,
    verdict,
)
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
from common.parsing import to_mapping
from ensemble.selection.comparison import compare


def summary(facts: RunFacts) -> list[str]:
    """For a reader with one minute: what to ship, then a line for each reason."""
    if facts.ledger is None:
        return [_unfinished(facts)]
    stage = shipped_stage(facts.ledger)
    if stage is None:
        about_test = _about_test(facts.ledger)
        return [
            _without_student(facts),
            *_about_target(facts),
            *_about_ensemble(facts),
            *about_test,
        ]
    return [
        f"{_ship(facts, stage)} {_about_gates(facts.ledger)}",
        *_about_target(facts),
        *_about_student(facts, stage),
        *_about_ensemble(facts),
        *_about_test(facts.ledger),
    ]


def key_figures(facts: RunFacts) -> list[dict[str, str]]:
    """Four figures for the head of the report: title, value, note."""
    if facts.ledger is None:
        return []
    stage = shipped_stage(facts.ledger) or (
        "ensemble" if row_of(facts.ledger, "ensemble") else "best_single"
    )
    row = row_of(facts.ledger, stage)
    if row is None:
        return []
    digits = decimals(facts.ledger)
    file = shipped_file(facts, stage)
    return [
        {"title": "ships" if file else "stands", "value": label(stage),
         "note": file or ("no student yet" if facts.spec.deliver == "student" else "no student")},
        {"title": "accuracy on test", "value": percent(row["accuracy"], digits),
         "note": f"95% interval {percent_range(row.get('accuracy_interval'), digits)}"},
        {"title": "size", "value": file_size(row.get("bytes")),
         "note": f"{compact(row.get('params'))} parameters"},
        {"title": "latency of one image", "value": milliseconds(row.get("latency_ms_batch1")),
         "note": f"{compact(row.get('images_per_second'))} images/s in batches"},
    ]  # fmt: skip


def shipped_file(facts: RunFacts, stage: str) -> str:
    """The file of a student's stage, or nothing."""
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
    of = f" of {count(images)} test images" if images else " on test"
    accuracy = accuracy_text(row, decimals(facts.ledger))
    cost = [file_size(row.get("bytes")), milliseconds(row.get("latency_ms_batch1"))]
    known = [part for part in cost if part != DASH]
    at = f", in {known[0]}" if known else ""
    if len(known) == 2:
        at += f" and {known[1]} an image"
    return (
        f"Ship student/{shipped_file(facts, stage)}. The {label(stage)} names the right class "
        f"for {accuracy}{of}{at}."
    )


def _about_gates(ledger: Ledger) -> str:
    gates = ledger.get("gates", [])
    decided = gates_verdict(ledger)
    if decided == "none":
        return "No gate has judged an int8 student, so the fp32 student ships."
    if decided == "pass":
        return f"All {plural(len(gates), 'release gate')} pass on holdout."
    held = [
        f"{gate_label(gate).rpartition(',')[0]} ({gate['verdict']})"
        for gate in gates
        if gate["verdict"] != "pass"
    ]
    return (
        f"The int8 student is held back and fp32 ships instead: not all of "
        f"{plural(len(gates), 'release gate')} pass: {'; '.join(held)}."
    )


def _about_student(facts: RunFacts, stage: str) -> list[str]:
    ledger = facts.ledger or {}
    digits = decimals(ledger)
    sentences = []
    teacher = _against_teacher(facts, stage)
    if teacher:
        against = comparisons(teacher, "the ensemble that taught it", digits)
        sentences.append(f"The {label(stage)} is {against}.")
    plain = differences_of(ledger, "student_fp32", "student_plain")
    if plain:
        other = "the same net trained as long without a teacher"
        sentences.append(
            f"{_bought(plain)}: the fp32 student is {comparisons(plain, other, digits)}."
        )
    return sentences


def _bought(differences: Sequence[Row]) -> str:
    """What distillation did, metric by metric: `Distillation paid in NLL, and …`."""
    words = {
        "better": "paid",
        "worse": "harmed",
        NOT_DISTINGUISHABLE: "bought nothing that this test could show",
    }
    parts = []
    for found, text in words.items():
        metrics = [metric_label(d["metric"]) for d in differences if verdict(d) == found]
        if metrics:
            parts.append(f"{text} in {' and '.join(metrics)}")
    return f"Distillation {', and '.join(parts)}"


def _against_teacher(facts: RunFacts, stage: str) -> list[Row]:
    """The ledger compares the int8 student; for fp32 the kept predictions are compared."""
    written = differences_of(facts.ledger or {}, stage, "ensemble")
    if written or facts.test_labels is None or not {stage, "ensemble"} <= set(facts.test_log_probs):
        return written
    return [
        to_mapping(
            compare(
                stage, "ensemble", metric, facts.test_log_probs, facts.test_labels,
                seed=facts.spec.seed,
            )
        )
        for metric in ("accuracy", "nll")
    ]  # fmt: skip


def _about_ensemble(facts: RunFacts) -> list[str]:
    ledger = facts.ledger or {}
    digits = decimals(ledger)
    rival = "the rival at equal cost" if not seeds_note(facts) else "of less compute, see below"
    others = {
        "best_single": "the best single trial",
        "seeds_ensemble": f"the seeds of the best configuration ({rival})",
    }
    same = []
    if (facts.selection or {}).get("source") == "seeds":
        del others["seeds_ensemble"]  # it would be compared with itself
        same.append(
            "The ensemble is the seeds of the best configuration: searched members in their "
            "place gained nothing that holdout could tell."
        )
    compared = [
        f"The ensemble is {comparisons(items, other, digits)}."
        for stage, other in others.items()
        if (items := differences_of(ledger, "ensemble", stage))
    ]
    return [*compared, *same]


def _about_test(ledger: Ledger) -> list[str]:
    reads = int(ledger.get("test_reads") or 1)
    if reads == 1:
        return []
    return [
        f"Test has been read {reads} times in this run. Only the first reading was of an untouched "
        "test set: a choice made after it may have been steered by what it showed."
    ]


def _without_student(facts: RunFacts) -> str:
    ledger = facts.ledger or {}
    row: Row | None = row_of(ledger, "ensemble") or row_of(ledger, "best_single")
    if row is None:
        return "The ledger has no rows yet, so there is nothing to ship."
    accuracy = accuracy_text(row, decimals(ledger))
    if facts.spec.deliver == "student":
        return (
            "There is no student yet, so there is nothing to ship. What stands is the "
            f"{label(row['stage'])}, with {accuracy} on test."
        )
    weights = ", ".join(f"trials/{name}/weights.safetensors" for name in facts.weights)
    return f"The {label(row['stage'])} reaches {accuracy} on test: {weights}."


def _about_target(facts: RunFacts) -> list[str]:
    """Whether the run's row is as accurate as its sweep asks for."""
    target = facts.spec.target
    if target is None or target.accuracy is None or facts.ledger is None:
        return []
    row = judged(facts.ledger, target)
    if row is None:
        return []
    asked = percent(target.accuracy, 0)
    if row["accuracy"] < target.accuracy:
        return [f"The sweep asks for {asked} on test, which was not reached."]
    sure = row["accuracy_interval"][0] >= target.accuracy
    return [
        f"The sweep asks for {asked} on test, which was reached"
        f"{'' if sure else ', though the interval begins below it'}."
    ]


def _unfinished(facts: RunFacts) -> str:
    best = facts.best
    if best is None:
        return "No trial of this run has been scored yet, and test has not been read."
    rung = best.rung or 0
    chosen = (facts.selection or {}).get("members", [])
    return " ".join((
        "This run has not reached its ledger.",
        f"An ensemble of {plural(len(chosen), 'member')} has been chosen." if chosen else "",
        f"The best trial so far is {best.trial}, with an NLL of {fixed(best.scores[rung], 4)} nats "
        f"on val after {plural(rung, 'epoch')}.",
        "Test has not been read, so nothing here says how good it is on new images.",
    ))  # fmt: skip
