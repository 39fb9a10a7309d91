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
from ensemble.selection.pool import Pool, refit_votes

Array = np.ndarray[Any, Any]


def load_pool(path: str | Path) -> Pool:
    """Load `probs` float [M, N, K], `labels` int [N] and optionally `names` [M] from a .npz.

    Rows must sum to 1 within 1e-3; they are renormalized, with a floor of 1e-7. A member
    whose every row is a one-hot vote is smoothed by its own error rate. Other arrays in the
    file are ignored, and nothing is unpickled.

    Raises:
        PoolError: not a .npz file, an array is missing or pickled, shapes do not fit, a
            probability is negative or not finite, or a label is not a class.
    """
    try:
        arrays = read_arrays(Path(path), required=("probs", "labels"), optional=("names",))
    except RunError as error:
        raise PoolError(str(error)) from None
    probs, labels = arrays["probs"], arrays["labels"]
    _check_shapes(probs, labels)
    names = _names(arrays.get("names"), len(probs))
    _check_labels(labels, classes=probs.shape[2])
    log_probs = np.empty(probs.shape, dtype=np.float32)
    votes = []
    for member, name in enumerate(names):
        rows = np.asarray(probs[member], dtype=np.float64)
        try:
            log_probs[member] = log_probs_from_probs(rows)
        except PoolError as error:
            raise PoolError(f"member {name!r}: {error}") from None
        if ((rows == 0.0) | (rows == 1.0)).all():
            votes.append(member)
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


def _check_shapes(probs: Array, labels: Array) -> None:
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
