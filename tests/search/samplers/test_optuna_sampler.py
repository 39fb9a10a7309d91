"""Suggestions: a function of study and number; Optuna holds what the journal says."""

import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from ray.tune.search import Searcher

from common.seeds import derive_seed
from journal.history import History
from search.samplers.optuna_sampler import OptunaSampler
from search.samplers.suggestions import FixedTrials, Suggestion
from search.space.space import Space
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


class World:
    """A journal in memory, and a sampler fed from it; trials of known scores."""

    def __init__(self, events: Iterable[dict[str, Any]] = (), *, path: Path | None = None) -> None:
        self.events = list(events)
        self.sampler = sampler(self.events, launch=self.launch, path=path)

    def launch(self, suggestion: Suggestion) -> dict[str, Any]:
        self.emit(
            event="trial_started", trial=suggestion.trial, number=suggestion.number, kind="search",
            recipe=suggestion.recipe.to_mapping(), seed=suggestion.seed, attempt=suggestion.attempt,
        )  # fmt: skip
        return {"suggestion": suggestion}

    def emit(self, **event: Any) -> None:
        event = json.loads(json.dumps(event))
        self.events.append(event)
        self.sampler.observe(event)

    def suggest(self) -> Suggestion | None:
        config = self.sampler.suggest("any")
        return None if config == Searcher.FINISHED else config["suggestion"]

    def score(self, name: str, rung: int, value: float | None) -> None:
        self.emit(
            event="epoch", trial=name, step=rung, epoch=rung, rung=rung, val_nll=value,
            val_accuracy=0.5, temperature=1.0, seconds=0.1, peak_memory_bytes=10,
        )  # fmt: skip

    def end(self, name: str, status: str) -> None:
        self.emit(event="trial_ended", trial=name, kind="search", status=status)

    def run(self, suggestion: Suggestion) -> None:
        """Three fates in turn: through the whole schedule, stopped at a rung, failed."""
        level = abs(suggestion.recipe.architecture.dropout - 0.3)
        fate = suggestion.number % 4
        for rung in RUNGS[: 3 if fate < 2 else fate - 1]:
            self.score(suggestion.trial, rung, level + 1 / rung)
        self.end(suggestion.trial, ["completed", "completed", "pruned", "failed"][fate])


def sampler(events: list[dict[str, Any]], **options: Any) -> OptunaSampler:
    settings = {"trials": 30, "startup_trials": 4, "seed": 5, "study": "run-abc", "path": None}
    return OptunaSampler(SPACE, BASE, History(events), **{**settings, **options})


def trials_of(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [
        (t.number, t.state, t.params, t.value, t.intermediate_values, t.user_attrs)
        for t in study.trials
    ]


def test_suggestions_are_legal_named_and_seeded() -> None:
    world = World()
    for number in range(30):
        suggestion = world.suggest()
        assert suggestion is not None
        assert (suggestion.trial, suggestion.number) == (f"t{number:04d}", number)
        assert suggestion.seed == derive_seed(5, "trial", number)
        assert SPACE.contains(SPACE.active(suggestion.recipe.to_mapping()))
        assert (suggestion.recipe.schedule.epochs, suggestion.attempt) == (9, 1)
        world.run(suggestion)
    assert world.suggest() is None
    assert not world.sampler.more


def test_optuna_is_told_states_curves_and_values() -> None:
    world = World()
    for _ in range(5):
        suggestion = world.suggest()
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
def test_the_next_suggestion_follows_from_study_and_number(cut: int, finished: int) -> None:
    """A sampler rebuilt from any prefix of the journal draws what the live one drew."""
    world = World()
    for _ in range(finished):
        suggestion = world.suggest()
        assert suggestion is not None
        world.run(suggestion)
    cut = min(cut, len(world.events))
    starts = [i for i, event in enumerate(world.events) if event["event"] == "trial_started"]
    resumed = World(world.events[:cut])
    unfinished = resumed.suggest() if History(world.events[:cut]).unfinished("search") else None
    begun = sum(start < cut for start in starts)
    if unfinished is not None:
        assert unfinished.trial == f"t{begun - 1:04d}"
        assert unfinished.attempt == 2
        resumed.run(unfinished)
    while (suggestion := resumed.suggest()) is not None and suggestion.number < finished:
        original = world.events[starts[suggestion.number]]
        assert suggestion.recipe.to_mapping() == original["recipe"]
        resumed.run(suggestion)


def test_the_study_is_rebuilt_from_the_journal_whatever_became_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "optuna.journal"
    world = World(path=path)
    for _ in range(6):
        suggestion = world.suggest()
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
        # The running trial can still be told.
        resumed.score("t0005", 1, 0.5)
        resumed.end("t0005", "pruned")
        assert resumed.sampler.study.trials[5].state is TrialState.PRUNED


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_what_is_no_number_neither_raises_nor_hangs(value: float | None) -> None:
    world = World()
    for name, status in (("t0000", "completed"), ("t0001", "pruned"), ("t0002", "failed")):
        assert world.suggest() is not None
        world.sampler.observe(
            {"event": "epoch", "trial": name, "step": 9, "rung": 9, "val_nll": value}
        )
        world.end(name, status)
    states = [trial.state for trial in world.sampler.study.trials]
    assert states == [TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL]
    assert [trial.value for trial in world.sampler.study.trials] == [None, None, None]
    for _ in range(10):
        suggestion = world.suggest()
        assert suggestion is not None
        world.run(suggestion)


def test_repeated_and_foreign_events_change_nothing() -> None:
    world = World()
    suggestion = world.suggest()
    assert suggestion is not None
    world.run(suggestion)
    before = trials_of(world.sampler.study)
    for event in world.events:
        world.sampler.observe(event)
    world.sampler.observe({"event": "stage", "stage": "sweep"})
    world.end("t0099", "failed")
    world.emit(event="trial_ended", trial="s00", kind="seed", status="completed")
    assert trials_of(world.sampler.study) == before


def test_complete_trials_rank_before_pruned_ones() -> None:
    """TPE must not take a low score of a short budget for a good one, or the reverse.

    Trials with a dropout above 0.5 are stopped at the first rung with the lowest scores of
    all; TPE must still look below 0.5, where trials run to the end.
    """
    world = World()
    late = []
    while (suggestion := world.suggest()) is not None:
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


def fixed(count: int, **options: Any) -> FixedTrials:
    suggestions = [
        Suggestion(trial=f"s{i:02d}", number=i, kind="seed", recipe=BASE, seed=i)
        for i in range(count)
    ]
    return FixedTrials(suggestions, **options)


@pytest.mark.parametrize("kind", ["optuna", "fixed"])
class TestContract:
    """What Tune relies on, for every source of trials."""

    def make(self, kind: str, **options: Any) -> FixedTrials:
        options.setdefault("launch", lambda suggestion: {"trial": suggestion.trial})
        if kind == "fixed":
            return fixed(3, **options)
        return sampler([], trials=3, **options)

    def test_it_hands_out_each_trial_once_and_then_finishes(self, kind: str) -> None:
        source = self.make(kind)
        names = [source.suggest(str(i))["trial"] for i in range(3)]
        assert len(set(names)) == 3
        assert not source.more
        assert [source.suggest("x"), source.suggest("y")] == [Searcher.FINISHED] * 2
        assert source.launched == 3

    def test_nothing_starts_late(self, kind: str) -> None:
        clock = itertools.count()
        source = self.make(kind, late=lambda: next(clock) >= 2)
        answers = [source.suggest(str(i)) for i in range(4)]
        assert [answer == Searcher.FINISHED for answer in answers] == [False, False, True, True]
        assert source.more

    def test_tune_may_tell_it_anything(self, kind: str, tmp_path: Path) -> None:
        source = self.make(kind)
        source.suggest("a")
        source.on_trial_result("a", {"val_nll": math.nan})
        source.on_trial_complete("a", result=None, error=True)
        source.on_trial_complete("unknown", result={"val_nll": math.inf})
        source.save(str(tmp_path / "state"))
        source.restore(str(tmp_path / "state"))
        assert source.more


def test_unfinished_trials_come_first_with_their_checkpoints() -> None:
    world = World()
    for _ in range(3):
        assert world.suggest() is not None
    world.emit(event="checkpoint", trial="t0001", step=1, path="search-000001/t0001/checkpoint_0")
    world.emit(event="checkpoint", trial="t0001", step=3, path="search-000001/t0001/checkpoint_1")
    world.end("t0000", "failed")
    resumed = World(world.events)
    again = [resumed.suggest() for _ in range(3)]
    assert [s.trial for s in again if s is not None] == ["t0001", "t0002", "t0003"]
    first = again[0]
    assert first is not None
    assert first.checkpoints == (
        "search-000001/t0001/checkpoint_1",
        "search-000001/t0001/checkpoint_0",
    )
    started = [e for e in world.events if e["event"] == "trial_started"][1]
    assert (first.seed, first.recipe.to_mapping()) == (started["seed"], started["recipe"])
