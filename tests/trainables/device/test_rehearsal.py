"""A rehearsal takes training steps, adds up their times and leaves no trace."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from quorum.testing.trainers import striped_images
from tests.waits import META
from trainables.device.rehearsal import MOST_WORKERS, Rehearsal, rehearse, slowest
from trainables.nets.build import empty_model
from trainables.nets.classifier import Classifier
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.training.loop import Training

IMAGES, SPLITS = striped_images()
RECIPE = Recipe(width=4, epochs=3, batch_size=16, flip=False)
TRAIN, VAL = len(SPLITS.train), len(SPLITS.val)
HEADS_FIRST = (
    Stage(epochs=1, train="head", values={"augment": "none"}),
    Stage(epochs=1, train="head", values={"translate": 1}),
    Stage(),
)


class SimulatedTraining:
    """A training with fixed times per step and per prediction, on a simulated clock."""

    step_seconds = (1.0, 3.0, 10.0)
    """Duration of a step by stage."""

    image_seconds = 0.01
    """Duration of a prediction per image and view."""
    first_seconds = 0.0
    """Further duration of the first prediction of each number of views."""

    def __init__(self, recipe: Recipe, **options: Any) -> None:
        self.now = 0.0
        self.views: list[int] = []
        """Views of each prediction."""
        self._recipe = recipe
        self.options = options
        self.steps: list[int] = []

    def clock(self) -> float:
        return self.now

    def rehearse(self, steps: int, *, stage: int = 0) -> None:
        self.now += steps * self.step_seconds[stage]
        self.steps.append(stage)

    def scored_model(self) -> Classifier:
        model = empty_model(self._recipe, classes=3, image_size=8).eval()
        model.to(self.options["numerics"].device).register_forward_hook(self._predict)
        return model

    def _predict(
        self, model: Any, inputs: tuple[torch.Tensor, ...], logits: torch.Tensor
    ) -> torch.Tensor:
        views = 1 if model.tta == "none" else 2
        self.now += 0.0 if views in self.views else self.first_seconds
        self.now += self.image_seconds * views * len(inputs[0])
        self.views.append(views)
        return torch.zeros(logits.shape)  # on the CPU: those of torch's meta device have no values


def simulated(
    recipe: Recipe,
    *,
    numerics: Numerics | None = None,
    simulation: type[SimulatedTraining] = SimulatedTraining,
    **options: Any,
) -> tuple[Any, SimulatedTraining]:
    trainings: list[SimulatedTraining] = []

    def make(recipe: Recipe, **options: Any) -> SimulatedTraining:
        trainings.append(simulation(recipe, **options))
        return trainings[-1]

    found = rehearse(
        recipe,
        images=IMAGES,
        splits=SPLITS,
        numerics=numerics or Numerics(),
        clock=lambda: trainings[-1].now,
        make_training=make,
        **options,
    )
    return found, trainings[-1]


def test_an_epoch_costs_its_steps_and_its_scoring() -> None:
    found, _ = simulated(RECIPE)
    steps = TRAIN // 16
    assert found.train_seconds == pytest.approx(1.0 * steps + 0.01 * (VAL + TRAIN))
    assert found.forward_seconds == found.predict_seconds == pytest.approx(0.01 * TRAIN)


def test_predictions_include_all_views_and_a_teachers_pass_only_one() -> None:
    found, _ = simulated(RECIPE.with_values(tta="mirror"))
    assert found.predict_seconds == pytest.approx(0.02 * TRAIN)
    assert found.forward_seconds == pytest.approx(0.01 * TRAIN)


class ColdTraining(SimulatedTraining):
    """Predictions that start slowly, as those of a GPU that times its algorithms first."""

    image_seconds = 1e-5
    first_seconds = 20.0


def test_the_first_prediction_on_a_gpu_is_not_timed() -> None:
    """A pass over val seemed to take minutes."""
    recipe = RECIPE.with_values(tta="mirror")
    found, training = simulated(recipe, numerics=Numerics(device=META), simulation=ColdTraining)
    assert found.predict_seconds == pytest.approx(2e-5 * TRAIN)
    assert found.forward_seconds == pytest.approx(1e-5 * TRAIN)
    assert set(training.views) == {1, 2}


def test_a_slow_prediction_on_the_cpu_is_made_once_and_a_quick_one_repeated() -> None:
    class Slow(SimulatedTraining):
        image_seconds = 1.0

    _, training = simulated(RECIPE, simulation=Slow)
    assert training.views == [1]

    class Quick(SimulatedTraining):
        image_seconds = 1e-4
        first_seconds = 0.3

    found, training = simulated(RECIPE, simulation=Quick)
    assert len(training.views) > 2
    assert found.predict_seconds == pytest.approx(1e-4 * TRAIN)


def test_stages_are_timed_one_by_one() -> None:
    """Stages: the head on unchanged images, the head on augmented images, then all layers."""
    found, training = simulated(RECIPE.with_values(stages=HEADS_FIRST), seconds=30.0)
    steps = TRAIN // 16
    head, augmented_head, everything = found.stage_seconds
    assert head == pytest.approx(1.0 * steps)
    assert augmented_head == pytest.approx(3.0 * steps)
    assert everything == pytest.approx(10.0 * steps + 0.01 * (VAL + TRAIN)) == found.train_seconds
    entries = (found.forward_seconds + 0.01 * VAL, 0.01 * VAL, 0.0)
    assert found.entry_seconds == pytest.approx(entries)
    # A warm-up of two steps, then steps for 10 s of the clock, at least two.
    assert [training.steps.count(stage) for stage in range(3)] == [1 + 10, 1 + 4, 1 + 2]


def test_preparing_an_epoch_does_not_count_for_short_steps() -> None:
    """A step takes 1 ms, what a call does before its first step 20 ms."""

    class Prepared(SimulatedTraining):
        step_seconds = (1e-3, 1e-3, 1e-3)

        def rehearse(self, steps: int, *, stage: int = 0) -> None:
            self.now += 20e-3
            super().rehearse(steps, stage=stage)

    trainings: list[Prepared] = []

    def make(recipe: Recipe, **options: Any) -> Prepared:
        trainings.append(Prepared(recipe, **options))
        return trainings[-1]

    head = RECIPE.with_values(translate=0, stages=(Stage(train="head"),))
    found = rehearse(
        head, images=IMAGES, splits=SPLITS, numerics=Numerics(), seconds=4.0,
        clock=lambda: trainings[-1].now, make_training=make,
    )  # fmt: skip
    assert found.pass_seconds[0] == pytest.approx(1e-3 * (TRAIN // 16), rel=0.1)


def test_both_views_of_a_mirrored_image_are_computed_on_entry() -> None:
    head = (Stage(epochs=1, train="head", values={"translate": 0, "flip": True}), Stage())
    found, _ = simulated(RECIPE.with_values(stages=head))
    assert found.entry_seconds == pytest.approx((2 * found.forward_seconds + 0.01 * VAL, 0.0))


def test_a_rehearsal_of_heads_computes_features_of_few_images() -> None:
    splits = replace(SPLITS, train=SPLITS.train.repeat(30))
    recipe = RECIPE.with_values(translate=0, stages=(Stage(train="head"),))
    sizes: list[int] = []

    def make(recipe: Recipe, **options: Any) -> Training:
        sizes.append(len(options["splits"].train))
        return Training(recipe, **options)

    rehearse(
        recipe, images=IMAGES, splits=splits, numerics=Numerics(), seconds=0.0, make_training=make
    )
    assert sizes == [512]


@pytest.mark.parametrize(("workers", "trainings"), [(1, 1), (2, 2), (9, MOST_WORKERS)])
def test_a_real_training_is_rehearsed_once_per_worker_and_leaves_no_trace(
    workers: int, trainings: int
) -> None:
    made: list[Training] = []

    def make(recipe: Recipe, **options: Any) -> Training:
        made.append(Training(recipe, **options))
        return made[-1]

    threads, state = torch.get_num_threads(), torch.get_rng_state()
    found = rehearse(
        RECIPE.with_values(dropout=0.2),
        images=IMAGES,
        splits=SPLITS,
        numerics=Numerics(),
        workers=workers,
        seconds=0.01,
        make_training=make,
    )
    assert len(made) == trainings
    assert min(found.train_seconds, found.forward_seconds, found.predict_seconds) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_of_several_machines_each_time_is_the_slowest() -> None:
    first = Rehearsal(
        pass_seconds=(1.0, 5.0), score_seconds=(2.0, 2.0), entry_seconds=(0.0, 0.0),
        forward_seconds=3.0, predict_seconds=4.0, passes=0.5,
    )  # fmt: skip
    second = replace(first, pass_seconds=(2.0, 4.0), forward_seconds=1.0)
    assert slowest([first, second]) == replace(first, pass_seconds=(2.0, 5.0))
