"""Events of a whole simulated run."""

from typing import Any

from journal.events import Event
from journal.state import RunState
from tests.synthetic_sweep import synthetic_chain, synthetic_sweep


def whole_run(**options: Any) -> list[Event]:
    events = list(synthetic_sweep(fail=(5,), retry=(1,), **options))
    return events + list(synthetic_chain(start=events[-1].time))


EVENTS = whole_run()


def half_way() -> RunState:
    return RunState.from_events(EVENTS[:150])
