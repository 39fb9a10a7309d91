"""Hosts made of namespaces: boot one, run a command on it, kill it, cut it off the network.

Everything here runs inside the namespaces that `isolation` made, as their root.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from tests.cluster.errors import CommandError

USER = "ubuntu"
"""The account on every host; cluster.yaml names the same one."""
UID = 1777
SUBNET = "10.66.0"
BRIDGE = "lan"
BOOT = Path(__file__).with_name("boot.sh")

PROFILE = """\
export PATH=$HOME/stubs:$PATH PYTHONPATH=$HOME/quorum
export RAY_USAGE_STATS_ENABLED=0 RAY_USAGE_STATS_REPORT_URL=http://127.0.0.1:9
export MLFLOW_DISABLE_TELEMETRY=true
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1
export AWS_EC2_METADATA_DISABLED=true
"""
"""Read by every shell on a host. The code is the checkout that `ray up` copied; Ray's workers
inherit the credentials of the S3 scenario."""

SUDO = """\
#!/bin/bash
# The packages are installed, and there is no network to fetch others from.
case " $* " in *" apt-get "* | *" apt "* | *" snap "*) exit 0 ;; esac
while [[ "$1" == -* || "$1" == *=* ]]; do shift; done
exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder or file of the machine that a host sees at `target`."""

    source: Path
    target: Path
    writable: bool = False


class Command:
    """A command that runs on a host."""

    def __init__(self, host: str, words: Sequence[str], log: Path) -> None:
        """Start it; its output goes to `log`."""
        self.host, self.log = host, log
        self.short = words[-1].removeprefix("cd && ").removeprefix("exec ").splitlines()[0]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """The text that it has printed so far."""
        return self.log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int:
        """Wait until it ends and return its exit code.

        Raises:
            CommandError: it runs for longer than `seconds`; it is killed.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CommandError(
                f"{self.host}: still running after {seconds:.0f} s: {self.short}", self.output
            ) from None

    def expect(self, code: int, seconds: float) -> str:
        """Wait until it ends and return its output.

        Raises:
            CommandError: it ends with another code than `code`, or too late.
        """
        found = self.wait(seconds)
        if found != code:
            raise CommandError(
                f"{self.host}: exit code {found} instead of {code}: {self.short}", self.output
            )
        return self.output

    def kill(self, *, descendants: bool = False) -> None:
        """Kill the process on the host with SIGKILL, so that it cannot clean up."""
        # nsenter stays outside the host's pid namespace and waits for its only child.
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=descendants):
                child.kill()
        self._process.wait()


@dataclass(slots=True, kw_only=True)
class Host:
    """One host; its disk is `folder`, which outlives a restart."""

    name: str
    number: int
    """Last byte of its address."""
    folder: Path
    mounts: Sequence[Mount] = ()
    sshd: bool = True
    pid: int | None = None
    """Process id of its first process; None while it is off."""
    _boot: "subprocess.Popen[str] | None" = None
    _commands: int = field(default=0, init=False)

    @property
    def address(self) -> str:
        """Its IP address."""
        return f"{SUBNET}.{self.number}"

    @property
    def home(self) -> Path:
        """The user's home folder as the harness sees it."""
        return self.folder / "home" / USER

    @property
    def link(self) -> str:
        """The harness's end of its network cable."""
        return f"v-{self.name}"

    def prepare(self, *, key: Path, authorized: str) -> None:
        """Create its disk: accounts, the home folder and the private key `key` of its sshd."""
        for place in ("etc", "tmp", "logs"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        (self.folder / "tmp").chmod(0o1777)
        for name in ("passwd", "group", "shadow"):
            text = accounts(Path("/etc", name).read_text(), name)
            (self.folder / "etc" / name).write_text(text)
        (self.folder / "etc" / "shadow").chmod(0o600)
        shutil.copy(key, self.folder / "host_key")
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "authorized_keys").write_text(authorized)
        (self.home / "quorum" / ".venv").mkdir(parents=True)
        (self.home / "stubs").mkdir()
        (self.home / "stubs" / "sudo").write_text(SUDO)
        (self.home / "stubs" / "sudo").chmod(0o755)
        (self.home / ".bashrc").write_text(PROFILE)
        (self.home / ".profile").write_text(". ~/.bashrc\n")
        self.own(self.home)
        (self.home / ".ssh").chmod(0o700)

    def own(self, *paths: Path) -> None:
        """Give folders, with all that they hold, to the host's user."""
        for path in paths:
            for place, _, files in os.walk(path):
                os.chown(place, UID, UID)
                for file in files:
                    os.chown(Path(place, file), UID, UID, follow_symlinks=False)

    def boot(self) -> None:
        """Switch it on and plug it in; return once its sshd listens."""
        assert self.pid is None, f"{self.name} is on"
        words = ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child"]
        words += [str(BOOT), self.name, self.address, str(self.folder)]
        words += [USER if self.sshd else "none"]
        for mount in self.mounts:
            words += [str(mount.source), str(mount.target), "rw" if mount.writable else "ro"]
        with (self.folder / "boot.log").open("w") as errors:
            self._boot = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._hear("born")
        (first,) = psutil.Process(self._boot.pid).children()
        self.pid = first.pid
        self._plug_in()
        assert self._boot.stdin is not None
        self._boot.stdin.write("go\n")
        self._boot.stdin.flush()
        self._hear("ready")

    def kill(self) -> None:
        """Cut its power: the kernel kills all of its processes at once and removes its network."""
        if self.pid is not None:
            assert self._boot is not None
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self.pid).kill()
            self._boot.wait()
            self.pid = self._boot = None

    def restart(self) -> None:
        """Switch it off and on again. Its disk is kept, except /tmp."""
        self.kill()
        for path in (self.folder / "tmp").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.boot()

    def start(self, command: str) -> Command:
        """Start a shell command as the host's user, in the home folder."""
        assert self.pid is not None, f"{self.name} is off"
        self._commands += 1
        log = self.folder / "logs" / f"{self._commands:03d}.log"
        return Command(
            self.name, [*self._enter(), "bash", "--login", "-c", f"cd && {command}"], log
        )

    def run(self, command: str, *, seconds: float = 60, code: int = 0) -> str:
        """Run a shell command as the host's user and return its output.

        Raises:
            CommandError: it ends with another code than `code`, or takes too long.
        """
        return self.start(command).expect(code, seconds)

    def administer(self, *words: str) -> str:
        """Run a program of the machine in the host's namespaces as root; return its output."""
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--uts"]
        return subprocess.run([*enter, *words], check=True, capture_output=True, text=True).stdout

    def cut(self) -> None:
        """Pull its network cable."""
        _ip("link", "set", self.link, "down")

    def join(self) -> None:
        """Plug its network cable in again."""
        _ip("link", "set", self.link, "up")

    def _enter(self) -> list[str]:
        spaces = ["--net", "--mount", "--pid", "--uts", "--ipc"]
        user = [f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        home = f"/home/{USER}"
        values = [f"HOME={home}", f"USER={USER}", "LANG=C.UTF-8", "TERM=dumb"]
        path = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        return [
            *("nsenter", "--target", str(self.pid), *spaces),
            *("setpriv", *user, "env", "-i", *values, path),
        ]

    def _plug_in(self) -> None:
        """Lay a cable from the bridge to the host's interface e0."""
        _ip("link", "add", self.link, "type", "veth", "peer", "name", "e0", "netns", str(self.pid))
        _ip("link", "set", self.link, "master", BRIDGE, "up")
        inside = ["nsenter", "--target", str(self.pid), "--net", "ip"]
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address}/24", "dev", "e0"),
            ("link", "set", "e0", "up"),
            # Ray finds its own address by the default route. Nobody forwards what it sends.
            ("route", "add", "default", "via", f"{SUBNET}.254"),
        ):
            subprocess.run([*inside, *words], check=True)

    def _hear(self, word: str) -> None:
        assert self._boot is not None
        output: IO[str] | None = self._boot.stdout
        assert output is not None
        line = output.readline().strip()
        if line != word:
            errors = (self.folder / "boot.log").read_text()
            raise CommandError(f"{self.name} does not boot (no {word!r})", errors)


def lay_network() -> None:
    """Create the bridge that all hosts are plugged into, in the namespace of this process."""
    _ip("link", "set", "lo", "up")
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{SUBNET}.254/24", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")


def accounts(text: str, name: str) -> str:
    """Return the machine's passwd, group or shadow file with the hosts' user in it."""
    line = {
        "passwd": f"{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash",
        "group": f"{USER}:x:{UID}:",
        "shadow": f"{USER}:*:19000:0:99999:7:::",
    }[name]
    others = [other for other in text.splitlines() if not other.startswith(f"{USER}:")]
    return "\n".join([*others, line, ""])


def wait_until(condition: Callable[[], object], seconds: float, *, every: float = 0.5) -> bool:
    """Call `condition` until it returns true; return whether it did so in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
