"""Markdown descriptions of runs, trials and models: the first text on their MLflow pages.

A run's description shows the ledger, its differences and gates, and the commands that use the
result. MLflow keeps 8,000 characters of a description.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.formats import (
    file_size,
    fixed,
    gate_number,
    milliseconds,
    percent,
    plural,
    signed,
)

MOST_CHARACTERS = 8000
"""Longest value of a tag."""
MOST_TRACEBACK = 6000
"""Characters of a traceback that are kept."""
MOST_CLASSES = 20
"""Classes that are named."""


def describe_run(
    spec: Mapping[str, Any],
    *,
    ledger: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
) -> str:
    """Describe a run: its plan and, once there is a `ledger`, its results.

    `commands` are those that use the results.
    """
    parts = [str(spec.get("description") or ""), _plan(spec)]
    if ledger is not None:
        parts.insert(0, _headline(ledger))  # MLflow folds what comes after
        parts += [_rows(ledger), _differences(ledger), _gates(ledger)]
    if commands:
        parts.append("### Use it\n\n```\n" + "\n".join(commands) + "\n```")
    text = "\n\n".join(part for part in parts if part)
    if len(text) <= MOST_CHARACTERS:
        return text
    return text[: MOST_CHARACTERS - 2].rpartition("\n")[0] + "\n…"


def describe_trial(status: str, reason: str, traceback: object = None) -> str:
    """Describe a trial that ended early; of a long traceback, keep the end."""
    text = f"**{status}:** {reason}"
    return f"{text}\n\n```\n{str(traceback)[-MOST_TRACEBACK:]}\n```" if traceback else text


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
        f"export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_TRACKING_URI={uri}\n"
        f"mlflow models serve -m models:/{name}@champion \\\n"
        "  --env-manager local --host 127.0.0.1 --port 5001"
    )


def _plan(spec: Mapping[str, Any]) -> str:
    rungs = " → ".join(str(rung) for rung in spec.get("rungs", ()))
    if not rungs:
        return ""
    return (
        f"{spec.get('trials', '?')} trials, scored by `val_nll` after {rungs} epochs; about "
        f"one in {spec.get('reduction_factor', '?')} is promoted at each rung."
    )


def _headline(ledger: Mapping[str, Any]) -> str:
    """Return one line on what ships."""
    rows = {row["stage"]: row for row in ledger["rows"]}
    shipped = f"student_{ledger.get('released')}"
    if shipped not in rows:
        return ""
    row, ensemble = rows[shipped], rows.get("ensemble", {})
    verdicts = [gate["verdict"] for gate in ledger.get("gates") or ()]
    return (
        f"**`{shipped}` ships**: accuracy {percent(row.get('accuracy'), 2)} on test (ensemble "
        f"{percent(ensemble.get('accuracy'), 2)}), {file_size(row.get('bytes'))}, "
        f"{milliseconds(row.get('latency_ms_batch1'))} per image; {verdicts.count('pass')} of "
        f"{plural(len(verdicts), 'gate')} passed."
    )


def _rows(ledger: Mapping[str, Any]) -> str:
    rows = []
    for row in ledger["rows"]:
        low, high = row.get("accuracy_interval") or (None, None)
        rows.append((
            row["stage"],
            f"{percent(row.get('accuracy'), 2)} ({percent(low, 2)} to {percent(high, 2)})",
            fixed(row.get("nll"), 4), fixed(row.get("ece"), 4), file_size(row.get("bytes")),
            milliseconds(row.get("latency_ms_batch1")),
        ))  # fmt: skip
    sizes, reads = (ledger.get("dataset") or {}).get("sizes") or {}, ledger.get("test_reads")
    images = f", {plural(sizes['test'], 'image')}" if "test" in sizes else ""
    times = "once" if reads == 1 else f"{reads} times"
    header = ("stage", "accuracy (95%)", "NLL", "ECE", "size", "one image")
    return f"### Ledger: test{images}, read {times}\n\n{_table(header, rows)}"


def _differences(ledger: Mapping[str, Any]) -> str:
    rows = []
    for item in ledger.get("differences") or ():
        shown = _points if item["metric"] == "accuracy" else _nats
        low, high = item.get("interval") or (None, None)
        rows.append((
            f"{item['a']} − {item['b']}", item["metric"],
            f"{shown(item.get('value'))} ({shown(low)} to {shown(high)})", item.get("verdict", ""),
        ))  # fmt: skip
    header = ("difference on test", "metric", "value (95%)", "verdict")
    return f"### Differences\n\n{_table(header, rows)}" if rows else ""


def _gates(ledger: Mapping[str, Any]) -> str:
    rows = [
        (gate["name"], *(gate_number(gate.get(key)) for key in ("value", "bound", "limit")),
         f"**{gate['verdict']}**")
        for gate in ledger.get("gates") or ()
    ]  # fmt: skip
    header = ("gate, on holdout", "value", "bound", "limit", "verdict")
    return f"### Gates\n\n{_table(header, rows)}" if rows else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; MLflow sets columns without a gap, so all but the first add one."""
    gap = " | &nbsp;&nbsp;"
    lines = ["| " + gap.join(line) + " |" for line in (header, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:]])


def _names(names: Sequence[str]) -> str:
    listed = ", ".join(f"`{name}`" for name in names[:MOST_CLASSES])
    return listed if len(names) <= MOST_CLASSES else f"{listed} … ({len(names)} in all)"


def _points(value: float | None) -> str:
    """Format a difference of accuracies in percentage points."""
    return signed(value) if value is None else f"{signed(100 * value, 2)} pp"


def _nats(value: float | None) -> str:
    return signed(value, 4)
