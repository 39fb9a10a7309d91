"""Compare the accuracies of our loop and the usual one after equal epochs."""

from collections.abc import Sequence

from gpu_session import interval
from training_turns import faster_dtypes, numerics
from usual_loop import UsualLoop

from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, SplitSpec, make_splits
from trainables.recipe import Dtype, Recipe
from trainables.training.loop import Training
from trainables.training.optimizers import set_progress
from trainables.training.schedule import learning_rate, plan_epochs


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
