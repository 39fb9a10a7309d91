"""How a run's state looks: a screen of text, and one line for logs.

Pure functions of a `RunState` and a time. Nothing is drawn here: `analysis.terminal.console` owns
the terminal.
"""

from rich.console import Group, RenderableType
from rich.text import Text

from analysis.terminal.glyphs import ASCII, Glyphs, to_ascii
from analysis.terminal.panels import failures_panel, results_panel, rungs_panel, trials_panel
from common.formats import (
    count,
    file_size,
    fixed,
    one_line,
    percent,
    rounded_duration,
    stopwatch,
)
from journal.events import PREPARATION, STAGES, Kind
from journal.state import RunState
from journal.trials import NO_SCORE, Trial
from search.timetable.forecast import done_share, run_left, stages_left

MOST_COLUMNS = 200
"""Wider terminals are not filled: a line would be hard to follow."""


def render(
    state: RunState, now: float, width: int = 80, *, height: int = 24, ascii_only: bool = False
) -> RenderableType:
    """The state at `now` (unix seconds) for a terminal of `width` × `height` characters.

    Header, stages with their times, the stage under way, rungs, best and running trials,
    results, failures. Where the height does not suffice, fewer trials are shown.
    """
    glyphs = ASCII if ascii_only else Glyphs()
    width = max(40, min(width, MOST_COLUMNS))
    now = state.at(now)
    head = [
        _header(state, now, glyphs),
        *_chain(state, now, width, glyphs),
        _bar(state, now, width, glyphs),
        *_machine(state, glyphs),
    ]
    blocks = [rungs_panel(state, width, glyphs), results_panel(state, width, glyphs)]
    below = failures_panel(state, width, glyphs)
    used = len(head) + sum(len(block.rows) + 2 for block in blocks if block) + len(below) + 3
    trials = trials_panel(state, width, glyphs, rows=max(4, height - used - 2))
    parts: list[RenderableType] = [*head]
    for block in (blocks[0], trials, blocks[1]):
        if block is not None:
            parts += [Text(""), block]
    return Group(*parts, *([Text(""), *below] if below else []))


def plain_line(state: RunState, now: float) -> str:
    """The state at `now` in one line of ASCII, for logs and pipes."""
    now = state.at(now)
    begun = [name for name in STAGES if state.stages[name].status != "pending"]
    parts = [f"{state.run or 'run'} {state.stage or (begun[-1] if begun else 'sweep')}"]
    share = done_share(state, state.stage or "sweep")
    if share is not None and state.active:
        parts[0] += f" {share:.0%}"
    parts += [note for note in (_note(state),) if note]
    if state.best is not None and state.best.score is not None:
        score = state.best.score
        parts.append(
            f"best {state.best.name} val_nll {fixed(score.val_nll)}, "
            f"{percent(score.val_accuracy)} at {state.best.rung}"
        )
    else:
        parts += _furthest(state)
    parts.append(f"{stopwatch(state.elapsed(now))} elapsed")
    parts += [f"{state.stage} {left}" for left in _stage_left(state, now)]
    return one_line(to_ascii(" | ".join(parts + _left(state, now))))


def _furthest(state: RunState) -> list[str]:
    """The running trial that is furthest: until one is scored, an hour may pass."""
    running = [trial for trial in state.with_status("running") if trial.epoch and state.rungs]
    if not running:
        return []
    trial = max(running, key=lambda trial: trial.epoch)
    reached = f", {percent(trial.last_score.val_accuracy)} on val" * (trial.last_score != NO_SCORE)
    return [f"{trial.name} at epoch {trial.epoch} of {state.rungs[-1]}{reached}"]


def trial_line(state: RunState, trial: Trial) -> str:
    """How one trial stands, e.g. "t0007 pruned at 3 epochs, val_nll 0.910, 71.0%"."""
    line = f"{trial.name} {state.status(trial)}"
    if trial.score is not None:
        line += f" at {trial.rung} epochs, val_nll {fixed(trial.score.val_nll)}"
        line += f", {percent(trial.score.val_accuracy)}"
    failed = trial.status == "failed"
    return to_ascii(f"{line}: {one_line(trial.reason)}" if failed else line)


def _header(state: RunState, now: float, glyphs: Glyphs) -> Text:
    dot = f" {glyphs.dot} "
    line = Text.assemble(("quorum", "bold cyan"), " ", (state.run or "starting", "bold"))
    line.append(f"{dot}{stopwatch(state.elapsed(now))}", style="dim")
    for part in _left(state, now):
        line.append(f"{dot}{part}", style="dim")
    if state.resumes:
        times = len(state.resumes)
        line.append(f"{dot}resumed" + (f" {times} times" if times > 1 else ""), style="dim")
    line.no_wrap, line.overflow = True, glyphs.overflow
    return line


def _left(state: RunState, now: float) -> list[str]:
    """How the whole run stands: when it ends, by which deadline; or that nobody works on it."""
    if state.abandoned and state.interrupted:
        return ["not at work"]
    if state.interrupted:
        return ["interrupted; --resume goes on with it"]
    if not state.active:
        return ["finished"] if state.stages["report"].status in ("finished", "skipped") else []
    told = []
    left = run_left(state, now)
    if left:
        told.append(f"all done in about {rounded_duration(left)}")
    elif left is None and not _stage_left(state, now):
        told.append("too early to say how long")
    if state.deadline is not None:
        rest = state.deadline - now
        over = f"{rounded_duration(-rest)} past the deadline"
        told.append(f"deadline in {rounded_duration(rest)}" if rest > 0 else over)
    return told


def _stage_left(state: RunState, now: float) -> list[str]:
    """When the stage under way ends, if that can be told."""
    left = stages_left(state, now).get(state.stage or "")
    return [f"done in about {rounded_duration(left)}"] if left and state.active else []


def _chain(state: RunState, now: float, width: int, glyphs: Glyphs) -> list[Text]:
    """The stages in a row, and below them their times: spent, forecast (~), or both.

    Where the width does not suffice, forecasts give way first, then what came before the
    chain and is over.
    """
    left = stages_left(state, now) if state.active else {}
    before = [name for name in PREPARATION if state.stages[name].status != "pending"]
    under_way = [name for name in before if state.stages[name].open]
    nothing: dict[str, float] = {}
    for first, forecast in ((before, left), (under_way, left), (under_way, nothing)):
        cells = [_cell(state, name, now, forecast, glyphs) for name in (*first, *STAGES)]
        widths = [max(name.cell_len, len(times)) for name, times in cells]
        if sum(widths) + 2 * len(cells) - 2 <= width:
            break
    names, below = Text(), Text(style="dim")
    for size, (name, times) in zip(widths, cells, strict=True):
        name.pad_right(size - name.cell_len + 2)
        names.append_text(name)
        below.append(times.ljust(size + 2))
    for line in (names, below):
        line.rstrip()
        line.no_wrap, line.overflow = True, glyphs.overflow
    return [names, below] if below.plain else [names]


def _cell(
    state: RunState, name: str, now: float, left: dict[str, float], glyphs: Glyphs
) -> tuple[Text, str]:
    """One stage's name with its mark, and its times."""
    stage = state.stages[name]
    spent, more = stage.seconds(now), left.get(name)
    if stage.open and state.active:
        whole = f" of ~{stopwatch(spent + more)}" if more and spent is not None else ""
        return Text(
            f"{glyphs.working} {name}", style="bold cyan"
        ), f"  {stopwatch(spent or 0)}{whole}"
    if stage.status == "finished" or stage.open:
        mark, style = (glyphs.halted, "yellow") if stage.open else (glyphs.done, "green")
        return Text.assemble((mark, style), f" {name}"), f"  {stopwatch(spent or 0)}"
    mark = glyphs.skipped if stage.status == "skipped" else glyphs.waiting
    return Text(f"{mark} {name}", style="dim"), f"  ~{stopwatch(more)}" if more else ""


def _bar(state: RunState, now: float, width: int, glyphs: Glyphs) -> Text:
    """The stage under way: how much of it is done, what it says of itself, when it ends."""
    share = done_share(state, state.stage or "sweep")
    dot = f" {glyphs.dot} "
    note = dot.join([part for part in (_note(state), *_stage_left(state, now)) if part])
    cells = min(40, max(10, width - 60))
    full = round(cells * (share or 0.0))
    line = Text(no_wrap=True, overflow=glyphs.overflow)
    line.append(glyphs.bar * full, style="cyan").append(glyphs.track * (cells - full), style="dim")
    if share is not None:
        line.append(f" {share:4.0%}")
    return line.append(f"  {glyphs.text(note)}" if note else "", style="dim")


def _note(state: RunState) -> str:
    """What the stage under way says of itself, or how many of its trials have ended."""
    detail = state.stages[state.stage].detail if state.stage else ""
    if detail:
        return one_line(detail)
    kind: Kind = "seed" if state.stage == "seeds" else "search"
    ended = state.with_status("completed", "pruned", "failed", kind=kind)
    known = [trial for trial in state.trials.values() if trial.kind == kind]
    if not known:
        return ""
    planned = state.planned(kind)
    text = f"{len(ended)}/{planned}" if planned else f"{len(ended)}"
    text += " seeds" if kind == "seed" else " trials"
    failed = sum(trial.status == "failed" for trial in ended)
    return f"{text}, {failed} failed" if failed else text


def _machine(state: RunState, glyphs: Glyphs) -> list[Text]:
    """What the workers do: how many, how fast, in how much memory."""
    running = state.with_status("running")
    rates = [trial.images_per_second for trial in running if trial.images_per_second]
    told = [f"{len(running)} at work"] if running else []
    told += [f"{count(sum(rates))} images/s"] if rates else []
    if state.peak_memory_bytes:
        told.append(f"at most {file_size(state.peak_memory_bytes)} of memory a worker")
    line = Text(f" {glyphs.dot} ".join(told), style="dim", no_wrap=True, overflow=glyphs.overflow)
    return [line] if told else []
