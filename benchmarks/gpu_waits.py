"""Part `waits` of gpu.py: how often a training step waits for the device.

A step that reads a value from the GPU, or copies one to it in the usual way, waits until the GPU
has finished its work so far. Then the GPU is idle while the CPU prepares the next kernels. torch
can warn of every such wait (`torch.cuda.set_sync_debug_mode`). Waits per step are the extra
warnings of a long series of steps over a short one, divided by the extra steps: waits that occur
once per epoch cancel out.

tests/trainables/training/test_waits.py checks the same without a GPU, on meta tensors, but
leaves out fused optimizers, loss scaling, captured steps and images that are read ahead.

Expected: 0, except in float16, the default of GPUs without bfloat16, with an optimizer that is not
one of torch's fused ones: `Lookahead` and `Muon`. There torch's loss scaling reads once a step
whether a gradient was not finite.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from gpu_session import Column, Report, Session, noise, train_on_all

from common.errors import QuorumError
from common.failures import one_line
from trainables.data.image_set import ImageSet
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.training.loop import Training

SHORT, LONG = 2, 10
"""Steps of the two series."""
WARM_UP = 4
"""Steps that load kernels, choose algorithms and, if steps are captured, capture one."""
WARNING = "synchronizing CUDA operation"
"""Part of torch's warning."""

_EVERYTHING: dict[str, Any] = {
    "translate": 2, "flip": True, "cutout": 8, "mixup_alpha": 0.2, "cutmix_alpha": 1.0,
    "label_smoothing": 0.1, "batch_size": 256,
}  # fmt: skip
RECIPES = {
    "SGD": Recipe(**_EVERYTHING),
    "AdamW, TrivialAugment": Recipe(
        optimizer="adamw", augment="trivialaugment", erase_probability=0.2, **_EVERYTHING
    ),
    "RandAugment, auxiliary tasks": Recipe(
        augment="randaugment", rotation_weight=0.5, superclass_weight=0.5,
        superclasses=(("0", "1"),), class_weights="balanced", **_EVERYTHING,
    ),
    "Muon, SGD for the rest": Recipe(optimizer="muon_sgd", **_EVERYTHING),
    "Lookahead": Recipe(lookahead=5, lookahead_decay=0.95, **_EVERYTHING),
    "SAM, micro-batches": Recipe(sam_rho=0.05, accumulation=2, clip_grad_norm=1.0, **_EVERYTHING),
    "head on features": Recipe(
        stages=(Stage(train="head"),), translate=0, flip=True, batch_size=256
    ),
}  # fmt: skip
COLUMNS = {
    "recipe": Column("recipe"),
    "waits": Column("waits a step", ".2f"),
    "place": Column("most often in"),
    "failed": Column("failed"),
}


@dataclass(slots=True)
class Waits:
    """The waits that torch warned of, by the place in the code."""

    places: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Number of waits."""
        return self.places.total()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A recipe, and how it is computed."""

    recipe: Recipe
    numerics: Numerics
    read_ahead: bool = False
    """Keep no copy of the images on the device, as if there were no room."""


def run_waits(session: Session) -> None:
    """Count the waits of every case."""
    report = Report(session, "waits", COLUMNS)
    images = noise(session.pick(4096, 600))
    left = cases(session)
    while left:
        if session.seconds_left < session.pick(5, 0):
            report.note(f"no time left for: {'; '.join(left)}")
            break
        name = next(iter(left))
        case = left.pop(name)
        try:
            waits, place = waits_per_step(case, images)
        except (RuntimeError, QuorumError) as error:
            report.row(recipe=name, failed=one_line(error))
            continue
        report.row(recipe=name, waits=waits, place=place)
    if not session.on_gpu:
        report.note("There are no waits to count without a GPU.")


def cases(session: Session) -> dict[str, Case]:
    """Return the cases by name; those in float16 and of captured steps only on a GPU."""
    changes = session.pick({}, {"width": 4, "batch_size": 16})
    recipes = {name: recipe.with_values(**changes) for name, recipe in RECIPES.items()}
    numerics = session.numerics()
    found = {name: Case(recipe=recipe, numerics=numerics) for name, recipe in recipes.items()}
    found["SGD, images read ahead"] = Case(
        recipe=recipes["SGD"], numerics=numerics, read_ahead=True
    )
    if session.on_gpu:
        for name in ("SGD", "RandAugment, auxiliary tasks", "Lookahead"):
            graph = session.numerics(captured=True)
            found[f"captured, {name}"] = Case(recipe=recipes[name], numerics=graph)
        for name in ("SGD", "Lookahead"):
            half = session.numerics("float16")
            found[f"float16, {name}"] = Case(recipe=recipes[name], numerics=half)
    return found


def waits_per_step(case: Case, images: ImageSet) -> tuple[float, str]:
    """Return the waits of a step and the place of most of them; empty if there are none.

    Raises:
        RuntimeError: the step cannot be captured, or torch does not warn of waits.
    """
    if case.read_ahead:  # a new array, because the device already has a copy of the old one
        images = replace(images, images=images.images.copy())
    with without_room() if case.read_ahead else nullcontext():
        training = Training(
            case.recipe, rungs=(case.recipe.schedule.epochs,), seed=0, numerics=case.numerics,
            images=images, splits=train_on_all(images),
        )  # fmt: skip
        training.rehearse(WARM_UP)
        if case.numerics.captured and not training.is_captured:
            raise RuntimeError("the step was not captured; the log says why")
        series = []
        for steps in (SHORT, LONG):
            with counted_waits(case.numerics.device) as waits:
                training.rehearse(steps)
            series.append(waits)
    short, long = series
    if case.numerics.device != "cpu" and not short.count:
        # Every series copies the positions of its images to the device.
        raise RuntimeError("torch warned of no wait at all, not even of those before the steps")
    per_step = (long.count - short.count) / (LONG - SHORT)
    more = long.places - short.places
    return per_step, more.most_common(1)[0][0] if more else ""


@contextmanager
def without_room() -> Iterator[None]:
    """Let no device have room for a copy of the images."""
    with mock.patch("trainables.resident_pixels.has_room", return_value=False):
        yield


@contextmanager
def counted_waits(device: str) -> Iterator[Waits]:
    """Count the waits in the block; nothing is counted on the CPU."""
    waits = Waits()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _debugged(device):
            yield waits
    for warning in caught:
        if WARNING in str(warning.message):
            waits.places[f"{Path(warning.filename).name}:{warning.lineno}"] += 1


@contextmanager
def _debugged(device: str) -> Iterator[None]:
    if device == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
