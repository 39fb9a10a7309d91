"""Read a student's folder: predict with its files, and look up what they cost.

Axes: N examples, K classes. `student/` holds model.onnx, model.int8.onnx and card.json;
`student/plain/` holds the same net, trained for as many steps without a teacher.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ensemble.deployment.card import Artifact, Card, read_card
from ensemble.deployment.onnx_model import Images, LogProbs, predict
from ensemble.ledger.predictions import StageCost


def has_student(folder: Path) -> bool:
    """Return whether a student has been exported to the folder."""
    return (folder / "card.json").is_file()


def student_log_probs(
    folder: Path, images: Images, indices: npt.NDArray[np.int64]
) -> dict[str, LogProbs]:
    """Return log-probabilities [N, K] by the ledger's stage, one for each file of the folder."""
    chosen = images[indices]
    return {
        stage: predict(path / artifact.file, chosen) for stage, path, _, artifact in _stages(folder)
    }


def student_costs(folder: Path) -> dict[str, StageCost]:
    """Return size, speed and training time by the ledger's stage, from the folder's cards."""
    return {stage: _cost(card, artifact) for stage, _, card, artifact in _stages(folder)}


def _stages(folder: Path) -> Iterator[tuple[str, Path, Card, Artifact]]:
    """Yield (stage, folder, card, file) for each file of the student."""
    card, plain = read_card(folder), read_card(folder / "plain")
    yield "student_plain", folder / "plain", plain, plain.fp32
    yield "student_fp32", folder, card, card.fp32
    if card.int8 is not None:
        yield "student_int8", folder, card, card.int8


def _cost(card: Card, artifact: Artifact) -> StageCost:
    times = artifact.latency
    return StageCost(
        params=card.params,
        bytes=artifact.bytes,
        latency_ms_batch1=times.ms_batch1 if times else None,
        images_per_second=times.images_per_second if times else None,
        train_seconds=card.train_seconds,
    )
