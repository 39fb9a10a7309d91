"""Run a stage of a run on a worker that does not see the run's folder.

The worker first pulls the files that the stage reads. Before every progress report it pushes the
files that the stage has written, so if the node is lost, a resumable stage loses at most one step.
"""

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

RESTARTS = 3
"""Restarts of a stage whose node was lost."""

POLL_SECONDS = 0.5
"""Interval at which progress is passed on."""

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
        reports = Queue(actor_options={"num_cpus": 0})
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
            while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
                _pass_on(reports, progress)
            _pass_on(reports, progress)
            return result_of(reference)
        finally:
            reports.shutdown(force=True)


def _pass_on(reports: Queue, progress: Progress) -> None:
    while True:
        try:
            progress(*reports.get_nowait())
        except Empty:
            return


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
