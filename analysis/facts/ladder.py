"""The ladder: the targets of the reference problem's levels, and what runs have reached.

Every shipped sweep `level1` … `level5` has a target. A level's result comes from the
ledger of a finished run of that sweep, or of a sweep with the same search that delivers more: a run
of `level5` also has the ensemble of `level4`. Nothing is trained, and test is not read again.

Axes: N examples of test, K classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from analysis.facts.run_facts import Array, read_test_predictions
from analysis.text.ledger import row_of, shipped_stage
from common.commands import command, runs_option
from common.parsing import to_mapping
from ensemble.ledger.ledger import Ledger, Row, read_ledger
from ensemble.selection.comparison import Comparison, compare
from journal.journal import read_state
from search.space.sections import TargetSpec
from search.space.spec import SweepSpec
from search.space.start_command import changed_settings, requested_sweep, start_command
from search.space.sweep_files import load_spec, shipped_names, spec_of_run
from trainables.records import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level: its target and, after a finished run, the result."""

    sweep: str
    """Name of the shipped sweep."""
    description: str
    target: TargetSpec
    run: RunFolder | None = None
    """The judged run: the latest, since picking the best would be selection on test."""
    runs: int = 0
    """Finished runs that count for this level."""
    dataset: str = ""
    """Name of the folder or data set that the run was trained on."""
    row: Row | None = None
    """The judged row of its ledger."""
    gain: Comparison | None = None
    """The row's accuracy minus that of the level to beat, paired."""
    loss: Comparison | None = None
    """The row's accuracy minus that of the same run's ensemble, paired."""
    settings: tuple[str, ...] = ()
    """Changes to the shipped sweep, such as `recipe.width=64`."""
    start_command: str = ""
    """The command that started the run."""
    data: str | None = None
    """Folder of the data that a run of this level must be trained on to count."""
    runs_folder: Path | None = None
    """Folder of all runs, where a run of this level must be to count."""
    seconds: float | None = None
    """Wall-clock seconds from the start of the run to its ledger."""
    code_version: str = ""
    processor: str = ""

    @property
    def verdict(self) -> str:
        """`reached`, `reached, within error`, `not reached`, or `not run`.

        `reached` requires that even the low end of every 95% interval meets the target.
        """
        if self.row is None:
            return "not run"
        values, low_ends = zip(*self._margins(), strict=True)
        if min(values) < 0:
            return "not reached"
        return "reached" if min(low_ends) >= 0 else "reached, within error"

    @property
    def command(self) -> str:
        """The command that trained this level, or would train it."""
        runs = None if self.runs_folder is None else runs_option(self.runs_folder)
        return self.start_command or command("run", self.sweep, data=self.data, runs=runs)

    def to_mapping(self) -> dict[str, object]:
        """Return plain values, ready for JSON."""
        row = self.row
        return {
            "sweep": self.sweep,
            "description": self.description,
            "target": asdict(self.target),
            "verdict": self.verdict,
            "command": self.command,
            "settings": self.settings,
            "run": None if self.run is None else self.run.name,
            "runs": self.runs,
            "dataset": self.dataset,
            "stage": None if row is None else row.stage,
            "accuracy": None if row is None else row.accuracy,
            "accuracy_interval": None if row is None else list(row.accuracy_interval),
            "gain": to_mapping(self.gain),
            "loss": to_mapping(self.loss),
            "seconds": self.seconds,
            "code_version": self.code_version,
            "processor": self.processor,
        }

    def _margins(self) -> Iterable[tuple[float, float]]:
        """Yield each condition's margin over the target, and the low end of its interval."""
        assert self.row is not None
        target = self.target
        if target.accuracy is not None:
            low = self.row.accuracy_interval[0]
            yield self.row.accuracy - target.accuracy, low - target.accuracy
        if target.over:
            yield _value_and_low_end(self.gain)
        if target.max_loss is not None:
            value, low = _value_and_low_end(self.loss)
            yield value + target.max_loss, low + target.max_loss


def ladder(
    runs: Iterable[RunFolder], *, data: str | None = None, runs_folder: Path | None = None
) -> list[Level]:
    """Return the shipped sweeps that have a target, in order, each with its latest finished run.

    With `data`, only runs trained on this folder count. `runs_folder`, where the runs are, is
    named in commands.
    """
    finished = [folder for folder in runs if (folder.ledger / "ledger.json").is_file()]
    specs = [(folder, spec_of_run(folder)) for folder in finished]
    if data is not None:
        specs = [(folder, spec) for folder, spec in specs if _is_trained_on(spec, Path(data))]
    levels: list[Level] = []
    shipped = [load_spec(name, profile="cpu") for name in shipped_names()]
    for spec in shipped:
        if spec.target is not None:
            sweeps = {spec.name, *(each.name for each in shipped if _includes(each, spec))}
            counted = [folder for folder, run_spec in specs if run_spec.name in sweeps]
            level = _level(spec, counted, earlier=levels)
            levels.append(replace(level, data=data, runs_folder=runs_folder))
    return levels


def judged(ledger: Ledger, target: TargetSpec) -> Row | None:
    """Return the row of a ledger that a target applies to."""
    stage = shipped_stage(ledger) if target.row == "student" else target.row
    return None if stage is None else row_of(ledger, stage)


def _includes(other: SweepSpec, level: SweepSpec) -> bool:
    """Return whether a run of `other` counts for `level`: same search, and at least its stages."""
    left_out = ["name", "description", "target", "deliver"]
    if level.deliver != "student":
        left_out.append("gates")  # of the student
    ours, others = ({**each.to_mapping(), **dict.fromkeys(left_out)} for each in (level, other))
    return ours == others and set(level.stages) <= set(other.stages)


def _is_trained_on(spec: SweepSpec, folder: Path) -> bool:
    path = spec.dataset.path
    return path is not None and Path(path).resolve() == folder.resolve()


def _level(spec: SweepSpec, runs: Sequence[RunFolder], *, earlier: Sequence[Level]) -> Level:
    assert spec.target is not None
    if not runs:
        return Level(sweep=spec.name, description=spec.description, target=spec.target)
    run = max(runs, key=_started_at)
    ledger = read_ledger(run.ledger / "ledger.json")
    row = judged(ledger, spec.target)
    state = read_state(run.journal)
    rival = next((level for level in earlier if level.sweep == spec.target.over), None)
    path = spec_of_run(run).dataset.path
    return Level(
        sweep=spec.name,
        description=spec.description,
        target=spec.target,
        run=run,
        runs=len(runs),
        dataset=Path(path).name if path else ledger.dataset.name,
        row=row,
        gain=_gain(run, row, rival),
        loss=_loss(run, row, seed=spec.seed),
        settings=tuple(changed_settings(requested_sweep(state))),
        start_command=start_command(state),
        seconds=ledger.compute.get("wall_seconds"),
        code_version="" if state.started is None else state.started.code_version,
        processor=str(ledger.machine.get("processor") or ""),
    )


def _gain(run: RunFolder, row: Row | None, rival: Level | None) -> Comparison | None:
    """Compare a row with the rival's on the same test images; None if they cannot be compared."""
    if row is None or rival is None or rival.run is None or rival.row is None:
        return None
    labels, log_probs = _test(run)
    rival_labels, rival_log_probs = _test(rival.run)
    if labels is None or rival_labels is None or not np.array_equal(labels, rival_labels):
        return None
    # "this" names the random stream; another word would change the interval.
    pair = {"this": log_probs[row.stage], rival.sweep: rival_log_probs[rival.row.stage]}
    return compare("this", rival.sweep, "accuracy", pair, labels, seed=0)


def _loss(run: RunFolder, row: Row | None, *, seed: int) -> Comparison | None:
    """Compare a row with its run's ensemble; None if the row is the ensemble or there is none."""
    if row is None or row.stage == "ensemble":
        return None
    labels, log_probs = _test(run)
    if labels is None or "ensemble" not in log_probs:
        return None
    return compare(row.stage, "ensemble", "accuracy", log_probs, labels, seed=seed)


def _test(run: RunFolder) -> tuple[Array | None, dict[str, Array]]:
    return read_test_predictions(run.ledger / "test_logprobs.npz")


def _started_at(run: RunFolder) -> float:
    started = read_state(run.journal).started
    return 0.0 if started is None else started.time


def _value_and_low_end(difference: Comparison | None) -> tuple[float, float]:
    """Return a difference and its interval's low end; −1 for both, a failure, if there is none."""
    return (-1.0, -1.0) if difference is None else (difference.value, difference.interval[0])
