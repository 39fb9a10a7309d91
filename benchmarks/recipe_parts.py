"""Measure what each part of airbench's recipes is worth in our engine: paired trainings on val.

Command:  python benchmarks/recipe_parts.py --data FOLDER --seeds 5
          python benchmarks/recipe_parts.py --data FOLDER --width 32 --share 0.25 --only muon

Every seed trains the base, airbench94's recipe as `gpu.py` has it, and then each variant, which
differs from the base in what the table names. All score the same images of val; `test` is not
read. A difference is the mean over seeds of variant minus base, with Student's 95% interval.
"""

import argparse
import math
import time
from typing import Any

import torch
from gpu_session import interval
from gpu_time94 import RECIPES

from common.cpu_runtime import usable_cores
from common.errors import DivergedError
from common.provenance import machine_description
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.splits import SplitSpec, make_splits
from trainables.device.probe import probe
from trainables.recipe import Recipe
from trainables.training.loop import Training

BASE = RECIPES["airbench94"]
_MUON: dict[str, Any] = {"lookahead": 0, "warmup_epochs": 0.0, "cooldown_fraction": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "no_average": {"lookahead": 0},
    "ema": {"lookahead": 0, "ema_decay": 0.98},
    "lookahead_half": {"lookahead_decay": 0.0},
    "bias_rate_1": {"bias_lr_scale": 1.0},
    "drawn_flips": {"alternating_flip": False},
    "no_smoothing": {"label_smoothing": 0.0},
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
    machine = machine_description()
    print(f"{machine['processor']}, {machine['cores']} cores, torch {torch.__version__}")
    scores = measure({name: base.with_values(**VARIANTS[name]) for name in names}, options)
    print_table(scores)


def measure(
    recipes: dict[str, Recipe], options: argparse.Namespace
) -> dict[str, list[tuple[float, float, float]]]:
    """Return accuracy, NLL and seconds of every seed by variant; NaN where a training diverged."""
    images = load_dataset(DatasetSpec(name="images", path=options.data))
    splits = make_splits(images, SplitSpec())
    numerics = probe(
        recipes["base"], classes=len(images.class_names), image_size=images.image_size,
        device=options.device, threads=usable_cores(),
    )  # fmt: skip
    print(f"{len(splits.train):,} images for training, {len(splits.val):,} for val, {numerics}\n")
    scores: dict[str, list[tuple[float, float, float]]] = {name: [] for name in recipes}
    for seed in range(options.seeds):
        for name, recipe in recipes.items():
            started = time.perf_counter()
            training = Training(
                recipe, rungs=(recipe.schedule.epochs,), seed=seed, numerics=numerics,
                images=images, splits=splits,
            )  # fmt: skip
            try:
                *_, last = training.reports()
                score = (last.val_accuracy, last.val_nll)
            except DivergedError:
                score = (math.nan, math.nan)
            seconds = time.perf_counter() - started
            scores[name].append((*score, seconds))
            print(f"seed {seed}, {name}: {score[0]:.2%}, {score[1]:.4f} nats", flush=True)
    return scores


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
