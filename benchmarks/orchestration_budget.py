"""Run the whole chain with a time budget on workers that are slower or faster than the head.

Fake nodes on one machine (`ray.cluster_utils`): a head without cores, and workers of one core each.
A process is made slower by stopping it for a part of every tenth of a second: at a speed of 0.25 it
runs for 25 ms and stands still for 75.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

PERIOD_SECONDS = 0.1
SWEEP: dict[str, Any] = {
    "name": "budget", "dataset": {"name": "digits"}, "splits": {"counts": [400, 400, 400]},
    "rungs": [3, 9, 27], "recipe": {"batch_size": 32, "flip": False, "width": 16}, "members": 2,
    "space": {"lr_per_1024": {"type": "float", "low": 1.0, "high": 6.0, "log": True}},
    "student": {"recipe": {"width": 8, "depth": 1, "epochs": 9}},
}  # fmt: skip


def print_budgets(*, minutes: float, speeds: Sequence[str]) -> None:
    """Run every set of speeds, HEAD:WORKER:WORKER, and print the table."""
    rows = []
    for text in speeds:
        head, *workers = map(float, text.split(":"))
        found = run_with_budget(head, workers, seconds=60 * minutes)
        print(json.dumps({"head:workers": text, **found}), flush=True)
        rows.append((text, found))
    columns = [*rows[0][1]]
    print(f"\n| speed of head:workers | {' | '.join(columns)} |")
    print(f"|---|{'--:|' * len(columns)}")
    for text, found in rows:
        print(f"| {text} | {' | '.join(str(value) for value in found.values())} |")
    print(f"\nload after: {os.getloadavg()[0]:.1f}")


def run_with_budget(head: float, workers: Sequence[float], *, seconds: float) -> dict[str, Any]:
    """Run `quorum run` from a head of this speed; compare its plan with what epochs took."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    with tempfile.TemporaryDirectory(prefix="budget-") as folder:
        sweep = Path(folder, "budget.json")  # JSON is YAML
        sweep.write_text(json.dumps(SWEEP))
        words = [sys.executable, "-m", "quorum"]
        options = [str(sweep), "--time-budget", f"{seconds:.0f}s", "--runs", folder]
        run = ["run", *options, "--address", cluster.address, "--name", "b"]
        try:
            raylets = [_raylet(cluster.add_node(num_cpus=1, object_store_memory=80_000_000))
                       for _ in workers]  # fmt: skip
            with slowed(lambda: _workers_of(raylets), dict(zip(raylets, workers, strict=True))):
                began = time.monotonic()
                with Path(folder, "log").open("w") as log:
                    process = subprocess.Popen([*words, *run], stdout=log, stderr=log)
                pid = process.pid
                with slowed(lambda: [(pid, pid)], {pid: head}):
                    code = process.wait(3 * seconds)
                spent = time.monotonic() - began
            if code:
                sys.exit(Path(folder, "log").read_text()[-3000:])
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call]
        journal = Path(folder, "b", "journal.jsonl").read_text()
        events = [json.loads(line) for line in journal.splitlines()]
        return {"budget, s": seconds, "spent, s": round(spent), **_pace_in(events)}


def _pace_in(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    plan = next(event for event in events if event["event"] == "plan")
    epochs = [event for event in events if event["event"] == "epoch"]
    ended = [event for event in events if event["event"] == "trial_ended"]
    return {
        "planned epoch, s": round(plan["epoch_seconds"], 2),
        "epochs, median s": round(statistics.median(e["seconds"] for e in epochs), 2),
        "rungs": "/".join(map(str, plan["rungs"])),
        "trials and seeds ended": len(ended),
        "of these whole": sum(bool(event["whole_schedule"]) for event in ended),
    }


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _workers_of(raylets: Sequence[int]) -> list[tuple[int, int]]:
    """Return the raylet and the process id of every Ray worker of these nodes."""
    found = []
    for raylet in raylets:
        for child in psutil.Process(raylet).children(recursive=True):
            with suppress(psutil.NoSuchProcess, IndexError):
                words = child.cmdline()
                if words[0].startswith("ray::") or any("default_worker" in w for w in words):
                    found.append((raylet, child.pid))
    return found


@contextmanager
def slowed(
    processes: Callable[[], list[tuple[int, int]]], speeds: dict[int, float]
) -> Iterator[None]:
    """Slow processes down until the end of the block; `processes` returns their owner and id."""
    over = threading.Event()

    def cycle() -> None:
        while not over.is_set():
            running = time.monotonic() + 1.0
            known = [(speeds[owner], pid) for owner, pid in processes() if speeds[owner] < 1]
            while not over.is_set() and time.monotonic() < running:
                for step in range(10):
                    for speed, pid in known:
                        _signal(pid, signal.SIGCONT if step < 10 * speed else signal.SIGSTOP)
                    over.wait(PERIOD_SECONDS / 10)
            for _, pid in known:
                _signal(pid, signal.SIGCONT)

    thread = threading.Thread(target=cycle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
