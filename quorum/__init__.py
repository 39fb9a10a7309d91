"""Quorum: from a labelled image data set and a compute budget to one small classifier.

    import quorum

    outcome = quorum.run("images", data="photos/", time_budget="2h")
    print(outcome)
    quorum.predict(outcome, "photo.jpg")

The functions are those of the command line. They are imported on first use, so that
`import quorum` takes milliseconds.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quorum.api import (
        ablate,
        clean,
        demo,
        distill,
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
        sweep,
        sync,
    )
    from quorum.outcome import AblationOutcome, Outcome

__all__ = [
    "AblationOutcome",
    "Outcome",
    "ablate",
    "clean",
    "demo",
    "distill",
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
    "sweep",
    "sync",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'quorum' has no attribute {name!r}")
    from quorum import api

    value: object = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
