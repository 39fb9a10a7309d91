"""The tables of a run's screen: rungs, trials, results, failures.

Each takes a `RunState`, the width in characters, and the marks to use.
"""

import textwrap

from rich.table import Table
from rich.text import Text

from analysis.terminal.glyphs import Glyphs, hyperparameters
from common.formats import fixed, one_line, percent, value_text
from journal.events import ResultReported
from journal.state import RunState
from journal.trials import Score, Trial

RESULT_CELLS = 14
"""Width of a result's name, in characters."""
MOST_LINES = 3
"""Of one failure."""


def rungs_panel(state: RunState, width: int, glyphs: Glyphs) -> Table | None:
    """Arrivals at each rung: those that went on, those awaiting or at the end, those stopped."""
    counts = state.rung_counts()
    if not counts:
        return None
    table = _table()
    table.add_column("rung", justify="right", style="bold", header_style="dim", width=5)
    table.add_column("trials", width=min(40, width - 34))
    for name in ("arrived", "went on", "stopped"):
        table.add_column(name, justify="right", width=7)
    cells = min(40, width - 34)
    most = max(1, state.planned(), *(count.arrived for count in counts.values()))
    for rung, count in counts.items():
        shares = (count.continued, count.arrived - count.continued - count.stopped, count.stopped)
        bar = Text()
        begun = 0
        for share, mark, style in zip(
            shares, (glyphs.full, glyphs.full, glyphs.half), ("green", "cyan", "dim"), strict=True
        ):
            end = round(cells * (begun + share) / most)
            bar.append(mark * (end - round(cells * begun / most)), style=style)
            begun += share
        bar.append(glyphs.empty * (cells - len(bar)), style="dim")
        last = rung == max(counts)
        figures = [str(count.arrived), "" if last else str(count.continued), str(count.stopped)]
        table.add_row(str(rung), bar, *figures)
    return table


def trials_panel(state: RunState, width: int, glyphs: Glyphs, *, rows: int) -> Table | None:
    """The best so far, and the trials that run; `rows` in all at most."""
    running = state.with_status("running")
    best = state.ranked()[: max(2, min(5, rows - len(running) - 1))]
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
        mark = glyphs.best if place == 0 else " "
        style = "bold green" if place == 0 else ""
        cells = _cells(state, trial, trial.score, str(trial.rung), glyphs)
        table.add_row(mark, *cells, style=style)
    if best and running:
        table.add_row()
    for trial in running:
        rungs = state.rungs if trial.kind == "search" else state.rungs[-1:]
        target = next((rung for rung in rungs if rung not in trial.scores), None)
        epoch = f"{trial.epoch}/{target}" if target else str(trial.epoch)
        working = Text(glyphs.working, style="cyan")
        table.add_row(working, *_cells(state, trial, trial.last_score, epoch, glyphs))
    return table


def _cells(
    state: RunState, trial: Trial, score: Score | None, epoch: str, glyphs: Glyphs
) -> list[str]:
    values = hyperparameters(trial.recipe, state.spec.get("space") or {})
    nll, accuracy = (score.val_nll, score.val_accuracy) if score else (None, None)
    return [
        glyphs.text(cell) for cell in (trial.name, epoch, fixed(nll), percent(accuracy), values)
    ]


def results_panel(state: RunState, width: int, glyphs: Glyphs) -> Table | None:
    """The results of the stages, and the entry in the registry."""
    if not state.results:
        return None
    table = _table(width)
    table.add_column("result", width=RESULT_CELLS, style="bold", header_style="dim")
    table.add_column("", ratio=1, no_wrap=True, overflow=glyphs.overflow)
    told = {kind: _metrics(results[-1], glyphs) for kind, results in state.results.items()}
    entry = state.registered
    if entry is not None:
        text = f"{entry.name} version {entry.version}, {entry.alias}: "
        told["registered"] = one_line(text + entry.reason)
    for kind, text in told.items():
        # Wrapped here, so that the rows of the table are the lines of the screen.
        lines = textwrap.wrap(glyphs.text(text), width - RESULT_CELLS - 2) or [""]
        for place, line in enumerate(lines):
            table.add_row("" if place else kind, Text(line))
    return table


def _metrics(event: ResultReported, glyphs: Glyphs) -> str:
    told = [
        f"{name.replace('_', ' ')} {_metric(name, value)}" for name, value in event.metrics.items()
    ]
    return f" {glyphs.dot} ".join(told)


def _metric(name: str, value: float | None) -> str:
    return percent(value) if name.endswith("accuracy") else value_text(value)


def failures_panel(state: RunState, width: int, glyphs: Glyphs, *, most: int = 3) -> list[Text]:
    """The `most` trials that failed last, with their reasons; and how many more."""
    failed = state.with_status("failed")
    lines = [line for trial in failed[-most:] for line in _failure(trial, width, glyphs)]
    retried = sum(len(trial.retries) for trial in state.trials.values())
    notes = []
    if len(failed) > most:
        notes.append(f"{len(failed) - most} more failed")
    if retried:
        notes.append(f"{retried} taken up again after a lost worker")
    return lines + [Text(f"  {note}", style="dim") for note in notes]


def _failure(trial: Trial, width: int, glyphs: Glyphs) -> list[Text]:
    """One failure, in as many lines as it takes, but no more than MOST_LINES."""
    name = f"{glyphs.failed} {trial.name} "
    lines = textwrap.wrap(
        name + glyphs.text(one_line(trial.reason)), width, subsequent_indent="  ",
        max_lines=MOST_LINES, placeholder=glyphs.text(" …"),
    )  # fmt: skip
    texts = [Text(line, no_wrap=True, overflow=glyphs.overflow) for line in lines]
    texts[0].stylize("red", 0, len(name))
    return texts


def _table(width: int | None = None) -> Table:
    return Table(
        box=None, width=width, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim",
        show_edge=False,
    )  # fmt: skip
