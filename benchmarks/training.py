"""Compare our training speed with the usual PyTorch loop, for the same nets.

Command:  python benchmarks/training.py                      (ten minutes on 2 cores)
          python benchmarks/training.py --data FOLDER --epochs 4 --seeds 3     (accuracies too)

Usual: a torchvision Dataset of PIL images with RandomCrop, RandomHorizontalFlip, ToTensor and
Normalize, a DataLoader with one worker per core, an eager float32 net, the loss read after every
step. Eager: the same steps alone, on batches in memory without augmentation. Ours: the same
net, batch size, optimizer and augmentation, in float32 and in bfloat16. All take turns, each in
its own process. Images per second are wall-clock medians over turns of a few steps, without the
data loader's start. With `--data`, pairs of trainings with equal epochs and learning rates are
compared in accuracy on val.
"""

import argparse
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from common.cpu_runtime import share_arena, usable_cores
from common.provenance import machine_description
from common.seeds import numpy_generator, torch_generator
from trainables.augmentation.batch import augment
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, SplitSpec, make_splits
from trainables.device.rehearsal import rehearse
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier
from trainables.recipe import Numerics, Recipe
from trainables.training.loop import Training
from trainables.training.optimizers import make_optimizer, set_progress
from trainables.training.schedule import learning_rate, plan_epochs
from trainables.training.scoring import RECALIBRATION_IMAGES

BATCH, SIZE, CLASSES, IMAGES = 512, 32, 10, 8192
ROUNDS, LEAD, STEPS = 5, 6, 8
"""LEAD steps of a turn are not timed: the loader prepared their batches during other turns."""

NETS = {"32/64/128": Recipe(), "64/256/256": Recipe(width=64, middle=4)}
USUAL = "usual loop"
EAGER = "eager float32"
KINDS = (USUAL, EAGER, "float32", "bfloat16")


def main() -> None:
    """Print a Markdown table of speeds and, with data, one of accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder of a data set, for accuracies")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--no-speeds", action="store_true", help="only the accuracies")
    options = parser.parse_args()
    share_arena()  # a rehearsal runs in a thread, and its memory should be reused
    machine = machine_description()
    print(f"{machine['processor']}, {machine['cores']} cores, torch {torch.__version__}\n")
    if not options.no_speeds:
        print_speeds()
    if options.data:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        print_accuracies(options.data, epochs=options.epochs, seeds=seeds)


def print_speeds() -> None:
    """Print images per second, and the shares of augmentation and scoring, for every net."""
    print("| net | usual | eager | ours, float32 | ours, bfloat16 | over usual | over eager |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, recipe in NETS.items():
        speeds = speeds_of(recipe)
        cells = " | ".join(f"{speeds[kind]:,.0f}" for kind in KINDS)
        best = speeds["bfloat16"]
        print(
            f"| {name} | {cells} | {best / speeds[USUAL]:.1f}× | {best / speeds[EAGER]:.1f}× |",
            flush=True,
        )
    print(f"\nimages per second, batch {BATCH}, {SIZE} px\n")
    for name, recipe in NETS.items():
        augmenting, scoring = shares_of(recipe)
        print(
            f"{name}: augmentation {augmenting:.0%} of an epoch of CIFAR-10, scoring {scoring:.0%}"
        )


def speeds_of(recipe: Recipe) -> dict[str, float]:
    """Return images per second by kind; the kinds take turns.

    Each kind runs in its own process, because ours changes its process's memory allocator.
    """
    with ExitStack() as stack:
        turns = {kind: stack.enter_context(racing(kind, recipe)) for kind in KINDS}
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(1 + ROUNDS):  # the first warms up
            for kind, turn in turns.items():
                seconds[kind].append(turn())
    return {kind: STEPS * BATCH / statistics.median(times[1:]) for kind, times in seconds.items()}


@contextmanager
def racing(kind: str, recipe: Recipe) -> Iterator[Callable[[], float]]:
    """Start a process that trains as `kind`; yield a function that returns a turn's seconds."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=race, args=(far, kind, recipe))
    process.start()

    def turn() -> float:
        near.send("go")
        return float(near.recv())

    try:
        yield turn
    finally:
        near.send(None)
        process.join()


def race(connection: Connection, kind: str, recipe: Recipe) -> None:
    """Take a turn for each message received, until None."""
    torch.set_num_threads(usable_cores())
    images = noise()
    if kind == USUAL:
        task = usual_steps(recipe, images)
    elif kind == EAGER:
        task = eager_steps(recipe, images)
    else:
        task = Training(
            recipe,
            rungs=(recipe.schedule.epochs,),
            seed=0,
            numerics=numerics(kind),
            images=images,
            splits=everything(),
        ).rehearse
    while connection.recv():
        task(LEAD)
        start = time.perf_counter()
        task(STEPS)
        connection.send(time.perf_counter() - start)


def shares_of(recipe: Recipe) -> tuple[float, float]:
    """Return the shares of augmentation and scoring in an epoch of 42,500 CIFAR-10 images."""
    images, splits = noise(), everything()
    rehearsed = rehearse(recipe, images=images, splits=splits, numerics=numerics("bfloat16"))
    training = rehearsed.train_seconds / len(splits.train)
    scored = len(splits.val) + min(RECALIBRATION_IMAGES, len(splits.train))
    forward = rehearsed.forward_seconds / len(splits.train)
    step = training - forward * scored / len(splits.train)
    pixels = torch.from_numpy(images.images[:BATCH]).permute(0, 3, 1, 2).float().div_(255)
    labels, generator = torch.zeros(BATCH, dtype=torch.int64), torch_generator(0, "augment")
    times = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        augment(pixels, labels, recipe.augmentation, mean=torch.zeros(3), generator=generator)
        times.append(time.perf_counter() - start)
    epoch = 42_500 * step + (2_500 + RECALIBRATION_IMAGES) * forward
    augmenting = 42_500 * statistics.median(times[1:]) / BATCH
    return augmenting / epoch, (2_500 + RECALIBRATION_IMAGES) * forward / epoch


@dataclass
class PilImages(Dataset[tuple[Tensor, int]]):
    """A data set that loads each image as `torchvision.datasets.CIFAR10` does."""

    images: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    transform: Callable[[Image.Image], Tensor]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a transformed image and its label."""
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def usual_loader(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], seed: int) -> Any:
    """Return shuffled batches, augmented image by image in worker processes."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(SIZE, padding=2, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    return DataLoader(
        PilImages(images, labels, transform),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=usable_cores(),
        persistent_workers=True,
        generator=torch_generator(seed, "loader"),
    )


def usual_steps(recipe: Recipe, images: ImageSet) -> Callable[[int], None]:
    """Return a task that takes training steps on the loader's batches, epoch after epoch."""
    model, optimizer = usual_net(recipe, images.images, seed=0)
    loader = usual_loader(images.images, images.labels, seed=0)
    batches: Iterator[Any] = itertools.chain.from_iterable(itertools.repeat(loader))

    def take(steps: int) -> None:
        for pixels, labels in itertools.islice(batches, steps):
            usual_step(model, optimizer, pixels, labels)

    return take


def eager_steps(recipe: Recipe, images: ImageSet) -> Callable[[int], None]:
    """Return a task that takes training steps on batches in memory, without augmentation."""
    model, optimizer = usual_net(recipe, images.images, seed=0)
    pixels = torch.from_numpy(images.images).permute(0, 3, 1, 2).float().div_(255).contiguous()
    labels = torch.from_numpy(images.labels)
    parts = zip(torch.split(pixels, BATCH), torch.split(labels, BATCH), strict=True)
    batches = itertools.cycle(parts)

    def take(steps: int) -> None:
        for batch, targets in itertools.islice(batches, steps):
            usual_step(model, optimizer, batch, targets)

    return take


def usual_net(
    recipe: Recipe, images: np.ndarray[Any, Any], *, seed: int
) -> tuple[Classifier, torch.optim.Optimizer]:
    """Return the net, which normalizes its input itself, and its optimizer."""
    model = build_model(recipe, classes=CLASSES, image_size=SIZE, train_images=images, seed=seed)
    return model.train(), make_optimizer(model, recipe.optimizer)


def usual_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, pixels: Tensor, labels: Tensor
) -> float:
    """Take one training step and return the loss, as for a progress bar."""
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(pixels), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def print_accuracies(data: str, *, epochs: int, seeds: Sequence[int]) -> None:
    """Print the accuracy on val after equal epochs by seed, and the paired difference."""
    images = load_dataset(DatasetSpec(name="images", path=data))
    splits = make_splits(images, SplitSpec())
    recipe = Recipe(epochs=epochs)
    print(f"\n32/64/128 after {epochs} epochs, accuracy on val ({len(splits.val):,} images):")
    differences = []
    for seed in seeds:
        usual = usual_accuracy(recipe, images, splits, seed=seed)
        training = Training(
            recipe,
            rungs=(epochs,),
            seed=seed,
            numerics=numerics("bfloat16"),
            images=images,
            splits=splits,
        )
        ours = [report.val_accuracy for report in training.reports()][-1]
        differences.append(ours - usual)
        print(f"seed {seed}: usual {usual:.2%}, ours {ours:.2%}", flush=True)
    if len(seeds) > 1:
        mean, error = float(np.mean(differences)), float(stats.sem(differences))
        half = error * float(stats.t.ppf(0.975, len(seeds) - 1))
        print(
            f"ours − usual: {100 * mean:+.2f} points "
            f"(95% interval ±{100 * half:.2f}, n = {len(seeds)})"
        )


def usual_accuracy(recipe: Recipe, images: ImageSet, splits: Splits, *, seed: int) -> float:
    """Return the usual loop's accuracy on val, with our learning rates and the last weights."""
    torch.set_num_threads(usable_cores())
    train = images.images[splits.train]
    model, optimizer = usual_net(recipe, train, seed=seed)
    loader = usual_loader(train, images.labels[splits.train], seed)
    for plan in plan_epochs((recipe.schedule.epochs,), recipe):
        for index, (pixels, labels) in enumerate(loader):
            rate = learning_rate(plan, (index + 0.5) / len(loader), recipe)
            set_progress(optimizer, rate=rate, steps=index)
            usual_step(model, optimizer, pixels, labels)
    val = torch.from_numpy(images.images[splits.val]).permute(0, 3, 1, 2).float().div_(255)
    with torch.inference_mode():
        answers = torch.cat([model.eval()(part).argmax(1) for part in torch.split(val, BATCH)])
    return float((answers.numpy() == images.labels[splits.val]).mean())


def numerics(dtype: str) -> Numerics:
    """Return numerics in this dtype on all cores."""
    return Numerics(dtype=dtype, threads=usable_cores())  # type: ignore[arg-type]


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
