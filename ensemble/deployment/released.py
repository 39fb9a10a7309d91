"""Find the released file of a student's folder.

This module loads neither scipy nor torch, so that `quorum predict` starts quickly.
"""

from pathlib import Path

from common.errors import RunError
from common.files import read_json
from ensemble.deployment.card import Card, read_card

FILE = "release.json"
"""The decision, in the student's folder; `ensemble.deployment.release` describes it."""


def released_model(folder: Path) -> tuple[Path, Card]:
    """Return the released ONNX file of a student's folder, and its card.

    Raises:
        RunError: nothing was released, or there is no student.
    """
    place, because = folder, ""
    decision = folder / FILE
    if decision.is_file():  # early versions released the student itself, by its card
        release = read_json(decision)
        place = (folder / release["file"]).parent if release["file"] else folder
        because = str(release["decision"]["because"])
    card = read_card(place)
    if card.shipped is None:
        raise RunError(
            f"{folder} has no released file: {because or card.released_because or 'undecided'}. To "
            f"use a file anyway, give its path, e.g. {place / card.fp32.file}"
        )
    return place / card.shipped.file, card
