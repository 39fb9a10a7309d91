"""Where a run stands: a reducer of its journal, for `status`, the live display and forecasts.

`RunState` folds one event at a time, at constant cost, and never reads a clock. A repeated
event changes nothing; of two reports of one step, the first counts. Events out of order end
in the same trials, scores, rungs and results; what is measured between events, the pace and
the wall times, follows the order of arrival. What concerns one trial or one stage alone is
folded in `journal.states`. No heavy library is imported, so `quorum status` is quick.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from common.stage_costs import EQUAL, StageCosts
from journal.states import (
    PREPARATION,
    STAGES,
    Clock,
    Cohort,
    Event,
    Kind,
    RungCount,
    StageState,
    TrialState,
    TrialStatus,
    finite,
)


class RunState:
    """A run, folded from its journal's events. Times are unix seconds."""

    def __init__(self) -> None:
        """A run of which nothing is known yet."""
        self.run = ""
        self.spec: Mapping[str, Any] = {}
        self.about: Mapping[str, Any] = {}
        """split_id, fingerprint, sizes, machine and code_version of run_started."""
        self.trials: dict[str, TrialState] = {}
        self.stages = {name: StageState() for name in (*PREPARATION, *STAGES)}
        self.ends: dict[str, Event] = {}
        """The last sweep_ended of each kind."""
        self.results: dict[str, Event] = {}
        """The last result of each kind."""
        self.registered: Event | None = None
        """The last entry in the registry."""
        self.started: float | None = None
        self.resumes: set[float] = set()
        self.last_time = -math.inf
        self.running: set[str] = set()
        self.peak_running = 0
        self.cohorts: dict[Kind, Cohort] = {"search": Cohort(), "seed": Cohort()}
        self.planned_trials: int | None = None
        """What the stage says it will train, where that differs from the specification."""
        self.plan: Event | None = None
        """The last forecast: seconds by stage, and the deadline."""
        self.costs = EQUAL
        """Of the epochs of a trial, by the last plan that there was."""
        self.peak_memory_bytes = 0
        """The most that a worker had."""
        self.abandoned = False
        """No process works on the run any more, whatever its journal leaves open."""
        self._halted = -math.inf
        self._clock = Clock()

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> "RunState":
        """The state after `events`."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Fold one event in; kinds that this version does not know change nothing."""
        time = float(event.get("time", self.last_time))
        self.abandoned = False
        handler = _HANDLERS.get(str(event.get("event")))
        if handler is not None:
            handler(self, event, time)
        self.last_time = max(self.last_time, time)

    def abandon(self) -> None:
        """Nobody holds the run's journal: what it leaves open was broken off."""
        self.abandoned = True
        self.running = set()

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epoch budgets of the sweep, rising."""
        return tuple(self.spec.get("rungs", ()))

    def planned(self, kind: Kind = "search") -> int:
        """How many trials of this kind there are to be; 0 where that is not known."""
        if kind == "seed":
            return int(self.spec.get("members", 0))
        if self.planned_trials is None and self.plan is not None and self.plan["trials"] is None:
            return 0  # as many as there is time for
        return self.planned_trials or int(self.spec.get("trials", 0))

    @property
    def stage(self) -> str | None:
        """The stage under way: of the open ones, the last in the chain."""
        return next((name for name in reversed(self.stages) if self.stages[name].open), None)

    @property
    def active(self) -> bool:
        """The journal does not say that the work is over (a killed run never says so)."""
        return not self.interrupted and self._unfinished

    def ended(self, kind: Kind) -> bool:
        """The trials of this kind are through, and no resume has taken them up again."""
        end = self.ends.get(kind)
        if end is None or end.get("reason") == "interrupted":
            return False
        return end.get("reason") == "finished" or end["time"] >= self._last_resume

    @property
    def interrupted(self) -> bool:
        """The work was broken off, and nothing has taken it up again."""
        if self.abandoned:
            return self._unfinished
        if any(self.stages[name].open for name in PREPARATION):
            return False
        last = max(self.ends.values(), key=lambda end: float(end["time"]), default=None)
        if last is None or last.get("reason") != "interrupted":
            return False
        return bool(last["time"] >= self._last_resume)

    @property
    def _last_resume(self) -> float:
        return max(self.resumes, default=-math.inf)

    @property
    def _unfinished(self) -> bool:
        return self.stage is not None or bool(self.running) or not self.ended("search")

    @property
    def deadline(self) -> float | None:
        """When the run has to be over, in unix seconds; None without a time budget."""
        return finite(self.plan.get("deadline")) if self.plan is not None else None

    def at(self, now: float) -> float:
        """`now` while somebody works on the run, else when it was last heard of."""
        return now if self.active else self.last_time

    def status(self, trial: TrialState) -> TrialStatus:
        """Where a trial stands; `pending` is one that was interrupted and waits."""
        if trial.outcome is not None:
            return trial.outcome
        return "running" if trial.name in self.running else "pending"

    def of_status(self, *wanted: TrialStatus, kind: Kind | None = None) -> list[TrialState]:
        """The trials in any of these states, in order of name."""
        found = (trial for trial in self.trials.values() if self.status(trial) in wanted)
        return sorted(
            (trial for trial in found if kind in (None, trial.kind)), key=lambda trial: trial.name
        )

    def ranked(self, *, kind: Kind = "search") -> list[TrialState]:
        """Scored trials, best first: those at a higher rung stand before the others."""
        scored = [trial for trial in self.trials.values() if trial.kind == kind and trial.scores]
        return sorted(scored, key=lambda trial: trial.rank)

    @property
    def best(self) -> TrialState | None:
        """Of the search: lowest val_nll at the highest rung that any trial has reached."""
        return self.cohorts["search"].best

    def rung_counts(self) -> dict[int, RungCount]:
        """By rung, from the lowest: trials of the search that arrived, went on, were stopped."""
        return self.cohorts["search"].rung_counts(self.rungs)

    def elapsed(self, now: float) -> float:
        """Wall seconds spent on the run, pauses between resumes left out."""
        return self._clock.seconds(self.at(now))

    # The handlers. Each tolerates missing fields, repeats and any order.

    def _run_started(self, event: Event, time: float) -> None:
        if self.started is not None and time >= self.started:
            return
        self.run = str(event.get("run", ""))
        self.spec = event.get("spec") or {}
        self.about = {key: event.get(key) for key in _ABOUT}
        self.started = time
        if self._clock.began is None:
            self._clock.begin(time, time)

    def _run_resumed(self, event: Event, time: float) -> None:
        if time in self.resumes:
            return
        self.resumes.add(time)
        self.run = self.run or str(event.get("run", ""))
        self._begin(time)
        self.plan = None
        self._halt(time)

    def _begin(self, time: float) -> None:
        """A process takes the run up; stages that an earlier one left open go on."""
        if time >= self.last_time:
            for stage in self.stages.values():
                stage.go_on(time, self.last_time)
        self._clock.begin(time, self.last_time)

    def _planned(self, event: Event, time: float) -> None:
        if self.plan is None or time >= self.plan["time"]:
            self.plan = {"trials": None, **event, "time": time}
            self.costs = StageCosts.of_event(event)

    def _sweep_ended(self, event: Event, time: float) -> None:
        kind = str(event.get("kind", "search"))
        if kind not in self.ends or time > self.ends[kind]["time"]:
            self.ends[kind] = {**event, "time": time}
        self._halt(time)

    def _halt(self, time: float) -> None:
        """No trial that has not been heard of since `time` runs any more."""
        self._halted = max(self._halted, time)
        self.running = {n for n in self.running if self.trials[n].seen >= self._halted}

    def _trial(self, event: Event, time: float) -> TrialState:
        name = str(event.get("trial", ""))
        trial = self.trials.get(name)
        if trial is None:
            kind: Kind = "seed" if name.startswith("s") else "search"
            trial = self.trials[name] = TrialState(name=name, kind=kind)
        trial.seen = max(trial.seen, time)
        if trial.outcome is None and trial.seen >= self._halted:
            self.running.add(name)
            self.peak_running = max(self.peak_running, len(self.running))
        return trial

    def _trial_started(self, event: Event, time: float) -> None:
        self._trial(event, time).start(event)

    def _trial_retried(self, event: Event, time: float) -> None:
        self._trial(event, time).retry(event)

    def _epoch(self, event: Event, time: float) -> None:
        trial = self._trial(event, time)
        if int(event.get("step", 0)) in trial.steps:
            return
        seconds = trial.lap(time, finite(event.get("seconds")), since=self._halted)
        if seconds is not None:
            epoch = int(event.get("epoch", event.get("step", 1)))
            cohort, cost = self.cohorts[trial.kind], self.costs.of_step(epoch, before=trial.epoch)
            cohort.time(seconds, cost)
        memory = int(finite(event.get("peak_memory_bytes")) or 0)
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        score = trial.report(event)
        if event.get("rung") is not None:
            self.cohorts[trial.kind].score(trial, int(event["rung"]), score)

    def _decision(self, event: Event, time: float) -> None:
        trial = self._trial(event, time)
        self.cohorts[trial.kind].decide(trial, int(event["rung"]), str(event.get("decision")))

    def _trial_ended(self, event: Event, time: float) -> None:
        trial = self._trial(event, time)
        trial.end(event)
        self.running.discard(trial.name)

    def _stage(self, event: Event, time: float) -> None:
        name = str(event.get("stage"))
        stage = self.stages.get(name)
        if stage is None:
            return
        begins = event.get("status") == "started" and not stage.open
        if not stage.apply(event, time):
            return
        if begins and name == PREPARATION[0]:
            self._begin(time)  # of a process that has not opened the journal yet
        if name == "sweep" and event.get("trials") is not None:
            self.planned_trials = int(event["trials"])

    def _result(self, event: Event, time: float) -> None:
        kind = str(event.get("kind"))
        if kind not in self.results or time >= self.results[kind]["time"]:
            self.results[kind] = {**event, "time": time}

    def _registration(self, event: Event, time: float) -> None:
        if self.registered is None or time >= self.registered["time"]:
            self.registered = {**event, "time": time}


_ABOUT = ("split_id", "fingerprint", "sizes", "machine", "code_version")

_HANDLERS = {
    "run_started": RunState._run_started,
    "run_resumed": RunState._run_resumed,
    "trial_started": RunState._trial_started,
    "trial_retried": RunState._trial_retried,
    "trial_ended": RunState._trial_ended,
    "epoch": RunState._epoch,
    "decision": RunState._decision,
    "sweep_ended": RunState._sweep_ended,
    "plan": RunState._planned,
    "stage": RunState._stage,
    "result": RunState._result,
    "registered": RunState._registration,
}
