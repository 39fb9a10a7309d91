"""A trial trained again from its record is bitwise the same, or the differences are reported."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from analysis.terminal.outcome_view import replay_view
from common.errors import RunError
from quorum import Outcome, pipeline
from trainables.records import RunFolder, read_record

pytestmark = pytest.mark.slow


def plain(view: RenderableType) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(view)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


@pytest.fixture
def copied(finished_run: Outcome, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished_run.folder.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_replayed_trial_has_bitwise_the_same_weights(finished_run: Outcome) -> None:
    folder = finished_run.folder
    pruned = [r.trial for r in folder.records() if r.status == "pruned"][:1]
    for trial in ("s00", *pruned):  # the rung before the last is the first one: all are members
        found = pipeline.replay(folder, trial)
        record = read_record(folder.trial(trial) / "record.json")
        assert found.identical, found
        assert (folder.trial(trial) / "weights.safetensors").exists()
        assert found.largest_difference == 0.0
        assert found.log_prob_difference == 0.0
        assert found.replayed_nll == found.recorded_nll == record.metrics["val_nll"]
        assert (found.rung, found.changes) == (record.rung, {})
        assert "bitwise identical" in plain(replay_view(found))


def test_a_trial_whose_schedule_was_shortened_is_replayed_as_it_was_trained(
    copied: RunFolder,
) -> None:
    folder = copied.trial("s00")
    start, record = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("start", "record")
    )
    trained = start["rungs"]
    start["rungs"] = [2 * trained[-1]]
    start["recipe"]["epochs"] = 2 * trained[-1]
    (folder / "start.json").write_text(json.dumps(start))
    (folder / "record.json").write_text(json.dumps({**record, "rungs": trained}))
    found = pipeline.replay(copied, "s00")
    assert found.identical
    assert found.rung == trained[-1]


def test_differences_are_measured(copied: RunFolder) -> None:
    """A different seed in the record simulates a machine that rounds differently."""
    path = copied.trial("s00") / "start.json"
    start = json.loads(path.read_text())
    path.write_text(json.dumps({**start, "seed": start["seed"] + 1, "code_version": "0+old"}))
    found = pipeline.replay(copied, "s00")
    assert not found.identical
    assert min(found.largest_difference or 0.0, found.log_prob_difference) > 0
    assert found.changes.keys() == {"code"}
    text = plain(replay_view(found))
    assert "differ by up to" in text
    assert "0+old recorded" in text


def test_a_trial_that_cannot_be_compared_is_refused(copied: RunFolder) -> None:
    path = copied.trial("s00") / "record.json"
    record = json.loads(path.read_text())
    del record["sha256"]["weights.safetensors"]
    path.write_text(json.dumps(record))
    with pytest.raises(RunError, match="the record of s00 has no checksum of its weights"):
        pipeline.replay(copied, "s00")
    with pytest.raises(RunError, match="no finished trial 't9999'; see `quorum status"):
        pipeline.replay(copied, "t9999")


def test_a_trial_is_not_replayed_from_other_initial_weights(copied: RunFolder) -> None:
    path = copied.trial("s00") / "start.json"
    start = json.loads(path.read_text())
    assert start["weights"] == {}
    path.write_text(json.dumps({**start, "weights": {"first.safetensors": "0" * 64}}))
    with pytest.raises(RunError, match=r"s00 started from .*first\.safetensors, which are missing"):
        pipeline.replay(copied, "s00")
