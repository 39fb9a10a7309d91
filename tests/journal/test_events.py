"""Events and their JSON lines: every kind reads back as written, in the current format."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.stage_costs import StageCosts
from journal.earlier import Upgrade
from journal.events import (
    EPOCH_FIELDS,
    EVENT_TYPES,
    EpochEnded,
    Event,
    PlanMade,
    ResultReported,
    StageReported,
    TestRead,
    decode,
    encode,
)
from tests.events import epoch, run_started, trial_started
from tests.synthetic_sweep import synthetic_chain, synthetic_sweep

EVENTS: list[Event] = [
    *synthetic_sweep(fail=(1,), retry=(2,)),
    *synthetic_chain(start=1.0),
    PlanMade(at="sweep", seconds={"sweep": 3.0}, stage_costs=StageCosts(epochs=(0.5,)), time=0),
    TestRead(time=1),
]


def read_back(event: Event) -> Event:
    return decode(json.loads(json.dumps(encode(event))))


def test_there_are_fifteen_kinds_each_documented() -> None:
    assert len(EVENT_TYPES) == 15
    for name, cls in EVENT_TYPES.items():
        assert cls.event == name
        assert cls.__doc__ is not None
        assert hasattr(cls, "__slots__")
    with pytest.raises(dataclasses.FrozenInstanceError, match="step"):
        epoch("t0000", 1).step = 2  # type: ignore[misc]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event)
def test_an_event_reads_back_as_written(event: Event) -> None:
    assert read_back(event) == event


@given(st.dictionaries(st.text(), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)))  # fmt: skip
def test_any_values_reach_the_line_and_reading_again_changes_nothing(
    values: dict[str, object],
) -> None:
    event = ResultReported(kind="x", params=values, time=1.0)
    once = read_back(event)
    assert read_back(once) == once
    line = json.dumps(values, allow_nan=True)
    assert once.params == json.loads(line, parse_constant=lambda _: None)  # type: ignore[union-attr]


def test_the_line_of_an_epoch_is_the_same_as_in_earlier_versions() -> None:
    event = EpochEnded(trial="t0001", step=4, epoch=3, phase="cooldown", rung=3, train_loss=0.5,
                       val_nll=0.25, val_accuracy=0.75, temperature=1.5, lr=0.1, seconds=2.0,
                       images_per_second=100.0, peak_memory_bytes=7, time=9.0)  # fmt: skip
    assert json.dumps(encode(event)) == (
        '{"event": "epoch", "trial": "t0001", "step": 4, "epoch": 3, "phase": "cooldown", '
        '"rung": 3, "train_loss": 0.5, "val_nll": 0.25, "val_accuracy": 0.75, "temperature": 1.5, '
        '"lr": 0.1, "seconds": 2.0, "images_per_second": 100.0, "peak_memory_bytes": 7, '
        '"time": 9.0}'
    )
    assert list(encode(event)) == ["event", "trial", *EPOCH_FIELDS, "time"]


def test_only_the_start_of_a_stage_names_its_trials() -> None:
    started = StageReported(stage="sweep", status="started", trials=3, time=1)
    assert encode(started)["trials"] == 3
    assert "trials" not in encode(dataclasses.replace(started, trials=None))


def test_non_finite_numbers_become_null_and_numpy_scalars_become_plain() -> None:
    event = epoch("t0000", 1, val_nll=math.nan, train_loss=-math.inf, lr=np.float32("nan"))
    assert [encode(event)[key] for key in ("val_nll", "train_loss", "lr")] == [None] * 3
    line = encode(epoch("t0000", 1, rung=np.int64(3), val_accuracy=np.float64(0.5)))
    assert (line["rung"], type(line["rung"])) == (3, int)
    assert (line["val_accuracy"], type(line["val_accuracy"])) == (0.5, float)
    nested = ResultReported(kind="x", params={"a": [math.nan, {"b": -math.inf}]}, time=1)
    assert encode(nested)["params"] == {"a": [None, {"b": None}]}


def test_errors_name_an_unknown_kind_and_a_missing_field() -> None:
    with pytest.raises(ValueError, match=r"'comet'.*newer version"):
        decode({"event": "comet", "time": 1})
    with pytest.raises(ValueError, match="'test_read' lacks the field 'time'"):
        decode({"event": "test_read"})
    line = {**encode(trial_started("t0000")), "from_the_future": 1}
    assert decode(line) == trial_started("t0000")


@pytest.mark.parametrize(
    ("decision", "cutoff", "value", "rung", "reason"),
    [
        ("continue", 0.5, 0.4, 1, "promoted"),
        ("stop", 0.3, 0.4, 1, "above_cutoff"),
        ("stop", None, None, 1, "not_finite"),
        ("stop", None, 0.4, 1, "no_time"),
        ("stop", None, 0.4, 9, "last_rung"),
    ],
)
def test_decisions_of_earlier_versions_get_their_reason(
    decision: str, cutoff: float | None, value: float | None, rung: int, reason: str
) -> None:
    upgrade = Upgrade()
    upgrade(encode(run_started(spec={"rungs": [1, 3, 9]})))
    line = {"event": "decision", "trial": "t0000", "rung": rung, "value": value,
            "decision": decision, "cutoff": cutoff, "time": 1.0}  # fmt: skip
    assert upgrade(line)["reason"] == reason
    assert upgrade({**line, "reason": "no_time"})["reason"] == "no_time"
