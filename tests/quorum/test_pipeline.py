"""The order of the stages: frozen selection, counted reads of test, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.facts.run_facts import load_facts
from analysis.report.summary import summary
from analysis.terminal.views import outcome_view
from common.errors import RunError
from journal.journal import read_events
from quorum import pipeline
from quorum import stages as pipeline_stages
from quorum.workspace import run as run_module
from quorum.workspace.cleaning import clean
from search.space.spec import TargetSpec
from tests.tiny import tiny_spec
from trainables.data.dataset import DatasetSpec
from trainables.data.image_set import ImageSet
from trainables.records import RunFolder

pytestmark = pytest.mark.usefixtures("hasty", "unmirrored")


def some_images(shift: int = 0) -> ImageSet:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (1797, 16, 16, 3), dtype=np.uint8) + np.uint8(shift)
    labels = np.arange(1797, dtype=np.int64) % 10
    names = tuple("0123456789")
    return ImageSet(name="digits", images=images, labels=labels, class_names=names)


def test_a_run_of_another_split_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "load_dataset", lambda spec, **_: some_images())
    with run_module.Run(tmp_path / "run", tiny_spec()):
        pass
    monkeypatch.setattr(run_module, "load_dataset", lambda spec, **_: some_images(shift=1))
    with (
        pytest.raises(RunError, match=r"is of split \w+, the data now give \w+"),
        run_module.Run(tmp_path / "run", tiny_spec(), resume=True),
    ):
        pass


def test_a_run_with_another_specification_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "load_dataset", lambda spec, **_: some_images())
    with run_module.Run(tmp_path / "run", tiny_spec()):
        pass
    other = tiny_spec().with_values(seed=1)
    for resume, message in ((False, "holds a run"), (True, "another specification")):
        with (
            pytest.raises(RunError, match=message),
            run_module.Run(tmp_path / "run", other, resume=resume),
        ):
            pass


def test_a_run_at_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "load_dataset", lambda spec, **_: some_images())
    second = run_module.Run(tmp_path / "run", tiny_spec(), resume=True)
    with (
        run_module.Run(tmp_path / "run", tiny_spec()),
        pytest.raises(RunError, match=r"journal"),
        second,
    ):
        pass


def test_data_that_cannot_be_used_leave_no_folder(tmp_path: Path) -> None:
    spec = tiny_spec().with_values(dataset=DatasetSpec(name="imagefolder", path=str(tmp_path)))
    with (
        pytest.raises(Exception, match=str(tmp_path)),
        run_module.Run(tmp_path / "run", spec),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_an_observer_that_fails_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "load_dataset", lambda spec, **_: some_images())

    def broken(event: object) -> None:
        raise OSError("the screen is gone")

    with run_module.Run(tmp_path / "run", tiny_spec(), observers=[broken]) as run:
        run.emit({"event": "test_read"})
        assert run.count("test_read") == 1


@pytest.mark.slow
def test_a_frozen_selection_is_not_replaced(finished_run: pipeline.Outcome, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(finished_run.folder.root, folder.root)
    before = folder.selection.read_bytes()
    pipeline.select_run(folder)
    assert folder.selection.read_bytes() == before
    with pytest.raises(RunError, match=r"is frozen.*--out"):
        pipeline.select_run(folder, members=1)
    pipeline.select_run(folder, members=1, out=tmp_path / "elsewhere")
    assert len(json.loads((tmp_path / "elsewhere/selection.json").read_text())["members"]) == 1
    assert folder.selection.read_bytes() == before


@pytest.mark.slow
def test_another_student_reads_test_again_and_says_so(
    finished_run: pipeline.Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And needs nothing of what `quorum clean` removes."""
    # Registry and report have tests of their own.
    monkeypatch.setattr(pipeline_stages, "register", lambda run: None)
    monkeypatch.setattr(pipeline, "_report", lambda run: None)
    folder = RunFolder(tmp_path / "tiny")
    shutil.copytree(finished_run.folder.root, folder.root)
    clean(folder, everything=True)
    outcome = pipeline.distill(folder)
    assert outcome.ledger["test_reads"] == 2
    assert (folder.root / "student.1" / "card.json").is_file()
    assert (folder.root / "selection.json").read_bytes() == (
        finished_run.folder.selection.read_bytes()
    )
    skipped = [e["stage"] for e in read_events(folder.journal) if e.get("status") == "skipped"]
    assert skipped == ["select"]


@pytest.mark.parametrize(("deliver", "rows"), [("single", 1), ("ensemble", 3)])
def test_a_run_may_deliver_less_than_a_student(
    finished_run: pipeline.Outcome, tmp_path: Path, deliver: str, rows: int
) -> None:
    folder = RunFolder(tmp_path / "run")
    made = shutil.ignore_patterns("student", "ledger*", "selection.json", "report.pdf", "mlflow*")
    shutil.copytree(finished_run.folder.root, folder.root, ignore=made)
    target = TargetSpec(row="best_single", accuracy=0.01)
    spec = tiny_spec().with_values(deliver=deliver, target=target)
    folder.sweep.write_text(spec.to_yaml())
    with run_module.Run(folder, spec, resume=True) as this:
        for stage in (pipeline_stages.select, pipeline_stages.distill, pipeline_stages.ledger):
            stage(this)
        pipeline_stages.register(this)
    ledger = json.loads((folder.ledger / "ledger.json").read_text())
    stages = [row["stage"] for row in ledger["rows"]]
    assert stages[0] == "best_single"
    assert len(stages) >= rows
    assert not any(stage.startswith("student") for stage in stages)
    assert len(json.loads(folder.selection.read_text())["members"]) <= spec.most_members
    skipped = [e for e in read_events(folder.journal) if e.get("status") == "skipped"]
    assert [(e["stage"], e["detail"]) for e in skipped] == [
        ("distill", f"the run delivers: {deliver}")
    ]
    assert not folder.student.exists()
    told = summary(load_facts(folder))
    assert "weights.safetensors" in told[0]
    assert "The sweep asks for 1% on test, which was reached." in told
    outcome_view(ledger, folder, "sqlite:///mlflow.db")
