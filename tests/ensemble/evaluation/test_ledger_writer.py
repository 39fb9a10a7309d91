"""The whole ledger against its golden file.

The golden file is written by `python -m tests.ensemble.evaluation.test_ledger_writer`, once per
schema version.
"""

import dataclasses
import json

from common.files import dump_json
from common.parsing import to_mapping
from ensemble.deployment.card import Speedup
from ensemble.deployment.decision import decide
from ensemble.deployment.gates import GateMargins
from ensemble.evaluation.ledger_writer import build_ledger
from ensemble.ledger.ledger import Ledger, LedgerDataset
from ensemble.ledger.predictions import FILES
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
        costs=stage_costs(),
        decision=decide(
            stage_predictions(1),
            stage_costs(),
            GateMargins(**dataclasses.asdict(GateSpec())),
            speedups={"student": Speedup(value=1.5, bound=1.4, level=0.95, repeats=50)},
        ),
        test_reads=1,
        compute={"search_seconds": 3.0},
        machine={"cores": 2},
    )


def test_the_ledger_equals_the_golden_file() -> None:
    assert_close(to_mapping(golden_ledger()), json.loads(GOLDEN.read_text()))


def test_the_ledger_is_repeatable_and_finite() -> None:
    ledger = golden_ledger()
    dump_json(to_mapping(ledger))
    assert ledger == golden_ledger()
    assert ledger.row(ledger.released) is not None or ledger.released == "none"
    assert {candidate.stage for candidate in ledger.candidates} == set(FILES)


def test_without_a_student_nothing_is_released() -> None:
    ledger = build_ledger(
        run="made",
        dataset=LedgerDataset(name="synthetic", fingerprint="f", split_id="s", sizes={"test": 150}),
        test=stage_predictions(0),
        costs=stage_costs(),
        decision=None,
        test_reads=1,
        compute={},
        machine={},
    )
    assert (ledger.released, ledger.gates) == ("none", ())


if __name__ == "__main__":
    GOLDEN.write_text(dump_json(to_mapping(golden_ledger())))
