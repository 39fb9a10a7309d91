"""The output at the end of a run and of a replay."""

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from analysis.terminal.layout import command_line, facts_grid, labelled_line, relative
from analysis.terminal.ledger_tables import (
    differences_table,
    gates_table,
    ledger_table,
    robustness_table,
)
from analysis.text.ledger import shipped_stage
from common.formats import plural, rounded_duration, two_digits
from ensemble.ledger.ledger import Ledger
from ensemble.selection.selection import read_selection
from search.mlflow.client import without_password
from trainables.records import WEIGHTS, RunFolder

if TYPE_CHECKING:
    from trainables.replay import Replay


def outcome_view(ledger: Ledger, folder: RunFolder, tracking_uri: str) -> RenderableType:
    """Return the ledger, its differences and gates, and the paths of all results.

    Print it with `crop=False`, so that paths and commands can be copied whole.
    """
    tables = [ledger_table(ledger)]
    tables += [differences_table(ledger)] if ledger.differences else []
    tables += [gates_table(ledger)] if ledger.gates else []
    robustness = robustness_table(ledger)
    tables += [robustness] if robustness is not None else []
    lines = [
        ("report", relative(folder.report)),
        *(_student_lines(folder) if shipped_stage(ledger) else [("weights", _weights(folder))]),
        ("trials", "in the MLflow UI, view “Trials, best first”:"),
        ("", _mlflow_place(tracking_uri)),
    ]
    return Group(*tables, Text(""), *(labelled_line(*line) for line in lines))


def replay_view(replay: "Replay") -> RenderableType:
    """Compare a retrained trial with its record."""
    largest = replay.largest_difference
    differ = "differ" + ("" if largest is None else f" by up to {two_digits(largest)}")
    facts = [
        ("trial", f"{replay.trial}, {plural(replay.rung, 'epoch')}, "
                  f"{rounded_duration(replay.seconds)}"),
        ("weights", "bitwise identical" if replay.identical else differ),
        ("val NLL", f"{replay.recorded_nll:.4f} recorded, {replay.replayed_nll:.4f} now"),
        ("holdout", "log-probabilities differ by up to "
                    f"{two_digits(replay.log_prob_difference)} nats"),
        *((name, f"{then} recorded, {now} now") for name, (then, now) in replay.changes.items()),
    ]  # fmt: skip
    return facts_grid(facts)


MLFLOW_SETTINGS = "MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"
"""Variables that turn off the telemetry and the job execution of MLflow's server."""


def _mlflow_place(tracking_uri: str) -> str:
    """Return the command that shows a local store, or the address of a server."""
    if tracking_uri.startswith(("http://", "https://")):
        return without_password(tracking_uri)
    uri = without_password(tracking_uri)
    line = command_line("ui", program="mlflow", host="127.0.0.1", backend_store_uri=uri)
    return f"{MLFLOW_SETTINGS} {line}"


def _student_lines(folder: RunFolder) -> list[tuple[str, str]]:
    return [
        ("student", relative(folder.student)),
        ("", command_line("predict", relative(folder.root), "IMAGE")),
    ]


def _weights(folder: RunFolder) -> str:
    """Return the weights of the best single network, for a run in which no file ships."""
    name = read_selection(folder.selection).best_single.name
    return relative(folder.trial(name) / WEIGHTS)
