"""When the stages of a run will be over.

Stages that have not begun take what the run's plan says, if it has one. A stage under way
that tells how much of it is done takes as much longer as the rest of it is to that; before
its first tenth the plan is believed too, the more the earlier. Trials are forecast from the
pace observed and the steps outstanding:

A trial's step is one trained epoch; where the stages of a recipe cost differently, it counts
as many as it costs (common/stage_costs.py). With q_j the chance that a trial scored at rung j goes
on, and Δ_j the steps from rung j−1 to rung j, a new trial trains Σ_j q_1…q_{j−1} Δ_j steps
in the mean. The trials of a kind end after

    seconds per step × max(Σ steps outstanding / concurrency, the most of a single trial)

where the second term is the tail, in which the last trial runs alone. Over 40 simulated
sweeps each (η = 3, rungs 3/9/27), the error as a share of the whole sweep has the mean and
the 90th percentile of its size: 24 trials on 2 slots −0.01 and 0.34 at a quarter of the
time, 0.02 and 0.22 at a half; 200 trials on 8 slots −0.09 and 0.24, −0.07 and 0.18.
"""

import math

from common.stage_costs import cost_after, cost_at_rungs
from journal.events import PREPARATION, STAGES, Kind
from journal.state import RunState
from journal.trials import Trial
from trainables.recipe import Recipe

MIN_STEPS_EACH = 2
"""Steps to be observed per concurrent trial before anything is forecast."""
TRUSTED_FRACTION = 0.1
"""Share of a stage from which on its own pace alone says when it ends."""


def stages_left(state: RunState, now: float) -> dict[str, float]:
    """Seconds that each stage still takes, for those of which anything is known.

    A stage that is over takes none. No deadline is overrun: stages shorten instead.
    """
    found = {}
    for name in (*PREPARATION, *STAGES):
        stage = state.stages[name]
        if stage.status in ("finished", "skipped"):
            found[name] = 0.0
            continue
        left = _own_forecast(state, name, now) if stage.open else _planned(state, name)
        if left is not None:
            found[name] = left
    return found


def run_left(state: RunState, now: float) -> float | None:
    """Seconds until the whole run is through; None while a stage of it is not forecast."""
    left = stages_left(state, now)
    if not all(name in left for name in STAGES):
        return None
    total = sum(left.values())
    return total if state.deadline is None else max(0.0, min(total, state.deadline - now))


def done_share(state: RunState, name: str) -> float | None:
    """How much of a stage is done, in [0, 1]; None where it cannot be told."""
    if name == "sweep":
        ended = len(state.with_status("completed", "pruned", "failed", kind="search"))
        return min(1.0, ended / state.planned()) if state.planned() else None
    if name == "seeds":
        fresh = _fresh("seed")
        whole = state.planned("seed") * sum(_all_steps(state, fresh)[-1:])
        seeds = [trial for trial in state.trials.values() if trial.kind == "seed"]
        return min(1.0, sum(_done(state, trial) for trial in seeds) / whole) if whole else None
    return state.stages[name].fraction


def _own_forecast(state: RunState, name: str, now: float) -> float | None:
    """Of a stage under way."""
    stage = state.stages[name]
    spent = stage.seconds(now) or 0.0
    planned = _planned(state, name)
    rest = None if planned is None or planned <= spent else planned - spent
    if name in ("sweep", "seeds"):
        end = _end_by_deadline(state, name)
        if end is not None and not state.planned("search" if name == "sweep" else "seed"):
            return max(0.0, end - now)
        left = 0.0 if done_share(state, name) == 1.0 else seconds_left(state, now) or rest
        return left if left is None or end is None else max(0.0, min(left, end - now))
    fraction = stage.fraction or 0.0
    if fraction <= 0.0:
        return rest
    left = spent / fraction - spent
    trust = min(1.0, fraction / TRUSTED_FRACTION)
    return left if rest is None else trust * left + (1 - trust) * rest


def _planned(state: RunState, name: str) -> float | None:
    """What the plan gives a stage."""
    return None if state.plan is None else state.plan.seconds.get(name)


def _end_by_deadline(state: RunState, name: str) -> float | None:
    """When a stage has to end for the later ones to have their time, in unix seconds."""
    if state.deadline is None:
        return None
    later = STAGES[STAGES.index(name) + 1 :]
    return state.deadline - sum(_planned(state, stage) or 0.0 for stage in later)


def seconds_left(state: RunState, now: float) -> float | None:
    """Seconds until the search, or the training of the seeds after it, is through.

    0.0 when neither is under way; None while the evidence is thin, rather than a wrong guess.
    """
    kind = _kind_under_way(state)
    if kind is None:
        return 0.0
    if not state.rungs:
        return None
    pace, timed = state.cohorts[kind].seconds_per_step, state.cohorts[kind].timed_epochs
    if pace is None or timed < MIN_STEPS_EACH * state.peak_running:
        return None
    trials = state.with_status("running", "pending", kind=kind)
    own = [_steps_left(state, trial, now=now, pace=pace) for trial in trials]
    unborn = max(0, state.planned(kind) - _born(state, kind))
    fresh = _fresh(kind)
    total = sum(own) + unborn * _steps_left(state, fresh)
    tail = max([0.0, *own])
    if kind == "search" and not state.rung_counts()[state.rungs[-1]].arrived:
        # The first to arrive at a rung always goes on, so some trial runs the whole way.
        whole = [_steps_left(state, trial, now=now, pace=pace, sure=True) for trial in trials]
        tail = max(tail, min(whole, default=_all_steps(state, fresh)[-1]))
    return pace * max(total / max(1, state.peak_running), tail)


def _kind_under_way(state: RunState) -> Kind | None:
    if not state.ended("search"):
        return "search"
    seeds_begun = state.stages["seeds"].open or _born(state, "seed") > 0
    return "seed" if seeds_begun and not state.ended("seed") else None


def _born(state: RunState, kind: Kind) -> int:
    return sum(trial.kind == kind for trial in state.trials.values())


def _steps_left(
    state: RunState,
    trial: Trial,
    *,
    now: float = -math.inf,
    pace: float = math.inf,
    sure: bool = False,
) -> float:
    """Steps that `trial` is expected still to train, or will if it is `sure` never to stop.

    The step under way counts in part.
    """
    left, chance, begun = 0.0, 1.0, _done(state, trial)
    for rung, steps in zip(_rungs(state, trial), _all_steps(state, trial), strict=True):
        if rung not in trial.scores:
            left += chance * max(0, steps - begun)
        begun = max(begun, steps)
        chance *= 1.0 if sure else _chance(state, trial, rung)
    if trial.name not in state.running or now <= trial.last_seen:
        return left
    under_way = _done(state, trial, trial.step + 1) - _done(state, trial)
    return max(0.0, left - min(under_way, (now - trial.last_seen) / pace))


def _fresh(kind: Kind) -> Trial:
    """Return a trial that has not begun."""
    return Trial(name="", number=0, kind=kind, recipe={}, seed=0)


def _rungs(state: RunState, trial: Trial) -> tuple[int, ...]:
    """Seeds are scored at the end alone."""
    return state.rungs if trial.kind == "search" else state.rungs[-1:]


def _all_steps(state: RunState, trial: Trial) -> tuple[float, ...]:
    """Up to each of its rungs."""
    return cost_at_rungs(_rungs(state, trial), _cooldown(state, trial), state.costs)


def _done(state: RunState, trial: Trial, step: int | None = None) -> float:
    """What the first `step` steps of `trial` count, by default those that it has trained."""
    after = cost_after(_rungs(state, trial), _cooldown(state, trial), state.costs)
    step = trial.step if step is None else step
    return after[min(step, len(after) - 1)]


def _cooldown(state: RunState, trial: Trial) -> float:
    recipe = trial.recipe or state.spec.get("recipe") or {}
    return float(recipe.get("cooldown_fraction", _USUAL_COOLDOWN))


def _chance(state: RunState, trial: Trial, rung: int) -> float:
    """That `trial` goes on after `rung`: as decided, else the share so far, drawn to 1/η.

    The first arrival tells nothing: it always goes on. The prior is worth 4η arrivals.
    """
    if rung in trial.decisions:
        return 1.0 if trial.decisions[rung].decision == "continue" else 0.0
    count = state.rung_counts()[rung]
    factor = int(state.spec.get("reduction_factor", 3))
    continued, decided = max(0, count.continued - 1), max(0, count.continued + count.stopped - 1)
    return (continued + 4) / (decided + 4 * factor)


_USUAL_COOLDOWN = Recipe().schedule.cooldown_fraction
