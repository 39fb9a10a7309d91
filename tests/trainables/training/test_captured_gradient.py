"""Captured steps give bitwise the same training as eager ones, with a stand-in for the graph."""

import gc
import inspect
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.peak_memory import peak_memory_bytes
from tests.trainables.training.rerun_graph import RerunGraph, Uncapturable
from tests.trainables.training.test_loop import (
    AUXILIARY,
    DISTILLATION,
    EVERYTHING,
    STAGES,
    start,
    without_clock,
)
from trainables.augmentation.batch import Batch
from trainables.recipe import Dtype, Numerics, Recipe
from trainables.resident_pixels import free_memory
from trainables.training import loop
from trainables.training.captured_gradient import (
    EAGER_STEPS,
    CapturedGradient,
    CapturedStep,
    CudaGraph,
    graph_of,
)
from trainables.training.optimizer_step import OptimizerStep, StepPosition
from trainables.training.optimizers import make_optimizer


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    threads = torch.get_num_threads()
    for graph in (RerunGraph, Uncapturable):
        graph.captures = graph.replays = 0
    yield
    torch.set_num_threads(threads)


def trained(**values: Any) -> tuple[list[Any], dict[str, Tensor]]:
    """Return the reports without times, and the weights at the end."""
    options: dict[str, Any] = {
        key: values.pop(key) for key in ("numerics", "teacher") if key in values
    }
    if "teacher" in options:
        options["distillation"] = DISTILLATION
    training = start(Recipe(**{**EVERYTHING, **values}), **options)
    reports = [without_clock(report) for report in training.reports()]
    return reports, training.model.state_dict()


def equal(first: tuple[list[Any], dict[str, Tensor]], second: Any) -> bool:
    same = all(torch.equal(value, second[1][name]) for name, value in first[1].items())
    return same and first[0] == second[0]


@pytest.mark.parametrize(
    ("values", "captures"),
    [
        ({}, 2),  # the bias of the whitening is frozen after two epochs
        ({"optimizer": "adamw", "lookahead": 3, "clip_grad_norm": 0.5}, 2),
        ({"optimizer": "muon", "whitening_epochs": 0, "dropout": 0.5}, 1),
        ({"sam_rho": 0.05, "ema_every": 3}, 2),
        ({"stages": STAGES, "optimizer": "adamw", **AUXILIARY}, 2),
    ],
    ids=["sgd", "clipped", "muon", "sam", "stages"],
)
def test_a_training_of_replayed_steps_equals_the_usual_one(
    values: dict[str, Any], captures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = trained(**values)
    monkeypatch.setattr(loop, "graph_of", lambda numerics: RerunGraph)
    assert equal(usual, trained(**values))
    assert RerunGraph.captures == captures
    assert RerunGraph.replays > 0


def test_gradients_of_a_scaled_loss_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    numerics = Numerics(dtype="float16")
    usual = trained(numerics=numerics)
    monkeypatch.setattr(loop, "graph_of", lambda numerics: RerunGraph)
    assert equal(usual, trained(numerics=numerics))
    assert RerunGraph.replays > 0


def test_a_step_that_cannot_be_captured_is_taken_as_usual(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = trained()
    monkeypatch.setattr(loop, "graph_of", lambda numerics: Uncapturable)
    assert equal(usual, trained())
    assert (Uncapturable.captures, Uncapturable.replays) == (1, 0)
    assert caplog.text.count("is not captured as a graph: RuntimeError: operation not") == 1


@pytest.mark.parametrize("graph", [RerunGraph, Uncapturable])
def test_the_time_of_captures_is_counted(
    graph: type[RerunGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = start()
    assert [*usual.reports()]
    assert usual.capture_seconds == 0
    assert not usual.is_captured
    monkeypatch.setattr(loop, "graph_of", lambda numerics: graph)
    captured = start()
    seconds = sum(report.seconds for report in captured.reports())
    assert 0 < captured.capture_seconds < seconds
    assert captured.is_captured is (graph is RerunGraph)


@pytest.mark.parametrize(
    "values", [{"accumulation": 2}, {"teacher": lambda images: torch.zeros(len(images), 3)}]
)
def test_micro_batches_and_teachers_are_not_captured(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "graph_of", lambda numerics: RerunGraph)
    trained(**values)
    assert RerunGraph.captures == 0


def test_batches_of_another_shape_are_captured_anew() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Dropout(0.5))
    gradient = CapturedGradient(model, _gradient_of(model), graph=RerunGraph)
    stage = object()
    for size in (4, 6, 4):
        for step in range(EAGER_STEPS + 3):
            batch = _batch(size, seed=step)
            torch.manual_seed(step)
            loss = gradient(batch, stage=stage)
            replayed = _gradients(model)
            model.zero_grad()
            torch.manual_seed(step)
            expected = _gradient_of(model)(batch)
            assert torch.equal(loss, expected)
            assert all(map(torch.equal, replayed, _gradients(model)))
    assert RerunGraph.captures == 3


def _gradients(model: nn.Module) -> list[Tensor]:
    return [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]


def _batch(size: int, *, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (size,), generator=generator)
    images = torch.rand(size, 3, 2, 2, generator=generator)
    return Batch(images=images, labels_a=labels, labels_b=labels, share=torch.ones(size))


def _gradient_of(model: nn.Module) -> Callable[[Any], Tensor]:
    def gradient(batch: Any) -> Tensor:
        loss = nn.functional.cross_entropy(model(batch.images), batch.labels_a)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return gradient


def test_capturing_changes_neither_statistics_nor_random_numbers() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    batch = _batch(8, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    captured = CapturedStep(model, lambda: _gradient_of(model)(batch), graph=RerunGraph)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    first = captured.replay()
    again = captured.replay()
    assert not torch.equal(first, again), "dropout draws anew in every replay"
    assert int(model[2].num_batches_tracked) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("draw", [random.random, np.random.random])
def test_a_network_that_draws_on_the_cpu_is_not_captured(draw: Callable[[], float]) -> None:
    """A replay would repeat what was drawn during the capture."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    batch = _batch(8, seed=0)

    def gradient() -> Tensor:
        draw()
        return _gradient_of(model)(batch)

    with pytest.raises(RuntimeError, match="CPU generator was used"):
        CapturedStep(model, gradient, graph=RerunGraph)
    assert RerunGraph.captures == 0


def test_steps_with_a_graph_are_freed_with_their_last_reference() -> None:
    """The graph holds a batch's activations; the next trial needs that memory."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    settings = Recipe(batch_size=8).optimizer
    optimizer = make_optimizer(model, settings)
    gc.collect()
    gc.disable()
    try:
        steps = OptimizerStep(
            model,
            lambda batch: nn.functional.cross_entropy(model(batch.images), batch.labels_a),
            graph=RerunGraph,
        )
        for step in range(EAGER_STEPS + 2):
            steps.take(_batch(8, seed=step), optimizer, settings, at=StepPosition(0, step))
        assert RerunGraph.replays == 2
        freed = weakref.ref(steps)
        del steps
        assert freed() is None
    finally:
        gc.enable()


def test_a_graph_is_freed_after_micro_batches_are_halved() -> None:
    graphs: list[weakref.ref[RerunGraph]] = []

    def graph(model: nn.Module) -> RerunGraph:
        made = RerunGraph(model)
        graphs.append(weakref.ref(made))
        return made

    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    settings = Recipe(batch_size=8).optimizer
    optimizer = make_optimizer(model, settings)
    steps = OptimizerStep(
        model,
        lambda batch: nn.functional.cross_entropy(model(batch.images), batch.labels_a),
        graph=graph,
        halvings=[StepPosition(0, 4)],
    )
    for step in range(6):
        steps.take(_batch(8, seed=step), optimizer, settings, at=StepPosition(0, step))
        gc.collect()
        alive = [made for made in graphs if made() is not None]
        assert len(alive) == (step in (2, 3)), step
    assert RerunGraph.replays == 2


def test_graph_memory_counts_in_the_peak_and_not_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {
        "reserved_bytes_by_private_pools.0_1.all.current": 300,
        "reserved_bytes_by_private_pools.0_1.small_pool.current": 100,
        "reserved_bytes_by_private_pools.0_2.all.current": 50,
        "reserved_bytes_by_private_pools.0_2.all.peak": 900,
        "reserved_bytes.all.current": 1000,
    }
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: sizes)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7000, 8000))
    assert peak_memory_bytes("cuda") == 500 + 350
    assert free_memory(torch.device("cuda")) == 7000 + 1000 - 400 - 350


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_a_gpu_captures_and_only_if_asked(dtype: Dtype) -> None:
    assert graph_of(Numerics(dtype=dtype)) is None
    assert graph_of(Numerics(dtype=dtype, captured=True)) is None
    assert graph_of(Numerics(device="cuda:1", dtype=dtype)) is None
    assert graph_of(Numerics(device="cuda:1", dtype=dtype, captured=True)) is CudaGraph


def test_torch_has_what_a_cuda_graph_needs() -> None:
    assert {"stream", "capture_error_mode"} <= {*inspect.signature(torch.cuda.graph).parameters}
