"""Build the pool from a run's finished trials.

Axes: M members, N examples, K classes.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Int64

from common.errors import PoolError, RunError
from common.files import file_sha256, read_array, read_arrays
from ensemble.selection.pool import Pool, Skipped
from ensemble.selection.predictions import StoredPredictions, floored_probs
from ensemble.selection.progress import Progress, silent
from trainables.records import WEIGHTS, RunFolder, TrialRecord, read_start


def pool_from_run(folder: RunFolder, *, progress: Progress = silent) -> Pool:
    """Return a run's pool: the trials, including seeds, whose weights still exist.

    These are the trials that completed the whole schedule, and those stopped at the rung before
    the last. At that rung, each trial was scored after its own cooldown, so the latter are complete
    trainings, too, with shorter schedules. Completed trials with non-finite predictions, or whose
    weights have been removed to save disk space, are left out and listed in `skipped`.

    Raises:
        PoolError: no trial completed its schedule, or none that did is usable.
        RunError: trials of different splits, or a file that is missing, damaged or of the
            wrong shape.
    """
    completed = [r for r in folder.records() if r.whole_schedule and r.status == "completed"]
    if not completed:
        raise PoolError(
            f"{folder.root}: no trial completed its whole schedule, so there is nothing to "
            "select from; resume the sweep, or raise its time budget"
        )
    stopped = [r for r in folder.records() if is_late(folder, r) and _has_weights(folder, r)]
    records = sorted([*completed, *stopped], key=lambda record: record.trial)
    _check_split(records)
    labels = _read_labels(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    columns, skipped = [], []
    for number, record in enumerate(records):
        progress("reading predictions", number / len(records))
        if WEIGHTS in record.sha256 and not _has_weights(folder, record):
            skipped.append(Skipped(name=record.trial, reason="its weights have been removed"))
            continue
        log_probs = _read_predictions(folder, record, labels)
        if np.isfinite(log_probs).all():
            shapes[record.trial] = log_probs.shape
            columns.append(floored_probs(log_probs[np.arange(len(labels)), labels]))
        else:
            skipped.append(Skipped(name=record.trial, reason="its predictions are not finite"))
    if not any(record.trial in shapes for record in completed):
        raise PoolError(
            f"{folder.root}: no trial that completed its schedule has weights and finite "
            "predictions on holdout"
        )
    _check_classes(shapes)
    kept = [record for record in records if record.trial in shapes]
    paths = [folder.trial(record.trial) / "holdout.npy" for record in kept]
    examples, classes = shapes[kept[0].trial]
    return Pool(
        names=tuple(record.trial for record in kept),
        log_probs=StoredPredictions(
            lambda member: np.asarray(read_array(paths[member]), dtype=np.float32),
            (len(kept), examples, classes),
            np.stack(columns, axis=1),
        ),
        labels=labels,
        split_id=kept[0].split_id,
        seconds=np.array([record.seconds for record in kept]),
        kinds=tuple(record.kind for record in kept),
        skipped=tuple(skipped),
    )


def is_late(folder: RunFolder, record: TrialRecord) -> bool:
    """Return whether a trial was stopped at the rung before the last, and so can be a member."""
    if record.status != "pruned" or record.rung is None:
        return False
    return record.rung >= read_start(folder.trial(record.trial) / "start.json").rungs[-2:][0]


def _has_weights(folder: RunFolder, record: TrialRecord) -> bool:
    return (folder.trial(record.trial) / WEIGHTS).exists()


def _check_split(records: list[TrialRecord]) -> None:
    first = records[0]
    for record in records:
        if record.split_id != first.split_id:
            raise RunError(
                f"trial {record.trial} was trained on split {record.split_id}, trial "
                f"{first.trial} on {first.split_id}; predictions of different splits cannot be "
                "pooled: select from a run of one split"
            )


def _check_classes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    first = next(iter(shapes))
    for trial, shape in shapes.items():
        if shape != shapes[first]:
            raise RunError(
                f"trial {trial} predicts {shape[1]} classes, trial {first} "
                f"{shapes[first][1]}; they cannot be pooled"
            )


def _read_labels(folder: RunFolder) -> Int64[np.ndarray, " N"]:
    labels = read_arrays(folder.labels, required=("holdout",))["holdout"]
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
            f"trial {record.trial}: {path} does not match the checksum in its record; {advice}"
        )
    log_probs = read_array(path)
    classes = int(labels.max()) + 1
    if log_probs.ndim != 2 or len(log_probs) != len(labels) or log_probs.shape[1] < max(2, classes):
        raise RunError(
            f"trial {record.trial}: expected log-probabilities [{len(labels)}, K], got shape "
            f"{list(log_probs.shape)}; {advice}"
        )
    return np.asarray(log_probs, dtype=np.float32)
