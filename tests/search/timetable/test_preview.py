"""A dry run counts the images of each split and forecasts the stages."""

from pathlib import Path

from search.space.sections import FamilySpec
from search.space.sweep_files import load_spec
from search.timetable.preview import preview
from tests.opening import plan_hastily
from tests.tiny import tiny_spec


def test_the_counts_match_the_splits() -> None:
    plan = preview(load_spec("digits"))
    assert dict(plan.sizes) == {"train": 400, "val": 400, "holdout": 400, "test": 597}
    by_split = [sum(column) for column in zip(*plan.classes.values(), strict=True)]
    assert by_split == list(plan.sizes.values())
    assert (len(plan.classes), plan.image_size, plan.trials) == (10, 16, 20)
    assert min(plan.seconds.values()) > 0


def test_only_the_stages_that_run_are_forecast_within_the_budget() -> None:
    plan = preview(load_spec("digits"), time_budget=150, stages=("sweep",))
    assert (plan.trials, list(plan.seconds)) == (None, ["sweep"])
    assert 125 < plan.seconds["sweep"] <= 150, "the rehearsal takes some of it"


def test_a_run_to_be_resumed_keeps_its_optional_families_size_and_rungs(tmp_path: Path) -> None:
    """Its weights may be missing on the machine that only forecasts."""
    choices = ["", str(tmp_path / "weights.safetensors")]
    searched = {"pretrained": {"type": "categorical", "choices": choices, "start": ""}}
    families = {"plain": FamilySpec(), "tuned": FamilySpec(space=searched, optional=True)}
    spec = tiny_spec().with_values(families=families)
    new = preview(spec, planner=plan_hastily)
    assert list(new.spec.families) == ["plain"]
    left_out, few = new.notes
    assert "'tuned' is left out" in left_out
    assert "set trials to at least" in few
    resumed = preview(spec, planner=plan_hastily, resumed=True, time_budget=600, stages=("sweep",))
    assert (resumed.spec, resumed.rungs, resumed.notes) == (spec, spec.rungs, ())
    done = preview(spec, planner=plan_hastily, resumed=True, stages=())
    assert done.seconds == {}
