"""The output of `quorum status` and `quorum clean`: a run's progress and its disk usage."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from rich.console import Group, RenderableType
from rich.text import Text

from analysis.facts.status import RunStatus, read_status
from analysis.terminal.layout import bare_table, command_line, name_text, relative
from analysis.terminal.screen import render
from common.commands import command, runs_option
from common.errors import RunError
from common.formats import file_size, fixed, percent, rounded_duration
from common.printable import printable
from journal.state import RunState
from search.ablation.ablation import factors_path
from trainables.records import RunFolder


def status_view(
    status: RunStatus, now: float, *, width: int = 80, height: int = 24, next_step: bool = True
) -> RenderableType:
    """Return a run's progress at `now` (unix seconds), its disk usage and the next command.

    Without `next_step` that command is left out.
    """
    disk = bare_table("disk", "", "")
    for name, size in status.disk.parts.items():
        if size:
            disk.add_row(name, file_size(size))
    notes = [_next_step(status)] if next_step else []
    if status.disk.removable:
        clean = command_line("clean", relative(status.folder.root))
        later = " once the run has ended" if status.running else ""
        notes.append(f"{clean} frees {file_size(status.disk.removable)}{later}")
    lines = [Text(printable(note), no_wrap=True, overflow="ignore") for note in notes if note]
    return Group(render(status.state, now, width, height=height), Text(""), disk, Text(""), *lines)


def runs_view(sizes: Iterable[tuple[RunFolder, int]], now: float) -> RenderableType:
    """Return one line per run: progress, age of the last event, best trial, size in bytes."""
    table = bare_table("run", "progress", "last event", "best on val", "size")
    for folder, size in sizes:
        try:
            status = read_status(folder)
        except RunError:
            unreadable = Text("its journal cannot be read", style="red")
            table.add_row(name_text(folder.name), unreadable, "", "", file_size(size))
            continue
        state = status.state
        age = f"{rounded_duration(max(0.0, now - state.last_time))} ago" if state.trials else ""
        table.add_row(name_text(folder.name), _progress(status), age, _best(state), file_size(size))
    return table if table.rows else Text("no runs here", style="dim")


def clean_view(parts: Sequence[tuple[str, int]], *, dry: bool) -> RenderableType:
    """List the removed parts with their sizes in bytes; with `dry`, the parts to be removed."""
    if not parts:
        return Text("there is nothing to clean")
    table = bare_table("would be removed" if dry else "removed", "", "")
    for name, size in parts:
        table.add_row(name_text(name), file_size(size))
    total = file_size(sum(size for _, size in parts))
    return Group(table, Text(f"{total} {'would be freed' if dry else 'freed'}"))


def resume_command(
    folder: RunFolder,
    name: str = "run",
    *,
    sweep: str | None = None,
    data: str | None = None,
    profile: str | None = None,
    address: str | None = None,
    program: str | None = None,
) -> str:
    """Return the command, called `name`, that resumes a run; by default with its own sweep.yaml.

    `program` replaces the path of this installation's program.
    """
    runs = runs_option(folder.root.resolve().parent)
    write: Callable[..., str] = command_line
    if program is not None:
        write = partial(command, program=program)
    return write(
        name,
        sweep or relative(folder.sweep),
        resume=True,
        name=folder.name,
        runs=None if runs is None else relative(runs),
        data=data,
        profile=profile,
        address=address,
    )


def _next_step(status: RunStatus) -> str:
    state, folder = status.state, status.folder
    if status.running:
        return f"in use by {status.holder}"
    if state.stages["report"].status == "finished" and not state.interrupted:
        return ""
    name = "ablate" if factors_path(folder).exists() else "run"
    command = resume_command(folder, name, address=state.address)
    return f"no process is running it; resume with: {command}"


def _progress(status: RunStatus) -> Text:
    if status.running:
        return Text(str(status), style="cyan")
    return Text(str(status), style="yellow" if status.interrupted else "green")


def _best(state: RunState) -> str:
    score = state.trials.best.score if state.trials.best is not None else None
    return "" if score is None else f"NLL {fixed(score.val_nll)}, {percent(score.val_accuracy)}"
