"""The command line: help in no time, one clear line for a user's mistake, the exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quorum.cli import main as quorum
from search.space.spec import load_spec

COMMANDS = [
    "demo", "run", "sweep", "status", "select", "distill", "report", "ablate", "clean", "sync",
    "predict",
]  # fmt: skip


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command prints before it exits with 2."""
    assert quorum.main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("quorum: ")
    return lines[0]


def test_help_answers_at_once() -> None:
    """Half a second is the promise: of computing, as other tests may run beside this one."""
    seconds = []
    for _ in range(3):
        before = os.times()
        result = subprocess.run(
            [sys.executable, "-m", "quorum", "--help"], capture_output=True, text=True
        )
        after = os.times()
        user, system = (
            getattr(after, name) - getattr(before, name)
            for name in ("children_user", "children_system")
        )
        seconds.append(user + system)
    assert result.returncode == 0
    assert all(command in result.stdout for command in COMMANDS)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        quorum.main([command, "--help"])
    assert f"example: quorum {command}" in capsys.readouterr().out


def test_an_unknown_command_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        quorum.main(["swep"])
    assert "swep" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails: 3", "did you mean 'trials'?"),
        ("trials: [3", "line"),
        ("space: {width: {type: int, low: 9, high: 2}}", "9"),
        ("recipe: {momentum: 2}", "momentum must lie in [0.0, 0.999], got 2"),
    ],
)
def test_mistakes_in_the_yaml(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert message in fails(capsys, "sweep", path, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_missing_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(capsys, "run", "digit", "--runs", tmp_path)
    assert "no sweep 'digit'" in line
    assert "digits" in line


def folder_sweep(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("dataset: {name: imagefolder, path: photos}\ntrials: 2\nrungs: [1]\n")
    return path


def test_a_missing_data_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = folder_sweep(tmp_path)
    line = fails(capsys, "run", sweep, "--data", tmp_path / "none", "--runs", tmp_path / "runs")
    assert str(tmp_path / "none") in line


def test_an_empty_data_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    sweep = folder_sweep(tmp_path)
    line = fails(capsys, "run", sweep, "--data", tmp_path / "photos", "--runs", tmp_path / "runs")
    assert str(tmp_path / "photos") in line


def test_one_class_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for number in range(3):
        picture = Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8))
        picture.save(tmp_path / "photos" / "cat" / f"{number}.png")
    sweep = folder_sweep(tmp_path)
    line = fails(capsys, "run", sweep, "--data", tmp_path / "photos", "--runs", tmp_path / "runs")
    assert "class" in line
    assert "cat" in line


@pytest.mark.parametrize("duration", ["soon", "2", "-1h"])
def test_a_wrong_time_budget(
    duration: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fails(capsys, "sweep", "digits", f"--time-budget={duration}", "--runs", tmp_path)
    assert "is not a duration" in line


@pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", ""])
def test_a_name_that_would_leave_the_runs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = fails(capsys, "sweep", "digits", f"--name={name}", "--runs", tmp_path)
    assert "--name" in line
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    line = fails(capsys, "sweep", "digits", "--name", "mine", "--runs", tmp_path)
    assert "--resume" in line


@pytest.mark.parametrize("command", ["status", "distill", "report", "sync", "select"])
def test_a_missing_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(capsys, command, "absent", "--runs", tmp_path)
    assert "absent" in line


def test_a_missing_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model at" in fails(capsys, "predict", tmp_path / "none", "a.png")


def test_no_space_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def status(_: object) -> int:
        """Stand in for the real command."""
        raise OSError(28, "No space left on device", "runs/mine/journal.jsonl")

    monkeypatch.setattr(quorum, "status", status)
    assert "no space left" in fails(capsys, "status", "mine")


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def status(_: object) -> int:
        """Stand in for the real command."""
        raise KeyboardInterrupt

    monkeypatch.setattr(quorum, "status", status)
    assert quorum.main(["status", "mine"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(_: object) -> int:
        """Stand in for the real command."""
        raise KeyError("ours")

    monkeypatch.setattr(quorum, "status", status)
    with pytest.raises(KeyError, match="ours"):
        quorum.main(["status", "mine"])


class TestPools:
    """`quorum select` on files of predictions."""

    @staticmethod
    def good() -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 3, 60)
        logits = rng.normal(size=(4, 60, 3)) + 2 * np.eye(3)[labels]
        probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        return {"probs": probs, "labels": labels}

    def test_a_good_pool(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        np.savez(tmp_path / "pool.npz", **self.good())  # type: ignore[arg-type]
        out = tmp_path / "out"
        assert quorum.main(["select", str(tmp_path / "pool.npz"), "--out", str(out)]) == 0
        assert (out / "selection.json").is_file()
        assert "NLL" in capsys.readouterr().out

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
    def test_a_bad_pool(
        self,
        changes: dict[str, np.ndarray | None],
        message: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        arrays = {key: value for key, value in (self.good() | changes).items() if value is not None}
        np.savez(tmp_path / "pool.npz", **arrays)  # type: ignore[arg-type]
        line = fails(capsys, "select", tmp_path / "pool.npz", "--out", tmp_path / "out")
        assert message in line
        assert not (tmp_path / "out" / "selection.json").exists()

    def test_not_a_pool_at_all(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "pool.npz").write_text("no zip")
        assert "pool.npz" in fails(capsys, "select", tmp_path / "pool.npz")


def test_a_shipped_sweep_is_found_from_anywhere(tmp_path: Path) -> None:
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        assert load_spec("digits").trials >= 16
    finally:
        os.chdir(here)
