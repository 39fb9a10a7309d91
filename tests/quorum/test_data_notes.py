"""A user reads every loss and change of a data set: in the plan, log, journal and report."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.facts.run_facts import load_facts, with_data
from journal.events import RunStarted
from journal.journal import read_events
from quorum.cli.printing import print_plan
from search.space.spec import SweepSpec
from search.space.sweep_files import spec_from_mapping
from search.timetable.preview import preview
from tests.analysis.report.reading import composed, pairs
from tests.events import of_type
from tests.opening import plan_hastily, quick_run
from tests.tiny import TINY
from tests.trainables.data.samples import png
from trainables.data.dataset import load_dataset
from trainables.data.splits import make_splits, notes_on
from trainables.records import RunFolder

NAMED = (
    "Training",
    "Testing",
    "extra/",
    "loose.png",
    "broken.png",
    ".txt",
    "copy.png",
    "rare",
)
"""Names of the lost, merged and renamed things, each of which a note must show."""


@dataclass(frozen=True)
class Started:
    """A run that has started on a folder with losses of many kinds."""

    spec: SweepSpec
    folder: RunFolder
    log: str
    notes: tuple[str, ...]
    """Those made where the data are read; other tests check them."""


def write_losses(root: Path) -> None:
    """Write splits under other names, merged classes, and files that are left out."""
    seed = 0
    for split, each in (("Training", 60), ("Testing", 20)):
        for name in ("cat", "sea lion", "sea\tlion"):
            (root / split / name).mkdir(parents=True)
            for number in range(each):
                (root / split / name / f"{number}.png").write_bytes(png(seed := seed + 1))
    (root / "Training" / "rare").mkdir()
    (root / "Training" / "rare" / "only.png").write_bytes(png(9001))
    (root / "extra").mkdir()
    (root / "extra" / "1.png").write_bytes(png(9002))
    (root / "Training" / "loose.png").write_bytes(png(9003))
    (root / "Training" / "cat" / "broken.png").write_bytes(png(9004)[:60])
    (root / "Training" / "cat" / "notes.txt").write_text("shot in May")
    shutil.copy(root / "Training/cat/0.png", root / "Training/sea lion/copy.png")
    shutil.copy(root / "Training/cat/1.png", root / "Testing/cat/leak.png")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Started:
    """Start a run on such a folder, and record what it logs."""
    root = tmp_path_factory.mktemp("losses")
    write_losses(root / "set")
    dataset = {"name": "imagefolder", "path": str(root / "set"), "image_size": 8,
               "skip_unreadable": True}  # fmt: skip
    spec = spec_from_mapping({**TINY, "dataset": dataset, "splits": {}})
    images = load_dataset(spec.dataset)
    notes = notes_on(images, make_splits(images, spec.splits))
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        with quick_run(root / "run", spec):
            pass
    finally:
        logging.getLogger().removeHandler(handler)
    return Started(spec=spec, folder=RunFolder(root / "run"), log="\n".join(lines), notes=notes)


def assert_read(notes: tuple[str, ...], output: str) -> None:
    """Assert that an output, which may wrap its lines, holds the notes and the names."""
    shown = "".join(output.split())
    assert len(notes) >= len(NAMED) - 1
    assert [note for note in notes if "".join(note.split()) not in shown] == []
    assert [name for name in NAMED if name not in shown] == []


def test_the_plan_shows_them(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    """It is what `quorum plan` and a dry run print."""
    print_plan(preview(started.spec, planner=plan_hastily))
    assert_read(started.notes, capsys.readouterr().out)


def test_the_log_of_the_start_shows_them(started: Started) -> None:
    assert_read(started.notes, started.log)


def test_the_journal_keeps_them(started: Started) -> None:
    (event,) = of_type(read_events(started.folder.journal), RunStarted)
    assert event.notes == started.notes
    assert event.skipped == 1


@pytest.mark.parametrize("at_hand", [True, False], ids=["images", "images gone"])
def test_the_report_shows_them(at_hand: bool, started: Started) -> None:
    """Also later, when the images are gone."""
    facts = load_facts(started.folder)
    if at_hand:
        facts, images = with_data(facts, load_dataset(started.spec.dataset))
        assert images is not None
    assert_read(started.notes, pairs(composed(facts))["notes"])
