"""The report's sections on the ensemble, the student, their calibration and their classes.

Axes: M members, N examples, K classes.
"""

from collections.abc import Collection, Mapping
from typing import Any

from analysis.blocks import Block, Cell, figure, pairs, section, table, text, toned
from analysis.facts import RunFacts
from analysis.formats import (
    DASH,
    compact,
    count,
    duration,
    file_size,
    fixed,
    minus,
    percent,
    plural,
    significant,
    value_text,
)
from analysis.wording import (
    difference_value,
    label,
    metric_label,
    verdict,
)
from ensemble.card import Artifact, Card
from trainables.metrics import accuracy, nll

Drawn = Collection[str]
Selection = Mapping[str, Any]

BASELINES = ("ensemble", "best_single", "uniform_top_k", "seeds_ensemble")


def ensemble_section(facts: RunFacts, drawn: Drawn) -> Block:
    """Who is in it, with which weight, what is certified, how they differ."""
    selection = facts.selection
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
            f"Certificate: no reweighting of these members lowers the NLL on holdout by more "
            f"than {_gap(selection.get('gap_support'))} nats, and none of the whole pool by more "
            f"than {_gap(selection.get('gap_pool'))}. This certifies the optimization on those "
            "images; it promises nothing for new ones.",
            "The weights are uniform on purpose, so the gap is what learned weights would gain "
            "where they are fitted, not elsewhere."
            if selection.get("weighting") == "uniform"
            else "",
        ),
        _held_out(selection),
        _comparisons(selection),
        text(_diversity(selection), _compute(selection)),
        figure(
            "disagreement", "How the members differ, and what each is worth alone.", drawn=drawn
        ),
    )


def student_section(facts: RunFacts) -> Block:
    """How the student was taught and quantized, and what it costs."""
    card = facts.card
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
        pairs(
            ((key, value_text(value)) for key, value in card.recipe.items()),
            caption="The student's recipe.",
        ),
    )


def _reason(what: str, reason: object) -> str:
    return f"{what}: {minus(str(reason))}." if reason else ""


def _gap(value: float | None) -> str:
    return DASH if value is None else f"{value:.2g}"


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


def _comparisons(selection: Selection) -> Block | None:
    lines: list[list[Cell]] = [
        [f"{label(item['a'])} − {label(item['b'])}", metric_label(item["metric"]),
         *difference_value(item), toned(verdict(item))]
        for item in selection.get("comparisons") or []
    ]  # fmt: skip
    return table(
        ("a − b, on holdout", "metric", "difference", "95% interval", "a is"), lines, "llrrl"
    )


def _diversity(selection: Selection) -> str:
    found: Mapping[str, Any] = selection.get("diversity") or {}
    if found.get("disagreement") is None:
        return ""
    twins = [" and ".join(pair) for pair in found.get("near_duplicates") or []]
    near = f"; nearly the same: {', '.join(twins)}" if twins else ""
    return (
        f"Two members answer differently on {percent(found['disagreement'])} of the images on "
        f"average, and are both wrong on {percent(found.get('double_fault'))}; pooling lowers the "
        f"NLL by {fixed(found.get('pooling_gain'), 4)} nats against the members' weighted "
        f"mean{near}."
    )


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
    because = f" ({card.released_because})" if card.released_because else ""
    return text(*sentences, f"Released: {card.released}{because}.")
