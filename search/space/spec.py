"""The specification of a sweep: the YAML, checked, with every default in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import yaml

from common.errors import SpecError
from common.parsing import to_mapping
from common.uris import require_no_credentials
from journal.events import STAGES
from search.space.sections import (
    FamilySpec,
    GateSpec,
    RobustnessSpec,
    SelectionSpec,
    StudentSpec,
    TargetSpec,
)
from search.space.space import Family, Space
from search.space.trial_count import DEFAULT_TRIALS, enough_trials, pool_note
from trainables.data.dataset import DatasetSpec
from trainables.data.splits import SplitSpec
from trainables.hyperparameters import Architecture, Optimization
from trainables.recipe import Recipe, check_length

NOT_INHERITED = (
    "pretrained",
    "drop_path",
    "layer_decay",
    "stages",
    "rotation_weight",
    "superclass_weight",
    "superclasses",
)
"""Recipe values that a student with another network does not inherit from the sweep. The initial
weights do not fit it, and the stages were chosen for them; it may lack the residual paths that
`drop_path` and the groups of layers that `layer_decay` need; the teacher has no auxiliary tasks."""

OPTIMIZER_KEYS = frozenset(item.metadata.get("key") or item.name for item in fields(Optimization))

UNNEEDED_STAGES = {"single": ("seeds", "distill"), "ensemble": ("distill",), "student": ()}
"""Stages that a run skips, by what it delivers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """The specification of a whole run: data, search, ensemble, student, gates."""

    name: str
    """Name of the sweep; by default the YAML file's."""
    description: str = ""
    """One or two sentences for reports and MLflow."""
    dataset: DatasetSpec = field(default_factory=DatasetSpec)
    splits: SplitSpec = field(default_factory=SplitSpec)
    seed: int = 0
    """Root of every random stream of the run."""
    trials: int | None = None
    """Number of trials without a time budget; null for as many as the ensemble needs (see
    search/space/trial_count.py; 24 if a single model is delivered). With a time budget, as many as
    it allows."""
    rungs: tuple[int, ...] = (3, 9, 27)
    """Epochs after which trials are scored and the worse ones stopped, rising."""
    reduction_factor: int = 3
    """About one trial in this many continues after each rung."""
    startup_trials: int = 8
    """Random trials before TPE models the space."""
    concurrent: int | None = None
    """Trials at a time; null for one per core on CPUs, one per GPU on GPUs."""
    resource: Literal["epochs", "compute"] = "epochs"
    """Meaning of a rung. `epochs`: passes over the training images. `compute`: an epoch is as much
    computation for every trial, so a cheap network sees more images in it than an expensive one.
    """
    recipe: dict[str, Any] = field(default_factory=dict)
    """Recipe values that all trials share (see Recipe)."""
    families: dict[str, FamilySpec] = field(default_factory=dict)
    """Ways to train that exclude each other, by name: the search chooses among them too. The first
    one stands for the others where one recipe is meant."""
    space: dict[str, Any] = field(default_factory=dict)
    """Recipe values that are searched (see search/space/space.py)."""
    deliver: Literal["single", "ensemble", "student"] = "student"
    """Result of the run: `single` trains neither seeds nor a student and selects one trial,
    `ensemble` trains no student."""
    members: int = 5
    """Largest ensemble, in members; also the number of seeds of the best recipe."""
    selection: SelectionSpec = field(default_factory=SelectionSpec)
    student: StudentSpec = field(default_factory=StudentSpec)
    gates: GateSpec = field(default_factory=GateSpec)
    robustness: RobustnessSpec = field(default_factory=RobustnessSpec)
    target: TargetSpec | None = None
    """Row of `quorum ladder`; null for none."""
    disk_gb: float = 50.0
    """Disk space that the run's folder may take, in GB. Weights of trials that are unlikely to be
    selected are removed first; then no more trials start."""
    storage: str | None = None
    """Place of the checkpoints while trials train: a folder that all nodes of a cluster share, or
    a URI such as s3://bucket/prefix. Null keeps them in the run's folder; the nodes of a cluster
    reach it through Ray."""
    pictures: bool = True
    """Show images of the data set in reports and artifacts."""

    def __post_init__(self) -> None:
        """Refuse impossible values; the message names the value and what to do."""
        for name, least in (("trials", 1), ("reduction_factor", 2), ("members", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SpecError(f"{name} must be at least {least}, got {value}")
        if self.deliver == "single" and self.selection.source == "seeds":
            raise SpecError(
                "deliver is single, which trains no seeds, so selection.source cannot be seeds; "
                "choose another source, or deliver an ensemble"
            )
        if self.storage is not None:
            require_no_credentials(self.storage, where="storage")
        if not self.disk_gb > 0:
            raise SpecError(f"disk_gb must be more than 0, got {self.disk_gb}")
        if self.concurrent is not None and self.concurrent < 1:
            raise SpecError(f"concurrent must be at least 1, got {self.concurrent}")
        if not self.rungs or list(self.rungs) != sorted(set(self.rungs)) or self.rungs[0] < 1:
            raise SpecError(f"rungs must be rising epoch counts, got {list(self.rungs)}")
        both = sorted(set(self.recipe) & set(self.space))
        if both:
            raise SpecError(f"{both[0]!r} is both in recipe and in space; keep one")
        for name, family in self.families.items():
            both = sorted(set(family.recipe) & set(family.space))
            if both:
                raise SpecError(
                    f"families: {name}: {both[0]!r} is both in recipe and in space; keep one"
                )
        parts = [self.recipe, self.space]
        parts += [part for f in self.families.values() for part in (f.recipe, f.space)]
        if any("epochs" in part for part in parts):
            raise SpecError("epochs is the last of `rungs`; set it there")
        self.base_recipe()

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the run, in order."""
        return tuple(stage for stage in STAGES if stage not in UNNEEDED_STAGES[self.deliver])

    @property
    def most_members(self) -> int:
        """The most members that the selection may have."""
        return 1 if self.deliver == "single" else self.members

    @property
    def trial_count(self) -> int:
        """Number of trials without a time budget, derived from members and rungs if not set."""
        if self.trials is not None:
            return self.trials
        return (
            DEFAULT_TRIALS if self.deliver == "single" else max(DEFAULT_TRIALS, self.enough_trials)
        )

    @property
    def enough_trials(self) -> int:
        """The fewest trials, for these rungs, that give the ensemble enough to choose from."""
        return enough_trials(
            self.most_members, rungs=len(self.rungs), reduction_factor=self.reduction_factor
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for a run without a time budget: too few trials."""
        if self.deliver == "single":
            return ()
        note = pool_note(
            self.trial_count,
            self.members,
            rungs=len(self.rungs),
            reduction_factor=self.reduction_factor,
        )
        return () if note is None else (note,)

    @property
    def crops(self) -> bool:
        """True if a recipe of the run may use random crops, in any stage."""
        families, student = to_mapping(self.families), to_mapping(self.student)
        return _may_crop([self.recipe, self.space, families, student])

    def base_recipe(self) -> Recipe:
        """Return the recipe before the searched values; with families, that of the first."""
        families = self.family_recipes()
        return next(iter(families.values())) if families else self.shared_recipe()

    def shared_recipe(self) -> Recipe:
        """Return the values that all trials share."""
        return self._recipe(self.recipe, where="recipe")

    def family_recipes(self) -> dict[str, Recipe]:
        """Return the values of each family that are not searched."""
        return {
            name: self._recipe(
                {**self.recipe, **family.recipe, "family": name}, where=f"families: {name}: recipe"
            )
            for name, family in self.families.items()
        }

    def first_recipes(self) -> dict[str, Recipe]:
        """Return the recipe of each family's first trial, as far as it is not drawn.

        Without families, the only key is the empty string.
        """
        space = self.search_space()
        return {name: space.first_recipe(name) for name in (self.families or {"": FamilySpec()})}

    def search_space(self, *, where: str = "space") -> Space:
        """Return the searched values; `where` names their place for messages."""
        recipes = self.family_recipes()
        families = {
            name: Family(recipe=recipes[name], fixed=frozenset(family.recipe), space=family.space)
            for name, family in self.families.items()
        }
        return Space.from_mapping(
            self.space, base=self.shared_recipe(), families=families, where=where
        )

    def student_recipe(self) -> Recipe:
        """Return the recipe of a student with random weights."""
        shared = self.shared_recipe().to_mapping()
        for name in NOT_INHERITED:
            del shared[name]
        return self._student_recipe({**shared, **self.student.recipe}, where="student: recipe")

    def tuned_student_recipe(self, best: Recipe) -> Recipe:
        """Return the recipe of a student that starts from a trial with the recipe `best`.

        The whole network is trained, in one stage, on all training images. If `best` trained only
        its head, its other values do not suit this; they come from the base recipe, or for a
        network from scratch from its family's. A network from scratch also keeps its optimizer if
        the sweep's first recipe is pretrained, because `tuning` then has rates for fine-tuning.
        """
        stages = best.schedule.stages
        values, tuning, base = best.to_mapping(), dict(self.student.tuning), self.base_recipe()
        if base.architecture.pretrained and not best.architecture.pretrained:
            base = self.family_recipes().get(best.architecture.family, base)
            tuning = {key: value for key, value in tuning.items() if key not in OPTIMIZER_KEYS}
        if stages and stages[-1].train == "head":
            network = {item.name: values[item.name] for item in fields(Architecture)}
            values = {**base.to_mapping(), **network}
        values |= {"stages": [], "train_share": 1.0, **tuning}
        return self._student_recipe(values, where="student: tuning")

    def expected_student_recipe(self) -> Recipe:
        """Return the student's recipe before the search: the base recipe stands for the best."""
        if self.student.start == "best_single":
            return self.tuned_student_recipe(self.base_recipe())
        return self.student_recipe()

    def _recipe(self, values: Mapping[str, Any], *, where: str) -> Recipe:
        recipe = Recipe.from_mapping({**values, "epochs": self.rungs[-1]}, where=where)
        check_length(recipe, where="rungs")
        return recipe

    def _student_recipe(self, values: Mapping[str, Any], *, where: str) -> Recipe:
        recipe = Recipe.from_mapping(values, where=where)
        check_length(recipe, where=f"{where}: epochs")
        return recipe

    def with_values(self, **values: Any) -> "SweepSpec":
        """Return a copy with some fields replaced."""
        return replace(self, **values)

    @property
    def largest_input(self) -> int | None:
        """The largest side that a family's network resizes images to; None without families."""
        sides = [0]
        for family in self.families.values():
            entry = family.space.get("input_size", {})
            sides += [family.recipe.get("input_size", 0), *entry.get("choices", ())]
            sides.append(entry.get("high", 0))
        return max(sides) or None

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values, ready for YAML."""
        mapping: dict[str, Any] = to_mapping(self)
        return mapping

    def to_yaml(self) -> str:
        """Return the resolved specification, as it is written to a run's sweep.yaml."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)


def _may_crop(values: object) -> bool:
    """Return whether plain recipe values or a space, at any depth, have a crop_scale below 1."""
    if isinstance(values, list | tuple):
        return any(_may_crop(value) for value in values)
    if not isinstance(values, Mapping):
        return False
    scale = values.get("crop_scale")
    if isinstance(scale, Mapping):
        scale = min([scale.get("low", 1.0), *(scale.get("choices") or ())])
    below = isinstance(scale, int | float) and scale < 1
    return below or any(_may_crop(value) for value in values.values())
