"""The state of a run, folded from its journal's events.

`RunState.apply` takes one event at a time, at constant cost, and reads no clock. It refuses
events out of order (`journal.order`), so a state stands for exactly one sequence of events.
Everything else (the sampler's study, ASHA, forecasts, the display, MLflow, the report) is a
view of it.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from journal.cohort import RungCount
from journal.events import (
    PREPARATION,
    STAGES,
    Event,
    Kind,
    ModelRegistered,
    ObserverFailed,
    PlanMade,
    ResultReported,
    RunResumed,
    RunStarted,
    StageReported,
    SweepEnded,
    TestRead,
    TrialStarted,
)
from journal.order import require_order
from journal.stages import Stage, WorkClock
from journal.trials import Trials


class RunState:
    """A run, folded from its journal's events. Times are unix seconds."""

    def __init__(self, spec: Mapping[str, Any] | None = None) -> None:
        """Return the state before any event; `spec` stands in until the run has started."""
        self.spec: Mapping[str, Any] = spec or {}
        self.started: RunStarted | None = None
        self.resumes: list[RunResumed] = []
        self.trials = Trials()
        self.stages = {name: Stage() for name in (*PREPARATION, *STAGES)}
        self.plans: list[PlanMade] = []
        self.plan: PlanMade | None = None
        """The last plan of the present process."""
        self.ends: dict[Kind, SweepEnded] = {}
        """The last end of each kind of trials."""
        self.ended_kinds: set[Kind] = set()
        """Kinds whose end was reported and not followed by a start or a resume."""
        self.results: dict[str, list[ResultReported]] = {}
        """Results by kind, oldest first."""
        self.registered: ModelRegistered | None = None
        """The last entry in the registry."""
        self.test_reads = 0
        self.count = 0
        """Events folded."""
        self.last_time = -math.inf
        self.abandoned = False
        """True if no process works on the run, even if its journal leaves stages open."""
        self._planned_trials: int | None = None
        """Number that the sweep's stage announces, if it differs from the specification."""
        self._last_resume = -math.inf
        self._clock = WorkClock()

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> "RunState":
        """Return the state after `events`."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Fold one event in.

        Raises:
            OutOfOrderError: it cannot follow the earlier events; the state is unchanged.
        """
        self.require(event)
        self.abandoned = False
        match event:
            case RunStarted():
                self._start(event)
            case RunResumed():
                self._resume(event)
            case PlanMade():
                self.plan, self.trials.costs = event, event.stage_costs
                # A plan made on resume measures the first family only.
                self.trials.family_costs = event.family_costs or self.trials.family_costs
                self.plans.append(event)
            case StageReported():
                self._report_stage(event)
            case SweepEnded():
                self.ends[event.kind] = event
                self.ended_kinds.add(event.kind)
                self.trials.halt(event.time)
            case TestRead():
                self.test_reads += 1
            case ResultReported():
                self.results.setdefault(event.kind, []).append(event)
            case ModelRegistered():
                self.registered = event
            case ObserverFailed():
                pass
            case _:
                self.trials.apply(event)
                if isinstance(event, TrialStarted):
                    self.ended_kinds.discard(event.kind)
        self.count += 1
        self.last_time = max(self.last_time, event.time)

    def require(self, event: Event) -> None:
        """Check that `event` may come next; raises as `apply`."""
        require_order(
            event,
            started=self.started is not None,
            stages=self.stages,
            trials=self.trials,
            ended_kinds=self.ended_kinds,
        )

    def abandon(self) -> None:
        """Mark open stages and trials as interrupted: no process holds the journal."""
        self.abandoned = True
        self.trials.running = set()

    @property
    def run(self) -> str:
        """Name of the run; empty before it has started."""
        return "" if self.started is None else self.started.run

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epoch budgets of the sweep, rising."""
        return tuple(self.spec.get("rungs", ()))

    @property
    def stage(self) -> str | None:
        """The stage under way: of the open ones, the last in the chain."""
        return next((name for name in reversed(self.stages) if self.stages[name].open), None)

    @property
    def active(self) -> bool:
        """True while work remains that was not interrupted; a killed run cannot report that."""
        return not self.interrupted and self._unfinished

    @property
    def interrupted(self) -> bool:
        """True if the work was interrupted and not resumed."""
        if self.abandoned:
            return self._unfinished
        if any(self.stages[name].open for name in PREPARATION):
            return False
        last = max(self.ends.values(), key=lambda end: end.time, default=None)
        if last is None or last.reason != "interrupted":
            return False
        return last.time >= self._last_resume

    @property
    def deadline(self) -> float | None:
        """End of the time budget in unix seconds; None without one."""
        return self.plan.deadline if self.plan is not None else None

    def ended(self, kind: Kind) -> bool:
        """Return whether the trials of this kind are done and no resume continues them."""
        end = self.ends.get(kind)
        if end is None or end.reason == "interrupted":
            return False
        return end.reason == "finished" or end.time >= self._last_resume

    def planned(self, kind: Kind = "search") -> int:
        """Return how many trials of this kind there will be; 0 if unknown."""
        if kind == "seed":
            return int(self.spec.get("members", 0))
        if self._planned_trials is None and self.plan is not None and self.plan.trials is None:
            return 0  # as many as there is time for
        return self._planned_trials or int(self.spec.get("trials") or 0)

    def at(self, now: float) -> float:
        """Return `now` while a process works on the run, else the time of its last event."""
        return now if self.active else self.last_time

    def elapsed(self, now: float) -> float:
        """Return the wall seconds spent on the run, without pauses between resumes."""
        return self._clock.seconds(self.at(now))

    def rung_counts(self) -> dict[int, RungCount]:
        """Return the search trials that arrived, continued and stopped at each rung."""
        return self.trials.cohorts["search"].rung_counts(self.rungs)

    @property
    def _unfinished(self) -> bool:
        return self.stage is not None or bool(self.trials.running) or not self.ended("search")

    @property
    def address(self) -> str | None:
        """The Ray cluster that the last process joined; None for its own machine."""
        last = self.resumes[-1] if self.resumes else self.started
        return None if last is None else last.address

    def _start(self, event: RunStarted) -> None:
        self.started, self.spec = event, event.spec
        if self._clock.began is None:
            self._clock.begin(event.time, event.time)

    def _resume(self, event: RunResumed) -> None:
        self.resumes.append(event)
        self._last_resume = event.time
        self._begin_process(event.time)
        self.plan = None
        self.ended_kinds.clear()
        self.trials.halt(event.time)

    def _begin_process(self, time: float) -> None:
        for name, stage in self.stages.items():
            if name not in PREPARATION:
                stage.resume(time, self.last_time)
        self._clock.begin(time, self.last_time)

    def _report_stage(self, event: StageReported) -> None:
        stage = self.stages[event.stage]
        begins = event.status == "started" and not stage.open
        stage.apply(event)
        if begins and event.stage == PREPARATION[0]:
            self._begin_process(event.time)  # before it opens the journal
        if event.stage == "sweep" and event.trials is not None:
            self._planned_trials = event.trials
