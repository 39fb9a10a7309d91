"""Display names of stages, metrics, methods and gates, and the tones of verdicts."""

import re
from collections.abc import Mapping
from typing import Literal

from common.formats import DASH

Tone = Literal["good", "bad", "open", "plain"]
"""Colour class of a word: favourable, unfavourable, undecided, or none."""

NOT_DISTINGUISHABLE = "not distinguishable"

STAGES: Mapping[str, str] = {
    "best_single": "best single",
    "best_single_int8": "int8 best single",
    "uniform_top_k": "uniform top-k",
    "seeds_ensemble": "seed ensemble",
    "ensemble": "ensemble",
    "soft_vote": "soft vote",
    "weighted_vote": "weighted vote",
    "hard_vote": "hard vote",
    "student_plain": "plain student",
    "student_plain_int8": "int8 plain student",
    "student_fp32": "fp32 student",
    "student_int8": "int8 student",
}
"""Display names of the ledger's stages, in its order."""

METRICS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
}
GATES: Mapping[str, tuple[str, str]] = {
    "accuracy_loss": ("accuracy loss against the ensemble", "at most"),
    "corruption_loss": ("accuracy loss against the ensemble on corrupted images", "at most"),
    "nll_gain": ("NLL increase over fp32", "at most"),
    "speedup": ("speedup over fp32", "at least"),
    "shrink": ("size reduction from fp32", "at least"),
    "latency_ms": ("milliseconds for one image", "at most"),
    "bytes": ("size in bytes", "at most"),
    "params": ("parameters", "at most"),
    "gflops": ("GFLOPs for one image", "at most"),
}
"""The quantity that a gate measures, and the side of its limit that passes."""

METHODS: Mapping[str, str] = {
    "paired-bootstrap": "paired bootstrap",
    "mcnemar-exact": "exact McNemar, Tango's interval",
}
TONES: Mapping[str, Tone] = {
    **dict.fromkeys(("pass", "better", "helps", "reached"), "good"),
    **dict.fromkeys(("fail", "worse", "harms", "not reached"), "bad"),
    **dict.fromkeys(("undecided", NOT_DISTINGUISHABLE, "reached, within error"), "open"),
}


def stage_label(stage: str) -> str:
    """Name a stage of the ledger: `student_int8` → `int8 student`."""
    return STAGES.get(stage, stage.replace("_", " "))


def metric_label(metric: str) -> str:
    """Name a metric: `nll` → `NLL`."""
    return METRICS.get(metric, metric.replace("_", " "))


def method_label(method: str) -> str:
    """Name the method behind an interval; a dash where none is recorded."""
    return METHODS.get(method, method.replace("-", " ")) or DASH


def gate_label(gate: str) -> str:
    """Name what a gate measures: `speedup` → `speedup over fp32`."""
    return GATES[gate][0] if gate in GATES else gate.replace("_", " ")


def reason_text(reason: str) -> str:
    """Put a release's reason into words: `accuracy_loss undecided` → `accuracy loss … undecided`.

    Names of stages and gates are replaced by their labels.
    """
    labels = {**{name: gate_label(name) for name in GATES}, **STAGES}
    names = sorted(labels, key=len, reverse=True)
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    return pattern.sub(lambda found: labels[found[0]], reason)


def gate_requirement(gate: str) -> str:
    """Name a gate with the side of its limit: `speedup over fp32, at least`."""
    return ", ".join(GATES[gate]) if gate in GATES else gate_label(gate)


def tone(verdict: str) -> Tone:
    """Return the tone of a verdict; `plain` for any other word."""
    return TONES.get(verdict, "plain")
