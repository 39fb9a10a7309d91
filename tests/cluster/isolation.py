"""Run the harness inside namespaces that vanish together with it.

The outer process checks what the machine lacks, makes a work folder, and runs the harness as the
first process of new pid, mount, network, host name and ipc namespaces. When that process ends,
the kernel kills whatever the hosts still run and removes their networks and mounts, even after
SIGKILL. The work folder is then removed by the outer process.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

from tests.docs import ROOT

TOOLS = (
    *("ip", "ss", "nsenter", "unshare", "setpriv", "mount", "umount", "pivot_root"),
    *("ssh", "ssh-keygen", "sshd", "rsync", "screen", "bash"),
)
PACKAGES = "iproute2, util-linux, openssh-server, rsync, screen"
OWN_SPACES = (
    "--fork",
    "--kill-child",
    "--pid",
    "--mount",
    "--mount-proc",
    "--net",
    "--uts",
    "--ipc",
)
ENDING_SECONDS = 15.0


def obstacle() -> str | None:
    """Return the reason why this machine cannot run the harness; None if it can."""
    if not sys.platform.startswith("linux"):
        return "the hosts are Linux namespaces"
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        return f"{', '.join(missing)} not found; install {PACKAGES}"
    if os.geteuid() != 0:
        return "only root may make network namespaces; try: sudo make test-cluster"
    probe = "ip link add probe type bridge && mount -t tmpfs tmpfs /mnt"
    found = subprocess.run(
        ["unshare", *OWN_SPACES, "bash", "-c", probe], capture_output=True, text=True
    )
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"namespaces are not allowed here: {reason}"
    if not (ROOT / ".venv" / ".quorum-setup").exists():
        return "there is no .venv; run `make setup` first"
    return None


def run_isolated(arguments: Sequence[str], *, work: Path | None) -> int:
    """Run `python -m tests.cluster ARGUMENTS` inside namespaces; return its exit code.

    `work` is a folder to keep, with the logs of all hosts; by default a temporary one is removed.
    """
    heed_signals()
    folder = Path(tempfile.mkdtemp(prefix="quorum-cluster-")) if work is None else work.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    words = ["setpriv", "--pdeathsig", "KILL", "unshare", *OWN_SPACES, sys.executable]
    words += ["-m", "tests.cluster", *arguments, "--inside", str(folder)]
    # In a session of its own, Ctrl-C reaches the inner process only from here, and the hosts never.
    process = subprocess.Popen(words, cwd=ROOT, start_new_session=True)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = 130
        with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired, psutil.Error):
            for inner in psutil.Process(process.pid).children():
                inner.send_signal(signal.SIGINT)
            process.wait(ENDING_SECONDS)
    finally:
        process.kill()
        process.wait()
        left = leftovers(folder)
        if work is None:
            shutil.rmtree(folder)
    print(f"left behind: {', '.join(left) or 'nothing'}")  # noqa: T201
    return code or bool(left)


def leftovers(folder: Path) -> list[str]:
    """Return the processes and mounts of this machine that belong to the work folder's hosts."""
    noted = folder / "namespaces"
    spaces = set(noted.read_text().split()) if noted.exists() else set()
    found = [
        f"process {process.name}"
        for process in Path("/proc").glob("[0-9]*")
        if spaces & set(namespaces_of(process))
    ]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return found + [f"mount {line.split()[1]}" for line in mounts if f"{folder}/" in line]


def note_namespaces(folder: Path, pid: int) -> None:
    """Add the namespaces of a process to those that must be gone in the end."""
    with (folder / "namespaces").open("a") as file:
        file.write("\n".join([*namespaces_of(Path("/proc", str(pid))), ""]))


def namespaces_of(process: Path) -> list[str]:
    """Return the pid, network and mount namespaces of a process by its folder in /proc."""
    names = []
    for kind in ("pid", "net", "mnt"):
        with contextlib.suppress(OSError):
            names.append(str((process / "ns" / kind).readlink()))
    return names


def heed_signals() -> None:
    """Raise KeyboardInterrupt at Ctrl-C, which background jobs ignore otherwise, and at SIGTERM."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
