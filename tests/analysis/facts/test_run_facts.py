import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.facts.run_facts import RunFacts, load_facts
from common.errors import RunError
from tests.synthetic.predictions import SMALL
from tests.synthetic.run import write_run
from trainables.records import RunFolder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("runs") / "whole", shape=SMALL)


@pytest.fixture(scope="module")
def facts(whole: RunFolder) -> RunFacts:
    return load_facts(whole)


@pytest.fixture
def copied(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """The run, to be damaged."""
    shutil.copytree(whole.root, tmp_path / "copied")
    return RunFolder(tmp_path / "copied")


def test_wall_time_ends_with_the_ledger(facts: RunFacts) -> None:
    assert facts.wall_seconds == pytest.approx(sum(facts.stage_seconds.values()), abs=0.01)
    assert "report" not in facts.stage_seconds


def test_trials_are_read_from_the_journal(facts: RunFacts) -> None:
    assert [trial.number for trial in facts.search_trials] == list(range(12))
    assert [trial.trial for trial in facts.seed_trials] == [f"s0{i}" for i in range(5)]
    assert facts.best is not None
    assert facts.best.scores[27] == min(t.scores.get(27, np.inf) for t in facts.search_trials)
    assert facts.best.params is not None
    assert {t.status for t in facts.search_trials} == {"completed", "pruned", "failed"}


@pytest.mark.parametrize("damage", [b"not an archive", b"", b"PK\x03\x04 cut off"])
def test_damaged_predictions_are_refused(copied: RunFolder, damage: bytes) -> None:
    (copied.ledger / "test_logprobs.npz").write_bytes(damage)
    with pytest.raises(RunError, match=r"test_logprobs\.npz"):
        load_facts(copied)


def test_predictions_must_match_the_labels(copied: RunFolder) -> None:
    path = copied.ledger / "test_logprobs.npz"
    np.savez(path, labels=np.zeros(5, int), ensemble=np.zeros((4, 2)))
    with pytest.raises(RunError, match=r"'ensemble' has shape \(4, 2\).*5 labels"):
        load_facts(copied)
