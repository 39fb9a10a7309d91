"""Run scenarios one after another on the same hosts, and print their results."""

import subprocess
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.bench import Bench, open_bench
from tests.cluster.catalogue import Scenario
from tests.cluster.errors import ScenarioError, UnavailableError
from tests.cluster.isolation import heed_signals
from tests.cluster.results import Finding, Result, Verdict, faults_table, results_table

SHOWN_LINES = 15
"""Lines of a failed command's output that are printed."""


def run_scenarios(
    scenarios: Sequence[Scenario], work: Path, *, tools: Path | None, config: Path
) -> int:
    """Run scenarios in a work folder; return 0 if none failed. Ctrl-C prints what there is."""
    results: list[Result] = []
    began = time.monotonic()
    code = 0
    heed_signals()
    try:
        bench = open_bench(work, tools, config=config)
        _print(f"{len(bench.hosts)} hosts after {time.monotonic() - began:.0f} s")
        for scenario in scenarios:
            if scenario.needs_cluster and not _repaired(bench):
                code = 1
                break
            results.append(_run(scenario, bench))
    except KeyboardInterrupt:
        code = 130
    for table in (results_table(results), faults_table(results)):
        _print(f"\n{table}" if table else "")
    _print(f"\n{time.monotonic() - began:.0f} s in all")
    return code or int(any(result.verdict == "FAIL" for result in results))


def _repaired(bench: Bench) -> bool:
    """Bring hosts and workers back; return False if the remaining scenarios cannot run."""
    try:
        bench.repair()
    except ScenarioError as error:
        _print(f"FAIL    there is no cluster: {error}")
        _print(_last_lines(error.output))
        return False
    return True


def _run(scenario: Scenario, bench: Bench) -> Result:
    began = time.monotonic()
    verdict: Verdict = "ok"
    try:
        finding = scenario.run(bench)
    except UnavailableError as reason:
        verdict, finding = "skipped", Finding(note=str(reason))
    except ScenarioError as error:
        verdict, finding = "FAIL", Finding(note=str(error))
        _print(_last_lines(error.output))
    except (OSError, subprocess.SubprocessError, AssertionError):
        verdict, finding = "FAIL", Finding(note="the harness itself failed")
        _print(traceback.format_exc())
    result = Result(
        name=scenario.name,
        verdict=verdict,
        seconds=time.monotonic() - began,
        fault=scenario.fault,
        finding=finding,
    )
    _print(f"{result.verdict:8}{result.name} ({result.seconds:.0f} s) {finding.note}")
    return result


def _last_lines(output: str) -> str:
    return "\n".join(f"    | {line[:200]}" for line in output.splitlines()[-SHOWN_LINES:])


def _print(text: str) -> None:
    if text:
        print(text, flush=True)  # noqa: T201
