"""One run, open for work: its data, its journal, its observers, its deadline.

All that happens in a run is an event: journalled first, then handed to the observers (the
live display, the MLflow mirror), who cannot stop it.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from common.cpu_runtime import share_arena, usable_cores, wait_passively
from common.errors import RunError
from common.files import write_bytes_atomically
from common.provenance import code_version, machine_description
from common.telemetry import disable_telemetry
from journal.journal import Event, Journal, Observer
from journal.states import STAGES
from quorum.workspace.checks import (
    require_same_split,
    require_same_weights,
    spec_to_resume,
    stages_left,
    started_event,
    write_labels,
)
from search.mlflow.tracking import MlflowMirror
from search.space.spec import SweepSpec
from search.timetable.capacity import machine_capacity, threads_per_trial
from search.timetable.plan import Plan
from search.timetable.planner import Planner, Setup, make_plan, plan_or_shrink, probe_numerics
from trainables.data.dataset import DatasetSpec, load_dataset, resolve_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, make_splits
from trainables.recipe import Numerics
from trainables.records import RunFolder

log = logging.getLogger(__name__)


class Run:
    """A context: entering it loads the data, takes the folder's lock and opens the journal."""

    def __init__(
        self,
        folder: RunFolder | str | Path,
        spec: SweepSpec,
        *,
        resume: bool = False,
        stages: Collection[str] | None = None,
        time_budget: float | None = None,
        began: float | None = None,
        address: str | None = None,
        device: str | None = None,
        observers: Sequence[Observer] = (),
        planner: Planner = make_plan,
    ) -> None:
        """Nothing is read, written or locked before the block is entered.

        `stages` are those that are to run; all that the specification needs by default.
        `time_budget` is in seconds from `began` (unix seconds; now by default). `address` is
        of the Ray cluster that will train. `device` is `cpu`, `cuda`, or None for a GPU
        where there is one. `planner` is called as `make_plan` is.
        """
        root = folder.root if isinstance(folder, RunFolder) else Path(folder)
        # Absolute: Ray is started from within the folder, while other threads write to it.
        self.folder = RunFolder(root.absolute())
        self.spec = spec
        """As given; once entered, with the schedules that were planned."""
        self.plan: Plan | None = None
        """None where nothing is left to be trained."""
        self.began = began or time.time()
        self.deadline = None if time_budget is None else self.began + time_budget
        """In unix seconds."""
        self._asked = spec
        self._stages = spec.stages if stages is None else stages
        self._resume = resume
        self._address, self._device = address, device
        self._planner = planner
        self._observers = list(observers)
        self._stack = ExitStack()

    def __enter__(self) -> "Run":
        """Open the run.

        Raises:
            DataError: the data cannot be used; no folder is made then.
            SpecError: the time budget is too short for anything.
            RunError: the folder holds another run, or one that is at work.
        """
        disable_telemetry()
        wait_passively()
        share_arena()
        resumed = self.folder.sweep.exists()
        if resumed:
            if not self._resume:
                raise RunError(
                    f"{self.folder.root} holds a run; resume it, or choose another folder"
                )
            self.spec = spec_to_resume(self.folder, self.spec)
        split_id = self._prepare(resumed)
        with ExitStack() as stack:
            self.folder.root.mkdir(parents=True, exist_ok=True)
            self.journal = stack.enter_context(Journal(self.folder.journal))
            require_same_split(self.folder, self.journal.events, split_id)
            if not {"sweep", "seeds"}.isdisjoint(self._stages):
                require_same_weights(self.folder, self.journal.events, self.spec)
            if not self.folder.sweep.exists():
                write_bytes_atomically(self.folder.sweep, self.spec.to_yaml().encode())
            write_labels(self.folder, self.images, self.splits)
            mirror = stack.enter_context(MlflowMirror(self.folder))
            self.tracking_uri = mirror.uri
            self._observers.append(mirror.handle)
            self._announce()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flush the mirror, release the lock."""
        self._stack.close()

    @cached_property
    def images(self) -> ImageSet:
        """The data set."""
        return load_dataset(self.spec.dataset, progress=self._decoding)

    @cached_property
    def splits(self) -> Splits:
        """Who is in train, val, holdout and test."""
        return make_splits(self.images, self.spec.splits)

    @cached_property
    def numerics(self) -> Numerics:
        """How trials compute: as the trials so far did, else by a probe of this machine."""
        for start in self.folder.starts():
            return start.numerics
        spec = self.spec
        threads = threads_per_trial(usable_cores(), concurrent=spec.concurrent, trials=spec.trials)
        return self.probe(threads=threads)

    def probe(self, *, threads: int) -> Numerics:
        """Measure which dtype and layout serve this machine best."""
        return probe_numerics(self.spec, self.images, device=self._device, threads=threads)

    def end_of(self, stage: str) -> float | None:
        """When a stage must be over for the later ones to have their time, in unix seconds."""
        return None if self.plan is None else self.plan.end_of(stage)

    def revise(self, plan: Plan, *, at: str) -> None:
        """From the stage `at` on, another plan holds."""
        self.plan = plan
        self.emit(plan.event(at))

    def emit(self, event: Event) -> None:
        """Journal an event, then tell everybody."""
        self.tell(self.journal.append(event))

    def tell(self, event: Event) -> None:
        """Hand an event that is journalled already to the observers."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception:
                log.exception("an observer failed on %s", event.get("event"))

    @contextmanager
    def stage(self, name: str, **about: Any) -> Iterator[Callable[[float, str], None]]:
        """Announce a stage's start and end; hands out a function to report progress with.

        `about` is what else the event of the start tells.
        """

        def progress(fraction: float, detail: str = "") -> None:
            self._stage(name, "progress", fraction, detail)

        self._stage(name, "started", 0.0, "", **about)
        yield progress
        self._stage(name, "finished", 1.0, "")

    def skip(self, name: str, because: str = "its result is there") -> None:
        """Announce that a stage has nothing to do."""
        self._stage(name, "skipped", 1.0, because)

    def count(self, name: str, **fields: object) -> int:
        """How many events of this name, with these values, the journal holds."""
        return sum(
            event["event"] == name and all(event.get(key) == fields[key] for key in fields)
            for event in self.journal.events
        )

    def _stage(self, name: str, status: str, fraction: float, detail: str, **about: Any) -> None:
        self.emit(
            {
                "event": "stage",
                "stage": name,
                "status": status,
                "fraction": fraction,
                "detail": detail,
                **about,
            }
        )

    def _prepare(self, resumed: bool) -> str:
        """Read the data, measure the machine, plan; the split's name. Only observers are told."""
        split_id = self._read(None if resumed else resolve_dataset(self.spec.dataset))
        self._stages = stages_left(self.folder, self._stages)
        if not self._stages or (self.deadline is None and (resumed or "sweep" not in self._stages)):
            return split_id
        asked = self._asked.dataset
        self.plan = plan_or_shrink(
            self._planned,
            lambda side: self._read(resolve_dataset(asked, affordable=side)),
            image_size=self.images.image_size,
            keep_size=resumed or asked.image_size is not None,
        )
        if self.deadline is not None and not resumed:
            self.spec = self.plan.apply_to(self.spec)
        return self.splits.split_id

    def _read(self, dataset: DatasetSpec | None) -> str:
        """The images of `dataset` from now on, if one is given; the name of their split."""
        with self._preparing("data"):
            if dataset is not None:
                self.spec = self.spec.with_values(dataset=dataset)
                for name in ("images", "splits", "numerics"):
                    self.__dict__.pop(name, None)
            return self.splits.split_id

    def _planned(self) -> Plan:
        with self._preparing("probe"):
            return self._planner(
                self.spec,
                self._setup(),
                clock=time.time,
                deadline=self.deadline,
                stages=self._stages,
                keep_rungs=self.folder.sweep.exists(),
            )

    def _setup(self) -> Setup:
        """Return the data and the machines that the plan is made for."""
        numerics = self.numerics
        from search.tune.session import capacity_at  # imports Ray

        workers = self.spec.concurrent or capacity_at(self._address, numerics).trials_at_a_time(
            numerics
        )
        # The machines of a cluster are assumed to be like this one.
        here = (
            workers
            if self._address is None
            else machine_capacity(numerics).trials_at_a_time(numerics)
        )
        return Setup(
            images=self.images,
            splits=self.splits,
            numerics=numerics,
            cores=usable_cores(),
            workers=workers,
            workers_per_machine=min(workers, here),
        )

    @contextmanager
    def _preparing(self, stage: str) -> Iterator[None]:
        """A stage before the journal is there: a run that fails here leaves no folder."""
        now = {"event": "stage", "stage": stage, "detail": ""}
        self.tell({**now, "status": "started", "fraction": 0.0, "time": time.time()})
        yield
        self.tell({**now, "status": "finished", "fraction": 1.0, "time": time.time()})

    def _decoding(self, fraction: float, detail: str) -> None:
        now = {"event": "stage", "stage": "data", "status": "progress", "time": time.time()}
        self.tell({**now, "fraction": fraction, "detail": detail})

    def _announce(self) -> None:
        about = {"run": self.folder.name, "machine": machine_description()}
        about["code_version"] = code_version()
        if any(event["event"] == "run_started" for event in self.journal.events):
            self.emit({"event": "run_resumed", **about})
        else:
            asked = {"asked": self._asked.to_mapping(), **about}
            self.emit(started_event(self.spec, self.images, self.splits, **asked))
        if self.plan is not None:
            first = next(stage for stage in STAGES if stage in self._stages)
            self.emit(self.plan.event(first))
