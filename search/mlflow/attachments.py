"""The files of a run that are copied to MLflow.

A trial's recipe and curve are written from its events, so they do not need its folder; the rest
is copied from the run's folder. No file shows images of the data set, except the report of a
sweep that allows pictures.
"""

import shutil
from pathlib import Path

import yaml

from journal.events import EPOCH_FIELDS
from search.mlflow.runs import SWEEP, RunChange
from trainables.records import RunFolder

MOST_BYTES = 16 * 2**20
"""Largest file that is copied."""


def write_attachments(folder: RunFolder, change: RunChange, place: Path) -> None:
    """Write the files of a run that has ended into the empty folder `place`."""
    if change.recipe is not None:
        recipe = yaml.safe_dump({"recipe": dict(change.recipe)}, allow_unicode=True)
        (place / "recipe.yaml").write_text(recipe)
    if change.curve:
        (place / "curve.csv").write_text("\n".join([",".join(EPOCH_FIELDS), *change.curve]) + "\n")
    for source, name in _copies(folder, change).items():
        if source.is_file() and source.stat().st_size <= MOST_BYTES:
            target = place / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)


def _copies(folder: RunFolder, change: RunChange) -> dict[Path, str]:
    """Return the name in MLflow of each file to copy, if it exists."""
    if change.key == SWEEP:
        return {
            folder.sweep: "sweep.yaml",
            folder.selection: "selection.json",
            folder.ledger / "ledger.json": "ledger.json",
            folder.ledger / "ledger.csv": "ledger.csv",
            folder.report: "report.pdf",
            folder.costs: "costs.json",
            folder.figures / "front.png": "figures/front.png",
        }
    if change.recipe is None:
        return {}
    trial = folder.trial(change.key)
    copies = {trial / "record.json": "record.json"}
    if change.tags.get("quorum.status") == "completed":  # others predict after too few epochs
        copies |= {
            trial / f"{split}.npy": f"predictions/{split}.npy" for split in ("val", "holdout")
        }
    return copies
