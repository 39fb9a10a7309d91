"""Facts about a run's images: counts if they are available, else the reason that they are not."""

import numpy as np
import pytest

from analysis.facts.data import SHEET_CLASSES, RunImages, class_counts, describe_data, find_images
from search.space.sweep_files import load_spec
from tests.events import run_started
from trainables.data.image_set import ImageSet
from trainables.data.splits import SPLITS


def run_images(classes: int) -> RunImages:
    """Return made-up images, two of them copies of the first."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2000, 8, 8, 3), dtype=np.uint8)
    pixels[[classes, 2 * classes]] = pixels[0]
    made = ImageSet(
        name="made", images=pixels, labels=np.arange(2000, dtype=np.int64) % classes,
        class_names=tuple(f"class {k}" for k in range(classes)), fingerprint="sha256:made",
    )  # fmt: skip
    images, missing = find_images(made, load_spec("digits"), run_started(fingerprint="sha256:made"))
    assert images is not None, missing
    return images


@pytest.mark.parametrize("classes", [4, SHEET_CLASSES + 2])
def test_images_are_counted_by_class_and_split(classes: int) -> None:
    images = run_images(classes)
    facts = describe_data(images, "", {}, classes, sheet=True)
    for split in SPLITS:
        labels = images.image_set.labels[getattr(images.splits, split)]
        assert facts.counts[split].tolist() == [int((labels == k).sum()) for k in range(classes)]
    total = class_counts(facts)
    assert total is not None
    assert total.sum() == sum(len(getattr(images.splits, split)) for split in SPLITS)
    assert facts.duplicates is not None
    assert facts.duplicates.images == 2
    assert facts.image_size == 8


@pytest.mark.parametrize(("classes", "each"), [(4, 10), (SHEET_CLASSES + 2, 1)])
def test_the_contact_sheet_has_the_first_training_images(classes: int, each: int) -> None:
    images = run_images(classes)
    facts = describe_data(images, "", {}, classes, sheet=True)
    train, labels = images.splits.train, images.image_set.labels
    expected = [index for k in range(classes) for index in train[labels[train] == k][:each]]
    assert facts.sheet_classes == tuple(labels[expected].tolist())
    assert facts.sheet is not None
    np.testing.assert_array_equal(facts.sheet, images.image_set.images[expected])
    assert describe_data(images, "", {}, classes, sheet=False).sheet is None


def test_without_images_the_kept_labels_are_counted() -> None:
    facts = describe_data(None, "the disk is gone", {"val": np.array([0, 2, 2])}, 3, sheet=True)
    assert facts.missing == "the disk is gone"
    assert {split: counts.tolist() for split, counts in facts.counts.items()} == {"val": [1, 0, 2]}
    assert class_counts(facts) is None
    counted = class_counts(facts, ["val"])
    assert counted is not None
    assert counted.tolist() == [1, 0, 2]
    assert facts.sheet is None


def test_other_images_are_refused() -> None:
    image_set = run_images(4).image_set
    images, missing = find_images(image_set, load_spec("digits"), run_started(fingerprint="other"))
    assert images is None
    assert "sha256:made" in missing
    assert "other" in missing
    assert find_images(image_set, load_spec("digits"), None) == (None, "the run has not started")
