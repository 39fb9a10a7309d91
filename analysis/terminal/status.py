"""The output of `quorum status` and `quorum clean`: a run's progress and its disk usage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from analysis.terminal.layout import bare_table, command_line, relative
from analysis.terminal.screen import render
from common.errors import RunError
from common.formats import file_size, fixed, percent, rounded_duration
from journal.events import STAGES
from journal.journal import read_state
from journal.lock import at_work
from journal.state import RunState
from search.ablation.ablation import factors_path
from trainables.records import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """The disk space of a run, in bytes."""

    parts: Mapping[str, int]
    """Bytes by part of the run."""
    removable: int = 0
    """Bytes that `quorum clean` would free."""


def status_view(
    folder: RunFolder, usage: DiskUsage, now: float, *, width: int = 80, height: int = 24
) -> RenderableType:
    """Return a run's progress at `now` (unix seconds), its disk usage and the next command."""
    holder = at_work(folder.journal)
    state = _state(folder, holder)
    disk = bare_table("disk", "", "")
    for name, size in usage.parts.items():
        if size:
            disk.add_row(name, file_size(size))
    notes = [_next_step(state, folder, holder)]
    if usage.removable:
        clean = command_line(f"clean {relative(folder.root)}")
        later = " once the run has ended" if holder else ""
        notes.append(f"{clean} frees {file_size(usage.removable)}{later}")
    lines = [Text(note, no_wrap=True, overflow="ignore") for note in notes if note]
    return Group(render(state, now, width, height=height), Text(""), disk, Text(""), *lines)


def runs_view(sizes: Iterable[tuple[RunFolder, int]], now: float) -> RenderableType:
    """Return one line per run: progress, age of the last event, best trial, size in bytes."""
    table = bare_table("run", "progress", "last event", "best on val", "size")
    for folder, size in sizes:
        try:
            holder = at_work(folder.journal)
            state = _state(folder, holder)
        except RunError:
            unreadable = Text("its journal cannot be read", style="red")
            table.add_row(folder.name, unreadable, "", "", file_size(size))
            continue
        age = f"{rounded_duration(max(0.0, now - state.last_time))} ago" if state.trials else ""
        table.add_row(folder.name, _progress(state, holder), age, _best(state), file_size(size))
    return table if table.rows else Text("no runs here", style="dim")


def clean_view(parts: Sequence[tuple[str, int]], *, dry: bool) -> RenderableType:
    """List the removed parts with their sizes in bytes; with `dry`, the parts to be removed."""
    if not parts:
        return Text("there is nothing to clean")
    table = bare_table("would be removed" if dry else "removed", "", "")
    for name, size in parts:
        table.add_row(name, file_size(size))
    total = file_size(sum(size for _, size in parts))
    return Group(table, Text(f"{total} {'would be freed' if dry else 'freed'}"))


def _state(folder: RunFolder, holder: str | None) -> RunState:
    state = read_state(folder.journal)
    if holder is None:
        state.abandon()
    return state


def _next_step(state: RunState, folder: RunFolder, holder: str | None) -> str:
    if holder is not None:
        return f"in use by {holder}"
    if state.stages["report"].status == "finished" and not state.interrupted:
        return ""
    command = "ablate" if factors_path(folder).exists() else "run"
    arguments = f"{state.spec.get('name', 'SWEEP')} --resume --name {folder.name}"
    runs = folder.root.resolve().parent
    if runs != Path("runs").resolve():
        arguments += f" --runs {relative(runs)}"
    return f"no process is running it; resume with: {command_line(f'{command} {arguments}')}"


def _progress(state: RunState, holder: str | None) -> Text:
    """Name the stage that a run has reached: running, interrupted or done."""
    begun = [name for name in STAGES if state.stages[name].status != "pending"]
    stage = state.stage or (begun[-1] if begun else "start")
    if holder is not None:
        return Text(f"{stage}, running", style="cyan")
    if state.interrupted:
        return Text(f"{stage}, interrupted", style="yellow")
    return Text("finished" if stage == "report" else f"{stage} done", style="green")


def _best(state: RunState) -> str:
    score = state.trials.best.score if state.trials.best is not None else None
    return "" if score is None else f"NLL {fixed(score.val_nll)}, {percent(score.val_accuracy)}"
