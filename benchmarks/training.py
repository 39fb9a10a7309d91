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

A known difference: our steps are those of a typical epoch, in which the bias of the whitening is
frozen; the usual loop trains it in every step, also in `its steps alone`.

If only the head learns, ours computes the features once: the second table compares a whole
schedule, and our steps on features with a bare linear layer's on tensors in memory.

With `--data`, pairs of trainings with equal epochs and learning rates are compared in accuracy on
val.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from origin import origin_line
from training_accuracy import print_accuracies
from training_head import print_head
from training_turns import (
    LITE0,
    OURS,
    SIZE,
    STEPS_ALONE,
    USUAL,
    everything,
    faster_dtypes,
    noise,
    numerics,
    race,
    ratio,
    speeds_in_turns,
)

from common.cpu_runtime import share_arena
from common.seeds import torch_generator
from trainables.augmentation.batch import augment
from trainables.device.rehearsal import rehearse
from trainables.recipe import Dtype, Recipe
from trainables.training.scoring import RECALIBRATION_IMAGES

# Other benchmarks use these, too.
NETS = {
    "32/64/128": Recipe(),
    "64/256/256": Recipe(width=64, middle=4),
    "lite0": LITE0,
}
ROUNDS = 5


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
    print(f"{origin_line()}\n")
    if not options.no_speeds:
        names = options.nets.split(",")
        unknown = sorted({*names} - {*NETS, "head"})
        if unknown:
            parser.error(
                f"--nets: unknown {', '.join(unknown)}; choose from {', '.join(NETS)}, head"
            )
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


def speeds_of(
    recipe: Recipe, dtypes: Sequence[Dtype], rounds: int
) -> dict[tuple[Dtype, str], list[float]]:
    """Return the images per second of every round by dtype and kind."""
    kinds = [(dtype, kind) for dtype in dtypes for kind in (USUAL, STEPS_ALONE, OURS)]
    return speeds_in_turns(
        {key: (race, recipe, *key) for key in kinds},
        rounds,
        with_loader=[key for key in kinds if key[1] == USUAL],
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


if __name__ == "__main__":
    main()
