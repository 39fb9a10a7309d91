"""One run, open for work: its data, its plan, its journal, and the stages that report to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from journal.emitter import Emitter
from journal.events import Event, StageReported
from journal.state import RunState
from search.space.spec import SweepSpec
from search.timetable.capacity import threads_per_trial
from search.timetable.measuring import probe_families
from search.timetable.plan import Plan
from search.timetable.site import Site, ThisMachine
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder

Progress = Callable[[float, str], None]
"""Reports the share of a stage that is done, in [0, 1], and a detail in words."""


@dataclass(slots=True, kw_only=True)
class RunData:
    """The images of a run, and the numerics of its trials."""

    folder: RunFolder
    spec: SweepSpec
    images: ImageSet
    splits: Splits
    device: str | None
    """`cpu`, `cuda`, or None for a GPU if there is one."""
    site: Site = field(default_factory=ThisMachine)
    """The machine or cluster that runs the trials."""
    _numerics: dict[str, Numerics] = field(default_factory=dict)

    @property
    def numerics(self) -> Numerics:
        """Numerics of the sweep's first family; see `family_numerics`."""
        return next(iter(self.family_numerics.values()))

    @property
    def family_numerics(self) -> dict[str, Numerics]:
        """Numerics by family: those of earlier trials, or else what a probe of its network chooses.

        Without families, the only key is the empty string.
        """
        if not self._numerics:
            known = {s.recipe.architecture.family: s.numerics for s in self.folder.starts()}
            recipes = self.spec.first_recipes()
            threads = 1
            if not known.keys() >= recipes.keys():
                threads = threads_per_trial(
                    self.site.cores(self.device),
                    concurrent=self.spec.concurrent,
                    trials=self.spec.trial_count,
                )
            self._numerics = probe_families(
                recipes, partial(self.probe, threads=threads), known=known
            )
        return self._numerics

    def probe(self, recipe: Recipe, *, threads: int) -> Numerics:
        """Measure which dtype and layout are fastest for a recipe where trials run."""
        return self.site.probe(recipe, self.images, device=self.device, threads=threads)


class Run:
    """An open run, as returned by `quorum.workspace.opening.open_run`."""

    def __init__(
        self,
        data: RunData,
        emitter: Emitter,
        *,
        plan: Plan | None,
        began: float,
        deadline: float | None,
        tracking_uri: str,
        workers: int | None = None,
    ) -> None:
        """`began` and `deadline` are in unix seconds."""
        self.folder = data.folder
        self.spec = data.spec
        """The specification, with planned schedules."""
        self.images = data.images
        self.splits = data.splits
        self.emitter = emitter
        self.plan = plan
        """None if nothing is left to be trained."""
        self.began = began
        self.deadline = deadline
        self.tracking_uri = tracking_uri
        """MLflow's store."""
        self.workers = workers or data.spec.concurrent
        """Largest number of concurrent trials; None for as many as fit."""
        self._data = data

    @property
    def state(self) -> RunState:
        """The run's state after the last event."""
        return self.emitter.state

    @property
    def numerics(self) -> Numerics:
        """Numerics of the first family's trials: earlier ones, or what a probe chooses."""
        return self._data.numerics

    @property
    def family_numerics(self) -> dict[str, Numerics]:
        """Numerics of the trials by family."""
        return self._data.family_numerics

    def probe(self, recipe: Recipe, *, threads: int) -> Numerics:
        """Measure which dtype and layout are fastest for a recipe where trials run."""
        return self._data.probe(recipe, threads=threads)

    @property
    def cores(self) -> int:
        """Cores of a machine that trains."""
        return self._data.site.cores(self.numerics.device)

    @property
    def site(self) -> Site:
        """The machine or cluster that runs the trials."""
        return self._data.site

    def end_of(self, stage: str) -> float | None:
        """Return when a stage must end to leave time for later stages, in unix seconds."""
        return None if self.plan is None else self.plan.end_of(stage)

    def cutoff(self, stage: str) -> float | None:
        """Return when a stage is cut off (see `Plan.cutoff`), in unix seconds."""
        return None if self.plan is None else self.plan.cutoff(stage)

    def revise(self, plan: Plan, *, at: str) -> None:
        """Replace the plan, from the stage `at` on."""
        self.plan = plan
        self.emit(plan.event(at))

    def emit(self, event: Event) -> None:
        """Journal an event, then pass it to the observers; raises as `Emitter.emit`."""
        self.emitter.emit(event)

    @contextmanager
    def stage(self, name: str, *, trials: int | None = None) -> Iterator[Progress]:
        """Report a stage's start and end; yields a function that reports its progress.

        `trials` is how many trials the stage will train, if it differs from the specification.
        """

        def progress(fraction: float, detail: str = "") -> None:
            self._report(name, "progress", fraction, detail)

        started = StageReported(stage=name, status="started", fraction=0.0, trials=trials)
        self.emit(started)
        yield progress
        self._report(name, "finished", 1.0, "")

    def wants(self, name: str) -> bool:
        """Return whether the run includes a stage; report it as skipped if not.

        The specification may leave it out, or the plan may if there is too little time.
        """
        if name not in self.spec.stages:
            self.skip(name, f"the run delivers: {self.spec.deliver}")
            return False
        if self.plan is not None and self.plan.deadline is not None and not self.plan.seconds[name]:
            self.skip(name, "the time budget is too short for it")
            return False
        return True

    def skip(self, name: str, because: str = "its result is there") -> None:
        """Report that a stage has nothing to do."""
        self._report(name, "skipped", 1.0, because)

    def _report(
        self,
        name: str,
        status: Literal["progress", "finished", "skipped"],
        fraction: float,
        detail: str,
    ) -> None:
        self.emit(StageReported(stage=name, status=status, fraction=fraction, detail=detail))
