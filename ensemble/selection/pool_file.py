"""Load a pool from a file `POOL.npz` of predictions made anywhere.

Axes: M members, N examples, K classes.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import PoolError, RunError
from common.files import read_arrays
from common.statistics.metrics import log_probs_from_probs
from ensemble.selection.npz_member import NpzMember
from ensemble.selection.pool import Pool, refit_votes
from ensemble.selection.predictions import StoredPredictions, floored_probs
from ensemble.selection.progress import Progress, silent

Array = np.ndarray[Any, Any]


def load_pool(path: str | Path, *, progress: Progress = silent) -> Pool:
    """Load `probs` float [M, N, K], `labels` int [N] and optionally `names` [M] from a .npz.

    Rows must sum to 1 within 1e-3; they are renormalized, with a floor of 1e-7. A member
    whose every row is a one-hot vote is smoothed by its own error rate. Other arrays in the
    file are ignored, and nothing is unpickled. Predictions stay in the file, or are unpacked into a
    temporary one; memory holds one member's [N, K] at a time, and the true class's [N, M].

    Raises:
        PoolError: not a .npz file, an array is missing or pickled, shapes do not fit, a
            probability is negative or not finite, a label is not a class, or there is no disk space
            for a compressed file's predictions.
    """
    try:
        arrays = read_arrays(Path(path), required=("labels",), optional=("names",))
    except RunError as error:
        raise PoolError(str(error)) from None
    labels = arrays["labels"]
    probs = NpzMember(Path(path), "probs")
    _check_shapes(probs, labels)
    names = _names(arrays.get("names"), probs.shape[0])
    _check_labels(labels, classes=probs.shape[2])
    members, examples, classes = probs.shape
    prob_true = np.empty((examples, members), np.float32)
    votes = []
    for member, rows in enumerate(probs.first_pass()):
        try:
            log_probs = log_probs_from_probs(rows)
        except PoolError as error:
            raise PoolError(f"member {names[member]!r}: {error}") from None
        prob_true[:, member] = floored_probs(log_probs[np.arange(examples), labels])
        if ((rows == 0.0) | (rows == 1.0)).all():
            votes.append(member)
        progress("reading predictions", (member + 1) / members)
    pool = Pool(
        names=names,
        log_probs=StoredPredictions(
            lambda member: log_probs_from_probs(probs.read(member)),
            (members, examples, classes),
            prob_true,
        ),
        labels=labels.astype(np.int64),
        split_id="labels-" + hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()[:16],
        seconds=np.full(len(names), np.nan),
        kinds=("",) * len(names),
        votes=tuple(votes),
    )
    return refit_votes(pool, np.arange(len(labels)))


def _check_shapes(probs: NpzMember, labels: Array) -> None:
    if len(probs.shape) != 3:
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


def _names(names: Array | None, members: int) -> tuple[str, ...]:
    """Return the members' names, `m0`, `m1`, … by default."""
    if names is None:
        return tuple(f"m{member}" for member in range(members))
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise PoolError(
            f"names must be strings [M], got {names.dtype} of shape {list(names.shape)}"
        )
    decoded = np.char.decode(names) if names.dtype.kind == "S" else names
    texts = tuple(map(str, decoded))
    if len(texts) != members:
        raise PoolError(f"names must be one per member, {members} in all, got {len(texts)}")
    if len(set(texts)) != members:
        repeated = next(name for name in texts if texts.count(name) > 1)
        raise PoolError(f"names must be unique, got {repeated!r} twice")
    return texts


def _check_labels(labels: Array, *, classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise PoolError(f"labels must be integers, got dtype {labels.dtype}")
    if labels.min() < 0 or labels.max() >= classes:
        raise PoolError(
            f"labels must lie in 0 … {classes - 1}, got {labels.min()} … {labels.max()}"
        )
