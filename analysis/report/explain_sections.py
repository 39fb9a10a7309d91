"""The report's sections on single answers: what is confused, where nets look, what attention does.

Axes: N images of test, K classes.
"""

from collections.abc import Collection

from analysis.explain.confusions import ConfusedPair
from analysis.explain.examples import EXAMPLES_PER_PAIR, Examples
from analysis.explain.explain_run import attention_trial, stage_confusions
from analysis.explain.explanations import (
    CELLS,
    COPIES,
    NOISE,
    PERCENTILE,
    AttentionWeights,
    Explanations,
)
from analysis.facts.run_facts import RunFacts
from analysis.figures.fonts import Lettering
from analysis.report.blocks import Block, Cell, figure, section, table, text
from analysis.text.wording import label
from common.formats import count, percent, percent_range, plural, shorten, shorten_all

Drawn = Collection[str]

KINDS = {"se": "SE", "eca": "ECA", "cbam": "CBAM", "none": "none"}


def confused_section(
    facts: RunFacts, explanations: Explanations, letters: Lettering, drawn: Drawn
) -> Block | None:
    """The pairs of classes with the most errors on test."""
    stage, pairs = explanations.stage, explanations.pairs
    matrix = stage_confusions(facts, stage)
    if stage is None or matrix is None:
        return None
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
        _pairs_table(facts, explanations, letters),
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


def _pairs_table(facts: RunFacts, explanations: Explanations, letters: Lettering) -> Block | None:
    """Each pair with its rate; beside an ensemble's errors, those of the best single net."""
    names, classes = shorten_all(letters.names, 20), len(letters.names)
    single = stage_confusions(facts, "best_single")
    beside = single if explanations.stage == "ensemble" else None
    header = ["truth → answer", "errors", "of images", "rate", "95% interval", "the other way"]
    header += ["best single"] if beside is not None else []
    header += ["more than chance"] if classes > 2 else []
    lines: list[list[Cell]] = []
    for pair in explanations.pairs:
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
        f"Up to {EXAMPLES_PER_PAIR} images of each of these pairs, truth → answer: those on which "
        f"the {label(stage)} is most confident, with the probability that it gives to its answer"
        + (f". {size}×{size} pixels, as the nets get them." if size else ".")
    )


def explained_section(explanations: Explanations, letters: Lettering, drawn: Drawn) -> Block | None:
    """Grad-CAM and saliency of a hit and a miss of each class, or why there is none."""
    stage, maps = explanations.stage, explanations.heat_maps
    if stage is None:
        return None
    skipped = [f"{name}: {shorten(why, 80)}" for name, why in maps.skipped.items()]
    if explanations.examples is None or not maps.columns():
        reason = explanations.not_explained
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
        figure(
            "explained",
            _explained_caption(explanations, explanations.examples, letters),
            drawn=drawn,
        ),
    )


def _explained_caption(explanations: Explanations, examples: Examples, letters: Lettering) -> str:
    shown, maps = len(examples.classes), explanations.heat_maps
    some = (
        f"the {shown} of {count(len(letters.names))} classes with the most errors"
        if shown < len(letters.names)
        else "each class"
    )
    methods = {column.method for column in maps.columns()}
    parts = [
        f"For {some}: the correct answer (✓) of median confidence and the wrong one (✗) of highest "
        f"confidence of the {label(explanations.stage or '')} on test, chosen by this rule alone, "
        "with the probability of the answer. Bright: evidence for that answer.",
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


def attention_section(facts: RunFacts, explanations: Explanations, drawn: Drawn) -> Block | None:
    """Channel and spatial attention weights of a net of the run that has attention."""
    net = attention_trial(facts)
    if net is None:
        return None
    trial, kind = net
    attention, name = explanations.attention, KINDS.get(kind, kind)
    if attention is None:
        why = explanations.attention_missing or facts.data.missing
        return section(
            "Attention weights",
            text(f"The attention weights of {trial} ({name}) are not shown: {why}."),
        )
    return section(
        "Attention weights",
        text(
            f"The net of {trial} has {name} attention: it multiplies each feature map with "
            "weights between 0 and 1 that it computes from the image. The figure shows what the "
            "weights are; what attention is worth is measured by quorum ablate."
        ),
        figure("attention", _channels_caption(attention), drawn=drawn),
        figure("attention_places", _places_caption(), drawn=drawn),
    )


def _channels_caption(attention: AttentionWeights) -> str:
    return (
        f"The channel weights of {attention.trial} over {plural(attention.images, 'image')} of "
        "val. Above: each channel's mean weight and its standard deviation over images. Below: "
        "how much the mean of each class (row) differs from the mean of all, channel by channel; "
        "a layer without colour there weighs all classes alike."
    )


def _places_caption() -> str:
    return (
        "The spatial weights for typical correct answers of each class: bright positions are "
        "kept, dark ones damped. Each row has its own scale, given on its left."
    )
