import shutil
from pathlib import Path

import pytest

from analysis.facts.run_facts import RunFacts, load_facts
from tests.synthetic.predictions import SMALL
from tests.synthetic.run import write_run
from trainables.records import RunFolder


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of four classes."""
    return write_run(tmp_path_factory.mktemp("runs") / "whole", shape=SMALL)


@pytest.fixture
def copied(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """The finished run, to be damaged."""
    shutil.copytree(whole.root, tmp_path / "copied")
    return RunFolder(tmp_path / "copied")


@pytest.fixture(scope="package")
def facts(whole: RunFolder) -> RunFacts:
    return load_facts(whole)
