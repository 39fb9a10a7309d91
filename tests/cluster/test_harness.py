"""The parts of the cluster's harness that need no hosts."""

import inspect
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from search.space.sweep_files import load_spec
from tests.cluster import faults, scenarios, strangers
from tests.cluster.__main__ import main
from tests.cluster.catalogue import SCENARIOS, choose
from tests.cluster.hosts import accounts
from tests.cluster.isolation import leftovers, note_namespaces
from tests.cluster.ray_cluster import local_config
from tests.cluster.results import Finding, Result, faults_table, results_table
from tests.cluster.run_log import flaws, read_log, recovery_seconds
from tests.cluster.strangers import known_to_ray, let_in, parse_listeners
from tests.docs import ROOT

STEPS = 3


@pytest.fixture
def project() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def started(trial: str, *, attempt: int = 1, time: float = 0.0) -> dict[str, Any]:
    return {"event": "trial_started", "trial": trial, "attempt": attempt, "time": time}


def epoch(trial: str, step: int, *, time: float = 0.0) -> dict[str, Any]:
    return {"event": "epoch", "trial": trial, "step": step, "time": time}


def ended(trial: str, *, status: str = "completed", steps: int = STEPS) -> dict[str, Any]:
    return {"event": "trial_ended", "trial": trial, "status": status, "steps": steps, "time": 0.0}


def whole(trial: str) -> list[dict[str, Any]]:
    epochs = [epoch(trial, step) for step in range(1, STEPS + 1)]
    return [started(trial), *epochs, ended(trial)]


def test_only_provider_and_sizes_of_the_projects_cluster_change(project: dict[str, Any]) -> None:
    before = json.dumps(project)
    local = local_config(project, key="~/.ssh/id", head="10.0.0.1", workers=["10.0.0.2"], cpus=3)
    assert json.dumps(project) == before
    assert local["provider"]["worker_ips"] == ["10.0.0.2"]
    kept = ("file_mounts", "rsync_exclude", "initialization_commands", "setup_commands")
    assert all(local[key] == project[key] for key in kept)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for old, new in zip(project[key], local[key], strict=True):
            assert new.startswith(old)
            assert (new == old) == ("ray start" not in old)
    assert local["worker_start_ray_commands"][-1].endswith("--num-cpus=3")


def test_ray_accepts_the_local_cluster(project: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    local = local_config(project, key="~/.ssh/id", head="10.0.0.1", workers=["10.0.0.2"])
    jsonschema.validate(local, schema)


def test_a_whole_journal_has_no_flaw() -> None:
    assert flaws([*whole("a"), *whole("b")], trials=2) == []


@pytest.mark.parametrize(
    ("event", "flaw"),
    [
        (epoch("a", 2), "a epoch 2 twice"),
        (ended("a", steps=STEPS + 1), "a epoch 4 missing"),
        (ended("a", status="failed"), "a failed: "),
        (started("b"), "b never ended"),
    ],
)
def test_a_flaw_of_a_journal_is_named(event: dict[str, Any], flaw: str) -> None:
    assert flaws([*whole("a"), event], trials=1) == [flaw]


def test_a_missing_trial_is_a_flaw() -> None:
    assert flaws(whole("a"), trials=2) == ["1 of 2 trials ended"]


def test_further_seeds_do_not_count_as_searched_trials() -> None:
    seed = [{**event, "kind": "seed"} for event in whole("s")]
    assert flaws([*whole("a"), *seed], trials=1) == []


def test_recovery_ends_with_the_first_epoch_of_a_restarted_trial() -> None:
    events = [
        epoch("a", 1, time=9.0),
        epoch("b", 1, time=11.0),
        {"event": "trial_retried", "trial": "a", "time": 30.0},
        epoch("b", 2, time=31.0),
        started("a", attempt=2, time=32.0),
        epoch("a", 2, time=40.0),
    ]
    assert recovery_seconds(events, 10.0) == 30.0
    assert recovery_seconds(events[:4], 10.0) is None


def test_without_a_restart_recovery_ends_with_the_next_epoch() -> None:
    events = [epoch("a", 1, time=9.0), epoch("a", 2, time=14.0), epoch("a", 3, time=20.0)]
    assert recovery_seconds(events, 10.0) == 4.0
    assert recovery_seconds(events, 20.0) is None


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert read_log(path) == []
    path.write_text('{"event": "epoch"}\n{"event": "ep')
    assert read_log(path) == [{"event": "epoch"}]


def test_the_users_account_replaces_one_of_the_same_name() -> None:
    text = "root:x:0:0::/root:/bin/bash\nubuntu:x:1000:1000::/home/ubuntu:/bin/sh\n"
    lines = accounts(text, "passwd").splitlines()
    assert lines[0].startswith("root:")
    assert [line.split(":")[2] for line in lines] == ["0", "1777"]


def test_listeners_are_read_with_their_process() -> None:
    output = (
        'LISTEN 0 4096 127.0.0.1:8265 0.0.0.0:* users:(("ray::Dashboard",pid=7,fd=3))\n'
        'LISTEN 0 511 *:6379 *:* users:(("gcs_server",pid=5,fd=9))\n'
        "LISTEN 0 128 [::1]:22 [::]:*\n"
    )
    found = parse_listeners(output, "head")
    assert [(one.port, one.process, one.reachable) for one in found] == [
        (8265, "ray::Dashboard", False),
        (6379, "gcs_server", True),
        (22, "", False),
    ]


def test_a_port_that_judges_the_question_has_let_the_client_in() -> None:
    answers = {"a": "OK", "b": "INVALID_ARGUMENT", "c": "200", "d": "405"}
    assert let_in(answers) == [*answers]
    assert let_in({"a": "UNAUTHENTICATED", "b": "401", "c": "404"}) == []


def test_a_silent_port_is_not_one_of_rays() -> None:
    assert not known_to_ray({})
    assert not known_to_ray({"a": "UNAUTHENTICATED", "b": "401"})
    assert known_to_ray({"a": "UNAUTHENTICATED", "b": "404"})


def test_scenarios_run_in_their_usual_order() -> None:
    names = ["ray_down", "lost_host", "ray_up"]
    assert [scenario.name for scenario in choose(names)] == ["ray_up", "lost_host", "ray_down"]


def test_long_scenarios_are_left_out_unless_asked_for() -> None:
    assert not any(scenario.long for scenario in choose())
    assert choose(everything=True) == SCENARIOS
    assert choose(["cut_off"])[0].long


def test_an_unknown_scenario_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'lost_hots'; did you mean 'lost_host'"):
        choose(["lost_hots"])
    assert main(["--only", "lost_hots"]) == 2


def test_every_public_function_of_a_bench_is_a_scenario() -> None:
    functions = [
        function
        for module in (scenarios, faults, strangers)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if [*inspect.signature(function).parameters] == ["bench"] and not name.startswith("_")
    ]
    assert {scenario.run for scenario in SCENARIOS} == set(functions)
    assert len(functions) == len(SCENARIOS)


def test_the_tables_show_every_result_and_every_survived_fault() -> None:
    finding = Finding(note="4 trials", lost="nothing", recovery_seconds=31.4)
    results = [
        Result(name="lost_host", verdict="ok", seconds=70, fault="host lost", finding=finding),
        Result(name="cut_off", verdict="FAIL", seconds=9, fault="host cut off"),
        Result(name="ray_down", verdict="ok", seconds=5),
    ]
    assert [line.split()[:3] for line in results_table(results).splitlines()[1:]] == [
        ["lost_host", "ok", "70"],
        ["cut_off", "FAIL", "9"],
        ["ray_down", "ok", "5"],
    ]
    assert faults_table(results).splitlines()[1:] == ["host lost  nothing  31"]
    assert faults_table(results[1:]) == ""


@pytest.mark.parametrize("name", ["sweep", "faults", "photos"])
def test_the_sweeps_of_the_scenarios_can_be_loaded(name: str) -> None:
    spec = load_spec(str(ROOT / "tests" / "cluster" / f"{name}.yaml"))
    assert spec.rungs[0] < spec.rungs[-1]


@pytest.mark.skipif(not Path("/proc/self/ns").is_dir(), reason="there are no namespaces")
def test_a_process_in_a_noted_namespace_is_left_behind(tmp_path: Path) -> None:
    assert leftovers(tmp_path) == []
    note_namespaces(tmp_path, os.getpid())
    assert f"process {os.getpid()}" in leftovers(tmp_path)
