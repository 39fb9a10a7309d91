"""Quorum: from a labelled image data set and a compute budget to one small classifier.

    import quorum

    outcome = quorum.run("images", data="photos/", time_budget="2h")
    print(outcome)
    quorum.predict(outcome, "photo.jpg")

The command line calls the same functions. They are imported on first use, so that
`import quorum` takes milliseconds.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.errors import QuorumError
    from quorum.api import (
        ablate,
        clean,
        demo,
        distill,
        export,
        ladder,
        load_run,
        load_sweep,
        plan,
        plan_ablation,
        predict,
        replay,
        report,
        run,
        select,
        serve,
        status,
        sweep,
        sync,
    )
    from quorum.outcome import AblationOutcome, Outcome

__all__ = [
    "AblationOutcome",
    "Outcome",
    "QuorumError",
    "ablate",
    "clean",
    "demo",
    "distill",
    "export",
    "ladder",
    "load_run",
    "load_sweep",
    "plan",
    "plan_ablation",
    "predict",
    "replay",
    "report",
    "run",
    "select",
    "serve",
    "status",
    "sweep",
    "sync",
]


_CLASSES = {
    "AblationOutcome": "quorum.outcome",
    "Outcome": "quorum.outcome",
    "QuorumError": "common.errors",
}
"""The modules of the public classes; the functions are in quorum.api."""


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'quorum' has no attribute {name!r}")
    module = importlib.import_module(_CLASSES.get(name, "quorum.api"))
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
