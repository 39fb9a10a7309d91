"""The section on the student: distillation, files, quantization, and the gap to its teacher.

Axes: N examples, K classes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.facts.predictions import student_differences, student_stage
from analysis.facts.run_facts import RunFacts
from analysis.figures.classes import DIFFERENCES
from analysis.figures.fonts import Lettering
from analysis.report.blocks import Block, Figure, Section, pairs, section, table, text
from analysis.report.summary import untaught_sentence
from analysis.text.labels import reason_text, stage_label
from analysis.text.ledger import decimals_on_test, difference_of
from analysis.text.sentences import comparison
from common.formats import (
    DASH,
    compact,
    count,
    duration,
    file_size,
    fixed,
    percent,
    percent_range,
    plural,
    signed,
    two_digits,
    value_text,
)
from common.statistics.intervals import proportion_interval
from ensemble.deployment.card import Artifact, Card
from ensemble.selection.comparison import compare

MOST_CLASSES = 5
"""Maximum number of classes named where student and ensemble differ."""


def student_section(facts: RunFacts, letters: Lettering) -> Section | None:
    """Report on the student; None for a run that has none and does not plan one."""
    card = facts.card
    if card is None and facts.spec.deliver != "student":
        return None
    if card is None:
        return section("The student", text("No student has been distilled yet."))
    teaching = (
        f"The teacher was the ensemble of {plural(len(card.teacher), 'member')} at temperature "
        f"{fixed(card.teacher_temperature, 3)}. The teacher's share of the loss was "
        f"α = {value_text(card.alpha)}, at the distillation temperature "
        f"τ = {value_text(card.tau)}."
        if card.alpha is not None
        else "It was trained without a teacher."
    )
    trained = (
        (
            f"The student has {compact(card.params)} parameters and was trained for "
            f"{count(card.steps)} steps in {duration(card.train_seconds)}.",
            teaching,
        )
        if card.steps
        else (f"The student has {compact(card.params)} parameters.", untaught_sentence(facts))
    )
    return section(
        "The student",
        text(*trained),
        _files(card),
        _quantization(card),
        _against_ensemble(facts, letters),
        Figure(name="student_classes", caption=_classes_caption(facts)),
        pairs(
            ((key, value_text(value)) for key, value in card.recipe.items()),
            caption="The student's recipe.",
        ),
    )


def _files(card: Card) -> Block | None:
    artifacts = [card.fp32] + ([card.int8] if card.int8 else [])
    machine = str(card.machine.get("processor", "")) or "an unnamed machine"
    threads = card.fp32.latency.threads if card.fp32.latency else 1
    return table(
        ("file", "size", "temperature", "ms, one image", "95% interval", "images/s", "sha256"),
        [_file(artifact) for artifact in artifacts],
        "lrrrrrl",
        caption=f"Measured on {machine}, {plural(threads, 'thread')}. An int8 file can give "
        "different predictions on another processor.",
    )


def _file(artifact: Artifact) -> tuple[str, ...]:
    latency = artifact.latency
    return (
        artifact.file,
        file_size(artifact.bytes),
        fixed(artifact.temperature, 3),
        fixed(latency.ms_batch1, 3) if latency else DASH,
        "–".join(fixed(limit, 3) for limit in latency.interval) if latency else DASH,
        compact(latency.images_per_second) if latency else DASH,
        artifact.sha256[:12],
    )


def _quantization(card: Card) -> Block | None:
    quantization = card.quantization
    if card.int8 is None or quantization is None:
        return text("There is no int8 file.")
    tried = ", ".join(
        f"{name} {fixed(value, 4)}" for name, value in quantization.holdout_nll.items()
    )
    sentences = [
        f"The int8 file was calibrated with {quantization.method} (NLL on holdout: {tried}) and "
        f"has {count(quantization.qdq_nodes)} quantize and dequantize nodes.",
    ]
    if card.parity:
        sentences.append(
            f"Int8 and fp32 predict the same class on {percent(card.parity.agreement, 2)} of "
            f"{plural(card.parity.images, 'holdout image')}; their log-probabilities differ by "
            f"{two_digits(card.parity.mean_abs)} nats on average and by at most "
            f"{fixed(card.parity.max_abs, 3)} nats."
        )
    if card.speedup:
        sentences.append(
            f"In interleaved calls, int8 is {fixed(card.speedup.value, 2)} times as fast as fp32 "
            f"(at least {fixed(card.speedup.bound, 2)} times, with "
            f"{percent(card.speedup.level, 0)} confidence)."
        )
    reason = f" ({reason_text(card.released_because)})" if card.released_because else ""
    return text(*sentences, f"Released file: {card.released}{reason}.")


def _against_ensemble(facts: RunFacts, letters: Lettering) -> Block | None:
    """Compare the student that ships with its teacher: agreement, accuracy, NLL, classes."""
    stage = student_stage(facts)
    labels = facts.test_labels
    if stage is None or labels is None:
        return None
    log_probs = facts.test_log_probs
    decimals = decimals_on_test(facts.ledger)
    sentences = [_agreement(log_probs[stage], log_probs["ensemble"], stage_label(stage), decimals)]
    for metric in ("accuracy", "nll"):
        item = difference_of(facts.ledger, stage, "ensemble", metric) or compare(
            stage, "ensemble", metric, log_probs, labels, seed=facts.spec.seed
        )
        sentences.append(f"It is {comparison(item, 'the ensemble', decimals)}.")
    return text(*sentences, _differing_classes(facts, letters))


def _differing_classes(facts: RunFacts, letters: Lettering) -> str:
    classes = student_differences(facts)
    differing = [item for item in classes if item.distinguishable]
    if not differing:
        return f"They are not distinguishable in any of {plural(len(classes), 'class', 'classes')}."
    named = ", ".join(
        f"“{letters.names[item.label]}” ({signed(100 * item.value, 1)} points)"
        for item in sorted(differing, key=lambda item: (item.value, item.label))[:MOST_CLASSES]
    )
    more = " …" if len(differing) > MOST_CLASSES else ""
    return (
        f"They are distinguishable in {count(len(differing))} of "
        f"{plural(len(classes), 'class', 'classes')}: {named}{more}."
    )


def _classes_caption(facts: RunFacts) -> str:
    stage = student_stage(facts)
    classes = 0 if facts.test_labels is None else len(np.unique(facts.test_labels))
    partial = (
        f" Shown: the {DIFFERENCES} classes that differ most." if classes > DIFFERENCES else ""
    )
    return (
        f"The {stage_label(stage or '')} against its teacher, class by class on test (in brackets: "
        "images of the class). Paired intervals (bootstrap of up to 20,000 draws; Tango's where "
        f"few images differ) that hold for all {count(classes)} classes at once with 95% "
        f"confidence (Bonferroni). Hollow: the interval contains zero.{partial}"
    )


def _agreement(
    a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]], name: str, decimals: int = 1
) -> str:
    """Report how often two sets of log-probabilities [N, K] predict the same class."""
    same, total = int((a.argmax(axis=1) == b.argmax(axis=1)).sum()), len(a)
    interval = proportion_interval(same, total)
    limits = percent_range((interval.low, interval.high), decimals, sign=True)
    return (
        f"The {name} agrees with the ensemble on {percent(same / total, decimals)} of "
        f"{count(total)} test images (95% interval {limits})."
    )
