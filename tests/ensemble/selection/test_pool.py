"""Pools loaded from files and built from runs."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PoolError, RunError
from common.files import write_array
from common.statistics.metrics import accuracy, nll
from ensemble.selection.pool import Pool, Skipped, refit_votes
from ensemble.selection.pool_file import load_pool
from ensemble.selection.run_pool import pool_from_run
from trainables.recipe import Numerics, Recipe
from trainables.records import (
    WEIGHTS,
    RunFolder,
    TrialRecord,
    TrialStart,
    write_record,
    write_start,
)

Array = np.ndarray[Any, Any]


def random_probs(members: int = 3, examples: int = 20, classes: int = 4, seed: int = 0) -> Array:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size=(members, examples))


def good() -> dict[str, Array]:
    return {"probs": random_probs(), "labels": np.arange(20) % 4}


def save(path: Path, **arrays: Array) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


class TestFiles:
    def test_a_file_is_loaded_with_its_names(self, tmp_path: Path) -> None:
        arrays = good()
        pool = load_pool(save(tmp_path / "pool.npz", **arrays, names=np.array(["a", "b", "c"])))
        assert pool.names == ("a", "b", "c")
        assert pool.kinds == ("", "", "")
        assert (str(pool.stack().dtype), str(pool.labels.dtype)) == ("float32", "int64")
        np.testing.assert_allclose(np.exp(pool.stack()), arrays["probs"], atol=1e-6)
        true = arrays["probs"][:, np.arange(20), arrays["labels"]].T
        np.testing.assert_allclose(pool.prob_true(), true, atol=1e-6)
        assert np.isnan(pool.seconds).all()

    def test_names_are_optional_and_other_arrays_are_ignored(self, tmp_path: Path) -> None:
        extra = np.array([{"never": "unpickled"}], dtype=object)
        path = save(tmp_path / "pool.npz", **good(), notes=extra)
        assert load_pool(path).names == ("m0", "m1", "m2")

    def test_the_split_id_depends_on_the_labels_alone(self, tmp_path: Path) -> None:
        arrays = good()
        first = load_pool(save(tmp_path / "a.npz", **arrays))
        arrays["labels"] = arrays["labels"].astype(np.uint8)
        assert load_pool(save(tmp_path / "b.npz", **arrays)).split_id == first.split_id
        arrays["labels"] = arrays["labels"][::-1]
        assert load_pool(save(tmp_path / "c.npz", **arrays)).split_id != first.split_id

    @given(seed=st.integers(0, 1000), error=st.floats(-9e-4, 9e-4))
    def test_sums_within_a_thousandth_are_renormalized(
        self, seed: int, error: float, tmp_path: Path
    ) -> None:
        probs = random_probs(seed=seed)
        scaled = {"probs": probs * (1.0 + error), "labels": good()["labels"]}
        pool = load_pool(save(tmp_path / "pool.npz", **scaled))
        np.testing.assert_allclose(np.exp(pool.stack()).sum(axis=2), 1.0, atol=1e-5)
        np.testing.assert_allclose(np.exp(pool.stack()), probs, atol=1e-5)

    def test_a_probability_of_zero_is_raised_to_the_floor(self, tmp_path: Path) -> None:
        arrays = good()
        arrays["probs"][0, 0] = [1.0, 0.0, 0.0, 0.0]
        pool = load_pool(save(tmp_path / "pool.npz", **arrays))
        assert pool.votes == ()
        assert np.exp(pool.log_probs[0][0, 1]) == pytest.approx(1e-7, rel=1e-3)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"probs": None}, r"the array 'probs' is missing; .*\['labels'\]"),
            ({"labels": None}, r"the array 'labels' is missing; .*\['probs'\]"),
            ({"probs": np.ones((20, 4))}, r"probs must be \[M, N, K\], got shape \[20, 4\]"),
            ({"probs": np.ones((0, 20, 4))}, r"at least one member.*got shape \[0, 20, 4\]"),
            ({"probs": np.ones((3, 20, 1))}, r"two classes, got shape \[3, 20, 1\]"),
            ({"probs": random_probs() * 1.01}, r"'m0': .* sum to 1 .* 1\.01"),
            ({"probs": np.log(random_probs())}, r"'m0': .* at least 0 .* logits"),
            ({"probs": np.full((3, 20, 4), np.nan)}, r"'m0': .* row \[0\] sums to nan"),
            ({"probs": np.full((3, 20, 4), "x")}, "probs must be numbers, got dtype <U1"),
            ({"labels": np.arange(20)}, r"labels must lie in 0 … 3, got 0 … 19"),
            ({"labels": -np.ones(20, int)}, r"labels must lie in 0 … 3, got -1 … -1"),
            ({"labels": np.zeros(20)}, "labels must be integers, got dtype float64"),
            ({"labels": np.zeros(19, int)}, r"labels must be \[N\] = \[20\].*got \[19\]"),
            ({"labels": np.zeros((20, 1), int)}, r"got \[20, 1\]"),
            ({"names": np.array(["a", "b"])}, "one per member, 3 in all, got 2"),
            ({"names": np.array(["a", "b", "a"])}, "unique, got 'a' twice"),
            ({"names": np.array([1, 2, 3])}, "names must be strings"),
            ({"probs": np.array([{"a": 1}], dtype=object)}, r"cannot be read as \.npz"),
            ({"names": np.array(["a", "b", None], dtype=object)}, r"cannot be read as \.npz"),
        ],
    )
    def test_a_bad_array_is_one_clear_error(
        self, changes: dict[str, Array | None], message: str, tmp_path: Path
    ) -> None:
        arrays = {key: value for key, value in (good() | changes).items() if value is not None}
        path = save(tmp_path / "pool.npz", **arrays)
        with pytest.raises(PoolError, match=message) as caught:
            load_pool(path)
        assert "\n" not in str(caught.value)

    def test_files_that_are_not_archives_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "pool.npz"
        with pytest.raises(PoolError, match=r"pool\.npz cannot be read as \.npz"):
            load_pool(path)
        for content in (b"", b"not a zip", b"\x80\x04K\x01."):
            path.write_bytes(content)
            with pytest.raises(PoolError, match=r"pool\.npz cannot be read as \.npz"):
                load_pool(path)
        np.save(tmp_path / "plain.npy", np.zeros(3))
        with pytest.raises(PoolError, match="it is not an archive"):
            load_pool(tmp_path / "plain.npy")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("probs.npy", b"garbage")
            archive.writestr("labels.npy", b"garbage")
        with pytest.raises(PoolError, match=r"cannot be read as \.npz"):
            load_pool(path)

    def test_a_file_truncated_anywhere_is_refused(self, tmp_path: Path) -> None:
        whole = save(tmp_path / "pool.npz", **good()).read_bytes()
        cut = tmp_path / "cut.npz"
        for length in range(0, len(whole), 197):
            cut.write_bytes(whole[:length])
            with pytest.raises(PoolError, match=r"cannot be read as \.npz"):
                load_pool(cut)


class TestVotes:
    @staticmethod
    def pool(tmp_path: Path, errors: tuple[int, ...], classes: int = 3) -> Pool:
        labels = np.arange(20) % classes
        votes = np.tile(labels, (len(errors), 1))
        for member, wrong in enumerate(errors):
            votes[member, :wrong] = (votes[member, :wrong] + 1) % classes
        probs = np.eye(classes)[votes]
        return load_pool(save(tmp_path / "pool.npz", probs=probs, labels=labels))

    def test_each_vote_is_smoothed_by_its_members_error_rate(self, tmp_path: Path) -> None:
        pool = self.pool(tmp_path, (4, 10))
        assert pool.votes == (0, 1)
        probs = np.exp(pool.stack())
        np.testing.assert_allclose(np.sort(probs[0])[:, [2, 0]], [[0.8, 0.1]] * 20, atol=1e-6)
        np.testing.assert_allclose(np.sort(probs[1])[:, [2, 0]], [[0.5, 0.25]] * 20, atol=1e-6)
        # The closed form of its NLL: −(1 − e) log(1 − e) − e log(e/(K − 1)).
        expected = -0.8 * np.log(0.8) - 0.2 * np.log(0.1)
        assert nll(pool.log_probs[0], pool.labels) == pytest.approx(expected)

    def test_a_vote_is_neither_certain_nor_reversed(self, tmp_path: Path) -> None:
        pool = self.pool(tmp_path, (0, 20))
        assert np.exp(pool.log_probs[0]).max() == pytest.approx(1.0 - 0.5 / 20)
        assert accuracy(pool.log_probs[0], pool.labels) == 1.0
        assert accuracy(pool.log_probs[1], pool.labels) == 0.0

    def test_votes_may_be_integers_and_only_some_members(self, tmp_path: Path) -> None:
        arrays = good()
        arrays["probs"][1] = np.eye(4)[arrays["labels"]]
        assert load_pool(save(tmp_path / "mixed.npz", **arrays)).votes == (1,)
        votes = np.eye(4, dtype=np.int64)[arrays["labels"]][None]
        whole = load_pool(save(tmp_path / "int.npz", probs=votes, labels=arrays["labels"]))
        assert whole.votes == (0,)

    def test_smoothing_is_fitted_to_the_given_rows(self, tmp_path: Path) -> None:
        pool = self.pool(tmp_path, (4, 10))
        later = refit_votes(pool, np.arange(2, 20))
        assert np.exp(later.log_probs[0]).max() == pytest.approx(1 - 2 / 18)
        np.testing.assert_array_equal(later.stack().argmax(2), pool.stack().argmax(2))
        without_votes = replace(pool, votes=())
        assert refit_votes(without_votes, np.arange(5)) is without_votes


class TestRuns:
    @staticmethod
    def trial(folder: RunFolder, name: str, log_probs: Array, **changes: Any) -> Path:
        path = folder.trial(name)
        write_array(path / "holdout.npy", log_probs)
        record = TrialRecord(
            trial=name, kind="seed" if name.startswith("s") else "search", status="completed",
            split_id="split", steps=27, rung=27, whole_schedule=True, seconds=1.5,
            peak_memory_bytes=1, params=1,
        )  # fmt: skip
        write_record(path, replace(record, **changes))
        return path

    @staticmethod
    def start(folder: RunFolder, name: str, *, rungs: tuple[int, ...]) -> None:
        write_start(
            folder.trial(name),
            TrialStart(
                trial=name, kind="search", recipe=Recipe(), seed=0, rungs=rungs, data={},
                split_id="split", numerics=Numerics(), code_version="0", machine={},
            ),
        )  # fmt: skip

    @pytest.fixture
    def folder(self, tmp_path: Path) -> RunFolder:
        folder = RunFolder(tmp_path / "run")
        folder.root.mkdir()
        labels = np.arange(20) % 4
        np.savez(folder.labels, val=labels, holdout=labels)
        self.log_probs = np.log(random_probs(members=6)).astype(np.float32)
        for member, name in enumerate(("t0000", "t0001", "s00")):
            self.trial(folder, name, self.log_probs[member])
        return folder

    def test_a_stopped_trial_with_weights_is_pooled(self, folder: RunFolder) -> None:
        path = self.trial(folder, "t0002", self.log_probs[3], whole_schedule=False, status="pruned")
        (path / WEIGHTS).write_bytes(b"")
        self.start(folder, "t0002", rungs=(9, 27, 81))
        early = self.trial(
            folder, "t0003", self.log_probs[4], whole_schedule=False, status="pruned"
        )
        (early / WEIGHTS).write_bytes(b"")
        self.start(folder, "t0003", rungs=(27, 81, 243))
        pool = pool_from_run(folder)
        assert pool.names == ("s00", "t0000", "t0001", "t0002")
        np.testing.assert_array_equal(pool.log_probs[3], self.log_probs[3])

    def test_other_trials_are_not_pooled(self, folder: RunFolder) -> None:
        self.trial(folder, "t0002", self.log_probs[3], whole_schedule=False, status="pruned")
        self.start(folder, "t0002", rungs=(27, 81))
        self.trial(folder, "t0003", self.log_probs[3], status="failed")
        (folder.trial("t0004")).mkdir()
        pool = pool_from_run(folder)
        assert pool.names == ("s00", "t0000", "t0001")
        assert pool.kinds == ("seed", "search", "search")
        assert pool.split_id == "split"
        np.testing.assert_array_equal(pool.stack(), self.log_probs[[2, 0, 1]])
        np.testing.assert_array_equal(pool.seconds, [1.5, 1.5, 1.5])
        np.testing.assert_array_equal(pool.labels, np.arange(20) % 4)

    def test_members_that_are_not_finite_are_left_out_with_the_reason(
        self, folder: RunFolder
    ) -> None:
        broken = self.log_probs[3].copy()
        broken[5, 2] = np.nan
        self.trial(folder, "t0002", broken)
        pool = pool_from_run(folder)
        assert "t0002" not in pool.names
        assert pool.skipped == (Skipped(name="t0002", reason="its predictions are not finite"),)

    def test_a_run_without_a_usable_trial_is_refused(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path)
        with pytest.raises(PoolError, match="no trial completed its whole schedule"):
            pool_from_run(folder)
        np.savez(folder.labels, holdout=np.zeros(20, int))
        self.trial(folder, "t0000", np.full((20, 4), np.nan, np.float32))
        with pytest.raises(PoolError, match="no trial that completed its schedule has weights"):
            pool_from_run(folder)

    def test_trials_of_different_splits_are_refused(self, folder: RunFolder) -> None:
        self.trial(folder, "t0002", self.log_probs[3], split_id="other")
        with pytest.raises(RunError, match="trial t0002 was trained on split other, trial s00"):
            pool_from_run(folder)

    def test_damaged_or_missing_predictions_are_refused(self, folder: RunFolder) -> None:
        path = folder.trial("t0001") / "holdout.npy"
        np.save(path, self.log_probs[4])
        with pytest.raises(RunError, match=r"trial t0001: .*does not match the checksum"):
            pool_from_run(folder)
        path.unlink()
        with pytest.raises(RunError, match=r"trial t0001: .* is missing"):
            pool_from_run(folder)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((19, 4), r"expected log-probabilities \[20, K\], got shape \[19, 4\]"),
            ((20,), r"got shape \[20\]"),
            ((20, 3), r"got shape \[20, 3\]"),
            ((20, 5), "trial t0002 predicts 5 classes, trial s00 4"),
        ],
    )
    def test_predictions_of_the_wrong_shape_are_refused(
        self, folder: RunFolder, shape: tuple[int, ...], message: str
    ) -> None:
        self.trial(folder, "t0002", np.zeros(shape, np.float32))
        with pytest.raises(RunError, match=message):
            pool_from_run(folder)

    def test_damaged_labels_are_refused(self, folder: RunFolder) -> None:
        folder.labels.write_bytes(b"no zip")
        with pytest.raises(RunError, match=r"labels\.npz cannot be read"):
            pool_from_run(folder)
        np.savez(folder.labels, val=np.zeros(20, int))
        with pytest.raises(RunError, match="the array 'holdout' is missing"):
            pool_from_run(folder)
        np.savez(folder.labels, holdout=np.zeros(20))
        with pytest.raises(RunError, match=r"holdout must be integers \[N\], got float64"):
            pool_from_run(folder)


def test_a_pool_refuses_shapes_that_do_not_fit() -> None:
    pool = Pool(
        names=("a",), log_probs=np.zeros((1, 3, 2), np.float32), labels=np.zeros(3, np.int64),
        split_id="x", seconds=np.ones(1), kinds=("",),
    )  # fmt: skip
    with pytest.raises(PoolError, match="1 members need as many names"):
        replace(pool, names=("a", "b"))
    with pytest.raises(PoolError, match=r"labels must be \[3\], got \[2\]"):
        replace(pool, labels=np.zeros(2, np.int64))
