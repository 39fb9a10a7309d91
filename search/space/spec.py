"""A sweep's specification: what the YAML says, checked, with every default in one place."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from common.errors import SpecError
from common.parsing import from_mapping, to_mapping
from journal.states import STAGES
from search.space.settings import Profile, merged, with_profile, with_settings
from search.space.space import Space
from trainables.data.dataset import DatasetSpec
from trainables.data.splits import SplitSpec
from trainables.recipe import Recipe, check_length
from trainables.records import RunFolder

SHIPPED = Path(__file__).parent.parent / "sweeps"

TRIALS_ALONE = ("pretrained", "stages", "rotation_weight", "superclass_weight", "superclasses")
"""Recipe values that the student has by its own recipe only: weights are those of another net,
stages are laid for these weights, and what it is to learn besides labels its teacher knows."""

LEFT_OUT = {"single": ("seeds", "distill"), "ensemble": ("distill",), "student": ()}
"""Stages that a run does not need for what it delivers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentSpec:
    """The net that ships, and how it is taught."""

    recipe: dict[str, Any] = field(default_factory=dict)
    """Recipe values; what is not given comes from the sweep's `recipe`, but for TRIALS_ALONE."""
    alpha: float = 0.9
    """Weight of the teacher's loss; the labels have the rest."""
    tau: float = 4.0
    """Temperature of the teacher's loss."""

    def with_recipe(self, **values: Any) -> "StudentSpec":
        """A copy with some recipe values replaced."""
        return replace(self, recipe={**self.recipe, **values})


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """Margins of the release gates, decided on holdout."""

    max_accuracy_loss: float = 0.02
    """Student int8 may be at most this much less accurate than the ensemble."""
    max_nll_gain: float = 0.10
    """Student int8 may have at most this much more NLL than the student in fp32."""
    min_speedup: float = 1.0
    """The int8 student must be at least this much faster than in fp32, batch 1."""
    min_shrink: float = 1.5
    """The int8 file must be at least this much smaller than the fp32 file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """What a run is meant to reach on test: its row of `quorum ladder`."""

    row: Literal["best_single", "ensemble", "student"] = "best_single"
    """The row of the ledger that is judged; `student` is the one that ships."""
    accuracy: float | None = None
    """At least this share of the test images."""
    over: str = ""
    """Name of a sweep whose judged row must be less accurate, beyond doubt."""
    max_loss: float | None = None
    """It may be at most this much less accurate than the ensemble."""

    def __post_init__(self) -> None:
        """Refuse shares outside of 0 to 1."""
        for name in ("accuracy", "max_loss"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SpecError(f"{name} must lie in [0, 1], got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A whole run: data, search, ensemble, student, gates."""

    name: str
    description: str = ""
    dataset: DatasetSpec = field(default_factory=DatasetSpec)
    splits: SplitSpec = field(default_factory=SplitSpec)
    seed: int = 0
    """Root of every random stream of the run."""
    trials: int = 24
    rungs: tuple[int, ...] = (3, 9, 27)
    """Epoch budgets at which trials are scored and the worse ones stopped."""
    reduction_factor: int = 3
    """ASHA keeps about one in this many at each rung."""
    startup_trials: int = 8
    """Random trials before TPE models the space."""
    concurrent: int | None = None
    """Trials at a time; null uses one per core (CPU) or per GPU."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Recipe values that all trials share."""
    space: dict[str, Any] = field(default_factory=dict)
    """Recipe values that are searched: see search/space/space.py."""
    deliver: Literal["single", "ensemble", "student"] = "student"
    """What the run ends with: `single` trains neither seeds nor a student and chooses one
    trial, `ensemble` no student."""
    members: int = 5
    """Most members of the ensemble; also how many seeds of the best are trained."""
    student: StudentSpec = field(default_factory=StudentSpec)
    gates: GateSpec = field(default_factory=GateSpec)
    target: TargetSpec | None = None
    pictures: bool = True
    """Show images of the data set in reports and artifacts."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming the value and the mend."""
        if self.trials < 1:
            raise SpecError(f"trials must be at least 1, got {self.trials}")
        if not self.rungs or list(self.rungs) != sorted(set(self.rungs)) or self.rungs[0] < 1:
            raise SpecError(f"rungs must be rising epoch counts, got {list(self.rungs)}")
        if self.reduction_factor < 2:
            raise SpecError(f"reduction_factor must be at least 2, got {self.reduction_factor}")
        if self.members < 1:
            raise SpecError(f"members must be at least 1, got {self.members}")
        if self.concurrent is not None and self.concurrent < 1:
            raise SpecError(f"concurrent must be at least 1, got {self.concurrent}")
        both = sorted(set(self.recipe) & set(self.space))
        if both:
            raise SpecError(f"{both[0]!r} stands both in recipe and in space; keep one")
        if "epochs" in self.recipe or "epochs" in self.space:
            raise SpecError("epochs is the last of `rungs`; set it there")
        self.base_recipe()

    @property
    def stages(self) -> tuple[str, ...]:
        """What the run goes through, in order."""
        return tuple(stage for stage in STAGES if stage not in LEFT_OUT[self.deliver])

    @property
    def most_members(self) -> int:
        """Of what is selected."""
        return 1 if self.deliver == "single" else self.members

    def base_recipe(self) -> Recipe:
        """The recipe that all trials start from, before the searched values."""
        values = {**self.recipe, "epochs": self.rungs[-1]}
        recipe = Recipe.from_mapping(values, where="recipe")
        check_length(recipe, where="rungs")
        return recipe

    def student_recipe(self) -> Recipe:
        """The student's recipe."""
        shared = self.base_recipe().to_mapping()
        for name in TRIALS_ALONE:
            del shared[name]
        values = {**shared, **self.student.recipe}
        recipe = Recipe.from_mapping(values, where="student: recipe")
        check_length(recipe, where="student: recipe: epochs")
        return recipe

    def with_values(self, **values: Any) -> "SweepSpec":
        """A copy with some fields replaced."""
        return replace(self, **values)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, ready for YAML."""
        mapping: dict[str, Any] = to_mapping(self)
        return mapping

    def to_yaml(self) -> str:
        """The resolved specification, as it stands in a run's sweep.yaml."""
        return yaml.safe_dump(self.to_mapping(), sort_keys=False, allow_unicode=True)


def load_spec(
    sweep: str | Path, *, profile: Profile | None = None, settings: Sequence[str] = ()
) -> SweepSpec:
    """Load a shipped sweep by name, or a YAML file by path.

    A sweep may have `profiles`, values that suit one kind of device; None takes the GPU's
    where there is one. `settings` such as `recipe.width=64` come last.

    Raises:
        SpecError: no such sweep, broken YAML, an unknown key or an impossible value.
    """
    path = _find(sweep)
    mapping = _read(path)
    if isinstance(mapping, dict):
        mapping = with_settings(with_profile(mapping, profile, where=str(sweep)), settings)
    return spec_from_mapping(mapping, where=str(sweep), default_name=path.stem)


def spec_from_mapping(
    mapping: object, *, where: str = "sweep", default_name: str = "sweep"
) -> SweepSpec:
    """A specification from plain values, with its space checked."""
    if isinstance(mapping, Mapping) and "name" not in mapping:
        mapping = {"name": default_name, **mapping}
    spec = from_mapping(SweepSpec, mapping, where=where)
    Space.from_mapping(spec.space, base=spec.base_recipe(), where=f"{where}: space")
    spec.student_recipe()
    return spec


def spec_of_run(folder: RunFolder) -> SweepSpec:
    """The specification that a run was started with."""
    return load_spec(folder.require().sweep)


def parse_duration(text: str | None) -> float | None:
    """Seconds in a duration like `45s`, `90m`, `2h` or `1h30m`; None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    try:
        parts = [float(part or 0) for part in match.groups()] if match and text.strip() else []
    except ValueError:
        parts = []
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds > 0:
        raise SpecError(f"{text!r} is not a duration; write it like 45s, 90m, 2h or 1h30m")
    return seconds


def shipped_names() -> list[str]:
    """The names of the sweeps that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _read(path: Path, *, by: Sequence[Path] = ()) -> Any:
    """The values of a YAML file, over those of the sweep that it `extends`, if it does."""
    try:
        mapping = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise SpecError(f"{path}{place}: {problem}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None
    if not isinstance(mapping, dict) or "extends" not in mapping:
        return mapping
    name = str(mapping.pop("extends"))
    base = _find(name if name in shipped_names() else path.parent / name)
    if base in (path, *by):
        raise SpecError(f"{path} extends {name!r}, which extends it")
    found = _read(base, by=(path, *by))
    return merged({**found, "name": path.stem}, mapping) if isinstance(found, dict) else found


def _find(sweep: str | Path) -> Path:
    shipped = SHIPPED / f"{sweep}.yaml"
    if str(sweep) in shipped_names():
        return shipped
    path = Path(sweep)
    if path.is_file():
        return path
    names = ", ".join(shipped_names())
    raise SpecError(f"no sweep {str(sweep)!r}: neither a YAML file nor a shipped sweep ({names})")
