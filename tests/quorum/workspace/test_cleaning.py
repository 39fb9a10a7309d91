"""Cleaning removes only files that are not needed."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from common.errors import RunError
from journal.events import CheckpointSaved
from journal.journal import Journal
from journal.lock import at_work
from quorum import Outcome
from quorum.cli import main as quorum
from quorum.workspace.cleaning import clean, removable, usage
from tests.events import epoch, run_started, trial_ended, trial_started
from trainables.records import RunFolder

BYTES = b"x" * 1000


def put(path: Path, data: bytes = BYTES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return a run in which t0000 completed, t0001 was pruned and t0002 can be resumed."""
    run = RunFolder(tmp_path / "runs" / "mine")
    with Journal(run.journal) as journal:
        journal.append(run_started(fingerprint="sha256:ab"))
        for number in range(3):
            name = f"t{number:04d}"
            journal.append(trial_started(name))
            journal.append(epoch(name, 1))
            place = f"search-000001/{name}/checkpoint_000000"
            put(run.checkpoints / place / "state.json")
            journal.append(CheckpointSaved(trial=name, step=1, path=place))
            for file in ("start.json", "val.npy", "holdout.npy", "weights.safetensors"):
                put(run.trial(name) / file)
        for name, status in (("t0000", "completed"), ("t0001", "pruned")):
            put(run.trial(name) / "record.json")
            journal.append(trial_ended(name, status))
    for path in ("student/card.json", "student/model.onnx", "student/work/taught/checkpoint",
                 "ledger/ledger.json", "figures/sweep.png", "report.pdf", "optuna.journal",
                 "sweep.yaml", "selection.json", "labels.npz", "trials/t0000/.val.npy.ab12cd_3",
                 ".gitignore"):  # fmt: skip
        put(run.root / path)
    return run


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


REMOVED = {
    "checkpoints/search-000001/t0000/checkpoint_000000/state.json",
    "checkpoints/search-000001/t0001/checkpoint_000000/state.json",
    "trials/t0001/weights.safetensors",
    "trials/t0000/.val.npy.ab12cd_3",
    "student/work/taught/checkpoint",
    "figures/sweep.png",
}


def test_only_files_that_can_be_made_again_are_removed(folder: RunFolder) -> None:
    before = files(folder.root)
    parts = removable(folder)
    assert files(folder.root) == before  # listing removes nothing
    assert clean(folder) == parts
    assert before - files(folder.root) == REMOVED
    assert sum(part.bytes for part in parts) == 1000 * len(REMOVED)
    assert clean(folder) == []
    everything = clean(folder, everything=True)
    assert before - files(folder.root) == REMOVED | {"report.pdf", "optuna.journal"}
    assert [part.bytes for part in everything] == [1000, 1000]


def test_a_run_in_use_is_not_cleaned(folder: RunFolder) -> None:
    before = files(folder.root)
    assert at_work(folder.journal) is None
    with Journal(folder.journal):
        assert "process " in (at_work(folder.journal) or "")
        with pytest.raises(RunError, match="is in use by process"):
            clean(folder)
    assert at_work(folder.journal) is None
    assert files(folder.root) == before


@pytest.mark.parametrize("link", ["checkpoints", "figures", "trials", "student/work", "student"])
def test_links_are_not_followed(folder: RunFolder, link: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (folder.root / link).rename(outside)
    (folder.root / link).symlink_to(outside)
    before = files(outside)
    clean(folder, everything=True)
    assert files(outside) == before
    assert (folder.root / link).is_symlink()


def test_a_link_is_removed_without_its_target(folder: RunFolder, tmp_path: Path) -> None:
    precious = put(tmp_path / "precious")
    (folder.figures / "link.png").symlink_to(precious)
    assert usage(folder)["figures and report"] == 2000
    clean(folder)
    assert precious.exists()
    assert not folder.figures.exists()


def test_the_sizes_of_the_parts_add_up(folder: RunFolder) -> None:
    sizes = usage(folder)
    own = sum(size for name, size in sizes.items() if name not in list(sizes)[-2:])
    assert own == sum((folder.root / name).stat().st_size for name in files(folder.root))
    assert sizes["checkpoints"] == 3000
    assert sizes["student"] == 3000


def test_decoded_images_are_removed_only_with_the_cache(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUORUM_CACHE", str(tmp_path / "cache"))
    own, other = (tmp_path / "cache" / name for name in ("parquet-1", "parquet-2"))
    put(own / "about.json", b'{"fingerprint": "sha256:ab"}')
    put(other / "about.json", b'{"fingerprint": "sha256:cd"}')
    clean(folder)
    assert own.exists()
    clean(folder, cache=True)
    assert not own.exists()
    assert other.exists()


@pytest.mark.slow
def test_commands_give_the_same_answers_on_a_clean_run(
    finished_run: Outcome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other tests run distill and report on clean runs."""
    folder = RunFolder(shutil.copytree(finished_run.folder.root, tmp_path / "runs" / "mine"))
    Image.new("L", (20, 20), 200).save(tmp_path / "a.png")

    def output(*arguments: str) -> str:
        assert quorum.main([*arguments, "--runs", str(tmp_path / "runs")]) == 0
        return capsys.readouterr().out

    commands = [["status", "mine"], ["select", "mine"],
             ["predict", "mine", str(tmp_path / "a.png")]]  # fmt: skip
    before = [output(*command) for command in commands]
    frozen = folder.selection.read_bytes()
    parts = [part.description for part in removable(folder, everything=True)]
    assert any("`report`" in part for part in parts), "the command makes the report again"
    cleaned = output("clean", "mine", "--all")
    assert all(part in cleaned for part in parts)
    assert not folder.report.exists()
    after = [output(*command) for command in commands]
    assert after[1:] == before[1:]
    assert "frees" in before[0]
    assert "frees" not in after[0]
    assert before[0].partition("disk")[0] == after[0].partition("disk")[0]
    assert folder.selection.read_bytes() == frozen
    assert "nothing" in output("clean", "mine", "--all", "--dry-run")
