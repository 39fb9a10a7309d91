"""The sections that explain predictions: confusions, heat maps and attention weights.

Axes: N images of test, K classes.
"""

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
from analysis.report.blocks import Block, Figure, Section, section, table, text
from analysis.text.labels import stage_label
from common.formats import count, percent, percent_range, plural, shorten, shorten_all

ATTENTION = {"se": "SE", "eca": "ECA", "cbam": "CBAM", "none": "none"}
"""Kinds of attention, as the literature writes them."""


def confused_section(
    facts: RunFacts, explanations: Explanations, letters: Lettering
) -> Section | None:
    """List the pairs of classes with the most errors on test."""
    stage, pairs = explanations.stage, explanations.pairs
    matrix = stage_confusions(facts, stage)
    if stage is None or matrix is None:
        return None
    errors = int(matrix.sum() - matrix.trace())
    wrong = (
        f"The {stage_label(stage)} is wrong on {count(errors)} of "
        f"{plural(int(matrix.sum()), 'test image')}"
    )
    if not pairs:
        unique = text(f"{wrong}, and no confusion occurs twice, so there is no pattern to show.")
        return section("Most confused classes", unique)
    share = sum(pair.errors for pair in pairs) / errors
    return section(
        "Most confused classes",
        text(
            f"{wrong}; the {plural(len(pairs), 'pair')} below "
            f"{'accounts' if len(pairs) == 1 else 'account'} for {percent(share)} of these errors.",
            _chance(pairs, len(matrix)),
        ),
        _pairs_table(facts, explanations, letters),
        Figure(name="confused", caption=_confused_caption(facts, stage)),
    )


def _chance(pairs: tuple[ConfusedPair, ...], classes: int) -> str:
    if classes == 2:
        return ""
    beyond = sum(pair.beyond_chance for pair in pairs)
    which = "All" if beyond == len(pairs) > 1 else count(beyond) if beyond else "None"
    return (
        f"{which} of these pairs {'has' if beyond < 2 else 'have'} more errors than expected if "
        "the errors of a class were spread evenly over all others (exact binomial test at "
        f"5%, corrected for all {count(classes * (classes - 1))} pairs)."
    )


def _pairs_table(facts: RunFacts, explanations: Explanations, letters: Lettering) -> Block | None:
    """List each pair with its rate; for an ensemble, add the errors of the best single."""
    names, classes = shorten_all(letters.names, 20), len(letters.names)
    single = stage_confusions(facts, "best_single")
    beside = single if explanations.stage == "ensemble" else None
    header = ["truth → prediction", "errors", "of images", "rate", "95% interval", "reverse"]
    header += ["best single"] if beside is not None else []
    header += ["above chance"] if classes > 2 else []
    rows = []
    for pair in explanations.pairs:
        row = [
            f"{names[pair.truth]} → {names[pair.predicted]}",
            count(pair.errors), count(pair.images), percent(pair.rate),
            percent_range((pair.interval.low, pair.interval.high), sign=True), count(pair.reverse),
        ]  # fmt: skip
        if beside is not None:
            row.append(count(int(beside[pair.truth, pair.predicted])))
        if classes > 2:
            row.append("yes" if pair.beyond_chance else "not shown")
        rows.append(row)
    return table(
        header, rows, "l" + "r" * (len(header) - 1),
        caption="The most confused pairs of classes. Reverse: errors in the other direction. "
        "Intervals are Wilson's, for each rate by itself. Pairs were selected for their many "
        "errors, so expect lower rates on new images.",
    )  # fmt: skip


def _confused_caption(facts: RunFacts, stage: str) -> str:
    size = facts.data.image_size
    return (
        f"Up to {EXAMPLES_PER_PAIR} images of each of these pairs, truth → prediction: those on "
        f"which the {stage_label(stage)} is most confident, with the probability of its prediction"
        + (f". {size}×{size} pixels, as fed to the networks." if size else ".")
    )


def explained_section(explanations: Explanations, letters: Lettering) -> Section | None:
    """Show heat maps for a correct and a wrong prediction of each class, or the reason for none."""
    stage, maps, examples = explanations.stage, explanations.heat_maps, explanations.examples
    if stage is None:
        return None
    title = "Visual explanations"
    skipped = [f"{name}: {shorten(why, 80)}" for name, why in maps.skipped.items()]
    if examples is None or not maps.columns():
        reason = explanations.not_explained
        why = "; ".join([*([reason] if reason else []), *skipped])
        return section(title, text(f"Not shown: {why or 'no network has been chosen yet'}."))
    return section(
        title,
        text(
            "These maps explain predictions and do not measure quality: they show where a "
            "network found its evidence, not whether that evidence is sound. They are not "
            "estimates, so they have no intervals.",
            f"Not explained: {'; '.join(skipped)}." if skipped else "",
        ),
        Figure(name="explained", caption=_explained_caption(explanations, examples, letters)),
    )


def _explained_caption(explanations: Explanations, examples: Examples, letters: Lettering) -> str:
    shown, maps = len(examples.classes), explanations.heat_maps
    stage = stage_label(explanations.stage or "")
    classes = (
        f"the {shown} of {count(len(letters.names))} classes with the most errors"
        if shown < len(letters.names)
        else "each class"
    )
    methods = {column.method for column in maps.columns()}
    sentences = [
        f"For {classes}: the correct prediction (✓) of median confidence and the wrong one (✗) of "
        f"highest confidence of the {stage} on test, chosen by this rule alone, with its "
        "probability. Bright: evidence for that prediction.",
        f"Grad-CAM: the last layer with at least {CELLS} × {CELLS} cells, over the image in grey; "
        "the line encloses values above one half."
        if "Grad-CAM" in methods
        else "",
        "Saliency: the squared gradient of the prediction's log-probability with respect to the "
        f"pixels, averaged over {COPIES} copies with noise of {percent(NOISE, 0)} of the image's "
        "range (SmoothGrad), maximum over colours, scaled to 1 at the "
        f"{PERCENTILE:.0f}th percentile."
        if "saliency" in methods
        else "",
        f"Best single: {maps.trial}, for the same prediction."
        if maps.ensemble and maps.single
        else "",
        "Ensemble: the weighted mean of the members' maps, each scaled by itself; less bright "
        "where members disagree."
        if maps.ensemble
        else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def attention_section(facts: RunFacts, explanations: Explanations) -> Section | None:
    """Show the attention weights of a network of the run; None if no network has attention."""
    network = attention_trial(facts)
    if network is None:
        return None
    trial, kind = network
    title, name = "Attention weights", ATTENTION.get(kind, kind)
    attention = explanations.attention
    if attention is None:
        why = explanations.attention_missing or facts.data.missing
        missing = f"The attention weights of {trial} ({name}) are not shown: {why}."
        return section(title, text(missing))
    return section(
        title,
        text(
            f"The network of {trial} has {name} attention: it multiplies each feature map by "
            "weights between 0 and 1 that it computes from the image. The figure shows these "
            "weights; an ablation measures their effect on accuracy."
        ),
        Figure(name="attention", caption=_channels_caption(attention)),
        Figure(
            name="attention_places",
            caption="Spatial weights for typical correct predictions of each class: bright "
            "positions are kept, dark ones damped. Each row has its own scale, given on its left.",
        ),
    )


def _channels_caption(attention: AttentionWeights) -> str:
    return (
        f"Channel weights of {attention.trial} over {plural(attention.images, 'val image')}. "
        "Above: each channel's mean weight and its standard deviation over images. Below: the "
        "deviation of each class's mean (row) from the overall mean, channel by channel; a layer "
        "without colour there weights all classes alike."
    )
