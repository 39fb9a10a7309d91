"""A run's state as a screen of text, and as one line for logs.

Pure functions of a `RunState` and a time; `analysis.terminal.live_display` draws.
"""

from collections.abc import Mapping

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
    plural,
    rounded_duration,
    stopwatch,
)
from journal.events import PREPARATION, STAGES, Kind
from journal.state import RunState
from journal.trial import NO_SCORE, Trial
from search.timetable.forecast import done_share, run_seconds_left, stage_seconds_left

MOST_COLUMNS = 200
"""Maximum width, even on a wider terminal: longer lines are hard to follow."""
LEAST_COLUMNS = 40
LEAST_TRIALS = 4
"""Minimum number of trial rows, even on a short terminal."""


def render(
    state: RunState, now: float, width: int = 80, *, height: int = 24, ascii_only: bool = False
) -> RenderableType:
    """Return the state at `now` (unix seconds) for a terminal of `width` × `height` characters.

    From top to bottom: header, stages with their times, the current stage, rungs, best and
    running trials, results, failures. A short terminal shows fewer trials.
    """
    glyphs = ASCII if ascii_only else Glyphs()
    width = max(LEAST_COLUMNS, min(width, MOST_COLUMNS))
    now = state.at(now)
    head = [
        _header(state, now, glyphs),
        *_stages(state, now, width, glyphs),
        _progress(state, now, width, glyphs),
        *_workers(state, glyphs),
    ]
    rungs = rungs_panel(state, width, glyphs)
    results = results_panel(state, width, glyphs)
    failures = failures_panel(state, width, glyphs)
    used = len(head) + sum(len(panel.rows) + 2 for panel in (rungs, results) if panel)
    rows = max(LEAST_TRIALS, height - used - len(failures) - 5)
    trials = trials_panel(state, width, glyphs, rows=rows)
    parts: list[RenderableType] = [*head]
    for panel in (rungs, trials, results):
        if panel is not None:
            parts += [Text(""), panel]
    return Group(*parts, *([Text(""), *failures] if failures else []))


def plain_line(state: RunState, now: float) -> str:
    """Return the state at `now` as one line of ASCII, for logs and pipes."""
    now = state.at(now)
    begun = [name for name in STAGES if state.stages[name].status != "pending"]
    stage = state.stage or (begun[-1] if begun else "sweep")
    share = done_share(state, state.stage or "sweep")
    done = f" {share:.0%}" if share is not None and state.active else ""
    parts = [
        f"{state.run or 'run'} {stage}{done}",
        _stage_detail(state),
        _best_so_far(state) or _furthest_trial(state),
        f"{stopwatch(state.elapsed(now))} elapsed",
        *(f"{state.stage} {left}" for left in _stage_left(state, now)),
        *_run_left(state, now),
    ]
    return one_line(to_ascii(" | ".join(part for part in parts if part)))


def trial_line(state: RunState, trial: Trial) -> str:
    """Return a trial's result: `t0007 pruned at 3 epochs, val_nll 0.910, 71.0%`."""
    line = f"{trial.name} {state.trials.status(trial)}"
    if trial.score is not None:
        line += (
            f" at {plural(trial.rung or 0, 'epoch')}, val_nll {fixed(trial.score.val_nll)}, "
            f"{percent(trial.score.val_accuracy)}"
        )
    return to_ascii(f"{line}: {one_line(trial.reason)}" if trial.status == "failed" else line)


def _best_so_far(state: RunState) -> str:
    best = state.trials.best
    if best is None or best.score is None:
        return ""
    score = f"val_nll {fixed(best.score.val_nll)}, {percent(best.score.val_accuracy)}"
    return f"best {best.name} {score} at {plural(best.rung or 0, 'epoch')}"


def _furthest_trial(state: RunState) -> str:
    """Describe the running trial with the most epochs: the first score may take an hour."""
    running = [
        trial for trial in state.trials.with_status("running") if trial.epoch and state.rungs
    ]
    if not running:
        return ""
    trial = max(running, key=lambda trial: trial.epoch)
    score = trial.last_score
    accuracy = "" if score == NO_SCORE else f", {percent(score.val_accuracy)} on val"
    return f"{trial.name} at epoch {trial.epoch} of {state.rungs[-1]}{accuracy}"


def _header(state: RunState, now: float, glyphs: Glyphs) -> Text:
    line = Text.assemble(("quorum", "bold cyan"), " ", (state.run or "starting", "bold"))
    resumes = len(state.resumes)
    notes = [stopwatch(state.elapsed(now)), *_run_left(state, now)]
    if resumes:
        notes.append("resumed" if resumes == 1 else f"resumed {resumes} times")
    for note in notes:
        line.append(f" {glyphs.dot} {note}", style="dim")
    line.no_wrap, line.overflow = True, glyphs.overflow
    return line


def _run_left(state: RunState, now: float) -> list[str]:
    """Return the time left and the deadline, or the fact that the run ended or was interrupted."""
    if state.abandoned and state.interrupted:
        return ["not running"]
    if state.interrupted:
        return ["interrupted; continue with --resume"]
    if not state.active:
        return ["finished"] if state.stages["report"].status in ("finished", "skipped") else []
    notes = []
    left = run_seconds_left(state, now)
    if left:
        notes.append(f"about {rounded_duration(left)} left")
    elif left is None and not _stage_left(state, now):
        notes.append("no estimate yet")
    if state.deadline is not None:
        rest = state.deadline - now
        late = f"{rounded_duration(-rest)} past the deadline"
        notes.append(f"deadline in {rounded_duration(rest)}" if rest > 0 else late)
    return notes


def _stage_left(state: RunState, now: float) -> list[str]:
    """Return the time left in the current stage, if there is an estimate."""
    left = stage_seconds_left(state, now).get(state.stage or "")
    return [f"done in about {rounded_duration(left)}"] if left and state.active else []


def _stages(state: RunState, now: float, width: int, glyphs: Glyphs) -> list[Text]:
    """Return the stages in a row, and below them their times: spent, forecast (~), or both.

    A narrow terminal first drops finished preparation stages, then the forecasts.
    """
    left = stage_seconds_left(state, now) if state.active else {}
    prepared = [name for name in PREPARATION if state.stages[name].status != "pending"]
    preparing = [name for name in prepared if state.stages[name].open]
    no_forecast: Mapping[str, float] = {}
    for first, forecast in ((prepared, left), (preparing, left), (preparing, no_forecast)):
        cells = [_stage_cell(state, name, now, forecast, glyphs) for name in (*first, *STAGES)]
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


def _stage_cell(
    state: RunState, name: str, now: float, left: Mapping[str, float], glyphs: Glyphs
) -> tuple[Text, str]:
    """Return a stage's name with its mark, and its times."""
    stage = state.stages[name]
    spent, remaining = stage.seconds(now), left.get(name)
    times = f"  {stopwatch(spent or 0)}"
    if stage.open and state.active:
        whole = f" of ~{stopwatch(spent + remaining)}" if remaining and spent is not None else ""
        return Text(f"{glyphs.running} {name}", style="bold cyan"), f"{times}{whole}"
    if stage.open:
        return Text.assemble((glyphs.interrupted, "yellow"), f" {name}"), times
    if stage.status == "finished":
        return Text.assemble((glyphs.done, "green"), f" {name}"), times
    mark = glyphs.skipped if stage.status == "skipped" else glyphs.waiting
    return Text(f"{mark} {name}", style="dim"), f"  ~{stopwatch(remaining)}" if remaining else ""


def _progress(state: RunState, now: float, width: int, glyphs: Glyphs) -> Text:
    """Return the progress of the current stage: a bar, its detail, and its end."""
    share = done_share(state, state.stage or "sweep")
    note = glyphs.join(_stage_detail(state), *_stage_left(state, now))
    cells = min(40, max(10, width - 60))
    full = round(cells * (share or 0.0))
    line = Text(no_wrap=True, overflow=glyphs.overflow)
    line.append(glyphs.bar * full, style="cyan").append(glyphs.track * (cells - full), style="dim")
    if share is not None:
        line.append(f" {share:4.0%}")
    return line.append(f"  {glyphs.text(note)}" if note else "", style="dim")


def _stage_detail(state: RunState) -> str:
    """Return the detail that the current stage reports, or its number of ended trials."""
    detail = state.stages[state.stage].detail if state.stage else ""
    if detail:
        return one_line(detail)
    kind: Kind = "seed" if state.stage == "seeds" else "search"
    cohort = state.trials.cohorts[kind]
    if not cohort.trials:
        return ""
    ended = sum(cohort.ended.values())
    planned = state.planned(kind)
    text = f"{ended}/{planned}" if planned else f"{ended}"
    text += " seeds" if kind == "seed" else " trials"
    failed = cohort.ended.get("failed", 0)
    return f"{text}, {failed} failed" if failed else text


def _workers(state: RunState, glyphs: Glyphs) -> list[Text]:
    """Return the number of running trials, their speed, and the peak memory per worker."""
    running = state.trials.with_status("running")
    rates = [trial.images_per_second for trial in running if trial.images_per_second]
    memory = state.trials.peak_memory_bytes
    note = glyphs.join(
        f"{len(running)} running" if running else "",
        f"{count(sum(rates))} images/s" if rates else "",
        f"peak memory {file_size(memory)} per worker" if memory else "",
    )
    return [Text(note, style="dim", no_wrap=True, overflow=glyphs.overflow)] if note else []
