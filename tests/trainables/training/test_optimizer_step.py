"""Optimizer steps: micro-batches add up, SAM in closed form, and a step that ran out of memory."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.amp import GradScaler

from common.errors import SpecError
from quorum.testing.trainers import striped_images
from tests.simulated_tune import IMAGES, SPEC, SPLITS, Sweep
from tests.trainables.training.small_memory import LIMIT, Net
from trainables.augmentation.batch import Batch
from trainables.prediction import is_out_of_memory
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder, read_record
from trainables.replay import replay
from trainables.training.checkpoint import load_checkpoint
from trainables.training.loop import Training
from trainables.training.optimizer_step import OptimizerStep, StepPosition
from trainables.training.optimizers import make_optimizer
from trainables.trial import QuorumTrial, default_trainer

AT = StepPosition(0, 0)


def random_batch(size: int) -> Batch:
    generator = torch.Generator().manual_seed(size)
    labels = torch.randint(0, 3, (size,), generator=generator)
    images = torch.rand(size, 3, 2, 2, generator=generator)
    return Batch(images=images, labels_a=labels, labels_b=labels, share=torch.ones(size))


def mean_loss(model: nn.Module) -> Callable[[Batch], Tensor]:
    return lambda batch: nn.functional.cross_entropy(model(batch.images), batch.labels_a)


def stepped(
    model: nn.Module,
    size: int = 12,
    *,
    steps: int = 1,
    seed: int = 0,
    scaler: GradScaler | None = None,
    **recipe: Any,
) -> tuple[dict[str, Tensor], OptimizerStep, Tensor]:
    """Take steps; return the state, the steps and the last loss."""
    torch.manual_seed(seed)
    optimization = Recipe(lr_per_1024=10.0, batch_size=size, **recipe).optimizer
    optimizer = make_optimizer(model, optimization)
    taken = OptimizerStep(model, mean_loss(model), scaler=scaler)
    for index in range(steps):
        loss = taken.take(random_batch(size), optimizer, optimization, at=StepPosition(0, index))
    return {name: value.clone() for name, value in model.state_dict().items()}, taken, loss


def linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 3))


def small_memory(limit: int = 10**9) -> Net:
    torch.manual_seed(1)
    return Net(12, 3, limit)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@settings(max_examples=25)
@given(
    size=st.integers(4, 17),
    count=st.integers(2, 8),
    rho=st.sampled_from([0.0, 0.1]),
    clip=st.sampled_from([0.0, 0.05]),
)
def test_micro_batches_take_the_step_of_the_batch(
    size: int, count: int, rho: float, clip: float
) -> None:
    values: dict[str, Any] = {"sam_rho": rho, "clip_grad_norm": clip, "steps": 2}
    whole, _, loss = stepped(linear(), size, **values)
    parts, _, summed = stepped(linear(), size, accumulation=min(count, size), **values)
    assert float(summed) == pytest.approx(float(loss), rel=1e-5)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-6)


@settings(max_examples=25)
@given(
    rho=st.sampled_from([0.0, 0.1]),
    clip=st.sampled_from([0.0, 0.05]),
    count=st.integers(1, 3),
    power=st.integers(0, 16),
    name=st.sampled_from(["sgd", "adamw", "muon"]),
)
def test_a_scaled_loss_takes_the_step_of_the_loss(
    rho: float, clip: float, count: int, power: int, name: str
) -> None:
    """A power of two changes no digit of a gradient in float32."""
    values: dict[str, Any] = {"sam_rho": rho, "clip_grad_norm": clip, "accumulation": count}
    plain, _, loss = stepped(linear(), steps=3, optimizer=name, **values)
    scaler = GradScaler("cpu", init_scale=2.0**power, growth_interval=2)
    scaled, _, same = stepped(linear(), steps=3, optimizer=name, scaler=scaler, **values)
    assert torch.equal(loss, same)
    assert scaler.get_scale() == 2.0 ** (power + 1), "grown after two steps"
    for key in plain:
        torch.testing.assert_close(scaled[key], plain[key], rtol=1e-6 if rho else 0, atol=0)


def test_a_step_whose_gradient_overflows_is_skipped_and_the_scale_halved() -> None:
    model, factors = linear(), iter([1.0, 1e38, 1.0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = Recipe(optimizer="adamw", clip_grad_norm=1.0).optimizer
    scaler = GradScaler("cpu", init_scale=1024.0)
    steps = OptimizerStep(
        model, lambda batch: mean_loss(model)(batch) * next(factors), scaler=scaler
    )
    optimizer = make_optimizer(model, settings)
    moved = []
    for _ in range(3):
        steps.take(random_batch(12), optimizer, settings, at=AT)
        now = {name: value.clone() for name, value in model.state_dict().items()}
        moved.append(not equal(before, now))
        before = now
    assert moved == [True, False, True]
    assert scaler.get_scale() == 512


def test_a_gradient_is_clipped_to_its_largest_norm_and_left_alone_below_it() -> None:
    plain: dict[str, Any] = {"momentum": 0.0, "weight_decay": 0.0}
    before = linear().state_dict()

    def moved(clip: float) -> float:
        after = stepped(linear(), 1024, clip_grad_norm=clip, **plain)[0]  # a rate of 10
        moves = [(after[name] - before[name]).flatten() for name in before]
        return float(torch.cat(moves).norm()) / 10

    norm = moved(0.0)
    assert moved(norm / 3) == pytest.approx(norm / 3, rel=1e-4)
    assert moved(norm * 3) == pytest.approx(norm, rel=1e-6)


def test_sam_takes_the_gradient_uphill() -> None:
    """Loss ½ Σ a w²: the gradient a·w is taken at w + rho · a·w / |a·w|."""
    model = nn.Linear(2, 1, bias=False)
    slopes, start = torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, -1.0]])
    model.weight.data.copy_(start)
    settings = Recipe(
        lr_per_1024=1.0, batch_size=1024, momentum=0.0, weight_decay=0.0, sam_rho=0.5
    ).optimizer
    loss = OptimizerStep(model, lambda _: (slopes * model.weight.square()).sum() / 2).take(
        random_batch(2), make_optimizer(model, settings), settings, at=AT
    )
    gradient = slopes * start
    uphill = start + 0.5 * gradient / gradient.norm()
    torch.testing.assert_close(model.weight.detach(), start - slopes * uphill)
    assert float(loss) == pytest.approx(6.5)


def test_sam_measures_statistics_once_and_hides_the_same_features_twice() -> None:
    plain, _, loss = stepped(small_memory())
    sam, _, first = stepped(small_memory(), sam_rho=0.5)
    assert float(first) == float(loss)
    buffers = [name for name, _ in small_memory().named_buffers()]
    assert equal({n: plain[n] for n in buffers}, {n: sam[n] for n in buffers})
    assert not torch.equal(plain["head.weight"], sam["head.weight"])
    # With a distance of almost 0, both passes compute the same: the masks are the same too.
    near, _, _ = stepped(small_memory(), sam_rho=1e-9)
    torch.testing.assert_close(near["head.weight"], plain["head.weight"])


@pytest.mark.parametrize("changes", [{}, {"sam_rho": 0.1}, {"accumulation": 2}])
@pytest.mark.parametrize("limit", [8, 5, 3])
def test_a_step_that_ran_out_of_memory_equals_one_with_smaller_micro_batches(
    limit: int, changes: dict[str, Any]
) -> None:
    state, taken, loss = stepped(small_memory(limit), 16, steps=3, **changes)
    halved = len(taken.halvings)
    assert taken.halvings == [StepPosition(0, 0)] * halved
    count = changes.get("accumulation", 1) * 2**halved
    assert -(-16 // count) <= limit < -(-16 // (count // 2))
    wanted, unhalved, expected = stepped(
        small_memory(), 16, steps=3, **{**changes, "accumulation": count}
    )
    assert equal(state, wanted)
    assert torch.equal(loss, expected)
    assert not unhalved.halvings


@pytest.mark.parametrize("fails", range(1, 8))
def test_a_step_is_repeated_from_its_start_wherever_it_fails(fails: int) -> None:
    """Two micro-batches and two passes of SAM are four forward passes."""
    model = small_memory()
    calls = itertools.count(1)

    def loss_of(batch: Batch) -> Tensor:
        loss = mean_loss(model)(batch)
        if next(calls) == fails:
            raise torch.OutOfMemoryError("injected")
        return loss

    torch.manual_seed(0)
    optimization = Recipe(batch_size=16, accumulation=2, sam_rho=0.1).optimizer
    steps = OptimizerStep(model, loss_of)
    optimizer = make_optimizer(model, optimization)
    for index in range(2):
        steps.take(random_batch(16), optimizer, optimization, at=StepPosition(0, index))
    assert steps.halvings == [StepPosition(0, 0 if fails <= 4 else 1)]
    again = small_memory()
    torch.manual_seed(0)
    repeated = OptimizerStep(again, mean_loss(again), halvings=steps.halvings)
    optimizer = make_optimizer(again, optimization)
    for index in range(2):
        repeated.take(random_batch(16), optimizer, optimization, at=StepPosition(0, index))
    assert equal(again.state_dict(), model.state_dict())
    assert repeated.halvings == steps.halvings


def test_memory_that_is_too_small_for_two_images_is_an_error() -> None:
    with pytest.raises(SpecError, match="micro-batches of 3 images"):
        stepped(small_memory(limit=1))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def fail(_: Batch) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    model, optimization = linear(), Recipe().optimizer
    steps = OptimizerStep(model, fail)
    with pytest.raises(RuntimeError, match="mat1"):
        steps.take(random_batch(4), make_optimizer(model, optimization), optimization, at=AT)
    assert not steps.halvings


def test_a_failed_allocation_on_the_cpu_is_recognized() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


def start(model: str, **options: Any) -> Training:
    images, splits = striped_images()
    recipe = Recipe(
        model=f"tests.trainables.training.small_memory:{model}", epochs=4, batch_size=22,
        cooldown_fraction=0.5, translate=1,
    )  # fmt: skip
    return Training(
        recipe, rungs=(2, 4), seed=3, numerics=Numerics(), images=images, splits=splits, **options
    )


def final(training: Training, folder: Path) -> dict[str, Tensor]:
    training.save(folder)
    return load_checkpoint(folder)[0]


def test_a_training_that_ran_out_of_memory_is_resumed_and_repeated_bitwise(tmp_path: Path) -> None:
    whole = start("limited")
    for report in whole.reports():
        whole.save(tmp_path / f"{report.step}")
    assert whole.halvings == (StepPosition(0, 0), StepPosition(0, 0))  # 22 → 11 → 5 or 6 images
    expected = final(whole, tmp_path / "whole")
    for step in (1, 2, 3):
        resumed = start("limited")
        resumed.load(tmp_path / f"{step}")
        assert resumed.halvings == whole.halvings
        list(resumed.reports())
        assert equal(final(resumed, tmp_path / "resumed"), expected)
    for halvings, same in ((whole.halvings, True), ((), False)):
        repeated = start("unlimited", halvings=halvings)
        list(repeated.reports())
        assert equal(final(repeated, tmp_path / "repeated"), expected) is same


class RealTrial(QuorumTrial):
    """A trial with the real trainer."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Replace the trainer."""
        return super().reset_config({**new_config, "trainer": default_trainer})


def test_a_replay_halves_micro_batches_at_the_recorded_steps(tmp_path: Path) -> None:
    model = "tests.trainables.training.small_memory:limited"
    recipe = {**SPEC.recipe, "model": model, "batch_size": 2 * LIMIT}
    folder = RunFolder(tmp_path)
    Sweep(folder, replace(SPEC, trials=2, recipe=recipe), trial=RealTrial).run()
    trial = next(record.trial for record in folder.records() if record.rung == 4)
    record = read_record(folder.trial(trial) / "record.json")
    assert record.halvings == ((0, 0),)
    path = folder.trial(trial) / "start.json"
    path.write_text(path.read_text().replace(":limited", ":unlimited"))
    assert replay(folder, trial, images=IMAGES, splits=SPLITS).identical
    path = folder.trial(trial) / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "halvings": []}))
    assert not replay(folder, trial, images=IMAGES, splits=SPLITS).identical
