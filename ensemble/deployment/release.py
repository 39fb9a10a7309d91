"""Record which of a student folder's files ships, and whether it beats the current champion.

`student/release.json` holds the decision. Axes: N examples, K classes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.files import dump_json, file_sha256, read_versioned, write_bytes_atomically
from common.parsing import to_mapping
from common.seeds import numpy_generator
from common.statistics.conformal import fit_conformal
from common.statistics.intervals import draws_at, paired_difference
from common.statistics.metrics import nll_per_example
from ensemble.deployment.card import UNRELEASED, Artifact, Card, read_card, write_card
from ensemble.deployment.decision import Decision, decide
from ensemble.deployment.describe import write_metadata
from ensemble.deployment.gates import GateMargins, level_of
from ensemble.deployment.metadata import ConformalThreshold
from ensemble.deployment.onnx_model import OnnxClassifier
from ensemble.deployment.released import FILE
from ensemble.deployment.student_folder import network_folders, student_costs
from ensemble.ledger.ledger import NOTHING
from ensemble.ledger.predictions import FILES, Predictions
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The decision about the files of a student's folder, as release.json holds it."""

    schema: int = SCHEMA
    file: str
    """Path of the released file in the student's folder; empty if nothing is released."""
    decision: Decision

    @property
    def released(self) -> str:
        """The row of the released file, or `none`."""
        return self.decision.released


def decide_release(
    folder: Path,
    holdout: Predictions,
    margins: GateMargins,
    *,
    corrupted: Predictions | None = None,
    coverage: float = 0.95,
    decisions: int = 1,
    seed: int,
) -> Release:
    """Decide on holdout which file of a student's folder ships; record it there and in the cards.

    `holdout` holds the predictions of the ledger's stages, and `corrupted` those for corrupted
    images of holdout, if there was time for them. Files and cards also get the thresholds of
    prediction sets that hold the true class with the probability `coverage`. `decisions` counts the
    releases that the run has decided on holdout, including this one. `seed` roots the bootstrap's
    draws.
    """
    folders = network_folders(folder)
    cards = {
        network: _with_sets(place, network, holdout, level=coverage)
        for network, place in folders.items()
    }
    speedups = {network: card.speedup for network, card in cards.items() if card.speedup}
    decision = decide(
        holdout,
        student_costs(folder),
        margins,
        speedups=speedups,
        corrupted=corrupted,
        decisions=decisions,
        seed=seed,
    )
    ships = FILES.get(decision.released)
    file = ""
    for network, card in cards.items():
        precision = ships[1] if ships is not None and ships[0] == network else UNRELEASED
        judged = replace(card, released=precision, released_because=_because(decision, network))
        write_card(folders[network], judged)
        if judged.shipped is not None:
            file = (folders[network] / judged.shipped.file).relative_to(folder).as_posix()
    release = Release(file=file, decision=decision)
    write_bytes_atomically(folder / FILE, dump_json(to_mapping(release)).encode())
    return release


def read_release(folder: Path) -> Release | None:
    """Read a student folder's decision; None before it, and for folders of early versions.

    Raises:
        RunError: the file is damaged or of another schema.
    """
    path = folder / FILE
    return read_versioned(Release, path, schema=SCHEMA) if path.is_file() else None


def beats_champion(
    model: Path,
    champion: Path,
    images: ImageSet,
    splits: Splits,
    *,
    decisions: int = 1,
    seed: int,
) -> bool:
    """Return whether `model` has a distinguishably lower NLL than `champion` on holdout.

    Both are ONNX files. Return False if the champion has other classes or another image size,
    since the two cannot be compared. The interval is at the level of the last of `decisions` on
    this holdout (`gates.level_of`). `seed` roots the bootstrap's draws.
    """
    level = level_of(decisions)
    ours, theirs = OnnxClassifier(model), OnnxClassifier(champion)
    if (ours.input_size, ours.classes) != (theirs.input_size, theirs.classes):
        return False
    holdout, labels = images.images[splits.holdout], images.labels[splits.holdout]
    difference = paired_difference(
        nll_per_example(ours.log_probs(holdout), labels),
        nll_per_example(theirs.log_probs(holdout), labels),
        rng=numpy_generator(seed, "champion"),
        level=level,
        draws=draws_at(level),
    )
    return difference.value < 0 and difference.distinguishable


def _with_sets(folder: Path, network: str, holdout: Predictions, *, level: float) -> Card:
    """Write the thresholds of prediction sets into a network's files and card; return the card."""
    card = read_card(folder)

    def fitted(artifact: Artifact | None, precision: str) -> Artifact | None:
        stage = next(name for name, kind in FILES.items() if kind == (network, precision))
        if artifact is None or stage not in holdout.stages:
            return artifact
        probabilities = np.exp(holdout.stages[stage])
        conformal = fit_conformal(probabilities, holdout.labels, level=level)
        artifact = replace(artifact, conformal=conformal)
        path = folder / artifact.file
        if not path.is_file():
            return artifact
        rule = ConformalThreshold(coverage=level, min_probability=conformal.threshold)
        write_metadata(path, replace(card.metadata, conformal=rule))
        return replace(artifact, bytes=path.stat().st_size, sha256=file_sha256(path))

    fp32 = fitted(card.fp32, "fp32") or card.fp32
    card = replace(card, fp32=fp32, int8=fitted(card.int8, "int8"))
    write_card(folder, card)
    return card


def _because(decision: Decision, network: str) -> str:
    """Return the reason for a network's card: the release's, or those of its two files."""
    ships = FILES.get(decision.released)
    if decision.released == NOTHING or (ships is not None and ships[0] == network):
        return decision.because
    outcomes = (
        f"{candidate.stage}: {candidate.outcome}"
        for candidate in decision.candidates
        if FILES[candidate.stage][0] == network
    )
    return f"{decision.released} ships; " + ", ".join(outcomes)
