"""Write a run's ledger: read test, compute rows, differences and gates, save them all."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.files import write_arrays
from common.provenance import machine_description
from ensemble.deployment.card import Speedup, read_card
from ensemble.deployment.gates import GateMargins, decide_gates, released_precision
from ensemble.deployment.student_folder import has_student
from ensemble.evaluation.stages import holdout_predictions, stage_costs, test_predictions
from ensemble.ledger.ledger import Ledger, LedgerDataset, write_ledger_files
from ensemble.ledger.predictions import Predictions, StageCost
from ensemble.ledger.rows import ledger_rows, paired_differences
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics
from trainables.records import RunFolder


def measure_and_write_ledger(
    folder: RunFolder,
    *,
    images: ImageSet,
    splits: Splits,
    predict_with: Numerics,
    progress: Callable[[float, str], None],
    **values: Any,
) -> Ledger:
    """Time every stage on this machine, then read test and write the ledger as `write_ledger`."""
    costs = stage_costs(folder, images, splits)
    progress(0.3, "reading test")
    return write_ledger(
        folder, images, splits, predict_with, costs=costs, progress=progress, **values
    )


def write_ledger(
    folder: RunFolder,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    *,
    costs: Mapping[str, StageCost],
    margins: GateMargins,
    test_reads: int,
    compute: Mapping[str, int | float],
    seed: int,
    progress: Callable[[float, str], None],
) -> Ledger:
    """Read test; write test_logprobs.npz, ledger.csv and, last, ledger.json; return the ledger.

    `seed` roots the bootstraps' draws.
    """
    test = test_predictions(folder, images, splits, numerics, progress=progress)
    ledger = build_ledger(
        run=folder.name,
        dataset=LedgerDataset(
            name=images.name,
            fingerprint=images.fingerprint,
            split_id=splits.split_id,
            sizes=splits.sizes,
        ),
        test=test,
        holdout=holdout_predictions(folder, images, splits),
        costs=costs,
        margins=margins,
        test_reads=test_reads,
        compute=compute,
        machine=machine_description(),
        speedup=read_card(folder.student).speedup if has_student(folder.student) else None,
        seed=seed,
    )
    write_arrays(folder.ledger / "test_logprobs.npz", _as_arrays(test))
    write_ledger_files(folder.ledger, ledger)
    return ledger


def link_ledger(folder: RunFolder) -> None:
    """Link the ledger's files into the run's folder, beside selection.json, where people look."""
    for name in ("ledger.json", "ledger.csv"):
        link = folder.root / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(folder.ledger.name) / name)


def build_ledger(
    *,
    run: str,
    dataset: LedgerDataset,
    test: Predictions,
    holdout: Predictions,
    costs: Mapping[str, StageCost],
    margins: GateMargins,
    test_reads: int,
    compute: Mapping[str, int | float],
    machine: Mapping[str, Any],
    speedup: Speedup | None = None,
    seed: int = 0,
) -> Ledger:
    """Compute the ledger: rows and differences on test, gates and release on holdout.

    `seed` roots the bootstraps' draws.

    Raises:
        PoolError: an unknown stage, or predictions that do not fit the labels.
    """
    gates = decide_gates(holdout, costs, margins, speedup=speedup, seed=seed)
    return Ledger(
        run=run,
        dataset=dataset,
        rows=ledger_rows(test, costs, seed=seed),
        differences=paired_differences(test, seed=seed),
        gates=gates,
        released=released_precision(gates),
        test_reads=test_reads,
        compute=dict(compute),
        machine=dict(machine),
    )


def _as_arrays(predictions: Predictions) -> dict[str, npt.NDArray[np.generic]]:
    """Return `labels` int64 [N] and one float32 [N, K] array a stage, as test_logprobs.npz."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        stage: np.asarray(log_probs, dtype=np.float32)
        for stage, log_probs in predictions.stages.items()
    }
    return {"labels": np.asarray(predictions.labels, dtype=np.int64), **arrays}
