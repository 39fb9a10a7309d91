"""The folder of all runs: free names, and finding a run by name or path."""

from pathlib import Path

import pytest

from common.errors import RunError
from quorum.workspace.listing import Runs


def test_a_new_run_gets_a_free_name_and_a_taken_name_is_refused(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    assert list(runs) == []
    for expected in ("digits", "digits-2", "digits-3"):
        folder = runs.new(None, default="digits")
        assert folder.root == tmp_path / expected
        folder.root.mkdir()
        folder.sweep.write_text("name: digits\n")
    assert [folder.name for folder in runs] == ["digits", "digits-2", "digits-3"]
    assert runs.new("digits", default="x", resume=True).root == tmp_path / "digits"
    assert runs.new("digits", default="x", resume_unfinished=True).root == tmp_path / "digits"
    with pytest.raises(RunError, match="exists; continue it with --resume"):
        runs.new("digits", default="x")
    with pytest.raises(RunError, match="no run at"):
        runs.new("absent", default="x", resume=True)


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sweep.yaml").write_text("name: mine\n")
    assert Runs(tmp_path).existing("mine").root == tmp_path / "mine"
    assert Runs("elsewhere").existing(str(tmp_path / "mine")).root == tmp_path / "mine"


def test_a_misspelt_run_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "sweep.yaml").write_text("name: demo\n")
    with pytest.raises(RunError, match=r"'dmeo'.*'demo'"):
        Runs(tmp_path).existing("dmeo")
    with pytest.raises(RunError, match=r"'photos'.*quorum status"):
        Runs(tmp_path).existing("photos")


def test_an_environment_variable_sets_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUORUM_RUNS", raising=False)
    assert Runs().root == Path("runs")
    monkeypatch.setenv("QUORUM_RUNS", str(tmp_path))
    assert Runs().root == tmp_path
    assert Runs("given").root == Path("given")
