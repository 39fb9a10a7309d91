"""A trial in a worker: its results, its checkpoints, and resuming from them."""

import errno
import json
import math
import os
import pickle
import re
import weakref
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ray import tune

from common.errors import MissingWeightsError, RunError
from common.files import file_sha256, read_json
from common.parsing import to_mapping
from search.samplers.suggestions import Suggestion
from tests.fake_training import DIVERGES, RAISES, FakeTraining
from tests.simulated_tune import IMAGES, SPEC, SPLITS, config_of, start_of
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import SplitSpec, make_splits
from trainables.device.kinds import NumericsHere
from trainables.initial_weights import weights_identity
from trainables.nets.build import build_model
from trainables.recipe import Numerics, Recipe
from trainables.trial import (
    CHECKPOINT_SECONDS,
    RESULT_FILES,
    TRIAL_FILE,
    QuorumTrial,
    default_trainer,
)
from trainables.weights import save_weights

RUNGS = (1, 2, 4)


def config(*, seed: int = 7, resume_from: tuple[str, ...] = (), **recipe: Any) -> dict[str, Any]:
    suggestion = Suggestion(
        trial=f"t{seed:04d}",
        number=seed,
        kind="search",
        recipe=Recipe(epochs=4, **recipe),
        seed=seed,
    )
    return config_of(start_of(suggestion, RUNGS), resume_from=resume_from)


def with_start(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the configuration of a trial whose start has other values."""
    return {**config, "start": json.dumps({**json.loads(config["start"]), **changes})}


def scores(trial: QuorumTrial, steps: int) -> list[tuple[int, float]]:
    return [(r["step"], r["val_nll"]) for r in (trial.step() for _ in range(steps))]


def test_a_result_has_the_epoch_report_and_tunes_keys() -> None:
    trial = QuorumTrial(config())
    results = [trial.step() for _ in range(4)]
    assert [r["step"] for r in results] == [1, 2, 3, 4]
    assert [r["rung"] for r in results] == [1, 2, None, 4]
    assert [r["should_checkpoint"] for r in results] == [True, True, False, True]
    assert [r["done"] for r in results] == [False, False, False, True]
    assert {r["params"] for r in results} == {1032}
    with pytest.raises(RunError, match="t0007 has no epoch left to train"):
        trial.step()


def test_a_checkpoint_is_due_when_the_last_one_is_old() -> None:
    now = 100.0
    trial = QuorumTrial(config())
    trial.clock = lambda: now
    scores(trial, 2)
    now += CHECKPOINT_SECONDS
    assert trial.step()["should_checkpoint"]


def test_a_checkpoint_at_a_rung_holds_the_results_and_their_checksums(tmp_path: Path) -> None:
    trial = QuorumTrial(config())
    trial.step()
    trial.save_checkpoint(str(tmp_path))
    about = read_json(tmp_path / TRIAL_FILE)
    assert (about["trial"], about["rung"], about["params"]) == ("t0007", 1, 1032)
    assert about["halvings"] == []
    assert about["sha256"] == {name: file_sha256(tmp_path / name) for name in RESULT_FILES}
    for split, indices in (("val", SPLITS.val), ("holdout", SPLITS.holdout)):
        logp = np.load(tmp_path / f"{split}.npy")
        assert (logp.dtype, logp.shape) == (np.float32, (len(indices), 2))
        assert np.logaddexp.reduce(logp, axis=1) == pytest.approx(0.0, abs=1e-6)


def test_a_checkpoint_between_rungs_holds_no_results(tmp_path: Path) -> None:
    trial = QuorumTrial(config())
    scores(trial, 3)
    trial.save_checkpoint(str(tmp_path))
    assert read_json(tmp_path / TRIAL_FILE)["sha256"] == {}
    assert not any((tmp_path / name).exists() for name in RESULT_FILES)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("way", ["a new worker", "Tune's restore"])
def test_a_trial_resumes_where_its_checkpoint_was_written(
    steps: int, way: str, tmp_path: Path
) -> None:
    whole = scores(QuorumTrial(config()), 4)
    trial = QuorumTrial(config())
    scores(trial, steps)
    trial.save_checkpoint(str(tmp_path))
    if way == "a new worker":
        again = QuorumTrial(config(resume_from=(str(tmp_path),)))
    else:
        again = QuorumTrial(config())
        again.load_checkpoint(str(tmp_path))
    assert scores(again, 4 - steps) == whole[steps:]


def drop(folder: Path) -> None:
    (folder / TRIAL_FILE).unlink()


def tear(folder: Path) -> None:
    path = folder / "training" / "state.json"
    path.write_bytes(path.read_bytes()[:-5])


def of_another_trial(folder: Path) -> None:
    trial = QuorumTrial(config(seed=8))
    trial.step()
    trial.save_checkpoint(str(folder))


@pytest.mark.parametrize("spoil", [drop, tear, of_another_trial])
def test_a_bad_checkpoint_is_skipped_for_an_older_one(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    trial = QuorumTrial(config())
    older, newer = tmp_path / "1", tmp_path / "2"
    for folder in (older, newer):
        trial.step()
        folder.mkdir()
        trial.save_checkpoint(str(folder))
    spoil(newer)
    both = (str(newer), str(older), str(tmp_path / "gone"))
    assert scores(QuorumTrial(config(resume_from=both)), 1)[0][0] == 2
    # Without a valid checkpoint, the trial starts from the beginning.
    assert scores(QuorumTrial(config(resume_from=both[::2])), 1)[0][0] == 1


def test_a_resumed_trial_computes_as_before_on_another_kind_of_machine(tmp_path: Path) -> None:
    """A machine that was not measured chooses numerics itself, but only for new trainings."""
    elsewhere = Numerics(dtype="bfloat16", layout="channels_last")
    used: list[Numerics] = []

    def recording(recipe: Recipe, *, numerics: Numerics, **options: Any) -> FakeTraining:
        used.append(numerics)
        return FakeTraining(recipe, numerics=numerics, **options)

    def trial(**changes: Any) -> QuorumTrial:
        begun = QuorumTrial({**config(), "trainer": recording, "measured_on": "A", **changes})
        begun._here = NumericsHere(kind="B", probe=lambda *_, **__: elsewhere)
        return begun

    first = trial()
    first.step()
    first.save_checkpoint(str(tmp_path))
    assert used == [elsewhere]
    measured_here = trial(measured_on="B")
    measured_here.step()
    assert used[-1] == Numerics()
    resumed = trial(measured_on="B", resume_from=[tune.Checkpoint(str(tmp_path))])
    assert resumed.step()["step"] == 2
    assert used[-1] == elsewhere


def test_a_training_is_freed_before_the_next_one_of_the_process_begins() -> None:
    """Two networks and their optimizers may not fit on a GPU."""
    trainings: list[weakref.ref[FakeTraining]] = []
    alive: list[int] = []

    def remembered(recipe: Recipe, **options: Any) -> FakeTraining:
        alive.append(sum(each() is not None for each in trainings))
        training = FakeTraining(recipe, **options)
        trainings.append(weakref.ref(training))
        return training

    trial = QuorumTrial({**config(), "trainer": remembered})
    for seed in (7, 8, 9):
        trial.reset_config({**config(seed=seed), "trainer": remembered})
        scores(trial, 2)
    assert alive == [0, 0, 0]


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_in_a_checkpoint_is_not_opened(tmp_path: Path) -> None:
    """Ray's own way to resume opens files of this kind."""
    trial, mark = QuorumTrial(config()), tmp_path / "opened"
    trial.step()
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    trial.save_checkpoint(str(folder))
    for name in ("_dict_checkpoint.pkl", "_metadata.pkl", ".tune_metadata"):
        (folder / name).write_bytes(pickle.dumps(Evil(mark)))
    for checkpoint in (str(folder), tune.Checkpoint(str(folder))):
        resumed = QuorumTrial(config())
        resumed.restore(checkpoint)
        assert resumed.step()["step"] == 2
    assert not mark.exists()


def test_a_worker_trains_one_trial_after_another() -> None:
    trial = QuorumTrial(config())
    scores(trial, 2)
    assert trial.reset_config(config(seed=9, dropout=0.2))
    assert scores(trial, 4) == scores(QuorumTrial(config(seed=9, dropout=0.2)), 4)


def test_divergence_is_reported_as_failure_and_other_errors_are_raised() -> None:
    diverges = QuorumTrial(config(width=DIVERGES))
    diverges.step()
    result = diverges.step()
    assert result == {
        "done": True,
        "failure": "the loss is not finite at step 2",
        "cause": "recipe",
        "host": os.uname().nodename,
        "params": 1101,
    }
    raises = QuorumTrial(config(width=RAISES))
    raises.step()
    with pytest.raises(ValueError, match="a fault on demand"):
        raises.step()


def test_an_impossible_recipe_is_reported_as_failure_and_not_retried() -> None:
    """A recipe that passed the checks before the sweep fails only its trial, with the reason."""
    images = 8  # pixels a side
    trial = QuorumTrial({**config(cutout=images), "trainer": default_trainer})
    result = trial.step()
    assert (result["done"], result["params"]) == (True, 0)
    assert re.match("cutout must be less than .* 8 px, got 8", result["failure"])
    trial.reset_config(config())
    assert trial.step()["step"] == 1


def test_relative_paths_of_pretrained_weights_refer_to_the_commands_folder(tmp_path: Path) -> None:
    """The working directory of a worker is not that of the command.

    Missing weights are raised, so that Tune tries again: another machine may have them.
    """
    recipe = Recipe(epochs=4, width=4)
    image = np.zeros((2, 8, 8, 3), np.uint8)
    model = build_model(recipe, classes=2, image_size=8, train_images=image, seed=0)
    save_weights(model, tmp_path / "first.safetensors")
    begun = config(width=4, batch_size=10, pretrained="first.safetensors")
    trial = QuorumTrial({**begun, "trainer": default_trainer})
    missing = rf"first\.safetensors.*{os.strerror(errno.ENOENT)}"
    with pytest.raises(MissingWeightsError, match=missing):
        trial.step()
    there = {**begun, "trainer": default_trainer, "folder": str(tmp_path)}
    assert QuorumTrial(there).step()["step"] == 1


def test_initial_weights_that_differ_from_the_sweeps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "first.safetensors"
    image = np.zeros((2, 8, 8, 3), np.uint8)
    model = build_model(Recipe(width=4), classes=2, image_size=8, train_images=image, seed=0)
    save_weights(model, path)
    begun = config(width=4, batch_size=10, pretrained=str(path))
    begun = {**begun, "trainer": default_trainer}
    recorded = weights_identity(Recipe(pretrained=str(path)).architecture)
    assert QuorumTrial(with_start(begun, weights=recorded)).step()["step"] == 1
    changed = with_start(begun, weights={str(path): "0" * 64})
    with pytest.raises(RunError, match=r"t0007 started from .*first\.safetensors, which have chan"):
        QuorumTrial(changed).step()


def test_data_that_differ_from_the_sweeps_are_refused() -> None:
    images = QuorumTrial(with_start(config(), data={"fingerprint": "x"}))
    result = images.step()
    assert (result["done"], result["cause"]) == (True, "machine")
    assert re.match(r"t0007: the data on \S+ have fingerprint sha256:\w+, .* x;", result["failure"])
    other = make_splits(config()["images"], SplitSpec(seed=1, counts=(30, 20, 20)))
    splits = QuorumTrial({**config(), "splits": other})
    assert re.search(r"have split_id \w+, .* was started with \w+; give", splits.step()["failure"])


@pytest.mark.parametrize("cached", [True, False])
def test_every_process_loads_large_images_once(cached: bool, tmp_path: Path) -> None:
    """The data path is relative to the folder in which the command was started."""
    for number, (image, label) in enumerate(zip(IMAGES.images, IMAGES.labels, strict=True)):
        path = tmp_path / "data" / IMAGES.class_names[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    cache = tmp_path / "cache" if cached else None
    spec = DatasetSpec(name="imagefolder", path="data", image_size=8)
    with chdir(tmp_path):
        images = load_dataset(spec, cache=cache)
    splits = make_splits(images, SPEC.splits)
    received: list[ImageSet] = []

    def recording(recipe: Recipe, **options: Any) -> FakeTraining:
        received.append(options["images"])
        return FakeTraining(recipe, **options)

    changes = {
        "images": None, "splits": splits, "dataset": to_mapping(spec), "folder": str(tmp_path),
        "cache": None if cache is None else str(cache), "trainer": recording,
    }  # fmt: skip
    for seed in (1, 2):
        begun = with_start(
            {**config(seed=seed), **changes},
            data={"fingerprint": images.fingerprint},
            split_id=splits.split_id,
        )
        assert QuorumTrial(begun).step()["step"] == 1
    assert received[0] is received[1]
    assert received[0].fingerprint == images.fingerprint


def test_a_trial_requests_its_resources() -> None:
    request = QuorumTrial.default_resource_request({"resources": {"CPU": 0.5, "GPU": 1}})
    assert request.required_resources == {"CPU": 0.5, "GPU": 1}


def test_the_fake_curve_is_finite() -> None:
    assert all(math.isfinite(value) for _, value in scores(QuorumTrial(config()), 4))
