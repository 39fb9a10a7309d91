"""Locks exclude other processes, end with their holder, and work without `flock`."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from common.locks import locked
from tests.docs import ROOT

HOLD = """
import sys, time
from pathlib import Path
from common.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def held_elsewhere(path: Path) -> subprocess.Popen[str]:
    """Return a process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_excludes_other_processes_until_its_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.lock"
    with held_elsewhere(path) as other:
        with pytest.raises(filelock.Timeout), locked(path, timeout=0):
            pass
        other.kill()
    with locked(path, timeout=5):
        pass
    with locked(path, timeout=0):
        pass


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_flock_a_marker_file_locks(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    path = tmp_path / "x.lock"
    with locked(path):
        assert (tmp_path / "x.lock.held").exists()
        with pytest.raises(filelock.Timeout), locked(path, timeout=0):
            pass
    with locked(path, timeout=0):
        pass


def test_other_errors_are_raised(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), locked(tmp_path / "folder", timeout=0):
        pass


def test_an_error_in_the_block_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="inside"), locked(tmp_path / "lock"):
        raise KeyError("inside")
    with locked(tmp_path / "lock", timeout=0):
        assert (tmp_path / "lock").exists()
