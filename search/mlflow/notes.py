"""The descriptions of a run in MLflow, in Markdown: what a person reads first on its page.

A run's own page tells the ledger, what its rows differ by, why the gates let the student pass
or not, and the commands that use it. MLflow keeps 8,000 characters of a description.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MOST = 8000
"""Characters of a tag's value."""
MISSING = "–"


def sweep_note(
    spec: Mapping[str, Any],
    *,
    ledger: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
) -> str:
    """The description of a run: what it is and, once there is a `ledger`, what came out.

    `commands` are those that use what came out.
    """
    parts = [str(spec.get("description") or ""), _plan(spec)]
    if ledger is not None:
        parts.insert(0, _headline(ledger))  # MLflow folds what comes after
        parts += [_rows(ledger), _differences(ledger), _gates(ledger)]
    if commands:
        parts.append("### Use it\n\n```\n" + "\n".join(commands) + "\n```")
    text = "\n\n".join(part for part in parts if part)
    return text if len(text) <= MOST else text[: MOST - 2].rpartition("\n")[0] + "\n…"


def trial_note(status: str, reason: str, traceback: object = None) -> str:
    """The description of a trial that ended early."""
    text = f"**{status}:** {reason}"
    if not traceback:
        return text
    # The end of a traceback says most.
    return f"{text}\n\n```\n{str(traceback)[-6000:]}\n```"


def model_note(
    name: str, uri: str, image_size: int, class_names: Sequence[str], about: str = ""
) -> str:
    """The description of a registered student: what it is, and how it is served and asked."""
    size, address = image_size, "http://127.0.0.1:5001/invocations"
    pixels = f'{{"inputs": [[[[0] * 3] * {size}] * {size}]}}'
    return "\n\n".join(
        part
        for part in (
            about,
            f"`images`, uint8 [N, {size}, {size}, 3], RGB, to `log_probs`, float32 "
            f"[N, {len(class_names)}]: all that the pixels need is inside the graph. The classes "
            f"are {_names(class_names)}.",
            "Serve it to this machine (MLflow starts `uvicorn` by its name, so activate Quorum's "
            "environment first), and ask it about one image, here a black one:",
            f"```\n{serve_command(name, uri)}\n```",
            f"```\npython -c 'import json; print(json.dumps({pixels}))' |\n"
            f"  curl -s -H 'Content-Type: application/json' -d @- {address}\n```",
        )
        if part
    )


def serve_command(name: str, uri: str) -> str:
    """What serves the champion of this name from the registry at `uri`, to this machine only."""
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
        f"one in {spec.get('reduction_factor', '?')} goes on after each rung."
    )


def _headline(ledger: Mapping[str, Any]) -> str:
    """What ships, in one line."""
    rows = {row["stage"]: row for row in ledger["rows"]}
    ships = f"student_{ledger.get('released')}"
    if ships not in rows:
        return ""
    row, whole = rows[ships], rows.get("ensemble", {})
    gates = [gate["verdict"] for gate in ledger.get("gates") or ()]
    passed = f"{gates.count('pass')} of {len(gates)} gates passed"
    return (
        f"**`{ships}` ships**: {_percent(row.get('accuracy'))} of test right (the ensemble "
        f"{_percent(whole.get('accuracy'))}), {_size(row.get('bytes'))}, "
        f"{_number(row.get('latency_ms_batch1'), ' ms')} an image; {passed}."
    )


def _rows(ledger: Mapping[str, Any]) -> str:
    """The ledger's table."""
    told = []
    for row in ledger["rows"]:
        low, high = row.get("accuracy_interval") or (None, None)
        told.append((
            row["stage"], f"{_percent(row.get('accuracy'))} ({_percent(low)} to {_percent(high)})",
            _number(row.get("nll")), _number(row.get("ece")), _size(row.get("bytes")),
            _number(row.get("latency_ms_batch1"), " ms"),
        ))  # fmt: skip
    sizes, reads = (ledger.get("dataset") or {}).get("sizes") or {}, ledger.get("test_reads")
    images = f", {sizes['test']:,} images" if "test" in sizes else ""
    times = {1: "once", 2: "twice"}.get(reads or 0, f"{reads} times")
    head = ("stage", "accuracy (95%)", "NLL", "ECE", "size", "one image")
    return f"### Ledger: test{images}, read {times}\n\n{_table(head, told)}"


def _differences(ledger: Mapping[str, Any]) -> str:
    """The paired differences, each with its interval."""
    told = []
    for row in ledger.get("differences") or ():
        shown = _points if row["metric"] == "accuracy" else _signed
        low, high = row.get("interval") or (None, None)
        told.append((
            f"{row['a']} − {row['b']}", row["metric"],
            f"{shown(row.get('value'))} ({shown(low)} to {shown(high)})", row.get("verdict", ""),
        ))  # fmt: skip
    head = ("difference on test", "of", "value (95%)", "verdict")
    return f"### Differences\n\n{_table(head, told)}" if told else ""


def _gates(ledger: Mapping[str, Any]) -> str:
    """What decided on the student that ships."""
    told = [
        (gate["name"], *(_number(gate.get(key)) for key in ("value", "bound", "limit")),
         f"**{gate['verdict']}**")
        for gate in ledger.get("gates") or ()
    ]  # fmt: skip
    if not told:
        return ""
    head = ("gate, on holdout", "value", "bound", "limit", "verdict")
    return f"### Gates\n\n{_table(head, told)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """MLflow sets columns without a gap, so each after the first brings one."""
    gap = " | &nbsp;&nbsp;"
    lines = ["| " + gap.join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])


def _names(names: Sequence[str], most: int = 20) -> str:
    told = ", ".join(f"`{name}`" for name in names[:most])
    return told if len(names) <= most else f"{told} … ({len(names)} in all)"


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.2f}%"


def _points(value: float | None) -> str:
    """A difference of accuracies, in percentage points."""
    return MISSING if value is None else f"{100 * value:+.2f} pp".replace("-", "−")


def _signed(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.4f}".replace("-", "−")


def _number(value: float | None, unit: str = "") -> str:
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.3g}{unit}".replace("-", "−")


def _size(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"
