"""Compare the cost of running trials with plain Ray Tune, and measure how it grows.

    python benchmarks/orchestration.py trials            # no-op trials per second
    python benchmarks/orchestration.py reports           # reports per second of one long trial
    python benchmarks/orchestration.py scale --trials 1000,10000,100000    # costs without Ray
    python benchmarks/orchestration.py nodes --nodes 8 --late 4            # nodes that join late
    python benchmarks/orchestration.py packing --rounds 3  # packed by memory, and one per device
    python benchmarks/orchestration.py budget --speeds 1:0.25:0.25,0.25:1:1   # slow workers or head

`trials` and `reports` alternate between these arms, each in a process of its own with a Ray of
its own, two trials at a time, TPE over the same four parameters:

    tune           Tune + OptunaSearch, Ray's defaults (a new worker for each trial)
    tune-reuse     the same with reuse_actors=True
    tune-lean      the same without Tune's log files; each trial saves a checkpoint, as ours do
    tune-mlflow    tune-reuse + MLflowLoggerCallback on sqlite
    quorum         run_sweep without MLflow
    quorum-mlflow  run_sweep with the MLflow mirror on sqlite

A rate counts from the end of the first trial to the end of the last (or from the first report to
the last), so that starting Ray and its workers is left out. Each line gives the median over rounds
and the median of the paired ratios to `tune-reuse`. CPU is that of the driver alone.
"""

import argparse
import json
import math
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from origin import origin_line

HERE = Path(__file__).parent
BASE = "tune-reuse"
ARMS = ("tune", BASE, "tune-lean", "tune-mlflow", "quorum", "quorum-mlflow")
TINY: dict[str, Any] = {
    "name": "tiny", "dataset": {"name": "digits"}, "rungs": [1, 2], "reduction_factor": 2,
    "startup_trials": 1000, "recipe": {"batch_size": 128, "width": 8, "depth": 1}, "members": 2,
    "space": {"lr_per_1024": {"type": "float", "low": 0.5, "high": 6.0, "log": True}},
    "student": {"recipe": {"width": 8, "depth": 1, "epochs": 2}},
}  # fmt: skip
"""The sweep of `nodes`."""


def main() -> None:
    """Run one part of the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "part", choices=["trials", "reports", "scale", "nodes", "packing", "budget"]
    )
    parser.add_argument("--arms", default=",".join(ARMS), help="arms to compare")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", help="`trials`, `packing`: a round; `scale`: 1000,10000")
    parser.add_argument("--cases", help="`packing`: cases to compare, by default all")
    parser.add_argument("--reports", type=int, default=1000, help="reports of the long trial")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--late", type=int, default=4)
    parser.add_argument("--speeds", default="1:0.25:0.25,0.25:1:1,1:1:0.25",
                        help="`budget`: speeds, each HEAD:WORKER:WORKER")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=4.0, help="`budget`: of each run")
    parser.add_argument("--png", type=Path, help="`scale`: draw the curves to this file")
    options = parser.parse_args()
    if options.part in ("nodes", "budget"):  # before anything imports Ray
        token = secrets.token_hex(32)
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    print("command:", " ".join(["python", *sys.argv]))
    print(f"{origin_line()}\n", flush=True)
    if options.part == "scale":
        from orchestration_scale import print_scale

        print_scale([int(count) for count in (options.trials or "1000,10000").split(",")],
                    png=options.png)  # fmt: skip
    elif options.part == "nodes":
        print(json.dumps(late_nodes(options.nodes, options.late, int(options.trials or 64))))
    elif options.part == "budget":
        from orchestration_budget import print_budgets

        print_budgets(minutes=options.minutes, speeds=options.speeds.split(","))
    elif options.part == "packing":
        from orchestration_packing import CASES, print_packing

        cases = options.cases.split(",") if options.cases else [*CASES]
        print_packing(cases=cases, rounds=options.rounds, trials=int(options.trials or 24))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Run the arms in turn, in a new order each round, and print the table."""
    arms = options.arms.split(",")
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        turn = arms[number % len(arms) :] + arms[: number % len(arms)]
        results = {}
        for arm in turn:
            usual = 16 if arm == "tune" else 60  # that one needs more than a second a trial
            trials, epochs = int(options.trials or usual), 1
            if options.part == "reports":
                trials, epochs = 1, options.reports
            command = [sys.executable, str(HERE / "orchestration_arms.py"), arm]
            command += [str(trials), str(epochs)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            results[arm] = json.loads(done.stdout.splitlines()[-1])
            print(f"round {number + 1}: {arm:14} {results[arm]['rate']:7.2f}/s", flush=True)
        rounds.append(results)
    unit = "trial" if options.part == "trials" else "report"
    print(f"\n| arm | {unit}s/s | lowest–highest | ratio to {BASE} | driver CPU, ms a {unit} |")
    print("|---|--:|--:|--:|--:|")
    for arm in arms:
        rates = [results[arm]["rate"] for results in rounds]
        ratio = "–"
        if BASE in arms:
            pairs = [results[arm]["rate"] / results[BASE]["rate"] for results in rounds]
            ratio = f"{statistics.median(pairs):.2f}"
        cpu = statistics.median(results[arm]["cpu_ms"] for results in rounds)
        print(
            f"| {arm} | {statistics.median(rates):.1f} | {min(rates):.1f}–{max(rates):.1f} "
            f"| {ratio} | {cpu:.1f} |"
        )
    print(f"\nn = {options.rounds} rounds; load after: {os.getloadavg()[0]:.1f}")


def late_nodes(nodes: int, late: int, trials: int) -> dict[str, Any]:
    """Run a sweep on fake nodes of one CPU, of which `late` join once it trains.

    The head has no CPU. The command line runs the sweep; its journal tells when it used which
    capacity.
    """
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    with tempfile.TemporaryDirectory(prefix="nodes-") as folder:
        sweep = Path(folder, "tiny.json")  # JSON is YAML
        sweep.write_text(json.dumps(TINY))
        command = [
            *(sys.executable, "-m", "quorum", "sweep", str(sweep), "--trials", str(trials)),
            *("--address", cluster.address, "--runs", folder, "--name", "late"),
        ]
        journal = Path(folder, "late", "journal.jsonl")
        try:
            for _ in range(nodes - late):
                cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
            with Path(folder, "log").open("w") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log)
            joined = math.inf
            while process.poll() is None:
                time.sleep(0.2)
                if late and joined == math.inf and _has(journal, "epoch"):
                    for _ in range(late):
                        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
                    joined = time.time()
            if process.returncode:
                sys.exit(Path(folder, "log").read_text()[-3000:])
        finally:
            if process.poll() is None:
                process.kill()
            cluster.shutdown()  # type: ignore[no-untyped-call]
        return {"nodes": nodes, "late": late, **_use_of(journal, nodes, joined)}


def _has(journal: Path, event: str) -> bool:
    return journal.exists() and f'"event":"{event}"' in journal.read_text()


def _use_of(journal: Path, nodes: int, joined: float) -> dict[str, Any]:
    """Return how many trials trained at a time, and when as many as there are nodes did."""
    running: set[str] = set()
    peak, all_used = 0, None
    ends: Counter[str] = Counter()
    for line in journal.read_text().splitlines():
        event = json.loads(line)
        match event["event"]:
            case "trial_started":
                running.add(event["trial"])
            case "trial_ended":
                running.discard(event["trial"])
                ends[event["status"]] += 1
        peak = max(peak, len(running))
        if all_used is None and len(running) >= nodes:
            all_used = event["time"]
    seconds = None if all_used is None or joined == math.inf else round(all_used - joined, 1)
    return {
        "most at a time": peak,
        "seconds from joining until all are used": seconds,
        "trials": dict(ends),
    }


if __name__ == "__main__":
    main()
