"""Clients without the token, on every open port; nothing of ours listens where it should not."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.cluster.bench import SHARED, SWEEP, Bench
from tests.cluster.errors import ScenarioError
from tests.cluster.hosts import Host
from tests.cluster.ray_cluster import RAY
from tests.cluster.results import Finding

TRIALS = 2
SSH = 22
CLIENT_PORT, DASHBOARD_PORT = 10001, 8265
WRONG = "f" * 64
REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED", "400", "401", "403", "404")
PROBE = "quorum/tests/cluster/probe.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A TCP socket that accepts connections."""

    host: str
    address: str
    port: int
    process: str

    @property
    def reachable(self) -> bool:
        """True if other hosts can connect to it."""
        return not (self.address.startswith("127.") or self.address in ("[::1]", "::1"))


Answers = Mapping[str, Mapping[str, str]]
"""Answers of ports by HOST:PORT and question."""


def strangers_refused(bench: Bench) -> Finding:
    """Clients without the token are refused on every open port; the same with it are let in."""
    run = bench.quorum(f"sweep {SWEEP} --trials {TRIALS}", runs=SHARED / "runs")
    run.reach_epoch(1, trials=2)
    processes = _exposed(bench)
    ports = list(processes)
    nobody, wrong, known = (_ask(bench, ports, token) for token in (None, WRONG, bench.token))
    still_open = _exposed(bench)  # without the ports of trials that have ended
    run.finish(trials=TRIALS)

    _refuse(processes, {"no token": nobody, "a wrong token": wrong})
    welcome = [port for port in ports if known_to_ray(known[port])]
    strange = [port for port in ports if port in still_open and port not in welcome]
    if strange:
        raise ScenarioError(
            f"{processes[strange[0]]} on {strange[0]} is open, but not Ray's: it answers nothing "
            "even to the token",
            json.dumps(known, indent=1),
        )
    _clients(bench)
    names = sorted({process.split("::")[0] for process in processes.values()})
    return Finding(
        note=f"{len(ports)} open ports refuse, {len(welcome)} let the token in ({', '.join(names)})"
    )


def let_in(answers: Mapping[str, str]) -> list[str]:
    """Return the requests that were let in: answered neither by a refusal nor by "not found".

    INVALID_ARGUMENT counts as let in: the server checks the token before the arguments.
    """
    return [question for question, answer in answers.items() if answer not in REFUSALS]


def known_to_ray(answers: Mapping[str, str]) -> bool:
    """Return whether a port let a client with the token in.

    Ray's HTTP servers then answer 404 to a path that they do not have.
    """
    return bool(let_in(answers)) or "404" in answers.values()


def parse_listeners(output: str, host: str) -> list[Listener]:
    """Return the listeners in the output of `ss -ltnpH`."""
    found = []
    for line in output.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        process = re.search(r'users:\(\("([^"]*)"', line)
        name = process[1] if process else ""
        found.append(Listener(host=host, address=address, port=int(port), process=name))
    return found


def _exposed(bench: Bench) -> dict[str, str]:
    """Return the process behind every HOST:PORT that other hosts can connect to, without SSH's."""
    return {
        f"{host.address}:{listener.port}": listener.process
        for host in (bench.head, *bench.workers)
        for listener in _listeners(host)
        if listener.reachable and listener.port != SSH
    }


def _listeners(host: Host) -> list[Listener]:
    return parse_listeners(host.administer("ss", "-ltnpH"), host.name)


def _ask(bench: Bench, ports: Iterable[str], token: str | None) -> Answers:
    value = f"TOKEN={token} " if token else ""
    output = bench.stranger.run(
        f"{value}{bench.tool('python')} {PROBE} {' '.join(ports)}", seconds=120
    )
    answers: Answers = json.loads(output.partition("ANSWERS")[2])
    return answers


def _refuse(processes: Mapping[str, str], answers: Mapping[str, Answers]) -> None:
    """Check that no port answered a question."""
    for credentials, by_port in answers.items():
        for port, replies in by_port.items():
            questions = let_in(replies)
            if questions:
                raise ScenarioError(
                    f"{processes[port]} on {port} answers {questions[0]} to {credentials}",
                    json.dumps(by_port, indent=1),
                )


def _clients(bench: Bench) -> None:
    """Try Ray's own clients from the stranger's host, first without the token."""
    address = bench.cluster.address
    status = f"{RAY} status --address {address}"
    attempts = [
        ("ray status, no token", f"RAY_AUTH_MODE=disabled {status}", True),
        ("ray status, wrong token", _with(WRONG, status), True),
        ("ray status, token", _with(bench.token, status), False),
    ]
    for name, command, refused in attempts:
        done = bench.stranger.start(command)
        if (done.wait(60) != 0) != refused:
            raise ScenarioError(f"{name}: {'let in' if refused else 'refused'}", done.output)
    jobs = f"http://127.0.0.1:{DASHBOARD_PORT}/api/jobs/"
    listening = {listener.port for listener in _listeners(bench.head)}
    if DASHBOARD_PORT in listening:
        _jobs(bench, jobs)
    if CLIENT_PORT in listening:
        _ray_client(bench, f"ray://{bench.head.address}:{CLIENT_PORT}")


def _jobs(bench: Bench, url: str) -> None:
    """Ask for the list of jobs on the head itself, where the dashboard listens."""
    ask = "curl -s -o /dev/null -w '%{http_code}'"
    code = bench.head.run(f"{ask} {url}")
    if code not in ("401", "403"):
        raise ScenarioError(f"{url} answers {code} without the token")


def _ray_client(bench: Bench, address: str) -> None:
    """Connect with `ray://`, which needs grpcio from the tools."""
    packages = f"PYTHONPATH=$HOME/quorum:$(echo {bench.tools}/lib/python*/site-packages)"
    script = f"import ray; ray.init('{address}'); print(ray.cluster_resources())"
    command = f'{packages} quorum/.venv/bin/python -c "{script}"'
    for token, refused in ((WRONG, True), (bench.token, False)):
        done = bench.stranger.start(_with(token, command))
        if (done.wait(90) != 0) != refused:
            raise ScenarioError(f"{address}: {'let in' if refused else 'refused'}", done.output)


def _with(token: str, command: str) -> str:
    return f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={token} {command}"
