"""The hosts of a test, the cluster on them, and runs of `quorum` on it."""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.errors import ScenarioError, UnavailableError
from tests.cluster.hosts import USER, Command, Host, Mount, lay_network
from tests.cluster.isolation import note_namespaces
from tests.cluster.ray_cluster import RayCluster
from tests.cluster.run_log import Events, flaws, of_kind, read_log
from tests.docs import ROOT

QUORUM = "quorum/.venv/bin/quorum"
SWEEP = "quorum/tests/cluster/sweep.yaml"
SHARED, SMALL = Path("/mnt/shared"), Path("/mnt/small")
"""A folder that all hosts share, as NFS or EFS; a small one, also shared."""
SMALL_BYTES = 3_000_000
RUN_SECONDS = 240.0


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of `quorum` on a host."""

    name: str
    host: Host
    journal: Path
    """Its journal as the harness sees it."""
    command: Command
    began: float
    """Unix seconds."""

    @property
    def events(self) -> Events:
        """The events so far."""
        return read_log(self.journal)

    def reach(
        self, condition: Callable[[Events], bool], what: str, *, seconds: float = 120
    ) -> None:
        """Wait until the run's events meet a condition.

        Raises:
            ScenarioError: they do not in time, or the command has ended before.
        """
        end = time.monotonic() + seconds
        while not condition(self.events):
            if self.command.code is not None or time.monotonic() > end:
                state = "timed out" if self.command.code is None else f"ended ({self.command.code})"
                raise ScenarioError(f"{self.name} {state} before {what}", self.command.output)
            time.sleep(0.2)

    def reach_epoch(self, step: int, *, trials: int = 1) -> None:
        """Wait until this many trials have trained `step` epochs."""

        def reached(events: Events) -> bool:
            return (
                len({e["trial"] for e in of_kind(events, "epoch") if e["step"] >= step}) >= trials
            )

        self.reach(reached, f"epoch {step} of {trials} trials")

    def finish(self, *, trials: int | None, seconds: float = RUN_SECONDS) -> str:
        """Wait for its end; return its output.

        Raises:
            ScenarioError: it fails, or its journal is not whole.
        """
        output = self.command.expect(0, seconds)
        found = flaws(self.events, trials=trials)
        if found:
            raise ScenarioError("; ".join(found[:3]), output)
        return output


@dataclass(slots=True, kw_only=True)
class Bench:
    """Hosts and cluster, shared by all scenarios."""

    work: Path
    laptop: Host
    head: Host
    workers: tuple[Host, ...]
    stranger: Host
    """On the network, but without the token."""
    tools: Path | None
    """An environment with an S3 server and a gRPC client; None if it could not be made."""
    cluster: RayCluster = field(init=False)
    _runs: int = field(default=0, init=False)

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts."""
        return (self.laptop, self.head, *self.workers, self.stranger)

    @property
    def token(self) -> str:
        """The cluster's token."""
        return (self.laptop.home / ".ray" / "auth_token").read_text().strip()

    def tool(self, name: str) -> str:
        """Return the path of a program in the tools' environment, the same on all hosts.

        Raises:
            UnavailableError: there is no such environment.
        """
        if self.tools is None:
            raise UnavailableError("its tools could not be installed (moto, grpcio)")
        return str(self.tools / "bin" / name)

    def quorum(
        self,
        arguments: str,
        *,
        name: str = "",
        host: Host | None = None,
        runs: Path | None = None,
        address: str = "auto",
        environment: Mapping[str, str] | None = None,
    ) -> Run:
        """Start `quorum ARGUMENTS` on a host, by default the head, and return the run.

        `runs` is the folder of all runs on the host; `name` is that of a run to resume.
        """
        host = host or self.head
        self._runs += not name
        name = name or f"run{self._runs:02d}"
        folder = runs or Path("/home", USER, "runs")
        values = "".join(f"{key}={shlex.quote(v)} " for key, v in (environment or {}).items())
        words = f"{arguments} --address {address} --name {name} --runs {folder}"
        began = time.time()
        command = host.start(f"{values}exec {QUORUM} {words}")
        journal = self.seen(host, folder) / name / "journal.jsonl"
        return Run(name=name, host=host, journal=journal, command=command, began=began)

    def seen(self, host: Host, path: Path) -> Path:
        """Return the place of a host's folder as the harness sees it."""
        for root, place in ((SHARED, "shared"), (SMALL, "small")):
            if path.is_relative_to(root):
                return self.work / place / path.relative_to(root)
        return host.folder / path.relative_to("/")

    def repair(self) -> None:
        """Bring back every host and worker that a scenario left off or cut."""
        for host in self.hosts:
            if host.pid is None:
                self.boot(host)
            host.join()
        if not self.cluster.running(self.head):
            self.cluster.up()
        self.cluster.wait_for_workers()

    def boot(self, host: Host) -> None:
        """Switch a host on."""
        host.restart()
        assert host.pid is not None
        note_namespaces(self.work, host.pid)


def open_bench(work: Path, tools: Path | None, *, config: Path, workers: int = 2) -> Bench:
    """Make the hosts and switch them on; Ray does not run yet."""
    lay_network()
    keys = work / "keys"
    keys.mkdir(parents=True, exist_ok=True)
    for name in ("id", "host_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(words, check=True)
    shared, small = work / "shared", work / "small"
    for folder in (shared, small):
        folder.mkdir()
    options = f"size={SMALL_BYTES},mode=1777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(small)], check=True)
    shared.chmod(0o1777)
    stamp = work / "stamp"
    stamp.touch()
    mounts = host_mounts(work, stamp, tools)
    names = ["laptop", "head", *(f"w{n + 1}" for n in range(workers)), "stranger"]
    hosts = []
    for number, name in enumerate(names, start=1):
        sshd = name not in ("laptop", "stranger")
        host = Host(
            name=name, number=number, folder=work / "hosts" / name, mounts=mounts, sshd=sshd
        )
        host.prepare(key=keys / "host_key", authorized=(keys / "id.pub").read_text())
        hosts.append(host)
    laptop, head, *others, stranger = hosts
    furnish_laptop(laptop, keys / "id")
    # The stranger has the code, but has never seen the token.
    copy_project(stranger.home / "quorum")
    stranger.own(stranger.home)
    bench = Bench(
        work=work, laptop=laptop, head=head, workers=tuple(others), stranger=stranger, tools=tools
    )
    for host in bench.hosts:
        bench.boot(host)
    bench.cluster = RayCluster(laptop, head, others, config)
    return bench


def host_mounts(work: Path, stamp: Path, tools: Path | None) -> list[Mount]:
    """Return what every host sees of the machine, beside /usr and /etc.

    The environment appears where it was made, because its scripts name that place, and as
    ~/quorum/.venv. A new `stamp` in it tells `make setup` that nothing is to be installed.
    """
    venv = (ROOT / ".venv").resolve()
    place = Path("/home", USER, "quorum", ".venv")
    fixed = [Path(sys.base_prefix).resolve(), venv, *([tools] if tools else [])]
    return [
        *(Mount(source=path, target=path) for path in fixed if not path.is_relative_to("/usr")),
        Mount(source=venv, target=place),
        Mount(source=stamp, target=place / ".quorum-setup"),
        Mount(source=work / "shared", target=SHARED, writable=True),
        Mount(source=work / "small", target=SMALL, writable=True),
    ]


def furnish_laptop(laptop: Host, key: Path) -> None:
    """Give the laptop a checkout, the private key, Ray and a new token."""
    shutil.copy(key, laptop.home / ".ssh" / "id")
    (laptop.home / ".ssh" / "id").chmod(0o600)
    (laptop.home / "ray").symlink_to("quorum/.venv/bin/ray")
    (laptop.home / ".ray").mkdir()
    token = laptop.home / ".ray" / "auth_token"
    token.write_text(Path("/proc/sys/kernel/random/uuid").read_text().strip().replace("-", "") * 2)
    token.chmod(0o600)
    copy_project(laptop.home / "checkout")
    laptop.own(laptop.home)


def copy_project(target: Path) -> None:
    """Copy the files that git knows, or would add, as they are now."""
    words = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "ls-files", "-z"]
    words += ["--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file() and not name.startswith(".venv"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
