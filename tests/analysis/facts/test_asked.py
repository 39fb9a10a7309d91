"""The command that a run was started with, told from its journal."""

from typing import Any

import pytest

from analysis.facts.asked import command_asked, settings_asked
from search.space.spec import load_spec


def events(
    sweep: str, *settings: str, path: str | None = None, **plan: Any
) -> list[dict[str, Any]]:
    asked = load_spec(sweep, profile="cpu", settings=settings).to_mapping()
    asked["dataset"]["path"] = path
    started = {"event": "run_started", "spec": asked, "asked": asked, "time": 100.0}
    return [
        {"event": "stage", "time": 90.0},
        started,
        *([{"event": "plan", **plan}] if plan else []),
    ]


@pytest.mark.parametrize(
    ("found", "command"),
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
def test_the_command_is_told_without_paths_of_the_machine(
    found: list[dict[str, Any]], command: str
) -> None:
    assert command_asked(found) == command


def test_the_settings_make_the_same_of_the_shipped_sweep() -> None:
    settings = ["trials=7", "recipe.width=24", "splits.counts=[100, 50, 60]"]
    (started,) = (e for e in events("level3", *settings) if e["event"] == "run_started")
    found = settings_asked(started["asked"])
    assert sorted(found) == sorted(settings)
    assert settings_asked({"name": "mine"}) == []
