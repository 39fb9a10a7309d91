"""Measure what each part of airbench's recipes is worth in our engine: paired trainings on val.

Command:  python benchmarks/recipe_parts.py --data FOLDER --seeds 5
          python benchmarks/recipe_parts.py --data FOLDER --width 32 --share 0.25 --only muon

Every seed trains the base, airbench94's recipe as `gpu.py` has it, and then each variant, which
differs from the base in what the table names. All score the same images, those of val and holdout;
`test` is not read. A difference is the mean over seeds of variant minus base, with Student's 95%
interval, which covers variation over seeds but not over images. Ctrl-C prints the table of the
seeds that all variants have finished.

    no_whitening        the first layer is trained like the others
    whitening_bias      the bias of the whitening is trained in all epochs, not in the first three
    torch_init          convolutions are initialized as torch does, not to copy their inputs
    no_translate        images are not shifted
    drawn_flips         mirror images are drawn, not alternated from pass to pass
    no_smoothing        no label smoothing
    bias_rate_1         biases of batch normalization have the rate of all others, not 64 times it
    no_average          the last weights, without Lookahead
    lookahead_half      Lookahead with a constant step of ½, as in its paper, not airbench's
    ema                 an exponential moving average instead of Lookahead
    one_view            predictions from the image alone
    muon                timm's Muon, with NAdamW for head and biases
    muon_sgd            airbench's Muon with SGD for head and biases, as `gpu.py` has it
"""

import argparse
import math
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gpu_session import interval
from gpu_time94 import RECIPES
from origin import origin_line

from common.cpu_runtime import usable_cores
from common.errors import DivergedError
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, SplitSpec, make_splits
from trainables.device.probe import probe
from trainables.recipe import Numerics, Recipe
from trainables.training.loop import Training

BASE = RECIPES["airbench94"]
_MUON: dict[str, Any] = {"lookahead": 0, "warmup_epochs": 0.0, "cooldown_fraction": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "no_whitening": {"whitening": False},
    "whitening_bias": {"whitening_epochs": 100_000},
    "torch_init": {"init": "default"},
    "no_translate": {"translate": 0.0},
    "drawn_flips": {"alternating_flip": False},
    "no_smoothing": {"label_smoothing": 0.0},
    "bias_rate_1": {"bias_lr_scale": 1.0},
    "no_average": {"lookahead": 0},
    "lookahead_half": {"lookahead_decay": 0.0},
    "ema": {"lookahead": 0, "ema_decay": 0.98},
    "one_view": {"tta": "none"},
    "muon": {
        **_MUON, "optimizer": "muon", "muon_lr": 0.03, "momentum": 0.88, "weight_decay": 0.01,
        "bias_lr_scale": 1.0,
    },
    "muon_sgd": {
        **_MUON,
        **{
            key: value
            for key, value in RECIPES["airbench94_muon"].to_mapping().items()
            if key in ("optimizer", "muon_sgd_lr", "momentum", "lr_per_1024", "bias_lr_scale")
        },
        "weight_decay": 0.0,
    },
}  # fmt: skip


def main() -> None:
    """Train all variants in turns and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=BASE.schedule.epochs)
    parser.add_argument("--width", type=int, default=BASE.architecture.width)
    parser.add_argument("--batch-size", type=int, default=BASE.optimizer.batch_size)
    parser.add_argument("--share", type=float, default=1.0, help="of the training images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", help="variants, besides the base", metavar="NAME,…")
    options = parser.parse_args()
    names = ["base", *(options.only.split(",") if options.only else [*VARIANTS][1:])]
    base = BASE.with_values(
        epochs=options.epochs,
        warmup_epochs=BASE.schedule.warmup_epochs * options.epochs / BASE.schedule.epochs,
        width=options.width,
        batch_size=options.batch_size,
        train_share=options.share,
    )
    print(origin_line())
    scores = measure({name: base.with_values(**VARIANTS[name]) for name in names}, options)
    print_table(scores)


def measure(
    recipes: dict[str, Recipe], options: argparse.Namespace
) -> dict[str, list[tuple[float, float, float]]]:
    """Return accuracy, NLL and seconds of every seed by variant.

    Accuracy and NLL are NaN where a training diverged.
    """
    images = load_dataset(DatasetSpec(name="images", path=options.data))
    splits = make_splits(images, SplitSpec())
    numerics = probe(
        recipes["base"], classes=len(images.class_names), image_size=images.image_size,
        device=options.device, threads=usable_cores(),
    )  # fmt: skip
    scored = np.concatenate([splits.val, splits.holdout])
    print(f"{len(splits.train):,} images for training, {len(scored):,} to score, {numerics}\n")
    # Reports after each epoch score a few images, which are of no use here.
    splits = replace(splits, val=splits.val[:100])
    scores: dict[str, list[tuple[float, float, float]]] = {name: [] for name in recipes}
    try:
        for seed in range(options.seeds):
            for name, recipe in recipes.items():
                score = trained(recipe, numerics, images, splits, scored, seed=seed)
                scores[name].append(score)
                print(f"seed {seed}, {name}: {score[0]:.2%}, {score[1]:.4f} nats", flush=True)
    except KeyboardInterrupt:
        complete = min(map(len, scores.values()))
        if not complete:
            raise
        print(f"stopped after {complete} of {options.seeds} seeds")
        return {name: rows[:complete] for name, rows in scores.items()}
    return scores


def trained(
    recipe: Recipe,
    numerics: Numerics,
    images: ImageSet,
    splits: Splits,
    scored: npt.NDArray[np.int64],
    *,
    seed: int,
) -> tuple[float, float, float]:
    """Train once; return accuracy and NLL on the images at `scored`, and the seconds."""
    started = time.perf_counter()
    training = Training(
        recipe, rungs=(recipe.schedule.epochs,), seed=seed, numerics=numerics, images=images,
        splits=splits,
    )  # fmt: skip
    score = (math.nan, math.nan)
    with suppress(DivergedError):
        for _ in training.reports():
            pass
        score = score_of(training.log_probs(scored), images.labels[scored])
    return *score, time.perf_counter() - started


def score_of(
    log_probs: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Return the accuracy and the NLL, in nats, of log-probabilities [n, K] for labels [n]."""
    right = log_probs.argmax(axis=1) == labels
    return float(right.mean()), float(-log_probs[np.arange(len(labels)), labels].mean())


def print_table(scores: dict[str, list[tuple[float, float, float]]]) -> None:
    """Print means and differences from the base."""
    print("\n| variant | accuracy | − base, points | NLL | − base | seconds |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, rows in scores.items():
        accuracies, nlls, seconds = zip(*rows, strict=True)
        cells = []
        for values, index, scale, digits in ((accuracies, 0, 100, 2), (nlls, 1, 1, 4)):
            pairs = zip(values, scores["base"], strict=True)
            mean, half = interval([scale * (value - row[index]) for value, row in pairs])
            cells += [
                f"{scale * sum(values) / len(values):.{digits}f}",
                "" if name == "base" else f"{mean:+.{digits}f} (±{half:.{digits}f})",
            ]
        print(f"| {name} | {' | '.join(cells)} | {sum(seconds) / len(seconds):.0f} |")
    print(f"\nn = {len(scores['base'])} seeds, 95% intervals")


if __name__ == "__main__":
    main()
