"""The best recipe of a sweep, and the error where no trial was scored."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from common.errors import RunError
from search.samplers.best import best_recipe
from trainables.records import RunFolder, TrialRecord, write_record


def folder_of_failures(root: Path, reasons: Sequence[str]) -> RunFolder:
    folder = RunFolder(root)
    for number, reason in enumerate(reasons):
        name = f"t{number:04d}"
        folder.trial(name).mkdir(parents=True)
        record = TrialRecord(
            trial=name, kind="search", status="failed", reason=reason, split_id="0", steps=0,
            rung=None, whole_schedule=False, seconds=0.0, peak_memory_bytes=0, params=0,
        )  # fmt: skip
        write_record(folder.trial(name), record)
    return folder


@pytest.mark.parametrize(
    ("reasons", "advice"),
    [
        ((), "give the sweep more time"),
        (("cutout too large", "cutout too large", "diverged"), "3 failed, 2 .*: cutout too large"),
    ],
)
def test_without_a_scored_trial_the_error_says_why(
    tmp_path: Path, reasons: tuple[str, ...], advice: str
) -> None:
    with pytest.raises(RunError, match=f"no trial was scored; {advice}"):
        best_recipe(folder_of_failures(tmp_path, reasons))
