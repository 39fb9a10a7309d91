"""The best recipe that a sweep has found so far."""

from collections import Counter

from common.errors import RunError
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_start


def best_recipe(folder: RunFolder) -> Recipe:
    """Return the searched recipe with the lowest val NLL at the highest rung that any reached.

    Raises:
        RunError: no trial was scored at any rung.
    """
    scored = [
        (-record.rung, record.metrics["val_nll"], record.trial)
        for record in folder.records()
        if record.kind == "search" and record.rung is not None and record.status != "failed"
    ]
    if not scored:
        raise RunError(f"{folder.root}: no trial was scored; {_advice(folder)}")
    return read_start(folder.trial(min(scored)[2]) / "start.json").recipe


def _advice(folder: RunFolder) -> str:
    reasons = Counter(record.reason for record in folder.records() if record.status == "failed")
    if not reasons:
        return "give the sweep more time"
    (reason, count), *_ = reasons.most_common(1)
    return f"{reasons.total()} failed, {count} of them for this reason: {reason}"
