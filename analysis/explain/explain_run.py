"""Explain a run's predictions from its images, saved predictions and trained networks.

Axes: N images of test, K classes. Torch and pytorch-grad-cam take seconds to load, so they
are imported only when a network is explained.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from analysis.explain.confusions import ConfusedPair, confusion_matrix, most_confused
from analysis.explain.examples import choose_by_class, choose_confused, same_images
from analysis.explain.explanations import Explanations
from analysis.facts.data import RunImages
from analysis.facts.run_facts import RunFacts
from trainables.records import RunFolder

Array = np.ndarray[Any, Any]

LONGEST_REASON = 160
"""Maximum number of characters quoted from an error message."""


def explain_run(facts: RunFacts, folder: RunFolder, images: RunImages | None) -> Explanations:
    """Explain a run's predictions as far as its saved files and images allow.

    With `pictures` off in the run's specification, no image is shown or explained. An
    explanation that fails is left out, with its reason.
    """
    explanations = Explanations(stage=explained_stage(facts), pairs=confused_pairs(facts))
    if images is None:
        return replace(explanations, not_explained=facts.data.missing)
    if facts.spec.pictures:
        explanations = _explain_predictions(facts, folder, images, explanations)
    else:
        explanations = replace(explanations, not_explained="pictures are switched off")
    return _explain_attention(facts, folder, images, explanations)


def explained_stage(facts: RunFacts) -> str | None:
    """Return the stage to explain: the ensemble, else the best single network."""
    stages = (stage for stage in ("ensemble", "best_single") if stage in facts.test_log_probs)
    return next(stages, None) if facts.test_labels is not None else None


def best_single(facts: RunFacts) -> str | None:
    """Return the best single network's trial; None before the selection."""
    return None if facts.selection is None else facts.selection.best_single.name


def confused_pairs(facts: RunFacts) -> tuple[ConfusedPair, ...]:
    """Return the most confused pairs of the explained stage on test."""
    matrix = stage_confusions(facts, explained_stage(facts))
    return () if matrix is None else most_confused(matrix)


def stage_confusions(facts: RunFacts, stage: str | None) -> Array | None:
    """Return a stage's confusion matrix on test, int [K, K]; None without predictions."""
    if stage is None or stage not in facts.test_log_probs or facts.test_labels is None:
        return None
    log_probs = facts.test_log_probs[stage]
    return confusion_matrix(log_probs, facts.test_labels, log_probs.shape[1])


def attention_trial(facts: RunFacts) -> tuple[str, str] | None:
    """Return a trial with attention and its kind: the best single, else the heaviest member."""
    recipes = {trial.trial: trial.recipe for trial in facts.trials}
    for name in dict.fromkeys([best_single(facts), *facts.weights]):
        recipe = recipes.get(name or "", {})
        kind = str(recipe.get("attention", "none"))
        if name and kind != "none" and recipe.get("model") == "convnet":
            return name, kind
    return None


def _explain_predictions(
    facts: RunFacts, folder: RunFolder, images: RunImages, explanations: Explanations
) -> Explanations:
    """Add examples and their heat maps, where test has been predicted."""
    stage, single, labels = explanations.stage, best_single(facts), facts.test_labels
    if stage is None or single is None or labels is None:
        return explanations
    if not same_images(images.image_set, images.splits.test, labels):
        return replace(explanations, not_explained="the stored predictions belong to other images")
    from analysis.explain.heat_maps import heat_maps
    from trainables.weights import load_trained

    source = (images.image_set, images.splits.test, facts.test_log_probs[stage], labels)
    examples, pairs = choose_by_class(*source), explanations.pairs
    maps = heat_maps(
        lambda trial: load_trained(folder.trial(trial)),
        facts.weights if stage == "ensemble" else {},
        examples,
        single=single,
        seed=facts.spec.seed,
    )
    skipped = {name: _quoted(reason, folder) for name, reason in maps.skipped.items()}
    return replace(
        explanations,
        examples=examples,
        confused=choose_confused(*source, pairs) if pairs else None,
        heat_maps=replace(maps, skipped=skipped),
    )


def _explain_attention(
    facts: RunFacts, folder: RunFolder, images: RunImages, explanations: Explanations
) -> Explanations:
    """Add the attention weights of the network that `attention_trial` picks."""
    network = attention_trial(facts)
    if network is None:
        return explanations
    from analysis.explain.attention import attention_weights
    from trainables.weights import load_trained

    trial, kind = network
    examples = explanations.examples
    shown = None if examples is None else examples.pixels[examples.correct]
    try:
        model = load_trained(folder.trial(trial))
        weights = attention_weights(model, images, trial=trial, kind=kind, shown=shown)
    except Exception as error:  # Whatever a network raises, the report continues.
        reason = str(error) or type(error).__name__
        return replace(explanations, attention_missing=_quoted(reason, folder))
    return replace(explanations, attention=weights)


def _quoted(reason: str, folder: RunFolder) -> str:
    """Return an error message as one line, without the run's path on this machine."""
    return " ".join(reason.split()).replace(f"{folder.root}/", "")[:LONGEST_REASON]
