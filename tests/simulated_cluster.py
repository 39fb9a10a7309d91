"""Simulate a run with a time budget on workers of different speeds, without training or waiting.

The plan, the deadlines, ASHA's decisions, the number of seeds and the student's epochs come from
the real code; trials and stages only take time. A machine of speed 0.25 needs four times as long
as one of speed 1 for an epoch, and for what it does besides training.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from common.rungs import epochs_trained, steps_at_rungs
from common.stage_costs import EQUAL, cost_at_rungs
from ensemble.student.distillation import StudentResult
from ensemble.student.epoch_budget import EpochBudget, EpochSeconds
from journal.events import Kind, RungDecided
from journal.state import RunState
from search.schedulers.asha import Asha
from search.space.spec import SweepSpec
from search.timetable.capacity import Capacity, Node
from search.timetable.deadlines import Deadlines, seeds_that_fit
from search.timetable.measuring import Setup, measure_pace
from search.timetable.pace import Pace, overhead_seconds
from search.timetable.plan import Plan, plan_run
from search.tune.cluster_site import ClusterSite
from tests.events import epoch, run_started, trial_ended, trial_started
from tests.simulated_tune import IMAGES, SPLITS
from trainables.device.rehearsal import Rehearsal
from trainables.recipe import Numerics, Recipe
from trainables.trainer import EpochReport

HEAD = Rehearsal(
    pass_seconds=(10.0,),
    score_seconds=(0.5,),
    entry_seconds=(0.0,),
    forward_seconds=2.0,
    predict_seconds=2.0,
)
"""Times of a network on a machine of speed 1."""

LARGE = replace(
    SPLITS, train=np.arange(30_000), val=np.arange(2_000), holdout=np.arange(5_000),
    test=np.arange(10_000),
)  # fmt: skip
"""The number of images that these times are for."""

SPREAD = (0.95, 1.11)
"""Least and most time of an epoch, as a share of the rehearsal's."""


def on_speed(speed: float) -> Rehearsal:
    """Return the times on a worker of this speed."""
    return Rehearsal(
        pass_seconds=tuple(each / speed for each in HEAD.pass_seconds),
        score_seconds=tuple(each / speed for each in HEAD.score_seconds),
        entry_seconds=HEAD.entry_seconds,
        forward_seconds=HEAD.forward_seconds / speed,
        predict_seconds=HEAD.predict_seconds / speed,
        slowness=slowness_of(speed),
    )


def slowness_of(speed: float) -> float:
    """Return the time that Python takes at this speed, as a multiple of the usual one."""
    return max(1.0, 1 / speed)


def pace_of(spec: SweepSpec, speeds: Sequence[float], *, head: float = 1.0) -> Pace:
    """Measure the pace of a cluster whose workers have these speeds, one core each.

    `head` is the speed of the machine with the driver.
    """
    nodes = tuple(Node(cores=1, name=str(number), id=str(number)) for number in range(len(speeds)))
    by_name = {node.name: speed for node, speed in zip(nodes, speeds, strict=True)}

    def everywhere(*_: Any, shares: dict[Node, Any]) -> dict[Node, Any]:
        return {node: on_speed(by_name[node.name]) for node in shares}

    site = ClusterSite(
        capacity=lambda: Capacity(nodes=nodes),
        everywhere=everywhere,
        send=lambda *_, **__: None,
        driver_slowness=lambda: slowness_of(head),
    )
    setup = Setup(
        images=IMAGES,
        splits=LARGE,
        numerics=Numerics(),
        cores=1,
        workers=len(nodes),
        workers_per_machine=1,
        site=site,
    )
    return measure_pace(spec, setup, seconds=1.0)


@dataclass(slots=True)
class SimulatedRun:
    """One run; `now` is the simulated time in seconds since its start."""

    spec: SweepSpec
    speeds: Sequence[float]
    budget: float
    rng: np.random.Generator
    folder: Path
    """Takes the plan of the student's epochs."""
    head: float = 1.0
    """The speed of the machine with the driver."""
    now: float = 0.0
    ended: int = 0
    """Trials and seeds that ran their whole schedule."""

    def run(self) -> Plan:
        """Run all stages; return the plan."""
        pace = pace_of(self.spec, self.speeds, head=self.head)
        plan = plan_run(self.spec, pace, now=self.now, deadline=self.budget)
        spec = plan.apply_to(self.spec)
        state = RunState.from_events([run_started(spec=spec.to_mapping())])
        self._besides_training(spec, "sweep")
        sweep = Deadlines(finish=plan.end_of("sweep"), stop=plan.cutoff("sweep"), clock=self.clock)
        self._train(state, spec.rungs, spec.base_recipe(), sweep, kind="search")
        if plan.seconds["seeds"]:
            self._besides_training(spec, "seeds")
            self._seeds(state, spec, plan)
        self._besides_training(spec, "select")
        self._distill(spec, plan)
        self._besides_training(spec, "ledger")
        self._besides_training(spec, "report")
        return plan

    def clock(self) -> float:
        """Return the simulated time."""
        return self.now

    def _wait(self, seconds: float) -> None:
        self.now += seconds

    def _noise(self) -> float:
        return float(self.rng.uniform(*SPREAD))

    def _any_speed(self) -> float:
        return float(self.rng.choice(self.speeds))

    def _train(
        self, state: RunState, rungs: tuple[int, ...], recipe: Recipe, deadlines: Deadlines,
        *, kind: Kind, most: float = math.inf,
    ) -> None:  # fmt: skip
        """Train trials on all workers, each with the next one as soon as it is free."""
        scheduler = Asha(rungs, self.spec.reduction_factor)
        fraction = recipe.schedule.cooldown_fraction
        steps = dict(zip(steps_at_rungs(rungs, fraction), rungs, strict=True))
        last = len(epochs_trained(rungs, fraction))
        free = [*range(len(self.speeds))]
        waiting: list[tuple[float, str, int, int]] = []
        started = 0

        def begin(name: str, worker: int, step: int) -> None:
            seconds = on_speed(self.speeds[worker]).train_seconds * self._noise()
            heapq.heappush(waiting, (self.now + seconds, name, worker, step))

        while True:
            while free and started < most:
                if not deadlines.allow_trial(rungs, state, recipe, kind=kind):
                    break
                name = f"{'t' if kind == 'search' else 's'}{started:04d}"
                state.apply(trial_started(name, self.now, kind=kind, recipe=recipe.to_mapping()))
                begin(name, free.pop(int(self.rng.integers(len(free)))), 1)
                started += 1
            if not waiting:
                return
            time, name, worker, step = heapq.heappop(waiting)
            if deadlines.stop is not None and time > deadlines.stop:
                self.now = deadlines.stop  # everything is stopped
                state.trials.halt(self.now)
                return
            self.now = time
            rung = steps.get(step)
            score = float(self.rng.random()) + 1 / step
            seconds = on_speed(self.speeds[worker]).train_seconds
            state.apply(epoch(name, step, time, rung=rung, val_nll=score, seconds=seconds))
            if rung is not None and rung != rungs[-1] and kind == "search":
                trial = state.trials[name]
                decision = scheduler.decide(
                    rung, score, in_time=deadlines.allow_next_rung(rungs, trial, rung)
                )
                state.apply(
                    RungDecided(
                        trial=name, rung=rung, value=score, decision=decision.action,
                        cutoff=decision.cutoff, reason=decision.reason, time=time,
                    )
                )  # fmt: skip
                if decision.action == "stop":
                    state.apply(trial_ended(name, "pruned", time, steps=step, rung=rung))
                if decision.action != "continue":
                    free.append(worker)
                    continue
            if step == last:
                state.apply(trial_ended(name, "completed", time, kind=kind, steps=step, rung=rung))
                self.ended += 1
                free.append(worker)
            else:
                begin(name, worker, step + 1)

    def _seeds(self, state: RunState, spec: SweepSpec, plan: Plan) -> None:
        """Train as many seeds of the base recipe, for as long, as `quorum.seeds` would."""
        recipe, end = spec.base_recipe(), plan.end_of("seeds")
        pace = state.trials.pace(recipe.to_mapping())
        assert end is not None
        assert pace is not None
        count, epochs = seeds_that_fit(
            count=spec.members,
            epochs=recipe.schedule.epochs,
            workers=len(self.speeds),
            schedule_seconds=lambda epochs: (
                pace * cost_at_rungs((epochs,), recipe.schedule.cooldown_fraction, EQUAL)[-1]
            ),
            seconds=end - self.now,
        )
        cutoff = plan.cutoff("seeds")
        deadlines = Deadlines(finish=cutoff, stop=cutoff, clock=self.clock)
        self._train(
            state, (epochs,), recipe.with_values(epochs=epochs), deadlines, kind="seed", most=count
        )

    def _distill(self, spec: SweepSpec, plan: Plan) -> None:
        speed, end = self._any_speed(), plan.end_of("distill")
        assert end is not None
        plain = on_speed(speed).train_seconds
        taught = plain + spec.members * on_speed(speed).forward_seconds
        budget = EpochBudget(
            spec.student_recipe(),
            self.folder / f"{self.rng.integers(2**62)}.json",
            deadline=end - plan.export_seconds,
            rehearse=lambda: EpochSeconds(taught=taught, plain=plain),
            clock=self.clock,
        )
        done = 0

        def train(recipe: Recipe, on_report: Any) -> StudentResult:
            nonlocal done
            while done < recipe.schedule.epochs:
                seconds = taught * self._noise()
                self._wait(seconds)
                done += 1
                on_report(report_of(done, seconds))
            return cast("StudentResult", None)  # nobody reads it

        budget.train(train, lambda _: None)
        self._wait(budget.epochs * plain * self._noise())
        self._besides_training(spec, "distill", speed=speed)

    def _besides_training(self, spec: SweepSpec, stage: str, *, speed: float | None = None) -> None:
        """Take the time that a stage takes on the head and on one worker, besides training.

        The times of a plan are upper limits: a stage takes 0.5 to 1 times as long.
        """
        alone = pace_of(spec, [speed or self._any_speed()], head=self.head)
        needed = overhead_seconds(spec, replace(alone, workers=len(self.speeds)))[stage]
        self._wait(needed * float(self.rng.uniform(0.5, 1.0)))


def report_of(step: int, seconds: float) -> EpochReport:
    """Return the report of a student's epoch."""
    return EpochReport(
        step=step, epoch=step, phase="trunk", rung=None, train_loss=1.0, val_nll=1.0,
        val_accuracy=0.5, temperature=1.0, lr=0.1, seconds=seconds, images_per_second=1.0,
        peak_memory_bytes=0,
    )  # fmt: skip
