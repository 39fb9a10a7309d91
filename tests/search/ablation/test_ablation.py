"""An ablation: its variants, its plan, what it finds, and the whole of it in a small run."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.terminal.ablation_tables import ablation_plan
from analysis.terminal.status import DiskUsage, status_view
from common.errors import RunError, SpecError
from common.seeds import derive_seed
from journal.events import TrialStarted
from journal.journal import read_events, read_state
from journal.state import RunState
from quorum import Outcome, pipeline
from quorum.cli import main as quorum
from quorum.options import AblationOptions
from search.ablation.ablation import (
    Ablation,
    ablation_of,
    read_ablation,
    recipe_of,
)
from search.ablation.plan import COMPARE_SECONDS, plan_trials, preview_ablation
from search.ablation.trials import AblationTrials
from search.space.spec import load_spec, spec_of_run
from search.timetable.pace import START_SECONDS
from search.timetable.plan import TooShortError
from tests.events import of_type, state_of, trial_ended, trial_started
from tests.rendering import shown
from tests.tiny import tiny_spec
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_start

RECIPE = Recipe(epochs=4, flip=False)
TWO = ("ema", "whitening")


def two(seeds: int = 5) -> Ablation:
    return ablation_of(RECIPE, names=TWO, seeds=seeds)


def test_variants_lack_what_they_say() -> None:
    variants = two().variants(RECIPE)
    assert list(variants) == ["full", "no-ema", "no-whitening", "bare"]
    assert variants["full"] == RECIPE
    assert variants["no-ema"] == RECIPE.with_values(ema_decay=0.0)
    assert variants["bare"] == RECIPE.with_values(ema_decay=0.0, whitening=False)
    assert two().trials == 20
    alone = ablation_of(RECIPE, names=["ema"])
    assert list(alone.variants(RECIPE)) == ["full", "no-ema"], "the bare one is the same"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["emma"], "unknown key 'emma'; did you mean 'ema'"),
        (["flip"], "the recipe has no 'flip'; its factors: augmentation, translate"),
        ([], "no factor to remove"),
    ],
)
def test_factors_that_a_recipe_has_not_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ablation_of(RECIPE, names=names)


def test_a_run_of_variants_says_what_it_compares(tmp_path: Path) -> None:
    spec = load_spec("level2", profile="cpu")
    ablation = ablation_of(spec.base_recipe(), seeds=3)
    asked = ablation.spec_for(spec)
    assert (asked.base_recipe(), asked.trials) == (spec.base_recipe(), ablation.trials)
    assert (asked.space, asked.rungs, asked.target) == ({}, (spec.rungs[-1],), None)
    assert ablation.spec_for(asked) == asked
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match="holds no ablation"):
        read_ablation(folder, asked)
    ablation.write(folder)
    again = read_ablation(folder, asked)
    recipe = asked.base_recipe()
    assert (again.seeds, again.variants(recipe)) == (3, ablation.variants(recipe))
    (tmp_path / "factors.json").write_text('{"schema": 9, "factors": {}}')
    with pytest.raises(RunError, match="schema 9, this version reads 1"):
        read_ablation(folder, asked)


def test_seed_by_seed_the_same_for_every_variant() -> None:
    fixed = AblationTrials(ablation=two(seeds=2), recipe=RECIPE, deadline=None)
    found = fixed.suggestions(RunState(), root=7)
    variants = ["full", "no-ema", "no-whitening", "bare"]
    assert [one.trial for one in found] == [f"{v}-{seed}" for seed in (0, 1) for v in variants]
    assert [one.number for one in found] == list(range(8))
    assert [one.seed for one in found] == [
        derive_seed(7, "ablation", seed) for seed in (0, 1) for _ in variants
    ]


def test_trainings_that_were_begun_come_first_and_none_comes_twice() -> None:
    fixed = AblationTrials(ablation=two(seeds=1), recipe=RECIPE, deadline=None)
    state = state_of()
    for one in fixed.suggestions(RunState(), root=0)[:2]:
        state.apply(
            trial_started(
                one.trial, number=one.number, recipe=one.recipe.to_mapping(), seed=one.seed
            )
        )
    state.apply(trial_ended("full-0"))
    left = fixed.suggestions(state, root=0)
    assert [(one.trial, one.attempt) for one in left] == [
        ("no-ema-0", 2), ("no-whitening-0", 1), ("bare-0", 1),
    ]  # fmt: skip


def planned(budget: float | None, **values: Any) -> Any:
    given: dict[str, Any] = {
        "trials": 20, "workers": 2, "epoch_seconds": 3.0, "handover_seconds": 1.0, "now": 1000.0,
        "deadline": None if budget is None else 1000.0 + budget, **values,
    }  # fmt: skip
    return plan_trials(load_spec("digits"), **given)


def test_epochs_by_the_time_there_is() -> None:
    """Ten rounds of two: 31 s each allow ten epochs of 3 s and the handover."""
    over = START_SECONDS + COMPARE_SECONDS
    found = planned(over + 310)
    assert (found.rungs, found.trials) == ((10,), 20)
    assert found.seconds["sweep"] == START_SECONDS + 310
    assert found.end_of("sweep") == 1000 + START_SECONDS + 310
    assert planned(None).rungs == planned(1e6).rungs == (27,)
    assert planned(None).seconds["sweep"] == START_SECONDS + 10 * (27 * 3 + 1)
    assert planned(over + 310, keep_epochs=True).rungs == (27,)
    assert planned(None, trials=0).seconds["sweep"] == START_SECONDS
    with pytest.raises(TooShortError, match=r"69 s, is too short for 20 trainings, 2 at a time: .* "
                       r"70 s here; give 1.5m or more, fewer --seeds or --factors"):  # fmt: skip
        planned(over + 39)
    assert planned(over + 40).rungs == (1,)


@given(st.floats(40, 1e5), st.integers(1, 60), st.integers(1, 8), st.floats(0.01, 100))
def test_a_plan_keeps_its_deadline(
    budget: float, trials: int, workers: int, epoch_seconds: float
) -> None:
    try:
        plan = planned(budget, trials=trials, workers=workers, epoch_seconds=epoch_seconds)
    except TooShortError:
        return
    assert sum(plan.seconds.values()) <= budget + 1e-6
    assert 1 <= plan.rungs[-1] <= 27


def test_a_dry_run_lists_what_would_be_removed(hasty: None) -> None:
    found, ablation = preview_ablation(tiny_spec(), seeds=2, factors=["ema", "weight-decay"])
    text = "\n".join(shown(ablation_plan(found, ablation), 80))
    assert "ema_decay: 0" in text
    assert "8 trainings of 2 epochs, 4 variants × 2 seeds: about" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--of"),
        (["digits", "--factors", "flip"], "the recipe has no 'flip'; its factors: "),
        (["digits", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["digits", "--of", "absent"], "absent"),
        (["digits", "--resume"], "digits-ablation"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quorum.main(["ablate", *arguments, "--runs", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("hasty", "unmirrored")
def test_an_ablation_from_start_to_end_goes_on_and_on(
    finished_run: Outcome, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "tiny-ablation")
    options = AblationOptions(seeds=2, epochs=1, factors=["ema"])
    result = pipeline.ablate(tiny_spec(), folder, options, of=finished_run.folder)
    assert (result.seeds, result.epochs, len(result.variants)) == (2, 1, 2)
    assert result.recipe["width"] == recipe_of(finished_run.folder).architecture.width
    starts = {start.trial: start for start in folder.starts()}
    assert set(starts) == {"full-0", "no-ema-0", "full-1", "no-ema-1"}
    assert starts["full-1"].seed == starts["no-ema-1"].seed != starts["full-0"].seed
    assert starts["no-ema-0"].recipe == starts["full-0"].recipe.with_values(ema_decay=0.0)
    assert (folder.figures / "ablation.png").is_file()

    before = len(read_events(folder.journal))
    resumed = AblationOptions(seeds=3, resume=True)
    more = pipeline.ablate(spec_of_run(folder), folder, resumed)
    news = read_events(folder.journal)[before:]
    fresh = {event.trial for event in of_type(news, TrialStarted)}
    assert (fresh, more.seeds) == ({"full-2", "no-ema-2"}, 3)
    again = pipeline.ablate(spec_of_run(folder), folder, resumed)
    assert again == more
    state = read_state(folder.journal)
    assert state.stages["sweep"].status == "skipped"
    assert state.results["ablation"][-1].metrics.keys() == {"worth_ema_accuracy", "worth_ema_nll"}
    assert not state.active
    status = "\n".join(shown(status_view(folder, DiskUsage(parts={}), state.last_time + 1), 100))
    assert "no-ema-0" in status
    assert read_start(folder.trial("full-2") / "start.json").rungs == (1,)
