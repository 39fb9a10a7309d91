"""A run that is open for work: what was asked for, what was planned, what is resumed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from search import planning
from search.journal import read_events
from search.run import Run
from search.spec import load_spec, spec_of_run
from tests.tiny import tiny_spec
from trainables.errors import RunError, SpecError
from trainables.records import RunFolder


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearsals of a step or two."""
    monkeypatch.setattr(planning, "MOST_SECONDS", 0.01)
    monkeypatch.setattr(planning, "USUAL_SECONDS", 0.01)


def test_a_time_budget_becomes_schedules_that_a_resume_keeps(tmp_path: Path, hasty: None) -> None:
    folder, asked = RunFolder(tmp_path / "run"), tiny_spec()
    told: list[dict[str, Any]] = []
    with Run(folder, asked, time_budget=600, began=None, observers=[told.append]) as run:
        assert run.plan is not None
        assert run.spec.rungs == run.plan.rungs != asked.rungs
        assert run.end_of("report") == run.deadline
        planned = run.spec
    assert spec_of_run(folder) == planned == load_spec(folder.sweep)
    kinds = [(event["event"], event.get("stage")) for event in told]
    assert kinds[:4] == [("stage", stage) for stage in ("data", "data", "probe", "probe")]
    assert kinds[4:] == [("run_started", None), ("plan", None)]
    assert [event["event"] for event in read_events(folder.journal)] == ["run_started", "plan"]

    for again in (asked, planned):
        with Run(folder, again, resume=True, time_budget=900) as run:
            assert run.spec == planned
            assert run.plan is not None
            assert run.plan.rungs == planned.rungs
    with Run(folder, asked, resume=True) as run:
        assert (run.plan, run.deadline, run.end_of("sweep")) == (None, None, None)
    with pytest.raises(RunError, match="another specification"):
        Run(folder, asked.with_values(members=3), resume=True).__enter__()


def test_without_a_budget_the_plan_is_a_forecast(tmp_path: Path, hasty: None) -> None:
    folder, asked = RunFolder(tmp_path / "run"), tiny_spec()
    with Run(folder, asked) as run:
        assert run.spec == asked
    event = read_events(folder.journal)[-1]
    assert (event["event"], event["at"], event["deadline"]) == ("plan", "sweep", None)
    assert event["trials"] == asked.trials
    assert min(event["seconds"].values()) > 0


def test_a_budget_that_is_too_short_leaves_no_folder(tmp_path: Path, hasty: None) -> None:
    with pytest.raises(SpecError, match=r"the time left, .* s, is too short"):
        Run(tmp_path / "run", tiny_spec(), time_budget=10).__enter__()
    assert not (tmp_path / "run").exists()


def test_pictures_may_be_hidden_when_a_run_is_resumed(tmp_path: Path, hasty: None) -> None:
    folder, asked = RunFolder(tmp_path / "run"), tiny_spec()
    with Run(folder, asked):
        pass
    with Run(folder, asked.with_values(pictures=False), resume=True) as run:
        assert not run.spec.pictures
    assert spec_of_run(folder).pictures


def test_a_sweep_yaml_from_before_pictures_shows_them(tmp_path: Path) -> None:
    old = tiny_spec().to_mapping()
    del old["pictures"]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(old))
    assert load_spec(tmp_path / "sweep.yaml") == tiny_spec()
