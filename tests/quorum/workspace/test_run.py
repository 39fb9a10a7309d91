"""An open run: its specification as written and as planned, and after a resume."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from common.errors import DataError, RunError, SpecError
from common.seeds import numpy_generator
from journal.events import Event, PlanMade
from journal.journal import read_events
from search.space.sections import RobustnessSpec
from search.space.spec import SweepSpec
from search.space.sweep_files import load_spec, spec_of_run
from search.timetable.measuring import Setup
from search.timetable.pace import Pace
from search.timetable.planner import make_plan
from search.timetable.preview import preview
from tests.opening import quick_run
from tests.tiny import tiny_spec
from trainables.data.dataset import DatasetSpec
from trainables.data.splits import SplitSpec
from trainables.records import RunFolder


def last_plan(folder: RunFolder) -> PlanMade:
    event = read_events(folder.journal)[-1]
    assert isinstance(event, PlanMade)
    return event


def test_a_time_budget_becomes_schedules_that_a_resume_keeps(tmp_path: Path) -> None:
    folder, asked = RunFolder(tmp_path / "run"), tiny_spec()
    seen: list[Event] = []
    with quick_run(folder, asked, time_budget=600, began=None, observers=[seen.append]) as run:
        assert run.plan is not None
        assert run.spec.rungs == run.plan.rungs != asked.rungs
        assert run.end_of("report") == run.deadline
        planned = run.spec
    assert spec_of_run(folder) == planned == load_spec(folder.sweep)
    kinds = [(event.event, getattr(event, "stage", None)) for event in seen]
    assert kinds[:4] == [("stage", stage) for stage in ("data", "data", "probe", "probe")]
    assert kinds[4:] == [("run_started", None), ("plan", None)]
    assert [event.event for event in read_events(folder.journal)] == ["run_started", "plan"]

    for again in (asked, planned):
        with quick_run(folder, again, resume=True, time_budget=900) as run:
            assert run.spec == planned
            assert run.plan is not None
            assert run.plan.rungs == planned.rungs
    with quick_run(folder, asked, resume=True) as run:
        assert (run.plan, run.deadline, run.end_of("sweep")) == (None, None, None)
    folder.selection.touch()
    with quick_run(folder, asked, resume=True, time_budget=900) as run:
        assert run.plan is not None
        assert (run.plan.seconds["sweep"], run.end_of("report")) == (0, run.deadline)
    assert last_plan(folder).at == "distill"
    with quick_run(folder, asked, resume=True, time_budget=900, stages=("sweep",)) as run:
        assert run.plan is None  # nothing is left of it
    folder.student.mkdir()
    (folder.student / "card.json").touch()
    with quick_run(folder, asked, resume=True, time_budget=60):
        pass
    assert last_plan(folder).at == "ledger"
    with pytest.raises(RunError, match="another specification"):
        quick_run(folder, asked.with_values(members=3), resume=True).__enter__()


def test_without_a_budget_the_plan_is_a_forecast(tmp_path: Path) -> None:
    folder, asked = RunFolder(tmp_path / "run"), tiny_spec()
    with quick_run(folder, asked) as run:
        assert run.spec == asked
    plan = last_plan(folder)
    assert (plan.at, plan.deadline, plan.trials) == ("sweep", None, asked.trials)
    assert min(plan.seconds.values()) > 0


def test_a_missing_folder_of_other_data_is_an_error_before_the_training(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    asked = tiny_spec().with_values(robustness=RobustnessSpec(ood=str(tmp_path / "others")))
    with pytest.raises(DataError, match=r"there is no folder .*others"):
        quick_run(folder, asked).__enter__()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"others has 0 images that can be read; give two"):
        quick_run(folder, asked).__enter__()
    assert not folder.root.exists()
    unused = replace(asked, robustness=replace(asked.robustness, enabled=False))
    with quick_run(folder, unused):
        pass


def test_a_budget_that_is_too_short_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"the time left, .* s, is too short"):
        quick_run(tmp_path / "run", tiny_spec(), time_budget=10).__enter__()
    assert not (tmp_path / "run").exists()


def test_seeds_for_which_the_plan_has_no_time_are_skipped(tmp_path: Path) -> None:
    def measure(spec: SweepSpec, setup: Setup, *, seconds: float) -> Pace:
        return replace(pace_at(16), predict_seconds=1000.0)

    slow = partial(quick_run, planner=partial(make_plan, measure=measure))
    with slow(tmp_path / "run", tiny_spec(), time_budget=330.0) as run:
        assert not run.wants("seeds")
        assert run.wants("distill")
        assert run.state.stages["seeds"].status == "skipped"
    with slow(tmp_path / "long", tiny_spec(), time_budget=3600.0) as run:
        assert run.wants("seeds")


def test_a_resumed_run_leaves_out_the_seeds_that_its_plan_left_out(tmp_path: Path) -> None:
    """Its schedules are too long for them."""

    def measure(spec: SweepSpec, setup: Setup, *, seconds: float) -> Pace:
        return replace(pace_at(48), epoch_seconds=600.0, student_seconds=10.0)

    slow = partial(quick_run, planner=partial(make_plan, measure=measure))
    spec = tiny_spec().with_values(resource="compute", rungs=(4,))
    for resume, hours in ((False, 1), (True, 1), (True, 4)):
        with slow(tmp_path / "run", spec, resume=resume, time_budget=3600.0 * hours) as run:
            assert not run.wants("seeds")
    with slow(tmp_path / "run", spec, resume=True) as run:
        assert run.wants("seeds"), "without a deadline there is time"
    with slow(tmp_path / "long", spec, time_budget=3600.0 * 12) as run:
        assert run.wants("seeds")


def test_images_are_made_smaller_if_time_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 48 pixels there is time for few epochs; a size set by the user is kept."""
    folder_of_noise(tmp_path / "data", side=48)
    monkeypatch.setenv("QUORUM_CACHE", str(tmp_path / "cache"))
    planner = partial(make_plan, measure=pace_by_size)
    open_at = partial(quick_run, planner=planner, time_budget=1200)
    asked = tiny_spec().with_values(
        dataset=DatasetSpec(name="images", path=str(tmp_path / "data")), splits=SplitSpec()
    )
    with open_at(tmp_path / "run", asked) as run:
        assert run.images.image_size == run.spec.dataset.image_size == 32
        split_id = run.splits.split_id
    assert preview(asked, time_budget=1200, planner=planner).image_size == 32
    with open_at(tmp_path / "run", asked, resume=True) as run:
        assert run.splits.split_id == split_id
    given = asked.with_values(dataset=replace(asked.dataset, image_size=48))
    with open_at(tmp_path / "given", given) as run:
        assert run.images.image_size == 48


def pace_by_size(spec: SweepSpec, setup: Setup, *, seconds: float) -> Pace:
    return pace_at(setup.images.image_size)


def pace_at(side: int) -> Pace:
    epoch = 80 * (side / 48) ** 2
    return Pace(
        workers=2, epoch_seconds=epoch, student_seconds=epoch / 2, teacher_seconds=epoch / 9,
        predict_seconds=epoch / 9, handover_seconds=epoch / 20, holdout_share=0.1, test_share=0.1,
    )  # fmt: skip


def folder_of_noise(root: Path, *, side: int) -> None:
    rng = numpy_generator(0, "folder")
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for index in range(90):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.bmp")


def test_pictures_may_be_hidden_when_a_run_is_resumed(tmp_path: Path) -> None:
    folder, asked = RunFolder(tmp_path / "run"), tiny_spec()
    with quick_run(folder, asked):
        pass
    with quick_run(folder, asked.with_values(pictures=False), resume=True) as run:
        assert not run.spec.pictures
    assert spec_of_run(folder).pictures


def test_a_sweep_yaml_from_before_pictures_shows_them(tmp_path: Path) -> None:
    old = tiny_spec().to_mapping()
    del old["pictures"]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(old))
    assert load_spec(tmp_path / "sweep.yaml") == tiny_spec()
