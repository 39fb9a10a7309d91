"""Seeds that begin when the search has no time for another trial."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from search.history import History
from search.hooks import Hooks
from search.relay import Relay, Seeds
from search.sampler import FixedTrials, Suggestion
from search.timing import TimeLeft
from tests.simulated_tune import Sweep, without_ray
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_start

__all__ = ["without_ray"]


def trials(*names: str, late: Sequence[str] = ()) -> FixedTrials:
    """A source that is late from the first name in `late` on."""
    waiting = [
        Suggestion(trial=name, number=i, kind="search", recipe=Recipe(), seed=0)
        for i, name in enumerate(names)
    ]
    source = FixedTrials(waiting, launch=lambda found: {"trial": found.trial})
    source._late = lambda: bool(source._waiting) and source._waiting[0].trial in late
    return source


def drawn(source: FixedTrials, count: int) -> list[str]:
    found = (source.suggest("any") for _ in range(count))
    return ["-" if one == Searcher.FINISHED else one["trial"] for one in found]


def test_one_source_follows_the_other_and_is_made_once() -> None:
    made = []

    def following() -> FixedTrials:
        made.append(1)
        return trials("c", "d")

    relay = Relay(trials("a", "b"), following)
    assert drawn(relay, 6) == ["a", "b", "c", "d", "-", "-"]
    assert (made, relay.launched, relay.more) == ([1], 2, False)


def test_a_search_that_is_late_stays_over() -> None:
    first = trials("a", "b", "c", late="b")
    relay = Relay(first, lambda: trials("s"))
    assert drawn(relay, 2) == ["a", "s"]
    first._late = lambda: False
    assert drawn(relay, 1) == ["-"]
    assert relay.more


def test_where_nothing_follows_the_sweep_ends() -> None:
    assert drawn(Relay(trials("a"), lambda: None), 3) == ["a", "-", "-"]


def test_seeds_that_were_begun_come_first_and_none_comes_twice() -> None:
    history = History()
    recipe = Recipe(epochs=4)
    for name, number in (("s00", 0), ("s01", 1)):
        started = {"event": "trial_started", "trial": name, "number": number, "kind": "seed",
                   "recipe": recipe.to_mapping(), "seed": 7, "attempt": 1}  # fmt: skip
        history.apply(started)
    history.apply({"event": "trial_ended", "trial": "s00", "status": "completed"})
    found = Seeds(recipe=recipe, count=4, deadline=None).suggestions(history, root=0)
    assert [(one.trial, one.attempt) for one in found] == [("s01", 2), ("s02", 1), ("s03", 1)]
    assert len({one.seed for one in found}) == 3


@pytest.mark.usefixtures("without_ray")
def test_seeds_beside_a_search_run_to_their_end(tmp_path: Path) -> None:
    sweep = Sweep(RunFolder(tmp_path))
    recorder, hooks = sweep.recorder, Hooks(sweep.recorder)
    last = sweep.spec.rungs[-1]
    seeds = Seeds(recipe=Recipe(**{**sweep.spec.recipe, "epochs": last}), count=2, deadline=None)

    def following() -> FixedTrials:
        # No search trial could reach another rung any more; seeds have none to reach.
        recorder.time_left = TimeLeft(latest=-1.0, clock=lambda: 0.0)
        return FixedTrials(
            seeds.suggestions(recorder.history, root=0), launch=sweep.launcher.launch
        )

    relay = Relay(sweep.source, following)
    while (config := relay.suggest("any")) != Searcher.FINISHED:
        sweep._run_trial(config, hooks)
    assert recorder.error is None
    records: dict[str, Any] = {record.trial: record for record in sweep.folder.records()}
    assert len(records) == sweep.spec.trials + 2
    for name in ("s00", "s01"):
        record = records[name]
        assert (record.kind, record.status, record.rung) == ("seed", "completed", last)
        assert read_start(sweep.folder.trial(name) / "start.json").rungs == (last,)
    decisions = [event for event in sweep.seen if event["event"] == "decision"]
    assert not [event for event in decisions if event["trial"].startswith("s")]
    kinds = {
        event["trial"]: event["kind"] for event in sweep.seen if event["event"] == "trial_ended"
    }
    assert all((kind == "seed") == name.startswith("s") for name, kind in kinds.items())
    assert len(kinds) == len(records)


def test_a_deadline_of_ones_own() -> None:
    left = TimeLeft(deadline=10.0, latest=20.0, cut=20.0, clock=lambda: 15.0)
    assert not left.over
    assert not replace(left, clock=lambda: 25.0, cut=30.0).over
    assert replace(left, clock=lambda: 25.0).over
