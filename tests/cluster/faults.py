"""Scenarios with a fault: hosts, network, driver, head, MLflow server and disk."""

import ast
import re
import time
from itertools import pairwise

from tests.cluster.bench import SHARED, SMALL, SMALL_BYTES, Bench, Run
from tests.cluster.errors import ScenarioError
from tests.cluster.hosts import Command, Host
from tests.cluster.ray_cluster import RAY
from tests.cluster.results import Finding
from tests.cluster.run_log import Events, flaws, of_kind, recovery_seconds

SWEEP = "quorum/tests/cluster/faults.yaml"
STUDENT = "quorum/tests/cluster/student.yaml"
STUDENT_TRIALS = 2
TRIALS = 3
RUNS = SHARED / "runs"
MIDDLE = 16
"""An epoch between two rungs: the trial has a checkpoint and has not reached the next."""

TRACKING = "http://127.0.0.1:5000"
COUNT_POINTS = """\
import json, mlflow
client = mlflow.MlflowClient("{uri}")
experiments = [e.experiment_id for e in client.search_experiments()]
runs = client.search_runs(experiments, max_results=1000)
histories = [client.get_metric_history(run.info.run_id, "val_nll") for run in runs]
print("POINTS", json.dumps([len(history) for history in histories if history]))
"""


def lost_host(bench: Bench) -> Finding:
    """A worker host loses power in mid-trial."""
    run = _in_mid_trial(bench)
    lost = time.time()
    bench.workers[0].kill()
    run.finish(trials=TRIALS)
    return _survived(run, lost)


def student_host_lost(bench: Bench) -> Finding:
    """The host on which the student trains loses power; another one takes over."""
    run = bench.quorum(f"run {STUDENT}")
    run.reach(lambda events: len(_student_epochs(events)) >= 8, "epoch 8", seconds=240)
    training = [worker for worker in bench.workers if _runs_a_stage(worker)]
    if len(training) != 1:
        raise ScenarioError(f"{len(training)} hosts train the student", run.command.output)
    lost = time.time()
    training[0].kill()
    run.finish(trials=STUDENT_TRIALS)
    epochs, times = zip(*_student_epochs(run.events), strict=True)
    twice = len(epochs) - len(set(epochs))
    if set(epochs) != set(range(1, epochs[-1] + 1)) or twice > 1:
        raise ScenarioError(f"epochs {epochs}", run.command.output)
    # Reports that were under way arrive after the loss; the pause follows them.
    pauses = [later - max(lost, time) for time, later in pairwise(times) if later > lost]
    return Finding(
        note=f"{epochs[-1]} epochs of the student, {twice} trained twice",
        lost="an epoch" if twice else "nothing",
        recovery_seconds=max(pauses),
    )


def cut_off(bench: Bench) -> Finding:
    """A worker host is off the network for a minute in mid-trial, and comes back."""
    run = _in_mid_trial(bench)
    lost = time.time()
    bench.workers[0].cut()
    try:
        time.sleep(60)
    finally:
        bench.workers[0].join()
    run.finish(trials=TRIALS)
    return _survived(run, lost)


def spot_loss(bench: Bench) -> Finding:
    """A worker host is drained, as after a notice of spot loss, and lost 20 s later."""
    run = _in_mid_trial(bench)
    lost = time.time()
    worker = bench.workers[0]
    reason = "--reason DRAIN_NODE_REASON_PREEMPTION --reason-message spot"
    values = "RAY_AUTH_MODE=token"
    worker.run(
        f"{values} {RAY} drain-node --address {bench.cluster.address} {reason} "
        "--deadline-remaining-seconds 20"
    )
    time.sleep(max(0.0, lost + 20 - time.time()))
    worker.kill()
    run.finish(trials=TRIALS)
    return _survived(run, lost)


def driver_killed(bench: Bench) -> Finding:
    """The driver is killed in mid-trial and resumed on the same host; nothing is shared."""
    run = bench.quorum(f"sweep {SWEEP} --trials {TRIALS}")
    run.reach_epoch(MIDDLE, trials=2)
    run.command.kill()
    resumed = bench.quorum(f"sweep {SWEEP} --trials {TRIALS} --resume", name=run.name)
    resumed.finish(trials=TRIALS)
    return _survived(resumed, resumed.began)


def driver_moved(bench: Bench) -> Finding:
    """The driver is killed in mid-trial and resumed on another host; the runs are shared."""
    run = _in_mid_trial(bench)
    run.command.kill()
    resumed = bench.quorum(
        f"sweep {SWEEP} --trials {TRIALS} --resume",
        name=run.name,
        host=bench.workers[0],
        runs=RUNS,
        address=bench.cluster.address,
    )
    resumed.finish(trials=TRIALS)
    return _survived(resumed, resumed.began)


def head_restarted(bench: Bench) -> Finding:
    """The head loses power with the driver on it; `ray up` and --resume continue."""
    run = bench.quorum(f"sweep {SWEEP} --trials {TRIALS}")
    run.reach_epoch(MIDDLE, trials=2)
    lost = time.time()
    bench.head.kill()
    bench.boot(bench.head)
    bench.cluster.up()
    resumed = bench.quorum(f"sweep {SWEEP} --trials {TRIALS} --resume", name=run.name)
    resumed.finish(trials=TRIALS)
    return _survived(resumed, lost)


def mlflow_killed(bench: Bench) -> Finding:
    """The MLflow server on the head is killed in mid-trial and comes back 10 s later."""
    tracking = {"MLFLOW_TRACKING_URI": TRACKING}
    server = _mlflow(bench.head)
    try:
        # Trials that are still training once the server is back.
        words = f"sweep {SWEEP} --trials {TRIALS} --set rungs=[8,24,200]"
        run = bench.quorum(words, runs=RUNS, environment=tracking)
        run.reach_epoch(MIDDLE, trials=2)
        server.kill(descendants=True)
        time.sleep(10)
        server = _mlflow(bench.head)
        back = time.time()
        run.finish(trials=TRIALS)
        points = _points(bench.head)
    finally:
        server.kill(descendants=True)
    journalled = len(of_kind(run.events, "epoch"))
    if sum(points) != journalled:
        raise ScenarioError(f"MLflow has {sum(points)} of {journalled} epochs", run.command.output)
    return Finding(
        note=f"{journalled} epochs in MLflow", lost="nothing", recovery_seconds=time.time() - back
    )


def storage_full(bench: Bench) -> Finding:
    """The disk of the run is full: the sweep ends with exit code 2 and one line."""
    run = bench.quorum(f"sweep {SWEEP} --trials {TRIALS}", runs=SMALL / "runs")
    output = run.command.expect(2, 240)
    complaints = [line for line in output.splitlines() if line.startswith("quorum: ")]
    if len(complaints) != 1 or "Traceback" in output:
        raise ScenarioError(f"{len(complaints)} lines explain the error instead of one", output)
    return Finding(note=f"{SMALL_BYTES / 1e6:.0f} MB: {complaints[0][:90]}")


def _in_mid_trial(bench: Bench) -> Run:
    """Start a sweep with its runs in the shared folder, and wait until two trials are running."""
    run = bench.quorum(f"sweep {SWEEP} --trials {TRIALS}", runs=RUNS)
    run.reach_epoch(MIDDLE, trials=2)
    return run


def _student_epochs(events: Events) -> list[tuple[int, float]]:
    """Return the student's epochs and when they were journalled, in this order."""
    found = (
        (re.match(r"student, epoch (\d+)/", event["detail"]), event["time"])
        for event in of_kind(events, "stage")
    )
    return [(int(match[1]), time) for match, time in found if match]


def _runs_a_stage(host: Host) -> bool:
    """Return whether Ray runs a stage of the run on this host."""
    return host.run("pgrep -fc '^ray::_work' || true").strip() not in ("", "0")


def _survived(run: Run, since: float) -> Finding:
    events = run.events
    found = flaws(events, trials=TRIALS)
    retried = len(of_kind(events, "trial_retried"))
    return Finding(
        note=f"{TRIALS} trials ended well, {retried} retried, every epoch journalled once",
        lost="; ".join(found) or "nothing",
        recovery_seconds=recovery_seconds(events, since),
    )


def _mlflow(head: Host) -> Command:
    place = "--backend-store-uri sqlite:///mlflow-server.db --default-artifact-root ./mlflow-files"
    server = head.start(
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false exec quorum/.venv/bin/mlflow server "
        f"--host 127.0.0.1 --port 5000 --workers 1 {place}"
    )
    head.run(f"until curl -sf {TRACKING}/health; do sleep 0.3; done", seconds=60)
    return server


def _points(head: Host) -> list[int]:
    """Return the number of validation scores in each MLflow run."""
    script = COUNT_POINTS.format(uri=TRACKING)
    output = head.run(f"quorum/.venv/bin/python - <<'SCRIPT'\n{script}SCRIPT")
    counts: list[int] = ast.literal_eval(output.partition("POINTS")[2].strip())
    return counts
