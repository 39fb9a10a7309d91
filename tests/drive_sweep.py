"""Run a sweep of fake trainings in a separate process that tests interrupt and kill.

python -m tests.drive_sweep ROOT [MILLISECONDS]
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from journal.emitter import Emitter, Observer
from journal.journal import Journal
from search.space.spec import SweepSpec
from search.space.sweep_files import spec_from_mapping
from search.tune.session import ray_session
from search.tune.sweep import SweepOutcome, run_sweep
from tests.simulated_tune import IMAGES, TRAINER, start_or_resume
from trainables.data.splits import make_splits
from trainables.recipe import Numerics
from trainables.records import RunFolder


def spec_of(*, milliseconds: int = 0, **values: Any) -> SweepSpec:
    """Return a sweep of 6 trials, one at a time, with `milliseconds` per epoch."""
    mapping = {
        "name": "fake",
        "trials": 6,
        "concurrent": 1,
        "rungs": [1, 3, 9],
        "startup_trials": 3,
        "splits": {"counts": [30, 20, 20]},
        "recipe": {"batch_size": 1000 + milliseconds},
        "space": {
            "dropout": {"type": "float", "low": 0.0, "high": 0.9},
            "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        },
    }
    return spec_from_mapping({**mapping, **values})


def sweep(
    root: Path,
    spec: SweepSpec,
    *,
    observers: Sequence[Observer] = (),
    journal: type[Journal] = Journal,
    **options: Any,
) -> SweepOutcome:
    """Run a sweep inside a session that the caller has started."""
    folder = RunFolder(root)
    with journal(folder.journal) as opened:
        emitter = Emitter(opened, observers)
        start_or_resume(emitter, spec)
        return run_sweep(
            spec,
            folder,
            emitter,
            images=IMAGES,
            splits=make_splits(IMAGES, spec.splits),
            numerics=Numerics(),
            trainer=TRAINER,
            **options,
        )


def main() -> None:
    """Start a session and run the sweep."""
    # A shell makes its background processes ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    root = Path(sys.argv[1]).absolute()
    milliseconds = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    root.mkdir(parents=True, exist_ok=True)
    with ray_session(cpus=2, folder=root):
        sweep(root, spec_of(milliseconds=milliseconds))


if __name__ == "__main__":
    main()
