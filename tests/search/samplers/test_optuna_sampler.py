"""Suggestions depend on the study and the number alone; Optuna's study matches the journal."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from common.seeds import derive_seed
from journal.events import CheckpointSaved, Event, StageReported, TrialStarted
from journal.state import RunState
from quorum.testing.samplers import SamplerContract, SimulatedRun
from search.samplers.optuna_sampler import OptunaSampler, outcome
from search.samplers.suggestions import Suggestion
from search.space.space import Family, Space
from tests.events import epoch, of_type, state_of, trial_ended, trial_started
from trainables.recipe import Recipe

BASE = Recipe(epochs=9)
SPACE = Space.from_mapping(
    {
        "dropout": {"type": "float", "low": 0.0, "high": 0.9},
        "width": {"type": "int", "low": 8, "high": 64, "step": 8},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adamw"]},
        "momentum": {"type": "float", "low": 0.8, "high": 0.95, "when": {"optimizer": "sgd"}},
        "adamw_lr": {
            "type": "float", "low": 1e-4, "high": 1e-2, "log": True, "when": {"optimizer": "adamw"},
        },
    },
    base=BASE,
)  # fmt: skip
RUNGS = (1, 3, 9)


def sampler(state: RunState, **options: Any) -> OptunaSampler:
    settings = {"trials": 30, "startup_trials": 4, "seed": 5, "study": "run-abc", "path": None}
    return OptunaSampler(SPACE, state, **{**settings, **options})


class World(SimulatedRun):
    """A run in memory, and an Optuna sampler that follows it; trials of known scores."""

    sampler: OptunaSampler

    def __init__(self, events: Iterable[Event] = (), *, path: Path | None = None) -> None:
        super().__init__(lambda state: sampler(state, path=path), events)

    def run(self, suggestion: Suggestion) -> None:
        """Score and end a trial: two of four complete, one is pruned, one fails."""
        level = abs(suggestion.recipe.architecture.dropout - 0.3)
        fate = suggestion.number % 4
        scored = self.state.trials[suggestion.trial].scores
        for rung in RUNGS[: 3 if fate < 2 else fate - 1]:
            if rung not in scored:
                self.score(suggestion.trial, rung, level + 1 / rung)
        self.end(suggestion.trial, ("completed", "completed", "pruned", "failed")[fate])


class TestContractOfOptunaSampler(SamplerContract):
    def make(self, state: RunState) -> OptunaSampler:
        return sampler(state, trials=self.TRIALS)


def trials_of(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [
        (t.number, t.state, t.params, t.value, t.intermediate_values, t.user_attrs)
        for t in study.trials
    ]


def test_suggestions_are_legal_named_and_seeded() -> None:
    world = World()
    for number in range(30):
        suggestion = world.start()
        assert suggestion is not None
        assert (suggestion.trial, suggestion.number) == (f"t{number:04d}", number)
        assert suggestion.seed == derive_seed(5, "trial", number)
        assert SPACE.contains(SPACE.active(suggestion.recipe.to_mapping()))
        assert (suggestion.recipe.schedule.epochs, suggestion.attempt) == (9, 1)
        world.run(suggestion)
    assert world.start() is None
    assert not world.sampler.more


def test_optuna_holds_states_curves_and_values() -> None:
    world = World()
    for _ in range(5):
        suggestion = world.start()
        assert suggestion is not None
        if suggestion.number < 4:
            world.run(suggestion)
    complete, _, pruned, failed, running = world.sampler.study.trials
    assert complete.state is TrialState.COMPLETE
    assert list(complete.intermediate_values) == [1, 3, 9]
    assert complete.value == complete.intermediate_values[9]
    assert pruned.state is TrialState.PRUNED
    assert list(pruned.intermediate_values) == [1]
    assert pruned.value == pruned.intermediate_values[1]
    assert (failed.state, failed.value) == (TrialState.FAIL, None)
    assert running.state is TrialState.RUNNING
    assert world.sampler.study.study_name == "run-abc"


@settings(max_examples=15)
@given(cut=st.integers(0, 90), finished=st.integers(6, 14))
def test_the_next_suggestion_depends_on_study_and_number_alone(cut: int, finished: int) -> None:
    """A sampler rebuilt from any prefix of the journal draws what the live one drew."""
    world = World()
    for _ in range(finished):
        suggestion = world.start()
        assert suggestion is not None
        world.run(suggestion)
    cut = max(1, min(cut, len(world.events)))
    starts = [i for i, event in enumerate(world.events) if isinstance(event, TrialStarted)]
    resumed = World(world.events[:cut])
    unfinished = resumed.start() if resumed.state.trials.unfinished("search") else None
    begun = sum(start < cut for start in starts)
    if unfinished is not None:
        assert unfinished.trial == f"t{begun - 1:04d}"
        assert unfinished.attempt == 2
        resumed.run(unfinished)
    while (suggestion := resumed.start()) is not None and suggestion.number < finished:
        original = world.events[starts[suggestion.number]]
        assert isinstance(original, TrialStarted)
        assert suggestion.recipe.to_mapping() == original.recipe
        resumed.run(suggestion)


def test_the_study_is_rebuilt_from_the_journal_even_if_its_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    world = World(path=path)
    for _ in range(6):
        suggestion = world.start()
        assert suggestion is not None
        if suggestion.number < 5:
            world.run(suggestion)
    original = trials_of(world.sampler.study)
    whole = path.read_bytes()
    for spoilt in (whole[:-7], whole[:100] + b"\0" + whole[200:], b"", None):
        path.unlink() if spoilt is None else path.write_bytes(spoilt)
        # What a process killed in the middle of a write leaves behind.
        lock = tmp_path / "optuna.journal.lock"
        lock.symlink_to(path)
        resumed = World(world.events, path=path)
        assert trials_of(resumed.sampler.study) == original
        assert not lock.is_symlink()
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(path))
        )
        seen = optuna.load_study(study_name="run-abc", storage=storage)
        assert trials_of(seen) == original
        # The running trial can still be ended.
        resumed.score("t0005", 1, 0.5)
        resumed.end("t0005", "pruned")
        assert resumed.sampler.study.trials[5].state is TrialState.PRUNED


def test_scores_that_are_not_finite_neither_raise_nor_hang() -> None:
    world = World()
    statuses: tuple[Any, ...] = ("completed", "pruned", "failed")
    for status in statuses:
        suggestion = world.start()
        assert suggestion is not None
        world.score(suggestion.trial, 9, None)
        world.end(suggestion.trial, status)
    states = [trial.state for trial in world.sampler.study.trials]
    assert states == [TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL]
    assert [trial.value for trial in world.sampler.study.trials] == [None, None, None]
    for _ in range(10):
        suggestion = world.start()
        assert suggestion is not None
        world.run(suggestion)


RECIPE = BASE.to_mapping()


@pytest.mark.parametrize(
    ("scores", "status", "cause", "state", "value"),
    [
        ({1: 0.5, 9: 0.3}, "completed", None, TrialState.COMPLETE, 0.3),
        ({1: 0.5}, "completed", None, TrialState.PRUNED, math.inf),
        ({1: 0.5, 9: None}, "completed", None, TrialState.PRUNED, math.inf),
        ({1: 0.5, 3: 0.4}, "pruned", None, TrialState.PRUNED, 0.4),
        ({1: None}, "pruned", None, TrialState.PRUNED, None),
        ({1: 0.5}, "failed", "machine", TrialState.FAIL, None),
        ({}, "failed", "machine", TrialState.FAIL, None),
        ({1: 0.5, 3: 0.1}, "failed", "recipe", TrialState.PRUNED, math.inf),
        ({1: None}, "failed", "recipe", TrialState.PRUNED, None),
        ({}, "failed", "recipe", TrialState.PRUNED, None),
        ({1: 0.5}, None, None, TrialState.RUNNING, None),
    ],
)
def test_a_trial_gets_the_same_state_live_and_in_a_rebuilt_study(
    scores: dict[int, float | None],
    status: Any,
    cause: Any,
    state: TrialState,
    value: float | None,
) -> None:
    world = World()
    suggestion = world.start()
    assert suggestion is not None
    for rung, score in scores.items():
        world.score(suggestion.trial, rung, score)
    if status is not None:
        world.end(suggestion.trial, status, cause)
    assert outcome(world.state.trials[suggestion.trial]) == (state, value)
    rebuilt = World(world.events)
    assert trials_of(rebuilt.sampler.study) == trials_of(world.sampler.study)
    assert [(t.state, t.value) for t in rebuilt.sampler.study.trials] == [(state, value)]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["completed", "pruned", "failed"]),
                          st.sampled_from(["recipe", "machine"]), st.floats(0, 5) | st.none()),
                max_size=8))  # fmt: skip
def test_a_rebuilt_study_equals_the_live_one(
    fates: list[tuple[int, Any, Any, float | None]],
) -> None:
    world = World()
    for rungs, status, cause, value in fates:
        suggestion = world.start()
        assert suggestion is not None
        for rung in RUNGS[:rungs]:
            world.score(suggestion.trial, rung, value)
        world.end(suggestion.trial, status, cause if status == "failed" else None)
    assert trials_of(World(world.events).sampler.study) == trials_of(world.sampler.study)


def test_events_of_seeds_and_stages_change_nothing() -> None:
    world = World()
    suggestion = world.start()
    assert suggestion is not None
    world.run(suggestion)
    before = trials_of(world.sampler.study)
    world.emit(StageReported(stage="sweep", status="started", time=0))
    world.emit(trial_started("s00", kind="seed", recipe=RECIPE))
    world.emit(epoch("s00", 1, rung=9))
    world.emit(trial_ended("s00", kind="seed"))
    assert trials_of(world.sampler.study) == before
    assert trials_of(World(world.events).sampler.study) == before


def test_complete_trials_rank_before_pruned_ones() -> None:
    """TPE must not mistake a low score at a short budget for a good one, or the reverse.

    Trials with a dropout above 0.5 are stopped at the first rung with the lowest scores of
    all; TPE must still look below 0.5, where trials run to the end.
    """
    world = World()
    late = []
    while (suggestion := world.start()) is not None:
        if suggestion.recipe.architecture.dropout > 0.5:
            world.score(suggestion.trial, 1, 0.1)
            world.end(suggestion.trial, "pruned")
        else:
            for rung in RUNGS:
                world.score(suggestion.trial, rung, 1.0 + suggestion.recipe.architecture.dropout)
            world.end(suggestion.trial, "completed")
        late.append(suggestion.recipe.architecture.dropout)
    # Deterministic (seeded); uniform draws would put 44% above 0.5.
    assert sum(dropout > 0.5 for dropout in late[15:]) <= 3


def test_unfinished_trials_come_first_with_their_checkpoints() -> None:
    world = World()
    for _ in range(3):
        assert world.start() is not None
    world.score("t0001", 1, 0.5)
    world.emit(CheckpointSaved(trial="t0001", step=1, path="s-1/t0001/c_0", time=0))
    world.score("t0001", 3, 0.5)
    world.emit(CheckpointSaved(trial="t0001", step=2, path="s-1/t0001/c_1", time=0))
    world.end("t0000", "failed")
    resumed = World(world.events)
    again = [resumed.start() for _ in range(3)]
    assert [s.trial for s in again if s is not None] == ["t0001", "t0002", "t0003"]
    first = again[0]
    assert first is not None
    assert first.checkpoints == ("s-1/t0001/c_1", "s-1/t0001/c_0")
    started = of_type(world.events, TrialStarted)[1]
    assert (first.seed, first.recipe.to_mapping()) == (started.seed, started.recipe)


def test_a_trial_stopped_at_a_rung_is_scored_again_from_before_it() -> None:
    """Its checkpoint there is lost; from the last checkpoint it would train past its end."""
    state = state_of(
        trial_started("t0000", recipe=RECIPE),
        epoch("t0000", 1, rung=1),
        CheckpointSaved(trial="t0000", step=1, path="s/t0000/c0", time=0),
        epoch("t0000", 2),
        epoch("t0000", 3, rung=9),
        CheckpointSaved(trial="t0000", step=3, path="s/t0000/c1", time=0),
    )
    assert Suggestion.again(state.trials["t0000"]).checkpoints == ("s/t0000/c0",)


FAMILIES = Space.from_mapping(
    {"momentum": {"type": "float", "low": 0.8, "high": 0.95}},
    base=BASE,
    families={
        "tuned": Family(
            recipe=BASE.with_values(family="tuned", optimizer="adamw"),
            fixed=frozenset({"optimizer", "momentum"}),
            space={
                "adamw_lr": {
                    "type": "float", "low": 1e-4, "high": 1e-2, "log": True, "start": 2e-3,
                },
            },
        ),
        "scratch": Family(
            recipe=BASE.with_values(family="scratch"), fixed=frozenset(), space={},
        ),
    },
)  # fmt: skip


def test_the_first_trial_of_each_family_has_the_recommended_values_whatever_the_seed() -> None:
    for seed in range(5):
        world = World()
        drawn = OptunaSampler(
            FAMILIES, world.state, trials=9, startup_trials=2, seed=seed, study="f", path=None
        )
        first, second = drawn.next(), drawn.next()
        assert first is not None
        assert second is not None
        assert first.recipe.architecture.family == "tuned"
        assert first.recipe.optimizer.adamw_lr == 2e-3
        assert first.recipe.optimizer.momentum == BASE.optimizer.momentum
        assert second.recipe.architecture.family == "scratch"
        assert second.recipe.optimizer.momentum != BASE.optimizer.momentum


def family_sampler(state: RunState, *, seed: int = 0) -> OptunaSampler:
    return OptunaSampler(
        FAMILIES, state, trials=40, startup_trials=2, seed=seed, study="f", path=None
    )


def not_tuned(suggestion: Suggestion) -> bool:
    return suggestion.recipe.architecture.family != "tuned"


@pytest.mark.parametrize("before", [0, 1, 5])
def test_a_family_that_no_longer_fits_leaves_the_time_to_the_others(before: int) -> None:
    drawn = family_sampler(World().state)
    for _ in range(before):
        drawn.next()
    later = [drawn.next(not_tuned) for _ in range(8)]
    assert [trial and trial.recipe.architecture.family for trial in later] == ["scratch"] * 8
    assert len({trial.recipe.optimizer.momentum for trial in later if trial}) == 8
    assert drawn.next(lambda _: False) is None


def test_a_family_that_was_passed_over_is_the_next_one_that_fits() -> None:
    drawn = family_sampler(World().state)
    drawn.next(not_tuned)
    second = drawn.next()
    assert second is not None
    assert second.recipe.architecture.family == "tuned"
    assert second.recipe.optimizer.adamw_lr == 2e-3


def test_a_family_whose_trial_is_taken_back_leaves_its_place_to_another() -> None:
    world = World()
    drawn = family_sampler(world.state)
    tuned = drawn.next()
    assert tuned is not None
    assert tuned.recipe.architecture.family == "tuned"
    drawn.take_back(tuned)
    other = drawn.next(not_tuned)
    assert other is not None
    assert (other.trial, other.number) == (tuned.trial, tuned.number)
    assert other.recipe.architecture.family == "scratch"
    states = [trial.state.name for trial in drawn.study.trials]
    assert states == ["FAIL", "RUNNING"]
    later = drawn.next()
    assert later is not None
    assert later.recipe.architecture.family == "tuned"
    assert later.recipe.optimizer.adamw_lr == 2e-3  # it is still this family's first


def test_a_single_family_has_one_trial_with_the_recommended_values() -> None:
    tuned = Family(
        recipe=BASE.with_values(family="tuned", optimizer="adamw"),
        fixed=frozenset({"optimizer", "momentum"}),
        space={"adamw_lr": {"type": "float", "low": 1e-4, "high": 1e-2, "start": 2e-3}},
    )
    space = Space.from_mapping({}, base=BASE, families={"tuned": tuned})
    drawn = OptunaSampler(
        space, World().state, trials=9, startup_trials=2, seed=0, study="f", path=None
    )
    rates = [trial.recipe.optimizer.adamw_lr for trial in (drawn.next(), drawn.next()) if trial]
    assert rates[0] == 2e-3 != rates[1]


def test_values_that_are_not_searched_may_be_adjusted_to_the_drawn_ones() -> None:
    world = World()
    drawn = OptunaSampler(
        FAMILIES, world.state, trials=9, startup_trials=2, seed=0, study="f", path=None,
        adjust=lambda recipe: recipe.with_values(passes=2.0),
    ).next()  # fmt: skip
    assert drawn is not None
    assert drawn.recipe.schedule.passes == 2.0
