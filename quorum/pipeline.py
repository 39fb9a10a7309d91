"""The order of a run: sweep → seeds → select → distill → ledger → report.

    from quorum import pipeline
    from search.space.spec import load_spec

    outcome = pipeline.run(load_spec("digits"), "runs/mine", time_budget=600)
    print(outcome.ledger["rows"])

Every stage leaves its result in the run's folder and is skipped when the result is there,
so a run that was killed goes on where it stood.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import dump_json, read_json, write_bytes_atomically
from common.parsing import to_mapping
from journal.journal import Observer, read_events
from quorum import stages
from quorum.stages import select_run
from quorum.workspace.checks import require_same_weights
from quorum.workspace.run import Run
from search.space.spec import SweepSpec, spec_of_run
from trainables.data.dataset import load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import make_splits
from trainables.records import RunFolder

if TYPE_CHECKING:
    from ensemble.selection.selection import Selection
    from trainables.replay import Replay
    from trainables.trainer import EpochReport

__all__ = [
    "Outcome",
    "ablate",
    "distill",
    "replay",
    "report",
    "run",
    "select_pool",
    "select_run",
    "sweep",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a whole run leaves."""

    folder: RunFolder
    tracking_uri: str

    @property
    def ledger(self) -> dict[str, Any]:
        """The ledger, as in ledger.json."""
        return read_json(self.folder.ledger / "ledger.json")


def run(
    spec: SweepSpec,
    folder: RunFolder | str | Path,
    *,
    resume: bool = False,
    trials: int | None = None,
    time_budget: float | None = None,
    began: float | None = None,
    address: str | None = None,
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> Outcome:
    """Take labelled images to a released student, a ledger and a report.

    `time_budget` is a deadline in seconds for the whole call, or since `began` (unix
    seconds). Schedules are then as long, and trials as many, as it allows
    (search/timetable/plan.py); `trials` bounds
    their number. `resume` goes on with the run in `folder`, whose
    specification must be `spec`; `trials` may then raise the number of trials. `device` is
    `cpu`, `cuda`, or None for a GPU where there is one.

    Raises:
        QuorumError: anything that the caller can mend; what was finished stays.
    """
    with Run(
        folder,
        spec,
        resume=resume,
        time_budget=time_budget,
        began=began,
        address=address,
        device=device,
        observers=observers,
    ) as this:
        stages.sweep_and_seeds(this, trials=trials, address=address)
        stages.select(this)
        stages.distill(this)
        stages.ledger(this)
        stages.register(this)
        _report(this)
        return Outcome(folder=this.folder, tracking_uri=this.tracking_uri)


def sweep(
    spec: SweepSpec,
    folder: RunFolder | str | Path,
    *,
    resume: bool = False,
    trials: int | None = None,
    time_budget: float | None = None,
    began: float | None = None,
    address: str | None = None,
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> RunFolder:
    """Search only, with the whole time budget. Raises as `run` does."""
    with Run(
        folder,
        spec,
        resume=resume,
        stages=("sweep",),
        time_budget=time_budget,
        began=began,
        address=address,
        device=device,
        observers=observers,
    ) as this:
        stages.sweep_and_seeds(this, trials=trials, address=address, seeds=False)
        return this.folder


def distill(
    folder: RunFolder | str | Path, *, workers: int = 1, observers: Sequence[Observer] = ()
) -> Outcome:
    """Teach another student from the run's selection, then make ledger and report again.

    The student starts from a new seed. The ledger reads test once more, and says so.
    """
    this_folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    spec = spec_of_run(this_folder)
    with Run(this_folder, spec, resume=True, stages=("distill",), observers=observers) as this:
        stages.select(this)
        stages.distill(this, workers=workers, again=True)
        stages.ledger(this, again=True)
        stages.register(this)
        _report(this)
        return Outcome(folder=this.folder, tracking_uri=this.tracking_uri)


def ablate(
    spec: SweepSpec,
    folder: RunFolder | str | Path,
    *,
    of: RunFolder | None = None,
    factors: Sequence[str] | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    resume: bool = False,
    time_budget: float | None = None,
    began: float | None = None,
    address: str | None = None,
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> dict[str, Any]:
    """Train a recipe without each of its factors in turn; what each is worth on holdout.

    The recipe is the one that all trials of `spec` start from, or the best of the run `of`.
    Every variant is trained from the same `seeds` (5), for `epochs` (the recipe's own), or
    fewer where `time_budget` says so; none is stopped early. `factors` (all of the recipe's)
    are names of search/ablation/factors.py. Returns the mapping of ablation.json, which is left in
    `folder` with ablation.csv and figures/ablation.png. With `resume`, what was begun in
    `folder` goes on, and only `seeds` may be more. Else as `run`.

    Raises:
        QuorumError: anything that the caller can mend; what was finished stays.
    """
    from analysis.facts.ablation import ablation_event, write_ablation
    from analysis.figures.ablation import save_ablation_figure
    from search.ablation.ablation import factors_path
    from search.ablation.variants import ABLATION_STAGES, asked_for, begun_in, plan_variants

    home = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    if resume and factors_path(home).exists():
        ablation, asked = begun_in(home, seeds=seeds)
    else:
        ablation, asked = asked_for(spec, of=of, factors=factors, seeds=seeds, epochs=epochs)
    with Run(
        home,
        asked,
        resume=resume,
        stages=ABLATION_STAGES,
        time_budget=time_budget,
        began=began,
        address=address,
        device=device,
        observers=observers,
        planner=partial(plan_variants, ablation=ablation, trials=ablation.left(home)),
    ) as this:
        ablation.write(this.folder)
        stages.train_variants(this, ablation, address=address)
        with this.stage("report"):
            result = write_ablation(this.folder, ablation, this.spec.base_recipe())
            save_ablation_figure(result, this.folder.figures / "ablation.png")
            this.emit(ablation_event(result))
        return result


def replay(
    folder: RunFolder | str | Path,
    trial: str,
    *,
    on_report: "Callable[[EpochReport], None]" = lambda _: None,
) -> "Replay":
    """Train a trial again from its record and compare; nothing of the run is touched.

    Raises:
        QuorumError: there is no such trial, or its data or weights are gone or others.
    """
    from trainables.replay import replay as train_again

    this_folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    spec = spec_of_run(this_folder.require())
    require_same_weights(this_folder, list(read_events(this_folder.journal)), spec)
    images = load_dataset(spec.dataset)
    splits = make_splits(images, spec.splits)
    return train_again(this_folder, trial, images=images, splits=splits, on_report=on_report)


def select_pool(pool: Path, *, members: int | None = None, out: Path) -> "Selection":
    """Select an ensemble from a file of predictions and write `out`/selection.json."""
    from ensemble.selection.decision import select_ensemble
    from ensemble.selection.pool_file import load_pool

    selection = select_ensemble(load_pool(pool), members=5 if members is None else members)
    write_bytes_atomically(out / "selection.json", dump_json(to_mapping(selection)).encode())
    return selection


def report(
    folder: RunFolder, images: ImageSet | None = None, *, pictures: bool | None = None
) -> Path:
    """Draw the figures and typeset report.pdf from what the run's folder holds.

    `images` are the run's; without them they are loaded, if they are still there.
    `pictures` says whether images of the data set may be shown; None asks the specification.
    """
    from analysis.report.build import build_report

    return build_report(folder.require(), images, pictures=pictures)


def _report(this: Run) -> None:
    with this.stage("report"):
        report(this.folder, this.images, pictures=this.spec.pictures)
