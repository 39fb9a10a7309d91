"""Every row of the ledger, predicted: members pooled, students run, each at its temperature.

Axes: N examples, K classes. Temperatures are always fitted on holdout.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.files import dump_json, read_json, write_arrays, write_bytes_atomically
from common.provenance import machine_description
from common.seeds import numpy_generator
from common.statistics.intervals import paired_difference
from common.statistics.metrics import nll_per_example
from ensemble.deployment.card import read_card
from ensemble.deployment.gates import GateMargins
from ensemble.deployment.onnx_model import OnnxClassifier
from ensemble.deployment.release import student_facts, student_log_probs
from ensemble.ledger.evaluation import (
    PooledRow,
    calibrated,
    holdout_log_probs,
    member_facts,
    names_of,
    pooled_facts,
    pooled_rows,
    predict_members,
)
from ensemble.ledger.ledger import build_ledger, to_csv
from ensemble.ledger.rows import Predictions, StageFacts
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics
from trainables.records import RunFolder

TIMED_IMAGES = 256


def holdout_predictions(folder: RunFolder, images: ImageSet, splits: Splits) -> Predictions:
    """What every row says of holdout, from the arrays that the trials left."""
    rows = _rows(folder)
    labels = images.labels[splits.holdout]
    members = holdout_log_probs(folder, names_of(rows.values()))
    pooled = {stage: row.pool(members) for stage, row in rows.items()}
    stages = {stage: calibrated(pool, pool, labels) for stage, pool in pooled.items()}
    return Predictions(labels=labels, stages=stages | _students(folder, images, splits.holdout))


def test_predictions(
    folder: RunFolder,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    *,
    progress: Callable[[float, str], None],
) -> Predictions:
    """What every row says of test: the one place where test images are looked at.

    Raises:
        RunError: no frozen selection.
    """
    rows = _rows(folder)
    names = names_of(rows.values())
    holdout_labels = images.labels[splits.holdout]
    on_holdout = holdout_log_probs(folder, names)
    on_test = predict_members(
        folder,
        names,
        images.images,
        splits.test,
        numerics,
        on_member=lambda done: progress(0.6 * done / len(names), f"member {done}/{len(names)}"),
    )
    stages = {
        stage: calibrated(row.pool(on_test), row.pool(on_holdout), holdout_labels)
        for stage, row in rows.items()
    }
    students = _students(folder, images, splits.test)
    return Predictions(labels=images.labels[splits.test], stages=stages | students)


def stage_facts(folder: RunFolder, images: ImageSet, splits: Splits) -> dict[str, StageFacts]:
    """Size, speed and cost of every row; what is timed are holdout's images."""
    rows = _rows(folder)
    some = images.images[splits.holdout[:TIMED_IMAGES]]
    members = member_facts(folder, names_of(rows.values()), some, classes=len(images.class_names))
    facts = {stage: pooled_facts(row, members) for stage, row in rows.items()}
    return facts | (student_facts(folder.student) if _taught(folder) else {})


def beats(model: Path, champion: Path, images: ImageSet, splits: Splits, *, seed: int) -> bool:
    """Whether one ONNX file has a lower NLL on this run's holdout than another, beyond doubt.

    False for a champion of other classes or another image size: it cannot be compared.
    """
    ours, theirs = OnnxClassifier(model), OnnxClassifier(champion)
    if (ours.input_size, ours.classes) != (theirs.input_size, theirs.classes):
        return False
    holdout, labels = images.images[splits.holdout], images.labels[splits.holdout]
    difference = paired_difference(
        nll_per_example(ours.log_probs(holdout), labels),
        nll_per_example(theirs.log_probs(holdout), labels),
        rng=numpy_generator(seed, "champion"),
    )
    return difference.value < 0 and difference.distinguishable


def write_ledger(
    folder: RunFolder,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    *,
    facts: Mapping[str, StageFacts],
    margins: GateMargins,
    test_reads: int,
    compute: Mapping[str, Any],
    seed: int,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Read test; write test_logprobs.npz, ledger.csv and, last, ledger.json, which is returned."""
    test = test_predictions(folder, images, splits, numerics, progress=progress)
    ledger = build_ledger(
        run=folder.name,
        dataset={
            "name": images.name,
            "fingerprint": images.fingerprint,
            "split_id": splits.split_id,
            "sizes": splits.sizes,
        },
        test=test,
        holdout=holdout_predictions(folder, images, splits),
        facts=facts,
        margins=margins,
        test_reads=test_reads,
        compute=compute,
        machine=machine_description(),
        speedup=read_card(folder.student).speedup if _taught(folder) else None,
        seed=seed,
    )
    write_arrays(folder.ledger / "test_logprobs.npz", _as_arrays(test))
    write_bytes_atomically(folder.ledger / "ledger.csv", to_csv(ledger["rows"]).encode())
    write_bytes_atomically(folder.ledger / "ledger.json", dump_json(ledger).encode())
    for name in ("ledger.json", "ledger.csv"):
        # People and scripts look for the ledger beside selection.json as well.
        link = folder.root / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(folder.ledger.name) / name)
    return ledger


def _as_arrays(predictions: Predictions) -> dict[str, npt.NDArray[np.generic]]:
    """`labels` int64 [N] and one float32 [N, K] array for each row, as test_logprobs.npz."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        stage: np.asarray(log_probs, dtype=np.float32)
        for stage, log_probs in predictions.stages.items()
    }
    return {"labels": np.asarray(predictions.labels, dtype=np.int64), **arrays}


def _rows(folder: RunFolder) -> dict[str, PooledRow]:
    """The rows of members; a single net that teaches nobody is not called an ensemble."""
    selection = read_json(folder.selection)
    rows = pooled_rows(selection)
    alone = selection["most_members"] == 1 and not _taught(folder)
    return {"best_single": rows["best_single"]} if alone else rows


def _students(
    folder: RunFolder, images: ImageSet, indices: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.float32]]:
    return student_log_probs(folder.student, images.images, indices) if _taught(folder) else {}


def _taught(folder: RunFolder) -> bool:
    """Whether the run has a student: not every run delivers one."""
    return (folder.student / "card.json").is_file()
