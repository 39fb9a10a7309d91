"""Test predictions: temperatures are undone, and classes compared with simultaneous intervals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.facts.predictions import (
    before_temperature,
    class_differences,
    main_stages,
    student_differences,
    student_stage,
    temperature_of,
)
from analysis.facts.run_facts import RunFacts, load_facts
from common.statistics.metrics import apply_temperature
from tests.synthetic.predictions import SMALL, log_softmax
from tests.synthetic.run import write_run


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> RunFacts:
    return load_facts(write_run(tmp_path_factory.mktemp("runs") / "run", shape=SMALL))


def test_the_student_is_compared_with_the_ensemble(facts: RunFacts) -> None:
    assert main_stages(facts) == ["ensemble", "student_int8"]
    assert student_stage(facts) == "student_int8"
    kept = {name: facts.test_log_probs[name] for name in ("best_single", "student_fp32")}
    alone = replace(facts, test_log_probs=kept)
    assert main_stages(alone) == ["best_single", "student_fp32"]
    assert student_stage(alone) is None
    assert student_differences(alone) == []


@given(st.floats(0.3, 3.0), st.integers(0, 1000))
def test_a_temperature_can_be_undone(temperature: float, seed: int) -> None:
    log_probs = log_softmax(np.random.default_rng(seed).standard_normal((5, 4)))
    after = apply_temperature(log_probs, temperature)
    before = before_temperature(after, temperature)
    assert before is not None
    np.testing.assert_allclose(before, log_probs, atol=1e-5)
    assert before_temperature(after, None) is None


def test_the_temperature_of_every_stage_is_known(facts: RunFacts) -> None:
    known = {stage: temperature_of(facts, stage) for stage in facts.test_log_probs}
    assert known["student_fp32"] == known["student_plain"] == 1.2143
    assert known["student_int8"] == 1.2391
    assert facts.selection is not None
    assert known["ensemble"] == facts.selection.temperature
    assert None not in known.values()


def test_only_classes_that_differ_are_distinguishable() -> None:
    """Equal predictions: no class differs. One class always wrong: only that one, by 100%."""
    labels = np.repeat(np.arange(3), 40)
    right = log_softmax(8.0 * np.eye(3)[labels])
    lost = right.copy()
    lost[labels == 1] = log_softmax(8.0 * np.eye(3)[np.full(40, 2)])
    assert not any(d.distinguishable for d in class_differences(right, right, labels, seed=0))
    differences = class_differences(lost, right, labels, seed=0)
    assert [d.label for d in differences if d.distinguishable] == [1]
    assert differences[1].value == -1.0
    assert differences[1].images == 40
