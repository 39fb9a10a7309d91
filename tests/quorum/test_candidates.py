"""The student's candidates: their order, and budgets refused before a sweep."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import quorum
from common.errors import SpecError
from ensemble.deployment.card import read_card
from ensemble.deployment.gates import GateMargins
from ensemble.evaluation.stages import pooled_trials
from ensemble.student.design import Candidate
from quorum import Outcome, student_stage
from quorum.candidates import MOST_CANDIDATES, most_candidates, student_candidates
from quorum.inputs import resolve_sweep
from quorum.options import SearchOptions
from search.space.sections import StudentSpec
from search.space.sweep_files import load_spec
from tests.tiny import tiny_spec
from trainables.records import RunFolder


def test_a_student_from_scratch_comes_before_others_by_falling_size() -> None:
    spec = tiny_spec()
    first, *others = student_candidates(spec, RunFolder("unused"))
    assert first.recipe == spec.student_recipe()
    sizes = [c.recipe.architecture.width**2 * c.recipe.architecture.depth for c in others]
    assert sizes == sorted(sizes, reverse=True)
    assert len({c.name for c in (first, *others)}) == 1 + len(others)
    assert all(candidate.start is None for candidate in (first, *others))


@pytest.mark.slow
def test_the_best_single_trial_is_the_first_of_the_pool(finished_run: Outcome) -> None:
    spec = tiny_spec().with_values(student=StudentSpec(start="best_single"))
    found = student_candidates(spec, finished_run.folder)
    assert found[0].start == finished_run.selection.best_single.name
    networks = [c.recipe.architecture.prediction_work for c in found if c.start]
    assert len(set(networks)) == len(networks), "one trial for each network"
    assert any(candidate.start is None for candidate in found), "the sweep trains from scratch"


@pytest.mark.slow
def test_another_machine_gets_every_trial_that_a_candidate_starts_from(
    finished_run: Outcome,
) -> None:
    spec = tiny_spec().with_values(student=StudentSpec(start="best_single"))
    folder = finished_run.folder
    found = student_candidates(spec, folder)
    elsewhere = [Candidate(name=r.trial, recipe=found[0].recipe, start=r.trial)
                 for r in folder.records()]  # fmt: skip
    sent = student_stage.inputs(folder, [*found, *elsewhere])
    assert {f"trials/{each.start}" for each in elsewhere} <= set(sent)
    assert {f"trials/{name}" for name in pooled_trials(folder)} <= set(student_stage.inputs(folder))


def test_more_than_one_candidate_competes_only_with_a_budget_or_on_request() -> None:
    spec = tiny_spec()
    assert most_candidates(spec, GateMargins()) == 1
    assert most_candidates(spec, GateMargins(max_bytes=1)) == MOST_CANDIDATES
    asked = spec.with_values(student=replace(spec.student, candidates=2))
    assert most_candidates(asked, GateMargins()) == 2


def test_budgets_are_margins_of_the_gates() -> None:
    assert load_spec("digits", settings=["gates.max_latency_ms=2.5"]).gates.max_latency_ms == 2.5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_params=-1", r"max_params must be more than 0, got -1"),
        ("max_latency_ms=.nan", r"max_latency_ms: expected a number, got nan"),
        ("max_gflops=.inf", r"max_gflops: expected a number, got inf"),
        ("min_speedup=-1", r"min_speedup must be at least 0"),
        ("min_shrink=-2", r"min_shrink must be at least 0"),
        ("max_accuracy_loss=2", r"max_accuracy_loss must be a share in \[0, 1\], got 2"),
        ("max_corruption_loss=-0.1", r"max_corruption_loss must be a share"),
        ("max_nll_gain=-0.1", r"max_nll_gain must be at least 0"),
    ],
)
def test_margins_that_every_or_no_file_keeps_are_refused(setting: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_spec("digits", settings=[f"gates.{setting}"])


@pytest.mark.parametrize(
    "options",
    [{"max_params": 5e5}, {"source": "sedes"}, {"weighting": "learnt"}, {"members": "five"}],
)
def test_options_from_python_are_checked_like_those_of_the_command_line(
    options: dict[str, Any],
) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(SpecError, match=f"{name}.*{value}"):
        resolve_sweep(tiny_spec(), SearchOptions(**options), name="tiny")


@pytest.mark.parametrize(
    ("start", "budget"),
    [("random", {"max_latency_ms": 1e-4}), ("best_single", {"max_bytes": 100})],
)
def test_a_file_that_would_be_too_large_or_slow_is_refused_before_the_sweep(
    start: str, budget: dict[str, Any], tmp_path: Path
) -> None:
    student = replace(tiny_spec().student, start=start)  # type: ignore[arg-type]
    spec = tiny_spec().with_values(student=student)
    with pytest.raises(SpecError, match=r"no network is within the budget.*parameters.* ms"):
        quorum.run(spec, runs=tmp_path, progress=False, mirror=False, **budget)
    assert not list(tmp_path.glob("*/trials/*"))


@pytest.mark.parametrize("start", ["random", "best_single"])
def test_a_hopeless_budget_is_refused_before_the_sweep(start: str, tmp_path: Path) -> None:
    student = replace(tiny_spec().student, start=start)  # type: ignore[arg-type]
    spec = tiny_spec().with_values(student=student)
    with pytest.raises(SpecError, match=r"max_params 10\b.*parameters"):
        quorum.run(spec, runs=tmp_path, max_params=10, progress=False, mirror=False)
    assert not list(tmp_path.glob("*/trials/*"))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_a_run_keeps_its_student_if_no_network_keeps_a_new_budget(
    killed: bool, finished_run: Outcome, tmp_path: Path
) -> None:
    """Also if an earlier command was killed after it had moved the student."""
    copy = tmp_path / "tiny"
    shutil.copytree(finished_run.folder.root, copy)
    before = read_card(copy / "student")
    for impossible in ({"max_params": 0}, {"max_bytes": -1}, {"max_latency_ms": float("nan")}):
        with pytest.raises(SpecError, match=r"must be more than 0|expected a number, got nan"):
            quorum.distill(copy, progress=False, **impossible)
        assert (copy / "student" / "card.json").is_file()
    if killed:
        (copy / "student").rename(copy / "student.1")
    with pytest.raises(SpecError, match=r"max_params 10\b"):
        quorum.distill(copy, max_params=10, progress=False)
    assert read_card(copy / "student") == before
    assert not (copy / "student.1").exists()
