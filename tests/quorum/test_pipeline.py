"""The order of the stages, the frozen selection, counted reads of test, and refused runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.facts.run_facts import load_facts
from analysis.report.evidence import evidence_of
from analysis.report.summary import summary
from analysis.terminal.outcome_view import outcome_view
from common.errors import RunError
from ensemble.deployment.card import read_card
from ensemble.deployment.release import read_release
from ensemble.selection.selection import read_selection
from journal.events import ObserverFailed, StageReported, TestRead, TrialEnded, TrialStarted
from journal.journal import read_events
from quorum import Outcome, pipeline, stages, student_stage
from quorum.options import RunOptions
from quorum.selection import select_run
from quorum.trial_stages import require_success
from quorum.workspace.cleaning import clean
from search.space.sections import TargetSpec
from search.space.sweep_files import spec_of_run
from search.tune.sweep import SweepOutcome
from tests.events import of_type
from tests.opening import quick_run
from tests.tiny import tiny_spec
from trainables.data.dataset import DatasetSpec
from trainables.records import RunFolder


def skipped_stages(folder: RunFolder) -> list[str]:
    events = of_type(read_events(folder.journal), StageReported)
    return [event.stage for event in events if event.status == "skipped"]


@pytest.mark.parametrize("pruned", [0, 1])
def test_a_sweep_without_success_ends_with_the_reason(pruned: int, tmp_path: Path) -> None:
    counts = {"completed": 0, "pruned": pruned, "failed": 1, "unfinished": 0, "seconds": 1.0}
    outcome = SweepOutcome(kind="search", reason="finished", **counts)  # type: ignore[arg-type]
    with quick_run(tmp_path / "run", tiny_spec()) as run:
        recipe = run.spec.base_recipe().to_mapping()
        run.emit(
            TrialStarted(trial="t0000", number=0, kind="search", recipe=recipe, seed=0, attempt=1)
        )
        run.emit(
            TrialEnded(
                trial="t0000", kind="search", status="failed", reason="the loss became nan",
                seconds=1.0, steps=0, rung=None, whole_schedule=False,
            )
        )  # fmt: skip
        if pruned:
            require_success(run, outcome)
            return
        with pytest.raises(
            RunError, match=r"the only trial of .* failed; .*t0000. is: the loss became nan"
        ):
            require_success(run, outcome)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_another_run_is_refused(resume: bool, tmp_path: Path) -> None:
    with quick_run(tmp_path / "run", tiny_spec()):
        pass
    other = tiny_spec().with_values(seed=1)
    with (
        pytest.raises(RunError, match="another folder"),
        quick_run(tmp_path / "run", other, resume=resume),
    ):
        pass


def test_a_run_in_use_by_another_process_is_refused(
    tmp_path: Path,
) -> None:
    second = quick_run(tmp_path / "run", tiny_spec(), resume=True)
    with quick_run(tmp_path / "run", tiny_spec()), pytest.raises(RunError, match="journal"), second:
        pass


def test_unusable_data_leave_no_folder(tmp_path: Path) -> None:
    spec = tiny_spec().with_values(dataset=DatasetSpec(name="imagefolder", path=str(tmp_path)))
    with pytest.raises(Exception, match=str(tmp_path)), quick_run(tmp_path / "run", spec):
        pass
    assert not (tmp_path / "run").exists()


def test_a_failing_observer_does_not_stop_the_run(tmp_path: Path) -> None:

    def broken(event: object) -> None:
        raise OSError("the screen is gone")

    with quick_run(tmp_path / "run", tiny_spec(), observers=[broken]) as run:
        run.emit(TestRead())
        assert run.state.test_reads == 1
    failures = of_type(read_events(tmp_path / "run" / "journal.jsonl"), ObserverFailed)
    assert len(failures) == 1


@pytest.mark.slow
def test_a_frozen_selection_is_not_replaced(finished_run: Outcome, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(finished_run.folder.root, folder.root)
    before = folder.selection.read_bytes()
    select_run(folder)
    assert folder.selection.read_bytes() == before
    with pytest.raises(RunError, match=r"frozen.*--out"):
        select_run(folder, {"members": 1})
    select_run(folder, {"members": 1}, out=tmp_path / "elsewhere")
    assert len(json.loads((tmp_path / "elsewhere/selection.json").read_text())["members"]) == 1
    assert folder.selection.read_bytes() == before


@pytest.mark.slow
def test_a_ledger_that_was_written_by_a_killed_process_is_only_published(
    finished_run: Outcome, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(finished_run.folder.root, folder.root, symlinks=True)
    about = folder.student / "card.md"
    complete = about.read_text()
    about.unlink()
    (folder.root / "ledger.json").unlink()
    spec = spec_of_run(folder)
    with quick_run(folder, spec, resume=True, stages=("ledger",)) as killed:
        killed.emit(StageReported(stage="ledger", status="started", fraction=0.0))
    with quick_run(folder, spec, resume=True, stages=("ledger",)) as run:
        reads, results = run.state.test_reads, len(run.state.results["ledger"])
        stages.ledger(run)
        assert run.state.test_reads == reads
        assert len(run.state.results["ledger"]) == results + 1
        assert not run.state.stages["ledger"].open
    assert about.read_text() == complete
    assert (folder.root / "ledger.json").is_file()


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_distilling_again_reads_test_again_and_counts_it(
    finished_run: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distill after `quorum clean --all`, which must leave all the files that this needs.

    The command is killed in training, and again before the ledger: repeated, it goes on.
    """
    folder = RunFolder(tmp_path / "tiny")
    shutil.copytree(finished_run.folder.root, folder.root)
    clean(folder, everything=True)
    options = RunOptions(register=False, report=False, mirror=False)
    select_run(folder, {"members": 1}, out=tmp_path / "picked")
    picked = tmp_path / "picked" / "selection.json"
    for place in ("ensemble.student.students.export_student", "quorum.stages.ledger"):
        with monkeypatch.context() as patch:
            patch.setattr(place, _interrupted)
            with pytest.raises(KeyboardInterrupt):
                pipeline.distill(folder, options, selection=picked)
    others: list[dict[str, Any]] = [
        {"selection": folder.selection},
        {"budgets": {"max_bytes": 10**9}},
    ]
    for other in others:
        with pytest.raises(RunError, match=r"other options .*unfinished student.*quorum distill"):
            pipeline.distill(folder, options, **other)
    outcome = pipeline.distill(folder, options)
    release = read_release(folder.student)
    assert release is not None
    assert release.decision.decisions == 2
    assert (folder.student / "selection.json").read_bytes() == picked.read_bytes()
    assert [member.name for member in read_card(folder.student).teacher] == [
        member.name for member in read_selection(picked).members
    ]
    assert not (folder.root / "student.2").exists()
    assert outcome.ledger.test_reads == 2
    assert not outcome.report.exists()
    assert (folder.root / "student.1" / "card.json").is_file()
    assert (folder.root / "selection.json").read_bytes() == (
        finished_run.folder.selection.read_bytes()
    )
    assert set(skipped_stages(folder)) == {"select"}


@pytest.mark.parametrize(("deliver", "rows"), [("single", 1), ("ensemble", 3)])
def test_a_run_may_deliver_a_single_model_or_an_ensemble(
    finished_run: Outcome, tmp_path: Path, deliver: str, rows: int
) -> None:
    folder = RunFolder(tmp_path / "run")
    results = shutil.ignore_patterns(
        "student", "ledger*", "selection.json", "report.pdf", "mlflow*"
    )
    shutil.copytree(finished_run.folder.root, folder.root, ignore=results)
    target = TargetSpec(row="best_single", accuracy=0.01)
    spec = tiny_spec().with_values(deliver=deliver, target=target)
    folder.sweep.write_text(spec.to_yaml())
    with quick_run(folder, spec, resume=True) as run:
        for stage in (stages.select, student_stage.distill, stages.ledger, stages.register):
            stage(run)
    outcome = Outcome(folder=folder, tracking_uri="sqlite:///mlflow.db")
    names = [row.stage for row in outcome.ledger.rows]
    assert names[0] == "best_single"
    assert len(names) >= rows
    assert not any(name.startswith("student") for name in names)
    assert len(outcome.selection.members) <= spec.most_members
    skipped = skipped_stages(folder)
    assert skipped == ["distill"]
    assert not folder.student.exists()
    assert (outcome.released, outcome.model) == ("none", None)
    facts = load_facts(folder)
    evidence = evidence_of(facts)
    assert evidence is not None
    assert evidence.target == "reached"
    text = summary(facts)
    assert all(f"trials/{name}/weights.safetensors" in text[0] for name in facts.weights)
    assert any("1%" in sentence for sentence in text[1:])
    outcome_view(outcome.ledger, folder, outcome.tracking_uri)
