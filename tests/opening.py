"""Open runs in seconds: rehearsals of a step or two, and no MLflow database to create."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from journal.emitter import Observer
from quorum.workspace.opening import open_run
from quorum.workspace.run import Run
from search.space.spec import SweepSpec
from search.timetable.measuring import Setup, measure_pace
from search.timetable.pace import Pace
from search.timetable.planner import Planner, make_plan
from trainables.records import RunFolder


def measure_hastily(spec: SweepSpec, setup: Setup, *, seconds: float) -> Pace:
    """Measure the pace in a step or two; Python runs as fast as usual, however busy the machine."""
    return replace(measure_pace(spec, setup, seconds=0.01), slowness=1.0, driver_slowness=1.0)


plan_hastily: Planner = partial(make_plan, measure=measure_hastily)


def quick_run(
    folder: RunFolder | Path,
    spec: SweepSpec,
    *,
    observers: Sequence[Observer] = (),
    planner: Planner = plan_hastily,
    **options: Any,
) -> AbstractContextManager[Run]:
    """Open a run that MLflow does not show; see `open_run`."""
    return open_run(folder, spec, observers=observers, planner=planner, mirrored=False, **options)
