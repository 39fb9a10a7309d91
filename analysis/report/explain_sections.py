"""The report's sections on single answers: what is confused, where nets look, what attention does.

Axes: N images of test, K classes.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.explain.attention import AttentionFacts, GateFacts, KindFacts, compare_kinds
from analysis.explain.confusions import ConfusedPair
from analysis.explain.examples import COPIES, EACH, NOISE, PERCENTILE, Chosen
from analysis.explain.pictures import (
    confused_pairs,
    explained_stage,
    net_with_attention,
    stage_confusions,
)
from analysis.facts.data_facts import CELLS
from analysis.facts.run_facts import RunFacts
from analysis.figures.fonts import Lettering
from analysis.report.blocks import Block, Cell, figure, section, table, text
from analysis.text.wording import NOT_DISTINGUISHABLE, label
from common.formats import (
    DASH,
    count,
    fixed,
    percent,
    percent_range,
    plural,
    shorten,
    shorten_all,
    signed,
    signed_range,
)
from common.statistics.intervals import proportion_interval

Drawn = Collection[str]
Floats = NDArray[np.floating[Any]]

KINDS = {"se": "SE", "eca": "ECA", "cbam": "CBAM", "none": "none"}


def confused_section(facts: RunFacts, letters: Lettering, drawn: Drawn) -> Block | None:
    """The pairs of classes with the most errors on test."""
    stage = explained_stage(facts)
    matrix = stage_confusions(facts, stage)
    if stage is None or matrix is None:
        return None
    pairs = confused_pairs(facts)
    wrong = int(matrix.sum() - matrix.trace())
    images = plural(int(matrix.sum()), "image")
    if not pairs:
        nothing = (
            f"The {label(stage)} is wrong on {count(wrong)} of {images} of test, and takes no "
            "class for the same other class twice: there is no pattern to show."
        )
        return section("What is taken for what", text(nothing))
    share = sum(pair.errors for pair in pairs) / wrong
    return section(
        "What is taken for what",
        text(
            f"The {label(stage)} is wrong on {count(wrong)} of {images} of test; the "
            f"{plural(len(pairs), 'pair')} below {'holds' if len(pairs) == 1 else 'hold'} "
            f"{percent(share)} of these errors.",
            _chance(pairs, len(matrix)),
        ),
        _pairs_table(facts, letters, pairs, len(matrix)),
        figure("confused", _confused_caption(facts, stage), drawn=drawn),
    )


def _chance(pairs: tuple[ConfusedPair, ...], classes: int) -> str:
    if classes == 2:
        return ""
    beyond = sum(pair.beyond_chance for pair in pairs)
    which = "all of them" if beyond == len(pairs) > 1 else count(beyond) if beyond else "none"
    return (
        f"Of the pairs, {which} {'holds' if beyond < 2 else 'hold'} more than chance would give "
        "if the errors of a class fell evenly on all others (exact binomial test at 5%, corrected "
        f"for all {count(classes * (classes - 1))} pairs)."
    )


def _pairs_table(
    facts: RunFacts, letters: Lettering, pairs: tuple[ConfusedPair, ...], classes: int
) -> Block | None:
    """Each pair with its rate; beside an ensemble's errors, those of the best single net."""
    names = shorten_all(letters.names, 20)
    single = stage_confusions(facts, "best_single")
    beside = single if explained_stage(facts) == "ensemble" else None
    header = ["truth → answer", "errors", "of images", "rate", "95% interval", "the other way"]
    header += ["best single"] if beside is not None else []
    header += ["more than chance"] if classes > 2 else []
    lines: list[list[Cell]] = []
    for pair in pairs:
        ends = (pair.interval.low, pair.interval.high)
        line: list[Cell] = [
            f"{names[pair.truth]} → {names[pair.answer]}",
            count(pair.errors), count(pair.images), percent(pair.rate),
            f"{percent_range(ends)}%", count(pair.reverse),
        ]  # fmt: skip
        if beside is not None:
            line.append(count(int(beside[pair.truth, pair.answer])))
        if classes > 2:
            line.append("shown" if pair.beyond_chance else "not shown")
        lines.append(line)
    return table(
        header, lines, "l" + "r" * (len(header) - 1),
        caption="The most confused pairs. Intervals are Wilson's, for each rate by itself; pairs "
        "picked because they are large look larger here than they will on new images.",
    )  # fmt: skip


def _confused_caption(facts: RunFacts, stage: str) -> str:
    size = facts.data.image_size
    return (
        f"Up to {EACH} images of each of these pairs, truth → answer: those on which the "
        f"{label(stage)} is most confident, with the probability that it gives to its answer"
        + (f". {size}×{size} pixels, as the nets get them." if size else ".")
    )


def explained_section(facts: RunFacts, letters: Lettering, drawn: Drawn) -> Block | None:
    """Grad-CAM and saliency of a hit and a miss of each class, or why there is none."""
    stage, data = explained_stage(facts), facts.data
    if stage is None:
        return None
    skipped = [f"{name}: {shorten(why, 80)}" for name, why in data.maps.skipped.items()]
    if data.chosen is None or not data.maps.columns():
        reason = data.not_explained or data.missing
        why = "; ".join([*([reason] if reason else []), *skipped]) or "no net has been chosen yet"
        return section("Where the nets look", text(f"Not shown: {why}."))
    return section(
        "Where the nets look",
        text(
            "Explanations of answers, not measures of quality: a map says where the evidence "
            "lies that a net used, not that it is good evidence. Nothing here is estimated, so "
            "nothing has an interval.",
            f"Not explained: {'; '.join(skipped)}." if skipped else "",
        ),
        figure("explained", _explained_caption(facts, stage, data.chosen, letters), drawn=drawn),
    )


def _explained_caption(facts: RunFacts, stage: str, chosen: Chosen, letters: Lettering) -> str:
    shown, maps = len(chosen.classes), facts.data.maps
    some = (
        f"the {shown} of {count(len(letters.names))} classes with the most errors"
        if shown < len(letters.names)
        else "each class"
    )
    methods = {method for method, _, _ in maps.columns()}
    parts = [
        f"For {some}: the hit (✓) of median confidence and the miss (✗) of highest confidence of "
        f"the {label(stage)} on test, chosen by this rule alone, with the probability of the "
        "answer. Bright: what counts for that answer.",
        _grad_cam_words() if "Grad-CAM" in methods else "",
        _saliency_words() if "saliency" in methods else "",
        f"Best single: {maps.trial}, for the same answer." if maps.ensemble and maps.single else "",
        "Ensemble: the members' maps, each scaled by itself, averaged by weight; paler where "
        "members disagree."
        if maps.ensemble
        else "",
    ]
    return " ".join(part for part in parts if part)


def _grad_cam_words() -> str:
    return (
        f"Grad-CAM: the last layer with at least {CELLS} × {CELLS} cells, over the image in grey; "
        "the line bounds the upper half."
    )


def _saliency_words() -> str:
    return (
        "Saliency: the gradient of the answer's log-probability by pixel, squared and "
        f"averaged over {COPIES} copies with noise of {percent(NOISE, 0)} of the image's range "
        f"(SmoothGrad), the largest over the colours, 1 at the {PERCENTILE:.0f}th percentile."
    )


def attention_section(facts: RunFacts, drawn: Drawn) -> Block | None:
    """What attention does in a net of the run, and how the search's trials with it compare."""
    net, kinds = net_with_attention(facts), compare_kinds(facts.trials)
    if net is None and not kinds:
        return None
    found, data = facts.data.attention, facts.data
    why = data.not_measured or data.missing
    return section(
        "What attention changes",
        text(_effect(found)) if found is not None else None,
        _gates_table(found) if found is not None else None,
        text(f"The gates of {net[0]} ({KINDS.get(net[1], net[1])}) are not shown: {why}.")
        if found is None and net is not None and why
        else None,
        figure("attention", _channels_caption(found), drawn=drawn),
        figure("attention_places", _places_caption(), drawn=drawn),
        _kinds_table(facts, kinds),
    )


def _effect(found: AttentionFacts) -> str:
    """What is lost when the gates no longer follow the image."""
    changed = proportion_interval(found.changed, found.holdout)
    loss, ends = found.loss, (found.loss.interval.low, found.loss.interval.high)
    reading = "" if loss.distinguishable else f", which is {NOT_DISTINGUISHABLE} from none"
    return (
        f"The net of {found.trial} has {KINDS.get(found.kind, found.kind)} attention: gates "
        "that multiply each map. A gate that is the same for every image is a constant of the "
        "net and attends to nothing; so the net was asked again with every gate held at its "
        f"mean over {plural(found.images, 'image')} of val. On {plural(found.holdout, 'image')} "
        f"of holdout, {count(found.changed)} answers change "
        f"({percent(found.changed / found.holdout)}, 95% interval "
        f"{percent_range((changed.low, changed.high))}%), and accuracy by "
        f"{signed(100 * loss.value, 1)} points (95% interval "
        f"{signed_range((100 * ends[0], 100 * ends[1]), 1)}){reading}. That is what this net "
        "owes to gates that follow the image, not what it would be if trained without them."
    )


def _gates_table(found: AttentionFacts) -> Block | None:
    def line(gate: GateFacts) -> list[Cell]:
        ends = (float(gate.mean.min()), float(gate.mean.max()))
        what = f"{gate.side}×{gate.side} places" if gate.side else f"{len(gate.mean)} channels"
        return [
            gate.name.removesuffix(", channels").removesuffix(", places"), what,
            fixed(float(gate.mean.mean()), 3), f"{fixed(ends[0], 2)} to {fixed(ends[1], 2)}",
            fixed(_rms(gate.between), 4), fixed(_rms(gate.within), 4), percent(gate.share, 0),
        ]  # fmt: skip

    return table(
        ("after", "gate for", "mean", "range of means", "between classes", "within a class",
         "share between"),
        [line(gate) for gate in found.gates], "llrrrrr",
        caption="Gates lie between 0 and 1. Standard deviations over images, between the means of "
        "the classes and within a class, as root mean squares over the gate's values; the share is "
        f"that of the variance. n = {plural(found.images, 'image')} of val.",
    )  # fmt: skip


def _channels_caption(found: AttentionFacts | None) -> str:
    images = "" if found is None else f" over {plural(found.images, 'image')} of val"
    return (
        f"The channel gates of {found.trial if found else 'the net'}{images}. Above: each "
        "channel's mean, and its spread between classes and within them. Below: how the mean of "
        "each class (row) departs from the mean of all, channel by channel."
    )


def _places_caption() -> str:
    return (
        "The spatial gates for typical hits of each class: bright places are kept, dark ones "
        "damped. Each row has its own scale, given at its left."
    )


def _kinds_table(facts: RunFacts, kinds: tuple[KindFacts, ...]) -> Block | None:
    if not kinds:
        return None
    rung = kinds[0].rung
    lines: list[list[Cell]] = [
        [
            KINDS.get(kind.kind, kind.kind), count(kind.trials), fixed(kind.mean, 4),
            DASH if kind.difference is None else signed(kind.difference, 4),
            DASH if kind.interval is None
            else signed_range((kind.interval.low, kind.interval.high), 4),
        ]
        for kind in kinds
    ]  # fmt: skip
    others = (
        " Their other values differ too, and the search tries more of what looked good: this is "
        "no controlled comparison. The command quorum ablate makes one."
        if len(facts.space.parameters) > 1
        else ""
    )
    return table(
        ("attention", "trials", "mean NLL", "difference from none", "95% interval"),
        lines, "lrrrr",
        caption="The search's trials by their kind of attention: NLL on val after "
        f"{plural(rung, 'epoch')}, the only rung that all reach, with Welch's interval.{others}",
    )  # fmt: skip


def _rms(values: Floats) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(values**2)))
