"""Heat maps of several networks: averaged by weight, with a reason for each that is missing."""

from functools import cache

import numpy as np
import pytest

from analysis.explain.examples import Examples
from analysis.explain.explanations import HeatMaps
from analysis.explain.heat_maps import MOST_MEMBERS, heat_maps
from tests.analysis.explain.nets import Corner, Flat, classifier, spot
from trainables.nets.classifier import Classifier

NETS = {"a": Corner, "b": Flat, "c": Corner}
EXAMPLES = Examples(
    pixels=spot(2, 2)[None], labels=np.array([0]), predictions=np.array([0]),
    confidences=np.array([0.9]),
)  # fmt: skip


@cache
def load(name: str) -> Classifier:
    """Return a network by name; any other name raises, as a missing trial does."""
    return classifier(NETS[name]())


def explain(weights: dict[str, float], single: str) -> HeatMaps:
    return heat_maps(load, weights, EXAMPLES, single=single, seed=0)


def test_members_are_averaged_by_weight_and_failures_named() -> None:
    weights = {"a": 0.5, "b": 0.3, "c": 0.2, "gone": 0.0}
    maps = explain(weights, "c")
    assert set(maps.skipped) == {"b, Grad-CAM", "gone"}
    assert "feature map" in maps.skipped["b, Grad-CAM"]
    alone = {name: explain({}, name).single for name in NETS}
    assert maps.trial == "c"
    for method, members in (("Grad-CAM", "ac"), ("saliency", "abc")):
        np.testing.assert_array_equal(maps.single[method], alone["c"][method])
        weighted = [weights[name] * alone[name][method] for name in members]
        expected = np.sum(weighted, axis=0) / sum(weights[name] for name in members)
        np.testing.assert_allclose(maps.ensemble[method], expected, rtol=1e-5)
    columns = [(column.method, column.source) for column in maps.columns()]
    assert columns == [("Grad-CAM", "best single"), ("Grad-CAM", "ensemble"),
                       ("saliency", "best single"), ("saliency", "ensemble")]  # fmt: skip


@pytest.mark.parametrize("weights", [{}, {"a": 1.0}])
def test_a_single_network_has_no_ensemble_maps(weights: dict[str, float]) -> None:
    maps = explain(weights, "a")
    assert set(maps.single) == {"Grad-CAM", "saliency"}
    assert (maps.ensemble, maps.skipped) == ({}, {})


def test_a_network_without_feature_maps_keeps_its_saliency() -> None:
    assert set(explain({}, "b").single) == {"saliency"}


def test_a_missing_network_is_skipped_with_a_reason() -> None:
    maps = explain({"gone": 1.0}, "gone")
    assert maps.columns() == []
    assert set(maps.skipped) == {"gone"}


def test_only_the_heaviest_members_are_explained() -> None:
    names = [f"gone {i}" for i in range(MOST_MEMBERS + 2)]
    maps = explain({name: 1.0 - 0.01 * i for i, name in enumerate(names)}, "a")
    limited = {name for name, reason in maps.skipped.items() if str(MOST_MEMBERS) in reason}
    assert limited == set(names[MOST_MEMBERS:])
