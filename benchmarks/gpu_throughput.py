"""Part `throughput` of gpu.py: images per second beside the card's measured limits.

Axes: B images of a batch, S×S pixels.

The limits are a product of two 8192×8192 matrices and a copy of 2 GiB (bytes read and written),
both by torch, on random data. A row's share of them is computed from the network alone:

    operations   multiplications and additions of its layers, by torch's counter
    bytes        inputs and outputs of every layer, as if nothing were fused. A share above 100%
                 is possible: caches and fused layers save memory traffic.

A training step counts as three forward passes in both.

    net alone    the same batch again and again, without augmentation, average or scores
    captured     the same step in a CUDA graph, without the overhead of launching kernels
    engine       epochs of a training, and its predictions; `captured` with the gradients in a CUDA
                 graph, as the probe chooses where it is at least 5% faster; `read ahead` with the
                 images in the host's memory, as for a data set that the card has no room for

In float32 the convolutions use TensorFloat-32, torch's default, where the card has it.
"""

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from gpu_session import CLASSES, Column, Report, Session, noise, train_on_all
from gpu_waits import without_room
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from common.errors import QuorumError
from common.failures import one_line
from trainables.data.image_set import ImageSet
from trainables.nets.build import build_model
from trainables.prediction import PixelSource, log_probs_of, place_model
from trainables.recipe import Dtype, Numerics, Recipe
from trainables.training.loop import Training
from trainables.training.optimizers import make_optimizer

DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip
EPOCHS = 3
"""Epochs of the engine; the first is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A network, the images it is measured on, and the batch that fills a card."""

    recipe: Recipe
    size: int
    images: int
    batch: int


_EPOCH: dict[str, Any] = {"epochs": EPOCHS, "warmup_epochs": 0.0, "whitening_epochs": 0}
NETS = {
    "32/64/128": Net(recipe=Recipe(**_EPOCH), size=32, images=50_000, batch=2048),
    "64/256/256": Net(
        recipe=Recipe(width=64, middle=4, **_EPOCH), size=32, images=50_000, batch=2048
    ),
    "lite0": Net(
        recipe=Recipe(
            model="timm:tf_efficientnet_lite0", optimizer="adamw", batch_size=256, **_EPOCH
        ),
        size=96,
        images=10_000,
        batch=512,
    ),
}
LIMITS = {
    "what": Column("limit"),
    "dtype": Column("dtype"),
    "value": Column("value", ",.4g"),
    "unit": Column("unit"),
}
COLUMNS = {
    "net": Column("net"),
    "what": Column("what"),
    "code": Column("code"),
    "dtype": Column("dtype"),
    "batch": Column("batch", ","),
    "images_per_second": Column("images/s", ",.0f"),
    "tflops": Column("TFLOP/s", ",.2f"),
    "flops_share": Column("of matmul", ".1%"),
    "bytes_share": Column("of bandwidth", ".1%"),
    "failed": Column("failed"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The card's speed: operations per second by dtype, and bytes per second."""

    flops: dict[Dtype, float]
    bandwidth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Work of the network alone for one image."""

    flops: float
    """Operations of a forward pass."""
    values: float
    """Inputs and outputs of all layers in a forward pass."""


def run_throughput(session: Session) -> None:
    """Measure the limits, then every network in every dtype."""
    limits = measure_limits(session)
    report = Report(session, "throughput", COLUMNS)
    for name, net in NETS.items():
        images = noise(session.pick(net.images, 24), size=net.size)
        work = work_of(net, images)
        for dtype in DTYPES:
            for what, code, batch, measured in measurements(session, net, images, dtype):
                if session.seconds_left < session.pick(5, 0):
                    report.note(f"{name}, {dtype}: no time left")
                    return
                row = {"net": name, "what": what, "code": code, "dtype": dtype, "batch": batch}
                try:
                    speed = measured()
                # E.g. a kernel that does not exist for the dtype, or a training that diverges.
                except (RuntimeError, QuorumError) as error:
                    report.row(**row, failed=one_line(error))
                    continue
                passes = 3 if what == "training" else 1
                flops, traffic = passes * work.flops, passes * work.values * DTYPES[dtype].itemsize
                report.row(
                    **row,
                    images_per_second=speed,
                    tflops=speed * flops / 1e12,
                    flops_share=speed * flops / limits.flops.get(dtype, math.nan),
                    bytes_share=speed * traffic / limits.bandwidth,
                )


def measure_limits(session: Session) -> Limits:
    """Measure matrix products by dtype and the memory's bandwidth."""
    report = Report(session, "limits", LIMITS)
    size, flops = session.pick(8192, 128), dict[Dtype, float]()
    for dtype, kind in DTYPES.items():
        a, b = (torch.randn(size, size, device=session.device).to(kind) for _ in range(2))
        with tensor_float(True):
            seconds = session.seconds_per_call(lambda a=a, b=b: a @ b)  # type: ignore[misc]
        flops[dtype] = 2 * size**3 / seconds
        name = "float32 as TF32" if dtype == "float32" and session.on_gpu else dtype
        report.row(what="matmul", dtype=name, value=flops[dtype] / 1e12, unit="TFLOP/s")
    source = torch.randint(255, (session.pick(2**31, 2**20),), dtype=torch.uint8).to(session.device)
    target = torch.empty_like(source)
    bandwidth = 2 * len(source) / session.seconds_per_call(lambda: target.copy_(source))
    report.row(what="memory", dtype="uint8", value=bandwidth / 1e9, unit="GB/s")
    return Limits(flops=flops, bandwidth=bandwidth)


@contextmanager
def tensor_float(allowed: bool) -> Iterator[None]:
    """Allow TensorFloat-32 in matrix products inside the block, or forbid it."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def work_of(net: Net, images: ImageSet) -> Work:
    """Count the operations and the values of one image, on the CPU."""
    model = build(net.recipe, images, train=2)
    pixels = torch.rand(2, 3, net.size, net.size)
    values = 0

    def count(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        values += sum(tensor.numel() for tensor in (*inputs, output))

    leaves = [module for module in model.modules() if not [*module.children()]]
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    # Not counted in a whole step: torch 2.15 counts the gradients of grouped convolutions as if
    # they had one group, 13 times too many for EfficientNet-Lite0.
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixels)
    for hook in hooks:
        hook.remove()
    return Work(flops=counter.get_total_flops() / 2, values=values / 2)


def build(recipe: Recipe, images: ImageSet, *, train: int) -> nn.Module:
    """Return the network in training mode, prepared for the first `train` images."""
    return build_model(
        recipe,
        classes=CLASSES,
        image_size=images.image_size,
        train_images=images.images[:train],
        seed=0,
    ).train()


Measured = tuple[str, str, int | None, Callable[[], float]]
"""What is measured, by which code, the batch (None if our code chooses it), and a function that
returns images per second."""


def measurements(session: Session, net: Net, images: ImageSet, dtype: Dtype) -> Iterator[Measured]:
    """Yield everything to measure for a network in one dtype."""
    batch = session.pick(net.batch, 4)
    yield "training", "net alone", batch, lambda: alone(session, net, images, dtype, batch)
    if session.on_gpu:  # in float16, too: fused SGD reads on the GPU whether to skip the step
        yield (
            "training", "captured", batch,
            lambda: alone(session, net, images, dtype, batch, captured=True),
        )  # fmt: skip
    yield (
        "inference", "net alone", batch,
        lambda: alone(session, net, images, dtype, batch, training=False),
    )  # fmt: skip
    own = session.pick(net.recipe.optimizer.batch_size, 8)
    numerics = session.numerics(dtype)
    yield "training", "engine", own, lambda: engine_trains(session, net, images, numerics, own)
    graph = replace(numerics, captured=True)
    if session.on_gpu:
        yield (
            "training", "engine, captured", own,
            lambda: engine_trains(session, net, images, graph, own),
        )  # fmt: skip
        yield (
            "training", "engine, read ahead", own,
            lambda: engine_reads_ahead(session, net, images, numerics, own),
        )  # fmt: skip
    yield "inference", "engine", None, lambda: engine_predicts(session, net, images, numerics)


def alone(
    session: Session,
    net: Net,
    images: ImageSet,
    dtype: Dtype,
    batch: int,
    *,
    training: bool = True,
    captured: bool = False,
) -> float:
    """Return images per second of the network on one batch that stays on the device."""
    numerics = Numerics(device=session.device)
    model = place_model(build(net.recipe, images, train=64), numerics)
    pixels = torch.rand(batch, 3, net.size, net.size, device=session.device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=session.device) % CLASSES
    half = torch.autocast(session.device, DTYPES[dtype], enabled=dtype != "float32")
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        if not training:
            model.eval()

            def predict() -> None:
                with torch.inference_mode(), half:
                    model(pixels)

            return batch / session.seconds_per_call(predict)
        optimizer = make_optimizer(model, net.recipe.with_values(optimizer="sgd").optimizer)
        scaler = torch.amp.GradScaler(session.device, enabled=dtype == "float16")

        def step() -> None:
            optimizer.zero_grad(set_to_none=not captured)
            with half:
                logits = model(pixels)
            loss = functional.cross_entropy(logits.float(), labels)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()

        call = capture(step) if captured else step
        return batch / session.seconds_per_call(call)
    finally:
        torch.backends.cudnn.benchmark = before


def capture(step: Callable[[], None]) -> Callable[[], None]:
    """Return a function that replays a training step as a CUDA graph."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # kernels are chosen and the optimizer's buffers made before
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def engine_trains(
    session: Session, net: Net, images: ImageSet, numerics: Numerics, batch: int
) -> float:
    """Return images per second of our training, without scores."""
    epochs = session.pick(EPOCHS, 1)
    training = Training(
        net.recipe.with_values(batch_size=batch, epochs=epochs),
        rungs=(epochs,),
        seed=0,
        numerics=numerics,
        images=images,
        splits=train_on_all(images),
    )
    reports = [*training.reports()][session.pick(1, 0) :]
    if numerics.captured and not training.is_captured:
        raise RuntimeError("the step was not captured; the log says why")
    return statistics.median(report.images_per_second for report in reports)


def engine_reads_ahead(
    session: Session, net: Net, images: ImageSet, numerics: Numerics, batch: int
) -> float:
    """Return images per second of our training without a copy of the images on the device."""
    # A new array, because the device already has a copy of the old one.
    images = replace(images, images=images.images.copy())
    with without_room():
        return engine_trains(session, net, images, numerics, batch)


def engine_predicts(session: Session, net: Net, images: ImageSet, numerics: Numerics) -> float:
    """Return images per second of our predictions, with the batches that Quorum chooses."""
    model = place_model(build(net.recipe, images, train=64), numerics).eval()
    source = PixelSource(images.images, train_on_all(images).train, numerics)
    seconds = session.seconds_per_call(lambda: log_probs_of(model, source, numerics))
    return len(source) / seconds
