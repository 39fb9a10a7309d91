"""The splits that trained weights have seen, written into every file of weights.

Weights that were trained on another division of the same data set have seen images that are now in
val, holdout or test. Starting from them would make every score too good.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import SpecError
from trainables.hyperparameters import HUB, PACKAGE, Architecture

LONGEST_HEADER = 100_000_000
"""Largest header in bytes that safetensors itself accepts."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSplit:
    """A data set and the division of it whose train split was used for training."""

    fingerprint: str
    split_id: str


def lineage_metadata(seen: tuple[SeenSplit, ...]) -> dict[str, str]:
    """Return the metadata of a file of weights; the last split is that of the last training."""
    if not seen:
        return {}
    last = seen[-1]
    lines = [asdict(split) for split in seen]
    return {"fingerprint": last.fingerprint, "split_id": last.split_id, "seen": json.dumps(lines)}


def lineage_of(architecture: Architecture) -> tuple[SeenSplit, ...]:
    """Return the splits that a recipe's initial weights have seen, as far as their file says."""
    if architecture.pretrained in ("", HUB, PACKAGE):
        return ()
    path = Path(architecture.pretrained).expanduser()
    metadata = _metadata(path)
    if "shape" in metadata and "seen" not in metadata:
        log.warning(
            "the weights in %s were saved by an earlier version, which did not record their split: "
            "if they saw this data set, its test images may be among those they were trained on",
            path,
        )
    try:
        return tuple(SeenSplit(**split) for split in json.loads(metadata.get("seen", "[]")))
    except (TypeError, ValueError):
        raise SpecError(f"pretrained: {path} has no readable list of seen splits") from None


def require_unseen(architecture: Architecture, present: SeenSplit) -> None:
    """Refuse initial weights that were trained on another division of the same data set.

    Raises:
        SpecError: the message names the file and both divisions.
    """
    for seen in lineage_of(architecture):
        if seen.fingerprint == present.fingerprint and seen.split_id != present.split_id:
            raise SpecError(
                f"pretrained: {architecture.pretrained} was trained on split {seen.split_id} of "
                f"these images, which are now divided as {present.split_id}, so it has seen images "
                "of val, holdout or test; use the same splits, or other weights"
            )


def _metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file; empty for files in other formats."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < LONGEST_HEADER else {}
    except (OSError, ValueError):
        return {}  # reading the weights reports it
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return metadata if isinstance(metadata, dict) else {}
