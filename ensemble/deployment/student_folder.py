"""Read a student's folder: predict with its files, and look up what they cost.

Axes: N examples, K classes. `student/` holds model.onnx, model.int8.onnx and card.json. Two
subfolders hold the same files for other networks: `plain/` for the student's twin, trained for as
many steps without a teacher, and `single/` for the best single trial.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.statistics.conformal import ConformalSet
from ensemble.deployment.card import Artifact, Card, read_card
from ensemble.deployment.onnx_model import Images, LogProbs, predict
from ensemble.ledger.predictions import FILES, Network, StageCost

FOLDERS: Mapping[Network, str] = {
    "student": "",
    "student_plain": "plain",
    "best_single": "single",
}
"""Folder of each network, within the student's."""


def has_student(folder: Path) -> bool:
    """Return whether a student has been exported to the folder."""
    return (folder / "card.json").is_file()


def network_folders(folder: Path) -> dict[Network, Path]:
    """Return the folders of the networks that have been exported."""
    places = {network: folder / name for network, name in FOLDERS.items()}
    return {network: place for network, place in places.items() if has_student(place)}


def student_log_probs(
    folder: Path, images: Images, indices: npt.NDArray[np.int64]
) -> dict[str, LogProbs]:
    """Return log-probabilities [N, K] by the ledger's stage, one for each file of the folder.

    The best single trial's fp32 file is left out: that stage's predictions are the trial's.
    """
    chosen = images[indices]
    return {
        stage: predict(place / artifact.file, chosen)
        for stage, place, _, artifact in _files(folder)
        if stage != "best_single"
    }


def student_costs(folder: Path) -> dict[str, StageCost]:
    """Return size, speed and training time by the ledger's stage, from the folder's cards."""
    return {stage: _cost(card, artifact) for stage, _, card, artifact in _files(folder)}


def conformal_sets(folder: Path) -> dict[str, ConformalSet]:
    """Return the prediction sets' thresholds by the ledger's stage; none in early versions."""
    files = _files(folder) if has_student(folder) else ()
    return {stage: item.conformal for stage, _, _, item in files if item.conformal is not None}


def _files(folder: Path) -> Iterator[tuple[str, Path, Card, Artifact]]:
    """Yield (stage, folder, card, file) for each file of the folder."""
    folders = network_folders(folder)
    cards = {network: read_card(place) for network, place in folders.items()}
    for stage, (network, precision) in FILES.items():
        if network not in cards:
            continue
        card = cards[network]
        artifact = card.int8 if precision == "int8" else card.fp32
        if artifact is not None:
            yield stage, folders[network], card, artifact


def _cost(card: Card, artifact: Artifact) -> StageCost:
    times = artifact.latency
    return StageCost(
        params=card.params,
        bytes=artifact.bytes,
        latency_ms_batch1=times.ms_batch1 if times else None,
        images_per_second=times.images_per_second if times else None,
        train_seconds=card.train_seconds,
        gflops=card.gflops,
    )
