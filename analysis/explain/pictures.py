"""What a report tells of its images: found, chosen, explained.

Axes: N images of test, K classes. What needs trained nets is imported where it is used:
torch and pytorch-grad-cam take seconds to load.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from analysis.explain.confusions import ConfusedPair, most_confused
from analysis.explain.examples import choose_by_class, choose_confused, same_images
from analysis.facts.data_facts import DataFacts, Pictured, describe_data, find_images
from analysis.facts.run_facts import RunFacts
from analysis.figures.class_figures import confusion_matrix
from common.seeds import numpy_generator
from trainables.data.image_set import ImageSet
from trainables.records import RunFolder

Array = np.ndarray[Any, Any]


def with_images(facts: RunFacts, folder: RunFolder, images: ImageSet | None) -> RunFacts:
    """The facts of a run with those of its images, as far as they are at hand.

    Without `pictures` in its specification no image is shown, and none explained.
    """
    found, missing = find_images(images, facts.spec, facts.started)
    known = {"val": facts.val_labels, "holdout": facts.holdout_labels, "test": facts.test_labels}
    labels = {name: values for name, values in known.items() if values is not None}
    data = describe_data(found, missing, labels, len(facts.class_names), sheet=facts.spec.pictures)
    if not facts.spec.pictures:
        data = replace(data, not_explained="pictures are kept out of it")
    elif found is not None:
        data = _explained(facts, folder, found, data)
    if found is not None:
        data = _with_attention(facts, folder, found, data)
    return replace(facts, data=data)


def explained_stage(facts: RunFacts) -> str | None:
    """The stage whose answers are explained: the ensemble, or the best single net without one."""
    stages = (stage for stage in ("ensemble", "best_single") if stage in facts.test_log_probs)
    return next(stages, None) if facts.test_labels is not None else None


def best_single(facts: RunFacts) -> str | None:
    """The trial that is the best single net, by the selection; None before there is one."""
    name = ((facts.selection or {}).get("best_single") or {}).get("name")
    return str(name) if name else next(iter(facts.weights), None)


def confused_pairs(facts: RunFacts) -> tuple[ConfusedPair, ...]:
    """The most confused pairs of the explained stage on test."""
    matrix = stage_confusions(facts, explained_stage(facts))
    return () if matrix is None else most_confused(matrix)


def stage_confusions(facts: RunFacts, stage: str | None) -> Array | None:
    """A stage's confusion matrix on test, int [K, K]; None where it has no predictions."""
    if stage is None or stage not in facts.test_log_probs or facts.test_labels is None:
        return None
    log_probs = facts.test_log_probs[stage]
    return confusion_matrix(log_probs, facts.test_labels, log_probs.shape[1])


def net_with_attention(facts: RunFacts) -> tuple[str, str] | None:
    """A net of the run that has attention, and its kind: the best single, or the heaviest."""
    recipes = {trial.trial: trial.recipe for trial in facts.trials}
    for name in dict.fromkeys([best_single(facts), *facts.weights]):
        recipe = recipes.get(name or "", {})
        kind = str(recipe.get("attention", "none"))
        if name and kind != "none" and recipe.get("model") == "convnet":
            return name, kind
    return None


def _explained(facts: RunFacts, folder: RunFolder, found: Pictured, data: DataFacts) -> DataFacts:
    """The data's facts with examples and their maps, where test has been predicted."""
    stage, single, labels = explained_stage(facts), best_single(facts), facts.test_labels
    if stage is None or single is None or labels is None:
        return data
    if not same_images(found.images, found.splits.test, labels):
        return replace(data, not_explained="the kept predictions are not of these images")
    from analysis.explain.grad_cam import explain

    source = (found.images, found.splits.test, facts.test_log_probs[stage], labels)
    chosen, pairs = choose_by_class(*source), confused_pairs(facts)
    weights = facts.weights if stage == "ensemble" else {}
    maps = explain(folder, weights, chosen, single=single, seed=facts.spec.seed)
    confused = choose_confused(*source, pairs) if pairs else None
    return replace(data, chosen=chosen, confused=confused, maps=maps)


def _with_attention(
    facts: RunFacts, folder: RunFolder, found: Pictured, data: DataFacts
) -> DataFacts:
    """The data's facts with those of a net's attention, where the run has chosen one."""
    net = net_with_attention(facts)
    if net is None:
        return data
    from analysis.explain.attention_gates import attention_of

    trial, kind = net
    rng = numpy_generator(facts.spec.seed, "report", "attention")
    shown = None if data.chosen is None else data.chosen.pixels[data.chosen.hits]
    measured, why = attention_of(folder, found, trial=trial, kind=kind, rng=rng, shown=shown)
    return replace(data, attention=measured, not_measured=why)
