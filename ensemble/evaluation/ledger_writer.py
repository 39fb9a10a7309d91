"""Write a run's ledger: read test, compute rows, differences and gates, save them all."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.files import write_arrays
from common.provenance import machine_description
from ensemble.deployment.decision import Decision
from ensemble.deployment.release import read_release
from ensemble.evaluation.robustness import RobustnessOptions, coverage_rows, on_test
from ensemble.evaluation.stages import stage_costs, test_predictions
from ensemble.ledger.ledger import NOTHING, Ledger, LedgerDataset, write_ledger_files
from ensemble.ledger.predictions import Predictions, StageCost
from ensemble.ledger.robustness import CoverageRow, Robustness
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
    robustness: RobustnessOptions,
    **values: Any,
) -> Ledger:
    """Time every stage on this machine, then read test and write the ledger with `write_ledger`.

    `robustness.seconds` limits the whole call; the measurements of robustness come last and get the
    time that is left.
    """
    began = time.monotonic()
    costs = stage_costs(folder, images, splits)
    progress(0.3, "reading test")
    return write_ledger(
        folder,
        images,
        splits,
        predict_with,
        costs=costs,
        progress=progress,
        robustness=robustness,
        began=began,
        **values,
    )


def write_ledger(
    folder: RunFolder,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    *,
    costs: Mapping[str, StageCost],
    test_reads: int,
    compute: Mapping[str, int | float],
    seed: int,
    progress: Callable[[float, str], None],
    robustness: RobustnessOptions,
    began: float,
) -> Ledger:
    """Read test; write test_logprobs.npz, ledger.csv and, last, ledger.json; return the ledger.

    `seed` roots the bootstraps' draws; `began` is when the stage began, by `time.monotonic`.
    """
    test = test_predictions(folder, images, splits, numerics, progress=progress)
    release = read_release(folder.student)
    left = None if robustness.seconds is None else robustness.seconds - (time.monotonic() - began)
    corrupted = on_test(
        folder,
        test,
        images=images,
        splits=splits,
        predict_with=numerics,
        options=dataclasses.replace(robustness, seconds=left),
        holdout_images=0 if release is None else release.decision.corrupted_images,
        progress=lambda done, detail: progress(0.6 + 0.35 * done, detail),
    )
    ledger = build_ledger(
        run=folder.name,
        dataset=LedgerDataset(
            name=images.name,
            fingerprint=images.fingerprint,
            split_id=splits.split_id,
            sizes=splits.sizes,
        ),
        test=test,
        costs=costs,
        decision=None if release is None else release.decision,
        test_reads=test_reads,
        compute=compute,
        machine=machine_description(),
        robustness=corrupted,
        conformal=coverage_rows(folder, test, images=images, splits=splits, level=robustness.level),
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
    costs: Mapping[str, StageCost],
    decision: Decision | None,
    test_reads: int,
    compute: Mapping[str, int | float],
    machine: Mapping[str, Any],
    robustness: Robustness | None = None,
    conformal: tuple[CoverageRow, ...] = (),
    seed: int = 0,
) -> Ledger:
    """Compute the ledger: rows and differences on test, beside the release decided on holdout.

    `decision` is None for a run without a student, which releases nothing.
    `seed` roots the bootstraps' draws.

    Raises:
        PoolError: an unknown stage, or predictions that do not fit the labels.
    """
    release: dict[str, Any] = {"gates": (), "released": NOTHING}
    if decision is not None:
        release = {
            "gates": decision.gates,
            "released": decision.released,
            "released_because": decision.because,
            "candidates": decision.candidates,
            "decisions": decision.decisions,
        }
    return Ledger(
        run=run,
        dataset=dataset,
        rows=ledger_rows(test, costs, seed=seed),
        differences=paired_differences(test, seed=seed),
        test_reads=test_reads,
        compute=dict(compute),
        machine=dict(machine),
        robustness=robustness,
        conformal=conformal,
        **release,
    )


def _as_arrays(predictions: Predictions) -> dict[str, npt.NDArray[np.generic]]:
    """Return `labels` int64 [N] and one float32 [N, K] array per stage, for test_logprobs.npz."""
    arrays: dict[str, npt.NDArray[np.generic]] = {
        stage: np.asarray(log_probs, dtype=np.float32)
        for stage, log_probs in predictions.stages.items()
    }
    return {"labels": np.asarray(predictions.labels, dtype=np.int64), **arrays}
