"""Compare the time of augmentation with a training step and with torchvision's transforms.

Command:  python benchmarks/augment.py         (half a minute on one core)

512 images of 32 px, float32, channels_last, one thread. Ours augments a batch with one draw per
image; torchvision draws once per call, so it is called image by image, on uint8, as its users
do. Times are CPU seconds, the median over rounds in which all tasks take turns: on a busy
machine they are inflated less than wall-clock times, and the ratios hardly at all.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from common.provenance import machine_description
from common.seeds import numpy_generator, torch_generator
from trainables.augmentation.batch import augment
from trainables.nets.build import build_model
from trainables.recipe import Recipe
from trainables.training.losses import cross_entropy, soft_targets
from trainables.training.optimizers import make_optimizer

BATCH, SIZE, CLASSES = 512, 32, 10
ROUNDS = 7
WIDTH = 32
"""Width of the net whose training step is timed."""

CROP = [v2.RandomHorizontalFlip(), v2.RandomCrop(SIZE, padding=2, padding_mode="reflect")]

THEIRS = {
    "standard": v2.Compose(CROP),
    "colour": v2.Compose([v2.ColorJitter(0.27, 0.27, 0.27, 0.05), *CROP]),
    "affine": v2.Compose([v2.RandomAffine(9, scale=(0.88, 1.13), shear=5), *CROP]),
    "trivialaugment": None,  # torchvision has only the wide ranges
    "trivialaugment_wide": v2.Compose([v2.TrivialAugmentWide(), *CROP]),
    "randaugment": v2.Compose([v2.RandAugment(), *CROP]),
}


def main() -> None:
    """Print a Markdown table with one row per policy."""
    torch.set_num_threads(1)
    rng = numpy_generator(0, "benchmark")
    pixels = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    images, labels = batch.float().div_(255), torch.arange(BATCH) % CLASSES
    singles = list(batch.contiguous())
    tasks: dict[str, Callable[[], object]] = {"step": training_step(pixels, images, labels)}
    for name, transform in THEIRS.items():
        tasks[f"ours {name}"] = our_policy(name, images, labels)
        if transform is not None:
            tasks[f"theirs {name}"] = partial(one_by_one, transform, singles)
    seconds = in_turns(tasks)
    machine = machine_description()
    print(
        f"{machine['processor']}, one core, torch {torch.__version__}; CPU ms per 1,000 images of "
        f"{SIZE} px. A training step of the net of width {WIDTH}, float32: "
        f"{per_thousand(seconds['step'])}.\n"
    )
    print_row("`augment`", "ours", "of a step", "× `standard`", "torchvision", "faster")
    print_row(":" + "-" * 21, *["-" * 11 + ":"] * 5)
    for name in THEIRS:
        own, other = seconds[f"ours {name}"], seconds.get(f"theirs {name}")
        print_row(
            f"`{name}`",
            per_thousand(own),
            f"{own / seconds['step']:.1%}",
            f"{own / seconds['ours standard']:.2f}",
            per_thousand(other) if other else "–",
            f"{other / own:.1f}×" if other else "–",
        )


def print_row(first: str, *others: str) -> None:
    """Print a row of the table, padded so that it is readable as plain text too."""
    print(f"| {first:22} | " + " | ".join(f"{cell:>12}" for cell in others) + " |")


def one_by_one(transform: Callable[[Tensor], Tensor], images: list[Tensor]) -> list[Tensor]:
    """Transform image by image, as a data loader's workers do."""
    return [transform(image) for image in images]


def training_step(pixels: np.ndarray, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """Return a task that takes one training step without augmentation."""
    recipe = Recipe(width=WIDTH)
    model = build_model(recipe, classes=CLASSES, image_size=SIZE, train_images=pixels, seed=0)
    model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe.optimizer)
    targets = soft_targets(labels, labels, torch.ones(BATCH), classes=CLASSES, smoothing=0.0)

    def take() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(images), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return take


def our_policy(name: str, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """Return a task that applies one of our policies to the batch."""
    recipe = Recipe.from_mapping({"augment": name})
    generator = torch_generator(0, "benchmark")
    return lambda: augment(
        images, labels, recipe.augmentation, mean=torch.zeros(3), generator=generator
    )


def in_turns(tasks: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median CPU seconds of each task; a first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(1 + ROUNDS):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def per_thousand(seconds: float) -> str:
    """Format a batch's time as milliseconds per 1,000 images."""
    return f"{seconds / BATCH * 1e6:.1f}"


if __name__ == "__main__":
    main()
