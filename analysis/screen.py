"""How a run's state looks: a screen of text, and one line for logs.

Pure functions of a `RunState` and a time. Nothing is drawn here: `analysis.console` owns
the terminal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.formats import fixed, percent, value_text
from search.progress import RunState
from search.remaining import seconds_left
from search.states import STAGES, Score, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """The marks of a screen, each one cell wide."""

    done: str = "✓"
    working: str = "●"
    waiting: str = "·"
    skipped: str = "–"
    best: str = "★"
    failed: str = "✗"
    full: str = "█"
    half: str = "▒"
    empty: str = "░"
    bar: str = "━"
    track: str = "─"
    dot: str = "·"
    overflow: Literal["ellipsis", "crop"] = "ellipsis"
    """What becomes of a line that is too long."""

    def text(self, text: str) -> str:
        """`text`, in ASCII if these marks are."""
        return _to_ascii(text) if self.overflow == "crop" else text


ASCII = Glyphs(
    done="+", working=">", waiting=".", skipped="-", best="*", failed="x", full="#", half="=",
    empty=".", bar="=", track="-", dot="-", overflow="crop",
)  # fmt: skip


def render(
    state: RunState, now: float, width: int = 80, *, height: int = 24, ascii_only: bool = False
) -> RenderableType:
    """The state at `now` (unix seconds) for a terminal of `width` × `height` characters.

    Header, stages, rungs, running and best trials, results, failures. Where the height does
    not suffice, fewer trials are shown.
    """
    glyphs = ASCII if ascii_only else Glyphs()
    width = max(40, min(width, 120))
    head = [
        _header(state, now, glyphs),
        _stages(state, now, width, glyphs),
        _bar(state, width, glyphs),
    ]
    blocks = [_rungs(state, width, glyphs), _results(state, width, glyphs)]
    below = _failures(state, glyphs)
    used = len(head) + sum(len(block.rows) + 2 for block in blocks if block) + len(below) + 3
    trials = _trials(state, width, glyphs, rows=max(4, height - used - 2))
    parts: list[RenderableType] = [*head]
    for block in (blocks[0], trials, blocks[1]):
        if block is not None:
            parts += [Text(""), block]
    return Group(*parts, *([Text(""), *below] if below else []))


def plain_line(state: RunState, now: float) -> str:
    """The state at `now` in one line of ASCII, for logs and pipes."""
    begun = [name for name in STAGES if state.stages[name].status != "pending"]
    parts = [f"{state.run or 'run'} {state.stage or (begun[-1] if begun else 'sweep')}"]
    counts = _counts(state)
    if counts:
        parts.append(counts)
    if state.best is not None and state.best.score is not None:
        score = state.best.score
        parts.append(
            f"best {state.best.name} val_nll {fixed(score.val_nll)}, "
            f"{percent(score.val_accuracy)} at {state.best.rung}"
        )
    parts.append(f"{clock(state.elapsed(now))} elapsed")
    return _to_ascii(" | ".join(parts + _left(state, now)))


def trial_line(state: RunState, trial: TrialState) -> str:
    """How one trial stands, e.g. "t0007 pruned at 3 epochs, val_nll 0.910, 71.0%"."""
    line = f"{trial.name} {state.status(trial)}"
    if trial.score is not None:
        line += f" at {trial.rung} epochs, val_nll {fixed(trial.score.val_nll)}"
        line += f", {percent(trial.score.val_accuracy)}"
    failed = trial.outcome == "failed"
    return _to_ascii(f"{line}: {_one_line(trial.reason)}" if failed else line)


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:05 or 3:20:07."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def about(seconds: float) -> str:
    """A forecast, no finer than it deserves: "40 s", "7 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(5 * round(minutes / 5), 60)
    return f"{hours} h {minutes:02d} min"


def _header(state: RunState, now: float, glyphs: Glyphs) -> Text:
    dot = f" {glyphs.dot} "
    line = Text.assemble(("quorum", "bold cyan"), " ", (state.run or "starting", "bold"))
    line.append(f"{dot}{clock(state.elapsed(now))}", style="dim")
    for part in _left(state, now):
        line.append(f"{dot}{part}", style="dim")
    if state.resumes:
        times = len(state.resumes)
        line.append(f"{dot}resumed" + (f" {times} times" if times > 1 else ""), style="dim")
    line.no_wrap, line.overflow = True, glyphs.overflow
    return line


def _left(state: RunState, now: float) -> list[str]:
    if state.interrupted:
        return ["interrupted; --resume goes on with it"]
    if not state.active:
        return ["finished"] if state.stages["report"].status in ("finished", "skipped") else []
    left = seconds_left(state, now)
    if left is None:
        return ["too early to say how long"]
    which = "search" if not state.ended("search") else "seeds"
    if left > 0:
        return [f"{which} done in about {about(left)}"]
    stage = state.stages.get(state.stage or "")
    if stage is None or stage.fraction is None or stage.fraction < 0.05:
        return []
    spent = stage.seconds(now) or 0.0
    return [f"{state.stage} done in about {about(spent / stage.fraction - spent)}"]


def _stages(state: RunState, now: float, width: int, glyphs: Glyphs) -> Text:
    """The chain; the times of stages that are over give way where the line is too short."""
    line = _chain(state, now, glyphs, past=True)
    return line if line.cell_len <= width else _chain(state, now, glyphs, past=False)


def _chain(state: RunState, now: float, glyphs: Glyphs, *, past: bool) -> Text:
    parts = []
    for name in STAGES:
        stage = state.stages[name]
        seconds = stage.seconds(now)
        if stage.open:
            part = Text(f"{glyphs.working} {name}", style="bold cyan")
        elif stage.status == "finished":
            part = Text.assemble((glyphs.done, "green"), f" {name}")
        else:
            mark = glyphs.skipped if stage.status == "skipped" else glyphs.waiting
            part = Text(f"{mark} {name}", style="dim")
        if seconds is not None and stage.status != "skipped" and (past or stage.open):
            part.append(f" {clock(seconds)}", style="dim")
        parts.append(part)
    line = Text("  ").join(parts)
    line.no_wrap, line.overflow = True, glyphs.overflow
    return line


def _bar(state: RunState, width: int, glyphs: Glyphs) -> Text:
    """The stage under way: how much of it is done, and what it says of itself."""
    stage = state.stages.get(state.stage or "sweep")
    fraction = stage.fraction if stage else None
    note = stage.detail if stage else ""
    if state.stage in (None, "sweep"):
        planned = state.planned()
        ended = len(state.of_status("completed", "pruned", "failed", kind="search"))
        fraction = min(1.0, ended / planned) if planned else fraction
        note = _counts(state)
    cells = min(40, width - 34)
    full = round(cells * (fraction or 0.0))
    line = Text(no_wrap=True, overflow=glyphs.overflow)
    line.append(glyphs.bar * full, style="cyan").append(glyphs.track * (cells - full), style="dim")
    if fraction is not None:
        line.append(f" {fraction:4.0%}")
    return line.append(f"  {note}" if note else "", style="dim")


def _counts(state: RunState) -> str:
    ended = state.of_status("completed", "pruned", "failed", kind="search")
    if not ended and not state.trials:
        return ""
    failed = sum(trial.outcome == "failed" for trial in ended)
    planned = state.planned() or sum(trial.kind == "search" for trial in state.trials.values())
    text = f"{len(ended)}/{planned} trials"
    return f"{text}, {failed} failed" if failed else text


def _rungs(state: RunState, width: int, glyphs: Glyphs) -> Table | None:
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


def _trials(state: RunState, width: int, glyphs: Glyphs, *, rows: int) -> Table | None:
    """The best so far, and the trials that run; `rows` in all at most."""
    running = state.of_status("running")
    best = state.ranked()[: max(2, min(5, rows - len(running) - 1))]
    running = running[: max(1, rows - len(best) - 1)]
    if not best and not running:
        return None
    table = _table(width)
    table.add_column("", width=1)
    for name, size in (("trial", 5), ("epoch", 7), ("val NLL", 7), ("accuracy", 8)):
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
        table.add_row(working, *_cells(state, trial, trial.last, epoch, glyphs))
    return table


def _cells(
    state: RunState, trial: TrialState, score: Score | None, epoch: str, glyphs: Glyphs
) -> list[str]:
    values = hyperparameters(trial.recipe, state.spec.get("space") or {})
    nll, accuracy = score if score is not None else (None, None)
    return [
        glyphs.text(cell) for cell in (trial.name, epoch, fixed(nll), percent(accuracy), values)
    ]


def hyperparameters(recipe: Mapping[str, Any], space: Mapping[str, Any]) -> str:
    """The searched values of a recipe, without those that its own choices switch off."""
    parts = []
    for name, axis in space.items():
        if name not in recipe or not _applies(axis, recipe):
            continue
        value = recipe[name]
        plain = isinstance(value, str) and value != "none"
        parts.append(str(value) if plain else f"{name} {value_text(value)}")
    return ", ".join(parts)


def _applies(axis: object, recipe: Mapping[str, Any]) -> bool:
    """The axis's condition holds, e.g. `when: {optimizer: sgd}` or `{optimizer: [sgd, adamw]}`."""
    when = axis.get("when") if isinstance(axis, Mapping) else None
    return all(
        recipe.get(name) in (wanted if isinstance(wanted, list | tuple) else (wanted,))
        for name, wanted in (when or {}).items()
    )


def _results(state: RunState, width: int, glyphs: Glyphs) -> Table | None:
    if not state.results:
        return None
    table = _table(width)
    table.add_column("result", width=14, style="bold", header_style="dim")
    table.add_column("", ratio=1, no_wrap=True, overflow=glyphs.overflow)
    for kind, event in state.results.items():
        metrics = event.get("metrics") or {}
        told = [f"{name.replace('_', ' ')} {_metric(name, v)}" for name, v in metrics.items()]
        table.add_row(kind, glyphs.text(f" {glyphs.dot} ".join(told)))
    entry = state.registered
    if entry is not None:
        text = f"{entry.get('name')} version {entry.get('version')}, {entry.get('alias')}: "
        table.add_row("registered", glyphs.text(_one_line(text + str(entry.get("reason", "")))))
    return table


def _metric(name: str, value: float) -> str:
    return percent(value) if name.endswith("accuracy") else value_text(value)


def _failures(state: RunState, glyphs: Glyphs, *, most: int = 3) -> list[Text]:
    failed = state.of_status("failed")
    lines = [
        Text.assemble(
            (f"{glyphs.failed} {trial.name} ", "red"), glyphs.text(_one_line(trial.reason)),
            no_wrap=True, overflow=glyphs.overflow,
        )
        for trial in failed[-most:]
    ]  # fmt: skip
    retried = sum(len(trial.retries) for trial in state.trials.values())
    notes = []
    if len(failed) > most:
        notes.append(f"{len(failed) - most} more failed")
    if retried:
        notes.append(f"{retried} taken up again after a lost worker")
    return lines + [Text(f"  {note}", style="dim") for note in notes]


def _table(width: int | None = None) -> Table:
    return Table(
        box=None, width=width, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim",
        show_edge=False,
    )  # fmt: skip


def _to_ascii(text: str) -> str:
    return text.translate(_ASCII_LIKE).encode("ascii", "replace").decode()


_ASCII_LIKE = str.maketrans({"–": "-", "−": "-", "·": "-", "…": "~", "×": "x"})


def _one_line(text: str) -> str:
    return " ".join(text.split())
