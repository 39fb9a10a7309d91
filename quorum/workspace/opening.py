"""Open a run: check it, read its data, plan it, lock its folder, open its journal.

The stages `data` and `probe` come before the journal is open, so that a run that fails in them
leaves no folder. They are reported to the observers only.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.cpu_runtime import share_arena, wait_passively
from common.errors import RunError
from common.files import write_bytes_atomically
from common.provenance import code_version, machine_description
from common.telemetry import disable_telemetry
from journal.emitter import Emitter, Observer, notify
from journal.events import STAGES, RunResumed, StageReported
from journal.journal import Journal
from quorum.workspace.checks import (
    require_other_data,
    require_same_split,
    require_same_weights,
    require_unseen_splits,
    seeds_left_out,
    spec_to_resume,
    stages_left,
    started_event,
    write_labels,
)
from quorum.workspace.mlflow_view import connect_described
from quorum.workspace.run import Run, RunData
from search.mlflow.mirror import MlflowMirror
from search.space.available_families import with_available_families
from search.space.paths import with_absolute_paths
from search.space.spec import SweepSpec
from search.space.sweep_files import spec_of_run
from search.timetable.measuring import Setup
from search.timetable.plan import Plan
from search.timetable.planner import Planner, make_plan, plan_or_shrink
from search.timetable.site import Site, ThisMachine, trials_at_a_time
from trainables.data.dataset import DatasetSpec, load_dataset, resolve_dataset
from trainables.data.splits import make_splits, notes_on
from trainables.records import RunFolder

log = logging.getLogger(__name__)


@contextmanager
def open_run(
    folder: RunFolder | str | Path,
    spec: SweepSpec,
    *,
    resume: bool = False,
    stages: Collection[str] | None = None,
    time_budget: float | None = None,
    began: float | None = None,
    address: str | None = None,
    device: str | None = None,
    workers: int | None = None,
    observers: Sequence[Observer] = (),
    mirrored: bool = True,
    settings: Sequence[Mapping[str, Any]] = (),
    planner: Planner = make_plan,
    clock: Callable[[], float] = time.time,
) -> Iterator[Run]:
    """Open a new run, or resume the one in `folder`, until the end of the block.

    `stages` are the stages that will run, by default all that the specification needs.
    `time_budget` is in seconds from `began` (unix seconds; by default now). `address` is the Ray
    cluster's, which this process joins until the end of the block; `workers` is the largest number
    of concurrent trials. `device` is `cpu`, `cuda`, or None for a GPU if there is one. If not
    `mirrored`, MLflow shows nothing of the run before a sync. `settings` are the changes that
    options made to the sweep's file, for the record. `planner` replaces `make_plan`.

    Raises:
        DataError: the data cannot be used; no folder is made then.
        SpecError: the time budget is too short for anything.
        RunError: the folder holds another run, another process is using it, or there is no cluster
            at `address`.
    """
    disable_telemetry()
    wait_passively()
    share_arena()
    spec = with_absolute_paths(spec)
    root = folder.root if isinstance(folder, RunFolder) else Path(folder)
    # Absolute: Ray is started from within the folder, while other threads write to it.
    home = RunFolder(root.absolute())
    began = began or clock()
    deadline = None if time_budget is None else began + time_budget
    resumed = home.sweep.exists()
    if resumed and not resume:
        raise RunError(f"{home.root} holds a run; resume it, or choose another folder")
    with site_at(address) as site, ExitStack() as stack:
        preparation = _Preparation(
            folder=home,
            asked=spec,
            resumed=resumed,
            stages=tuple(spec.stages if stages is None else stages),
            began=began,
            deadline=deadline,
            site=site,
            device=device,
            workers=workers,
            observers=observers,
            planner=planner,
            clock=clock,
        )
        prepared = preparation.prepare()
        data = prepared.data
        require_unseen_splits(data.spec, data.images, data.splits)
        _log_notes(prepared)
        home.root.mkdir(parents=True, exist_ok=True)
        journal = stack.enter_context(Journal(home.journal, clock=clock))
        _check(journal, prepared)
        if not home.sweep.exists():
            write_bytes_atomically(home.sweep, prepared.data.spec.to_yaml().encode())
        write_labels(home, prepared.data.images, prepared.data.splits)
        mirror = stack.enter_context(MlflowMirror(home, connect=connect_described))
        emitter = Emitter(journal, [*observers, *([mirror.handle] if mirrored else [])])
        _announce(
            emitter,
            prepared,
            asked=spec,
            settings=settings,
            address=address,
            time_budget=time_budget,
        )
        yield Run(
            prepared.data,
            emitter,
            plan=prepared.plan,
            began=began,
            deadline=deadline,
            tracking_uri=mirror.uri,
            workers=workers,
        )


@contextmanager
def site_at(address: str | None) -> Iterator[Site]:
    """Yield the place where trials run; join the cluster at `address`, if any.

    Raises:
        RunError: there is no cluster.
    """
    if address is None:
        yield ThisMachine()
        return
    from search.tune.cluster_site import joined  # imports Ray

    with joined(address) as site:
        yield site


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """The data and the plan of a run whose journal is not open yet."""

    data: RunData
    plan: Plan | None
    stages: tuple[str, ...]
    """Stages whose result is missing."""
    families_left_out: tuple[str, ...] = ()
    """Notes on the sweep's families that a new run does not search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Preparation:
    """Reads the data, measures the machine and plans; reports to the observers only."""

    folder: RunFolder
    asked: SweepSpec
    resumed: bool
    stages: tuple[str, ...]
    began: float
    deadline: float | None
    site: Site
    device: str | None
    workers: int | None
    observers: Sequence[Observer]
    planner: Planner
    clock: Callable[[], float]

    def prepare(self) -> _Prepared:
        """Return the data and the plan; the plan is None if nothing is left that needs one."""
        if "ledger" in self.stages:
            require_other_data(self.asked)
        spec, left_out = (
            (spec_to_resume(self.folder, self.asked), ())
            if self.resumed
            else with_available_families(self.asked)
        )
        if self.deadline is None and not self.resumed:
            for warning in spec.warnings:
                log.warning("%s", warning)
        data = self._read(
            spec,
            None
            if self.resumed
            else resolve_dataset(spec.dataset, affordable=spec.largest_input, crops=spec.crops),
        )
        stages = tuple(stages_left(self.folder, self.stages))
        if not stages or (self.deadline is None and (self.resumed or "sweep" not in stages)):
            return _Prepared(data=data, plan=None, stages=stages, families_left_out=left_out)

        def shrink(side: int) -> None:
            nonlocal data
            data = self._read(
                spec, resolve_dataset(self.asked.dataset, affordable=side, crops=spec.crops)
            )

        # A resumed run keeps its schedules. If seeds were left out to lengthen them, none are now.
        no_seeds = self.resumed and "sweep" in stages and seeds_left_out(self.folder)
        planned_stages = [stage for stage in stages if not (no_seeds and stage == "seeds")]
        plan = plan_or_shrink(
            lambda: self._plan(data, planned_stages),
            shrink,
            image_size=data.images.image_size,
            # With `resource: compute`, epochs become a part of a pass instead of images smaller.
            keep_size=self.resumed
            or self.asked.dataset.image_size is not None
            or spec.resource == "compute",
            spent=lambda: self.clock() - self.began,
        )
        planned = self.deadline is not None or spec.resource == "compute"
        if planned and not self.resumed:
            data = replace(data, spec=plan.apply_to(data.spec))
        return _Prepared(data=data, plan=plan, stages=stages, families_left_out=left_out)

    def _read(self, spec: SweepSpec, dataset: DatasetSpec | None) -> RunData:
        """Read the images of `dataset`, by default the specification's, and split them."""
        if dataset is not None:
            spec = spec.with_values(dataset=dataset)
        with self._reporting("data") as progress:
            images = load_dataset(spec.dataset, progress=progress)
            return RunData(
                folder=self.folder,
                spec=spec,
                images=images,
                splits=make_splits(images, spec.splits),
                device=self.device,
                site=self.site,
            )

    def _plan(self, data: RunData, stages: Collection[str]) -> Plan:
        with self._reporting("probe"):
            return self.planner(
                data.spec,
                self._setup(data),
                clock=self.clock,
                deadline=self.deadline,
                stages=stages,
                keep_rungs=self.resumed,
            )

    def _setup(self, data: RunData) -> Setup:
        """Return the data and the machines that the plan is made for."""
        numerics = data.numerics
        in_all, on_one = trials_at_a_time(
            self.site, numerics, most=self.workers or data.spec.concurrent
        )
        return Setup(
            images=data.images,
            splits=data.splits,
            numerics=numerics,
            family_numerics=data.family_numerics,
            cores=self.site.cores(self.device),
            workers=in_all,
            workers_per_machine=on_one,
            site=self.site,
        )

    @contextmanager
    def _reporting(self, stage: str) -> Iterator[Callable[[float, str], None]]:
        """Report a stage's start and end; yield a function that reports its progress."""

        def report(event: StageReported) -> None:
            notify(self.observers, replace(event, time=self.clock()))

        report(StageReported(stage=stage, status="started", fraction=0.0))
        yield lambda fraction, detail: report(
            StageReported(stage=stage, status="progress", fraction=fraction, detail=detail)
        )
        report(StageReported(stage=stage, status="finished", fraction=1.0))


def _check(journal: Journal, prepared: _Prepared) -> None:
    """Refuse images or initial weights other than those the run started with.

    A run that has all its results needs neither: its report says if the images have changed.
    """
    data = prepared.data
    if {*prepared.stages} - {"report"}:
        require_same_split(data.folder, journal.state, data.splits.split_id)
    if not {"sweep", "seeds"}.isdisjoint(prepared.stages):
        require_same_weights(data.folder, journal.state, data.spec)


def _log_notes(prepared: _Prepared) -> None:
    """Log once what was left out of the data set, merged or read in part, and rare classes."""
    for note in prepared.families_left_out:
        log.warning("%s", note)
    data = prepared.data
    notes = notes_on(data.images, data.splits)
    if notes:
        lines = "".join(f"\n  {note}" for note in notes)
        log.warning("data set %s:%s", data.images.name, lines)


def _announce(
    emitter: Emitter,
    prepared: _Prepared,
    *,
    asked: SweepSpec,
    settings: Sequence[Mapping[str, Any]],
    address: str | None,
    time_budget: float | None,
) -> None:
    """Emit the run's start or resume, and its plan."""
    data = prepared.data
    if emitter.state.started is None:
        emitter.emit(
            replace(
                started_event(
                    data.folder,
                    data.spec,
                    data.images,
                    data.splits,
                    asked=asked,
                    settings=settings,
                    notes=prepared.families_left_out,
                ),
                address=address,
                time_budget=time_budget,
            )
        )
    else:
        before, now = spec_of_run(data.folder), data.spec
        emitter.emit(
            RunResumed(
                run=data.folder.name,
                machine=machine_description(),
                code_version=code_version(),
                data=now.dataset.path if now.dataset.path != before.dataset.path else None,
                disk_gb=now.disk_gb if now.disk_gb != before.disk_gb else None,
                address=address,
            )
        )
    if prepared.plan is not None:
        first = next(stage for stage in STAGES if stage in prepared.stages)
        emitter.emit(prepared.plan.event(first))
