"""The report's section on the student: how it was taught and quantized, and what it lost.

Axes: N examples, K classes.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.facts.predictions import student_differences, student_stage
from analysis.facts.run_facts import RunFacts
from analysis.figures.classes import DIFFERENCES
from analysis.figures.fonts import Lettering
from analysis.report.blocks import Block, Cell, figure, pairs, section, table, text
from analysis.text.wording import GATES, comparison, decimals, difference_of, gate_label, label
from common.formats import (
    DASH,
    compact,
    count,
    duration,
    file_size,
    fixed,
    percent,
    plural,
    signed,
    significant,
    value_text,
)
from common.parsing import to_mapping
from common.statistics.intervals import proportion_interval
from ensemble.deployment.card import Artifact, Card
from ensemble.selection.comparison import compare

Drawn = Collection[str]


def student_section(facts: RunFacts, letters: Lettering, drawn: Drawn) -> Block | None:
    """How the student was taught and quantized, and what it costs.

    None for a run that has none and is not to deliver one.
    """
    card = facts.card
    if card is None and facts.spec.deliver != "student":
        return None
    if card is None:
        return section("The student", text("No student has been distilled yet."))
    taught = (
        f"The teacher was the ensemble of {plural(len(card.teacher), 'member')} at temperature "
        f"{fixed(card.teacher_temperature, 3)}; its share of the loss was "
        f"{value_text(card.alpha)} (α) at the softening temperature {value_text(card.tau)} (τ)."
        if card.alpha is not None
        else "It was trained without a teacher."
    )
    return section(
        "The student",
        text(
            f"A net of {compact(card.params)} parameters, trained for {count(card.steps)} steps in "
            f"{duration(card.train_seconds)}.",
            taught,
        ),
        _artifacts(card),
        _quantization(card),
        _against_ensemble(facts, letters),
        figure("student_classes", _classes_caption(facts), drawn=drawn),
        pairs(
            ((key, value_text(value)) for key, value in card.recipe.items()),
            caption="The student's recipe.",
        ),
    )


def _artifacts(card: Card) -> Block | None:
    lines = [_artifact(card.fp32)] + ([_artifact(card.int8)] if card.int8 else [])
    machine = str(card.machine.get("processor", ""))
    return table(
        ("file", "size", "temperature", "ms, one image", "95% interval", "images/s", "sha256"),
        lines,
        "lrrrrrl",
        caption=f"Measured on {machine or 'an unnamed machine'}, "
        f"{plural(card.fp32.latency.threads if card.fp32.latency else 1, 'thread')}. An int8 file "
        "can answer differently on another processor.",
    )


def _artifact(artifact: Artifact) -> list[Cell]:
    latency = artifact.latency
    return [
        artifact.file,
        file_size(artifact.bytes),
        fixed(artifact.temperature, 3),
        significant(latency.ms_batch1) if latency else DASH,
        " – ".join(fixed(limit, 3) for limit in latency.interval) if latency else DASH,
        compact(latency.images_per_second) if latency else DASH,
        artifact.sha256[:12],
    ]


def _quantization(card: Card) -> Block | None:
    if card.int8 is None or card.quantization is None:
        return text("There is no int8 file.")
    made = card.quantization
    tried = ", ".join(f"{name} {fixed(value, 4)}" for name, value in made.holdout_nll.items())
    sentences = [
        f"The int8 file was calibrated with {made.method} (NLL on holdout: {tried}) and has "
        f"{count(made.qdq_nodes)} quantize and dequantize nodes.",
    ]
    if card.parity:
        sentences.append(
            f"Int8 and fp32 name the same class on {percent(card.parity.agreement, 2)} of "
            f"{plural(card.parity.images, 'image')} of holdout; their probabilities differ by "
            f"{card.parity.mean_abs:.2g} on average, their log-probabilities by at most "
            f"{fixed(card.parity.max_abs, 3)} nats."
        )
    if card.speedup:
        sentences.append(
            f"In interleaved calls int8 is {fixed(card.speedup.value, 2)} times as fast as fp32, "
            f"and at least {fixed(card.speedup.bound, 2)} times with "
            f"{percent(card.speedup.level, 0)} confidence."
        )
    because = f" ({_in_words(card.released_because)})" if card.released_because else ""
    return text(*sentences, f"Released: {card.released}{because}.")


def _in_words(because: str) -> str:
    """`accuracy_loss undecided` → `loss of accuracy against the ensemble undecided`."""
    for name in GATES:
        because = because.replace(name, gate_label({"name": name}).rpartition(",")[0])
    return because


def _against_ensemble(facts: RunFacts, letters: Lettering) -> Block | None:
    """Agreement, accuracy, NLL and classes of the student that ships, against its teacher."""
    stage = student_stage(facts)
    labels = facts.test_labels
    if stage is None or labels is None:
        return None
    found = facts.test_log_probs
    digits = decimals(facts.ledger or {})
    sentences = [_agreement(found[stage], found["ensemble"], label(stage), digits)]
    for metric in ("accuracy", "nll"):
        item = difference_of(facts.ledger or {}, stage, "ensemble", metric) or to_mapping(
            compare(stage, "ensemble", metric, found, labels, seed=facts.spec.seed)
        )
        sentences.append(f"It is {comparison(item, 'the ensemble', digits)}.")
    classes = student_differences(facts)
    sure = [item for item in classes if item.distinguishable]
    named = ", ".join(
        f"“{letters.names[item.label]}” ({signed(100 * item.value, 1)} points)"
        for item in sorted(sure, key=lambda item: (item.value, item.label))[:5]
    )
    sentences.append(
        f"In {count(len(sure))} of {plural(len(classes), 'class', 'classes')} the two can be told "
        "apart: "
        f"{named}{' …' if len(sure) > 5 else ''}."
        if sure
        else f"In none of the {plural(len(classes), 'class', 'classes')} can the two be told apart."
    )
    return text(*sentences)


def _classes_caption(facts: RunFacts) -> str:
    stage = student_stage(facts)
    classes = 0 if facts.test_labels is None else len(np.unique(facts.test_labels))
    some = f" Shown: the {DIFFERENCES} classes that differ most." if classes > DIFFERENCES else ""
    return (
        f"The {label(stage or '')} against its teacher, class by class on test (in brackets: "
        f"images of the class). Paired intervals (bootstrap of up to 20,000 draws; Tango's where "
        f"few images differ) that hold for all {count(classes)} classes at once with 95% "
        f"confidence (Bonferroni). Hollow: zero lies inside.{some}"
    )


def _agreement(
    a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]], name: str, digits: int = 1
) -> str:
    """How often two sets of log-probabilities [N, K] name the same class, with its interval."""
    same, total = int((a.argmax(axis=1) == b.argmax(axis=1)).sum()), len(a)
    interval = proportion_interval(same, total)
    limits = f"{percent(interval.low, digits, sign=False)}–{percent(interval.high, digits)}"
    return (
        f"On {percent(same / total, digits)} of {count(total)} test images (95% interval {limits}) "
        f"the {name} names the ensemble's class."
    )
