"""Decide which of a student's files ships, and whether it beats the present champion.

Axes: N examples, K classes.
"""

from dataclasses import replace
from pathlib import Path

from common.seeds import numpy_generator
from common.statistics.intervals import paired_difference
from common.statistics.metrics import nll_per_example
from ensemble.deployment.card import Card, read_card, write_card
from ensemble.deployment.gates import GateMargins, decide_gates, released_precision
from ensemble.deployment.onnx_model import OnnxClassifier
from ensemble.deployment.student_folder import student_costs
from ensemble.ledger.predictions import Predictions
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits


def decide_release(folder: Path, holdout: Predictions, margins: GateMargins, *, seed: int) -> Card:
    """Decide the gates of the int8 file on holdout, and record in the card which file ships.

    `folder` is the student's. `holdout` must hold `ensemble`, `student_fp32` and
    `student_int8`. `seed` roots the bootstrap's draws.
    """
    card = read_card(folder)
    gates = decide_gates(holdout, student_costs(folder), margins, speedup=card.speedup, seed=seed)
    reasons = [f"{gate.name} {gate.verdict}" for gate in gates if gate.verdict != "pass"]
    card = replace(
        card,
        released=released_precision(gates),
        released_because=", ".join(reasons) or "every gate passed",
    )
    write_card(folder, card)
    return card


def beats_champion(
    model: Path, champion: Path, images: ImageSet, splits: Splits, *, seed: int
) -> bool:
    """Return whether `model` has a distinguishably lower NLL than `champion` on holdout.

    Both are ONNX files. Return False if the champion has other classes or another image size,
    since the two cannot be compared. `seed` roots the bootstrap's draws.
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
