"""Compare trials packed by their measured peak memory with one trial per GPU or core.

    python benchmarks/orchestration_packing.py CASE ARM TRIALS SEED    # one arm, in this process

The arms differ only in what a trial reports: in `one` it reports no peak memory, so that Quorum
never packs; in `packed` it reports its peak. The cases:

    gpu           two simulated GPUs of 16 GB, trials that wait and need 1 to 2 GB
    gpu-large     the same, but a quarter of the trials, wider ones, need more than a whole GPU has
    node          a simulated node with 8 cores and 6 GB, trials that wait and need 0.6 to 1.2 GB
    real-gpu      one simulated GPU, two cores; a trial trains a network in one thread
    real-node     this machine with two cores and its own memory, the same trainings

Ray schedules simulated GPUs like others. Their memory is an account in a file: a trial enters what
it needs for the length of an epoch, and fails with MemoryError where that exceeds the device.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from orchestration_arms import NoOpTrainer

HERE = Path(__file__).parent
GB = 10**9
EPOCHS, EPOCH_SECONDS = 4, 2.5
NO_LIMIT = 10**15
MOST_DROPOUT = 0.9
TOO_WIDE = 256
WIDTHS = {"type": "categorical", "choices": [16, 32, 64, TOO_WIDE]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Devices, and the memory that trials need."""

    cores: int
    gpus: int = 0
    device_bytes: int
    """Memory of a GPU, or of the node if there is none."""
    needs: tuple[int, int] = (0, 0)
    """Least and most memory of a trial; it grows with the dropout that the trial draws."""
    too_large: bool = False
    """A quarter of the trials has the width TOO_WIDE and needs more than any device has."""
    real: bool = False
    """Train a network on the CPU instead of waiting."""


CASES = {
    "gpu": Case(cores=16, gpus=2, device_bytes=16 * GB, needs=(1 * GB, 2 * GB)),
    "gpu-large": Case(
        cores=16, gpus=2, device_bytes=16 * GB, needs=(1 * GB, 2 * GB), too_large=True
    ),
    "node": Case(cores=8, device_bytes=6 * GB, needs=(600_000_000, 1_200_000_000)),
    "real-gpu": Case(cores=2, gpus=1, device_bytes=16 * GB, real=True),
    "real-node": Case(cores=2, device_bytes=NO_LIMIT, real=True),
}
ARMS = ("one", "packed")


def print_packing(*, cases: Sequence[str], rounds: int, trials: int) -> None:
    """Run both arms of every case in turn, in a new order each round, and print the table."""
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for case in cases:
            for arm in ARMS if number % 2 else ARMS[::-1]:
                words = [sys.executable, __file__, case, arm, str(trials), str(number)]
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(done.stderr[-3000:])
                found = json.loads(done.stdout.splitlines()[-1])
                results.setdefault((case, arm), []).append(found)
                print(f"round {number + 1}: {case:9} {arm:6} {json.dumps(found)}", flush=True)
    print(
        "\n| case | arm | trials an hour | ratio | at a time on a device | out of memory | poor |"
    )
    print("|---|---|--:|--:|--:|--:|--:|")
    for case in cases:
        for arm in ARMS:
            print(_row(case, arm, results[case, "one"], results[case, arm]))
    print(f"\nn = {rounds} paired rounds; load after: {os.getloadavg()[0]:.1f}")


def _row(case: str, arm: str, base: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    rates = [each["trials_per_hour"] for each in found]
    ratios = [rate / one["trials_per_hour"] for rate, one in zip(rates, base, strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    cells = [
        case, arm, f"{statistics.median(rates):.0f}", "1" if arm == "one" else ratio,
        str(max(each["most_on_a_device"] for each in found)),
        *(", ".join(str(each[key]) for each in found) for key in ("out_of_memory", "poor")),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


class Device:
    """The memory of a simulated device: an account that the processes on this machine share."""

    def __init__(self, folder: Path, name: str, capacity: int) -> None:
        """Open the account of the device `name` in `folder`."""
        self._path, self._capacity = folder / f"device-{name}.json", capacity

    @contextmanager
    def held(self, amount: int) -> Iterator[None]:
        """Hold memory until the end of the block.

        Raises:
            MemoryError: the device has not enough left.
        """
        self._change(amount, 1)
        try:
            yield
        finally:
            self._change(-amount, -1)

    def _change(self, amount: int, trials: int) -> None:
        from filelock import FileLock

        with FileLock(f"{self._path}.lock"):
            known = {"bytes": 0, "trials": 0, "most": 0}
            if self._path.exists():
                known = json.loads(self._path.read_text())
            if known["bytes"] + amount > self._capacity:
                raise MemoryError(f"out of memory: {known['bytes'] / GB:.1f} GB are in use")
            count = known["trials"] + trials
            values = {"bytes": known["bytes"] + amount, "trials": count}
            self._path.write_text(json.dumps({**values, "most": max(known["most"], count)}))


class WaitingTrainer(NoOpTrainer):
    """A trainer that waits, as the host does while a GPU trains, and holds memory meanwhile."""

    def __init__(
        self, recipe: Any, *, case: Case, packed: bool, folder: str, numerics: Any, **options: Any
    ) -> None:
        """`packed` trials report the memory that they need."""
        super().__init__(recipe, **options)
        self._need, self._packed = needed_bytes(case, recipe.architecture), packed
        self._device = Device(Path(folder), _device_name(), case.device_bytes)
        self._inner = self._training(recipe, numerics, options) if case.real else None
        if case.gpus:
            _simulate_gpu(case, self._need if packed else 0)

    def reports(self) -> Any:
        """Yield a report per epoch."""
        if self._inner is None:
            reports = self._waited()
        else:
            reports = self._inner.reports()
        while True:
            with self._device.held(self._need):
                report = next(reports, None)
            if report is None:
                return
            peak = self._need or report.peak_memory_bytes
            yield replace(report, peak_memory_bytes=peak if self._packed else 0)

    def log_probs(self, indices: Any) -> Any:
        """Return the network's predictions, if there is one."""
        return super().log_probs(indices) if self._inner is None else self._inner.log_probs(indices)

    def _waited(self) -> Iterator[Any]:
        reports = super().reports()
        while True:
            time.sleep(EPOCH_SECONDS)
            report = next(reports, None)
            if report is None:
                return
            yield report

    @staticmethod
    def _training(recipe: Any, numerics: Any, options: dict[str, Any]) -> Any:
        from trainables.training.loop import Training

        return Training(recipe, numerics=replace(numerics, device="cpu", threads=1), **options)


def needed_bytes(case: Case, network: Any) -> int:
    """Return the memory of a trial; 0 for a real one, which is limited by nothing here."""
    if case.too_large and network.width == TOO_WIDE:
        return NO_LIMIT
    least, most = case.needs
    return int(least + network.dropout / MOST_DROPOUT * (most - least))


def _device_name() -> str:
    import ray

    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return f"gpu{gpus[0]}" if gpus else "node"


def _simulate_gpu(case: Case, need: int) -> None:
    """Give torch in this worker a GPU to describe; nothing is computed on it.

    A trial that needs more than the GPU has got as much as it has before it failed.

    A trial that waits gets a stand-in for torch, which takes seconds of a core to import.
    """
    memory = case.device_bytes
    if case.real:
        import torch

        cuda: Any = torch.cuda
    else:
        cuda = SimpleNamespace()
        sys.modules["torch"] = SimpleNamespace(cuda=cuda)  # type: ignore[assignment]
    cuda.get_device_properties = lambda *_: SimpleNamespace(total_memory=memory)
    cuda.get_device_name = lambda *_: "simulated"
    cuda.max_memory_allocated = lambda *_: min(need, memory)


def run_case(name: str, arm: str, *, trials: int, seed: int) -> dict[str, Any]:
    """Run one sweep in a Ray of its own; return its rate and what happened."""
    import numpy as np
    import ray

    from journal.emitter import Emitter
    from journal.events import RunStarted
    from journal.journal import Journal, read_events
    from search.space.sweep_files import spec_from_mapping
    from search.tune.session import ray_session
    from search.tune.sweep import run_sweep
    from trainables.data.image_set import ImageSet
    from trainables.data.splits import make_splits
    from trainables.recipe import Numerics
    from trainables.records import RunFolder

    case = CASES[name]
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # workers import this folder's modules
    count = 1200 if case.real else 100
    rng = np.random.default_rng(0)
    images = ImageSet(
        name="noise",
        images=rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % 2,
        class_names=("even", "odd"),
    )
    spec = spec_from_mapping(
        {
            "name": "packing", "trials": trials, "rungs": [EPOCHS], "seed": seed,
            "startup_trials": 100_000,  # the same random recipes in both arms
            "splits": {"counts": [count // 4, count // 4, count // 4]},
            "recipe": {"batch_size": 16 if case.real else 512},
            "space": {
                "dropout": {"type": "float", "low": 0.0, "high": MOST_DROPOUT},
                **({"width": WIDTHS} if case.too_large else {}),
            },
        }
    )  # fmt: skip
    memory = None if case.gpus or case.real else case.device_bytes
    with tempfile.TemporaryDirectory(prefix="packing-") as folder:
        run = RunFolder(Path(folder, "run"))
        run.root.mkdir()
        session = ray_session(
            cpus=case.cores, gpus=case.gpus, folder=run.root,
            init=partial(ray.init, _memory=memory),
        )  # fmt: skip
        trainer = partial(WaitingTrainer, case=case, packed=arm == "packed", folder=folder)
        with session, Journal(run.journal) as journal:
            emitter = Emitter(journal)
            emitter.emit(RunStarted(run="packing", spec=spec.to_mapping()))
            run_sweep(
                spec, run, emitter, images=images, splits=make_splits(images, spec.splits),
                numerics=Numerics(device="cuda" if case.gpus else "cpu"), trainer=trainer,
            )  # fmt: skip
        most = [json.loads(path.read_text())["most"] for path in Path(folder).glob("device-*.json")]
        return {**_result(read_events(run.journal)), "most_on_a_device": max(most)}


def _result(events: Sequence[Any]) -> dict[str, Any]:
    from common.failures import lacked_memory
    from journal.events import TrialEnded, TrialRetried, TrialStarted

    first = min(event.time for event in events if isinstance(event, TrialStarted))
    ended = [event for event in events if isinstance(event, TrialEnded)]
    retried = [event for event in events if isinstance(event, TrialRetried)]
    poor = [event for event in ended if event.cause == "recipe"]
    seconds = max(event.time for event in ended) - first
    return {
        "trials_per_hour": round(3600 * len(ended) / seconds, 1),
        "seconds": round(seconds, 1),
        "trials": len(ended),
        "out_of_memory": sum(lacked_memory(event.reason) for event in retried) + len(poor),
        "poor": len(poor),
        "failed_otherwise": sum(each.status == "failed" for each in ended) - len(poor),
    }


if __name__ == "__main__":
    name, arm, trials, seed = sys.argv[1:]
    print(json.dumps(run_case(name, arm, trials=int(trials), seed=int(seed))))
