"""The files of a run that are worth a copy in MLflow.

A trial's recipe and curve are made from its events, so they are there when its folder is not;
the rest is copied from the run's folder. Nothing of it is a picture of the data set, except
what the report shows where the sweep allows pictures.
"""

import shutil
from pathlib import Path

import yaml

from journal.states import EPOCH_FIELDS
from search.mlflow.changes import SWEEP, RunChange
from trainables.records import RunFolder

MOST_BYTES = 16 * 2**20
"""A larger file stays in the run's folder alone."""


def write_attachments(folder: RunFolder, change: RunChange, place: Path) -> None:
    """Write the files that belong to a run that is over into the empty folder `place`."""
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
    """Of each file that may be there, its name in MLflow."""
    if change.key == SWEEP:
        return {
            folder.sweep: "sweep.yaml",
            folder.selection: "selection.json",
            folder.ledger / "ledger.json": "ledger.json",
            folder.ledger / "ledger.csv": "ledger.csv",
            folder.report: "report.pdf",
        }
    if change.recipe is None:
        return {}
    trial = folder.trial(change.key)
    copies = {trial / "record.json": "record.json"}
    if change.tags.get("quorum.status") == "completed":  # the pool: others predict too early
        copies |= {
            trial / f"{split}.npy": f"predictions/{split}.npy" for split in ("val", "holdout")
        }
    return copies
