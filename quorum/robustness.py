"""Measure a run's networks on corrupted images, on the machine that measures their costs.

Functions import what they need, because a run that only selects must not load torch.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from common.formats import one_line
from common.seeds import derive_seed
from quorum.workspace.run import Run

if TYPE_CHECKING:
    from ensemble.evaluation.robustness import RobustnessOptions
    from ensemble.ledger.predictions import Predictions

log = logging.getLogger(__name__)


def corrupted_holdout(
    run: Run, *, reads: Sequence[str], progress: Callable[[float, str], None]
) -> "Predictions | None":
    """Return the predictions for corrupted holdout images; None without time for them.

    `reads` are the files and folders of the run that they are made from.
    """
    from ensemble.evaluation.robustness import on_holdout

    result: Predictions | None = run.site.run_stage(
        on_holdout,
        run.folder,
        images=run.images,
        splits=run.splits,
        numerics=run.numerics,
        reads=reads,
        writes=[],
        progress=progress,
        predict_with=dataclasses.replace(run.numerics, threads=run.cores),
        options=robustness_options(run, "distill"),
    )
    return result


def robustness_options(run: Run, stage: str) -> "RobustnessOptions":
    """Return what to measure in a stage, and the time until the stage must end."""
    from ensemble.evaluation.robustness import RobustnessOptions

    spec = run.spec.robustness
    other_data = _other_data(run) if stage == "ledger" else {}  # reading them takes time, too
    end = run.end_of(stage) or run.deadline
    return RobustnessOptions(
        enabled=spec.enabled,
        images=spec.images,
        seconds=None if end is None else end - time.time(),
        seed=derive_seed(run.spec.seed, "robustness"),
        level=spec.coverage,
        other_data=other_data,
    )


def _other_data(run: Run) -> dict[str, Any]:
    """Read the images of `robustness.ood`; a folder that has since disappeared is only logged."""
    from ensemble.robustness.other_data import folder_images

    spec = run.spec.robustness
    if spec.ood is None or not spec.enabled:
        return {}
    folder, side = Path(spec.ood), run.images.image_size
    try:
        # The slash distinguishes the folder from a built-in set of the same name.
        name = f"{one_line(folder.name)}/"
        return {name: folder_images(folder, spec.images, side=side, like=run.images)}
    except DataError as error:
        log.warning("%s; the ledger is written without it", error)
        return {}
