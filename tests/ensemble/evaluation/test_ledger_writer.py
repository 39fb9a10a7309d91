"""The whole ledger against its golden file.

The golden file is written by `python -m tests.ensemble.evaluation.test_ledger_writer`, once per
schema version.
"""

import dataclasses
import json

from common.files import dump_json
from common.parsing import to_mapping
from ensemble.deployment.card import Speedup
from ensemble.deployment.gates import GateMargins
from ensemble.evaluation.ledger_writer import build_ledger
from ensemble.ledger.ledger import Ledger, LedgerDataset
from search.space.sections import GateSpec
from tests.docs import ROOT
from tests.ensemble.selection.test_decision import assert_close
from tests.pools import stage_costs, stage_predictions

GOLDEN = ROOT / "tests" / "golden" / "ledger.json"


def golden_ledger() -> Ledger:
    return build_ledger(
        run="golden",
        dataset=LedgerDataset(name="synthetic", fingerprint="f", split_id="s", sizes={"test": 150}),
        test=stage_predictions(0),
        holdout=stage_predictions(1),
        costs=stage_costs(),
        margins=GateMargins(**dataclasses.asdict(GateSpec())),
        test_reads=1,
        compute={"search_seconds": 3.0},
        machine={"cores": 2},
        speedup=Speedup(value=1.5, bound=1.4, level=0.95, repeats=50),
    )


def test_the_ledger_equals_the_golden_file() -> None:
    assert_close(to_mapping(golden_ledger()), json.loads(GOLDEN.read_text()))


def test_the_ledger_is_repeatable_and_finite() -> None:
    ledger = golden_ledger()
    dump_json(to_mapping(ledger))
    assert ledger == golden_ledger()
    assert ledger.released in ("int8", "fp32")
    assert [gate.name for gate in ledger.gates] == [
        "accuracy_loss", "nll_gain", "speedup", "shrink",
    ]  # fmt: skip


if __name__ == "__main__":
    GOLDEN.write_text(dump_json(to_mapping(golden_ledger())))
