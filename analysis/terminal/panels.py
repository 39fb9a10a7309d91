"""The tables of a run's screen: rungs, trials, results, failures.

Each takes a `RunState`, the width in characters, and the marks to use.
"""

import re
import textwrap
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from analysis.terminal.glyphs import Glyphs, hyperparameters
from analysis.text.labels import STAGES, metric_label, stage_label
from common.formats import file_size, fixed, one_line, percent, plural, signed, value_text
from journal.cohort import RungCount
from journal.state import RunState
from journal.trial import Score, Trial

RESULT_CELLS = 14
"""Width of a result's name, in characters."""
MOST_FAILURE_LINES = 3
MOST_FAILURES = 3
"""Maximum number of failed trials shown: the latest."""
METRIC = re.compile(r"(.*?)_?(accuracy|nll|brier|ece)")
"""A metric of a stage's result: its subject, and the score."""


def rungs_panel(state: RunState, width: int, glyphs: Glyphs) -> Table | None:
    """Return the trials that arrived at each rung, were promoted from it, and stopped there."""
    counts = state.rung_counts()
    if not counts:
        return None
    cells = min(40, width - 34)
    table = _table()
    table.add_column("rung", justify="right", style="bold", header_style="dim", width=4)
    table.add_column("trials", width=cells)
    for name in ("arrived", "promoted", "stopped"):
        table.add_column(name, justify="right", width=len(name))
    whole = max(1, state.planned(), *(count.arrived for count in counts.values()))
    for rung, count in counts.items():
        promoted = "" if rung == max(counts) else str(count.continued)
        bar = _rung_bar(count, cells, whole, glyphs)
        table.add_row(str(rung), bar, str(count.arrived), promoted, str(count.stopped))
    return table


def trials_panel(state: RunState, width: int, glyphs: Glyphs, *, rows: int) -> Table | None:
    """Return the best trials and the running ones, at most `rows` together."""
    running = state.trials.with_status("running")
    best = state.trials.ranked(most=max(2, min(5, rows - len(running) - 1)))
    running = running[: max(1, rows - len(best) - 1)]
    if not best and not running:
        return None
    table = _table(width)
    table.add_column("", width=1)
    longest = max(len(trial.name) for trial in (*best, *running))
    for name, size in (("trial", max(5, longest)), ("epoch", 7), ("val NLL", 7), ("accuracy", 8)):
        table.add_column(name, justify="left" if name == "trial" else "right", width=size)
    table.add_column("hyperparameters", ratio=1, no_wrap=True, overflow=glyphs.overflow)
    for place, trial in enumerate(best):
        mark, style = (glyphs.best, "bold green") if place == 0 else (" ", "")
        cells = _trial_cells(state, trial, trial.score, str(trial.rung), glyphs)
        table.add_row(mark, *cells, style=style)
    if best and running:
        table.add_row()
    for trial in running:
        epoch = _epoch_of_target(state, trial)
        cells = _trial_cells(state, trial, trial.last_score, epoch, glyphs)
        table.add_row(Text(glyphs.running, style="cyan"), *cells)
    return table


def results_panel(state: RunState, width: int, glyphs: Glyphs) -> Table | None:
    """Return the results of the stages, and the entry in the model registry."""
    if not state.results:
        return None
    table = _table(width)
    table.add_column("result", width=RESULT_CELLS, style="bold", header_style="dim")
    table.add_column("", ratio=1, no_wrap=True, overflow=glyphs.overflow)
    for kind, results in state.results.items():
        _add_result(table, kind, result_lines(results[-1].metrics, glyphs), width, glyphs)
    entry = state.registered
    if entry is not None:
        text = one_line(f"{entry.name} version {entry.version}, {entry.alias}: {entry.reason}")
        _add_result(table, "registered", [text], width, glyphs)
    return table


def result_lines(metrics: Mapping[str, float | None], glyphs: Glyphs) -> list[str]:
    """Return one line per subject with its scores, then one line with all other values."""
    scores: dict[str, list[str]] = {}
    others = []
    for name, value in metrics.items():
        match = METRIC.fullmatch(name)
        if match is None:
            others.append(_value(name, value))
        else:
            subject, metric = match.groups()
            scores.setdefault(subject, []).append(_score(subject, metric, value))
    lines = [f"{_subject(subject)}{glyphs.join(*items)}" for subject, items in scores.items()]
    return lines + ([glyphs.join(*others)] if others else [])


def failures_panel(state: RunState, width: int, glyphs: Glyphs) -> list[Text]:
    """Return the latest failed trials with their reasons, and the number of other failures."""
    failed = state.trials.with_status("failed")
    lines = [line for trial in failed[-MOST_FAILURES:] for line in _failure(trial, width, glyphs)]
    retried = state.trials.restarts
    notes = []
    if len(failed) > MOST_FAILURES:
        notes.append(f"{len(failed) - MOST_FAILURES} more failed")
    if retried:
        notes.append(f"{plural(retried, 'restart')} after failures")
    return lines + [Text(f"  {note}", style="dim") for note in notes]


def _rung_bar(count: RungCount, cells: int, whole: int, glyphs: Glyphs) -> Text:
    """Draw promoted, waiting and stopped trials as shares of a bar for `whole` trials."""
    waiting = count.arrived - count.continued - count.stopped
    parts = (
        (count.continued, glyphs.full, "green"),
        (waiting, glyphs.full, "cyan"),
        (count.stopped, glyphs.half, "dim"),
    )
    bar = Text()
    drawn = 0
    for trials, mark, style in parts:
        start, drawn = drawn, drawn + trials
        bar.append(mark * (round(cells * drawn / whole) - round(cells * start / whole)), style)
    return bar.append(glyphs.empty * (cells - len(bar)), "dim")


def _epoch_of_target(state: RunState, trial: Trial) -> str:
    """Return a running trial's epoch and its next rung: `5/9`."""
    rungs = state.rungs if trial.kind == "search" else state.rungs[-1:]
    target = next((rung for rung in rungs if rung not in trial.scores), None)
    return f"{trial.epoch}/{target}" if target else str(trial.epoch)


def _trial_cells(
    state: RunState, trial: Trial, score: Score | None, epoch: str, glyphs: Glyphs
) -> list[str]:
    values = hyperparameters(trial.recipe, state.spec.get("space") or {})
    nll, accuracy = (score.val_nll, score.val_accuracy) if score else (None, None)
    return [
        glyphs.text(cell) for cell in (trial.name, epoch, fixed(nll), percent(accuracy), values)
    ]


def _add_result(table: Table, name: str, lines: list[str], width: int, glyphs: Glyphs) -> None:
    """Add a result, wrapped here so that each row of the table is one line of the screen."""
    room = width - RESULT_CELLS - 2
    wrapped = [part for line in lines for part in textwrap.wrap(glyphs.text(line), room)]
    for place, line in enumerate(wrapped or [""]):
        table.add_row("" if place else name, Text(line))


def _subject(name: str) -> str:
    """Name the subject of some scores: `student_int8_test` → `int8 student, test: `."""
    if not name:
        return ""
    if name.startswith("worth_"):
        return f"effect of {name.removeprefix('worth_').replace('_', ' ')}: "
    stage, _, split = name.rpartition("_")
    label = f"{stage_label(stage)}, {split}" if stage in STAGES else name.replace("_", " ")
    return f"{label}: "


def _score(subject: str, metric: str, value: float | None) -> str:
    if subject.startswith("worth_"):
        points = metric == "accuracy"
        scaled = 100 * value if points and value is not None else value
        return f"{metric_label(metric)} {signed(scaled, 1 if points else 3)}" + " points" * points
    text = percent(value) if metric.endswith("accuracy") else fixed(value, 3)
    return f"{metric_label(metric)} {text}"


def _value(name: str, value: float | None) -> str:
    if name == "bytes":
        return f"size {file_size(value)}"
    return f"{name.replace('_', ' ')} {value_text(value)}"


def _failure(trial: Trial, width: int, glyphs: Glyphs) -> list[Text]:
    """Return a trial's failure in at most MOST_FAILURE_LINES lines."""
    name = f"{glyphs.failed} {trial.name} "
    lines = textwrap.wrap(
        name + glyphs.text(one_line(trial.reason)), width, subsequent_indent="  ",
        max_lines=MOST_FAILURE_LINES, placeholder=glyphs.text(" …"),
    )  # fmt: skip
    texts = [Text(line, no_wrap=True, overflow=glyphs.overflow) for line in lines]
    texts[0].stylize("red", 0, len(name))
    return texts


def _table(width: int | None = None) -> Table:
    return Table(
        box=None, width=width, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim",
        show_edge=False,
    )  # fmt: skip
