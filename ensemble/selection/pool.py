"""The pool: every candidate's log-probabilities on the same holdout examples.

Axes: M members, N examples, K classes. A pool comes from a run's finished trials or from
a file `POOL.npz` that anybody can write.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from common.errors import PoolError, RunError
from common.files import file_sha256, read_array
from common.statistics.metrics import FLOOR, log_probs_from_probs
from trainables.records import RunFolder, TrialRecord

_Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A candidate that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Candidates for an ensemble, aligned on the same examples."""

    names: tuple[str, ...]
    """One for each member, unique."""
    log_probs: Float32[np.ndarray, "M N K"]
    labels: Int64[np.ndarray, " N"]
    split_id: str
    """The split these examples are the holdout of."""
    seconds: Float64[np.ndarray, " M"]
    """Training time of each member; NaN where it is not known."""
    kinds: tuple[str, ...]
    """`search`, `seed` (a seed of the best configuration), or empty where not known."""
    votes: tuple[int, ...] = ()
    """Members whose predictions were one-hot votes; see `refit_votes`."""
    skipped: tuple[Skipped, ...] = ()
    """Candidates that were left out."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together."""
        members, examples, _ = self.log_probs.shape
        if not len(self.names) == len(self.kinds) == len(self.seconds) == members:
            raise PoolError(f"{members} members need as many names, kinds and seconds")
        if self.labels.shape != (examples,):
            raise PoolError(f"labels must be [{examples}], got {list(self.labels.shape)}")

    def prob_true(self) -> Float64[np.ndarray, "N M"]:
        """The probability that each member gives to each example's true class.

        As in the metrics, a probability below FLOOR counts as FLOOR.
        """
        true = self.log_probs[:, np.arange(len(self.labels)), self.labels]
        return np.maximum(np.exp(true.T.astype(np.float64)), FLOOR)


def load_pool(path: str | Path) -> Pool:
    """Load `probs` float [M, N, K], `labels` int [N] and optionally `names` [M] from a .npz.

    Rows must sum to 1 within 1e-3; they are renormalized, with a floor of 1e-7. A member
    whose every row is a one-hot vote is smoothed by its own error rate. Other arrays in the
    file are ignored, and nothing is ever unpickled.

    Raises:
        PoolError: not a .npz file, an array is missing or pickled, shapes do not fit, a
            probability is negative or not finite, or a label is no class.
    """
    try:
        arrays = _read_archive(Path(path), needed=("probs", "labels"), optional=("names",))
    except ValueError as error:
        raise PoolError(str(error)) from None
    probs, labels = arrays["probs"], arrays["labels"]
    _check_shapes(probs, labels)
    names = _check_names(arrays.get("names"), len(probs))
    _check_labels(labels, classes=probs.shape[2])
    log_probs = np.empty(probs.shape, dtype=np.float32)
    votes = []
    for member, name in enumerate(names):
        rows = np.asarray(probs[member], dtype=np.float64)
        _check_rows(rows, name)
        if ((rows == 0.0) | (rows == 1.0)).all():
            votes.append(member)
        log_probs[member] = log_probs_from_probs(rows)
    pool = Pool(
        names=names,
        log_probs=log_probs,
        labels=labels.astype(np.int64),
        split_id="labels-" + hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()[:16],
        seconds=np.full(len(names), np.nan),
        kinds=("",) * len(names),
        votes=tuple(votes),
    )
    return refit_votes(pool, np.arange(len(labels)))


def refit_votes(pool: Pool, rows: Int64[np.ndarray, " R"]) -> Pool:
    """The pool with each one-hot vote smoothed by that member's error rate e on `rows`.

    The class voted for gets 1 − e, the others e/(K − 1) each. e is kept between half an
    error and just below chance, so that a vote is neither certain nor turned around.
    """
    if not pool.votes:
        return pool
    log_probs = pool.log_probs.copy()
    classes = log_probs.shape[2]
    for member in pool.votes:
        voted = log_probs[member].argmax(axis=1)
        error = float((voted[rows] != pool.labels[rows]).mean())
        error = min(max(error, 0.5 / len(rows)), 0.999 * (classes - 1) / classes)
        log_probs[member] = np.log(error / (classes - 1))
        log_probs[member, np.arange(len(voted)), voted] = np.log1p(-error)
    return replace(pool, log_probs=log_probs)


def pool_from_run(folder: RunFolder) -> Pool:
    """The pool of a run: every trial that completed its whole schedule, seeds included.

    Trials with non-finite predictions are left out and listed in `skipped`.

    Raises:
        PoolError: no trial qualifies.
        RunError: trials of different splits, a file that is missing, damaged or of the
            wrong shape.
    """
    records = [r for r in folder.records() if r.whole_schedule and r.status == "completed"]
    if not records:
        raise PoolError(
            f"{folder.root}: no trial completed its whole schedule, so there is nothing to "
            "select from; let the sweep go on, or raise its time budget"
        )
    _check_split(records)
    labels = _read_labels(folder)
    predictions, skipped = {}, []
    for record in records:
        log_probs = _read_predictions(folder, record, labels)
        if np.isfinite(log_probs).all():
            predictions[record.trial] = log_probs
        else:
            skipped.append(Skipped(name=record.trial, reason="its predictions are not finite"))
    if not predictions:
        raise PoolError(f"{folder.root}: no trial has finite predictions on holdout")
    kept = [record for record in records if record.trial in predictions]
    _check_classes(predictions)
    return Pool(
        names=tuple(record.trial for record in kept),
        log_probs=np.stack([predictions[record.trial] for record in kept]),
        labels=labels,
        split_id=kept[0].split_id,
        seconds=np.array([record.seconds for record in kept]),
        kinds=tuple(record.kind for record in kept),
        skipped=tuple(skipped),
    )


def _read_archive(path: Path, *, needed: Sequence[str], optional: Sequence[str] = ()) -> _Arrays:
    """Arrays of a .npz file, or a ValueError in one line; other entries are not touched."""
    try:
        # Opened here, because np.load leaves a file open that turns out to be no archive.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is not an archive")
            for key in needed:
                if key not in archive:
                    raise ValueError(f"the array {key!r} is missing; found {archive.files}")
            arrays = {key: archive[key] for key in (*needed, *optional) if key in archive}
    except Exception as error:  # damaged archives and headers raise a dozen unrelated types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} cannot be read as .npz: {reason}") from None
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{path} cannot be read as .npz: {key!r} is no array")
    return arrays


def _check_shapes(probs: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
    if probs.ndim != 3:
        raise PoolError(f"probs must be [M, N, K], got shape {list(probs.shape)}")
    if 0 in probs.shape or probs.shape[2] < 2:
        raise PoolError(
            "probs must hold at least one member, one example and two classes, "
            f"got shape {list(probs.shape)}"
        )
    if probs.dtype.kind not in "fiub":
        raise PoolError(f"probs must be numbers, got dtype {probs.dtype}")
    if labels.shape != probs.shape[1:2]:
        raise PoolError(
            f"labels must be [N] = [{probs.shape[1]}] to fit probs, got {list(labels.shape)}"
        )


def _check_names(names: np.ndarray[Any, Any] | None, members: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"m{member}" for member in range(members))
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise PoolError(f"names must be texts [M], got {names.dtype} of shape {list(names.shape)}")
    texts = (
        tuple(str(name) for name in np.char.decode(names))
        if names.dtype.kind == "S"
        else tuple(map(str, names))
    )
    if len(texts) != members:
        raise PoolError(f"names must be one per member, {members} in all, got {len(texts)}")
    if len(set(texts)) != members:
        twice = next(name for name in texts if texts.count(name) > 1)
        raise PoolError(f"names must be unique, got {twice!r} twice")
    return texts


def _check_labels(labels: np.ndarray[Any, Any], *, classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise PoolError(f"labels must be integers, got dtype {labels.dtype}")
    if labels.min() < 0 or labels.max() >= classes:
        raise PoolError(
            f"labels must lie in 0 … {classes - 1}, got {labels.min()} … {labels.max()}"
        )


def _check_rows(rows: Float[np.ndarray, "N K"], name: str) -> None:
    if not np.isfinite(rows).all():
        example = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise PoolError(f"member {name!r}: probabilities of example {example} are not finite")
    if rows.min() < 0.0:
        raise PoolError(
            f"member {name!r}: probabilities must be at least 0, got {rows.min():.6g}; "
            "are these logits or log-probabilities?"
        )
    off = np.abs(rows.sum(axis=1) - 1.0)
    if off.max() > 1e-3:
        example = int(off.argmax())
        raise PoolError(
            f"member {name!r}: probabilities must sum to 1 within 1e-3, got "
            f"{rows[example].sum():.6g} for example {example}"
        )


def _check_split(records: list[TrialRecord]) -> None:
    first = records[0]
    for record in records:
        if record.split_id != first.split_id:
            raise RunError(
                f"trial {record.trial} was trained on split {record.split_id}, trial "
                f"{first.trial} on {first.split_id}; predictions of different splits cannot be "
                "pooled: select from a run of one split"
            )


def _check_classes(predictions: Mapping[str, Float32[np.ndarray, "N K"]]) -> None:
    first = next(iter(predictions))
    for trial, log_probs in predictions.items():
        if log_probs.shape != predictions[first].shape:
            raise RunError(
                f"trial {trial} predicts {log_probs.shape[1]} classes, trial {first} "
                f"{predictions[first].shape[1]}; they cannot be pooled"
            )


def _read_labels(folder: RunFolder) -> Int64[np.ndarray, " N"]:
    try:
        labels = _read_archive(folder.labels, needed=("holdout",))["holdout"]
    except ValueError as error:
        raise RunError(str(error)) from None
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
        raise RunError(
            f"{folder.labels}: holdout must be integers [N], got {labels.dtype} {labels.shape}"
        )
    return np.asarray(labels, dtype=np.int64)


def _read_predictions(
    folder: RunFolder, record: TrialRecord, labels: Int64[np.ndarray, " N"]
) -> Float32[np.ndarray, "N K"]:
    path = folder.trial(record.trial) / "holdout.npy"
    advice = f"move {path.parent} elsewhere to select without it"
    if not path.is_file():
        raise RunError(f"trial {record.trial}: {path} is missing; {advice}")
    if file_sha256(path) != record.sha256.get(path.name):
        raise RunError(
            f"trial {record.trial}: {path} is not the file its record was written for; {advice}"
        )
    log_probs = read_array(path)
    classes = int(labels.max()) + 1
    if log_probs.ndim != 2 or len(log_probs) != len(labels) or log_probs.shape[1] < max(2, classes):
        raise RunError(
            f"trial {record.trial}: expected log-probabilities [{len(labels)}, K], got shape "
            f"{list(log_probs.shape)}; {advice}"
        )
    return np.asarray(log_probs, dtype=np.float32)
