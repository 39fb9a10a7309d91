"""A dry run says what a run would do, and leaves nothing behind."""

from pathlib import Path

import pytest

import quorum
from search.preview import preview
from search.spec import load_spec


def test_the_counts_are_those_of_the_splits() -> None:
    found = preview(load_spec("digits"))
    assert dict(found.sizes) == {"train": 400, "val": 400, "holdout": 400, "test": 597}
    assert [sum(column) for column in zip(*found.classes.values(), strict=True)] == list(
        found.sizes.values()
    )
    assert (len(found.classes), found.image_size, found.trials) == (10, 16, 24)
    assert min(found.seconds.values()) > 0
    budget = preview(load_spec("digits"), time_budget=600, stages=("sweep",))
    assert (budget.trials, list(budget.seconds)) == (None, ["sweep"])
    assert 500 < budget.seconds["sweep"] <= 600  # the rehearsal has taken some


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    assert quorum.main(["run", "digits", "--dry-run", "--runs", str(runs)]) == 0
    told = capsys.readouterr().out
    assert "train 400 · val 400 · holdout 400 · test 597" in told
    assert "forecast" in told
    assert not runs.exists()
