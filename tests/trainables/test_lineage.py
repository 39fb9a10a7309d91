"""Weights carry the splits that they have seen; other splits of the same images are refused."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from common.errors import SpecError
from quorum.testing.trainers import striped_images
from trainables.data.splits import Splits
from trainables.lineage import SeenSplit, lineage_of, require_unseen
from trainables.recipe import Numerics, Recipe
from trainables.training.loop import Training
from trainables.weights import save_weights

IMAGES, SPLITS = striped_images()
RECIPE = Recipe(width=3, depth=2, epochs=1, batch_size=16)


def trained(splits: Splits = SPLITS, *, pretrained: Path | None = None) -> Training:
    recipe = RECIPE.with_values(pretrained="" if pretrained is None else str(pretrained))
    return Training(recipe, rungs=(1,), seed=0, numerics=Numerics(), images=IMAGES, splits=splits)


def redivided() -> Splits:
    """Return the same images with train and holdout exchanged."""
    return replace(SPLITS, train=SPLITS.holdout, holdout=SPLITS.train, split_id="exchanged")


def test_weights_carry_their_split(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    trained().save_weights(path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert metadata["split_id"] == SPLITS.split_id
    assert metadata["fingerprint"] == IMAGES.fingerprint
    for number in range(8):
        trained().save_weights(tmp_path / str(number))
    assert {(tmp_path / str(number)).read_bytes() for number in range(8)} == {path.read_bytes()}


def test_weights_of_the_same_split_may_be_used_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    trained().save_weights(path)
    again = tmp_path / "again.safetensors"
    trained(pretrained=path).save_weights(again)
    architecture = RECIPE.with_values(pretrained=str(again)).architecture
    (seen,) = lineage_of(architecture)
    assert seen.split_id == SPLITS.split_id
    with pytest.raises(SpecError, match="which are now divided as exchanged, so it has seen"):
        trained(redivided(), pretrained=again)
    require_unseen(architecture, SeenSplit(fingerprint="another set", split_id="x"))


def test_a_training_on_another_data_set_in_between_hides_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    trained().save_weights(first)
    other = replace(IMAGES, fingerprint="another set")
    recipe = RECIPE.with_values(pretrained=str(first))
    between = Training(
        recipe, rungs=(1,), seed=0, numerics=Numerics(), images=other,
        splits=replace(SPLITS, split_id="of the other"),
    )  # fmt: skip
    between.save_weights(second)
    with pytest.raises(SpecError, match="has seen images"):
        trained(redivided(), pretrained=second)


def test_weights_of_an_earlier_version_give_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(trained().model, path)
    with caplog.at_level(logging.WARNING):
        trained(redivided(), pretrained=path)
    assert "did not record their split" in caplog.text


def test_an_unreadable_lineage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    trained().save_weights(path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["seen"] = "[1]"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(SpecError, match="no readable list of seen splits"):
        trained(pretrained=path)
