"""A dry run counts the images of each split and forecasts the stages."""

from search.space.spec import load_spec
from search.timetable.preview import preview


def test_the_counts_are_those_of_the_splits() -> None:
    found = preview(load_spec("digits"))
    assert dict(found.sizes) == {"train": 400, "val": 400, "holdout": 400, "test": 597}
    by_split = [sum(column) for column in zip(*found.classes.values(), strict=True)]
    assert by_split == list(found.sizes.values())
    assert (len(found.classes), found.image_size, found.trials) == (10, 16, 24)
    assert min(found.seconds.values()) > 0


def test_only_the_stages_that_run_are_forecast_within_the_budget() -> None:
    found = preview(load_spec("digits"), time_budget=600, stages=("sweep",))
    assert (found.trials, list(found.seconds)) == (None, ["sweep"])
    assert 500 < found.seconds["sweep"] <= 600, "the rehearsal takes some of it"
