"""Weights of a trial: loaded as scored; equal networks give equal files; misfits are refused."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import RunError
from quorum.testing.trainers import striped_images
from trainables.prediction import predict_log_probs
from trainables.recipe import Numerics, Recipe
from trainables.records import TrialStart, write_start
from trainables.training.loop import Training
from trainables.weights import load_trained, save_weights

IMAGES, SPLITS = striped_images()
RECIPE = Recipe(width=3, depth=3, attention="se", epochs=1, batch_size=16)


def write_trial(folder: Path, recipe: Recipe) -> Training:
    rungs = (recipe.schedule.epochs,)
    training = Training(
        recipe, rungs=rungs, seed=5, numerics=Numerics(), images=IMAGES, splits=SPLITS
    )
    next(training.reports())
    write_start(
        folder,
        TrialStart(
            trial="t0", kind="search", recipe=recipe, seed=5, rungs=rungs, data={},
            split_id="stripes", numerics=Numerics(), code_version="0", machine={},
        ),
    )  # fmt: skip
    training.save_weights(folder / "weights.safetensors")
    return training


def test_a_trials_weights_are_loaded_as_they_were_scored(tmp_path: Path) -> None:
    training = write_trial(tmp_path, RECIPE)
    model = load_trained(tmp_path)
    assert not model.training
    loaded = predict_log_probs(model, IMAGES.images, Numerics(), indices=SPLITS.holdout)
    np.testing.assert_array_equal(loaded, training.log_probs(SPLITS.holdout))


def test_equal_networks_get_equal_files(tmp_path: Path) -> None:
    write_trial(tmp_path, RECIPE)
    model = load_trained(tmp_path)
    for number in range(8):
        save_weights(model, tmp_path / str(number))
    assert len({(tmp_path / str(number)).read_bytes() for number in range(8)}) == 1


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_trial(tmp_path / "a", RECIPE)
    write_trial(tmp_path / "b", RECIPE.with_values(width=4))
    path = tmp_path / "a" / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes((tmp_path / "b" / "weights.safetensors").read_bytes())
    with pytest.raises(RunError, match=r"does not fit the recipe of its start\.json"):
        load_trained(tmp_path / "a")
    path.write_bytes(whole[:-3])
    with pytest.raises(RunError, match="not a whole safetensors file"):
        load_trained(tmp_path / "a")
    path.unlink()
    with pytest.raises(RunError, match=r"weights.safetensors cannot be read"):
        load_trained(tmp_path / "a")
