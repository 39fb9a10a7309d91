"""A dry run counts the images of each split and forecasts the stages."""

from search.space.spec import load_spec
from search.timetable.preview import preview


def test_the_counts_match_the_splits() -> None:
    plan = preview(load_spec("digits"))
    assert dict(plan.sizes) == {"train": 400, "val": 400, "holdout": 400, "test": 597}
    by_split = [sum(column) for column in zip(*plan.classes.values(), strict=True)]
    assert by_split == list(plan.sizes.values())
    assert (len(plan.classes), plan.image_size, plan.trials) == (10, 16, 24)
    assert min(plan.seconds.values()) > 0


def test_only_the_stages_that_run_are_forecast_within_the_budget() -> None:
    plan = preview(load_spec("digits"), time_budget=150, stages=("sweep",))
    assert (plan.trials, list(plan.seconds)) == (None, ["sweep"])
    assert 125 < plan.seconds["sweep"] <= 150, "the rehearsal takes some of it"
