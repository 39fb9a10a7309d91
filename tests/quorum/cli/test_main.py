"""The command line: fast help, an example per command, one clear line for a user's mistake, and
exit codes.
"""

import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ensemble.selection.selection import read_selection
from quorum import Outcome
from quorum.cli.main import COMMANDS, main
from quorum.inputs import resolve_sweep
from quorum.options import AblationOptions, PlanOptions, RunOptions, SearchOptions
from search.space.sweep_files import load_spec
from tests.command_line import user_error

NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]


def test_help_lists_every_command_and_loads_nothing_slow() -> None:
    """A check of loaded modules, not of time, holds on any machine."""
    slow = (
        "torch",
        "ray",
        "numpy",
        "pandas",
        "mlflow",
        "optuna",
        "yaml",
        "rich",
        "scipy",
        "sklearn",
    )
    code = (
        "import sys\nfrom quorum.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        f"except SystemExit:\n    print([name for name in {slow} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0
    assert all(name in result.stdout for name in NAMES)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_pages_fit_80_columns_and_show_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([*filter(None, [name]), "--help"])
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 80
    assert f"quorum {name}" in page.partition("example")[2]


def test_text_that_the_terminal_cannot_encode_is_escaped() -> None:
    """Print a page with an arrow on an ASCII terminal."""
    result = subprocess.run(
        [sys.executable, "-m", "quorum", "run", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert result.returncode == 0, result.stderr
    assert " -> " in result.stdout


def into_a_closed_pipe(*arguments: object) -> tuple[int, str]:
    """Run a command as in `quorum … | head -0`; return its exit code and standard error."""
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    result = subprocess.run(
        [sys.executable, "-m", "quorum", *map(str, arguments)],
        stdout=writing_end,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing_end)
    return result.returncode, result.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_closed_pipe_is_not_an_error(form: list[str], tmp_path: Path) -> None:
    assert into_a_closed_pipe("ladder", *form, "--runs", tmp_path) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("command", [["status"], ["replay", "s00"]])
def test_a_closed_pipe_is_no_error_of_a_runs_commands(
    command: list[str], finished_run: Outcome
) -> None:
    """A replay then ends without a verdict, so it does not return 1."""
    name, *more = command
    assert into_a_closed_pipe(name, finished_run.folder.root, *more) == (0, "")


def test_examples_parse() -> None:
    """Run each command's example with `--help` added, which argparse reads after the rest."""
    for command in COMMANDS:
        words = command.EXAMPLE.split()
        assert words[:2] == ["quorum", command.__name__.rpartition(".")[2]]
        with pytest.raises(SystemExit, match="0"):
            main([*words[1:], "--help"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swep"], "swep"),
        (["sweep"], "SWEEP"),
        (["sweep", "digits", "--trials", "many"], "many"),
        (["sweep", "digits", "--profile", "tpu"], "tpu"),
        (["sweep", "digits", "--tirals=3"], "--tirals"),
    ],
)
def test_a_mistyped_command_exits_with_2_and_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("quorum: ")
    assert message in line
    assert "--help" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails: 3", "'trials'"),
        ("trials: [3", "line"),
        ("space: {width: {type: int, low: 9, high: 2}}", "9"),
        ("recipe: {momentum: 2}", "momentum"),
    ],
)
def test_a_mistake_in_the_yaml_is_explained_and_leaves_no_folder(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert message in user_error(capsys, "sweep", path, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_misspelt_sweep_lists_the_shipped_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = user_error(capsys, "run", "digit", "--runs", tmp_path)
    assert "'digit'" in line
    assert "digits" in line


def folder_sweep(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("dataset: {name: imagefolder, path: photos}\ntrials: 2\nrungs: [1]\n")
    return path


@pytest.mark.parametrize("exists", [False, True])
def test_an_error_names_a_missing_or_empty_data_folder(
    exists: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "photos"
    if exists:
        data.mkdir()
    sweep = folder_sweep(tmp_path)
    line = user_error(capsys, "run", sweep, "--data", data, "--runs", tmp_path / "runs")
    assert str(data) in line


def test_data_of_a_single_class_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for number in range(3):
        picture = Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8))
        picture.save(tmp_path / "photos" / "cat" / f"{number}.png")
    sweep = folder_sweep(tmp_path)
    line = user_error(
        capsys, "run", sweep, "--data", tmp_path / "photos", "--runs", tmp_path / "runs"
    )
    assert "class" in line
    assert "cat" in line


@pytest.mark.parametrize("duration", ["soon", "2", "-1h"])
def test_an_invalid_time_budget_is_refused(
    duration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = user_error(capsys, "sweep", "digits", f"--time-budget={duration}", "--runs", tmp_path)
    assert duration in line
    assert "duration" in line


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", ""])
def test_a_name_that_would_leave_the_runs_folder_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = user_error(capsys, "sweep", "digits", f"--name={name}", "--runs", tmp_path)
    assert "--name" in line
    assert list(tmp_path.iterdir()) == []


def test_the_error_for_a_taken_name_suggests_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    line = user_error(capsys, "sweep", "digits", "--name", "mine", "--runs", tmp_path)
    assert "--resume" in line


@pytest.mark.parametrize(
    "command", ["status", "distill", "report", "sync", "select", "clean", "replay"]
)
def test_an_error_names_a_missing_run(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["t0000"] if command == "replay" else []
    assert "absent" in user_error(capsys, command, "absent", *more, "--runs", tmp_path)


@pytest.mark.parametrize("command", ["run", "sweep", "ablate"])
def test_only_an_existing_run_can_be_resumed(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = user_error(capsys, command, "digits", "--resume", "--name", "absent", "--runs", tmp_path)
    assert "absent" in line


@pytest.mark.parametrize("command", ["run", "sweep", "plan", "ablate"])
def test_a_gpu_that_is_absent_is_one_clear_line(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = user_error(capsys, command, "digits", "--profile", "gpu", "--runs", tmp_path)
    assert "--profile gpu: " in line
    assert "leave out --profile" in line


@pytest.mark.parametrize("options", [SearchOptions, PlanOptions, AblationOptions])
def test_a_cluster_with_gpus_needs_none_here(
    options: type[RunOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does this machine decide which of a sweep's profiles is taken."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked: list[str] = []

    def profile_at(address: str) -> str:
        asked.append(address)
        return "gpu"

    monkeypatch.setattr("search.tune.cluster_site.profile_at", profile_at)
    head = "head:6379"
    for name in ("images", "level1"):
        chosen = resolve_sweep(name, options(profile="gpu", address=head), name=name)
        assert asked == []
        assert resolve_sweep(name, options(address=head), name=name) == chosen
        assert asked == [head]
        assert resolve_sweep(name, options(profile="cpu", address=head), name=name) != chosen
        asked.clear()
    resolve_sweep("digits", options(address=head), name="digits")  # has no profiles
    assert asked == []


@pytest.mark.parametrize("change", ["--set=recipe.width=64", "--members=7", "--skip-unreadable"])
def test_a_resumed_run_keeps_its_specification(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "sweep.yaml").write_text(load_spec("digits").to_yaml())
    line = user_error(capsys, "run", "digits", "--resume", change, "--runs", tmp_path)
    assert change.partition("=")[0] in line


def test_distilling_with_no_workers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = user_error(capsys, "distill", "demo", "--workers", "0", "--runs", tmp_path)
    assert "--workers" in line


def test_an_error_names_a_missing_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path / "none") in user_error(capsys, "predict", tmp_path / "none", "a.png")


def failing(error: BaseException, *, resumable: bool = False) -> SimpleNamespace:
    """Return a command `fail` that raises an error."""

    def add_arguments(parser: ArgumentParser) -> None:
        if resumable:
            parser.add_argument("--resume", action="store_true")

    def execute(_: Namespace) -> int:
        raise error

    return SimpleNamespace(
        __name__="quorum.cli.fail",
        __doc__="Fail.",
        EXAMPLE="quorum fail",
        add_arguments=add_arguments,
        execute=execute,
    )


def test_a_full_disk_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(28, "No space left on device", "runs/mine/journal.jsonl")
    assert main(["fail"], commands=[failing(error)]) == 2
    assert "no space left" in capsys.readouterr().err


@pytest.mark.parametrize("resumable", [False, True])
def test_ctrl_c_exits_with_130_and_says_how_to_continue(
    resumable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    command = failing(KeyboardInterrupt(), resumable=resumable)
    assert main(["fail"], commands=[command]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert ("--resume" in line) is resumable


def test_an_unexpected_error_keeps_its_traceback() -> None:
    with pytest.raises(KeyError, match="ours"):
        main(["fail"], commands=[failing(KeyError("ours"))])


class TestPools:
    """`quorum select` on files of predictions."""

    @staticmethod
    def good() -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 3, 60)
        logits = rng.normal(size=(4, 60, 3)) + 2 * np.eye(3)[labels]
        probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        return {"probs": probs, "labels": labels}

    def test_an_ensemble_is_selected_from_a_valid_pool(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.savez(tmp_path / "pool.npz", **self.good())  # type: ignore[arg-type]
        out = tmp_path / "out"
        assert main(["select", str(tmp_path / "pool.npz"), "--out", str(out)]) == 0
        assert (out / "selection.json").is_file()
        assert str(out / "selection.json") in capsys.readouterr().out

    def test_diverse_members_with_learned_weights_can_be_had(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.savez(tmp_path / "pool.npz", **self.good())  # type: ignore[arg-type]
        options = ["--source", "search", "--weighting", "learned", "--diversity", "1"]
        command = ["select", str(tmp_path / "pool.npz"), "--out", str(tmp_path), *options]
        assert main(command) == 0
        selection = read_selection(tmp_path / "selection.json")
        assert selection.weighting == "learned"
        assert selection.candidate.startswith("diverse")
        line = user_error(capsys, *command[:4], "--source", "seeds")
        assert "the pool has no seeds" in line

    def test_the_selection_goes_to_the_current_folder_by_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        np.savez(tmp_path / "pool.npz", **self.good())  # type: ignore[arg-type]
        monkeypatch.chdir(tmp_path)
        assert main(["select", "pool.npz", "--members", "2"]) == 0
        assert (tmp_path / "selection.json").is_file()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"probs": None}, "probs"),
            ({"labels": None}, "labels"),
            ({"probs": np.ones((4, 60))}, "shape"),
            ({"probs": np.ones((4, 60, 3))}, "sum"),
            ({"probs": np.full((4, 60, 3), np.nan)}, ""),
            ({"labels": np.full(60, 7)}, "7"),
            ({"labels": np.zeros(59, dtype=int)}, "59"),
            ({"labels": np.full(60, 0.5)}, "integer"),
            ({"names": np.array(["a", "b", "b", "c"])}, "b"),
            ({"probs": np.array([{"pickled": "object"}], dtype=object)}, ""),
        ],
    )
    def test_a_bad_pool_is_refused(
        self,
        changes: dict[str, np.ndarray | None],
        message: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        arrays = {key: value for key, value in (self.good() | changes).items() if value is not None}
        np.savez(tmp_path / "pool.npz", **arrays)  # type: ignore[arg-type]
        line = user_error(capsys, "select", tmp_path / "pool.npz", "--out", tmp_path / "out")
        assert message in line
        assert not (tmp_path / "out" / "selection.json").exists()

    def test_out_must_be_a_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez(tmp_path / "pool.npz", **self.good())  # type: ignore[arg-type]
        (tmp_path / "out").touch()
        line = user_error(capsys, "select", tmp_path / "pool.npz", "--out", tmp_path / "out")
        assert str(tmp_path / "out") in line

    def test_an_error_names_a_file_that_is_not_a_pool(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "pool.npz").write_text("no zip")
        assert "pool.npz" in user_error(capsys, "select", tmp_path / "pool.npz")


def test_a_shipped_sweep_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_spec("digits").trial_count >= 16


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    assert main(["run", "digits", "--dry-run", "--runs", str(runs)]) == 0
    output = capsys.readouterr().out
    for split, size in {"train": 400, "val": 400, "holdout": 400, "test": 597}.items():
        assert f"{split} {size}" in output
    assert "forecast" in output
    assert not runs.exists()
