"""The contract of a trainer, as tests.

Subclass it in your own test module:

    class TestMyTrainer(TrainerContract):
        trainer = MyTrainer

Set `recipe` to one that suits your trainer; its last rung is `rungs[-1]` epochs.

Axes: n images, K classes.
"""

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from common.errors import RunError
from common.seeds import numpy_generator
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe
from trainables.trainer import EpochReport, Trainer, TrainerFactory


def striped_images() -> tuple[ImageSet, Splits]:
    """Return 90 images of 8×8 px in three classes, each striped in its own colour, with splits."""
    rng = numpy_generator(0, "images")
    labels = np.arange(90) % 3
    images = rng.integers(0, 200, (90, 8, 8, 3))
    for i, label in enumerate(labels):
        images[i, :, label::3, label] += 55
    image_set = ImageSet(
        name="stripes",
        images=images.astype(np.uint8),
        labels=labels.astype(np.int64),
        class_names=("a", "b", "c"),
    )
    splits = Splits(
        train=np.arange(0, 44),
        val=np.arange(44, 66),
        holdout=np.arange(66, 80),
        test=np.arange(80, 90),
        split_id="stripes",
    )
    return image_set, splits


class TrainerContract:
    """The tests that every `trainables.trainer.Trainer` must pass."""

    trainer: ClassVar[TrainerFactory]
    rungs: ClassVar[tuple[int, ...]] = (1, 2, 4)
    recipe: ClassVar[Recipe] = Recipe(epochs=4, width=3, batch_size=16)

    def start(self, *, seed: int = 5, rungs: Sequence[int] = ()) -> Trainer:
        """Return a fresh trainer on striped images."""
        images, splits = striped_images()
        rungs = rungs or self.rungs
        return type(self).trainer(
            self.recipe.with_values(epochs=rungs[-1]),
            rungs=rungs,
            seed=seed,
            numerics=Numerics(),
            images=images,
            splits=splits,
        )

    def test_every_rung_is_reported_once_and_the_last_report_is_the_last_rung(self) -> None:
        """Steps count up from 1, and rungs come in order."""
        reports = list(self.start().reports())
        assert [report.step for report in reports] == list(range(1, len(reports) + 1))
        assert [report.rung for report in reports if report.rung] == list(self.rungs)
        assert reports[-1].rung == self.rungs[-1]
        assert all(report.epoch == report.rung for report in reports if report.rung)

    def test_a_finished_training_has_nothing_left_to_report(self) -> None:
        """A second iteration trains nothing."""
        trainer = self.start()
        list(trainer.reports())
        assert list(trainer.reports()) == []

    def test_reports_are_finite_and_log_probs_are_normalized(self) -> None:
        """Log-probabilities are float32 [n, K] and sum to 1 in every row."""
        trainer = self.start()
        _, splits = striped_images()
        assert trainer.params > 0
        for report in trainer.reports():
            assert np.isfinite([report.train_loss, report.val_nll, report.temperature]).all()
            assert 0 <= report.val_accuracy <= 1
            assert report.seconds > 0
            logp = trainer.log_probs(splits.holdout)
            assert logp.dtype == np.float32
            assert logp.shape == (len(splits.holdout), 3)
            np.testing.assert_allclose(np.exp(logp).sum(axis=1), 1, atol=1e-5)

    def test_resumed_after_any_epoch_equals_uninterrupted(self, tmp_path: Path) -> None:
        """Reports, predictions and weights are bitwise the same; clocks and memory may differ."""
        _, splits = striped_images()
        whole = self.start()
        whole.save(tmp_path / "0")
        reports = []
        for report in whole.reports():
            reports.append(_without_clock(report))
            whole.save(tmp_path / str(report.step))
        whole.save_weights(tmp_path / "whole")
        for step in range(len(reports) + 1):
            resumed = self.start()
            resumed.load(tmp_path / str(step))
            assert [_without_clock(report) for report in resumed.reports()] == reports[step:]
            np.testing.assert_array_equal(
                resumed.log_probs(splits.holdout), whole.log_probs(splits.holdout)
            )
            resumed.save_weights(tmp_path / "resumed")
            assert (tmp_path / "resumed").read_bytes() == (tmp_path / "whole").read_bytes()

    def test_saved_weights_are_those_that_were_scored(self, tmp_path: Path) -> None:
        """They are the same in the trainer that was saved and in the one that was loaded."""
        _, splits = striped_images()
        trainer, loaded = self.start(), self.start()
        for report in trainer.reports():
            trainer.save(tmp_path / "checkpoint")
            loaded = self.start()
            loaded.load(tmp_path / "checkpoint")
            for name, each in (("saved", trainer), ("loaded", loaded)):
                each.save_weights(tmp_path / name)
            assert (tmp_path / "saved").read_bytes() == (tmp_path / "loaded").read_bytes()
            np.testing.assert_array_equal(
                trainer.log_probs(splits.val), loaded.log_probs(splits.val)
            )
            if report.rung:
                (tmp_path / "saved").rename(tmp_path / f"rung{report.rung}")
        first, last = (tmp_path / f"rung{rung}" for rung in (self.rungs[0], self.rungs[-1]))
        assert first.read_bytes() != last.read_bytes()

    def test_the_same_seed_repeats_a_training_and_another_seed_does_not(self) -> None:
        """A seed decides everything random."""
        runs = [
            [_without_clock(report) for report in self.start(seed=seed).reports()]
            for seed in (5, 5, 6)
        ]
        assert runs[0] == runs[1]
        assert runs[0] != runs[2]

    def test_a_checkpoint_of_another_training_is_refused(self, tmp_path: Path) -> None:
        """The seed differs."""
        trainer = self.start()
        next(trainer.reports())
        trainer.save(tmp_path / "checkpoint")
        with pytest.raises(RunError, match="seed"):
            self.start(seed=6).load(tmp_path / "checkpoint")

    def test_a_damaged_checkpoint_is_refused(self, tmp_path: Path) -> None:
        """Every file of the checkpoint is cut in turn."""
        trainer = self.start()
        next(trainer.reports())
        trainer.save(tmp_path / "checkpoint")
        for path in sorted((tmp_path / "checkpoint").rglob("*.*")):
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
            with pytest.raises(RunError, match=r"damaged|checksum|cannot be read"):
                self.start().load(tmp_path / "checkpoint")
            path.write_bytes(content)
        self.start().load(tmp_path / "checkpoint")


def _without_clock(report: EpochReport) -> tuple[Any, ...]:
    return astuple(replace(report, seconds=0.0, images_per_second=0.0, peak_memory_bytes=0))
