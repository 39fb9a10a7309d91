from typing import Any

import pytest

from analysis.facts.start_command import changed_settings, start_command
from search.space.spec import load_spec


def events(
    sweep: str, *settings: str, path: str | None = None, **plan: Any
) -> list[dict[str, Any]]:
    requested = load_spec(sweep, profile="cpu", settings=settings).to_mapping()
    requested["dataset"]["path"] = path
    started = {"event": "run_started", "spec": requested, "asked": requested, "time": 100.0}
    return [
        {"event": "stage", "time": 90.0},
        started,
        *([{"event": "plan", **plan}] if plan else []),
    ]


@pytest.mark.parametrize(
    ("journal", "command"),
    [
        (events("level3"), "quorum run level3 --profile cpu"),
        (events("digits", deadline=90 + 590.0), "quorum run digits --time-budget 10m"),
        (
            events("digits", "recipe.dropout=0.1", path="/data/my photos"),
            "quorum run digits --data 'path/to/my photos' --set recipe.dropout=0.1",
        ),
        (
            events("level1", "recipe.pretrained=/home/me/w.safetensors"),
            "quorum run level1 --profile cpu --set 'recipe.pretrained=\"path/to/w.safetensors\"'",
        ),
        ([], ""),
    ],
)
def test_the_command_is_rebuilt_without_paths_of_the_machine(
    journal: list[dict[str, Any]], command: str
) -> None:
    assert start_command(journal) == command


def test_the_settings_turn_the_shipped_sweep_into_the_requested_one() -> None:
    settings = ["trials=7", "recipe.width=24", "splits.counts=[100, 50, 60]"]
    (started,) = (e for e in events("level3", *settings) if e["event"] == "run_started")
    assert sorted(changed_settings(started["asked"])) == sorted(settings)
    assert changed_settings({"name": "mine"}) == []
