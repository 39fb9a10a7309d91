"""The ladder: what the levels of the reference problem ask for, and what runs have reached.

Every shipped sweep `level1` … `level5` has a target. A level's row is read from the ledger of
a finished run of that sweep: nothing is trained, and test is not read again.

Axes: N examples of test, K classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from analysis.facts.asked import command_asked, settings_asked
from analysis.facts.run_facts import Array, test_predictions
from analysis.text.wording import Ledger, Row, row_of, shipped_stage
from common.files import read_json
from common.parsing import to_mapping
from ensemble.selection.comparison import Comparison, compare
from journal.journal import read_events
from search.space.spec import SweepSpec, TargetSpec, load_spec, shipped_names, spec_of_run
from trainables.records import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One level: its target and, once a run has come to its ledger, what was reached."""

    sweep: str
    """Name of the shipped sweep."""
    description: str
    target: TargetSpec
    run: RunFolder | None = None
    """The run that is judged: of several the latest, not the best, which would be a choice
    made on test."""
    runs: int = 0
    """How many finished runs of this sweep there are."""
    dataset: str = ""
    """Name of the folder or data set that it was trained on."""
    row: Row | None = None
    """The ledger's row that is judged."""
    gain: Row | None = None
    """Its paired difference in accuracy from the level it must be better than."""
    loss: Row | None = None
    """Its paired difference in accuracy from its own run's ensemble."""
    settings: tuple[str, ...] = ()
    """What was changed of the shipped sweep, such as `recipe.width=64`."""
    asked: str = ""
    """The command that the run was started with."""
    seconds: float | None = None
    """Wall-clock seconds from the start of the run to its ledger."""
    code_version: str = ""
    processor: str = ""

    @property
    def verdict(self) -> str:
        """`reached`, `reached, within error`, `not reached`, or `not run`.

        The first is for a target that the whole of every 95% interval keeps.
        """
        if self.row is None:
            return "not run"
        points, bounds = zip(*self._margins(), strict=True)
        if min(points) < 0:
            return "not reached"
        return "reached" if min(bounds) >= 0 else "reached, within error"

    @property
    def command(self) -> str:
        """What trained this level, or would."""
        return self.asked or f"quorum run {self.sweep}"

    def to_mapping(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        interval = None if self.row is None else self.row["accuracy_interval"]
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
            "stage": None if self.row is None else self.row["stage"],
            "accuracy": None if self.row is None else self.row["accuracy"],
            "accuracy_interval": interval,
            "gain": self.gain,
            "loss": self.loss,
            "seconds": self.seconds,
            "code_version": self.code_version,
            "processor": self.processor,
        }

    def _margins(self) -> Iterable[tuple[float, float]]:
        """By how much each part of the target is kept: the value, and its interval's low end."""
        assert self.row is not None
        target = self.target
        if target.accuracy is not None:
            low = self.row["accuracy_interval"][0]
            yield self.row["accuracy"] - target.accuracy, low - target.accuracy
        if target.over:
            # Without the other run there is nothing that could be called a gain.
            yield _low_end(self.gain)
        if target.max_loss is not None:
            value, low = _low_end(self.loss)
            yield value + target.max_loss, low + target.max_loss


def ladder(runs: Iterable[RunFolder], *, data: str | None = None) -> list[Rung]:
    """The shipped sweeps that have a target, in order, each with its latest finished run.

    `data` counts only runs that were trained on this folder.
    """
    finished = [folder for folder in runs if (folder.ledger / "ledger.json").is_file()]
    specs = [(folder, spec_of_run(folder)) for folder in finished]
    if data is not None:
        wanted = Path(data).resolve()
        paths = ((folder, spec, spec.dataset.path) for folder, spec in specs)
        specs = [(f, s) for f, s, path in paths if path and Path(path).resolve() == wanted]
    rungs: list[Rung] = []
    for name in shipped_names():
        spec = load_spec(name, profile="cpu")
        if spec.target is not None:
            own = [folder for folder, found in specs if found.name == name]
            rungs.append(_rung(spec, own, earlier=rungs))
    return rungs


def judged(ledger: Ledger, target: TargetSpec) -> Row | None:
    """The row of a ledger that a target asks about."""
    stage = shipped_stage(ledger) if target.row == "student" else target.row
    return None if stage is None else row_of(ledger, stage)


def _rung(spec: SweepSpec, runs: Sequence[RunFolder], *, earlier: Sequence[Rung]) -> Rung:
    assert spec.target is not None
    empty = Rung(sweep=spec.name, description=spec.description, target=spec.target)
    if not runs:
        return empty
    run = max(runs, key=_begun)
    ledger = read_json(run.ledger / "ledger.json")
    row = judged(ledger, spec.target)
    events = list(read_events(run.journal))
    started = next((event for event in events if event["event"] == "run_started"), {})
    rival = next((rung for rung in earlier if rung.sweep == spec.target.over), None)
    path = spec_of_run(run).dataset.path
    return Rung(
        sweep=spec.name,
        description=spec.description,
        target=spec.target,
        run=run,
        runs=len(runs),
        dataset=Path(path).name if path else str(ledger["dataset"]["name"]),
        row=row,
        gain=_gain(run, row, rival),
        loss=_loss(run, row, seed=spec.seed),
        settings=tuple(settings_asked(started.get("asked") or {})),
        asked=command_asked(events),
        seconds=ledger["compute"].get("wall_seconds"),
        code_version=str(started.get("code_version") or ""),
        processor=str(ledger["machine"].get("processor") or ""),
    )


def _gain(run: RunFolder, row: Row | None, rival: Rung | None) -> Row | None:
    """Row less the rival's row on the same test images; None where there is no such rival."""
    if row is None or rival is None or rival.run is None or rival.row is None:
        return None
    labels, ours = _test(run)
    rivals, theirs = _test(rival.run)
    if labels is None or rivals is None or not np.array_equal(labels, rivals):
        return None
    pair = {"this": ours[row["stage"]], rival.sweep: theirs[rival.row["stage"]]}
    return _as_row(compare("this", rival.sweep, "accuracy", pair, labels, seed=0))


def _loss(run: RunFolder, row: Row | None, *, seed: int) -> Row | None:
    if row is None or row["stage"] == "ensemble":
        return None
    labels, test = _test(run)
    if labels is None or "ensemble" not in test:
        return None
    return _as_row(compare(row["stage"], "ensemble", "accuracy", test, labels, seed=seed))


def _as_row(comparison: Comparison) -> Row:
    row: Row = to_mapping(comparison)
    return row


def _test(run: RunFolder) -> tuple[Array | None, dict[str, Array]]:
    return test_predictions(run.ledger / "test_logprobs.npz")


def _begun(run: RunFolder) -> float:
    return next((float(event["time"]) for event in read_events(run.journal)), 0.0)


def _low_end(difference: Row | None) -> tuple[float, float]:
    """A difference and its interval's low end; of one that cannot be told, the worst."""
    return (-1.0, -1.0) if difference is None else (difference["value"], difference["interval"][0])
