"""What commands print: where runs stand, what they take on the disk, what they have left."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.terminal.screen import render
from analysis.terminal.tables import differences_table, gates_table, ledger_table
from analysis.text.wording import Ledger, shipped_stage, source_sizes_text
from common.errors import RunError
from common.files import read_json
from common.formats import file_size, fixed, percent, plural, rounded_duration
from journal.journal import at_work, read_events
from journal.progress import RunState
from journal.states import STAGES
from quorum.workspace.cleaning import Removable, removable, usage
from search.ablation.ablation import factors_path
from search.timetable.preview import Preview
from trainables.records import RunFolder

if TYPE_CHECKING:
    from trainables.replay import Replay

MOST_CLASSES = 30
"""Classes that a dry run lists."""


def status_view(
    folder: RunFolder, now: float, *, width: int = 80, height: int = 24
) -> RenderableType:
    """Where a run stands at `now` (unix seconds), and what it takes on the disk."""
    holder = at_work(folder.journal)
    state = _state(folder, holder)
    disk = _table("disk", "", "")
    for name, size in usage(folder).items():
        if size:
            disk.add_row(name, file_size(size))
    freed = sum(thing.bytes for thing in removable(folder))
    command = _command("clean", _near(folder.root))
    notes = [_next_step(state, folder, holder)]
    if freed:
        notes.append(f"{command} frees {file_size(freed)}" + (" when it is over" * bool(holder)))
    told = [Text(note, no_wrap=True, overflow="ignore") for note in notes if note]
    return Group(render(state, now, width, height=height), Text(""), disk, Text(""), *told)


def runs_view(folders: Iterable[RunFolder], now: float) -> RenderableType:
    """All runs, one a line: where each stands, since when, its best trial, its size."""
    table = _table("run", "stands at", "last event", "best on val", "size")
    for folder in folders:
        size = file_size(sum(list(usage(folder).values())[:-2]))
        try:
            holder = at_work(folder.journal)
            state = _state(folder, holder)
        except RunError:
            table.add_row(
                folder.name, Text("its journal cannot be read", style="red"), "", "", size
            )
            continue
        age = f"{rounded_duration(max(0.0, now - state.last_time))} ago" if state.trials else ""
        table.add_row(folder.name, _stands(state, holder), age, _best(state), size)
    return table if table.rows else Text("no runs here", style="dim")


def clean_view(things: Sequence[Removable], *, dry: bool) -> RenderableType:
    """What went, or what would go."""
    table = _table("would go" if dry else "gone", "", "")
    for thing in things:
        table.add_row(thing.what, file_size(thing.bytes))
    total = file_size(sum(thing.bytes for thing in things))
    told = f"{total} {'would be' if dry else 'are'} free" if things else "there is nothing to clean"
    return Group(table, Text(told)) if things else Text(told)


def preview_view(preview: Preview) -> RenderableType:
    """What a run would do with its data."""
    spec = preview.spec
    trials = "as many as there is time for" if preview.trials is None else str(preview.trials)
    facts = [
        ("data", f"{preview.name}, {plural(sum(preview.sizes.values()), 'image')} of "
                 f"{plural(len(preview.classes), 'class', 'classes')}, {preview.image_size}×"
                 f"{preview.image_size} pixels"),
        ("original", source_sizes_text(preview.source_sizes)),
        ("splits", " · ".join(f"{name} {size:,}" for name, size in preview.sizes.items())),
        ("trials", trials),
        ("rungs", " → ".join(map(str, preview.rungs)) + " epoch" + "s" * (preview.rungs != (1,))),
        ("searched", ", ".join(spec.space) or "nothing"),
    ]  # fmt: skip
    if "seeds" in preview.seconds:
        facts.append(("seeds", str(spec.members)))
    if "distill" in preview.seconds:
        told = f"{plural(preview.student_epochs, 'epoch')}, with and without a teacher"
        facts.append(("student", told))
    stages = [
        f"{name} {rounded_duration(seconds)}"
        for name, seconds in preview.seconds.items()
        if seconds
    ]
    facts.append(
        ("forecast", f"{rounded_duration(sum(preview.seconds.values()))}: {', '.join(stages)}")
    )
    return Group(_facts(facts), Text(""), *_class_tables(preview))


def replay_view(replay: "Replay") -> RenderableType:
    """What came of training a trial again."""
    same = "the same, bitwise"
    weights = same if replay.identical else f"differ by up to {replay.largest_difference:.2g}"
    facts = [
        (
            "trial",
            f"{replay.trial}, {plural(replay.rung, 'epoch')}, {rounded_duration(replay.seconds)}",
        ),
        ("weights", weights),
        ("val NLL", f"{replay.recorded_nll:.4f} then, {replay.replayed_nll:.4f} now"),
        ("holdout", f"log-probabilities differ by up to {replay.log_prob_difference:.2g} nats"),
        *((name, f"{then} then, {now} now") for name, (then, now) in replay.changes.items()),
    ]
    return _facts(facts)


def outcome_view(ledger: Ledger, folder: RunFolder, tracking_uri: str) -> RenderableType:
    """The ledger, its differences and gates, and where everything lies.

    Print it with `crop=False`: paths and commands are to be copied whole.
    """
    store = f"--backend-store-uri {tracking_uri}"
    student = [
        ("student", _near(folder.student)),
        ("", _command("predict", f"{_near(folder.root)} IMAGE")),
    ]
    lines = [
        ("report", _near(folder.report)),
        *(student if shipped_stage(ledger) else [("weights", _near(_weights(folder)))]),
        ("trials", "in the MLflow UI, view “Trials, best first”:"),
        ("", f"{_near(_programs() / 'mlflow')} ui --host 127.0.0.1 {store}"),
    ]
    told = [_line(*line) for line in lines]
    tables = [ledger_table(ledger)]
    tables += [differences_table(ledger)] if ledger.get("differences") else []
    tables += [gates_table(ledger)] if ledger.get("gates") else []
    return Group(*tables, *told)


def _weights(folder: RunFolder) -> Path:
    """Of the single best net, where the run delivers no student."""
    name = read_json(folder.selection)["best_single"]["name"]
    return folder.trial(str(name)) / "weights.safetensors"


def _state(folder: RunFolder, holder: str | None) -> RunState:
    state = RunState.from_events(read_events(folder.journal))
    if holder is None:
        state.abandon()
    return state


def _next_step(state: RunState, folder: RunFolder, holder: str | None) -> str:
    if holder is not None:
        return f"at work: {holder}"
    if state.stages["report"].status == "finished" and not state.interrupted:
        return ""
    name = f"{state.spec.get('name', 'SWEEP')} --resume --name {folder.name}"
    runs = folder.root.resolve().parent
    where = "" if runs == Path("runs").resolve() else f" --runs {_near(runs)}"
    command = "ablate" if factors_path(folder).exists() else "run"
    return f"not at work; resume with: {_command(command, name)}{where}"


def _stands(state: RunState, holder: str | None) -> Text:
    """In a word or two."""
    begun = [name for name in STAGES if state.stages[name].status != "pending"]
    at = state.stage or (begun[-1] if begun else "start")
    if holder is not None:
        return Text(f"{at}, at work", style="cyan")
    if state.interrupted:
        return Text(f"{at}, broken off", style="yellow")
    return Text("finished" if at == "report" else f"{at} done", style="green")


def _best(state: RunState) -> str:
    score = state.best.score if state.best is not None else None
    return "" if score is None else f"NLL {fixed(score.val_nll)}, {percent(score.val_accuracy)}"


def _class_tables(preview: Preview) -> list[RenderableType]:
    """Images of each class, by split; of many classes only the smallest and what the rest has."""
    classes = sorted(preview.classes.items(), key=lambda item: sum(item[1]))
    many = len(classes) > MOST_CLASSES
    table = _table("the smallest classes" if many else "class", *preview.sizes, numbers=True)
    for name, counts in classes[:MOST_CLASSES] if many else preview.classes.items():
        table.add_row(Text(name), *(f"{count:,}" for count in counts))
    if not many:
        return [table]
    low, high = (sum(classes[index][1]) for index in (MOST_CLASSES, -1))
    images = plural(high, "image") if low == high else f"{low:,} to {plural(high, 'image')}"
    further = plural(len(classes) - MOST_CLASSES, "further class", "further classes")
    return [table, Text(f"and {further} of {images} each", style="dim")]


def _facts(facts: Iterable[tuple[str, str]]) -> Table:
    """Name and value, a line each; long values go on below."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(style="bold", no_wrap=True, min_width=8)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(name, Text(value))
    return grid


def _table(*headers: str, numbers: bool = False) -> Table:
    """Long texts go on below; `numbers` are all columns but the first."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, header in enumerate(headers):
        if index and (numbers or header in ("size", "")):
            table.add_column(header, justify="right", no_wrap=True)
        else:
            table.add_column(header, overflow="fold")
    return table


def _line(name: str, text: str) -> Text:
    return Text.assemble((f"{name:<9}", "bold"), text, no_wrap=True, overflow="ignore")


def _command(name: str, rest: str) -> str:
    """A command as one would type it from here."""
    return f"{_near(_programs() / 'quorum')} {name} {rest}"


def _programs() -> Path:
    return Path(sys.executable).parent


def _near(path: Path) -> str:
    """A path as one would type it from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
