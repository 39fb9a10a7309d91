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
        RunError: nothing was released, there is no student, or the decision is damaged.
    """
    place, because = folder, ""
    if (folder / FILE).is_file():  # early versions released the student itself, by its card
        place, because = _read_decision(folder)
    card = read_card(place)
    if card.shipped is None:
        raise RunError(
            f"{folder} has no released file: {because or card.released_because or 'undecided'}. To "
            f"use a file anyway, give its path, e.g. {place / card.fp32.file}"
        )
    return place / card.shipped.file, card


def _read_decision(folder: Path) -> tuple[Path, str]:
    """Return the folder of the network that was decided on, and the reason.

    Raises:
        RunError: the decision is damaged, or names a file outside of `folder`.
    """
    path = folder / FILE
    fix = "restore it from a copy, or give the path of the ONNX file itself"
    match read_json(path):
        case {"file": str(file), "decision": {"because": str(because)}}:
            if not file:
                return folder, because
            place = (folder / file).parent
            if Path(file).name not in ("", "..") and _is_inside(place, folder):
                return place, because
            raise RunError(f"{path} is damaged: file must lie in {folder}, got {file!r}; {fix}")
        case {"file": str(), "decision": decision}:
            wrong = f"decision must be an object with a text `because`, got {decision!r:.80}"
        case {"file": str()}:
            wrong = "the key decision is missing"
        case {"file": file}:
            wrong = f"file must be a path in the student's folder, got {file!r:.80}"
        case _:
            wrong = "the key file is missing"
    raise RunError(f"{path} is damaged: {wrong}; {fix}")


def _is_inside(place: Path, folder: Path) -> bool:
    try:
        return place.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a link to itself, a null byte, half a surrogate
        return False
