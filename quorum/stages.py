"""The stages of a run: what each does, and where it leaves its result.

Every stage is skipped when its result is there, so a run that was killed goes on where it
stood. The order is `pipeline`'s. Imports stand inside the functions: a run that only
selects needs neither Ray nor torch.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import RunError
from common.files import dump_json, write_bytes_atomically, write_json_once
from common.parsing import to_mapping
from common.seeds import derive_seed
from quorum.workspace.run import Run
from search.space.spec import spec_of_run
from trainables.records import RunFolder

if TYPE_CHECKING:
    from ensemble.deployment.gates import GateMargins
    from ensemble.selection.selection import Selection
    from search.ablation.ablation import Ablation

log = logging.getLogger(__name__)

UNBOUNDED = 1_000_000
"""More trials than any time budget has room for."""

GRACE = 0.3
"""A stage that its forecast deceived may take this share of the next one's time."""


def sweep_and_seeds(
    this: Run, *, trials: int | None, address: str | None, seeds: bool = True
) -> None:
    """The sweep and, unless only that is wanted, seeds of its best configuration."""
    if this.folder.selection.exists():
        this.skip("sweep")
        this.skip("seeds")
        return
    from quorum.seeds import planned_seeds
    from search.tune.session import ray_session
    from search.tune.sweep import run_fixed, run_sweep

    with ray_session(address=address, folder=this.folder.root):
        trials = _most_trials(this, trials)
        with this.stage("sweep", trials=trials):
            run_sweep(
                this.spec,
                this.folder,
                this.journal,
                trials=trials or UNBOUNDED,
                deadline=this.end_of("sweep"),
                latest=_latest(this, "sweep", "seeds"),
                **_common(this),
            )
        if seeds and _wanted(this, "seeds"):
            with this.stage("seeds"):
                wanted = planned_seeds(this, deadline=_latest(this, "seeds", "distill"))
                run_fixed(this.spec, this.folder, this.journal, fixed=wanted, **_common(this))


def train_variants(this: Run, ablation: "Ablation", *, address: str | None) -> None:
    """Those trainings of an ablation that are left."""
    if not ablation.left(this.folder):
        this.skip("sweep")
        return
    from search.ablation.variants import Variants
    from search.tune.session import ray_session
    from search.tune.sweep import run_fixed

    recipe, end = this.spec.base_recipe(), this.end_of("sweep")
    variants = Variants(ablation=ablation, recipe=recipe, deadline=end)
    with (
        ray_session(address=address, folder=this.folder.root),
        this.stage("sweep", trials=ablation.trials),
    ):
        run_fixed(this.spec, this.folder, this.journal, fixed=variants, **_common(this))


def _common(this: Run) -> dict[str, Any]:
    return {
        "images": this.images,
        "splits": this.splits,
        "numerics": this.numerics,
        "on_event": this.tell,
    }


def _most_trials(this: Run, trials: int | None) -> int | None:
    """How many trials there may be in all; None where the time alone bounds them."""
    return trials or (this.spec.trials if this.deadline is None else None)


def _latest(this: Run, stage: str, following: str) -> float | None:
    """When a stage is cut off."""
    end = this.end_of(stage)
    return None if end is None or this.plan is None else end + GRACE * this.plan.seconds[following]


def select_run(
    folder: RunFolder, *, members: int | None = None, out: Path | None = None
) -> "Selection":
    """Select an ensemble from a run's pool and write selection.json.

    In the run's own folder the selection is frozen once it is written: a different one is
    refused there and goes elsewhere through `out`.
    """
    from ensemble.selection.decision import select_ensemble
    from ensemble.selection.run_pool import pool_from_run

    spec = spec_of_run(folder)
    selection = select_ensemble(
        pool_from_run(folder), members=members or spec.most_members, seed=spec.seed
    )
    if out is None:
        _freeze(folder, to_mapping(selection))
    else:
        write_bytes_atomically(out / "selection.json", dump_json(to_mapping(selection)).encode())
    return selection


def select(this: Run) -> None:
    """Freeze the ensemble that holdout speaks for."""
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
                    "members": ", ".join(member.name for member in selection.members),
                    "weighting": selection.weighting,
                    "temperature": selection.temperature,
                },
                "metrics": {
                    **{
                        f"holdout_{metric}": value
                        for metric, value in to_mapping(selection.metrics.holdout).items()
                    },
                    "gap_support": selection.gap_support,
                    "gap_pool": selection.gap_pool,
                },
                "folder": None,
            }
        )


def distill(this: Run, *, workers: int = 1, again: bool = False) -> None:
    """Train the student and its twin without a teacher; decide on holdout which file ships."""
    if not again and not _wanted(this, "distill"):
        return
    folder = this.folder.student
    if (folder / "card.json").exists() and not again:
        this.skip("distill")
        return
    from common.cpu_runtime import usable_cores
    from ensemble.deployment.release import decide_release
    from ensemble.evaluation.stages import holdout_predictions
    from ensemble.student.students import train_students
    from trainables.training.losses import Distillation

    with this.stage("distill") as progress, _trainers(this, workers) as train:
        end = this.end_of("distill")
        earlier = this.count("stage", stage="distill", status="finished")
        if again and folder.exists():
            folder.rename(folder.with_name(f"student.{earlier}"))
        train_students(
            this.folder,
            this.spec.student_recipe(),
            distillation=Distillation(alpha=this.spec.student.alpha, tau=this.spec.student.tau),
            images=this.images,
            splits=this.splits,
            seed=derive_seed(this.spec.seed, "student", earlier),
            numerics=this.probe(threads=max(1, usable_cores() // workers)),
            deadline=None if end is None or this.plan is None else end - this.plan.export_seconds,
            progress=progress,
            train=train,
        )
        card = decide_release(
            folder,
            holdout_predictions(this.folder, this.images, this.splits),
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
    from ensemble.student.distillation import distill

    if workers <= 1:
        yield distill
        return
    from ensemble.student.distributed import distill_distributed
    from search.tune.session import ray_session

    store = max(100_000_000, 2 * this.images.images.nbytes)
    with ray_session(folder=this.folder.root, object_store_bytes=store):
        yield functools.partial(distill_distributed, workers=workers)


def ledger(this: Run, *, again: bool = False) -> None:
    """Read test, once: predictions of every row, the table, the gates."""
    folder = this.folder.ledger
    if (folder / "ledger.json").exists() and not again:
        this.skip("ledger")
        return
    from common.cpu_runtime import usable_cores
    from ensemble.evaluation.ledger_writer import write_ledger
    from ensemble.evaluation.stages import stage_costs

    with this.stage("ledger") as progress:
        costs = stage_costs(this.folder, this.images, this.splits)
        progress(0.3, "reading test")
        this.emit({"event": "test_read"})
        ledger = write_ledger(
            this.folder,
            this.images,
            this.splits,
            dataclasses.replace(this.numerics, threads=usable_cores()),
            costs=costs,
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
                "params": {"released": ledger.released, "test_reads": ledger.test_reads},
                "metrics": {
                    f"{row.stage}_test_{metric}": getattr(row, metric)
                    for row in ledger.rows
                    for metric in ("accuracy", "nll", "ece")
                },
                "folder": folder.name,
            }
        )


def _margins(this: Run) -> "GateMargins":
    from ensemble.deployment.gates import GateMargins

    return GateMargins(**dataclasses.asdict(this.spec.gates))


def register(this: Run) -> None:
    """Put the student that ships into MLflow's registry; a registry that fails stops nothing."""
    if not (this.folder.student / "card.json").exists():
        return
    from ensemble.deployment.card import read_card
    from ensemble.deployment.release import beats_champion
    from ensemble.ledger.ledger import read_ledger
    from search.mlflow.registry import Release, register_student

    card = read_card(this.folder.student)
    model = this.folder.student / card.shipped.file
    stage = f"student_{card.released}"
    row = read_ledger(this.folder.ledger / "ledger.json").row(stage)
    release = Release(
        model=model,
        image_size=card.image_size,
        class_names=card.class_names,
        passed_gates=card.released == "int8",
        stage=stage,
        row=to_mapping(row),
    )

    def beats(champion: Path) -> bool:
        return beats_champion(model, champion, this.images, this.splits, seed=this.spec.seed)

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


def _wanted(this: Run, stage: str) -> bool:
    """Whether the run has this stage; if not, that is announced."""
    wanted = stage in this.spec.stages
    if not wanted:
        this.skip(stage, f"the run delivers: {this.spec.deliver}")
    return wanted


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
