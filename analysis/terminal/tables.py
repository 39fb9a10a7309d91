"""Tables for the terminal (rich) and for READMEs (markdown).

Every table reads well in 80 columns. Cells with two figures stack them, and the header says
which stands where.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from analysis.facts.trials import TrialFacts, best_trial
from analysis.text.cells import ledger_cells
from analysis.text.wording import (
    NOT_DISTINGUISHABLE,
    Ledger,
    Row,
    accuracy_text,
    decimals,
    difference_value,
    gate_label,
    gate_numbers,
    label,
    metric_label,
    rows,
    sizes,
    verdict,
)
from common.formats import (
    DASH,
    count,
    duration,
    fixed,
    percent,
    plural,
    short_duration,
    two_digits,
    value_text,
)

GOOD, BAD, DIM = "green", "red", "dim"
COLORS: Mapping[str, str] = {
    "pass": GOOD,
    "better": GOOD,
    "fail": BAD,
    "worse": BAD,
    "undecided": "yellow",
    NOT_DISTINGUISHABLE: "yellow",
}


def ledger_table(ledger: Ledger) -> Table:
    """The rows of the ledger on test, one stage a row."""
    digits = decimals(ledger)
    table = plain_table(_ledger_title(ledger))
    table.add_column("")
    for header in (
        "accuracy\n95% int.", "bal.\nacc.", "NLL", "Brier", "ECE\nnull", "params\nsize",
        "ms\nimg/s", "train", "agree",
    ):  # fmt: skip
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows(ledger):
        cells = ledger_cells(row, digits)
        table.add_row(
            Text(cells["stage"].replace(" ", "\n", 1)),
            _stacked(cells["accuracy"], cells["interval"]), cells["balanced"],
            cells["nll"], cells["brier"], _stacked(cells["ece"], cells["ece_null"]),
            _stacked(cells["params"], cells["size"].replace(" ", "")),
            _stacked(cells["ms"], cells["rate"]),
            short_duration(row.get("train_seconds")), cells["agree"],
        )  # fmt: skip
    table.caption = (
        "accuracies and agreement with the ensemble in %; null: what a perfectly calibrated "
        "model would show; ms: latency of one image, img/s: throughput of batches"
    )
    return table


def differences_table(ledger: Ledger) -> Table:
    """The paired differences, one pair a row, each metric with its interval and verdict."""
    table = plain_table("Paired differences on test, 95% intervals")
    table.add_column("a − b")
    table.add_column("")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("interval", justify="right", no_wrap=True)
    table.add_column("a is")
    for (a, b), items in _by_pair(ledger).items():
        values = [difference_value(item, decimals(ledger), unit="pts") for item in items]
        table.add_row(
            Text(f"{label(a)}\n− {label(b)}"),
            Text("\n".join(metric_label(item["metric"]) for item in items)),
            "\n".join(value for value, _ in values),
            "\n".join(interval for _, interval in values),
            Text("\n").join(_colored(verdict(item)) for item in items),
        )
    return table


def gates_table(ledger: Ledger) -> Table:
    """The release gates: value, one-sided bound, limit, verdict."""
    table = plain_table("Release gates, decided on holdout")
    table.add_column("gate")
    for header in ("value", "bound", "limit"):
        table.add_column(header, justify="right")
    table.add_column("verdict")
    for gate in ledger.get("gates", []):
        table.add_row(Text(gate_label(gate)), *gate_numbers(gate), _colored(str(gate["verdict"])))
    if not ledger.get("gates"):
        table.caption = "no student has been judged yet"
    return table


def selection_table(selection: Mapping[str, Any]) -> Table:
    """The ensemble: members and weights, its score, and what the certificates say."""
    table = plain_table(f"Ensemble of {plural(len(selection['members']), 'member')}")
    table.add_column("member")
    table.add_column("weight", justify="right")
    table.add_column("", no_wrap=True)
    top = max((float(member["weight"]) for member in selection["members"]), default=1.0)
    for member in selection["members"]:
        weight = float(member["weight"])
        bar = "█" * max(1, round(30 * weight / top))
        table.add_row(Text(str(member["name"])), percent(weight), Text(bar, style="blue"))
    metrics = (selection.get("metrics") or {}).get("holdout") or {}
    table.caption = (
        f"{selection.get('weighting', DASH)} weights, temperature "
        f"{fixed(selection.get('temperature'), 3)}\n"
        f"holdout, cross-fitted: accuracy {percent(metrics.get('accuracy'))}, NLL "
        f"{fixed(metrics.get('nll'), 4)}, Brier {fixed(metrics.get('brier'), 4)}\n"
        f"no reweighting gains more than {two_digits(selection.get('gap_support'))} nats among the "
        f"members, {two_digits(selection.get('gap_pool'))} in the whole pool"
    )
    return table


def sweep_table(trials: Sequence[TrialFacts], *, limit: int = 10) -> Table:
    """The best trials: those with the highest rungs first, then by NLL on val."""
    scored = sorted(
        (trial for trial in trials if trial.rung is not None),
        key=lambda trial: (-(trial.rung or 0), trial.scores[trial.rung or 0]),
    )
    failed = sum(trial.status == "failed" for trial in trials)
    finished = sum(trial.whole_schedule for trial in trials)
    table = plain_table(
        f"{plural(len(trials), 'trial')}: {count(finished)} finished the schedule, "
        f"{count(failed)} failed"
    )
    for header in ("trial", "rung", "val NLL", "val acc.", "time", "differs from the best in"):
        table.add_column(header, justify="left" if header[0] in "td" else "right")
    best = best_trial(scored)
    for trial in scored[:limit]:
        last = next(epoch for epoch in reversed(trial.epochs) if epoch.rung == trial.rung)
        table.add_row(
            Text(trial.trial, style="bold" if trial is best else ""), str(trial.rung),
            fixed(last.val_nll, 4), percent(last.val_accuracy), duration(trial.seconds),
            Text("the best" if trial is best else _differing(trial, best)),
        )  # fmt: skip
    if len(scored) > limit:
        table.caption = f"and {plural(len(scored) - limit, 'further scored trial')}"
    return table


def ledger_markdown(ledger: Ledger) -> str:
    """The ledger as a GitHub table, one stage a row."""
    digits = decimals(ledger)
    lines = [
        "| stage | accuracy, 95% interval | NLL | Brier | ECE (null) | params | size "
        "| ms, batch 1 | images/s | train |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows(ledger):
        cells = ledger_cells(row, digits, decimals=4)
        line = [
            cells["stage"].replace("|", "\\|"),
            accuracy_text(row, digits).replace("95% interval ", ""),
            cells["nll"], cells["brier"], f"{cells['ece']} ({cells['ece_null']})",
            *(cells[name] for name in ("params", "size", "ms", "rate", "train")),
        ]  # fmt: skip
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines) + "\n"


def plain_table(title: str) -> Table:
    """An empty table in the manner of all of ours."""
    return Table(
        title=Text(f"\n{title}"), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0), pad_edge=False,
        show_edge=False, title_style="bold", caption_style=DIM,
    )  # fmt: skip


def _by_pair(ledger: Ledger) -> dict[tuple[str, str], list[Row]]:
    pairs: dict[tuple[str, str], list[Row]] = {}
    for item in ledger.get("differences", []):
        pairs.setdefault((str(item["a"]), str(item["b"])), []).append(item)
    return pairs


def _ledger_title(ledger: Ledger) -> str:
    images = sizes(ledger).get("test")
    reads = int(ledger.get("test_reads") or 1)
    times = "once" if reads == 1 else f"{reads} times"
    on = f"{plural(int(images), 'image')} of test" if images else "test"
    return f"Ledger: {on}, read {times}"


def _stacked(first: str, second: str) -> Text:
    return Text.assemble(first, "\n", (second, DIM))


def _colored(text: str) -> Text:
    return Text(text, style=COLORS.get(text, ""))


def _differing(trial: TrialFacts, best: TrialFacts | None) -> str:
    """The three values that come first among those that differ from the best trial's."""
    if best is None:
        return ""
    names = [name for name, value in trial.recipe.items() if best.recipe.get(name) != value]
    return ", ".join(f"{name} {value_text(trial.recipe[name])}" for name in names[:3])
