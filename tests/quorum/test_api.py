"""`import quorum`: light to import, plain values in, results out."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import quorum
from common.errors import DataError, RunError, SpecError
from journal.journal import Journal
from quorum import Outcome
from quorum.cli.main import main
from quorum.inputs import prepare_run, resolve_sweep
from quorum.options import AblationOptions, RunOptions, SearchOptions
from search.space.sections import BUDGETS
from search.space.spec import SweepSpec
from tests.docs import ROOT
from tests.tiny import tiny_spec
from trainables.data.dataset import load_dataset
from trainables.records import RunFolder

TRAINING_LIBRARIES = ("torch", "ray", "optuna", "mlflow")


def loaded_by(code: str, *libraries: str) -> list[str]:
    """Return which of `libraries` a fresh Python has loaded after running `code`."""
    script = f"import sys\n{code}\nprint([m for m in {libraries!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded: list[str] = json.loads(result.stdout.replace("'", '"'))
    return loaded


def test_importing_quorum_loads_nothing_large() -> None:
    light = ("numpy", "yaml", "rich", "pandas", "argparse")
    assert loaded_by("import quorum", *TRAINING_LIBRARIES, *light) == []


@pytest.mark.parametrize("module", ["api", "inputs", "pipeline", "stages", "selection", "outcome"])
def test_light_modules_load_no_training_library(module: str) -> None:
    assert loaded_by(f"import quorum.{module}", *TRAINING_LIBRARIES) == []


def test_every_public_name_exists_and_is_documented() -> None:
    assert dir(quorum) == sorted(quorum.__all__)
    for name in quorum.__all__:
        assert inspect.getdoc(getattr(quorum, name))
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        quorum.rnu  # noqa: B018


def test_errors_can_be_caught_by_their_public_name() -> None:
    with pytest.raises(quorum.QuorumError, match="'digit'"):
        quorum.load_sweep("digit")


SEARCH = {*BUDGETS, "trials", "members", "source", "weighting", "diversity"}


def test_signatures_show_every_option() -> None:
    shared = set(inspect.signature(RunOptions).parameters)
    for function, own in (
        (quorum.run, SEARCH),
        (quorum.sweep, SEARCH),
        (quorum.ablate, {"of", "factors", "seeds", "epochs"}),
    ):
        assert set(inspect.signature(function).parameters) == {"sweep"} | shared | own
        documented = inspect.getdoc(function) or ""
        assert all(f"\n    {name}: " in documented for name in shared | own)


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"run\(\).*'time_budgt'.*'time_budget'"):
        quorum.run("digits", time_budgt="2h")  # type: ignore[call-arg]


def test_the_sweep_is_a_name_a_file_or_a_specification(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(tiny_spec().to_yaml())
    changes = SearchOptions(set={"recipe.width": 16, "seed": 3}, trials=7, members=4)
    for sweep in (path, str(path), tiny_spec()):
        spec = resolve_sweep(sweep, changes, name="mine")
        assert (spec.recipe["width"], spec.seed, spec.trials, spec.members) == (16, 3, 7, 4)
    digits = resolve_sweep("digits", SearchOptions(), name="digits")
    assert digits == quorum.load_sweep("digits")
    assert isinstance(digits, SweepSpec)


def test_options_change_the_specification(tmp_path: Path) -> None:
    options = RunOptions(data=tmp_path, skip_unreadable=True, pictures=False)
    spec = resolve_sweep("images", options, name="images")
    assert (spec.dataset.path, spec.dataset.skip_unreadable) == (str(tmp_path), True)
    assert not spec.pictures


def test_settings_are_texts_or_a_mapping() -> None:
    texts = quorum.load_sweep("digits", set=["recipe.width=64", "trials=3"])
    assert texts == quorum.load_sweep("digits", set={"recipe.width": 64, "trials": 3})
    with pytest.raises(SpecError, match=r"recipe\.\.width"):
        quorum.load_sweep("digits", set={"recipe..width": 64})


@pytest.mark.parametrize(
    ("budget", "seconds"), [("2h", 7200.0), ("1h30m", 5400.0), (90, 90.0), (None, None)]
)
def test_a_time_budget_is_text_or_seconds(
    budget: str | float | None, seconds: float | None
) -> None:
    assert RunOptions(time_budget=budget).budget_seconds == seconds


@pytest.mark.parametrize("budget", ["soon", 0, -3, float("nan"), float("inf")])
def test_an_impossible_time_budget_is_refused(budget: str | float) -> None:
    with pytest.raises(SpecError, match=f"{budget}.*|duration"):
        _ = RunOptions(time_budget=budget).budget_seconds


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(SpecError, match="tpu"):
        RunOptions(profile="tpu")  # type: ignore[arg-type]


def test_factors_are_names_or_one_text() -> None:
    names = AblationOptions(factors=["ema", "flip"]).comparison
    assert AblationOptions(factors="ema, flip").comparison == names


def test_a_new_run_takes_a_free_name(tmp_path: Path) -> None:
    _, folder = prepare_run("digits", RunOptions(runs=tmp_path), default="digits")
    assert folder.root == tmp_path / "digits"
    folder.root.mkdir()
    _, folder = prepare_run("digits", RunOptions(runs=tmp_path), default="digits")
    assert folder.root == tmp_path / "digits-2"
    with pytest.raises(RunError, match="absent"):
        prepare_run(
            "digits", RunOptions(runs=tmp_path, name="absent", resume=True), default="digits"
        )


def test_an_ablation_needs_a_sweep_or_a_run() -> None:
    with pytest.raises(SpecError, match="--of"):
        quorum.ablate(None)


def test_a_missing_run_is_refused_by_every_function(tmp_path: Path) -> None:
    for function in (
        *(quorum.report, quorum.distill, quorum.sync, quorum.clean),
        *(quorum.load_run, quorum.status),
    ):
        with pytest.raises(quorum.QuorumError, match="absent"):
            function("absent", runs=tmp_path)


def test_an_outcome_without_a_ledger_says_so(tmp_path: Path) -> None:
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "sweep.yaml").write_text(tiny_spec().to_yaml())
    outcome = quorum.load_run("young", runs=tmp_path)
    assert "no ledger yet" in repr(outcome)
    assert outcome.model is None


def test_selecting_from_a_pool_writes_only_to_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    logits = rng.normal(size=(4, 60, 3)) + 2 * np.eye(3)[labels]
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.savez(tmp_path / "pool.npz", probs=probs, labels=labels)
    monkeypatch.chdir(tmp_path)
    selection = quorum.select("pool.npz", members=2)
    assert 1 <= len(selection.members) <= 2
    assert not (tmp_path / "selection.json").exists()
    assert quorum.select("pool.npz", members=2, out="picked") == selection
    assert (tmp_path / "picked" / "selection.json").is_file()
    asked = quorum.select("pool.npz", source="search", weighting="learned", diversity=1.0)
    assert asked.weighting == "learned"
    assert asked.candidate.startswith("diverse")


@pytest.mark.slow
class TestFinishedRun:
    """Steps of a notebook, with a run passed by name, path or outcome."""

    def test_an_outcome_shows_what_was_released(self, finished_run: Outcome) -> None:
        assert finished_run.ledger.row(finished_run.released) is not None
        assert finished_run.model is not None
        assert finished_run.model.suffix == ".onnx"
        assert finished_run.report.is_file()
        text = repr(finished_run)
        assert finished_run.released in text
        assert "%" in text
        assert str(finished_run.report) in text

    def test_a_run_is_a_name_a_path_a_folder_or_an_outcome(self, finished_run: Outcome) -> None:
        root = finished_run.folder.root
        for run in (root, str(root), finished_run.folder, finished_run):
            assert quorum.load_run(run).ledger == finished_run.ledger
        assert quorum.load_run("tiny", runs=root.parent).ledger == finished_run.ledger

    def test_the_ledger_makes_a_data_frame(self, finished_run: Outcome) -> None:
        frame = pd.DataFrame(finished_run.ledger.rows).set_index("stage")
        assert frame.loc["ensemble", "accuracy"] == pytest.approx(
            next(row.accuracy for row in finished_run.ledger.rows if row.stage == "ensemble")
        )

    def test_a_run_predicts_images(self, finished_run: Outcome, tmp_path: Path) -> None:
        digit = load_dataset(tiny_spec().dataset).images[0]
        Image.fromarray(digit).save(tmp_path / "digit.png")
        (prediction,) = quorum.predict(finished_run, tmp_path / "digit.png")
        assert prediction.best in prediction.class_names
        assert sum(prediction.probabilities) == pytest.approx(1)
        assert quorum.predict(str(finished_run.model), [tmp_path / "digit.png"]) == (prediction,)

    def test_an_unreadable_image_does_not_stop_the_others(
        self, finished_run: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("a", "b", "c"):
            Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
        (tmp_path / "b.png").write_bytes(b"")
        images = [str(tmp_path / f"{name}.png") for name in ("a", "b", "c")]
        assert main(["predict", str(finished_run.folder.root), *images, "--json"]) == 2
        printed = capsys.readouterr()
        assert [json.loads(line)["image"] for line in printed.out.splitlines()] == [
            images[0],
            images[2],
        ]
        assert "b.png" in printed.err

    def test_a_folder_without_images_does_not_stop_the_others(
        self, finished_run: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Image.new("L", (8, 8)).save(tmp_path / "a.png")
        (tmp_path / "empty").mkdir()
        given = [str(tmp_path / "empty"), str(tmp_path / "a.png")]
        assert main(["predict", str(finished_run.folder.root), *given, "--json"]) == 2
        printed = capsys.readouterr()
        assert json.loads(printed.out)["image"] == given[1]
        assert "empty holds no image" in printed.err
        with pytest.raises(DataError):
            quorum.predict(finished_run, tmp_path / "empty")

    def test_a_trial_replays_bitwise(self, finished_run: Outcome) -> None:
        reports: list[int] = []
        result = quorum.replay(
            finished_run, "s00", on_report=lambda report: reports.append(report.epoch)
        )
        assert result.identical
        assert reports[-1] == result.rung

    def test_the_status_shows_progress_and_disk_use(
        self, finished_run: Outcome, tmp_path: Path
    ) -> None:
        status = quorum.status(finished_run)
        assert (status.running, status.interrupted, status.stage) == (False, False, "report")
        assert set(status.state.trials) == {r.trial for r in finished_run.folder.records()}
        folder = shutil.copytree(finished_run.folder.root, tmp_path / "copy")
        disk = quorum.status(folder).disk
        parts = quorum.clean(folder, dry_run=True)
        assert disk.removable == sum(part.bytes for part in parts) > 0
        with Journal(RunFolder(folder).journal):
            working = quorum.status(folder)
        assert str(os.getpid()) in str(working.holder)
        assert (working.running, working.interrupted) == (True, False)

    def test_a_dry_run_of_cleaning_removes_nothing(
        self, finished_run: Outcome, tmp_path: Path
    ) -> None:
        shutil.copytree(finished_run.folder.root, tmp_path / "copy")
        removable = quorum.clean("copy", dry_run=True, runs=tmp_path)
        assert removable
        assert quorum.clean("copy", runs=tmp_path) == removable
        assert quorum.clean("copy", dry_run=True, runs=tmp_path) == []
