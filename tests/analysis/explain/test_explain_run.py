"""Explaining a run: uses the images, predictions and networks that exist, and never raises."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.explain.explain_run import explain_run
from analysis.facts.data import RunImages, find_images
from analysis.facts.run_facts import RunFacts, load_facts
from tests.events import run_started
from tests.synthetic.predictions import SMALL
from tests.synthetic.run import write_run
from tests.synthetic.trials import FINGERPRINT
from trainables.data.image_set import ImageSet
from trainables.records import RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose trials have no weights."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", shape=SMALL)


@pytest.fixture(scope="module")
def facts(folder: RunFolder) -> RunFacts:
    """The run's facts, with attention in every network."""
    facts = load_facts(folder)
    trials = tuple(replace(t, recipe={**t.recipe, "attention": "se"}) for t in facts.trials)
    return replace(facts, trials=trials)


@pytest.fixture(scope="module")
def images(facts: RunFacts) -> RunImages:
    rng = np.random.default_rng(0)
    made = ImageSet(
        name="made", images=rng.integers(0, 256, (2000, 8, 8, 3), dtype=np.uint8),
        labels=np.arange(2000, dtype=np.int64) % 4, class_names=("a", "b", "c", "d"),
        fingerprint=FINGERPRINT,
    )  # fmt: skip
    run_images, missing = find_images(made, facts.spec, run_started(fingerprint=FINGERPRINT))
    assert missing == ""
    assert run_images is not None
    return run_images


def test_without_images_only_confusions_are_explained(facts: RunFacts, folder: RunFolder) -> None:
    facts = replace(facts, data=replace(facts.data, missing="the disk is gone"))
    explanations = explain_run(facts, folder, None)
    assert explanations.stage == "ensemble"
    assert explanations.pairs
    assert explanations.not_explained == "the disk is gone"
    assert (explanations.examples, explanations.confused, explanations.attention) == (
        None,
        None,
        None,
    )


def test_predictions_of_other_images_are_not_explained(
    facts: RunFacts, folder: RunFolder, images: RunImages
) -> None:
    explanations = explain_run(facts, folder, images)
    assert "other images" in explanations.not_explained
    assert explanations.examples is None


def test_networks_that_cannot_be_loaded_are_skipped_with_reasons(
    facts: RunFacts, folder: RunFolder, images: RunImages
) -> None:
    labels = images.image_set.labels[images.splits.test]
    log_probs = np.log(np.full((len(labels), 4), 0.1) + 0.6 * np.eye(4)[np.roll(labels, 1)])
    predicted = replace(facts, test_labels=labels, test_log_probs={"ensemble": log_probs})
    explanations = explain_run(predicted, folder, images)
    assert explanations.examples is not None
    assert explanations.confused is not None
    assert explanations.heat_maps.columns() == []
    assert set(explanations.heat_maps.skipped) >= set(facts.weights)
    reasons = [*explanations.heat_maps.skipped.values(), explanations.attention_missing]
    assert all("weights.safetensors" in reason for reason in reasons)
    assert not any(str(folder.root) in reason for reason in reasons), "no path of this machine"


def test_switching_pictures_off_hides_examples_and_maps(
    facts: RunFacts, folder: RunFolder, images: RunImages
) -> None:
    hidden = replace(facts, spec=facts.spec.with_values(pictures=False))
    explanations = explain_run(hidden, folder, images)
    assert (explanations.examples, explanations.heat_maps.columns()) == (None, [])
    assert explanations.not_explained
