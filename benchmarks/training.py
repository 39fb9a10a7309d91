"""Compare our training speed with the usual PyTorch loop, for the same nets at the same dtype.

Command:  python benchmarks/training.py                      (a quarter of an hour on 2 cores)
          python benchmarks/training.py --nets lite0 --rounds 3
          python benchmarks/training.py --data FOLDER --epochs 4 --seeds 3     (accuracies too)

`usual` is the loop of `usual_loop.py`, with data loader and augmentation; `its steps alone` are its
training steps on batches in memory, without augmentation; `ours` has the same net, batch size,
optimizer and augmentation. Each runs in float32 and, where a step is faster in it, in bfloat16:
this separates the gain of the dtype from that of the loop. All take turns, each in its own process.
Images per second are wall-clock medians over rounds of a few steps, without the loader's start; a
ratio is the median of the rounds' ratios, with the lowest and the highest.

If only the head learns, ours computes the features once: the second table compares a whole
schedule, and our steps on features with a bare linear layer's on tensors in memory.

With `--data`, pairs of trainings with equal epochs and learning rates are compared in accuracy on
val.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from gpu_session import interval
from torch import nn
from torch.nn import functional
from usual_loop import UsualLoop, eager_batches

from common.cpu_runtime import share_arena, usable_cores
from common.provenance import machine_description
from common.seeds import numpy_generator, torch_generator
from trainables.augmentation.batch import augment
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, SplitSpec, make_splits
from trainables.device.probe import Measurement, measure
from trainables.device.rehearsal import rehearse
from trainables.recipe import Dtype, Numerics, Recipe
from trainables.stages import Stage
from trainables.training.loop import Training
from trainables.training.optimizers import set_progress
from trainables.training.schedule import learning_rate, plan_epochs
from trainables.training.scoring import RECALIBRATION_IMAGES

SIZE, CLASSES, IMAGES = 32, 10, 8192
ROUNDS, SECONDS, MOST_STEPS = 5, 4.0, 8
"""A turn takes as many steps as fit into SECONDS, MOST_STEPS at most."""

PAUSE = 3.0
"""Seconds after a turn of the usual loop, whose workers prepare a few more batches meanwhile."""

LITE0 = Recipe(
    model="timm:tf_efficientnet_lite0",
    pretrained="package",
    input_size=96,
    batch_size=64,
    optimizer="adamw",
    adamw_lr=7e-4,
)
NETS = {
    "32/64/128": Recipe(),
    "64/256/256": Recipe(width=64, middle=4),
    "lite0": LITE0,
}
HEAD = LITE0.with_values(translate=0, stages=(Stage(train="head"),))
HEAD_IMAGES, HEAD_EPOCHS = 1024, 8

USUAL, STEPS_ALONE, OURS = "usual", "steps", "ours"


def main() -> None:
    """Print Markdown tables of speeds and, with data, one of accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of a data set, for accuracies")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--nets", default=",".join([*NETS, "head"]), help=f"of {', '.join(NETS)}, head"
    )
    parser.add_argument("--no-speeds", action="store_true", help="only the accuracies")
    options = parser.parse_args()
    share_arena()  # a rehearsal runs in a thread, and its memory should be reused
    machine = machine_description()
    print(
        f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['cpu_flags'])}, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n"
    )
    if not options.no_speeds:
        names = options.nets.split(",")
        unknown = sorted({*names} - {*NETS, "head"})
        if unknown:
            parser.error(f"--nets: unknown {', '.join(unknown)}; choose of {', '.join(NETS)}, head")
        print_speeds({name: NETS[name] for name in NETS if name in names}, options.rounds)
        if "head" in names:
            print_head(options.rounds)
    if options.data:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        print_accuracies(options.data, epochs=options.epochs, seeds=seeds)


def print_speeds(recipes: dict[str, Recipe], rounds: int) -> None:
    """Print images per second by net and dtype, and the shares of augmentation and scoring."""
    print("| net | dtype | usual | its steps alone | ours | ours over usual | over its steps |")
    print("|---|---|--:|--:|--:|--:|--:|")
    notes = []
    for name, recipe in recipes.items():
        dtypes, gain = faster_dtypes(recipe)
        faster = f"{gain:.2f} times as fast as in float32" if gain else "too slow to be measured"
        notes.append(f"{name}: a bare step in bfloat16 is {faster}")
        speeds = speeds_of(recipe, dtypes, rounds)
        for dtype in dtypes:
            usual, steps, ours = (speeds[dtype, kind] for kind in (USUAL, STEPS_ALONE, OURS))
            medians = " | ".join(f"{statistics.median(each):,.0f}" for each in (usual, steps, ours))
            print(
                f"| {name} | {dtype} | {medians} | {ratio(ours, usual)} | {ratio(ours, steps)} |",
                flush=True,
            )
        if len(dtypes) > 1:
            fast, slow = (speeds[dtype, OURS] for dtype in ("bfloat16", "float32"))
            notes.append(f"{name}, ours: bfloat16 over float32 {ratio(fast, slow)}")
        augmenting, scoring = shares_of(recipe, dtypes[-1])
        notes.append(
            f"{name}: augmentation {augmenting:.0%} of an epoch of CIFAR-10, scoring {scoring:.0%}"
        )
    print(f"\nImages per second; {SIZE} px, lite0 at 96 px; n = {rounds} rounds.\n")
    print("\n".join(f"- {note}" for note in notes))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the median of paired ratios and their range."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"


def faster_dtypes(recipe: Recipe) -> tuple[list[Dtype], float]:
    """Return float32 and, if it is faster, bfloat16; and the speed-up of a bare step."""
    measured = measure(
        recipe.with_values(pretrained=""),
        classes=CLASSES,
        image_size=SIZE,
        device="cpu",
        threads=usable_cores(),
        budget_seconds=8.0,
        half="bfloat16",
    )

    def best(dtype: Dtype) -> float:
        return min((each.seconds for each in measured if is_of(each, dtype)), default=float("inf"))

    gain = best("float32") / best("bfloat16")
    return ["float32", "bfloat16"] if gain > 1 else ["float32"], gain


def is_of(measured: Measurement, dtype: Dtype) -> bool:
    """Return whether the measurement has this dtype."""
    return measured.numerics.dtype == dtype


def speeds_of(
    recipe: Recipe, dtypes: Sequence[Dtype], rounds: int
) -> dict[tuple[Dtype, str], list[float]]:
    """Return the images per second of every round by dtype and kind; all take turns.

    Each runs in its own process, because ours changes its process's memory allocator.
    """
    kinds = [(dtype, kind) for dtype in dtypes for kind in (USUAL, STEPS_ALONE, OURS)]
    with ExitStack() as stack:
        turns = {key: stack.enter_context(racing(race, recipe, *key)) for key in kinds}
        speeds: dict[tuple[Dtype, str], list[float]] = {key: [] for key in kinds}
        for index in range(1 + rounds):
            for key, turn in turns.items():
                speed = turn()
                if index:  # the first warms up
                    speeds[key].append(speed)
                if key[1] == USUAL:
                    time.sleep(PAUSE)
    return speeds


@contextmanager
def racing(task: Callable[..., None], *arguments: object) -> Iterator[Callable[[], float]]:
    """Start a process for `task`; yield a function that runs a turn in it and returns its speed."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=task, args=(far, *arguments))
    process.start()
    far.close()  # so that a process that fails ends the benchmark

    def turn() -> float:
        near.send("go")
        return float(near.recv())

    try:
        yield turn
    finally:
        with suppress(BrokenPipeError):
            near.send(None)
        process.join()


def race(connection: Connection, recipe: Recipe, dtype: Dtype, kind: str) -> None:
    """Answer every message with the images per second of a turn, until None."""
    task, lead = steps_of(recipe, dtype, kind)
    steps = 0
    while connection.recv():
        if not steps:
            task(2)
            start = time.perf_counter()
            task(2)
            each = (time.perf_counter() - start) / 2
            steps = max(2, min(MOST_STEPS, int(SECONDS / each)))
        task(lead)
        start = time.perf_counter()
        task(steps)
        seconds = time.perf_counter() - start
        connection.send(steps * recipe.optimizer.batch_size / seconds)


def steps_of(recipe: Recipe, dtype: Dtype, kind: str) -> tuple[Callable[[int], None], int]:
    """Return a function that takes n training steps, and the number of steps that warm it up.

    The loader prepared the batches of the first steps during other turns.
    """
    torch.set_num_threads(usable_cores())
    images = noise()
    if kind == OURS:
        return training_of(recipe, dtype, images, everything()).rehearse, 1
    loop = UsualLoop(recipe, images.images, images.labels, classes=CLASSES, seed=0, dtype=dtype)
    if kind == USUAL:
        batches, lead = loop.batches(), 3 * usable_cores()
    else:
        batches, lead = (
            eager_batches(images.images, images.labels, side=loop.model.input_size,
                          batch=loop.batch_size),
            1,
        )  # fmt: skip

    def take(steps: int) -> None:
        for pixels, labels in itertools.islice(batches, steps):
            loop.step(pixels, labels)

    return take, lead


def training_of(recipe: Recipe, dtype: Dtype, images: ImageSet, splits: Splits) -> Training:
    """Return our training with its first seed."""
    return Training(
        recipe,
        rungs=(recipe.schedule.epochs,),
        seed=0,
        numerics=numerics(dtype),
        images=images,
        splits=splits,
    )


def shares_of(recipe: Recipe, dtype: Dtype) -> tuple[float, float]:
    """Return the shares of augmentation and scoring in an epoch of 42,500 CIFAR-10 images."""
    images, splits = noise(), everything()
    rehearsed = rehearse(recipe, images=images, splits=splits, numerics=numerics(dtype))
    each = rehearsed.pass_seconds[0] / len(splits.train)
    forward = rehearsed.forward_seconds / len(splits.train)
    batch = recipe.optimizer.batch_size
    pixels = torch.from_numpy(images.images[:batch]).permute(0, 3, 1, 2).float().div_(255)
    labels, generator = torch.zeros(batch, dtype=torch.int64), torch_generator(0, "augment")
    times = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        augment(pixels, labels, recipe.augmentation, mean=torch.zeros(3), generator=generator)
        times.append(time.perf_counter() - start)
    scoring = (2_500 + RECALIBRATION_IMAGES) * forward
    epoch = 42_500 * each + scoring
    return 42_500 * statistics.median(times[1:]) / batch / epoch, scoring / epoch


def print_head(rounds: int) -> None:
    """Print the speeds of training the head alone, and the gain over a whole schedule."""
    dtypes, _ = faster_dtypes(LITE0)
    print("\n| head of lite0 | usual | ours: features | ours: on features | bare linear layer |"
          f" {HEAD_EPOCHS} epochs: over usual |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|")
    for dtype in dtypes:
        with ExitStack() as stack:
            kinds: dict[str, tuple[Any, ...]] = {
                "usual": (race, HEAD, dtype, USUAL),
                "features": (race_features, dtype),
                "head": (race_head, dtype),
                "bare": (race_bare, dtype),
            }
            turns = {name: stack.enter_context(racing(*kind)) for name, kind in kinds.items()}
            speeds: dict[str, list[float]] = {name: [] for name in kinds}
            for index in range(1 + rounds):
                for name, turn in turns.items():
                    speed = turn()
                    if index:
                        speeds[name].append(speed)
        usual = [HEAD_EPOCHS / each for each in speeds["usual"]]
        ours = [
            1 / features + HEAD_EPOCHS / head
            for features, head in zip(speeds["features"], speeds["head"], strict=True)
        ]
        medians = " | ".join(f"{statistics.median(each):,.0f}" for each in speeds.values())
        print(f"| {dtype} | {medians} | {ratio(usual, ours)} |", flush=True)
    print(
        "\nImages per second. Features are those of each image and its mirror image; both count "
        "as one image."
    )


def race_features(connection: Connection, dtype: Dtype) -> None:
    """Answer with the images per second of computing the features of HEAD_IMAGES images."""
    torch.set_num_threads(usable_cores())
    images = noise()
    splits = replace(everything(), train=np.arange(HEAD_IMAGES))
    while connection.recv():
        training = training_of(HEAD, dtype, images, splits)
        start = time.perf_counter()
        training.rehearse(1)
        connection.send(HEAD_IMAGES / (time.perf_counter() - start))


def race_head(connection: Connection, dtype: Dtype) -> None:
    """Answer with the images per second of our epochs on features."""
    torch.set_num_threads(usable_cores())
    splits = replace(everything(), train=np.arange(HEAD_IMAGES))
    training = training_of(HEAD, dtype, noise(), splits)
    steps = 400
    training.rehearse(2)
    while connection.recv():
        start = time.perf_counter()
        training.rehearse(steps)
        connection.send(steps * HEAD.optimizer.batch_size / (time.perf_counter() - start))


def race_bare(connection: Connection, dtype: Dtype) -> None:
    """Answer with the images per second of a linear layer and torch's AdamW on tensors."""
    torch.set_num_threads(usable_cores())
    batch, steps = HEAD.optimizer.batch_size, 400
    features = torch.rand(HEAD_IMAGES, 1280, generator=torch_generator(0, "features"))
    labels = torch.arange(HEAD_IMAGES) % CLASSES
    head = nn.Linear(1280, CLASSES)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, fused=True)
    while connection.recv():
        start = time.perf_counter()
        for step in range(steps):
            first = step * batch % HEAD_IMAGES
            optimizer.zero_grad()
            rows = slice(first, first + batch)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = functional.cross_entropy(head(features[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        connection.send(steps * batch / (time.perf_counter() - start))


def print_accuracies(data: str, *, epochs: int, seeds: Sequence[int]) -> None:
    """Print the accuracy on val after equal epochs by seed, and the paired difference."""
    images = load_dataset(DatasetSpec(name="images", path=data))
    splits = make_splits(images, SplitSpec())
    recipe = Recipe(epochs=epochs)
    dtype = faster_dtypes(recipe)[0][-1]
    print(f"\n32/64/128, {epochs} epochs, {dtype}, accuracy on val ({len(splits.val):,} images):")
    differences = []
    for seed in seeds:
        usual = usual_accuracy(recipe, images, splits, seed=seed, dtype=dtype)
        training = Training(
            recipe,
            rungs=(epochs,),
            seed=seed,
            numerics=numerics(dtype),
            images=images,
            splits=splits,
        )
        ours = [report.val_accuracy for report in training.reports()][-1]
        differences.append(100 * (ours - usual))
        print(f"seed {seed}: usual {usual:.2%}, ours {ours:.2%}", flush=True)
    if len(seeds) > 1:
        mean, half = interval(differences)
        print(f"ours − usual: {mean:+.2f} points (95% interval ±{half:.2f}, n = {len(seeds)})")


def usual_accuracy(
    recipe: Recipe, images: ImageSet, splits: Splits, *, seed: int, dtype: Dtype
) -> float:
    """Return the usual loop's accuracy on val, with our learning rates and the last weights."""
    loop = UsualLoop.on(recipe, images, splits, seed=seed, dtype=dtype)
    steps = len(loop.loader)
    for plan in plan_epochs((recipe.schedule.epochs,), recipe):
        for index, (pixels, labels) in enumerate(loop.loader):
            rate = learning_rate(plan, (index + 0.5) / steps, recipe)
            set_progress(loop.optimizer, rate=rate, steps=(plan.epoch - 1) * steps + index)
            loop.step(pixels, labels)
    return loop.accuracy(images.images[splits.val], images.labels[splits.val])


def numerics(dtype: Dtype) -> Numerics:
    """Return numerics in this dtype on all cores."""
    return Numerics(dtype=dtype, threads=usable_cores())


def noise() -> ImageSet:
    """Return random images, which take as long to process as real ones."""
    rng = numpy_generator(0, "benchmark")
    return ImageSet(
        name="noise",
        images=rng.integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8),
        labels=np.arange(IMAGES) % CLASSES,
        class_names=tuple(str(i) for i in range(CLASSES)),
    )


def everything() -> Splits:
    """Return splits that train on all images and score on the first 512."""
    rows = np.arange(IMAGES)
    return Splits(train=rows, val=rows[:512], holdout=rows[:0], test=rows[:0], split_id="all")


if __name__ == "__main__":
    main()
