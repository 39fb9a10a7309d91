import pytest

from analysis.facts.run_facts import RunFacts, load_facts
from ensemble.ledger.ledger import Ledger
from tests.synthetic.predictions import SMALL
from tests.synthetic.run import write_run


@pytest.fixture(scope="package")
def facts(tmp_path_factory: pytest.TempPathFactory) -> RunFacts:
    return load_facts(write_run(tmp_path_factory.mktemp("runs") / "tables", shape=SMALL))


@pytest.fixture
def ledger(facts: RunFacts) -> Ledger:
    assert facts.ledger is not None
    return facts.ledger
