"""Forecast when the stages of a run end, from its state so far.

A stage that has not begun takes as long as the run's plan says, if there is one. The remaining time
of a stage that reports its progress is extrapolated from its own pace; until a tenth is done, that
estimate is mixed with the plan's. Trials are forecast from the pace observed so far and the steps
that remain:

One step is one trained epoch; where the stages of a recipe cost differently, it is weighted by its
cost (see StageCosts). With q_j the probability that a trial scored at rung j continues, and Δ_j the
steps from rung j−1 to rung j, a new trial trains Σ_j q_1…q_{j−1} Δ_j steps on average. The trials
of a kind end after

    seconds per step × max(Σ remaining steps / concurrency, most remaining steps of one trial)

where the second term is the tail, in which the last trial runs alone.

Error as a share of the whole sweep, over 40 simulated sweeps per setting (η = 3, rungs 3/9/27): its
mean, and the 90th percentile of its absolute value. With 24 trials on 2 slots, −0.01 and 0.34 after
a quarter of the time, 0.02 and 0.22 after half; with 200 trials on 8 slots, −0.09 and 0.24 after a
quarter, −0.07 and 0.18 after half.
"""

import math

from common.stage_costs import StageCosts, cost_after, cost_at_rungs
from journal.events import PREPARATION, STAGES, Kind
from journal.state import RunState
from journal.trial import Trial
from trainables.recipe import Recipe

MIN_STEPS_PER_TRIAL = 2
"""Steps per concurrent trial that must be observed before anything is forecast."""
TRUSTED_FRACTION = 0.1
"""Share of a stage after which its own pace alone predicts its end."""
CONTINUE_PRIOR = 4
"""Weight of the prior probability 1/η that a trial continues: this many times η arrivals."""


def stage_seconds_left(state: RunState, now: float) -> dict[str, float]:
    """Return the seconds that each stage still needs, for the stages that can be forecast.

    A stage that has ended needs none. No forecast exceeds a deadline: stages are shortened to
    meet it.
    """
    seconds = {}
    for name in (*PREPARATION, *STAGES):
        stage = state.stages[name]
        if stage.status in ("finished", "skipped"):
            seconds[name] = 0.0
            continue
        forecast = _forecast_open(state, name, now) if stage.open else _planned(state, name)
        if forecast is not None:
            seconds[name] = forecast
    return seconds


def run_seconds_left(state: RunState, now: float) -> float | None:
    """Return the seconds until the whole run ends; None while a stage cannot be forecast."""
    left = stage_seconds_left(state, now)
    if not all(name in left for name in STAGES):
        return None
    total = sum(left.values())
    return total if state.deadline is None else max(0.0, min(total, state.deadline - now))


def done_share(state: RunState, name: str) -> float | None:
    """Return the share of a stage that is done, in [0, 1]; None if it is unknown."""
    if name == "sweep":
        ended = sum(state.trials.cohorts["search"].ended.values())
        return min(1.0, ended / state.planned()) if state.planned() else None
    if name == "seeds":
        fresh = _new_trial("seed")
        whole = state.planned("seed") * sum(_steps_to_rungs(state, fresh)[-1:])
        seeds = state.trials.of_kind("seed")
        return min(1.0, sum(_done(state, trial) for trial in seeds) / whole) if whole else None
    return state.stages[name].fraction


def trials_seconds_left(state: RunState, now: float) -> float | None:
    """Return the seconds until the search ends or, after it, until the seeds are trained.

    0.0 if neither is running; None while too little has been observed for a good forecast.
    """
    kind = _running_kind(state)
    if kind is None:
        return 0.0
    if not state.rungs:
        return None
    pace, timed = (
        state.trials.cohorts[kind].seconds_per_step,
        state.trials.cohorts[kind].timed_epochs,
    )
    if pace is None or timed < MIN_STEPS_PER_TRIAL * state.trials.peak_running:
        return None
    trials = state.trials.with_status("running", "pending", kind=kind)
    each = [_steps_left(state, trial, now=now, pace=pace) for trial in trials]
    not_started = max(0, state.planned(kind) - _started(state, kind))
    fresh = _new_trial(kind)
    total = sum(each) + not_started * _steps_left(state, fresh)
    tail = max([0.0, *each])
    if kind == "search" and not state.rung_counts()[state.rungs[-1]].arrived:
        # The first trial to arrive at a rung always continues, so one runs its whole schedule.
        whole = [_steps_left(state, trial, now=now, pace=pace, whole=True) for trial in trials]
        tail = max(tail, min(whole, default=_steps_to_rungs(state, fresh)[-1]))
    return pace * max(total / max(1, state.trials.peak_running), tail)


def _forecast_open(state: RunState, name: str, now: float) -> float | None:
    """Forecast a stage that has begun and not ended."""
    stage = state.stages[name]
    spent = stage.seconds(now) or 0.0
    planned = _planned(state, name)
    rest = None if planned is None or planned <= spent else planned - spent
    if name in ("sweep", "seeds"):
        end = _end_by_deadline(state, name)
        if end is not None and not state.planned("search" if name == "sweep" else "seed"):
            return max(0.0, end - now)
        done = done_share(state, name) == 1.0
        left = 0.0 if done else trials_seconds_left(state, now) or rest
        return left if left is None or end is None else max(0.0, min(left, end - now))
    fraction = stage.fraction or 0.0
    if fraction <= 0.0:
        return rest
    left = spent / fraction - spent
    trust = min(1.0, fraction / TRUSTED_FRACTION)
    return left if rest is None else trust * left + (1 - trust) * rest


def _planned(state: RunState, name: str) -> float | None:
    """Return the time that the plan gives a stage."""
    return None if state.plan is None else state.plan.seconds.get(name)


def _end_by_deadline(state: RunState, name: str) -> float | None:
    """Return when a stage must end to leave time for later stages, in unix seconds."""
    if state.deadline is None:
        return None
    later = STAGES[STAGES.index(name) + 1 :]
    return state.deadline - sum(_planned(state, stage) or 0.0 for stage in later)


def _running_kind(state: RunState) -> Kind | None:
    if not state.ended("search"):
        return "search"
    seeds_begun = state.stages["seeds"].open or _started(state, "seed") > 0
    return "seed" if seeds_begun and not state.ended("seed") else None


def _started(state: RunState, kind: Kind) -> int:
    return len(state.trials.cohorts[kind].trials)


def _steps_left(
    state: RunState,
    trial: Trial,
    *,
    now: float = -math.inf,
    pace: float = math.inf,
    whole: bool = False,
) -> float:
    """Return the steps that `trial` is still expected to train.

    With `whole` it is assumed never to stop at a rung. The part of the current step that has passed
    by `now` does not count.
    """
    left, chance, done = 0.0, 1.0, _done(state, trial)
    for rung, steps in zip(_rungs(state, trial), _steps_to_rungs(state, trial), strict=True):
        if rung not in trial.scores:
            left += chance * max(0, steps - done)
        done = max(done, steps)
        chance *= 1.0 if whole else _continue_probability(state, trial, rung)
    if trial.name not in state.trials.running or now <= trial.last_seen:
        return left
    present_step = _done(state, trial, trial.step + 1) - _done(state, trial)
    return max(0.0, left - min(present_step, (now - trial.last_seen) / pace))


def _costs(state: RunState, trial: Trial) -> StageCosts:
    return state.trials.costs_of(trial.recipe)


def _new_trial(kind: Kind) -> Trial:
    """Return a trial that has not started."""
    return Trial(name="", number=0, kind=kind, recipe={}, seed=0)


def _rungs(state: RunState, trial: Trial) -> tuple[int, ...]:
    """Return the rungs at which a trial is scored; seeds are scored only at the end."""
    return state.rungs if trial.kind == "search" else state.rungs[-1:]


def _steps_to_rungs(state: RunState, trial: Trial) -> tuple[float, ...]:
    """Return the steps up to each rung of a trial."""
    return cost_at_rungs(
        _rungs(state, trial), _cooldown_fraction(state, trial), _costs(state, trial)
    )


def _done(state: RunState, trial: Trial, step: int | None = None) -> float:
    """Return the weight of the first `step` steps of a trial, by default of all it has trained."""
    after = cost_after(_rungs(state, trial), _cooldown_fraction(state, trial), _costs(state, trial))
    step = trial.step if step is None else step
    return after[min(step, len(after) - 1)]


def _cooldown_fraction(state: RunState, trial: Trial) -> float:
    recipe = trial.recipe or state.spec.get("recipe") or {}
    return float(recipe.get("cooldown_fraction", _USUAL_COOLDOWN))


def _continue_probability(state: RunState, trial: Trial, rung: int) -> float:
    """Return the probability that a trial continues after `rung`.

    0 or 1 if it has been decided, else the share of trials that continued so far, shrunk
    towards 1/η. The first arrival is left out, because it always continues; with families, the
    first of each.
    """
    if rung in trial.decisions:
        return 1.0 if trial.decisions[rung].decision == "continue" else 0.0
    count = state.rung_counts()[rung]
    factor = int(state.spec.get("reduction_factor", 3))
    firsts = max(1, len(state.spec.get("families") or ()))
    continued = max(0, count.continued - firsts)
    decided = continued + count.stopped
    return (continued + CONTINUE_PRIOR) / (decided + CONTINUE_PRIOR * factor)


_USUAL_COOLDOWN = Recipe().schedule.cooldown_fraction
