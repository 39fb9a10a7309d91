"""A sweep whose machine loses power at any time gives the same results as an uninterrupted one.

The worst file system that POSIX allows: of a file, only what was synced is sure to be there, and of
a folder the names at its last sync. Of the rest, any part may be there.
"""

import os
import random
import shutil
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import file_sha256
from journal.journal import read_state
from tests.faults.disk import path_of
from tests.faults.test_resume import outcome
from tests.simulated_tune import Sweep
from trainables.records import RunFolder, read_start


class PowerLoss(BaseException):
    """The machine stops."""


class Disk:
    """Knows what is durable below a run's folder; loses power before the n-th sync."""

    def __init__(self, root: Path, *, dies_at: int, rng: random.Random) -> None:
        self.root, self.count = root, 0
        self._dies_at, self._rng = dies_at, rng
        self._content: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._guard = threading.Lock()

    def sync(self, descriptor: int) -> None:
        """Take the place of os.fsync."""
        path = path_of(descriptor)
        inside = path.is_relative_to(self.root) and "worker" not in path.parts
        if not inside:
            return
        with self._guard:
            if self.count >= self._dies_at:
                raise PowerLoss
            self.count += 1
            about = os.fstat(descriptor)
            if stat.S_ISDIR(about.st_mode):
                self._names[about.st_ino] = inodes(path)
            else:
                self._content[about.st_ino] = path.read_bytes()

    def restart(self, target: Path) -> None:
        """Write what survives to another folder."""
        target.mkdir()
        self._keep_folder(self.root, target)
        for session in (self.root / "checkpoints").glob("*/*"):  # Tune does not sync them
            if self._coin():
                shutil.copytree(session, target / session.relative_to(self.root))

    def _keep_folder(self, folder: Path, target: Path) -> None:
        now, synced = inodes(folder), self._names.get(folder.stat().st_ino, {})
        for name in sorted({*now, *synced} - {"checkpoints", "worker"}):
            old, new = synced.get(name), now.get(name)
            if old != new and self._coin():
                new = old
            if new is None:
                continue
            path = folder / name
            if path.is_dir():
                (target / name).mkdir()
                self._keep_folder(path, target / name)
            else:
                there = path.read_bytes() if now.get(name) == new else self._content[new]
                (target / name).write_bytes(self._keep(there, self._content.get(new, b"")))

    def _keep(self, content: bytes, synced: bytes) -> bytes:
        """Return synced content and a part of the rest: it ends early, and has a hole of zeros."""
        rest = content[len(synced) :]
        if not rest or not content.startswith(synced):
            return synced
        low, high, end = sorted(self._rng.randint(0, len(rest)) for _ in range(3))
        return synced + rest[:low] + bytes(high - low) + rest[high:end]

    def _coin(self) -> bool:
        return self._rng.random() < 0.5


def inodes(folder: Path) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(folder)}


def require_consistent(root: Path) -> None:
    """Check that every end has its record, and every record its files and its epochs."""
    folder = RunFolder(root)
    if not folder.journal.exists():
        assert not list(folder.records())
        return
    state = read_state(folder.journal)
    records = {record.trial: record for record in folder.records()}
    for trial in state.trials.values():
        assert trial.end is None or trial.name in records
    for name, record in records.items():
        trial, place = state.trials[name], folder.trial(name)
        assert (trial.step, trial.rung) == (record.steps, record.rung)
        assert read_start(place / "start.json").seed == trial.seed
        for file in ("val.npy", "holdout.npy"):
            if trial.end is not None or (place / file).exists():
                assert file_sha256(place / file) == record.sha256[file]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("power") / "whole"
    Sweep(RunFolder(root)).run()
    return root


@settings(max_examples=40)
@given(dies_at=st.integers(0, 45), seed=st.integers(0, 1000))
def test_a_sweep_survives_a_loss_of_power(dies_at: int, seed: int, whole: Path) -> None:
    root, after = whole.with_name("running"), whole.with_name("after")
    for folder in (root, after):
        shutil.rmtree(folder, ignore_errors=True)
    disk = Disk(root, dies_at=dies_at, rng=random.Random(seed))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, disk.sync)
        with pytest.raises(PowerLoss):
            # No sync but those that something waits for: the journal's thread sleeps.
            Sweep(RunFolder(root), sync_seconds=threading.TIMEOUT_MAX).run()
        disk.restart(after)
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, lambda _: None)
        require_consistent(after)
        Sweep(RunFolder(after)).run()
    assert outcome(after) == outcome(whole)
