"""The order of a run: sweep → seeds → select → distill → ledger → report.

    import pipeline
    from search.spec import load_spec

    outcome = pipeline.run(load_spec("digits"), "runs/mine", time_budget=600)
    print(outcome.ledger["rows"])

Every stage leaves its result in the run's folder and is skipped when the result is there,
so a run that was killed goes on where it stood.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.run import Observer, Run
from search.spec import SweepSpec, spec_of_run
from trainables.errors import RunError
from trainables.recipe import Recipe
from trainables.records import (
    RunFolder,
    dump_json,
    read_json,
    read_start,
    write_bytes_atomically,
    write_json_once,
)
from trainables.seeds import derive_seed

if TYPE_CHECKING:
    from ensemble.ledger import GateMargins

log = logging.getLogger(__name__)

SHARES = {"sweep": 0.55, "seeds": 0.70, "distill": 0.92}
"""By which share of the time budget a stage has to end; ledger and report have the rest."""


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
    address: str | None = None,
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> Outcome:
    """Take labelled images to a released student, a ledger and a report.

    `time_budget` is a deadline in seconds for the whole call. `resume` goes on with the
    run in `folder`, whose specification must be `spec`; `trials` may then raise the number
    of trials. `device` is `cpu`, `cuda`, or None for a GPU where there is one.

    Raises:
        QuorumError: anything that the caller can mend; what was finished stays.
    """
    with Run(
        folder, spec, resume=resume, time_budget=time_budget, device=device, observers=observers
    ) as this:
        _search(this, trials=trials, address=address)
        _select(this)
        _distill(this)
        _ledger(this)
        _register(this)
        _report(this)
        return Outcome(folder=this.folder, tracking_uri=this.tracking_uri)


def sweep(
    spec: SweepSpec,
    folder: RunFolder | str | Path,
    *,
    resume: bool = False,
    trials: int | None = None,
    time_budget: float | None = None,
    address: str | None = None,
    device: str | None = None,
    observers: Sequence[Observer] = (),
) -> RunFolder:
    """Search only, with the whole time budget. Raises as `run` does."""
    with Run(
        folder, spec, resume=resume, time_budget=time_budget, device=device, observers=observers
    ) as this:
        _search(this, trials=trials, address=address, seeds=False)
        return this.folder


def distill(
    folder: RunFolder | str | Path, *, workers: int = 1, observers: Sequence[Observer] = ()
) -> Outcome:
    """Teach another student from the run's selection, then make ledger and report again.

    The student starts from a new seed. The ledger reads test once more, and says so.
    """
    this_folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    spec = spec_of_run(this_folder)
    with Run(this_folder, spec, resume=True, observers=observers) as this:
        _select(this)
        _distill(this, workers=workers, again=True)
        _ledger(this, again=True)
        _register(this)
        _report(this)
        return Outcome(folder=this.folder, tracking_uri=this.tracking_uri)


def select_run(
    folder: RunFolder, *, members: int | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Select an ensemble from a run's pool and write selection.json.

    In the run's own folder the selection is frozen once it is written: a different one is
    refused there and goes elsewhere through `out`.
    """
    from ensemble.decision import decide
    from ensemble.pool import pool_from_run

    spec = spec_of_run(folder)
    selection = decide(pool_from_run(folder), members=members or spec.members, seed=spec.seed)
    if out is None:
        _freeze(folder, selection)
    else:
        write_bytes_atomically(out / "selection.json", dump_json(selection).encode())
    return selection


def select_pool(pool: Path, *, members: int | None = None, out: Path) -> dict[str, Any]:
    """Select an ensemble from a file of predictions and write `out`/selection.json."""
    from ensemble.decision import decide
    from ensemble.pool import load_pool

    selection = decide(load_pool(pool), members=5 if members is None else members)
    write_bytes_atomically(out / "selection.json", dump_json(selection).encode())
    return selection


def report(folder: RunFolder) -> Path:
    """Draw the figures and typeset report.pdf from what the run's folder holds."""
    from analysis.report import build_report

    return build_report(folder.require())


def _search(this: Run, *, trials: int | None, address: str | None, seeds: bool = True) -> None:
    """The sweep and, unless only that is wanted, seeds of its best configuration."""
    if this.folder.selection.exists():
        this.skip("sweep")
        this.skip("seeds")
        return
    from search.session import ray_session
    from search.sweep import run_seeds, run_sweep

    common: dict[str, Any] = {
        "images": this.images,
        "splits": this.splits,
        "numerics": this.numerics,
        "on_event": this.tell,
    }
    with ray_session(address=address, folder=this.folder.root):
        with this.stage("sweep", trials=trials or this.spec.trials):
            deadline = this.deadline(SHARES["sweep"] if seeds else 1.0)
            run_sweep(
                this.spec, this.folder, this.journal, trials=trials, deadline=deadline, **common
            )
        if not seeds:
            return
        with this.stage("seeds"):
            run_seeds(
                this.spec,
                this.folder,
                this.journal,
                recipe=best_recipe(this.folder),
                count=this.spec.members,
                deadline=this.deadline(SHARES["seeds"]),
                **common,
            )


def best_recipe(folder: RunFolder) -> Recipe:
    """The searched configuration with the lowest val NLL at the highest rung reached.

    Raises:
        RunError: no trial was scored at any rung.
    """
    scored = [
        (-record.rung, record.metrics["val_nll"], record.trial)
        for record in folder.records()
        if record.kind == "search" and record.rung is not None and record.status != "failed"
    ]
    if not scored:
        raise RunError(
            f"{folder.root}: no trial was scored; see `quorum status` for the reasons, "
            "or give the sweep more time"
        )
    return read_start(folder.trial(min(scored)[2]) / "start.json").recipe


def _select(this: Run) -> None:
    if this.folder.selection.exists():
        this.skip("select")
        return
    with this.stage("select"):
        selection = select_run(this.folder)
        this.emit(
            {
                "event": "result",
                "kind": "ensemble",
                "params": {
                    "members": ", ".join(member["name"] for member in selection["members"]),
                    "weighting": selection["weighting"],
                    "temperature": selection["temperature"],
                },
                "metrics": {
                    **{f"holdout_{k}": v for k, v in selection["metrics"]["holdout"].items()},
                    "gap_support": selection["gap_support"],
                    "gap_pool": selection["gap_pool"],
                },
                "folder": None,
            }
        )


def _distill(this: Run, *, workers: int = 1, again: bool = False) -> None:
    """Train the student and its twin without a teacher; decide on holdout which file ships."""
    folder = this.folder.student
    if (folder / "card.json").exists() and not again:
        this.skip("distill")
        return
    from ensemble import judging, release, teaching
    from search.session import usable_cores
    from trainables.losses import Distillation

    with this.stage("distill") as progress, _trainers(this, workers) as train:
        earlier = this.count("stage", stage="distill", status="finished")
        if again and folder.exists():
            folder.rename(folder.with_name(f"student.{earlier}"))
        teaching.make_students(
            this.folder,
            this.spec.student_recipe(),
            distillation=Distillation(alpha=this.spec.student.alpha, tau=this.spec.student.tau),
            images=this.images,
            splits=this.splits,
            seed=derive_seed(this.spec.seed, "student", earlier),
            numerics=this.probe(threads=max(1, usable_cores() // workers)),
            deadline=this.deadline(SHARES["distill"]),
            progress=progress,
            train=train,
        )
        card = release.decide_release(
            folder,
            judging.holdout_predictions(this.folder, this.images, this.splits),
            _margins(this),
            seed=this.spec.seed,
        )
        this.emit(
            {
                "event": "result",
                "kind": f"student_{card.released}",
                "params": {"released": card.released, "because": card.released_because},
                "metrics": {"bytes": card.shipped.bytes, "temperature": card.shipped.temperature},
                "folder": str(folder.relative_to(this.folder.root)),
            }
        )


@contextmanager
def _trainers(this: Run, workers: int) -> Iterator[Callable[..., Any]]:
    """What trains a student: this process, or several workers of a Ray of their own."""
    from ensemble.student import distil

    if workers <= 1:
        yield distil
        return
    from ensemble.distributed import distil_distributed
    from search.session import ray_session

    store = max(100_000_000, 2 * this.images.images.nbytes)
    with ray_session(folder=this.folder.root, object_store_bytes=store):
        yield functools.partial(distil_distributed, workers=workers)


def _ledger(this: Run, *, again: bool = False) -> None:
    """Read test, once: predictions of every row, the table, the gates."""
    folder = this.folder.ledger
    if (folder / "ledger.json").exists() and not again:
        this.skip("ledger")
        return
    from ensemble import judging

    with this.stage("ledger") as progress:
        facts = judging.stage_facts(this.folder, this.images, this.splits)
        progress(0.3, "reading test")
        this.emit({"event": "test_read"})
        ledger = judging.write_ledger(
            this.folder,
            this.images,
            this.splits,
            this.numerics,
            facts=facts,
            margins=_margins(this),
            test_reads=this.count("test_read"),
            compute=_compute(this),
            seed=this.spec.seed,
            progress=progress,
        )
        this.emit(
            {
                "event": "result",
                "kind": "ledger",
                "params": {"released": ledger["released"], "test_reads": ledger["test_reads"]},
                "metrics": {
                    f"{row['stage']}_test_{metric}": row[metric]
                    for row in ledger["rows"]
                    for metric in ("accuracy", "nll", "ece")
                },
                "folder": folder.name,
            }
        )


def _margins(this: Run) -> "GateMargins":
    from ensemble.ledger import GateMargins

    return GateMargins(**dataclasses.asdict(this.spec.gates))


def _register(this: Run) -> None:
    """Put the student that ships into MLflow's registry; a registry that fails stops nothing."""
    from ensemble import judging
    from ensemble.card import read_card
    from search.registry import Release, register_student

    card = read_card(this.folder.student)
    model = this.folder.student / card.shipped.file
    stage = f"student_{card.released}"
    rows = {row["stage"]: row for row in read_json(this.folder.ledger / "ledger.json")["rows"]}
    release = Release(
        model=model,
        image_size=card.image_size,
        class_names=card.class_names,
        passed_gates=card.released == "int8",
        stage=stage,
        row=rows[stage],
    )

    def beats(champion: Path) -> bool:
        return judging.beats(model, champion, this.images, this.splits, seed=this.spec.seed)

    try:
        registration = register_student(this.folder, release, beats_champion=beats)
    except RunError as error:
        log.warning("%s", error)
        return
    this.emit(
        {
            "event": "registered",
            "name": registration.name,
            "version": registration.version,
            "alias": registration.alias,
            "reason": registration.reason,
        }
    )


def _report(this: Run) -> None:
    with this.stage("report"):
        report(this.folder)


def _compute(this: Run) -> dict[str, Any]:
    """What the run has cost so far, in seconds of training and of wall-clock."""
    seconds = {"search": 0.0, "seed": 0.0}
    for record in this.folder.records():
        seconds[record.kind] += record.seconds
    return {
        "trials": sum(1 for record in this.folder.records() if record.kind == "search"),
        "search_seconds": seconds["search"],
        "seeds_seconds": seconds["seed"],
        "wall_seconds": time.time() - this.began,
    }


def _freeze(folder: RunFolder, selection: Mapping[str, Any]) -> None:
    """Write the run's selection, once."""
    try:
        write_json_once(folder.selection, selection)
    except RunError:
        raise RunError(
            f"{folder.selection} is frozen, and this selection differs from it; "
            "write it elsewhere with --out DIR"
        ) from None
