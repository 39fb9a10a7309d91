"""Measure accuracy against minutes of training: our loop beside the usual one and timm's ResNet-18.

Command:  python benchmarks/time_to_accuracy.py --data FOLDER --minutes 5,10,20,40 --out FILE.json
          python benchmarks/time_to_accuracy.py --data FOLDER --arms scratch,usual_scratch

Every point is a separate training with a complete schedule. Its number of steps is chosen to fill
its minutes, after a few steps have been timed; one training at a time uses all cores. The minutes
are wall-clock time from images in memory to the last step, in ours with a score of 500 images after
every epoch; the final scoring does not count. A point is plotted at the time that it took.

Accuracy is on the images of val and holdout together, averaged over the views of the recipe
(`tta`); `test` is not read, and nothing is chosen by these scores. "Minutes to 94%" are those of
the shortest training that reached it: no interpolation.

    scratch, finetune    the families of the sweep `cifar10`, with their first values, in our loop
    usual_…              the same nets, optimizers, rates and batches in the usual loop, which
                         augments by crops and mirror images only
    resnet18             timm's ResNet-18 with a stem for small images, SGD, in the usual loop

`--out` is written after every training; a command that is repeated trains what is missing.
"""

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from origin import commit, origin_line
from training_turns import faster_dtypes, numerics
from usual_loop import UsualLoop

from common.cpu_runtime import share_arena, usable_cores
from common.files import write_bytes_atomically
from common.formats import DASH
from common.provenance import code_version, machine_description
from search.space.sweep_files import load_spec
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, SplitSpec, make_splits
from trainables.recipe import Dtype, Recipe
from trainables.training.loop import Training
from trainables.training.optimizers import set_progress
from trainables.training.schedule import learning_rate, plan_epochs

EPOCHS = 12
"""Epochs of every schedule, whatever its length in passes; the recipes' warm-up is one of them."""

TARGETS = (0.90, 0.92, 0.94, 0.95, 0.96)
MINUTES = (1, 2, 5, 10, 20, 40, 80, 160)
ERRORS = (2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 30, 50, 80)
"""Ticks of the picture."""

RESNET18 = Recipe(
    model="timm:resnet18",
    stem="small",
    batch_size=128,
    optimizer="sgd",
    lr_per_1024=0.8,
    momentum=0.9,
    weight_decay=5e-4,
    translate=4,
)
"""The usual recipe on CIFAR-10: a rate of 0.1 for 128 images, crops from a border of 4 pixels."""

Point = dict[str, Any]


def main() -> None:
    """Train every arm for every number of minutes; print the points and the times to accuracy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", default="5,10,20,40")
    parser.add_argument("--arms", default="scratch,usual_scratch,resnet18,finetune,usual_finetune")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file of the points")
    parser.add_argument("--png", type=Path, help="picture of the curves")
    options = parser.parse_args()
    points: list[Point] = []
    if options.out is not None and options.out.exists():
        points = json.loads(options.out.read_text())["points"]
    print(f"{origin_line()}\n")
    print("| arm | minutes given | taken | passes | dtype | accuracy |\n|---|--:|--:|--:|---|--:|")
    for minutes in map(float, options.minutes.split(",")):
        for arm in options.arms.split(","):
            asked = {"arm": arm, "minutes": minutes, "seed": options.seed, "data": options.data}
            point = next((each for each in points if asked.items() <= each.items()), None)
            if point is None:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    point = pool.submit(measure_point, **asked).result()
                points.append(point)
                if options.out is not None:
                    write(options.out, points)
            print_point(point)
    print_times(points)
    if options.png is not None:
        draw(points, options.png)


def recipe_of(arm: str) -> Recipe:
    """Return the recipe of an arm.

    Raises:
        KeyError: there is no such arm.
    """
    if arm == "resnet18":
        return RESNET18
    return load_spec("cifar10", profile="cpu").first_recipes()[arm.removeprefix("usual_")]


def measure_point(*, arm: str, minutes: float, data: str, seed: int) -> Point:
    """Train one arm for that many minutes and return its point of the curve."""
    share_arena()
    images = load_dataset(DatasetSpec(name="images", path=data))
    splits = make_splits(images, SplitSpec())
    recipe = recipe_of(arm)
    train = train_usual if arm.startswith("usual_") or arm == "resnet18" else train_ours
    dtype = faster_dtypes(recipe)[0][-1]
    return {
        "arm": arm,
        "minutes": minutes,
        "dtype": dtype,
        "seed": seed,
        "data": data,
        "code": code_version(),
        "commit": commit(),
        "machine": machine_description(),
        **train(recipe, images, splits, seconds=60 * minutes, dtype=dtype, seed=seed),
    }


def schedule(recipe: Recipe, *, passes: float) -> Recipe:
    """Return the recipe with a schedule of that many passes over the training images."""
    return recipe.with_values(epochs=EPOCHS, passes=passes / EPOCHS)


def scored_images(splits: Splits) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the positions of the images that are scored at the end."""
    return np.concatenate([splits.val, splits.holdout])


def train_ours(
    recipe: Recipe, images: ImageSet, splits: Splits, *, seconds: float, dtype: Dtype, seed: int
) -> Point:
    """Train with our loop for `seconds`; return minutes taken, passes and accuracy."""
    rows = scored_images(splits)
    # Every epoch ends with a score, which counts in our time; 500 images keep it short.
    few = replace(splits, val=splits.val[:500])

    def training(passes: float) -> Training:
        return Training(
            schedule(recipe, passes=passes),
            rungs=(EPOCHS,),
            seed=seed,
            numerics=numerics(dtype),
            images=images,
            splits=few,
        )

    each = seconds_per_step(training(1.0).rehearse)
    steps = len(splits.train) // recipe.optimizer.batch_size
    passes = seconds / (each * steps)
    started = time.perf_counter()
    ours = training(passes)
    for _ in ours.reports():
        pass
    taken = time.perf_counter() - started
    return {
        "taken": taken / 60,
        "passes": passes,
        "accuracy": float((ours.log_probs(rows).argmax(1) == images.labels[rows]).mean()),
    }


def train_usual(
    recipe: Recipe, images: ImageSet, splits: Splits, *, seconds: float, dtype: Dtype, seed: int
) -> Point:
    """Train with the usual loop for `seconds`; return minutes taken, passes and accuracy."""
    rows = scored_images(splits)
    loop = partial(UsualLoop.on, recipe, images, splits, seed=seed, dtype=dtype)
    timed = loop()
    batches = timed.batches()

    def take(steps: int) -> None:
        for _ in range(steps):
            timed.step(*next(batches))

    each = seconds_per_step(take)
    del batches, timed
    count = int(seconds / each)
    started = time.perf_counter()
    usual = loop()
    plans = plan_epochs((EPOCHS,), recipe.with_values(epochs=EPOCHS))
    for step, (pixels, labels) in zip(range(count), usual.batches(), strict=False):
        index, progress = divmod((step + 0.5) / count * EPOCHS, 1)
        rate = learning_rate(plans[int(index)], progress, recipe)
        set_progress(usual.optimizer, rate=rate, steps=step)
        usual.step(pixels, labels)
    taken = time.perf_counter() - started
    return {
        "taken": taken / 60,
        "passes": count * usual.batch_size / len(splits.train),
        "accuracy": usual.accuracy(images.images[rows], images.labels[rows]),
    }


def seconds_per_step(take: Callable[[int], object], *, seconds: float = 10.0) -> float:
    """Return the mean time of a step, after a few that start caches and the loader."""
    take(2 + 2 * usable_cores())
    steps, started = 0, time.perf_counter()
    while steps < 4 or time.perf_counter() - started < seconds:
        take(2)
        steps += 2
    return (time.perf_counter() - started) / steps


def print_point(point: Point) -> None:
    """Print one row of the table."""
    print(
        f"| {point['arm']} | {point['minutes']:g} | {point['taken']:.1f} | {point['passes']:.1f} | "
        f"{point['dtype']} | {point['accuracy']:.2%} |",
        flush=True,
    )


def print_times(points: Sequence[Point]) -> None:
    """Print the shortest training of each arm that reached each accuracy."""
    arms = [*dict.fromkeys(point["arm"] for point in points)]
    print("\n| minutes to | " + " | ".join(arms) + " |\n|---|" + "--:|" * len(arms))
    for target in TARGETS:
        cells = (cell(times_to(points, target), arm) for arm in arms)
        print(f"| {target:.0%} | {' | '.join(cells)} |")


def times_to(points: Sequence[Point], target: float) -> dict[str, float]:
    """Return the minutes of the shortest training that reached `target`, by arm."""
    reached: dict[str, float] = {}
    for point in points:
        if point["accuracy"] >= target:
            arm = point["arm"]
            reached[arm] = min(point["taken"], reached.get(arm, math.inf))
    return reached


def cell(times: Mapping[str, float], arm: str) -> str:
    """Return a table's cell: minutes, or a dash where no training reached the accuracy."""
    return f"{times[arm]:.1f}" if arm in times else DASH


def write(path: Path, points: Sequence[Point]) -> None:
    """Write all points with their origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, (json.dumps({"points": points}, indent=1) + "\n").encode())


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw the error rate against minutes, one line for each arm, on logarithmic axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    arms = dict.fromkeys(point["arm"] for point in points)
    for arm, marker in zip(arms, "osD^vPX", strict=False):
        own = sorted((p["taken"], 100 * (1 - p["accuracy"])) for p in points if p["arm"] == arm)
        axes.plot(*zip(*own, strict=True), marker=marker, label=arm)
    axes.set(xscale="log", yscale="log", xlabel="minutes of training", ylabel="errors, %")
    axes.set_xticks([minutes for minutes in MINUTES if _is_near(minutes, axes.get_xlim())])
    axes.set_yticks([errors for errors in ERRORS if _is_near(errors, axes.get_ylim())])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _is_near(value: float, limits: tuple[float, float]) -> bool:
    low, high = limits
    return 0.9 * low <= value <= 1.1 * high


if __name__ == "__main__":
    main()
