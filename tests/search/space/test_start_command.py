from typing import Any

import pytest

from journal.events import Event, PlanMade
from journal.state import RunState
from search.space.start_command import changed_settings, requested_sweep, start_command
from search.space.sweep_files import load_spec
from tests.events import run_started


def state(
    sweep: str,
    *settings: str,
    path: str | None = None,
    time_budget: float | None = None,
    **plan: Any,
) -> RunState:
    requested = load_spec(sweep, profile="cpu", settings=settings).to_mapping()
    requested["dataset"]["path"] = path
    events: list[Event] = [
        run_started(90.0, spec=requested, asked=requested, time_budget=time_budget)
    ]
    if plan:
        events.append(PlanMade(at="sweep", seconds={}, time=91.0, **plan))
    return RunState.from_events(events)


@pytest.mark.parametrize(
    ("journal", "command"),
    [
        (state("level3"), "quorum run level3 --profile cpu"),
        (state("digits", deadline=90 + 590.0), "quorum run digits --time-budget 10m"),
        (
            state("digits", time_budget=7200.0, deadline=90 + 7110.0),
            "quorum run digits --time-budget 120m",
        ),
        (state("digits", time_budget=45.0), "quorum run digits --time-budget 45s"),
        (
            state("digits", "recipe.dropout=0.1", path="/data/my photos"),
            "quorum run digits --data 'path/to/my photos' --set recipe.dropout=0.1",
        ),
        (
            state("level1", "recipe.pretrained=/home/me/w.safetensors"),
            "quorum run level1 --profile cpu --set 'recipe.pretrained=\"path/to/w.safetensors\"'",
        ),
        (RunState(), ""),
    ],
)
def test_the_command_is_rebuilt_without_paths_of_the_machine(
    journal: RunState, command: str
) -> None:
    assert start_command(journal) == command


def test_the_settings_turn_the_shipped_sweep_into_the_requested_one() -> None:
    settings = ["trials=7", "recipe.width=24", "splits.counts=[100, 50, 60]"]
    requested = requested_sweep(state("level3", *settings))
    assert sorted(changed_settings(requested)) == sorted(settings)
    assert changed_settings({"name": "mine"}) == []
