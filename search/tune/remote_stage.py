"""Run a stage of a run on a worker that does not see the run's folder.

The worker first pulls the files that the stage reads. Before every progress report it pushes the
files that the stage has written, so if the node is lost, a resumable stage loses at most one step.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from pyarrow.fs import FileSystem
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from common.mirrored_folder import MirroredFolder
from search.timetable.capacity import Node, Share
from search.tune.cluster import result_of
from search.tune.served_folder import served
from trainables.records import RunFolder

log = logging.getLogger(__name__)

RESTARTS = 3
"""Restarts of a stage whose node was lost."""

POLL_SECONDS = 0.5
"""Interval at which progress is passed on."""

SILENT_SECONDS = 60.0
"""Time after which a stage that has not started is mentioned."""

Progress = Callable[[float, str], None]
"""Reports the share of a stage that is done, in [0, 1], and a detail in words."""


def run_remotely(
    function: Callable[..., Any],
    folder: RunFolder,
    *,
    images: Any,
    splits: Any,
    reads: Sequence[str],
    writes: Sequence[str],
    share: Share,
    progress: Progress,
    node: Node | None = None,
    **arguments: Any,
) -> Any:
    """Call `function(folder, images=, splits=, progress=, **arguments)` on a node with `share`.

    `images` is what `search.tune.data_travel.sent_images` returns. `reads` and `writes` are names
    of files and folders below the run's folder. `node` is preferred, if it still lives.

    Raises:
        QuorumError: as `function` raises it.
        RunError: nodes were lost too often.
    """
    with served(folder.root) as filesystem:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        reports = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
        task = ray.remote(_work).options(
            num_cpus=share.cores,
            num_gpus=share.gpus or None,
            max_retries=RESTARTS,
            scheduling_strategy="DEFAULT"
            if node is None
            else NodeAffinitySchedulingStrategy(node.id, soft=True),
        )
        try:
            reference = task.remote(
                function,
                filesystem,
                folder.name,
                images,
                splits,
                [*reads, *writes],
                list(writes),
                reports,
                arguments,
            )
            waited = 0.0
            while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
                if _pass_on(reports, progress):
                    waited = -math.inf
                waited += POLL_SECONDS
                if waited >= SILENT_SECONDS:
                    waited = -math.inf
                    log.warning("a stage waits for a node with %s", share)
            _pass_on(reports, progress)
            return result_of(reference)
        finally:
            reports.shutdown(force=True)


def _pass_on(reports: Queue, progress: Progress) -> bool:
    """Pass on what has arrived; return whether the stage has started."""
    started = False
    while True:
        try:
            report = reports.get_nowait()
        except Empty:
            return started
        started = True
        if report is not None:
            progress(*report)


def _work(
    function: Callable[..., Any],
    filesystem: FileSystem,
    name: str,
    images: Any,
    splits: Any,
    reads: Sequence[str],
    writes: Sequence[str],
    reports: Queue,
    arguments: dict[str, Any],
) -> Any:
    """Run on the worker, in a folder that is removed afterwards."""
    reports.put(None)  # it has started
    with tempfile.TemporaryDirectory(prefix="quorum-") as temporary:
        folder = RunFolder(Path(temporary) / name)
        folder.root.mkdir()
        mirror = MirroredFolder(filesystem, "", folder.root)
        mirror.pull(reads)

        def progress(fraction: float, detail: str) -> None:
            mirror.push(writes)
            reports.put((fraction, detail))

        result = function(
            folder,
            images=images.receive(None) if hasattr(images, "receive") else images,
            splits=splits,
            progress=progress,
            **arguments,
        )
        mirror.push(writes)
        return result
