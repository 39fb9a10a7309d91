"""The active stage: which parameters learn, features computed once, the whitening's bias."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.errors import SpecError
from common.seeds import torch_generator
from common.statistics.metrics import apply_temperature, fit_temperature, nll
from tests.trainables.training.test_loop import CLASSES, IMAGES, SIZE, SPLITS, start
from trainables.augmentation.batch import Batch
from trainables.nets.build import build_model
from trainables.prediction import PixelSource, predict_log_probs
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.trainer import FeatureCache
from trainables.training import loop
from trainables.training.active_stage import ActiveStage

HEAD_FIRST = (Stage(epochs=2, train="head", values={"augment": "none"}), Stage(lr_scale=0.1))


def only_batch(
    stage: ActiveStage, positions: Tensor, labels: Tensor, *, flips: Tensor | None = None
) -> Batch:
    """Return an epoch of a single batch."""
    generator = torch_generator(0, "a")
    (batch,) = stage.batches(positions, labels, generator, flips=flips, size=len(positions))
    return batch


def test_only_the_head_changes_while_only_the_head_learns() -> None:
    """Other weights and statistics are fixed; in the next stage all but the whitening change."""
    training = start(Recipe(width=3, epochs=4, batch_size=16, stages=HEAD_FIRST), rungs=(4,))
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    reports = training.reports()

    def changed() -> set[str]:
        now = training.model.state_dict()
        return {name for name, value in before.items() if not torch.equal(now[name], value)}

    next(reports)
    next(reports)
    assert changed() == {"net.head.weight", "net.head.bias"}
    next(reports)
    assert changed() == before.keys() - {"mean", "std", "net.whitening.weight"}


@pytest.mark.parametrize("rungs", [(4,), (1, 2, 4)])
def test_sam_acts_in_its_stage_only(rungs: tuple[int, ...]) -> None:
    """It computes every gradient twice, and only trials that reach its stage pay for it."""
    plain, sam = (
        start(
            Recipe(width=3, epochs=4, batch_size=16,
                   stages=(Stage(epochs=2), Stage(values={"sam_rho": rho, "warmup_epochs": 0}))),
            rungs=rungs,
        )
        for rho in (0.0, 0.2)
    )  # fmt: skip
    assert plain.plans == sam.plans
    gradients: list[int] = []
    sam.model.net.register_forward_hook(
        lambda net, _, __: gradients.append(1) if net.training and torch.is_grad_enabled() else None
    )
    for plan, _, _ in zip(sam.plans, plain.reports(), sam.reports(), strict=True):
        in_stage = plan.stage == 1
        assert len(gradients) == (2 if in_stage else 1) * sam.batches
        gradients.clear()
        others = plain.model.state_dict()
        same = [torch.equal(value, others[name]) for name, value in sam.model.state_dict().items()]
        assert all(same) is not in_stage
    assert {plan.stage for plan in sam.plans} == {0, 1}


@pytest.mark.parametrize("flip", [False, True])
def test_features_computed_once_give_the_logits_of_the_images(flip: bool) -> None:
    stage = Stage(train="head", values={"translate": 0, "flip": flip})
    recipe = Recipe(width=3, stages=(stage,))
    images = IMAGES.images
    model = build_model(recipe, classes=CLASSES, image_size=SIZE, train_images=images, seed=0)
    source = PixelSource(images, SPLITS.train, Numerics())
    positions = torch.tensor([3, 0, 9, 3])
    labels = torch.zeros(4, dtype=torch.int64)
    flips = torch.tensor([True, False, True, False]) if flip else None
    logits = []
    for reuse in (True, False):
        active = ActiveStage(model, recipe, source, Numerics(), reuse_features=reuse)
        active.start_epoch(1)
        batch = only_batch(active, positions, labels, flips=flips)
        assert batch.images.ndim == (2 if reuse else 4)
        logits.append(active.outputs(batch)[0])
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("flip", [False, True])
def test_a_training_on_features_equals_one_on_images(
    flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to rounding, because features are computed in other batches; drawn flips would differ."""
    values = {"translate": 0, "flip": flip, "alternating_flip": flip}
    stage = Stage(train="head", values=values)
    recipe = Recipe(width=3, epochs=4, batch_size=16, stages=(stage,))
    on_features = start(recipe, rungs=(4,))

    def of_images(*arguments: Any, **options: Any) -> ActiveStage:
        return ActiveStage(*arguments, **{**options, "reuse_features": False})

    monkeypatch.setattr(loop, "ActiveStage", of_images)
    on_images = start(recipe, rungs=(4,))
    pairs = zip(on_features.reports(), on_images.reports(), strict=True)
    for ours, slow in pairs:
        assert ours.train_loss == pytest.approx(slow.train_loss, rel=1e-4)
        assert ours.val_nll == pytest.approx(slow.val_nll, rel=1e-4)
    torch.testing.assert_close(
        on_features.scored_model().state_dict(), on_images.scored_model().state_dict(),
        rtol=1e-3, atol=1e-5,
    )  # fmt: skip


class CountingCache(FeatureCache):
    """A cache that counts how often features are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.computed = 0

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        def counted() -> Tensor:
            self.computed += 1
            return compute()

        return super().get(key, counted)


def test_features_are_computed_once_for_all_trainings_with_the_same_start() -> None:
    stage = Stage(train="head", values={"augment": "none"})
    cache, recipe = CountingCache(), Recipe(width=3, epochs=1, batch_size=16, stages=(stage,))

    def score(**changes: Any) -> float:
        training = start(recipe.with_values(**changes), rungs=(1,), features=cache)
        return [report.val_nll for report in training.reports()][-1]

    alone = [report.val_nll for report in start(recipe, rungs=(1,)).reports()][-1]
    assert score() == score() == alone
    assert score(lr_per_1024=0.1) != alone
    assert cache.computed == 2, "those of train and of val"
    score(width=4)
    assert cache.computed == 4
    assert score() == alone
    assert cache.computed == 4
    score(tta="mirror")
    assert cache.computed == 5, "val has other features, train the same"


@pytest.mark.parametrize("changes", [{"activation": "relu"}, {"input_size": 16}])
def test_equal_weights_in_another_network_have_other_features(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    """Pretrained weights do not determine the network: activations and input sizes have none."""
    weights = tmp_path / "weights.safetensors"
    start(Recipe(width=3, epochs=1), rungs=(1,)).save_weights(weights)
    recipe = Recipe(
        width=3, epochs=1, batch_size=16, pretrained=str(weights),
        stages=(Stage(train="head", values={"augment": "none"}),),
    )  # fmt: skip

    def score(cache: FeatureCache, recipe: Recipe) -> float:
        return [r.val_nll for r in start(recipe, rungs=(1,), features=cache).reports()][-1]

    shared, other = CountingCache(), recipe.with_values(**changes)
    assert score(shared, recipe) != score(shared, other) == score(FeatureCache(), other)
    assert shared.computed == 4, "train and val, for each network"


@pytest.mark.parametrize("tta", ["none", "mirror", "mirror_translate"])
@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("model", ["convnet", "wrn-10-1"])
def test_scores_of_a_head_equal_those_of_the_whole_network(
    model: str, augmented: bool, tta: str
) -> None:
    """Scores and log-probabilities come from cached features after every epoch."""
    stage = Stage(train="head", values={"augment": "standard" if augmented else "none"})
    recipe = Recipe(
        model=model, width=3, epochs=3, batch_size=16, tta=tta, dropout=0.3, stages=(stage,)
    )
    training = start(recipe, rungs=(1, 3))
    labels = IMAGES.labels[SPLITS.val]
    for report in training.reports():
        whole = training.scored_model()
        for split in (SPLITS.val, SPLITS.holdout):
            expected = predict_log_probs(whole, IMAGES.images, Numerics(), indices=split)
            np.testing.assert_allclose(training.log_probs(split), expected, atol=1e-5)
        logp = predict_log_probs(whole, IMAGES.images, Numerics(), indices=SPLITS.val)
        scaled = apply_temperature(logp, report.temperature)
        assert report.val_nll == pytest.approx(nll(scaled, labels), abs=1e-5)
        assert report.temperature == pytest.approx(fit_temperature(logp, labels), rel=1e-2)


def test_scores_after_other_stages_are_those_of_the_average() -> None:
    """After layers below the head have learned, their average still follows them."""
    stages = (Stage(epochs=2), Stage(train="head", values={"augment": "none"}))
    training = start(Recipe(width=3, epochs=4, batch_size=16, stages=stages), rungs=(4,))
    for _ in training.reports():
        expected = predict_log_probs(
            training.scored_model(), IMAGES.images, Numerics(), indices=SPLITS.val
        )
        np.testing.assert_allclose(training.log_probs(SPLITS.val), expected, atol=1e-5)


@pytest.mark.parametrize("augmented", [False, True])
def test_dropout_acts_on_the_features_of_a_head(augmented: bool) -> None:
    """A share of the features is zeroed and the rest is enlarged, as if it came after pooling."""
    stage = Stage(train="head", values={"augment": "standard" if augmented else "none"})
    recipe = Recipe(width=16, dropout=0.4, stages=(stage,))
    images = IMAGES.images
    model = build_model(recipe, classes=CLASSES, image_size=SIZE, train_images=images, seed=0)
    active = ActiveStage(model, recipe, PixelSource(images, SPLITS.train, Numerics()), Numerics())
    seen: list[Tensor] = []
    model.net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    labels, positions = torch.zeros(40, dtype=torch.int64), torch.arange(40)
    active.start_epoch(1)
    batch = only_batch(active, positions, labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outputs = [active.outputs(batch)[0] for _ in range(2)]
    assert not torch.equal(*outputs)
    whole = batch.images if batch.images.ndim == 2 else model.features(batch.images)
    dropped = (seen[0] == 0) & (whole != 0)
    assert 0.35 < float(dropped.float().mean()) < 0.45
    torch.testing.assert_close(seen[0][~dropped], whole[~dropped] / 0.6)


def linear(*, classes: int, image_size: int, recipe: Recipe) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, classes))


def test_training_only_the_head_needs_a_network_that_declares_its_head() -> None:
    recipe = Recipe(model="tests.trainables.training.test_active_stage:linear", stages=HEAD_FIRST)
    with pytest.raises(SpecError, match="must have forward_features, forward_head and get_"):
        start(recipe, rungs=(27,))


def test_the_whitenings_bias_learns_only_in_the_first_epochs() -> None:
    training = start(Recipe(width=4, batch_size=16, whitening_epochs=1, epochs=3), rungs=(3,))
    bias = dict(training.model.named_parameters())["net.whitening.bias"]
    seen = [bias.detach().clone()]
    seen += [bias.detach().clone() for _ in training.reports()]
    assert [not torch.equal(a, b) for a, b in pairwise(seen)] == [True, False, False]
