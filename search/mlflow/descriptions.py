"""Markdown descriptions of runs, trials and models: the first text on their MLflow pages.

A run's description shows the ledger, its differences and gates, and the commands that use the
result. MLflow keeps 8,000 characters of a description.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.commands import quoted
from common.printable import markdown_block, markdown_code, markdown_text

MOST_CHARACTERS = 8000
"""Longest value of a tag."""
MOST_TRACEBACK = 6000
"""Characters of a traceback that are kept."""
MOST_CLASSES = 20
"""Classes that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultText:
    """A run's result in Markdown."""

    headline: str
    """One line about the file that ships; empty without one."""
    tables: str


def describe_run(
    spec: Mapping[str, Any], *, result: ResultText | None = None, commands: Sequence[str] = ()
) -> str:
    """Describe a run: its plan and, if given, its `result` and the `commands` that use it."""
    parts = [str(spec.get("description") or ""), _plan(spec)]
    if result is not None:
        parts = [result.headline, *parts, result.tables]  # MLflow collapses the rest
    if commands:
        parts.append("### Use it\n\n```\n" + "\n".join(commands) + "\n```")
    text = "\n\n".join(part for part in parts if part)
    if len(text) <= MOST_CHARACTERS:
        return text
    return text[: MOST_CHARACTERS - 2].rpartition("\n")[0] + "\n…"


def describe_trial(status: str, reason: str, traceback: object = None) -> str:
    """Describe a trial that ended early; keep the end of a long traceback."""
    text = f"**{status}:** {markdown_text(reason)}"
    return f"{text}\n\n{markdown_block(str(traceback)[-MOST_TRACEBACK:])}" if traceback else text


def describe_model(
    name: str, uri: str, image_size: int, class_names: Sequence[str], about: str = ""
) -> str:
    """Describe a registered student: its input, its output, and how to serve it."""
    size, address = image_size, "http://127.0.0.1:5001/invocations"
    pixels = f'{{"inputs": [[[[0] * 3] * {size}] * {size}]}}'
    return "\n\n".join(
        part
        for part in (
            about,
            f"Input: `images`, uint8 [N, {size}, {size}, 3], RGB. Output: `log_probs`, float32 "
            f"[N, {len(class_names)}]. The model normalizes the pixels itself. The classes are "
            f"{_names(class_names)}.",
            "To serve it on this machine, activate Quorum's environment first (MLflow starts "
            "`uvicorn` by name), then send it an image, here a black one:",
            f"```\n{serve_command(name, uri)}\n```",
            f"```\npython -c 'import json; print(json.dumps({pixels}))' |\n"
            f"  curl -s -H 'Content-Type: application/json' -d @- {address}\n```",
        )
        if part
    )


def serve_command(name: str, uri: str) -> str:
    """Return the command that serves a registered model's champion on this machine only."""
    return (
        f"export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_TRACKING_URI={quoted(uri)}\n"
        f"mlflow models serve -m {quoted(f'models:/{name}@champion')} \\\n"
        "  --env-manager local --host 127.0.0.1 --port 5001"
    )


def _plan(spec: Mapping[str, Any]) -> str:
    rungs = " → ".join(str(rung) for rung in spec.get("rungs", ()))
    if not rungs:
        return ""
    of_family = " of a family" if spec.get("families") else ""
    return (
        f"{spec.get('trials', '?')} trials, scored by `val_nll` after {rungs} epochs; about "
        f"one in {spec.get('reduction_factor', '?')}{of_family} is promoted at each rung."
    )


def _names(names: Sequence[str]) -> str:
    listed = ", ".join(map(markdown_code, names[:MOST_CLASSES]))
    return listed if len(names) <= MOST_CLASSES else f"{listed} … ({len(names)} in all)"
