"""The curve of accuracy against minutes, and the usual loop that it is compared with."""

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_the_time_to_an_accuracy_is_that_of_the_shortest_training_that_reached_it() -> None:
    from time_to_accuracy import cell, times_to

    points = [
        {"arm": "ours", "taken": 5.0, "accuracy": 0.93},
        {"arm": "ours", "taken": 10.2, "accuracy": 0.941},
        {"arm": "ours", "taken": 20.1, "accuracy": 0.95},
        {"arm": "usual", "taken": 20.0, "accuracy": 0.939},
    ]
    assert times_to(points, 0.94) == {"ours": 10.2}
    assert [cell(times_to(points, 0.94), arm) for arm in ("ours", "usual")] == ["10.2", "–"]


@pytest.mark.parametrize("arm", ["scratch", "usual_scratch", "finetune", "resnet18"])
def test_every_arm_has_a_recipe_whose_schedule_can_be_any_number_of_passes(arm: str) -> None:
    from time_to_accuracy import EPOCHS, recipe_of, schedule

    planned = schedule(recipe_of(arm), passes=0.5).schedule
    assert planned.epochs * planned.passes == pytest.approx(0.5)
    assert planned.epochs == EPOCHS


@pytest.mark.parametrize("head_only", [False, True])
def test_the_usual_loop_trains_what_the_recipe_says(head_only: bool) -> None:
    from usual_loop import UsualLoop, eager_batches

    from trainables.recipe import Recipe
    from trainables.stages import Stage

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(32) % 4
    recipe = Recipe(
        width=4, input_size=24, batch_size=8, stages=(Stage(train="head"),) if head_only else ()
    )
    loop = UsualLoop(recipe, images, labels, classes=4, seed=0)
    before = {name: value.clone() for name, value in loop.model.named_parameters()}
    batches = eager_batches(images, labels, side=loop.model.input_size, batch=8)
    losses = [loop.step(*batch) for batch in islice(batches, 3)]
    changed = {
        name for name, value in loop.model.named_parameters() if not value.equal(before[name])
    }
    assert np.isfinite(losses).all()
    assert any(name.startswith("net.head") for name in changed)
    assert any(not name.startswith("net.head") for name in changed) is not head_only
    pixels, _ = next(iter(loop.loader))
    assert pixels.shape == (8, 3, 24, 24)
    assert 0 <= loop.accuracy(images, labels) <= 1


def test_operators_are_counted_by_kind() -> None:
    from step_profile import OTHER, kind_of

    assert kind_of("aten::mkldnn_convolution") == "convolution"
    assert kind_of("NativeBatchNormBackward0") == OTHER
    assert kind_of("aten::native_batch_norm_backward") == "batch norm"
    assert kind_of("aten::_fused_adamw_") == "optimizer"
    assert sys.path[0] == str(BENCHMARKS)
