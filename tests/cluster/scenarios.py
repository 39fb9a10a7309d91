"""Scenarios without a fault: `ray up`, sweeps and runs on each kind of storage, `ray down`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.bench import QUORUM, RUN_SECONDS, SHARED, SWEEP, Bench, Run
from tests.cluster.errors import ScenarioError
from tests.cluster.hosts import wait_until
from tests.cluster.ray_cluster import RAY
from tests.cluster.results import Finding

PYTHON = "quorum/.venv/bin/python"
TRIALS = 4

S3_PORT = 5555
BUCKET = "quorum"
MAKE_BUCKET = """\
import boto3, time
client = boto3.client("s3", endpoint_url="http://{endpoint}")
for attempt in range(50):
    try:
        client.create_bucket(Bucket="{bucket}")
        break
    except Exception:
        time.sleep(0.2)
"""

MAKE_PHOTOS = """\
import sys
from pathlib import Path
import numpy as np
from PIL import Image
folder, count, side = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
for label in range(2):
    (folder / f"class{label}").mkdir(parents=True)
    for number in range(count // 2):
        pixels = rng.integers(0, 160, (side, side, 3), dtype=np.uint8)
        pixels[:, :, label] += 60
        Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.jpg")
"""
"""Noise with a red or a green cast."""


def ray_up(bench: Bench) -> Finding:
    """`ray up` with the project's cluster.yaml: every worker joins, and `ray status` works."""
    seconds = bench.cluster.up()
    everyone = 1 + len(bench.workers)
    # The autoscaler counts a node once its set-up is over, a little after the node has joined.
    if not wait_until(lambda: _nodes_shown(bench) == everyone, 60, every=2.0):
        raise ScenarioError(f"ray status shows {_nodes_shown(bench)} nodes of {everyone}")
    return Finding(note=f"{len(bench.workers)} workers joined after {seconds:.0f} s")


def sweep_alone(bench: Bench) -> Finding:
    """A sweep whose hosts share no folder."""
    return _sweep(bench, "")


def sweep_shared(bench: Bench) -> Finding:
    """A sweep with its storage in a folder that all hosts share."""
    return _sweep(bench, f"--storage {SHARED}/storage")


def sweep_s3(bench: Bench) -> Finding:
    """A sweep with its storage on S3."""
    with _s3(bench) as place:
        return _sweep(bench, f"--storage {place}")


def chain_alone(bench: Bench) -> Finding:
    """The whole chain, whose hosts share no folder."""
    return _chain(bench, "")


def chain_shared(bench: Bench) -> Finding:
    """The whole chain with its storage in a folder that all hosts share."""
    return _chain(bench, f"--storage {SHARED}/storage")


def chain_s3(bench: Bench) -> Finding:
    """The whole chain with its storage on S3."""
    with _s3(bench) as place:
        return _chain(bench, f"--storage {place}")


def distill_on_workers(bench: Bench) -> Finding:
    """Another student, trained by two workers at once, whose hosts share no folder."""
    run = _small_run(bench, "")
    words = f"distill {run.name} --workers 2 --address auto --runs {run.journal.parent.parent.name}"
    bench.head.run(f"exec {QUORUM} {words}", seconds=RUN_SECONDS)
    if not (run.journal.parent / "student.1").is_dir():
        raise ScenarioError("the first student was not kept")
    return Finding(note="a second student, quantized and in the ledger")


def small_data_on_head(bench: Bench) -> Finding:
    """A sweep over images that only the head has; decoded, they fit the object store."""
    return _photos(bench, "small", count=240, side=48)


def large_data_on_head(bench: Bench) -> Finding:
    """A sweep over images that only the head has, too large for the nodes' object stores."""
    return _photos(bench, "large", count=1300, side=96)


def ray_down(bench: Bench) -> Finding:
    """`ray down`: Ray runs on no host afterwards."""
    bench.cluster.down()
    hosts = (bench.head, *bench.workers)

    def quiet() -> bool:
        return not any(map(bench.cluster.running, hosts))

    if not wait_until(quiet, 120, every=2.0):
        left = [host.name for host in hosts if bench.cluster.running(host)]
        raise ScenarioError(f"Ray still runs on {', '.join(left)}")
    return Finding(note="no Ray process on any host")


def _nodes_shown(bench: Bench) -> int:
    """Return the number of active nodes that `ray status` shows to a person on the head."""
    status = bench.head.run(f"{RAY} status")
    active = status.partition("Active:")[2].partition("Pending:")[0]
    return sum(map(int, re.findall(r"^ *(\d+) ", active, re.M)))


def _sweep(bench: Bench, options: str) -> Finding:
    run = bench.quorum(f"sweep {SWEEP} --trials {TRIALS} {options}")
    run.finish(trials=TRIALS)
    return Finding(note=_trained_on(run))


def _chain(bench: Bench, options: str) -> Finding:
    return Finding(note=_trained_on(_small_run(bench, options)))


def _small_run(bench: Bench, options: str) -> Run:
    """Return a finished run of the whole chain."""
    few = "--trials 3 --members 2 --set rungs=[1,3] --set student.recipe.epochs=3"
    run = bench.quorum(f"run digits {few} --set startup_trials=3 {options}")
    run.finish(trials=3)
    if not (run.journal.parent / "report.pdf").exists():
        raise ScenarioError("there is no report.pdf", run.command.output)
    return run


def _photos(bench: Bench, name: str, *, count: int, side: int) -> Finding:
    bench.head.run(f"{PYTHON} - photos-{name} {count} {side} <<'SCRIPT'\n{MAKE_PHOTOS}SCRIPT")
    sweep = "quorum/tests/cluster/photos.yaml"
    options = f"--data photos-{name} --set dataset.image_size={side}"
    run = bench.quorum(f"sweep {sweep} {options}")
    run.finish(trials=2)
    return Finding(note=f"{count} images of {side} px; {_trained_on(run)}")


def _trained_on(run: Run) -> str:
    ended = sum(event["event"] == "trial_ended" for event in run.events)
    return f"{ended} trials ended well"


@contextmanager
def _s3(bench: Bench) -> Iterator[str]:
    """Run an S3 server on the head until the end of the block; yield the URI of its bucket."""
    head = bench.head
    endpoint = f"{head.address}:{S3_PORT}"
    server = bench.tool("moto_server")
    head.start(f"exec {bench.tool('python')} {server} -H {head.address} -p {S3_PORT}")
    try:
        script = MAKE_BUCKET.format(endpoint=endpoint, bucket=BUCKET)
        head.run(f"{PYTHON} - <<'SCRIPT'\n{script}SCRIPT")
        yield f"'s3://{BUCKET}/runs?endpoint_override={endpoint}&scheme=http'"
    finally:
        head.run(f"pkill -f {server}")
